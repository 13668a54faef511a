"""Ask a verb: of the daemon, over its Unix socket; or without one, of `peerupd once`, started for the occasion.

HTTP/1.1 is spoken by hand: one request a connection, a body with a length or until the end. (`http.client` would cost
a third of this program's start.)
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeAlias
from urllib.parse import quote

from peerupd.model.errors import DaemonNotRunning, EnvironmentalError, NotAuthorized, PeerupError

Json: TypeAlias = Any
"""What JSON can hold; the answers' shapes are told in `peerupd.model.snapshots`."""

SYSTEM_SOCKET: Final = Path("/run/peerup/peerup.sock")
COOKIE: Final = ".daemon-cookie"
CONNECT_SECONDS: Final = 2.0
MAX_HEAD: Final = 64 * 1024  # bytes of an answer's head
MAX_BODY: Final = 16 * 1024 * 1024  # bytes of an answer's body
MAX_DIGITS: Final = 16  # of a number in its head

ROUTES: Final[Mapping[str, tuple[str, str]]] = {
    "status": ("GET", "/v1/status"),
    "version": ("GET", "/v1/version"),
    "whoami": ("GET", "/v1/whoami"),
    "services": ("GET", "/v1/services"),
    "service_add": ("POST", "/v1/services"),
    "service_remove": ("DELETE", "/v1/services/{name}"),
    "service_enable": ("POST", "/v1/services/{name}/enable"),
    "service_disable": ("POST", "/v1/services/{name}/disable"),
    "expose": ("POST", "/v1/expose"),
    "unexpose": ("DELETE", "/v1/expose/{name}"),
    "peers": ("GET", "/v1/peers"),
    "auth_list": ("GET", "/v1/auth"),
    "auth_add": ("POST", "/v1/auth"),
    "auth_remove": ("DELETE", "/v1/auth/{peer_id}"),
    "auth_validate": ("GET", "/v1/auth/validate"),
    "ping": ("POST", "/v1/ping"),
    "resolve": ("POST", "/v1/resolve"),
    "connect": ("POST", "/v1/connect"),
    "disconnect": ("DELETE", "/v1/connect/{id}"),
    "proxies": ("GET", "/v1/proxies"),
    "proxy": ("POST", "/v1/proxy"),
    "pipe": ("POST", "/v1/pipe"),
    "invite_open": ("POST", "/v1/invite"),
    "invite_wait": ("GET", "/v1/invite/{id}"),
    "invite_cancel": ("DELETE", "/v1/invite/{id}"),
    "join": ("POST", "/v1/join"),
    "relays": ("GET", "/v1/relays"),
    "relay_add": ("POST", "/v1/relays"),
    "relay_remove": ("DELETE", "/v1/relays"),
    "shutdown": ("POST", "/v1/shutdown"),
}
"""A verb's place in HTTP; a test holds this against the daemon's own table."""


