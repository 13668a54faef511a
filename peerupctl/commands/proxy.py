"""`proxy`, `pipe`, `connect`, `disconnect`, `proxies`: a peer's service, here."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from peerupctl.call import Call, Verb
from peerupctl.client import Daemon, Once
from peerupctl.render import short, table
from peerupd.model.errors import ConnectionLost, RequestError

CHUNK = 256 * 1024  # bytes read at once


def proxy(call: Call) -> int:
    """In the foreground: it ends with this program."""
    o = call.options
    listen = o.port if ":" in o.port else f"127.0.0.1:{_port(o.port)}"
    request = {"peer": o.peer, "service": o.service, "listen": listen, "path": o.path}
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
    """stdin to the service, the service to stdout; each direction ends by itself."""
    o = call.options
    request = {"peer": o.peer, "service": o.service, "path": o.path}
    if call.daemon is None:
        command = Once(o.config).command("pipe", "--request", json.dumps(request))
        os.execv(command[0], command)  # noqa: S606 - our own program, no shell
    connection, ahead = call.the_daemon().upgrade("pipe", request, "peerup-pipe")
    with connection:
        return _pump(connection, ahead)


def _pump(connection: socket.socket, ahead: bytes) -> int:
    threading.Thread(target=_send, args=(connection,), daemon=True).start()
    out = sys.stdout.buffer
    try:
        while data := ahead or connection.recv(CHUNK):
            ahead = b""
            out.write(data)
            out.flush()
    except ConnectionResetError:
        raise ConnectionLost("the stream was reset: what came may be cut short") from None
    return 0


def _send(connection: socket.socket) -> None:
    try:
        while data := os.read(sys.stdin.fileno(), CHUNK):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the other direction says what happened


def connect(call: Call) -> int:
    """Until the daemon ends, unless --persist."""
    o = call.options
    return _connect(call, o.listen if ":" in o.listen else f"127.0.0.1:{_port(o.listen)}", o.persist)


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


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise RequestError(f"a local port is a number from 0 to 65535, got {text!r}")
    return int(text)


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
