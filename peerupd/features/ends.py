"""The local ends of a pump: TCP and Unix sockets, dialled or accepted, and a pair of standard streams.

A reset is passed on to TCP as a reset: SO_LINGER of zero seconds makes close(2) send RST instead of FIN (socket(7)).
It is set from the beginning, and taken back for a clean end: so the kernel sends RST also for a process that is killed.
A Unix socket knows no reset; its other side sees the connection closed.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Final, Self

import trio

from peerupd.features.pump import CHUNK
from peerupd.model.addresses import Endpoint
from peerupd.model.errors import AddressInUse, EnvironmentalError, ServiceDown

DIAL_LIMIT: Final = 10.0  # seconds
BACKLOG: Final = 1024  # connections waiting to be accepted
MANY: Final = 64  # pieces of memory in one call; more of them are put together

_LINGER_ZERO: Final = struct.pack("ii", 1, 0)
_NO_LINGER: Final = struct.pack("ii", 0, 0)
_LOOPBACKS: Final = ("127.0.0.1", "::1")


class SocketEnd:
    """A connected stream socket, which is its own from now on; `early` is what was already read from it."""

    def __init__(self, sock: trio.socket.SocketType | socket.socket, early: bytes = b"") -> None:
        self._socket = sock if isinstance(sock, socket.socket) else _plain(sock)
        if self._socket.gettimeout() != 0:
            self._socket.setblocking(False)
        self._early = early
        self._failure = ""  # the kernel tells an error once, to whoever asks first; then reading looks like an end
        if sock.family != socket.AF_UNIX:
            with suppress(OSError):  # the other side may have reset it by now
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._linger(_LINGER_ZERO)

    def fill(self, slots: list[memoryview]) -> int:
        if self._early:
            size = min(len(self._early), len(slots[0]))
            slots[0][:size], self._early = self._early[:size], self._early[size:]
            return size
        try:
            size = self._socket.recvmsg_into(slots)[0]
        except BlockingIOError:
            raise
        except OSError as why:
            raise self._failed(why) from why
        if not size:
            self._check_end()
        return size

    async def readable(self) -> None:
        try:
            await trio.lowlevel.wait_readable(self._socket)
        except OSError as why:
            raise trio.BrokenResourceError(_reason(why)) from why

    def take(self, parts: Sequence[memoryview]) -> int:
        try:
            return self._socket.sendmsg(parts if len(parts) <= MANY else (b"".join(parts),))
        except BlockingIOError:
            return 0
        except OSError as why:
            raise self._failed(why) from why

    async def writable(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self._socket)
        except OSError as why:
            raise trio.BrokenResourceError(_reason(why)) from why

    async def receive_some(self, max_bytes: int | None = None, /) -> bytes:
        await trio.lowlevel.checkpoint()
        limit = max_bytes or CHUNK
        if self._early:
            data, self._early = self._early[:limit], self._early[limit:]
            return data
        while True:
            try:
                if not (data := self._socket.recv(limit)):
                    self._check_end()
                return data
            except BlockingIOError:
                await self.readable()
            except OSError as why:
                raise self._failed(why) from why

    def _failed(self, why: OSError) -> trio.BrokenResourceError:
        self._failure = _reason(why)
        return trio.BrokenResourceError(self._failure)

    def _check_end(self) -> None:
        if self._failure:
            raise trio.BrokenResourceError(self._failure)

    async def send_all(self, data: bytes | bytearray | memoryview, /) -> None:
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest := rest[self.take((rest,)) :]:
            await self.writable()

    async def send_eof(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as why:
            raise self._failed(why) from why

    async def aclose(self) -> None:
        self._linger(_NO_LINGER)
        self._close()

    def reset(self) -> None:
        self._linger(_LINGER_ZERO)
        self._close()

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def _linger(self, option: bytes) -> None:
        with suppress(OSError):  # the socket may be closed already
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)


class PipeEnd:
    """Two file descriptors, one to read and one to write: standard input and output. A reset closes both.

    They are made non-blocking, and what they were before when they are closed.
    """

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._open = {fd: os.get_blocking(fd) for fd in (source, sink)}
        for fd in self._open:
            os.set_blocking(fd, False)

    def fill(self, slots: list[memoryview]) -> int:
        with _broken():
            return os.readv(self._open_one(self._source), slots)

    async def readable(self) -> None:
        with _broken():
            try:
                await trio.lowlevel.wait_readable(self._open_one(self._source))
            except PermissionError:  # a file, for which nobody has to wait
                await trio.lowlevel.checkpoint()

    def take(self, parts: Sequence[memoryview]) -> int:
        with _broken():
            try:
                return os.writev(self._open_one(self._sink), parts if len(parts) <= MANY else (b"".join(parts),))
            except BlockingIOError:
                return 0

    async def writable(self) -> None:
        with _broken():
            await trio.lowlevel.wait_writable(self._open_one(self._sink))

    async def receive_some(self, max_bytes: int | None = None, /) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            with _broken():
                try:
                    return os.read(self._open_one(self._source), max_bytes or CHUNK)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self._source)

    async def send_all(self, data: bytes | bytearray | memoryview, /) -> None:
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest := rest[self.take((rest,)) :]:
            await self.writable()

    async def send_eof(self) -> None:
        self._close(self._sink)
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.reset()
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        self._close(self._source)
        self._close(self._sink)

    def _open_one(self, fd: int) -> int:
        if fd not in self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return fd

    def _close(self, fd: int) -> None:
        if fd in self._open:
            os.set_blocking(fd, self._open.pop(fd))
            trio.lowlevel.notify_closing(fd)
            os.close(fd)


async def dial(endpoint: Endpoint, limit: float = DIAL_LIMIT) -> SocketEnd:
    """A connection to `endpoint` within `limit` seconds; raises `ServiceDown`."""
    try:
        with trio.fail_after(limit):
            return SocketEnd(await _connect(endpoint))
    except trio.TooSlowError:
        raise ServiceDown(f"nothing answers at {endpoint} within {limit:g} s") from None
    except OSError as why:
        raise ServiceDown(f"nothing answers at {endpoint}: {_reason(why)}") from why


class Listener:
    """A listening socket."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = _plain(sock)
        self._socket.setblocking(False)
        self.getsockname = self._socket.getsockname

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def accept(self) -> tuple[socket.socket, object]:
        """The next connection, and from where; raises `OSError`."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            with suppress(BlockingIOError):  # whoever came has gone
                return self._socket.accept()

    def close(self) -> None:
        """Listen no more."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


