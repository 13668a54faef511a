"""A box in the middle of a TCP path that passes on what comes, but never more than a few bytes at once; a program.

    middlebox.py HOST PORT SIZE [LISTEN]    forwards to HOST:PORT in pieces of SIZE bytes, from a port that it prints

Each piece is a segment of its own (TCP_NODELAY). Ends of data are passed on as ends, resets as resets.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys
from contextlib import suppress

LINGER_ZERO = struct.pack("ii", 1, 0)
PIECES_AT_ONCE = 64  # before others have their turn


class Way:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.waiting = b""
        self.ended = False

    def pass_on(self, size: int) -> None:
        """A few pieces; raises `BlockingIOError`, and `OSError` for a reset."""
        if not self.waiting and not self.ended:
            self.waiting = self.source.recv(4096)
            if not self.waiting:
                self.ended = True
                self.sink.shutdown(socket.SHUT_WR)
        for _ in range(PIECES_AT_ONCE):
            if self.waiting:
                self.waiting = self.waiting[self.sink.send(self.waiting[:size]) :]


class Box:
    """All connections."""

    def __init__(self, host: str, port: int, size: int, listen: int = 0) -> None:
        self._target = (host, port)
        self._size = size
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", listen), backlog=1024)
        self._ways: dict[socket.socket, tuple[Way, Way]] = {}
        """By source: its way, and the way back."""
        self._selector.register(self._listener, selectors.EVENT_READ)
        print(self._listener.getsockname()[1], flush=True)

    def run(self) -> None:
        """Until it is ended."""
        while True:
            for key, _ in self._selector.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is self._listener:
                    self._welcome()
                elif sock in self._ways:
                    self._turn(*self._ways[sock])

    def _welcome(self) -> None:
        near, _ = self._listener.accept()
        far = socket.socket()
        if far.connect_ex(self._target):
            cut(near, far)
            return
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ)
        there, back = Way(near, far), Way(far, near)
        self._ways[near], self._ways[far] = (there, back), (back, there)

    def _turn(self, own: Way, other: Way) -> None:
        """A socket can act: what it has is passed on, and what waits for it is given to it."""
        for way in (own, other):
            try:
                way.pass_on(self._size)
            except BlockingIOError:
                continue
            except OSError:
                self._forget(own)
                cut(own.source, own.sink)
                return
        if own.ended and other.ended and not (own.waiting or other.waiting):
            self._forget(own)
            own.source.close()
            own.sink.close()
            return
        self._watch(own, other)
        self._watch(other, own)

    def _watch(self, own: Way, other: Way) -> None:
        """Of the source of `own`: read more when there is room, write when something waits."""
        wanted = selectors.EVENT_READ if not (own.waiting or own.ended) else 0
        wanted |= selectors.EVENT_WRITE if other.waiting else 0
        with suppress(KeyError):
            self._selector.unregister(own.source)
        if wanted:
            self._selector.register(own.source, wanted)

    def _forget(self, way: Way) -> None:
        for sock in (way.source, way.sink):
            self._ways.pop(sock, None)
            with suppress(KeyError):
                self._selector.unregister(sock)


def cut(*socks: socket.socket) -> None:
    """Reset these."""
    for sock in socks:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        sock.close()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        Box(sys.argv[1], *map(int, sys.argv[2:])).run()
