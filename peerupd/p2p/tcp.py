"""A TCP connection as a byte stream that costs no task switch while the kernel has bytes, or room, for us.

trio's own `SocketStream` yields to the scheduler at every call. Here a call that can be answered at once is; the user
of `receive` and `send` (the multiplexer) yields by its own budget of bytes instead. `receive_some` and `send_all` are
checkpoints as trio asks of them; handshakes use these.
"""

from __future__ import annotations

import socket
from typing import Final

import trio

from peerupd.model.addresses import Multiaddr, tcp_multiaddr
from peerupd.p2p.streams import positive

READ_SIZE: Final = 256 * 1024  # bytes asked of the kernel at once
_SOME: Final = 4096  # bytes, for who does not say how many; that is handshakes

_scratch = bytearray(READ_SIZE)  # of all connections: what is in it is used up before anybody else runs


class TcpStream(trio.abc.HalfCloseableStream):
    """Over a connected, non-blocking socket of the standard library."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._open = True
        self._finished = False  # we said that nothing more comes

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

    async def receive(self) -> memoryview:
        """What the kernel has, at most `READ_SIZE`; empty at the end. Valid only until the next await."""
        while True:
            self._check_open()
            try:
                return memoryview(_scratch)[: self._socket.recv_into(_scratch)]
            except BlockingIOError:
                await _readable(self._socket)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Give all of `data` to the kernel."""
        rest = memoryview(data)
        while rest:
            self._check_open()
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
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
