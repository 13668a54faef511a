"""Streams at once to one peer, and to one service of it: the rest wait, in the order they came.

A peer of our kind takes `p2p.muxer.MAX_INBOUND_STREAMS` on one connection and resets what is more: a few less are
opened at a time, so that there is room beside them. go-libp2p refuses more than 64 streams of one protocol from one
peer: towards such peers a few less of those. Whether a peer is such a one may be known only once it is connected:
whoever does not know says yes, and the lane asks again with every stream that opened or ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from peerupd.model.names import PeerId

PEER_STREAMS: Final = 2016  # at once, towards any one peer
CROWDED_STREAMS: Final = 60  # at once per service, towards crowded peers


class Lanes:
    """The ways to all services of all peers; those that nobody uses are forgotten."""

    def __init__(self, crowded: Callable[[PeerId], bool]) -> None:
        """`crowded`: whether a peer refuses more than a few streams at once; yes while that is not known."""
        self._crowded = crowded
        self._lanes: dict[tuple[PeerId, str], Lane] = {}

    @asynccontextmanager
    async def place(self, peer: PeerId, service: str) -> AsyncIterator[None]:
        """A place on the way to the service and on that to the peer, awaited."""
        async with self._lane(peer, service).place(), self._lane(peer, "").place():
            yield

    def move_up(self, peer: PeerId, service: str) -> None:
        """To be called when `crowded` may have changed its answer."""
        if lane := self._lanes.get((peer, service)):
            lane.move_up()

    def _lane(self, peer: PeerId, service: str) -> Lane:
        key = peer, service
        if (lane := self._lanes.get(key)) is None:
            lane = self._lanes[key] = Lane(lambda: self._limit(peer, service), lambda: self._lanes.pop(key, None))
        return lane

    def _limit(self, peer: PeerId, service: str) -> int:
        return CROWDED_STREAMS if service and self._crowded(peer) else PEER_STREAMS


class Lane:
    """One way: `limit` streams have a place on it at once."""

    def __init__(self, limit: Callable[[], int], forget: Callable[[], object] = int) -> None:
        """`forget` is called when nobody runs or waits any more."""
        self._limit = limit
        self._forget = forget
        self._waiting: deque[trio.Event] = deque()
        self.running = 0

    @property
    def idle(self) -> bool:
        """Whether nobody runs or waits."""
        return not (self.running or self._waiting)

    def place(self) -> Place:
        """A place in the lane, awaited."""
        return Place(self)

    def move_up(self) -> None:
        """Let in whoever has a place by now; to be called when `limit` may have changed its answer."""
        while self._waiting and not self._full():
            self.running += 1
            self._waiting.popleft().set()

    def _full(self) -> bool:
        return self.running >= self._limit()

    async def enter(self) -> None:
        """Wait for a place."""
        if not self._waiting and not self._full():
            self.running += 1
            return
        turn = trio.Event()
        self._waiting.append(turn)
        try:
            await turn.wait()
        except trio.Cancelled:
            self._give_up(turn)
            raise

    def leave(self) -> None:
        """Give a place back."""
        self.running -= 1
        self.move_up()
        self._end_if_idle()

    def _give_up(self, turn: trio.Event) -> None:
        if turn.is_set():  # its place came together with the cancellation
            self.leave()
        else:
            self._waiting.remove(turn)
            self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self.idle:
            self._forget()


class Place:
    """One place; there while the block lasts."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    async def __aenter__(self) -> None:
        await self._lane.enter()

    async def __aexit__(self, *_: object) -> None:
        self._lane.leave()
