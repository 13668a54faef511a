"""The test services as TCP services, and their clients as TCP clients: what stands behind our daemons.

The same that the foreign peers have on streams (`go/services.go` says what each does).
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

CHUNK = 256 * 1024  # bytes
PAUSE_AT = 1 << 20  # bytes that a slow reader takes before it pauses
TALK = 512  # bytes of one half of a talk with echo
WAIT_SECONDS = 100.0  # for any one read or write
STACK = 256 * 1024  # bytes of a thread


class Reader:
    """A connection read in order."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._kept = connection, b""

    def read(self, most: int = CHUNK) -> bytes:
        """The next bytes, at most so many; nothing at the clean end."""
        data = self._kept or self._connection.recv(CHUNK)
        self._kept = data[most:]
        return data[:most]

    def exactly(self, size: int) -> bytes:
        """So many bytes, or as many as came before the clean end."""
        parts = b""
        while len(parts) < size and (data := self.read(size - len(parts))):
            parts += data
        return parts

    def line(self) -> str:
        """To the next end of a line."""
        line = b""
        while not line.endswith(b"\n"):
            if not (more := self.read(1)):
                raise EOFError("the line did not end")
            line += more
        return line.decode()

    def all(self, part: Callable[[bytes], object]) -> None:
        """Everything to the clean end."""
        while data := self.read():
            part(data)


def _end_of(why: OSError) -> str:
    reset = isinstance(why, ConnectionResetError | BrokenPipeError)  # the latter: a reset that came before a write
    return "reset" if reset else repr(why)


def _send_content(connection: socket.socket, size: int) -> bytes:
    """Random bytes; their SHA-256."""
    digest = hashlib.sha256()
    for start in range(0, size, CHUNK):
        block = os.urandom(min(CHUNK, size - start))
        digest.update(block)
        connection.sendall(block)
    return digest.digest()


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# -- services ------------------------------------------------------------------------------------------------------


class Services:
    """All of them, each on a port of its own; `ends` is what `watch` and `early` noted."""

    def __init__(self) -> None:
        self.ends: list[str] = []
        threading.stack_size(STACK)
        self.ports = {
            "echo": _listen(_echo),
            "source": _listen(_source),
            "sink": _listen(_sink),
            "lazy": _listen(_lazy),
            "early": _listen(self._early),
            "watch": _listen(self._watch),
            "cutter": _listen(_cutter),
        }

    def _early(self, connection: socket.socket, reader: Reader) -> None:
        connection.sendall(b"early\n")
        connection.shutdown(socket.SHUT_WR)
        self._note_end(reader)

    def _watch(self, connection: socket.socket, reader: Reader) -> None:
        connection.sendall(b"watching\n")
        self._note_end(reader)

    def _note_end(self, reader: Reader) -> None:
        got = _until_end(reader)
        self.ends.append(f"{got['end']} {got['got']}")


Serve = Callable[[socket.socket, Reader], None]


def _listen(serve: Serve) -> int:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    threading.Thread(target=_accept, args=(listener, serve), daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def _accept(listener: socket.socket, serve: Serve) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve_one, args=(connection, serve), daemon=True).start()


def _serve_one(connection: socket.socket, serve: Serve) -> None:
    with connection:
        connection.settimeout(WAIT_SECONDS)
        try:
            serve(connection, Reader(connection))
        except (OSError, EOFError):
            return


def _echo(connection: socket.socket, reader: Reader) -> None:
    reader.all(connection.sendall)


def _source(connection: socket.socket, reader: Reader) -> None:
    connection.sendall(_send_content(connection, int(reader.line())))
    connection.shutdown(socket.SHUT_WR)
    reader.all(lambda _data: None)


def _sink(connection: socket.socket, reader: Reader) -> None:
    digest = hashlib.sha256()
    reader.all(digest.update)
    connection.sendall(digest.hexdigest().encode())


def _lazy(connection: socket.socket, reader: Reader) -> None:
    time.sleep(float(reader.line()))
    _sink(connection, reader)


