"""Handshakes that have begun: how many there may be, who gives way when there are more, who has to stand in line.

    SILENT ──the first Noise message is there──▶ IN_LINE ──its turn came──▶ SHAKING ──▶ a peer, or an end

Theory of operation. A handshake holds a place, counted by where it comes from. When a place is wanted and there is
none, another handshake makes room, not the newcomer: of its own address, or of the address that holds most, the oldest
one of those that have come least far. So whoever says nothing gives way first, and an authorised peer, which speaks at
once and needs milliseconds, gets in although somebody behind the same address holds connections open.

Where too many handshakes have failed, those that speak stand in line (`p2p.rates`). A line lets one go at a time, at a
pace that costs a processor little; the newest goes first, because the oldest is the one that gives way.
Nothing is computed for anybody before its turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NoReturn, TypeVar

import trio

from peerupd.model.errors import LimitReached

MAX_PER_SOURCE: Final = 64  # handshakes
MAX_IN_ALL: Final = 256  # handshakes
PACE: Final = 0.01  # seconds between two turns of the line

T = TypeVar("T")


class Stage(IntEnum):
    """How far a handshake has come."""

    SILENT = 0
    IN_LINE = 1
    SHAKING = 2


@dataclass(eq=False, slots=True)
class Half:
    """One handshake."""

    source: str
    scope: trio.CancelScope
    stage: Stage = Stage.SILENT
    turn: trio.Event = field(default_factory=trio.Event)


class HalfOpen:
    """All handshakes with those who called us."""

    def __init__(self, per_source: int = MAX_PER_SOURCE, in_all: int = MAX_IN_ALL) -> None:
        self._per_source = per_source
        self._in_all = in_all
        self._all: dict[Half, None] = {}  # oldest first
        self._count: Counter[str] = Counter()
        self._line: list[Half] = []
        self._somebody = trio.Event()

    async def hold(self, source: str, handshake: Callable[[Half], Awaitable[T]]) -> T:
        """`handshake` with somebody at `source`; raises `LimitReached` when it had to give way."""
        with trio.CancelScope() as scope:
            self._make_room(source)
            half = Half(source, scope)
            self._all[half] = None
            self._count[source] += 1
            try:
                return await handshake(half)
            finally:
                self._leave(half)
        raise LimitReached(f"too many half-open connections, and of those from {source} this one gave way")

    async def spoke(self, half: Half, *, in_line: bool) -> None:
        """It has sent its first message; returns when that may be answered."""
        if in_line:
            half.stage = Stage.IN_LINE
            self._line.append(half)
            self._somebody.set()
            await half.turn.wait()
        half.stage = Stage.SHAKING

    async def serve_line(self) -> NoReturn:
        """Let those in the line go, one after another."""
        while True:
            while self._line:
                self._line.pop().turn.set()
                await trio.sleep(PACE)
            self._somebody = trio.Event()
            await self._somebody.wait()

    def _make_room(self, source: str) -> None:
        if self._count[source] >= self._per_source:
            self._evict_of(source)
        elif len(self._all) >= self._in_all:
            self._evict_of(self._count.most_common(1)[0][0])

    def _evict_of(self, source: str) -> None:
        half = min((half for half in self._all if half.source == source), key=lambda half: half.stage)
        self._leave(half)
        half.scope.cancel()

    def _leave(self, half: Half) -> None:
        if half not in self._all:
            return
        del self._all[half]
        self._count[half.source] -= 1
        if not self._count[half.source]:
            del self._count[half.source]
        if half in self._line:
            self._line.remove(half)

    def __len__(self) -> int:
        return len(self._all)
