"""Services and clients that check every byte; run as a program, so that they can live in any network namespace.

    traffic.py serve                            four services; prints their ports as JSON, then waits for stdin's end
        source  sends SIZE bytes (told by the first line it reads, `SIZE SEED`), then ends
        sink    reads to the end, then answers with the SHA-256
        echo    sends back what comes, half-close included
        cutter  answers a line with half of an answer and a reset
    traffic.py download PORT SIZE [--slow]      from a source; prints what came and how it ended
    traffic.py upload PORT SIZE                 to a sink
    traffic.py many PORT COUNT SIZE             COUNT connections at once to an echo
    traffic.py interactive PORT ROUNDS          1-byte round trips, then half-close, as a shell does

What was seen is printed as one JSON object; `end` is `eof` or `reset`.
"""

from __future__ import annotations

import hashlib
import json
import random
import selectors
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

BLOCK = 1 << 20
CHUNK = 256 * 1024
SECONDS = 120.0  # limit of any one wait


def content(size: int, seed: int) -> Iterator[bytes]:
    """`size` bytes in which every place tells itself from every other."""
    for number in range(0, size, BLOCK):
        yield random.Random(seed * 100_003 + number).randbytes(min(BLOCK, size - number))


def digest(size: int, seed: int) -> str:
    """The SHA-256 of `content`."""
    whole = hashlib.sha256()
    for block in content(size, seed):
        whole.update(block)
    return whole.hexdigest()


# -- services ------------------------------------------------------------------------------------------------------

ENDS: list[str] = []
"""How the connections of `source` and `sink` ended for the service, and that of `cutter` when it has cut."""


def serve_source(connection: socket.socket) -> None:
    size, seed = map(int, _line(connection).split())
    try:
        for block in content(size, seed):
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(CHUNK):
            pass
        ENDS.append("eof")
    except (ConnectionResetError, BrokenPipeError):
        ENDS.append("reset")


def serve_sink(connection: socket.socket) -> None:
    whole = hashlib.sha256()
    try:
        while data := connection.recv(CHUNK):
            whole.update(data)
    except ConnectionResetError:
        ENDS.append("reset")
        raise
    ENDS.append("eof")
    connection.sendall(whole.hexdigest().encode())


def serve_cutter(connection: socket.socket) -> None:
    """One line, half of an answer, and upon the next word the wire is cut."""
    _line(connection)
    connection.sendall(b"half of an ans")
    connection.recv(1)  # a byte more, or the end of what is asked: now
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def serve_echo(connection: socket.socket) -> None:
    while data := connection.recv(CHUNK):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


SERVICES = {"source": serve_source, "sink": serve_sink, "echo": serve_echo, "cutter": serve_cutter}


def serve() -> None:
    """All of them; asked `ends` on stdin, tells how connections ended."""
    ports = {}
    for name, handler in SERVICES.items():
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        ports[name] = listener.getsockname()[1]
        threading.Thread(target=_accept, args=(listener, handler), daemon=True).start()
    print(json.dumps(ports), flush=True)
    with suppress(KeyboardInterrupt):
        for _ in sys.stdin:
            print(json.dumps(ENDS), flush=True)


def _accept(listener: socket.socket, handler: Any) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve_one, args=(connection, handler), daemon=True).start()


def _serve_one(connection: socket.socket, handler: Any) -> None:
    with connection:
        try:
            handler(connection)
        except OSError:
            return


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        if not (more := connection.recv(1)):
            raise ConnectionAbortedError("the line did not end")  # `service add` only looks whether somebody answers
        line += more
    return line


# -- clients -------------------------------------------------------------------------------------------------------


