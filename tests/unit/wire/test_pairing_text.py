"""The older text dialect, the joiner's side."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.errors import InviteRefused, ProtocolViolation
from peerupd.wire.pairing import Paired
from peerupd.wire.pairing_text import MAX_LINE, TextJoiner

TOKEN = bytes(range(0xA0, 0xA8))


@pytest.mark.parametrize(
    ("name", "line"),
    [("laptop", b"a0a1a2a3a4a5a6a7 laptop\n"), ("", b"a0a1a2a3a4a5a6a7\n"), ("a\nERR b", b"a0a1a2a3a4a5a6a7 aERRb\n")],
)
def test_the_token_goes_out_in_hex_with_the_name_if_there_is_one(name: str, line: bytes):
    assert TextJoiner(TOKEN, name).start() == line


@given(st.lists(st.integers(0, 12), max_size=4))
def test_an_ok_in_any_portions_pairs_once(cuts: list[int]):
    joiner, answer, paired = TextJoiner(TOKEN, ""), b"OK ho\x1bme\r\n", []
    at = [0, *sorted(cuts), len(answer)]
    for begin, end in pairwise(at):
        paired += joiner.receive(answer[begin:end])
    assert paired == [Paired("home")]
    assert joiner.receive(b"more\n") == []
    joiner.closed()


@pytest.mark.parametrize("answer", [b"ERR invalid token\n", b"ERR\x1b[31m\n"])
def test_an_err_is_the_inviters_refusal(answer: bytes):
    with pytest.raises(InviteRefused) as refused:
        TextJoiner(TOKEN, "").receive(answer)
    assert "\x1b" not in str(refused.value)


@given(st.binary(max_size=700))
def test_junk_is_a_violation_or_waits(junk: bytes):
    try:
        TextJoiner(TOKEN, "").receive(junk)
    except (ProtocolViolation, InviteRefused):
        return


def test_an_endless_line_is_cut():
    with pytest.raises(ProtocolViolation):
        TextJoiner(TOKEN, "").receive(b"x" * (MAX_LINE + 1))


def test_neither_ok_nor_err_is_a_violation():
    with pytest.raises(ProtocolViolation):
        TextJoiner(TOKEN, "").receive(b"HELLO\n")


def test_an_end_without_an_answer_is_a_refusal():
    with pytest.raises(InviteRefused):
        TextJoiner(TOKEN, "").closed()
