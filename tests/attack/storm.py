"""A stranger with a thousand connections, as a process: `python -m tests.attack.storm KIND PORT SOURCE CONNECTIONS`.

Every connection that the other side ends is opened anew, after a second on average, until the stranger is killed. A
line on stdout says that each was opened once. It is one loop over plain sockets: what takes time must not be this.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import random
import resource
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from peerupd.trust.identity import Identity
from peerupd.wire import noise
from peerupd.wire.framing import frame
from peerupd.wire.multistream import Dialer
from tests.attack.raw import GIB_VARINT, HEADER
from tests.support.cluster import DIE_WITH_US, ROOT

CONNECTIONS = 1000
PAUSE = (0.5, 1.5)  # seconds until a connection is opened anew
STRANGER = Identity.generate()
NOISE = HEADER + frame(b"/noise\n")


class Silent:
    """One connection: what is said at first, each second, and to an answer."""

    def first(self) -> bytes:
        return b""

    def each_second(self) -> bytes:
        return b""

    def answer(self, _data: bytes) -> bytes:
        return b""


class Slow(Silent):
    """A byte a second."""

    def __init__(self) -> None:
        self._rest = iter(NOISE)

    def each_second(self) -> bytes:
        return bytes(itertools.islice(self._rest, 1))


class Garbage(Silent):
    """What means nothing."""

    def first(self) -> bytes:
        return os.urandom(2048)


class Plaintext(Silent):
    """Another security, with somebody's public key."""

    def first(self) -> bytes:
        key = STRANGER.public_key
        exchange = frame(b"\x0a\x26" + key.peer_id.to_bytes() + b"\x12\x24" + key.encode())
        return HEADER + frame(b"/plaintext/2.0.0\n") + exchange


class Oversized(Silent):
    """A length of a gibibyte, and some of it."""

    def first(self) -> bytes:
        return HEADER + GIB_VARINT + bytes(65536)


class HalfShaken(Silent):
    """A key that has to be answered; the answer is not."""

    key = noise.Handshake(initiator=True, identity_key=STRANGER.public_key, sign=STRANGER.sign).start()

    def first(self) -> bytes:
        return NOISE + self.key


class Refused(Silent):
    """A whole handshake."""

    def __init__(self) -> None:
        self._dialer = Dialer([noise.PROTOCOL])
        self._handshake = noise.Handshake(initiator=True, identity_key=STRANGER.public_key, sign=STRANGER.sign)

    def first(self) -> bytes:
        return self._dialer.start() + self._handshake.start()

    def answer(self, data: bytes) -> bytes:
        if self._dialer.chosen is None:
            self._dialer.receive(data)
            data = self._dialer.leftover
        return b"" if self._handshake.done else self._handshake.receive(data)


KINDS: dict[str, type[Silent]] = {
    "half-open": Silent,
    "slow": Slow,
    "garbage": Garbage,
    "plaintext": Plaintext,
    "oversized": Oversized,
    "half shaken": HalfShaken,
    "refused": Refused,
}


@contextmanager
def storm(kind: str, port: int, source: str, connections: int = CONNECTIONS) -> Iterator[None]:
    """All of it, raging."""
    words = [sys.executable, "-m", "tests.attack.storm", kind, str(port), source, str(connections)]
    with subprocess.Popen([*DIE_WITH_US, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "raging\n"
            yield
        finally:
            process.kill()


class Storm:
    """All connections of one stranger."""

    def __init__(self, kind: type[Silent], port: int, source: str, connections: int) -> None:
        self._kind, self._port, self._source = kind, port, source
        self._selector = selectors.DefaultSelector()
        self._ties = itertools.count()
        self._due: list[tuple[float, int, socket.socket | None]] = []  # when something is to be said, or opened anew
        self._opened = 0
        self._connections = connections
        for _ in range(connections):
            self._later(0, None)

    def rage(self) -> None:
        """Until killed."""
        while True:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                sock = heapq.heappop(self._due)[2]
                self._open() if sock is None else self._speak(sock)
            for key, events in self._selector.select(0.02):
                self._react(key.fileobj, key.data, events)

    def _later(self, seconds: float, sock: socket.socket | None) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._ties), sock))

    def _open(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((self._source, 0))
        if sock.connect_ex(("127.0.0.1", self._port)) not in (0, errno.EINPROGRESS):
            self._again(sock)
            return
        self._selector.register(sock, selectors.EVENT_WRITE, self._kind())
        self._opened += 1
        if self._opened == self._connections:
            print("raging", flush=True)

    def _speak(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0 and (data := self._selector.get_key(sock).data.each_second()):
            self._say(sock, data)
            self._later(1.0, sock)

    def _react(self, sock: socket.socket, kind: Silent, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._selector.modify(sock, selectors.EVENT_READ, kind)
            self._say(sock, kind.first())
            self._speak(sock)
            return
        try:
            data = sock.recv(65536)
        except OSError:
            data = b""
        self._say(sock, kind.answer(data)) if data else self._end(sock)

    def _say(self, sock: socket.socket, data: bytes) -> None:
        with suppress(OSError):  # that it is gone is seen at its end
            sock.send(data)

    def _end(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        self._again(sock)

    def _again(self, sock: socket.socket) -> None:
        sock.close()
        self._later(random.uniform(*PAUSE), None)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    Storm(KINDS[sys.argv[1]], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])).rage()
