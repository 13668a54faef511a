"""Many streams over one secured connection: one task reads, one writes, one keeps it alive; `wire.yamux` decides.

Theory of operation. The reader takes what the connection has, opens the records, and hands the bytes to the streams;
it never waits for a send, so two full peers cannot block each other: answers (window updates, pongs) go to the output,
which always accepts them. The writer seals all of the output in one batch. Senders queue up while the output holds
more than `OUTPUT_BOUND`, and send one slice at each turn. All yield by budget, so that one busy connection starves
nobody.

Memory: what a stream has not read is bounded by its window, and all of it by `p2p.budget`: over that the reader pauses
until something was read; nothing is reset.

The end of a connection is one place, `run`: whatever ends it, streams learn `StreamLost` and `reason` says why.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Container
from typing import TYPE_CHECKING, Final, Protocol

import trio

from peerupd.model.errors import ConnectionLost, PeerupError
from peerupd.p2p.budget import Budget
from peerupd.p2p.streams import Stream, StreamLost, StreamWasReset
from peerupd.wire import yamux
from peerupd.wire.noise import Session
from peerupd.wire.protobuf import Buffer

if TYPE_CHECKING:
    from peerupd.p2p.connection import Connection

log = logging.getLogger(__name__)

OUTPUT_BOUND: Final = 256 * 1024  # bytes of frames waiting to be sealed
TURNS: Final = 4  # senders that may queue a slice each while one batch is sent
TURN: Final = 256 * 1024  # bytes read before others may run
READ_COST: Final = 4096  # bytes that one read counts for beside its own
PING_EVERY: Final = 15.0  # seconds
SILENCE: Final = 30.0  # seconds without a byte after a ping: the peer is gone
LINGER: Final = 60.0  # seconds that a closed stream waits for the peer's FIN
GOODBYE: Final = 1.0  # seconds for the last frames, and for the peer to take them, when we close
MAX_INBOUND_STREAMS: Final = 2048  # per connection


class Link(Protocol):
    """The bytes below: a `TcpStream`, or `Over` any other stream."""

    async def receive(self) -> Buffer:
        """What has come, empty at the end; valid until the next await."""

    async def send(self, data: bytearray) -> None:
        """Give all of it to whatever is below."""

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""

    async def aclose(self) -> None:
        """Close."""


class Over:
    """Any trio stream as a `Link`: a circuit, or two memory streams in a test."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream

    async def send(self, data: bytearray) -> None:
        """Give all of it to the stream."""
        await self._stream.send_all(memoryview(data))

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()

    async def receive(self) -> bytes | bytearray:
        """What has come."""
        return await self._stream.receive_some()


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
        self._yamux = yamux.Yamux(client=client, max_inbound_streams=MAX_INBOUND_STREAMS)
        self._accept = accept
        self._early = received
        self._streams: dict[int, Stream] = {}
        self._lingering: dict[int, float] = {}  # until when, trio's clock
        self._work = trio.lowlevel.ParkingLot()  # the writer waits here
        self._turns = trio.lowlevel.ParkingLot()  # senders wait here
        self._scope = trio.CancelScope()
        self._leaving = False
        self._asked_at: float | None = None  # when a ping went out that nothing has come after
        self._ping = (0, 0.0)  # the last one: its value, when

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
                    for part in (self._read, self._write, self._keep_alive):
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
        self._turns.unpark_all()
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
        self._work.unpark()
        self._scope.deadline = trio.current_time() + GOODBYE

    # -- reading ---------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        self._deliver(self._yamux.receive(self._early))
        spent = 0
        while True:
            if self.budget.is_over:
                await self.budget.room()
            data = await self._link.receive()
            if not data:
                raise ConnectionLost("the peer closed it")
            self._asked_at = None
            self._deliver(self._yamux.receive(self._session.open(data)))
            if self._yamux.output_size:
                self._work.unpark()
            spent += len(data) + READ_COST
            if spent >= TURN:
                spent = 0
                await trio.lowlevel.checkpoint()

    def _deliver(self, events: list[yamux.Event]) -> None:
        for event in events:
            match event:
                case yamux.DataReceived(number, data):
                    self._data(number, data)
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

    def _data(self, number: int, data: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        if stream.is_closed:
            self.reset(stream)
        else:
            self.received += len(data)
            stream.data_arrived(data)

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
            self.rtt = self._yamux.rtt = trio.current_time() - at

    # -- writing ---------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            if self._yamux.output_size:
                sealed = self._session.seal(self._yamux.take_output())
                self._turns.unpark(count=TURNS)
                await self._link.send(sealed)
            elif self._turns:  # those whose turn it was had nothing to send
                self._turns.unpark_all()
                await trio.lowlevel.checkpoint()
            else:
                await self._rest()

    async def _rest(self) -> None:
        if self._leaving:
            await self._link.send_eof()
            await trio.sleep_forever()  # until the peer, which has read all then, closes it
        await self._work.park()

    # -- keeping alive ---------------------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        while True:
            self._send_ping()
            await trio.sleep(PING_EVERY)
            self._check_silence()
            self._end_lingering()

    def _send_ping(self) -> None:
        now = trio.current_time()
        self._ping = ((self._ping[0] + 1) % 2**32, now)
        self._yamux.ping(self._ping[0])
        self._work.unpark()
        if self._asked_at is None:
            self._asked_at = now

    def _check_silence(self) -> None:
        if self.budget.paused:
            self._asked_at = None  # it is we who do not listen
        elif self._asked_at is not None and trio.current_time() - self._asked_at >= SILENCE:
            raise ConnectionLost(f"nothing came for {SILENCE:.0f} s after a ping")

    def _end_lingering(self) -> None:
        now = trio.current_time()
        for number in [number for number, until in self._lingering.items() if until <= now]:
            self.reset(self._streams[number])

    # -- for streams -----------------------------------------------------------------------------------------------

    def open(self) -> Stream:
        """A new stream; raises `ConnectionLost` when the peer takes no more, `LimitReached` when numbers ran out."""
        if self.ended or self._leaving:
            raise StreamLost(f"the connection is gone{self.reason}")
        number = self._yamux.open()
        stream = self._streams[number] = Stream(self, number)
        self._work.unpark()
        return stream

    @property
    def crowded(self) -> bool:
        """Whether the output is full, so that senders take turns."""
        return self._yamux.output_size >= OUTPUT_BOUND or bool(self._turns)

    async def turn(self) -> None:
        """Wait for it, behind those who wait already; then one slice may be sent."""
        await self._turns.park()

    def call_all(self) -> None:
        """Let all who wait look again: one of them has nothing to wait for any more."""
        self._turns.unpark_all()

    def send(self, stream: Stream, data: memoryview) -> int:
        """Queue as much of `data` as the window takes; how many bytes that was."""
        taken = self._yamux.send(stream.number, data)
        if taken:
            self.sent += taken
            self._work.unpark()
        else:
            stream.window_is_shut()
        return taken

    def consumed(self, stream: Stream, size: int) -> None:
        """So many bytes were read: the peer may send more."""
        self._yamux.consumed(stream.number, size, trio.current_time())
        if self._yamux.output_size:
            self._work.unpark()

    def finish(self, stream: Stream) -> None:
        """Send FIN."""
        self._yamux.finish(stream.number)
        self._work.unpark()

    def reset(self, stream: Stream) -> None:
        """Send RST and forget the stream."""
        self._yamux.reset(stream.number)
        self.forget(stream)
        self._work.unpark()

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
