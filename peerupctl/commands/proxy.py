"""`proxy`, `pipe`, `connect`, `disconnect`, `proxies`: a peer's service, here."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from peerupctl.call import Call, Verb
from peerupctl.client import Daemon, Once
from peerupctl.render import short, table
from peerupd.model.errors import ConnectionLost, DaemonNotRunning, RequestError, StreamReset

CHUNK = 256 * 1024  # bytes read at once
HEADER = 4  # bytes
LAST_WORD_SECONDS = 0.5  # for the sender to notice what the receiver has noticed


def proxy(call: Call) -> int:
    """In the foreground: it ends with this program."""
    o = call.options
    request = {"peer": o.peer, "service": o.service, "listen": _listen(o.port), "path": o.path}
    lines = _proxy_daemon(call.daemon, request) if call.daemon else Once(o.config).lines("proxy", request)
    try:
        for line in lines:
            _say_proxy(call, line)
    except KeyboardInterrupt:
        call.note("\nShutting down...")
        return 0
    raise ConnectionLost("the daemon ended the proxy", hint="is it still running? peerupctl status")


def _proxy_daemon(daemon: Daemon, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with daemon.hold("proxy", request) as answer:
        yield from answer.lines()


def _say_proxy(call: Call, line: dict[str, Any]) -> None:
    data = line.get("data")
    if call.options.json:
        call.say(json.dumps(data or line))
    elif data:
        call.say(f"TCP proxy listening on {data['listen_address']}")
        if data.get("warning"):
            call.note(f"warning: {data['warning']}")
    else:
        call.note(line.get("progress", ""))


def pipe(call: Call) -> int:
    """stdin to the service, the service to stdout; each direction ends by itself, and both must."""
    o = call.options
    request = {"peer": o.peer, "service": o.service, "path": o.path}
    if call.daemon is None:
        command = Once(o.config).command("pipe", "--request", json.dumps(request))
        os.execv(command[0], command)  # noqa: S606 - our own program, no shell
    daemon = call.the_daemon()
    connection, ahead = daemon.upgrade("pipe", request, "peerup-pipe")
    with connection:
        if _carry(connection, ahead):
            return 0
    try:
        daemon.ask("version", {})  # a connection alone may still be taken by one that is just ending
    except DaemonNotRunning:
        raise DaemonNotRunning("the daemon went away: what came may be cut short", hint="peerupctl status") from None
    raise StreamReset("the stream was reset: what came may be cut short")


# A Unix socket has no reset, so both directions come in chunks: four bytes of size, big-endian, then the content; size
# 0 is the clean end. The socket's own end without it is a cut.


def _carry(connection: socket.socket, ahead: bytes) -> bool:
    """Both directions until both have ended; whether both ends were clean."""
    sender = threading.Thread(target=_send, args=(connection, sent := threading.Event()), daemon=True)
    sender.start()
    out = sys.stdout.buffer
    try:
        for piece in _content(connection, ahead):
            out.write(piece)
            out.flush()
    except _Cut:
        return False
    _close_output()
    with suppress(OSError):
        connection.recv(1)  # the daemon hangs up when the other direction has ended too, or was cut
    sender.join(LAST_WORD_SECONDS)
    return sent.is_set()


class _Cut(Exception):
    """The socket ended, and the clean end had not come."""


def _content(connection: socket.socket, ahead: bytes) -> Iterator[memoryview]:
    """What comes up to the clean end, each piece until the next is asked for; raises `_Cut`."""
    buffer = memoryview(bytearray(CHUNK))
    while size := int.from_bytes(_exactly(connection, ahead, HEADER), "big"):
        ahead = ahead[HEADER:]
        while size:
            if ahead:
                piece, ahead = memoryview(ahead[:size]), ahead[size:]
            else:
                piece = buffer[: _received(connection, buffer[:size])]
            size -= len(piece)
            yield piece


def _exactly(connection: socket.socket, ahead: bytes, size: int) -> bytes:
    """The first `size` bytes of what was read ahead and what comes."""
    while len(ahead) < size:
        more = bytearray(size - len(ahead))
        ahead += more[: _received(connection, memoryview(more))]
    return ahead[:size]


def _received(connection: socket.socket, buffer: memoryview) -> int:
    """How many bytes have come into the buffer, at least one."""
    try:
        if count := connection.recv_into(buffer):
            return count
    except OSError:
        pass
    raise _Cut


def _send(connection: socket.socket, sent: threading.Event) -> None:
    """Everything from stdin; whatever ends this without the clean end is a cut for the other side."""
    try:
        while data := os.read(sys.stdin.fileno(), CHUNK):
            connection.sendall(len(data).to_bytes(HEADER, "big"))
            connection.sendall(data)
        connection.sendall(bytes(HEADER))
        sent.set()
    except OSError:
        return  # the other direction says what happened


def _close_output() -> None:
    """Whoever reads our stdout sees its end, though we may still have something to send."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def connect(call: Call) -> int:
    """Until the daemon ends, unless --persist."""
    return _connect(call, _listen(call.options.listen), call.options.persist)


