"""`/healthz` of a relay: three figures over HTTP, for callers on this machine only.

Any method, any path but `/healthz` is a 404. A caller from elsewhere gets 403 before it is read. One request a
connection; five seconds for all of it.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Mapping
from typing import Final

import trio

from peerupd.frontends import answers
from peerupd.frontends.conversation import BadRequest, Conversation, Headers
from peerupd.model.addresses import Endpoint
from peerupd.model.errors import AddressInUse

log = logging.getLogger(__name__)

LIMIT: Final = 5.0  # seconds for one request and its answer
MAX_CONNECTIONS: Final = 32
_CLOSE: Final = ("Connection", "close")

Figures = Callable[[], Mapping[str, str | int]]


async def serve(
    where: Endpoint, figures: Figures, *, task_status: trio.TaskStatus[Endpoint] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer at `where` until cancelled; starts with the concrete address. Raises `AddressInUse`."""
    listeners = await _listen(where)
    room = trio.CapacityLimiter(MAX_CONNECTIONS)

    async def admit(stream: trio.SocketStream) -> None:
        try:
            async with stream, room:
                with trio.move_on_after(LIMIT):
                    await _answer(stream, figures)
        except trio.BrokenResourceError:
            log.debug("a caller of /healthz went away in the middle, ignoring")

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, admit, listeners)
        task_status.started(Endpoint(where.host, listeners[0].socket.getsockname()[1]))


async def _listen(where: Endpoint) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(where.port, host=where.host)
    except OSError as why:
        raise AddressInUse(
            f"cannot listen at {where} for /healthz: {why.strerror or why}", hint="set health.listen_address"
        ) from why


async def _answer(stream: trio.SocketStream, figures: Figures) -> None:
    conversation = Conversation(stream)
    try:
        asked = await conversation.next()
    except BadRequest as why:
        await conversation.refuse(why.status, [("Content-Type", "text/plain")], b"bad request\n")
        return
    if asked is not None:
        status, kind, body = _report(stream, asked.target, figures)
        headers: Headers = [("Content-Type", kind), _CLOSE]
        await conversation.answer(status, headers, body, bare=asked.method == "HEAD")


def _report(stream: trio.SocketStream, target: str, figures: Figures) -> tuple[int, str, bytes]:
    if not _is_local(stream.socket.getpeername()[0]):
        return 403, "text/plain", b"forbidden\n"
    if target.partition("?")[0] != "/healthz":
        return 404, "text/plain", b"404 page not found\n"
    return 200, "application/json", answers.line(dict(sorted(figures().items())))


def _is_local(host: str) -> bool:
    ip = ipaddress.ip_address(host.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
