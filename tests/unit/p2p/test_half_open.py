"""Handshakes that have begun: who gives way, who stands in line, in which order the line is served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from peerupd.model.errors import LimitReached
from peerupd.p2p.half_open import PACE, Half, HalfOpen
from tests.support.hosts import until


class Door:
    """Handshakes by name: they begin, may speak, and give way."""

    def __init__(self, half_open: HalfOpen, nursery: trio.Nursery) -> None:
        self.half_open = half_open
        self.gave_way: list[str] = []
        self.shaking: list[str] = []
        self._nursery = nursery
        self._speaks: dict[str, trio.Event] = {}

    async def come(self, *names: str, source: str = "", in_line: bool = False) -> None:
        """Each from `source`, else from a place of the same first letter."""
        for name in names:
            self._speaks[name] = trio.Event()
            self._nursery.start_soon(self._one, name, source or name[0], in_line)
            await trio.testing.wait_all_tasks_blocked()

    async def speak(self, *names: str) -> None:
        for name in names:
            self._speaks[name].set()
            await trio.testing.wait_all_tasks_blocked()

    async def _one(self, name: str, source: str, in_line: bool) -> None:
        async def handshake(half: Half) -> None:
            await self._speaks[name].wait()
            await self.half_open.spoke(half, in_line=in_line)
            self.shaking.append(name)
            await trio.sleep_forever()

        try:
            await self.half_open.hold(source, handshake)
        except LimitReached:
            self.gave_way.append(name)


@asynccontextmanager
async def door(per_source: int = 3, in_all: int = 8) -> AsyncIterator[Door]:
    async with trio.open_nursery() as nursery:
        half_open = HalfOpen(per_source, in_all)
        nursery.start_soon(half_open.serve_line)
        yield Door(half_open, nursery)
        nursery.cancel_scope.cancel()
    assert len(half_open) == 0
    assert not half_open._line


async def test_the_oldest_handshake_from_a_source_gives_way() -> None:
    async with door(per_source=2) as at:
        await at.come("x1", "y1", "x2", "x3", "x4")
        assert at.gave_way == ["x1", "x2"]
        assert len(at.half_open) == 3


async def test_where_all_places_are_taken_the_source_that_holds_most_gives_way() -> None:
    async with door(per_source=10, in_all=5) as at:
        await at.come("x1", "y1", "y2", "y3", "z1", "x2")
        assert at.gave_way == ["y1"]
        await at.come("x3", "x4", "x5")
        assert at.gave_way == ["y1", "x1", "x2", "x3"]


async def test_who_says_nothing_gives_way_before_who_has_spoken() -> None:
    async with door(per_source=3) as at:
        await at.come("x1", "x2", "x3")
        await at.speak("x1")
        await at.come("x4", "x5")
        assert at.gave_way == ["x2", "x3"]
        await at.speak("x4", "x5")
        await at.come("x6")
        assert at.gave_way == ["x2", "x3", "x1"]


async def test_a_peer_that_speaks_at_once_gets_through_a_flood_of_silent_ones() -> None:
    async with door(per_source=3) as at:
        await at.come(*(f"x{number}" for number in range(20)))
        await at.come("xfriend")
        await at.speak("xfriend")
        await at.come(*(f"x{number}" for number in range(20, 40)))
        assert at.shaking == ["xfriend"]
        assert "xfriend" not in at.gave_way


async def test_the_line_lets_one_go_at_a_time_and_the_newest_first(autojump_clock: trio.testing.MockClock) -> None:
    async with door(per_source=5) as at:
        await at.come("x1", "x2", "x3", "x4", in_line=True)
        await at.speak("x1")
        assert at.shaking == ["x1"]
        for name in ("x2", "x3", "x4"):
            at._speaks[name].set()
        began = trio.current_time()
        await until(lambda: len(at.shaking) == 4)
        assert trio.current_time() - began == pytest.approx(3 * PACE, rel=0.2)
        assert at.shaking[0] == "x1"


async def test_the_newest_in_the_line_is_served_and_the_oldest_gives_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        at = Door(HalfOpen(3, 8), nursery)
        await at.come("x1", "x2", "x3", in_line=True)
        await at.speak("x1", "x2", "x3")
        await at.come("x4", in_line=True)
        assert at.gave_way == ["x1"]
        await at.speak("x4")
        nursery.start_soon(at.half_open.serve_line)
        await trio.sleep(10 * PACE)
        assert at.shaking == ["x4", "x3", "x2"]
        nursery.cancel_scope.cancel()


async def test_who_need_not_stand_in_line_does_not_wait() -> None:
    half_open = HalfOpen()

    async def handshake(half: Half) -> int:
        await half_open.spoke(half, in_line=False)
        return 42

    assert await half_open.hold("x", handshake) == 42