def download(port: int, size: int, *, slow: bool = False) -> dict[str, Any]:
    """Everything from a source; slowly, a line a megabyte is printed and one is awaited."""
    whole, got, ended, began = hashlib.sha256(), 0, "eof", time.monotonic()
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        connection.sendall(f"{size} 7\n".encode())
        try:
            while data := connection.recv(CHUNK):
                whole.update(data)
                if slow and (got + len(data)) // BLOCK > got // BLOCK:
                    print(json.dumps({"got": got + len(data)}), flush=True)
                    sys.stdin.readline()
                got += len(data)
        except ConnectionResetError:
            ended = "reset"
    return _seen(began, got, end=ended, right=whole.hexdigest() == digest(size, 7))


def upload(port: int, size: int) -> dict[str, Any]:
    """Everything into a sink, then its digest by half-close."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        for block in content(size, 9):
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(CHUNK):
            answer += data
    return _seen(began, size, right=answer.decode() == digest(size, 9))


def many(port: int, count: int, size: int) -> dict[str, Any]:
    """All open before the first byte is sent; each sends its own content and reads it back."""
    began = time.monotonic()
    selector = selectors.DefaultSelector()
    talks = [_Talk(port, size, number) for number in range(count)]
    for talk in talks:
        selector.register(talk.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, talk)
    open_ = len(talks)
    while open_ and time.monotonic() - began < SECONDS:
        for key, ready in selector.select(1.0):
            key.data.turn(bool(ready & selectors.EVENT_READ), bool(ready & selectors.EVENT_WRITE))
            if key.data.done:
                selector.unregister(key.fileobj)
                key.data.socket.close()
                open_ -= 1
            elif key.data.sent_all:
                selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
    ends = Counter(talk.end for talk in talks)
    return _seen(began, count * size, right=ends["right"], of=count, ends=ends)


class _Talk:
    """One connection of `many`."""

    def __init__(self, port: int, size: int, number: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), SECONDS)
        self.socket.setblocking(False)
        self._out = memoryview(b"".join(content(size, 1000 + number)))
        self._wanted = hashlib.sha256(self._out).hexdigest()
        self._whole = hashlib.sha256()
        self._got = 0
        self.sent_all = self.done = False
        self.end = "open"

    def turn(self, readable: bool, writable: bool) -> None:
        try:
            if writable and not self.sent_all:
                self._out = self._out[self.socket.send(self._out[:CHUNK]) :]
                if not self._out:
                    self.sent_all = True
                    self.socket.shutdown(socket.SHUT_WR)
            if readable:
                data = self.socket.recv(CHUNK)
                self._whole.update(data)
                self._got += len(data)
                if not data:
                    self._ended("right" if self._whole.hexdigest() == self._wanted else "cut short or changed")
        except BlockingIOError:
            return
        except OSError as why:
            self._ended(str(why))

    def _ended(self, how: str) -> None:
        self.done = True
        self.end = how if how == "right" else f"{how}: {len(self._out)} not sent, {self._got} came"


def interactive(port: int, rounds: int) -> dict[str, Any]:
    """One byte there and back, many times; then our end closes and the last words still come."""
    times = []
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        right = True
        for number in range(rounds):
            sent = time.monotonic()
            connection.sendall(bytes((number % 256,)))
            right &= connection.recv(1) == bytes((number % 256,))
            times.append(time.monotonic() - sent)
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)
        words = b""
        while data := connection.recv(CHUNK):
            words += data
    return _seen(began, rounds, right=right and words == b"last words", p50_ms=1000 * sorted(times)[len(times) // 2])


def _seen(began: float, size: int, **more: Any) -> dict[str, Any]:
    seconds = time.monotonic() - began
    return {"bytes": size, "seconds": round(seconds, 3), "mb_per_s": round(size / 1e6 / seconds, 1), **more}


def main(words: list[str]) -> None:
    """See the module's docstring."""
    numbers = [int(word) for word in words[1:] if not word.startswith("--")]
    match words[0]:
        case "serve":
            serve()
        case "download":
            print(json.dumps(download(*numbers, slow="--slow" in words)), flush=True)
        case "upload":
            print(json.dumps(upload(*numbers)), flush=True)
        case "many":
            print(json.dumps(many(*numbers)), flush=True)
        case "interactive":
            print(json.dumps(interactive(*numbers)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
