"""Many streams over one secured connection: one task reads, one writes, one keeps it alive; `wire.yamux` decides.

Theory of operation. What comes is opened into a buffer of the process and handed to the streams from there; nothing of
that waits for a send, so two full peers cannot block each other: answers (window updates, pongs) are always accepted.
What is sent goes the way of `p2p.outlet`. A connection inside a circuit is an inlet as a socket's sink is: the reader
of the connection outside feeds it, and only what it has no room for waits.

Memory: what a stream has not read is bounded by its window, and all of it by `p2p.budget`: over that the reader pauses
until something was read; nothing is reset.

The end of a connection is one place, `run`: whatever ends it, streams learn `StreamLost` and `reason` says why.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Container, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final

import trio

from peerupd.model.errors import ConnectionLost, PeerupError
from peerupd.p2p.budget import Budget
from peerupd.p2p.links import Link
from peerupd.p2p.outlet import Outlet
from peerupd.p2p.scratch import batch, plain
from peerupd.p2p.streams import Stream, StreamLost, StreamWasReset
from peerupd.wire import yamux
from peerupd.wire.noise import Session
from peerupd.wire.protobuf import Buffer

if TYPE_CHECKING:
    from peerupd.p2p.connection import Connection

log = logging.getLogger(__name__)

PING_EVERY: Final = 15.0  # seconds
FIRST_PINGS: Final = (0.1, 0.4, 1.0, 2.0)  # seconds between the first ones, so that one of them finds the way free
RTTS: Final = 8  # round trips remembered
SILENCE: Final = 30.0  # seconds without a byte after a ping: the peer is gone
LINGER: Final = 60.0  # seconds that a closed stream waits for the peer's FIN
GOODBYE: Final = 1.0  # seconds for the last frames, and for the peer to take them, when we close
MAX_INBOUND_STREAMS: Final = 2048  # per connection
SHORT_WINDOWS: Final = (1024 * 1024, 1536 * 1024)  # bytes, by depth: what is carried by a circuit goes a longer way


class Muxer:
    """The streams of one connection."""

    connection: Connection

    def __init__(
        self,
        link: Link,
        session: Session,
        *,
        client: bool,
        accept: Callable[[Stream], None],
        budget: Budget | None = None,
        received: Buffer = b"",
    ) -> None:
        """`accept` gets each stream that the peer opens; `received`: plaintext that came with the handshake."""
        self.budget = budget or Budget()
        self.rtt: float | None = None  # seconds, of the last ping
        self.sent = self.received = 0  # bytes of stream data
        self.reason = ""  # why the connection ended, as the end of a sentence
        self.ended = False
        self._link = link
        self._session = session
        self._yamux = yamux.Yamux(
            client=client, max_inbound_streams=MAX_INBOUND_STREAMS, short_window=SHORT_WINDOWS[link.depth]
        )
        self.outlet = Outlet(link, session, self._yamux, self.abort)
        self._plain = plain(link.depth)
        self._batch = batch(link.depth)
        self._accept = accept
        self._early = received
        self._feeding = False
        self._streams: dict[int, Stream] = {}
        self._lingering: dict[int, float] = {}  # until when, trio's clock
        self._scope = trio.CancelScope()
        self._leaving = False
        self._asked_at: float | None = None  # when a ping went out that nothing has come after
        self._ping = (0, 0.0)  # the last one: its value, when
        self._rtts: deque[float] = deque(maxlen=RTTS)  # seconds

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._streams)

    # -- the life of it --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry the streams until the connection ends, for whatever reason; then nobody waits on them any more."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for part in (self._read, self.outlet.run, self._keep_alive):
                        nursery.start_soon(self._guarded, part)
        finally:
            self._end()
            with trio.CancelScope() as at_once:
                at_once.cancel()
                await self._link.aclose()

    async def _guarded(self, part: Callable[[], Awaitable[None]]) -> None:
        """Run one of the three; what it raises ends the connection and nothing else."""
        try:
            await part()
        except (PeerupError, trio.BrokenResourceError, trio.ClosedResourceError, OSError) as why:
            self.abort(str(why))
        except Exception as bug:
            log.exception("a connection ends because of a bug")
            self.abort(f"internal error: {bug!r}")

    def _end(self) -> None:
        self.ended = True
        for stream in self._streams.values():
            stream.failed(StreamLost)
        self._streams.clear()
        self.outlet.call_all()
        self.budget.detach()

    def abort(self, why: str) -> None:
        """End it at once."""
        if not self.reason:
            self.reason = f": {why}"
        self._scope.cancel()

    def close(self) -> None:
        """Say goodbye and end it, once the peer has read what we sent: closing before could take that back (RST).

        It is waited for `GOODBYE` at most.
        """
        if self._leaving or self.ended:
            return
        self._leaving = True
        self.reason = ": it was closed here"
        self._yamux.go_away()
        self.outlet.leave()
        self._scope.deadline = trio.current_time() + GOODBYE

    # -- reading ---------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        self._deliver_opened(memoryview(bytearray(yamux.HEADER_BYTES) + self._early))
        self._early = b""
        await self._link.carry_to(self)
        raise ConnectionLost("the peer closed it")

    @property
    def depth(self) -> int:
        """How many connections this one is inside of."""
        return self._link.depth

    @property
    def paused(self) -> bool:
        """Whether we do not listen, for want of room, to what comes here or below."""
        return self.budget.paused or self._link.paused

    async def writable(self) -> None:
        """The link: wait until something is taken again."""
        if self.budget.is_over:
            await self.budget.room()

    def portion(self) -> int:
        """The link: how many bytes to read at once."""
        return self._session.portion(self._batch)

    def take(self, parts: Sequence[memoryview]) -> int:
        """A circuit's link: these bytes came. How many were taken; what else there is has to wait. Raises as `feed`."""
        return 0 if self.budget.is_over else self.feed(parts)

    def feed(self, parts: Sequence[memoryview]) -> int:
        """These bytes came: deliver them, and say what there is to be said. How many there was room for.

        Raises `ProtocolViolation`, after which the connection is to end.
        """
        self._asked_at = None
        taken, end = 0, yamux.HEADER_BYTES
        for part in parts:
            part = part[: self._batch - taken]
            end = self._session.open_into(part, self._plain, end)
            taken += len(part)
        self._deliver_opened(self._plain[:end])
        return taken

    def _deliver_opened(self, opened: memoryview) -> None:
        """What lies behind room for a header."""
        self._feeding = True
        try:
            self._deliver(self._yamux.receive(opened, yamux.HEADER_BYTES))
        finally:
            self._feeding = False
        self.outlet.flush()

    def _flush(self) -> None:
        if not self._feeding:
            self.outlet.flush()

    def _deliver(self, events: list[yamux.Event]) -> None:
        for event in events:
            match event:
                case yamux.DataReceived():
                    self._data(event.stream, event.frames)
                case yamux.WindowGrew(number):
                    if (stream := self._streams.get(number)) is not None:
                        stream.window_grew()
                case yamux.StreamOpened(number):
                    self._opened(number)
                case yamux.EndReceived(number):
                    self._ended_by_peer(number)
                case yamux.ResetReceived(number):
                    self._reset_by_peer(number)
                case yamux.PongReceived(value):
                    self._pong(value)
                case yamux.StreamAccepted() | yamux.WentAway():
                    pass  # yamux itself opens no more after the latter

    def _data(self, number: int, frames: list[memoryview]) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        if stream.is_closed:
            self.reset(stream)
        else:
            self.received += sum(map(len, frames)) - yamux.HEADER_BYTES * len(frames)
            stream.data_arrived(frames)

    def _opened(self, number: int) -> None:
        stream = self._streams[number] = Stream(self, number)
        self._accept(stream)

    def _ended_by_peer(self, number: int) -> None:
        if (stream := self._streams.get(number)) is not None:
            stream.end_arrived()

    def _reset_by_peer(self, number: int) -> None:
        if (stream := self._streams.pop(number, None)) is not None:
            self._lingering.pop(number, None)
            stream.failed(StreamWasReset)

    def _pong(self, value: int) -> None:
        expected, at = self._ping
        if value == expected:
            self.rtt = trio.current_time() - at
            self._rtts.append(self.rtt)
            self._yamux.rtt = min(self._rtts)  # the others waited behind data

    # -- keeping alive ---------------------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        for pause in chain(FIRST_PINGS, repeat(PING_EVERY)):
            self._send_ping()
            await trio.sleep(pause)
            self._check_silence()
            self._end_lingering()

    def _send_ping(self) -> None:
        now = trio.current_time()
        self._ping = ((self._ping[0] + 1) % 2**32, now)
        self._yamux.ping(self._ping[0])
        self.outlet.flush()
        if self._asked_at is None:
            self._asked_at = now

    def _check_silence(self) -> None:
        if self.paused:
            self._asked_at = None  # it is we who do not listen
        elif self._asked_at is not None and trio.current_time() - self._asked_at >= SILENCE:
            raise ConnectionLost(f"nothing came for {SILENCE:.0f} s after a ping")

    def _end_lingering(self) -> None:
        now = trio.current_time()
        for number in [number for number, until in self._lingering.items() if until <= now]:
            self.reset(self._streams[number])

    # -- for streams -----------------------------------------------------------------------------------------------

    def open(self, *, quietly: bool = False) -> Stream:
        """A new stream, of which the peer learns at once, or `quietly` by its first bytes.

        Raises `ConnectionLost` when the peer takes no more, `LimitReached` when numbers ran out.
        """
        if self.ended or self._leaving:
            raise StreamLost(f"the connection is gone{self.reason}")
        number = self._yamux.open()
        stream = self._streams[number] = Stream(self, number)
        if not quietly:
            self._flush()
        return stream

    def acknowledge(self) -> None:
        """Tell the peer which of its streams are open, if it was not told yet."""
        self._yamux.acknowledge()
        self._flush()

    def consumed(self, stream: Stream, size: int) -> None:
        """So many bytes were read: the peer may send more."""
        self._yamux.consumed(stream.number, size, trio.current_time())
        self._flush()

    def widen(self, stream: Stream) -> None:
        """The stream carries a connection."""
        self._yamux.widen(stream.number)

    def finish(self, stream: Stream) -> None:
        """Send FIN."""
        self._yamux.finish(stream.number)
        self._flush()

    def reset(self, stream: Stream) -> None:
        """Send RST and forget the stream."""
        self._yamux.reset(stream.number)
        self.forget(stream)
        self._flush()

    def reset_theirs(self, *, but: Container[str]) -> None:
        """Reset the streams that the peer opened, `but` those that speak one of these protocols."""
        for stream in list(self._streams.values()):
            if not self._yamux.is_ours(stream.number) and (stream.protocol is None or stream.protocol not in but):
                stream.reset()

    def forget(self, stream: Stream) -> None:
        """The stream ended both ways."""
        self._streams.pop(stream.number, None)
        self._lingering.pop(stream.number, None)

    def linger(self, stream: Stream) -> None:
        """The stream was closed here; the peer has not yet said FIN."""
        self._lingering[stream.number] = trio.current_time() + LINGER
