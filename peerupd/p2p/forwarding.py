"""Carry bytes between two streams: the middle of a circuit.

Theory of operation. What arrives on one side is sealed for the other at once, its old header overwritten by the new
one; only what the other side cannot take now waits, bounded by the window of the stream it came on, for only what went
on is given back to its sender. Two ways that know nothing of each other: the end of data on one side is passed on as
the end of data on the other, while the way back stays open. Whatever else ends a circuit (a reset, a broken connection,
a limit) resets both streams, so that nobody takes half of a transfer for the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, Protocol

import trio

from peerupd.model.errors import EnvironmentalError, RemoteError
from peerupd.p2p.streams import Stream
from peerupd.wire.yamux import HEADER_BYTES

BUFFER: Final = 64 * 1024  # bytes that had to wait, taken at a time
INSTALMENT: Final = 64 * 1024  # bytes that a throttle is asked for at once, at most


class Ending(Enum):
    """How a circuit ended."""

    FINISHED = "both sides ended"
    BROKEN = "a side reset or was lost"
    DATA_LIMIT = "the data limit was reached"
    TIME_LIMIT = "the time limit was reached"


class Throttle(Protocol):
    """What holds a circuit back to the bytes per second that its ends may use."""

    async def admit(self, size: int) -> None:
        """Returns when so many bytes may go on; in the order of asking."""


async def forward(
    one: Stream,
    other: Stream,
    *,
    buffer: int = BUFFER,
    data: int | None = None,
    seconds: float | None = None,
    throttle: Throttle | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Ending:
    """Carry bytes both ways until both sides have ended, or one of them broke, or a limit was reached.

    At most `data` bytes each way, and `seconds` in all (None: no limit). Any end but `FINISHED` has reset both streams.
    `throttle` is asked before bytes go on, `on_bytes` is told of those that went, of both ways.
    """
    one.widen()
    other.widen()
    ending = Ending.FINISHED
    finished = False
    try:
        with trio.move_on_after(math.inf if seconds is None else seconds) as limit:
            async with trio.open_nursery() as ways:

                async def carry(source: Stream, sink: Stream) -> None:
                    nonlocal ending
                    leg = _Leg(sink, math.inf if data is None else data, throttle, on_bytes or _nothing)
                    if (how := await _carry(source, leg, buffer)) != ending:
                        ending = how
                        ways.cancel_scope.cancel()

                ways.start_soon(carry, one, other)
                ways.start_soon(carry, other, one)
        if limit.cancelled_caught:
            ending = Ending.TIME_LIMIT
        finished = ending is Ending.FINISHED
    finally:
        if not finished:
            one.reset()
            other.reset()
    return ending


class _LimitMet(Exception):
    """There is more than the circuit may carry."""


class _Leg:
    """A stream as the sink of another; `left` counts its bytes."""

    def __init__(self, stream: Stream, left: float, throttle: Throttle | None, on_bytes: Callable[[int], None]) -> None:
        self.stream = stream
        self._left = left
        self._throttle = throttle
        self._on_bytes = on_bytes
        self._admitted = 0  # bytes, by the throttle
        self._wanted = 0  # bytes, of it

    def take(self, parts: Sequence[memoryview]) -> int:
        """What had to wait."""
        allowed = self._allowed(parts, 0)
        return self._sent(self.stream.send_now(allowed)) if allowed else 0

    def take_frames(self, frames: Sequence[memoryview]) -> int:
        """What has just arrived, behind room for a header."""
        allowed = self._allowed(frames, HEADER_BYTES)
        return self._sent(self.stream.send_frames(allowed)) if allowed else 0

    async def writable(self) -> None:
        """Until the throttle, the window and the turn allow more."""
        if self._throttle is not None and not self._admitted:
            await self._throttle.admit(self._wanted)
            self._admitted = self._wanted
        await self.stream.sendable()

    def _allowed(self, parts: Sequence[memoryview], room: int) -> Sequence[memoryview]:
        """The first of `parts`, each of which begins with so much `room`, that may go on; raises when none ever may."""
        if self._throttle is None and self._left == math.inf:
            return parts
        size = sum(map(len, parts)) - room * len(parts)
        if size and not self._left:
            raise _LimitMet
        if self._throttle is not None:
            self._wanted = min(size, INSTALMENT)
            size = min(size, self._admitted)
        return _first(parts, int(min(size, self._left)), room)

    def _sent(self, size: int) -> int:
        self._left -= size
        self._admitted -= min(size, self._admitted)
        self._on_bytes(size)
        return size


def _first(parts: Sequence[memoryview], left: int, room: int) -> Sequence[memoryview]:
    """The first of `parts`, each of which begins with so much `room`: `left` bytes of them."""
    found: list[memoryview] = []
    for part in parts:
        if left <= 0:
            break
        found.append(part[: room + left])
        left -= len(part) - room
    return found


async def _carry(source: Stream, leg: _Leg, buffer: int) -> Ending:
    """One way, to its end."""
    try:
        await source.carry_to(leg, frames=leg.take_frames, limit=buffer)
        await leg.stream.send_eof()
    except _LimitMet:
        return Ending.DATA_LIMIT
    except (trio.BrokenResourceError, trio.ClosedResourceError, RemoteError, EnvironmentalError):
        return Ending.BROKEN
    return Ending.FINISHED


def _nothing(_size: int) -> None:
    pass
