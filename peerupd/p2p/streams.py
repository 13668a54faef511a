"""A libp2p stream as a trio `HalfCloseableStream`; of more lines than other rooms, for both directions share its ends.

Theory of operation. `carry_to` hands what arrives to a sink in the moment in which it arrives, from the buffer where it
was opened; `carry_from` lets a source put bytes where they are sealed. What the sink does not take, and what nobody has
asked for yet, waits in `_unread`, bounded by the stream's receive window (`wire.yamux` enforces it, the peer pays for
breaking it with its connection). What is sent goes out as far as the window and the fair turn allow.

Three ends are kept apart:

    clean     the peer sent FIN: `receive_some` gives b"" after the last byte
    reset     the peer sent RST: `StreamWasReset`; what was not yet read is gone, as with TCP and go-yamux
    lost      the connection went away: what arrived is still given, then `StreamLost`

What comes after FIN takes nothing back: a reader that is slow still gets all, and the clean end.

Closing says FIN and forgets the stream once the peer has said FIN too. Until then the stream lingers: an answer that
is still under way to the peer must not be overtaken by an RST (go-yamux drops unread data on RST). Whatever the peer
sends to a lingering stream is answered with RST: nobody will read it. Closing with unread bytes, after a send that was
cut short, or while being cancelled, resets at once: none of these may look like a clean end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import trio

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import ConnectionLost, StreamReset
from peerupd.model.names import PeerId
from peerupd.p2p.inetstream import INetShape, positive
from peerupd.p2p.scratch import SLOTS, Slots
from peerupd.p2p.sinks import Onward, Sink, without_room
from peerupd.p2p.unread import Unread
from peerupd.wire.protobuf import Buffer
from peerupd.wire.yamux import HEADER_BYTES, MIN_SEND

if TYPE_CHECKING:
    from peerupd.p2p.connection import Connection
    from peerupd.p2p.muxer import Muxer
    from peerupd.p2p.outlet import Source

MAX_READ: Final = 256 * 1024  # bytes handed out at once, unless another limit is given
TURN: Final = 1024 * 1024  # bytes sent before others may run
MANY: Final = 64  # frames at once; more of them are small, and are put together


class StreamWasReset(StreamReset, trio.BrokenResourceError):
    """The other side reset the stream: what was read may be cut short."""


class StreamLost(ConnectionLost, trio.BrokenResourceError):
    """The connection broke under the stream."""


class Stream(INetShape):
    """One stream of one connection. A handler owns its stream until it returns; then the stream is closed."""

    __slots__ = (
        "_closed",
        "_ended",
        "_failure",
        "_finished",
        "_muxer",
        "_my_turn",
        "_onward",
        "_readable",
        "_receiving",
        "_scope",
        "_sending",
        "_torn",
        "_trouble",
        "_unread",
        "_wanted",
        "_writable",
        "number",
        "received",
        "sent",
    )

    def __init__(self, muxer: Muxer, number: int) -> None:
        self.number = number
        self.protocol: str | None = None
        self.sent = self.received = 0  # bytes, so far; received are those that were read
        self._muxer = muxer
        self._unread = Unread()
        self._ended = False  # the peer said FIN
        self._finished = False  # we said FIN
        self._closed = False
        self._failure: type[StreamWasReset | StreamLost] | None = None
        self._torn = False  # a send was cut short
        self._wanted = 0  # bytes of window that the next sending needs
        self._my_turn = False
        self._onward: Onward | None = None  # takes frames as they arrive; nothing is unread then
        self._trouble: Exception | None = None  # of `_onward`
        self._scope: trio.CancelScope | None = None  # of `carry_from`
        self._receiving = self._sending = False
        self._readable = trio.lowlevel.ParkingLot()
        self._writable = trio.lowlevel.ParkingLot()

    # -- who and where ---------------------------------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        """The connection that carries the stream."""
        return self._muxer.connection

    @property
    def peer(self) -> PeerId:
        """The authenticated other side."""
        return self.connection.peer

    @property
    def remote(self) -> Multiaddr:
        """Where the other side is."""
        return self.connection.remote

    @property
    def depth(self) -> int:
        """How many connections the stream's own is inside of."""
        return self._muxer.depth

    def widen(self) -> None:
        """The stream carries a connection: let its window be larger than those of the streams in that."""
        self._muxer.widen(self)

    @property
    def paused(self) -> bool:
        """Whether the connection does not listen, for want of room."""
        return self._muxer.paused

    # -- receiving -------------------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes; b"" at the peer's clean end. Raises `StreamWasReset`, `StreamLost`."""
        limit = MAX_READ if max_bytes is None else positive(max_bytes)
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving = True
        try:
            if self._silent:
                while self._silent:
                    await self._readable.park()
            else:
                await trio.lowlevel.checkpoint()
            return self._take(limit)
        finally:
            self._receiving = False

    def receive_now(self, max_bytes: int) -> bytes:
        """What is there of the next bytes, without waiting; b"" also where the stream has ended or is broken."""
        return self._take(max_bytes) if self._unread and not (self._closed or self._receiving) else b""

    def acknowledge(self) -> None:
        """Tell the peer that the stream is open, which else the first bytes tell."""
        self._muxer.acknowledge()

    @property
    def _silent(self) -> bool:
        return not (self._unread or self._ended or self._failure or self._closed)

    def _take(self, limit: int) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        if self._unread:
            before = self._unread.held
            taken = self._unread.take(limit)
            self._was_read(len(taken), before - self._unread.held)
            return taken
        if self._failure is not None and not self._ended:
            raise self._broken()
        return b""

    def _was_read(self, size: int, held: int) -> None:
        """`size` bytes were read, of which `held` were counted."""
        self.received += size
        self._muxer.budget.give_back(held)
        self._credit(held)

    def _credit(self, size: int) -> None:
        if size and self._failure is None:
            self._muxer.consumed(self, size)

    def push_back(self, data: bytes) -> None:
        """Put bytes that a negotiation read too far in front of everything else."""
        self._unread.push_back(data)

    async def carry_to(self, sink: Sink, *, frames: Onward | None = None, limit: int = MAX_READ) -> int:
        """Give all that comes to `sink`, to the clean end; how many bytes that was. Raises as `receive_some` does.

        What waits here is offered by `limit` bytes at a time. `frames` takes what arrives instead of `sink.take`,
        each part behind `HEADER_BYTES` that may be overwritten.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving, before = True, self.received
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            await self._carry_to(sink, frames or without_room(sink.take), limit)
        finally:
            self._receiving, self._onward = False, None
        return self.received - before

    async def _carry_to(self, sink: Sink, onward: Onward, limit: int) -> None:
        while self._trouble is None:
            if self._closed or not self._unread:
                if not self._silent:
                    self._take(limit)  # the end: it raises, unless that is a clean one
                    return
                self._onward = onward
                await self._readable.park()
            elif taken := sink.take(self._unread.first(limit)):
                before = self._unread.held
                self._unread.drop(taken)
                self._was_read(taken, before - self._unread.held)
            else:
                await sink.writable()
        raise self._trouble

    # -- sending ---------------------------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`, waiting for the window and for a fair turn. Raises `StreamWasReset`, `StreamLost`."""
        self._take_the_pen()
        try:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            await self._send(memoryview(data))
        finally:
            self._sending = False

    async def _send(self, rest: memoryview) -> None:
        spent = 0
        try:
            while rest:
                if taken := self.send_now((rest,)):
                    rest = rest[taken:]
                    spent = await self._spend(spent + taken)
                else:
                    await self.sendable()
        except BaseException:
            self._torn = True
            raise

    async def carry_from(self, source: Source) -> int:
        """Send all that `source` gives, to its clean end; how many bytes that was.

        Raises `StreamWasReset`, `StreamLost`, also while the source has nothing, and what the source raises.
        """
        self._take_the_pen()
        before, whole = self.sent, False
        try:
            with trio.CancelScope() as self._scope:
                await trio.lowlevel.checkpoint_if_cancelled()
                self._check_sendable()
                await self._carry_from(source)
                whole = True
        finally:
            self._torn |= not whole
            self._sending, self._scope = False, None
        if not whole:
            self._check_sendable()
        return self.sent - before

    async def _carry_from(self, source: Source) -> None:
        outlet, slots, spent = self._muxer.outlet, 1, 0
        while True:
            small = slots == 1 and outlet.takes_small and not outlet.is_free
            self._wanted = MIN_SEND
            if outlet.window(self.number) < MIN_SEND or not (small or outlet.is_free or self._my_turn):
                await self.sendable()
                continue
            try:
                if small:
                    size, full = outlet.probe(self.number, source)
                else:
                    size, full = outlet.pull(self.number, source, slots)
            except BlockingIOError:
                slots, spent = max(1, slots // 2), 0
                await source.readable()
                self._check_sendable()
                continue
            finally:
                self._my_turn = False
            if not size:
                return
            self._count(size)
            if size < MIN_SEND:  # there is hardly more by now
                slots, spent = 1, 0
                await source.readable()
                self._check_sendable()
                continue
            slots = min(2 * slots, SLOTS) if full else slots
            spent = await self._spend(spent + size)

    async def _spend(self, spent: int) -> int:
        """Let others run after a `TURN`; what is spent of the present one."""
        if spent < TURN:
            return spent
        await trio.lowlevel.checkpoint()
        self._check_sendable()
        return 0

    def send_now(self, parts: Sequence[Buffer]) -> int:
        """Send what window and turn allow, without waiting; how many bytes. `sendable` waits until there are some.

        For one sender at a time, as `send_all`. Raises `StreamWasReset`, `StreamLost`.
        """
        self._check_sendable()
        size = sum(map(len, parts))
        self._wanted = min(size, MIN_SEND)
        taken = self._muxer.outlet.offer(self.number, parts, size, turn=self._my_turn)
        self._my_turn = False
        self._count(taken)
        return taken

    def send_frames(self, frames: Sequence[memoryview]) -> int:
        """The same for bytes behind `HEADER_BYTES` that may be overwritten."""
        self._check_sendable()
        if self._muxer.outlet.is_free and len(frames) <= MANY:
            taken = self._muxer.outlet.send_frames(self.number, frames)
            self._count(taken)
            if taken:
                return taken
        return self.send_now([frame[HEADER_BYTES:] for frame in frames])

    def room(self) -> int:
        """How many bytes `send_slots` would take now."""
        return 0 if self._closed or self._failure is not None else self._muxer.outlet.room(self.number)

    def send_slots(self, slots: Slots, sizes: Sequence[int], inset: int) -> int:
        """Send what a connection inside of this stream has sealed in slots: all or nothing, now."""
        self._check_sendable()
        taken = self._muxer.outlet.send_slots(self.number, slots, sizes, inset)
        self._count(taken)
        return taken

    def _count(self, size: int) -> None:
        self.sent += size
        self._muxer.sent += size

    async def sendable(self) -> None:
        """Wait for the window and for a turn, as far as they are needed."""
        while self._muxer.outlet.window(self.number) < self._wanted:
            await self._writable.park()
            self._check_sendable()
        if not (self._my_turn or self._muxer.outlet.is_free):
            await self._muxer.outlet.turn()
            self._check_sendable()
            self._my_turn = True

    def _take_the_pen(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending to this stream")
        self._sending = True

    def _check_sendable(self) -> None:
        if self._closed or self._finished:
            raise trio.ClosedResourceError("this stream was closed here")
        if self._failure is not None:
            raise self._broken()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until window and output have room."""
        self._take_the_pen()
        try:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            await self.sendable()
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """Say FIN: nothing more will be sent; receiving goes on."""
        self._take_the_pen()
        try:
            await trio.lowlevel.checkpoint()
            self._say_fin()
        finally:
            self._sending = False

    def end_now(self) -> None:
        """The same without a checkpoint."""
        self._take_the_pen()
        try:
            self._say_fin()
        finally:
            self._sending = False

    def _say_fin(self) -> None:
        if self._finished and not self._closed:
            return
        self._check_sendable()
        self._finish()

    def _finish(self) -> None:
        self._finished = True
        self._muxer.finish(self)
        self._settle()

    def _settle(self) -> None:
        if self._ended and self._finished:
            self._muxer.forget(self)

    # -- closing ---------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close: graceful where both sides may take it for a clean end, else a reset; never waits for the peer."""
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            self.reset()
            raise
        self.close_now()

    def close_now(self) -> None:
        """The same without a checkpoint."""
        if self._closed:
            return
        if self._torn or self._sending or self._unread:
            self.reset()
            return
        self._mark_closed()
        if self._failure is None:
            if not self._finished:
                self._finish()
            if not self._ended:
                self._muxer.linger(self)

    def reset(self) -> None:
        """Tell the peer that the stream was cut (RST), at once; a stream that has ended both ways is left alone."""
        if self._closed:
            return
        over = self._failure is not None or (self._ended and self._finished)
        self._mark_closed()
        if not over:
            self._muxer.reset(self)

    def _mark_closed(self) -> None:
        self._closed = True
        self._drop_unread()
        self._wake_all()

    def _drop_unread(self) -> None:
        self._muxer.budget.give_back(self._unread.held)
        self._unread.clear()

    def _wake_all(self) -> None:
        self._readable.unpark_all()
        self._writable.unpark_all()
        if self._scope is not None:
            self._scope.cancel()
        elif self._sending:
            self._muxer.outlet.call_all()

    def _broken(self) -> StreamWasReset | StreamLost:
        assert self._failure is not None
        if self._failure is StreamLost:
            return StreamLost(f"the connection to {self.peer} was lost{self._muxer.reason}")
        return StreamWasReset(f"{self.peer} reset the stream")

    # -- what the multiplexer tells --------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether nobody here will read from or write to the stream any more."""
        return self._closed

    def data_arrived(self, frames: list[memoryview]) -> None:
        """The multiplexer: these bytes came, each part behind `HEADER_BYTES` of room."""
        if self._onward is None:
            self._store(frames, 0)
            return
        size = sum(map(len, frames)) - HEADER_BYTES * len(frames)
        try:
            taken = self._onward(frames)
        except Exception as why:  # it is the trouble of who reads, not of the connection
            self._trouble, taken = why, size
            self._readable.unpark()
        self.received += taken
        self._credit(taken)
        if taken < size and not self._closed:
            self._store(frames, taken)

    def _store(self, frames: list[memoryview], skip: int) -> None:
        self._onward = None
        before = self._unread.held
        self._unread.store(frames, skip)
        self._muxer.budget.take(self._unread.held - before)
        self._readable.unpark()

    def end_arrived(self) -> None:
        """The multiplexer: the peer said FIN."""
        self._ended = True
        self._readable.unpark()
        self._settle()

    def window_grew(self) -> None:
        """The multiplexer: there is something to send into again."""
        self._writable.unpark_all()

    def failed(self, failure: type[StreamWasReset | StreamLost]) -> None:
        """The multiplexer: the stream is broken."""
        self._failure = failure
        if failure is StreamWasReset and not self._ended:
            self._drop_unread()
        self._wake_all()
