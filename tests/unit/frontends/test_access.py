"""Who holds which rights at the control socket."""

from __future__ import annotations

import os
import socket

import pytest

from peerupd.control.verbs import Access
from peerupd.frontends.access import Caller, Rights, caller_of

SYSTEM = Rights(group=900, owner=901)


@pytest.mark.parametrize(
    ("caller", "rights", "access"),
    [
        (Caller(1, 0, frozenset({0})), SYSTEM, Access.ADMINISTER),
        (Caller(1, 901, frozenset({901})), SYSTEM, Access.ADMINISTER),
        (Caller(1, 1000, frozenset({1000, 900})), SYSTEM, Access.OPERATE),
        (Caller(1, 1000, frozenset({1000})), SYSTEM, None),
        (Caller(1, 1000, frozenset({1000, 900})), Rights(owner=901), None),
    ],
)
def test_root_and_owner_administer_the_group_operates_others_are_refused(
    caller: Caller, rights: Rights, access: Access | None
) -> None:
    assert rights.of(caller) is access


def test_without_words_the_owner_is_this_process() -> None:
    assert Rights().of(Caller(1, os.geteuid(), frozenset())) is Access.ADMINISTER


def test_the_kernel_tells_who_is_at_the_other_end() -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        caller = caller_of(left)
    assert (caller.pid, caller.uid) == (os.getpid(), os.geteuid())
    assert caller.groups >= {os.getegid(), *os.getgroups()}


def test_a_kernel_that_does_not_tell_groups_leaves_the_first_one() -> None:
    class Old:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            if option != socket.SO_PEERCRED:
                raise OSError("unknown option")
            return (5).to_bytes(4, "little") + (6).to_bytes(4, "little") + (7).to_bytes(4, "little")

    assert caller_of(Old()) == Caller(5, 6, frozenset({7}))  # type: ignore[arg-type] # all that is used of a socket
