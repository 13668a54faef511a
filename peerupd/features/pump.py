"""Carry bytes between two ends, both ways, until both ways have ended.

Theory of operation. Each direction reads a chunk and awaits its writing before it reads the next: nothing is kept, so
a slow reader slows its writer down, end to end. Chunks are small until one comes full, and large from then on as long
as all pumps together hold little: thousands of streams that somebody opens and does not read cost a small chunk each.
An end of data closes the writing half of the other side and nothing else. Whatever is not a clean end (a reset, a
broken connection, our own cancellation) resets both ends, so that neither application can take a torn transfer for a
finished one. There is no idle limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import trio

CHUNK: Final = 256 * 1024  # bytes read at once where there are plenty, and passed on as they came
SMALL_CHUNK: Final = 16 * 1024  # bytes, otherwise
IN_HAND: Final = 32 * 1024 * 1024  # bytes that the large chunks of a process may have together


class End(Protocol):
    """One end of a pump.

    `receive_some` gives `b""` for a clean end of data only; everything else that ends it raises
    `trio.BrokenResourceError`. `reset` never blocks and may be called twice.
    """

    async def receive_some(self, max_bytes: int | None = None, /) -> bytes | bytearray: ...

    async def send_all(self, data: bytes | bytearray | memoryview, /) -> None: ...

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...

    def reset(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a pump has carried, in bytes, and why it was cut; `cut` is empty when both directions ended cleanly."""

    sent: int
    received: int
    cut: str = ""


async def pump(near: End, far: End) -> Transfer:
    """Carry bytes between `near` and `far` until both directions have ended, then close both; cancelled: reset both."""
    out, back = _Flow(near, far), _Flow(far, near)
    with reset_on_error(near), reset_on_error(far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(out.run, nursery.cancel_scope)
            await back.run(nursery.cancel_scope)
        if cut := out.cut or back.cut:
            near.reset()
            far.reset()
        else:
            await near.aclose()
            await far.aclose()
    return Transfer(out.count, back.count, cut)


@contextmanager
def reset_on_error(end: End) -> Iterator[None]:
    """Whatever leaves the block by an exception, cancellation too, resets `end`: no torn work looks finished."""
    try:
        yield
    except BaseException:
        end.reset()
        raise


class Purse:
    """What large chunks may still take, of all pumps together."""

    def __init__(self, limit: int = IN_HAND) -> None:
        self._left = limit

    def lend(self, size: int) -> int:
        """`size`, or nothing."""
        lent = size if size <= self._left else 0
        self._left -= lent
        return lent

    def take_back(self, size: int) -> None:
        """What was lent."""
        self._left += size


purse = Purse()


class _Flow:
    """One direction."""

    def __init__(self, source: End, sink: End) -> None:
        self._source = source
        self._sink = sink
        self.count = 0
        self.cut = ""

    async def run(self, both: trio.CancelScope) -> None:
        try:
            await self._carry()
            await self._sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as why:
            self.cut = str(why) or "the connection was cut"
            both.cancel()

    async def _carry(self) -> None:
        lent = 0
        try:
            while data := await self._source.receive_some(SMALL_CHUNK + lent):
                await self._sink.send_all(data)
                self.count += len(data)
                if len(data) < SMALL_CHUNK:
                    purse.take_back(lent)
                    lent = 0
                elif not lent:
                    lent = purse.lend(CHUNK - SMALL_CHUNK)
        finally:
            purse.take_back(lent)
