"""Carry bytes between two streams: the middle of a circuit.

Theory of operation. Two pumps that know nothing of each other: the end of data on one side is passed on as the end of
data on the other, while the way back stays open. Whatever else ends a circuit (a reset, a broken connection, a limit)
resets both streams, so that nobody takes half of a transfer for the whole. A pump takes new bytes only when the old
ones are gone: a slow reader slows its writer and nobody else.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Final

import trio

from peerupd.model.errors import EnvironmentalError, RemoteError
from peerupd.p2p.streams import Stream

BUFFER: Final = 64 * 1024  # bytes taken at a time


class Ending(Enum):
    """How a circuit ended."""

    FINISHED = "both sides ended"
    BROKEN = "a side reset or was lost"
    DATA_LIMIT = "the data limit was reached"
    TIME_LIMIT = "the time limit was reached"


async def forward(
    one: Stream, other: Stream, *, buffer: int = BUFFER, data: int | None = None, seconds: float | None = None
) -> Ending:
    """Carry bytes both ways until both sides have ended, or one of them broke, or a limit was reached.

    At most `data` bytes each way, and `seconds` in all (None: no limit). Any end but `FINISHED` has reset both streams.
    """
    ending = Ending.FINISHED
    finished = False
    try:
        with trio.move_on_after(math.inf if seconds is None else seconds) as limit:
            async with trio.open_nursery() as pumps:

                async def pump(source: Stream, sink: Stream) -> None:
                    nonlocal ending
                    if (how := await _carry(source, sink, buffer, math.inf if data is None else data)) != ending:
                        ending = how
                        pumps.cancel_scope.cancel()

                pumps.start_soon(pump, one, other)
                pumps.start_soon(pump, other, one)
        if limit.cancelled_caught:
            ending = Ending.TIME_LIMIT
        finished = ending is Ending.FINISHED
    finally:
        if not finished:
            one.reset()
            other.reset()
    return ending


async def _carry(source: Stream, sink: Stream, buffer: int, left: float) -> Ending:
    """One way, to its end."""
    try:
        while chunk := await source.receive_some(buffer):
            left -= len(chunk)
            if left < 0:
                return Ending.DATA_LIMIT
            await sink.send_all(chunk)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError, RemoteError, EnvironmentalError):
        return Ending.BROKEN
    return Ending.FINISHED
