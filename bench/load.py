"""Load that costs as little as it can, so that the path between its two ends is what is measured; a program.

    load.py serve ADDRESS    a service of all kinds on one port, which it prints; the first 17 bytes say what is wanted
    load.py client           does what it is told: a JSON object a line in, one a line out

Bytes are one fixed ring of noise, begun at a different place for each connection, so that any byte that is lost,
doubled, or another connection's is seen by comparing. Timed transfers of one stream only count; each way is compared
once before. Standard library only; buffers are made once; threads never share a busy loop.
"""

from __future__ import annotations

import json
import random
import resource
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

BLOCK = 1 << 20  # bytes at a time, of one stream
CROWD_BLOCK = 1 << 17  # bytes at a time, of one of many
PERIOD = BLOCK - 3  # bytes; prime to every power of two that a path might cut at
SECONDS = 180.0  # limit of any one wait
ACCEPTING = 16  # threads
HEAD = struct.Struct("!cQQ")  # what, how much, where in the ring
COUNT = struct.Struct("!Q?")  # bytes that came, whether all were right

RING = memoryview(random.Random(4).randbytes(PERIOD) * 3)
Address = tuple[str, int]


def piece(start: int, size: int) -> memoryview:
    """`size` bytes (at most two periods) of the ring from `start`."""
    at = start % PERIOD
    return RING[at : at + size]


# -- the service ---------------------------------------------------------------------------------------------------


def serve(address: str) -> None:
    """Until stdin ends."""
    listener = socket.create_server((address, 0), backlog=4096)
    crowd = Crowd()
    for target in [crowd.run] + [lambda: accept(listener, crowd)] * ACCEPTING:
        threading.Thread(target=target, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()


def accept(listener: socket.socket, crowd: Crowd) -> None:
    """One connection after the other; those of a crowd go elsewhere."""
    buffer = bytearray(BLOCK)
    while True:
        connection, _ = listener.accept()
        with suppress(OSError, struct.error):
            connection.settimeout(SECONDS)
            what, size, start = HEAD.unpack(connection.recv(HEAD.size, socket.MSG_WAITALL))
            if what == b"m":
                crowd.add(connection, size, start)
                continue
            KINDS[what](connection, size, start, buffer)
        connection.close()


def give(connection: socket.socket, size: int, start: int, _: bytearray) -> None:
    """`size` bytes."""
    sent = 0
    while sent < size:
        sent += connection.send(piece(start + sent, min(BLOCK, size - sent)))
    farewell(connection)


def give_for(connection: socket.socket, milliseconds: int, start: int, _: bytearray) -> None:
    """As many as go in that time."""
    until, sent = time.perf_counter() + milliseconds / 1e3, 0
    while time.perf_counter() < until:
        sent += connection.send(piece(start + sent, BLOCK))
    farewell(connection)


def farewell(connection: socket.socket) -> None:
    """All was sent; gone when the other side has gone."""
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)


def swallow(connection: socket.socket, compare: int, start: int, buffer: bytearray) -> None:
    """To the end; then say what came."""
    connection.sendall(COUNT.pack(*drain(connection, buffer, start if compare else None)))


def echo(connection: socket.socket, _size: int, _start: int, _buffer: bytearray) -> None:
    """A byte at once, then whatever comes back to where it came from."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(b"!")
    while data := connection.recv(64):
        connection.sendall(data)


KINDS: dict[bytes, Callable[[socket.socket, int, int, bytearray], None]] = {
    b"d": give,
    b"t": give_for,
    b"u": swallow,
    b"e": echo,
}


def drain(connection: socket.socket, buffer: bytearray, start: int | None) -> tuple[int, bool]:
    """Bytes to the end, and whether all were right (not looked at without `start`)."""
    got, right = 0, True
    while count := connection.recv_into(buffer):
        if start is not None:
            right &= buffer[:count] == piece(start + got, count)
        got += count
    return got, right


class Crowd:
    """Many downloads at once, by one thread."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._open: dict[int, tuple[socket.socket, int, int]] = {}

    def add(self, connection: socket.socket, size: int, start: int) -> None:
        """Send `size` bytes to this one; called by other threads."""
        connection.setblocking(False)
        self._open[connection.fileno()] = (connection, start, start + size)
        self._poll.register(connection.fileno(), select.EPOLLOUT)

    def run(self) -> None:
        """For ever."""
        while True:
            for number, _ in self._poll.poll():
                self._turn(number)

    def _turn(self, number: int) -> None:
        connection, at, end = self._open[number]
        try:
            at += connection.send(piece(at, min(CROWD_BLOCK, end - at))) if at < end else 0
        except BlockingIOError:
            return
        except OSError:
            at = -1
        self._open[number] = (connection, at, end)
        if at < 0 or at == end:
            self._poll.unregister(number)
            del self._open[number]
            connection.close()


# -- the client ----------------------------------------------------------------------------------------------------

BUFFER = bytearray(BLOCK)


