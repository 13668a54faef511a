"""A control socket that answers by a table: small, real HTTP over a real Unix socket, for tests of the command line."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

Answer = tuple[int, bytes, str]
"""Status, body, further header lines."""


def data(value: object) -> Answer:
    """An answer with `value` in the envelope."""
    return 200, json.dumps({"data": value}).encode(), ""


def error(status: int, code: str, text: str, hint: str = "") -> Answer:
    """An answer with an error in it."""
    return status, json.dumps({"error": text, "code": code, "hint": hint}).encode(), ""


@dataclass
class FakeDaemon:
    """Answers `"METHOD /path"` by `answers`; keeps what it was asked in `asked`."""

    folder: Path
    answers: dict[str, Answer | Callable[[socket.socket], None]] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """Its socket."""
        return self.folder / "peerup.sock"

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / ".daemon-cookie").write_text("c0ffee")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.vanish()
        self._thread.join(5)

    def vanish(self) -> None:
        """Nobody listens any more."""
        with suppress(OSError):  # twice is fine
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(65536)
            if not more:
                return
            head += more
        text, _, body = head.partition(b"\r\n\r\n")
        lines = text.decode().split("\r\n")
        length = next((int(x.split(":")[1]) for x in lines if x.lower().startswith("content-length")), 0)
        while len(body) < length:
            body += connection.recv(65536)
        self.headers += lines[1:]
        place = " ".join(lines[0].split()[:2])
        self.asked.append((place, json.loads(body) if body else None))
        answer = self.answers.get(place, error(404, "not-found", f"nothing at {place}"))
        if callable(answer):
            answer(connection)
            return
        status, content, more_head = answer
        connection.sendall(
            f"HTTP/1.1 {status} x\r\nContent-Length: {len(content)}\r\n{more_head}\r\n".encode() + content
        )
