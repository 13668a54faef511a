"""A TCP connection as a byte stream that costs no task switch while the kernel has bytes, or room, for us.

trio's own `SocketStream` yields to the scheduler at every call. Here a call that can be answered at once is; the user
of `carry_to` and `send_now` (the multiplexer) yields by a budget of bytes instead. `receive_some` and `send_all` are
checkpoints as trio asks of them; handshakes use these.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

import trio

from peerupd.model.addresses import Multiaddr, tcp_multiaddr
from peerupd.p2p.inetstream import positive
from peerupd.p2p.links import Inlet, carry
from peerupd.p2p.scratch import READ_SIZE, Slots, incoming

_ROOM: Final = 1 << 30  # bytes; the kernel takes what it can, and the rest is kept
_SOME: Final = 4096  # bytes; handshakes are that long, and many at once are more


class TcpStream(trio.abc.HalfCloseableStream):
    """Over a connected, non-blocking socket of the standard library; a `p2p.links.Link`."""

    depth = 0
    paused = False

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._open = True
        self._finished = False  # we said that nothing more comes
        self._drained = False  # the kernel had little, and hardly has more by now

    @property
    def local(self) -> Multiaddr:
        """Our end."""
        host, port = self._socket.getsockname()[:2]
        return tcp_multiaddr(host, port)

    @property
    def remote(self) -> Multiaddr:
        """The other end; raises `OSError` when it is gone already."""
        host, port = self._socket.getpeername()[:2]
        return tcp_multiaddr(host, port)

    async def carry_to(self, inlet: Inlet) -> int:
        """Give all that comes to `inlet`, to the end."""
        return await carry(self.receive, inlet)

    async def receive(self, most: int = READ_SIZE) -> memoryview:
        """What the kernel has; empty at the end. Valid only until the next await."""
        while True:
            self._check_open()
            if self._drained:
                self._drained = False
                await trio.lowlevel.wait_readable(self._socket)
                self._check_open()
            try:
                size = self._socket.recv_into(incoming, most)
            except BlockingIOError:
                await _readable(self._socket)
            else:
                self._drained = 0 < size < _SOME
                return incoming[:size]

    def room(self) -> int:
        """More than anybody has."""
        return _ROOM

    def send_slots(self, slots: Slots, sizes: Sequence[int], inset: int) -> int:
        """Send what lies in slots, as far as the kernel takes it."""
        return self.send_now(slots.joined(sizes, inset))

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        """Send what the kernel takes."""
        self._check_open()
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Give all of `data` to the kernel."""
        rest = memoryview(data)
        while rest := rest[self.send_now(rest) :]:
            await _writable(self._socket)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As trio says; broken connections raise `trio.BrokenResourceError`."""
        limit = _SOME if max_bytes is None else positive(max_bytes)
        await trio.lowlevel.checkpoint()
        while True:
            self._check_open()
            try:
                return self._socket.recv(limit)
            except BlockingIOError:
                await _readable(self._socket)
            except OSError as why:
                raise trio.BrokenResourceError(str(why)) from why

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As trio says; broken connections raise `trio.BrokenResourceError`."""
        await trio.lowlevel.checkpoint()
        if self._finished:
            raise trio.ClosedResourceError("this connection was finished here")
        self._check_open()
        try:
            await self.send(data)
        except OSError as why:
            raise trio.BrokenResourceError(str(why)) from why

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel has room."""
        self._check_open()
        await _writable(self._socket)

    async def send_eof(self) -> None:
        """Half-close."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        if not self._finished:
            self._finished = True
            self._shut_down()

    def _shut_down(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as why:
            raise trio.BrokenResourceError(str(why)) from why

    async def aclose(self) -> None:
        """Close; the kernel still delivers what it has taken."""
        if self._open:
            self._open = False
            trio.lowlevel.notify_closing(self._socket.fileno())
            self._socket.close()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if not self._open:
            raise trio.ClosedResourceError("this connection was closed here")


async def _readable(sock: socket.socket) -> None:
    await trio.lowlevel.wait_readable(sock.fileno())


async def _writable(sock: socket.socket) -> None:
    await trio.lowlevel.wait_writable(sock.fileno())