def daemon_connect(call: Call) -> int:
    """The seed's spelling."""
    return _connect(call, call.options.listen, False)


def _connect(call: Call, listen: str, persist: bool) -> int:
    o = call.options
    request = {"peer": o.peer, "service": o.service, "listen": listen, "path": o.path, "persist": persist}
    data = call.the_daemon().ask("connect", request)
    if data.get("warning"):
        call.note(f"warning: {data['warning']}")
    made = f"Proxy created: {data['id']} -> {o.peer}:{o.service} (listen: {data['listen_address']})"
    return call.show(data, lambda _: [made])


def disconnect(call: Call) -> int:
    """Its connections end with it."""
    return call.show(call.the_daemon().ask("disconnect", {"id": call.options.id}), lambda _: ["Proxy disconnected."])


def proxies(call: Call) -> int:
    """Those of `connect`, of `proxies:` in the config, and those in the foreground."""
    return call.show(call.the_daemon().ask("proxies", {}), _listed)


def _listed(data: list[dict[str, Any]]) -> list[str]:
    if not data:
        return ["No proxies."]
    return table(
        (
            p["id"],
            p["listen_address"],
            "->",
            f"{short(p['peer'])}:{p['service']}",
            p["path"],
            f"{p['connections']} open",
        )
        for p in data
    )


def _listen(text: str) -> str:
    """`HOST:PORT` as it is; a bare port is one of 127.0.0.1."""
    if ":" in text:
        return text
    if not text.isdigit() or int(text) > 65535:
        raise RequestError(f"a local port is a number from 0 to 65535, got {text!r}")
    return f"127.0.0.1:{int(text)}"


def _target(parser: ArgumentParser) -> None:
    parser.add_argument("peer", help="a name or a peer ID")
    parser.add_argument("service", help="the service's name there")
    _path(parser)


def _path(parser: ArgumentParser) -> None:
    parser.add_argument("--path", choices=("any", "direct", "relay"), default="any", help="insist on a path")


def _proxy_arguments(parser: ArgumentParser) -> None:
    _target(parser)
    parser.add_argument("port", help="local port (127.0.0.1), or HOST:PORT")


def _connect_arguments(parser: ArgumentParser) -> None:
    _target(parser)
    parser.add_argument("listen", help="local port (127.0.0.1), or HOST:PORT")
    parser.add_argument("--persist", action="store_true", help="write it to the config too")


def _daemon_connect_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--peer", required=True)
    parser.add_argument("--service", required=True)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    _path(parser)


VERBS = {
    "proxy": Verb(proxy, _proxy_arguments),
    "pipe": Verb(pipe, _target),
    "connect": Verb(connect, _connect_arguments),
    "daemon_connect": Verb(daemon_connect, _daemon_connect_arguments),
    "disconnect": Verb(disconnect, lambda parser: parser.add_argument("id", help="e.g. proxy-1")),
    "proxies": Verb(proxies),
}
