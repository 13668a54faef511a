"""Targets with a fault each, to see that the driver finds it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from peerupd.model.errors import ProtocolViolation
from tests.fuzz import bounds
from tests.fuzz.target import Target

bounds.ENDLESS = 0.2


def _undeclared(data: bytes) -> None:
    if b"\xff" in data:
        raise KeyError("a bug")
    raise ProtocolViolation("no")


def _endless(data: bytes) -> None:
    while b"\xff" in data:
        pass


def _bomb(data: bytes) -> int:
    return len(bytes(bounds.PROCESS_MEMORY)) if b"\xff" in data else 0


def _deadly(data: bytes) -> None:
    if b"\xff" in data:
        ctypes.string_at(0)


def _fine(data: bytes) -> bool:
    return len(data) > 3


_ALL: dict[str, Callable[[bytes], object]] = {
    "fine": _fine,
    "undeclared": _undeclared,
    "endless": _endless,
    "bomb": _bomb,
    "deadly": _deadly,
}
TARGETS = {name: Target(name, run, lambda: [b"seed", b"a longer seed than that"]) for name, run in _ALL.items()}