def find(given: str | None, config: str | None) -> Daemon | None:
    """The daemon to talk to: `--socket`, `$PEERUP_SOCKET`, the caller's own live socket, the system's; or None.

    A socket that was named and does not answer is an error (`DaemonNotRunning`), not a reason to look elsewhere. With
    `config`, only a daemon that runs by that file counts.
    """
    named = given or os.environ.get("PEERUP_SOCKET")
    if named:
        daemon = Daemon(Path(named))
        if not daemon.alive():
            raise DaemonNotRunning(f"daemon not running: {named}", hint="start it: peerupctl daemon")
        return daemon
    for place in (Path.home() / ".config/peerup/peerup.sock", SYSTEM_SOCKET):
        daemon = Daemon(place)
        if daemon.alive() and (config is None or _runs_by(daemon, config)):
            return daemon
    return None


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running daemon, by its control socket."""

    path: Path

    def alive(self) -> bool:
        """Whether somebody answers at the socket; raises `NotAuthorized` when this user may not ask."""
        try:
            self._connect().close()
        except PermissionError:
            raise NotAuthorized(
                f"this user may not use {self.path}", hint="run it as root, or join the group `peerup`"
            ) from None
        except OSError:
            return False
        return True

    def ask(self, verb: str, request: Mapping[str, Any]) -> Json:
        """The answer's data; raises the error that was answered."""
        with self._send(verb, request) as answer:
            return answer.data()

    def text(self, verb: str, request: Mapping[str, Any]) -> str:
        """The answer's text form."""
        with self._send(verb, request, accept="text/plain") as answer:
            return answer.text()

    def hold(self, verb: str, request: Mapping[str, Any]) -> Answer:
        """The answer while it still comes: read its lines; closing it ends what the verb began."""
        return self._send(verb, request)

    def upgrade(self, verb: str, request: Mapping[str, Any], protocol: str) -> tuple[socket.socket, bytes]:
        """The bare socket after `101 Switching Protocols`, and the bytes that came with it."""
        answer = self._send(verb, request, upgrade=protocol)
        if answer.status != 101:
            with answer:
                answer.data()
        return answer.detach()

    def _send(
        self, verb: str, request: Mapping[str, Any], *, accept: str = "application/json", upgrade: str = ""
    ) -> Answer:
        method, path, body = _place(verb, request)
        head = [
            f"{method} {path} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {self._cookie()}",
            f"Accept: {accept}",
            f"Content-Length: {len(body)}",
            f"Connection: {'Upgrade' if upgrade else 'close'}",
            *([f"Upgrade: {upgrade}"] if upgrade else []),
        ]
        with ExitStack() as undo:
            try:
                connection = undo.enter_context(self._connect())
                connection.sendall("\r\n".join((*head, "", "")).encode() + body)
                answer = Answer(connection)
            except OSError as why:
                raise DaemonNotRunning(f"the daemon at {self.path} went away: {why.strerror}") from None
            undo.pop_all()
            return answer

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.settimeout(CONNECT_SECONDS)
        folder = -1
        try:
            folder = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            connection.connect(f"/proc/self/fd/{folder}/{self.path.name}")  # paths of any length
        except BaseException:
            connection.close()
            raise
        finally:
            if folder >= 0:
                os.close(folder)
        connection.settimeout(None)
        return connection

    def _cookie(self) -> str:
        try:
            return (self.path.parent / COOKIE).read_text().strip()
        except PermissionError:
            raise NotAuthorized(f"this user may not read {self.path.parent / COOKIE}") from None
        except OSError:
            raise DaemonNotRunning(f"daemon not running: no cookie beside {self.path}") from None


