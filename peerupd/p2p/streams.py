"""A libp2p stream as a trio `HalfCloseableStream`.

Theory of operation. Bytes that arrived wait in `_chunks` until somebody reads them, bounded by the stream's receive
window (`wire.yamux` enforces it, the peer pays for breaking it with its connection). Bytes to be sent go straight into
the multiplexer's output, as far as the window and the fair turn allow. Three ends are kept apart:

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

from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import ConnectionLost, StreamReset
from peerupd.model.names import PeerId

if TYPE_CHECKING:
    from peerupd.p2p.connection import Connection
    from peerupd.p2p.muxer import Muxer

SLICE: Final = 64 * 1024  # bytes that one stream may queue before it is another stream's turn
SMALL: Final = 4096  # bytes; smaller pieces are put together, for each costs memory of its own beside its bytes
MAX_READ: Final = 256 * 1024  # bytes handed out by one `receive_some` without a limit


class StreamWasReset(StreamReset, trio.BrokenResourceError):
    """The other side reset the stream: what was read may be cut short."""


class StreamLost(ConnectionLost, trio.BrokenResourceError):
    """The connection broke under the stream."""


class Stream(trio.abc.HalfCloseableStream):
    """One stream of one connection. A handler owns its stream until it returns; then the stream is closed."""

    __slots__ = (
        "_buffered",
        "_chunks",
        "_closed",
        "_ended",
        "_failure",
        "_finished",
        "_front",
        "_muxer",
        "_readable",
        "_receiving",
        "_sending",
        "_shut",
        "_torn",
        "_writable",
        "number",
        "protocol",
    )

    def __init__(self, muxer: Muxer, number: int) -> None:
        self.number = number
        self.protocol: str | None = None
        self._muxer = muxer
        self._chunks: deque[bytes] = deque()
        self._buffered = 0  # bytes in _chunks
        self._front = b""  # pushed back; already counted as read
        self._ended = False  # the peer said FIN
        self._finished = False  # we said FIN
        self._closed = False
        self._failure: type[StreamWasReset | StreamLost] | None = None
        self._torn = False  # a send was cut short
        self._shut = False  # the send window was found empty
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

    @property
    def _silent(self) -> bool:
        return not (self._chunks or self._ended or self._failure or self._closed or self._front)

    def _take(self, limit: int) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        if self._front:
            taken, self._front = self._front[:limit], self._front[limit:]
            return taken
        if self._chunks:
            return self._take_chunks(limit)
        if self._failure is not None and not self._ended:
            raise self._broken()
        return b""

    def _take_chunks(self, limit: int) -> bytes:
        taken = self._chunks.popleft()
        if len(taken) > limit:
            self._chunks.appendleft(taken[limit:])
            taken = taken[:limit]
        elif self._chunks and len(taken) + len(self._chunks[0]) <= limit:
            taken = self._join(taken, limit)
        self._release(len(taken))
        if self._failure is None:
            self._muxer.consumed(self, len(taken))
        return taken

    def _join(self, first: bytes, limit: int) -> bytes:
        parts, size = [first], len(first)
        while self._chunks and size + len(self._chunks[0]) <= limit:
            parts.append(self._chunks.popleft())
            size += len(parts[-1])
        return b"".join(parts)

    def _release(self, size: int) -> None:
        self._buffered -= size
        self._muxer.budget.give_back(size)

    def push_back(self, data: bytes) -> None:
        """Put bytes that a negotiation read too far in front of everything else."""
        self._front = data + self._front

    # -- sending ---------------------------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Queue all of `data`, waiting for the window and for a fair turn. Raises `StreamWasReset`, `StreamLost`."""
        self._take_the_pen()
        try:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            await self._send(memoryview(data))
        finally:
            self._sending = False

    async def _send(self, rest: memoryview) -> None:
        try:
            while rest:
                await self._turn()
                taken = self._muxer.send(self, rest[:SLICE])
                rest = rest[taken:]
                if not taken:
                    await self._window()
        except BaseException:
            self._torn = True
            raise

    async def _turn(self) -> None:
        if self._muxer.crowded:
            await self._muxer.turn()
            self._check_sendable()

    async def _window(self) -> None:
        while self._shut:
            await self._writable.park()
            self._check_sendable()

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
            await self._window()
            await self._turn()
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """Say FIN: nothing more will be sent; receiving goes on."""
        self._take_the_pen()
        try:
            await trio.lowlevel.checkpoint()
            if self._finished and not self._closed:
                return
            self._check_sendable()
            self._finish()
        finally:
            self._sending = False

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
        self._close()

    def _close(self) -> None:
        if self._closed:
            return
        if self._torn or self._sending or self._chunks or self._front:
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
        self._chunks.clear()
        self._front = b""
        self._release(self._buffered)

    def _wake_all(self) -> None:
        self._readable.unpark_all()
        self._writable.unpark_all()
        if self._sending:
            self._muxer.call_all()

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

    def data_arrived(self, data: bytes) -> None:
        """The multiplexer: these bytes came."""
        if self._chunks and len(self._chunks[-1]) + len(data) <= SMALL:
            self._chunks[-1] += data
        else:
            self._chunks.append(data)
        self._buffered += len(data)
        self._muxer.budget.take(len(data))
        self._readable.unpark()

    def end_arrived(self) -> None:
        """The multiplexer: the peer said FIN."""
        self._ended = True
        self._readable.unpark()
        self._settle()

    def window_grew(self) -> None:
        """The multiplexer: there is something to send into again."""
        self._shut = False
        self._writable.unpark_all()

    def window_is_shut(self) -> None:
        """The multiplexer: the window took nothing."""
        self._shut = True

    def failed(self, failure: type[StreamWasReset | StreamLost]) -> None:
        """The multiplexer: the stream is broken."""
        self._failure = failure
        if failure is StreamWasReset and not self._ended:
            self._drop_unread()
        self._wake_all()

    # -- in the shape of libp2p's INetStream -----------------------------------------------------------------------

    def get_protocol(self) -> str | None:
        """The protocol, once negotiated."""
        return self.protocol

    def set_protocol(self, protocol_id: str) -> None:
        """Name the protocol."""
        self.protocol = protocol_id

    def get_remote_address(self) -> tuple[str, int] | None:
        """IP address and port of the other side; None for a circuit."""
        ip, port = self.remote.ip, self.remote.port
        return None if ip is None or port is None or self.remote.is_circuit else (str(ip), port)

    async def read(self, n: int | None = None) -> bytes:
        """As `receive_some`."""
        return await self.receive_some(n)

    async def write(self, data: bytes) -> None:
        """As `send_all`."""
        await self.send_all(data)

    async def close(self) -> None:
        """As `aclose`."""
        await self.aclose()

    async def close_write(self) -> None:
        """As `send_eof`."""
        await self.send_eof()


def positive(max_bytes: int) -> int:
    """`max_bytes`, as trio wants it checked."""
    if not isinstance(max_bytes, int):
        raise TypeError("max_bytes must be a whole number")
    if max_bytes < 1:
        raise ValueError("max_bytes must be at least 1")
    return max_bytes
