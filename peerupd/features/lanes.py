"""Streams at once to one service of one peer: the rest wait, in the order they came.

go-libp2p refuses more than 64 streams of one protocol from one peer, so towards such peers a few less are opened at a
time. Whether a peer is such a one may be known only once it is connected: whoever does not know says yes, and the lane
asks again with every stream that opened or ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

CROWDED_STREAMS: Final = 60  # at once per service, towards crowded peers


class Lane:
    """The way to one service of one peer."""

    def __init__(self, crowded: Callable[[], bool]) -> None:
        self._crowded = crowded
        self._waiting: deque[trio.Event] = deque()
        self.running = 0

    @property
    def idle(self) -> bool:
        """Whether nobody runs or waits."""
        return not (self.running or self._waiting)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place in the lane, awaited."""
        await self._enter()
        try:
            yield
        finally:
            self.running -= 1
            self.move_up()

    def move_up(self) -> None:
        """Let in whoever has a place by now; to be called when `crowded` may have changed its answer."""
        while self._waiting and not self._full():
            self.running += 1
            self._waiting.popleft().set()

    def _full(self) -> bool:
        return self.running >= CROWDED_STREAMS and self._crowded()

    async def _enter(self) -> None:
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

    def _give_up(self, turn: trio.Event) -> None:
        if turn.is_set():  # its place came together with the cancellation
            self.running -= 1
            self.move_up()
        else:
            self._waiting.remove(turn)