class Answer:
    """One HTTP answer: its status, then its body as data, as text or line by line."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._ahead = b""
        head = self._head()
        self.status = _status(head[0])
        self._chunked = any("chunked" in line for line in head if line.startswith("transfer-encoding:"))
        lengths = [line.partition(":")[2] for line in head if line.startswith("content-length:")]
        self._length = _number(lengths[0], 10) if lengths else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def data(self) -> Json:
        """What is in the envelope; raises the error that is in it."""
        envelope = _object(self._whole(), f"the daemon answered {self.status} and no JSON")
        if self.status >= 400:
            raise error_of(envelope)
        if "data" not in envelope:
            raise EnvironmentalError(f"the daemon answered {self.status} and no data")
        return envelope["data"]

    def text(self) -> str:
        """The body as text; raises the error that is in it."""
        if self.status >= 400:
            self.data()
        return self._whole().decode("utf-8", "replace")

    def lines(self) -> Iterator[Any]:
        """JSON values, one a line, as they come; raises the error that was answered instead."""
        if self.status >= 400:
            self.data()
        rest = b""
        for piece in self._body():
            *whole, rest = (rest + piece).split(b"\n")
            yield from (_object(line, "the daemon answered a line that is no JSON") for line in whole if line.strip())

    def detach(self) -> tuple[socket.socket, bytes]:
        """The socket itself, and what was read ahead."""
        return self._socket, self._ahead

    def _whole(self) -> bytes:
        """The body, at most `MAX_BODY` of it."""
        body = bytearray()
        for piece in self._body():
            body += piece
            if len(body) > MAX_BODY:
                raise EnvironmentalError(f"the daemon's answer has more than {MAX_BODY} bytes")
        return bytes(body)

    def _body(self) -> Iterator[bytes]:
        """The body in pieces, each of at most `MAX_BODY`."""
        if self._chunked:
            while size := _number(self._line().split(b";")[0].decode("latin-1") or "0", 16):
                yield self._exactly(min(size, MAX_BODY))
                self._line()
        elif self._length is not None:
            yield self._exactly(min(self._length, MAX_BODY))
        else:
            while piece := self._some():
                yield piece

    def _head(self) -> list[str]:
        lines: list[str] = []
        size = 0
        while line := self._line():
            size += len(line)
            if not line.strip() and lines:
                return lines
            if size > MAX_HEAD:
                break
            lines.append(line.decode("latin-1").strip().lower())
        raise DaemonNotRunning("the daemon hung up before it answered")

    def _line(self) -> bytes:
        while b"\n" not in self._ahead and len(self._ahead) <= MAX_HEAD and (more := self._socket.recv(65536)):
            self._ahead += more
        line, end, self._ahead = self._ahead.partition(b"\n")
        return line + end

    def _exactly(self, size: int) -> bytes:
        while len(self._ahead) < size and (more := self._socket.recv(65536)):
            self._ahead += more
        piece, self._ahead = self._ahead[:size], self._ahead[size:]
        return piece

    def _some(self) -> bytes:
        piece, self._ahead = self._ahead or self._socket.recv(65536), b""
        return piece


@dataclass(frozen=True, slots=True)
class Once:
    """`peerupd once`: the same verbs, without a daemon, on the files or with a host that lives as long as the verb."""

    config: str | None

    def ask(self, verb: str, request: Mapping[str, Any]) -> Json:
        """The answer's data; raises the error that was answered."""
        data = None
        for line in self.lines(verb, request):
            data = line.get("data", data)
        return data

    def lines(self, verb: str, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What the process says, a JSON object a line; raises the error that it ends with."""
        # the request goes by stdin: an invite code in the argument list would be everybody's to read
        process = subprocess.Popen(self.command(verb), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(dict(request)).encode() + b"\n")
            process.stdin.close()
            yield from self._lines(process)
        finally:
            _end(process)

    def command(self, verb: str, *more: str) -> list[str]:
        """The command line that does `verb`."""
        config = ["--config", self.config] if self.config else []
        return [sys.executable, "-m", "peerupd", "once", *config, *more, verb]

    def _lines(self, process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
        assert process.stdout is not None
        for text in process.stdout:
            line = _object(text, "peerupd once said a line that is no JSON")
            if "error" in line:
                raise error_of(line)
            yield line
        if process.wait():
            raise EnvironmentalError(f"peerupd once ended with status {process.returncode}")


def _status(line: str) -> int:
    """The status in the first line of an answer; raises `EnvironmentalError` if it is none."""
    words = line.split()
    if len(words) < 2 or not words[0].startswith("http/1."):
        raise EnvironmentalError("who answers at the socket does not speak HTTP", hint="is it the daemon's socket?")
    return _number(words[1], 10)


def _number(text: str, base: int) -> int:
    """A number of HTTP, up to 64 bits; raises `EnvironmentalError`."""
    digits = text.strip()
    if not digits.isalnum() or len(digits) > MAX_DIGITS:
        raise EnvironmentalError("the daemon's answer is not HTTP: a bad number")
    try:
        return int(digits, base)
    except ValueError:
        raise EnvironmentalError("the daemon's answer is not HTTP: a bad number") from None


def _object(text: bytes, otherwise: str) -> dict[str, Any]:
    """The JSON object in `text`; raises `EnvironmentalError` in these words."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise EnvironmentalError(otherwise)
    return value


def error_of(answer: Mapping[str, Any]) -> PeerupError:
    """The error that an answer carries, as the exception of its code."""
    kind = _KINDS.get(str(answer.get("code")), PeerupError)
    return kind(str(answer.get("error") or "unknown error"), hint=str(answer.get("hint", "")))


def _kinds() -> dict[str, type[PeerupError]]:
    found = {}
    todo: list[type[PeerupError]] = [PeerupError]
    while todo:
        kind = todo.pop()
        found[kind.code] = kind
        todo += kind.__subclasses__()
    return found


_KINDS = _kinds()


def _runs_by(daemon: Daemon, config: str) -> bool:
    path = daemon.ask("status", {}).get("config", "")
    return bool(path) and os.path.realpath(path) == os.path.realpath(config)


def _place(verb: str, request: Mapping[str, Any]) -> tuple[str, str, bytes]:
    """Method, path with the request's fields in its braces, and the rest as query or body."""
    method, path = ROUTES[verb]
    rest = {}
    for name, value in request.items():
        if f"{{{name}}}" in path:
            path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
        else:
            rest[name] = value
    if method == "GET":
        query = "&".join(f"{name}={quote(str(value).lower())}" for name, value in rest.items())
        return method, f"{path}?{query}" if query else path, b""
    return method, path, json.dumps(rest).encode()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, wait for it, and insist after five seconds."""
    if process.stdout is not None:
        process.stdout.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