async def listen(endpoint: Endpoint) -> Listener:
    """A listening socket; `localhost` is 127.0.0.1. Raises `AddressInUse`, `EnvironmentalError`."""
    try:
        return Listener(await (_listen_unix(endpoint) if endpoint.path else _listen_tcp(endpoint)))
    except OSError as why:
        if why.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"cannot listen on {endpoint}: the address is in use", hint="choose another, or end the other program"
            ) from why
        raise EnvironmentalError(f"cannot listen on {endpoint}: {_reason(why)}") from why


def bound(endpoint: Endpoint, sock: Listener) -> Endpoint:
    """Where `sock` really listens: `endpoint` with the port that the kernel chose."""
    if endpoint.path:
        return endpoint
    host, port = sock.getsockname()[:2]
    return Endpoint(host, port)


async def _connect(endpoint: Endpoint) -> socket.socket:
    if endpoint.path:
        return await _connected(socket.AF_UNIX, endpoint.path)
    # `localhost` by the resolver would cost a thread for each connection.
    hosts = _LOOPBACKS if endpoint.host == "localhost" else (endpoint.host,)
    for host in hosts[:-1]:
        with suppress(OSError):
            return await _connect_tcp(host, endpoint.port)
    return await _connect_tcp(hosts[-1], endpoint.port)


async def _connect_tcp(host: str, port: int) -> socket.socket:
    if (family := _family(host)) is not None:
        return await _connected(family, (host, port))
    sock = (await trio.open_tcp_stream(host, port)).socket
    # trio keeps little unsent data for short queues; here throughput counts. Zero is the system's own value.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)
    return _plain(sock)


@cache
def _family(host: str) -> socket.AddressFamily | None:
    """Of an address; None: a name, or an address with a scope, which only the resolver understands."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            socket.inet_pton(family, host)
            return family
    return None


def _new(family: socket.AddressFamily) -> socket.socket:
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


async def _connected(family: socket.AddressFamily, address: str | tuple[str, int]) -> socket.socket:
    """A socket that is; one of this machine is connected before `connect` can say so, and says it when asked again."""
    sock = _new(family)
    with _closed_on_error(sock):
        for _ in range(2):
            if not (error := sock.connect_ex(address)):
                return sock
        if error == errno.EALREADY:
            await trio.lowlevel.wait_writable(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        return sock


async def _listen_tcp(endpoint: Endpoint) -> trio.socket.SocketType:
    host = _LOOPBACKS[0] if endpoint.host == "localhost" else endpoint.host
    found = await trio.socket.getaddrinfo(host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, proto, _, address = found[0]
    sock = trio.socket.socket(family, kind, proto)
    with _closed_on_error(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await sock.bind(address)
        sock.listen(BACKLOG)
    return sock


async def _listen_unix(endpoint: Endpoint) -> trio.socket.SocketType:
    await _clear_stale(endpoint.path)
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _closed_on_error(sock):
        before = os.umask(0o177)
        try:
            # The umask is the process's: no other task may run before it is restored, so trio's bind is passed by.
            sock._sock.bind(endpoint.path)  # type: ignore[attr-defined] # trio has no synchronous bind
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
    return sock


async def _clear_stale(path: str) -> None:
    """Remove a socket on which nobody answers; raises `OSError` EADDRINUSE if somebody does, or if it is no socket."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISSOCK(mode):
        try:
            (await _connected(socket.AF_UNIX, path)).close()
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, "in use")


def _plain(sock: trio.socket.SocketType) -> socket.socket:
    """The same, without trio around it."""
    return socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())


@contextmanager
def _closed_on_error(sock: trio.socket.SocketType | socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise


@contextmanager
def _broken() -> Iterator[None]:
    """Every error of a socket means: not a clean end; that it would have to wait is none."""
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as why:
        raise trio.BrokenResourceError(_reason(why)) from why


def _reason(why: OSError) -> str:
    """The system's word for it; what trio raises for all addresses of a name has the system's errors as its cause."""
    causes = why.__cause__.exceptions if isinstance(why.__cause__, BaseExceptionGroup) else (why,)
    numbers = [each.errno for each in causes if isinstance(each, OSError) and each.errno and each.errno > 0]
    return os.strerror(numbers[0]) if numbers else why.strerror or str(why)