def _cutter(connection: socket.socket, reader: Reader) -> None:
    reader.line()
    connection.sendall(b"half of an ans")
    _reset(connection)


# -- clients -------------------------------------------------------------------------------------------------------


def _download(connection: socket.socket, reader: Reader, size: int, pause: float = 0.0) -> dict[str, Any]:
    connection.sendall(f"{size}\n".encode())
    digest, got, told, end = hashlib.sha256(), 0, b"", "eof"
    try:
        while got < size and (data := reader.read(size - got)):
            if got < PAUSE_AT <= got + len(data):
                time.sleep(pause)
            digest.update(data)
            got += len(data)
        told = reader.exactly(33)
    except OSError as why:
        end = _end_of(why)
    return {"end": end, "got": got, "right": told == digest.digest()}


def _upload(connection: socket.socket, reader: Reader, size: int, pause: float = 0.0) -> dict[str, Any]:
    if pause:
        connection.sendall(f"{pause}\n".encode())
    told, digest, end = bytearray(), b"", "eof"
    try:
        digest = _send_content(connection, size)
        connection.shutdown(socket.SHUT_WR)
        reader.all(told.extend)
    except OSError as why:
        end = _end_of(why)
    return {"end": end, "right": bool(digest) and told.decode() == digest.hex()}


def _half_close(connection: socket.socket, reader: Reader) -> dict[str, Any]:
    heard = bytearray()
    reader.all(heard.extend)
    connection.sendall(b"late words")
    connection.shutdown(socket.SHUT_WR)
    return {"heard": heard.decode()}


def _cut(connection: socket.socket, reader: Reader) -> dict[str, Any]:
    reader.line()
    connection.sendall(bytes(1000))
    _reset(connection)
    return {}


def _be_cut(connection: socket.socket, reader: Reader) -> dict[str, Any]:
    connection.sendall(b"cut\n")
    return _until_end(reader)


def _linger(connection: socket.socket, reader: Reader) -> dict[str, Any]:
    _talk(connection, reader)
    return _until_end(reader)


def _until_end(reader: Reader) -> dict[str, Any]:
    got, began, end = 0, time.monotonic(), "eof"
    try:
        while data := reader.read():
            got += len(data)
    except OSError as why:
        end = _end_of(why)
    return {"end": end, "got": got, "seconds": time.monotonic() - began}


CLIENTS: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {
    "download": ("source", _download),
    "upload": ("sink", _upload),
    "upload slowly": ("lazy", _upload),
    "half-close": ("early", _half_close),
    "cut": ("watch", _cut),
    "be cut": ("cutter", _be_cut),
    "linger": ("echo", _linger),
}


def be_client(do: str, port: int, **words: Any) -> dict[str, Any]:
    """What the client of that name saw at a local port."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as connection:
        found = CLIENTS[do][1](connection, Reader(connection), **words)
    return {"seconds": time.monotonic() - began} | found


def many(port: int, count: int) -> dict[str, Any]:
    """Talk to echo over so many connections; all are made before the first word."""
    began = time.monotonic()
    connections = [socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) for _ in range(count)]
    results: list[str] = []
    threads = [threading.Thread(target=_talk_alone, args=(each, results)) for each in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    troubles = [result for result in results if result]
    return {
        "right": count - len(troubles),
        "trouble": troubles[0] if troubles else "",
        "seconds": time.monotonic() - began,
    }


def _talk_alone(connection: socket.socket, results: list[str]) -> None:
    with connection:
        try:
            reader = Reader(connection)
            _talk(connection, reader)
            connection.shutdown(socket.SHUT_WR)
            results.append("bytes too many" if reader.read() else "")
        except (OSError, ValueError) as why:
            results.append(repr(why))


def _talk(connection: socket.socket, reader: Reader) -> None:
    sent = os.urandom(TALK)
    connection.sendall(sent)
    if reader.exactly(TALK) != sent:
        raise ValueError("an echo of other bytes")
