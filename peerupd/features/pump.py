"""Carry bytes between two ends, both ways, until both ways have ended.

Theory of operation. A stream to a peer carries by itself, from and to any end that can be filled from and taken from
without waiting: a socket, standard input and output. Between other ends each direction reads a chunk and awaits its
writing before it reads the next. Nothing is kept either way, so a slow reader slows its writer down, end to end.
Chunks are small until one comes full, and large from then on as long as all pumps together hold little: thousands of
streams that somebody opens and does not read cost a small chunk each.

An end of data closes the writing half of the other side and nothing else. Whatever is not a clean end (a reset, a
broken connection, our own cancellation) resets both ends, so that neither application can take a torn transfer for a
finished one. There is no idle limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol, TypeGuard

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


class Source(Protocol):
    """Where bytes come from."""

    def fill(self, slots: list[memoryview], /) -> int:
        """Put bytes there now, from the first on; how many, 0 at the clean end.

        Raises `BlockingIOError` when there are none yet, `trio.BrokenResourceError`.
        """

    async def readable(self) -> None:
        """Wait until there are some."""


class Sink(Protocol):
    """Where bytes go."""

    def take(self, parts: Sequence[memoryview], /) -> int:
        """Now, without waiting: how many bytes were taken, from the first on. Raises `trio.BrokenResourceError`."""

    async def writable(self) -> None:
        """Wait until some would be taken."""


class Direct(Source, Sink, Protocol):
    """An end whose bytes can be had, and given, without a task switch."""


class Carrier(Protocol):
    """An end that carries by itself; both return how many bytes went, and raise `trio.BrokenResourceError`."""

    async def carry_from(self, source: Source, /) -> int:
        """Send all that `source` gives, to its clean end."""

    async def carry_to(self, sink: Sink, /) -> int:
        """Give all that comes to `sink`, to the clean end."""

    def end_now(self) -> None:
        """As `send_eof`, without a checkpoint."""

    def close_now(self) -> None:
        """As `aclose`, without a checkpoint."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a pump has carried, in bytes, and why it was cut; `cut` is empty when both directions ended cleanly."""

    sent: int
    received: int
    cut: str = ""


@dataclass(slots=True)
class Tally:
    """What a pump has carried by now, in bytes; to be read while it runs."""

    sent: int = 0
    received: int = 0

    def add_sent(self, size: int) -> None:
        """So many bytes more, from near to far."""
        self.sent += size

    def add_received(self, size: int) -> None:
        """So many bytes more, from far to near."""
        self.received += size


async def pump(near: End, far: End, tally: Tally | None = None) -> Transfer:
    """Carry bytes between `near` and `far` until both directions have ended, then close both; cancelled: reset both.

    `tally` is kept current.
    """
    carried = tally or Tally()
    out, back = _Flow(near, far, carried.add_sent), _Flow(far, near, carried.add_received)
    with reset_on_error(near), reset_on_error(far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(back.run, nursery.cancel_scope)
            await out.run(nursery.cancel_scope)
        if cut := out.cut or back.cut:
            near.reset()
            far.reset()
        else:
            await _close(near)
            await _close(far)
    return Transfer(carried.sent, carried.received, cut)


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

    def __init__(self, source: End, sink: End, count: Callable[[int], None]) -> None:
        self._source = source
        self._sink = sink
        self._count = count
        self.cut = ""

    async def run(self, both: trio.CancelScope) -> None:
        try:
            if _carries(self._sink) and _is_direct(self._source):
                await self._sink.carry_from(_Counted(self._source, self._count))
            elif _carries(self._source) and _is_direct(self._sink):
                await self._source.carry_to(_Counted(self._sink, self._count))
            else:
                await self._carry()
            if _carries(self._sink):
                self._sink.end_now()
            else:
                await self._sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as why:
            self.cut = str(why) or "the connection was cut"
            both.cancel()

    async def _carry(self) -> None:
        lent = 0
        try:
            while data := await self._source.receive_some(SMALL_CHUNK + lent):
                await self._sink.send_all(data)
                self._count(len(data))
                if len(data) < SMALL_CHUNK:
                    purse.take_back(lent)
                    lent = 0
                elif not lent:
                    lent = purse.lend(CHUNK - SMALL_CHUNK)
        finally:
            purse.take_back(lent)


async def _close(end: End) -> None:
    if _carries(end):
        end.close_now()
    else:
        await end.aclose()


def _carries(end: object) -> TypeGuard[Carrier]:
    # isinstance() looks at every member of a protocol, each time; there are two of these in each connection
    return hasattr(end, "carry_from")


def _is_direct(end: object) -> TypeGuard[Direct]:
    return hasattr(end, "fill")


class _Counted:
    """An end whose bytes are counted, in one direction or the other."""

    def __init__(self, end: Direct, count: Callable[[int], None]) -> None:
        self._end = end
        self._count = count
        self.readable = end.readable
        self.writable = end.writable

    def fill(self, slots: list[memoryview]) -> int:
        size = self._end.fill(slots)
        self._count(size)
        return size

    def take(self, parts: Sequence[memoryview]) -> int:
        size = self._end.take(parts)
        self._count(size)
        return size