def ask(address: Address, what: bytes, size: int = 0, start: int = 0) -> socket.socket:
    """A connection on which this was asked for."""
    connection = socket.create_connection(address, SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(HEAD.pack(what, size, start))
    return connection


def down(address: Address, size: int, compare: bool = False) -> dict[str, Any]:
    """Fetch `size` bytes; the seconds from the request to the last byte."""
    with socket.create_connection(address, SECONDS) as connection:
        began = time.perf_counter()
        connection.sendall(HEAD.pack(b"d", size, 7))
        got, right = drain(connection, BUFFER, 7 if compare else None)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "bytes": got, "right": right and got == size}


def up(address: Address, size: int, compare: bool = False) -> dict[str, Any]:
    """Send `size` bytes; the seconds to the service's word that it has them."""
    with ask(address, b"u", int(compare), 9) as connection:
        began = time.perf_counter()
        sent = 0
        while sent < size:
            sent += connection.send(piece(9 + sent, min(BLOCK, size - sent)))
        return _told(connection, began, size)


def down_for(address: Address, seconds: float) -> dict[str, Any]:
    """Fetch for so long."""
    began = time.perf_counter()
    with ask(address, b"t", int(seconds * 1e3)) as connection:
        got, _ = drain(connection, BUFFER, None)
    return {"seconds": time.perf_counter() - began, "bytes": got, "right": True}


def up_for(address: Address, seconds: float) -> dict[str, Any]:
    """Send for so long."""
    with ask(address, b"u") as connection:
        began, sent = time.perf_counter(), 0
        while time.perf_counter() < began + seconds:
            sent += connection.send(piece(sent, BLOCK))
        return _told(connection, began, sent)


def _told(connection: socket.socket, began: float, size: int) -> dict[str, Any]:
    connection.shutdown(socket.SHUT_WR)
    got, right = COUNT.unpack(connection.recv(COUNT.size, socket.MSG_WAITALL))
    return {"seconds": time.perf_counter() - began, "bytes": got, "right": right and got == size}


def pings(address: Address, count: int = 0, seconds: float = 0.0) -> dict[str, Any]:
    """Microseconds of one byte there and back, so often or for so long, after a few that are not counted."""
    took: list[float] = []
    with ask(address, b"e") as connection:
        connection.recv(1)
        for _ in range(10):
            _once(connection)
        until = time.perf_counter() + seconds
        while len(took) < count or time.perf_counter() < until:
            took.append(_once(connection))
    return _spread(took)


def _once(connection: socket.socket) -> float:
    began = time.perf_counter()
    connection.send(b"x")
    if not connection.recv(1):
        raise ConnectionAbortedError("the echo ended")
    return (time.perf_counter() - began) * 1e6


def firsts(address: Address, count: int) -> dict[str, Any]:
    """Microseconds from connecting to the first byte of the answer, one connection after the other."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        with ask(address, b"e") as connection:
            if not connection.recv(1):
                raise ConnectionAbortedError("no answer came")
            took.append((time.perf_counter() - began) * 1e6)
    return _spread(took)


def _spread(took: list[float]) -> dict[str, Any]:
    took.sort()
    at = [took[min(len(took) - 1, int(len(took) * share))] for share in (0.5, 0.99)]
    return {"p50": at[0], "p99": at[1], "count": len(took)}


def many(address: Address, count: int, size: int) -> dict[str, Any]:
    """`count` connections, all open before the first byte is asked for; each byte is compared."""
    began = time.perf_counter()
    poll, right = select.epoll(), 0
    talks: dict[int, list[Any]] = {}
    for number in range(count):
        with suppress(OSError):
            connection = socket.create_connection(address, SECONDS)
            talks[connection.fileno()] = [connection, number * 7919, 0]
    for number, (connection, start, _) in talks.items():
        with suppress(OSError):  # those that were closed are found so below
            connection.sendall(HEAD.pack(b"m", size, start))
        connection.setblocking(False)
        poll.register(number, select.EPOLLIN)
    while talks and time.perf_counter() < began + SECONDS:
        for number, _ in poll.poll(1.0):
            if (got := _take(talks[number])) is not None:
                right += got == size
                poll.unregister(number)
                talks.pop(number)[0].close()
    for connection, _, _ in talks.values():
        connection.close()
    return {"seconds": time.perf_counter() - began, "bytes": right * size, "succeeded": right, "of": count}


def _take(talk: list[Any]) -> int | None:
    """What is there of one connection; at its end, how much was right."""
    connection, start, got = talk
    try:
        count = connection.recv_into(BUFFER, CROWD_BLOCK)
    except BlockingIOError:
        return None
    except OSError:
        return -1
    if BUFFER[:count] != piece(start + got, count):
        return -1
    talk[2] += count
    return None if count else got


DEEDS: dict[str, Callable[..., dict[str, Any]]] = {
    deed.__name__: deed for deed in (down, up, down_for, up_for, pings, firsts, many)
}


def obey() -> None:
    """Until stdin ends. What fails is told, not died of."""
    for line in sys.stdin:
        told = json.loads(line)
        address = tuple(told.pop("at"))
        try:
            seen = DEEDS[told.pop("do")](address, **told)
        except (OSError, struct.error) as why:
            seen = {"failed": f"{type(why).__name__}: {why}"}
        print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with suppress(KeyboardInterrupt):
        obey() if sys.argv[1] == "client" else serve(sys.argv[2])
