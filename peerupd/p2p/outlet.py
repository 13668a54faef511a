"""What one connection sends: sealed in the order of the wire, given to the link at once, the rest kept.

Theory of operation. While the link takes all, whoever sends does it here and now: frames are built in slots, sealed
where they lie and sent by one call, without a task switch. What the link does not take is kept; from then on the link
is busy, the one task of `run` waits for it, and all who have much to send wait for their turns, in order: one slice
each, as soon as the link has taken what was kept. Small messages need no turn; all together they are bounded.

Sealing and sending (or keeping) are one step, so records go out in the order of their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import trio

from peerupd.model.errors import PeerupError
from peerupd.p2p.links import Link
from peerupd.p2p.scratch import AROUND, INSET, PAYLOAD, SLOTS, Slots, slots
from peerupd.wire.noise import LENGTH, MAX_RECORD, TAG, Session
from peerupd.wire.protobuf import Buffer
from peerupd.wire.yamux import HEADER_BYTES, MIN_SEND, Yamux

SLICE: Final = 2  # slots that one stream may send before it is another's turn
SMALL: Final = 4096  # bytes of a message that needs no turn
SMALL_BOUND: Final = 64 * 1024  # bytes of frames that wait without a turn; then small messages wait as all do
MAX_FRAME: Final = MAX_RECORD - TAG - HEADER_BYTES  # bytes of data in a frame that fits a record

_BROKEN: Final = (PeerupError, trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class Source(Protocol):
    """Where bytes come from: a socket of this machine, or memory."""

    def fill(self, slots: list[memoryview], /) -> int:
        """Put bytes there now, from the first on; how many, 0 at the clean end.

        Raises `BlockingIOError` when there are none yet, `trio.BrokenResourceError`.
        """

    async def readable(self) -> None:
        """Wait until there are some."""


class Memory:
    """Bytes that are there already."""

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._parts = [memoryview(part) for part in reversed(parts) if part]

    def fill(self, into: list[memoryview]) -> int:
        """Put bytes there; 0 when all are gone."""
        return sum(map(self._fill_one, into))

    def _fill_one(self, slot: memoryview) -> int:
        at, size = 0, len(slot)
        while self._parts and at < size:
            part = self._parts.pop()
            end = min(at + len(part), size)
            slot[at:end] = part[: end - at]
            if end - at < len(part):
                self._parts.append(part[end - at :])
            at = end
        return at

    async def readable(self) -> None:
        """At once."""


class Outlet:
    """The way out of one connection."""

    def __init__(self, link: Link, session: Session, machine: Yamux, broken: Callable[[str], None]) -> None:
        """`broken` is told why the link takes no more."""
        self._link = link
        self._session = session
        self._yamux = machine
        self._broken = broken
        self._leaving = False
        self._slots = slots(link.depth)
        self._kept = bytearray()  # sealed
        self._busy = False  # something was kept, and is not yet sent
        self._turns = trio.lowlevel.ParkingLot()
        self._work = trio.lowlevel.ParkingLot()  # `run` waits here

    # -- turns -----------------------------------------------------------------------------------------------------

    @property
    def is_free(self) -> bool:
        """Whether nobody has to wait."""
        return not (self._busy or self._turns)

    @property
    def takes_small(self) -> bool:
        """Whether a small message may go without a turn."""
        return self._yamux.output_size < SMALL_BOUND

    async def turn(self) -> None:
        """Wait for it, behind those who wait already; then one batch may be sent."""
        self._work.unpark()
        await self._turns.park()

    def call_all(self) -> None:
        """Let all who wait look again: one of them has nothing to wait for any more."""
        self._turns.unpark_all()

    def room(self, stream: int) -> int:
        """What `send_slots` would take now, in bytes, with all that the slots have around them."""
        return self._yamux.room(stream) if self.is_free else 0

    def window(self, stream: int) -> int:
        """How many bytes the peer takes."""
        return self._yamux.room(stream)

    # -- sending ---------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send the short frames that wait in the machine, now or when the link takes them."""
        if self._yamux.output_size:
            if self._busy:
                self._work.unpark()
            else:
                self._say()

    def offer(self, stream: int, parts: Sequence[Buffer], size: int, *, turn: bool) -> int:
        """Send of `parts`, `size` bytes in all, what window and turn allow now, at most one batch; how much."""
        if self._yamux.room(stream) < min(size, MIN_SEND):
            return 0
        if size <= SMALL and self.takes_small:
            return self._send_small(stream, parts[0] if len(parts) == 1 else b"".join(parts))
        return self.pull(stream, Memory(parts), SLOTS)[0] if turn or self.is_free else 0

    def _send_small(self, stream: int, data: Buffer) -> int:
        """Send a small message, before all that waits for a turn."""
        taken = self._yamux.send(stream, data)
        self.flush()
        return taken

    def pull(self, stream: int, source: Source, count: int) -> tuple[int, bool]:
        """Send what `source` has now, in at most `count` slots; how much, and whether there may be more at once.

        The caller has its turn, or needs none, and the window has room. Raises as `Source.fill` does.
        """
        self._say()
        room = self._yamux.room(stream)
        if self._busy or (below := self._link.room() - SLOTS * AROUND) < MIN_SEND:
            room = min(room, SLICE * PAYLOAD)  # it will be kept
        else:
            room = min(room, below, (min(count, SLICE) if self._turns else count) * PAYLOAD)
        size = source.fill(self._slots.payloads(room))
        if not size:
            return 0, False
        whole, rest = divmod(size, PAYLOAD)
        self._send_slots(stream, self._slots, [PAYLOAD] * whole + [rest] * bool(rest), self._slots.inset)
        return size, size == room

    def probe(self, stream: int, source: Source) -> tuple[int, bool]:
        """The same without a turn, for a small message, or for the first part of a large one."""
        view = self._slots.payloads(SMALL)
        size = source.fill(view)
        self._send_small(stream, view[0][:size])
        return size, size == SMALL

    def send_slots(self, stream: int, slots: Slots, sizes: Sequence[int], inset: int) -> int:
        """Send what a connection inside of this one has sealed in slots; all or nothing."""
        size = sum(sizes)
        if size > self.room(stream):
            return 0
        self._say()
        self._send_slots(stream, slots, sizes, inset)
        return size

    def send_frames(self, stream: int, frames: Sequence[memoryview]) -> int:
        """Send data that lies behind `HEADER_BYTES` which may be overwritten; how much of it was sent."""
        self._say()
        room, sent, at = self._yamux.room(stream), 0, 0
        wire, put_header, seal = self._slots.view, self._yamux.put_header, self._session.seal_into
        for frame in frames:
            while size := len(frame) - HEADER_BYTES:
                if size > MAX_FRAME:
                    size = PAYLOAD
                if size > room - sent or at + size + AROUND > len(wire):
                    self._give(wire[:at])
                    return sent
                put_header(stream, size, frame, 0)
                at = seal(frame[: HEADER_BYTES + size], wire, at)
                frame = frame[size:]  # the next header goes over the end of what is sealed already
                sent += size
        if sent:
            self._give(wire[:at])
        return sent

    def _send_slots(self, stream: int, slots: Slots, sizes: Sequence[int], inset: int) -> None:
        """Make frames and records of what lies in slots from `inset` on, and send them."""
        at, view = inset - INSET, slots.view
        put_header, seal = self._yamux.put_header, self._session.seal_in_place
        for size in sizes:
            put_header(stream, size, view, at + LENGTH)
            seal(view, at, HEADER_BYTES + size)
            at += slots.stride
        self._give_slots(slots, [size + AROUND for size in sizes], inset - INSET)

    def _say(self) -> None:
        """Seal and send what waits in the machine."""
        if self._yamux.output_size:
            self._give(memoryview(self._session.seal(self._yamux.take_output())))

    # -- to the link -----------------------------------------------------------------------------------------------

    def _give(self, sealed: memoryview) -> None:
        if not self._busy:
            try:
                taken = self._link.send_now(sealed)
            except _BROKEN as why:
                self._broken(str(why))
                return
            if taken == len(sealed):
                return
            sealed = sealed[taken:]
        self._keep(sealed)

    def _give_slots(self, slots: Slots, sizes: Sequence[int], inset: int) -> None:
        taken = 0
        if not self._busy:
            try:
                taken = self._link.send_slots(slots, sizes, inset)
            except _BROKEN as why:
                self._broken(str(why))
                return
        if taken < sum(sizes):
            self._keep(slots.joined(sizes, inset)[taken:])

    def _keep(self, sealed: Buffer) -> None:
        self._kept += sealed
        self._busy = True
        self._work.unpark()

    # -- the task --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what was kept, and give turns."""
        while True:
            if self._kept:
                await self._send_kept()
            elif self._yamux.output_size:
                self._say()
            elif self._turns:
                self._turns.unpark()
                await trio.lowlevel.checkpoint()
            else:
                await self._rest()

    async def _send_kept(self) -> None:
        kept, self._kept = self._kept, bytearray()
        await self._link.send(memoryview(kept))
        self._busy = bool(self._kept)

    async def _rest(self) -> None:
        if self._leaving:
            await self._link.send_eof()
            await trio.sleep_forever()  # until the peer, which has read all then, closes it
        await self._work.park()

    def leave(self) -> None:
        """Nothing follows what is there: say so when it is sent."""
        self._leaving = True
        self._work.unpark()
