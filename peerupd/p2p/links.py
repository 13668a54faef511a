"""What carries a connection: a TCP connection (`p2p.tcp`), a circuit's stream, or any other stream of bytes.

A link gives what comes to an inlet, and takes what is sent: at once as far as it can, or waiting. A circuit does both
without a task of its own: the connection inside is fed by the reader of the one that carries it, and what it has sealed
in slots is sealed again where it lies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import trio

from peerupd.p2p.scratch import DEPTHS, Slots
from peerupd.p2p.streams import Stream
from peerupd.wire.protobuf import Buffer

TURN: Final = 1024 * 1024  # bytes taken in before others may run
READ_COST: Final = 4096  # bytes that one read counts for beside its own


class Inlet(Protocol):
    """Where a link puts what comes."""

    def take(self, parts: Sequence[memoryview], /) -> int:
        """Now, without waiting: how many bytes were taken, 0 when there is no room."""

    def feed(self, parts: Sequence[memoryview], /) -> int:
        """The same, even when there is no room."""

    def portion(self) -> int:
        """How many bytes it is best given at once, `READ_SIZE` at most."""

    async def writable(self) -> None:
        """Wait until there is room."""


class Link(Protocol):
    """The bytes below a connection."""

    @property
    def depth(self) -> int:
        """How many connections this one is inside of."""

    @property
    def paused(self) -> bool:
        """Whether it is we who do not listen to what carries it."""

    async def carry_to(self, inlet: Inlet, /) -> int:
        """Give all that comes to `inlet`, to the end; how many bytes that was."""

    def room(self) -> int:
        """How many bytes `send_slots` would take now."""

    def send_slots(self, slots: Slots, sizes: Sequence[int], inset: int, /) -> int:
        """Send so many bytes of each slot, from `inset` on; how many bytes were taken, from the first on."""

    def send_now(self, data: memoryview, /) -> int:
        """Send what can be sent without waiting, from the first byte on; how many bytes that was."""

    async def send(self, data: memoryview, /) -> None:
        """Send all of it."""

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""

    async def aclose(self) -> None:
        """Close."""


async def carry(receive: Callable[[int], Awaitable[Buffer]], inlet: Inlet) -> int:
    """Give what `receive` returns, asked for so many bytes, to `inlet`, to the end; others run by a budget of bytes."""
    carried = spent = 0
    while True:
        await inlet.writable()
        if not (data := await receive(inlet.portion())):
            return carried
        carried += inlet.feed((memoryview(data),))  # if there is no room now: nobody else can hold it
        spent += len(data) + READ_COST
        if spent >= TURN:
            spent = 0
            await trio.lowlevel.checkpoint()


class Over:
    """Any trio stream: one over memory, or a circuit inside a circuit."""

    depth = 0
    paused = False

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream

    async def carry_to(self, inlet: Inlet) -> int:
        """Give all that comes to `inlet`."""
        return await carry(self._receive, inlet)

    async def _receive(self, most: int) -> bytes | bytearray:
        return await self._stream.receive_some(most)

    def room(self) -> int:
        """None: everything waits."""
        return 0

    def send_slots(self, _slots: Slots, _sizes: Sequence[int], _inset: int) -> int:
        """Nothing."""
        return 0

    def send_now(self, _data: memoryview) -> int:
        """Nothing."""
        return 0

    async def send(self, data: memoryview) -> None:
        """Give all of it to the stream."""
        await self._stream.send_all(data)

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


class Circuit:
    """A stream of another connection of ours."""

    def __init__(self, stream: Stream) -> None:
        stream.widen()
        self.depth = stream.depth + 1
        self.carry_to = stream.carry_to
        self.room = stream.room
        self.send_slots = stream.send_slots
        self.send = stream.send_all
        self.send_eof = stream.send_eof
        self.aclose = stream.aclose
        self._stream = stream

    @property
    def paused(self) -> bool:
        """Whether the connection that carries it has stopped reading for want of room."""
        return self._stream.paused

    def send_now(self, data: memoryview) -> int:
        """Send what window and turn allow."""
        return self._stream.send_now((data,))


def over(stream: trio.abc.HalfCloseableStream) -> Link:
    """The link over a stream."""
    return Circuit(stream) if isinstance(stream, Stream) and stream.depth + 1 < DEPTHS else Over(stream)
