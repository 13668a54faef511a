"""Services of peers at local addresses: each accepted connection is carried over a stream of its own.

Theory of operation. A proxy is a task that accepts, and a task for each connection: it waits for its place in the lane
to that service, opens a stream (again after 1, 2 and 4 s when the trouble may pass), and pumps. When no stream can be
had the local connection is reset, never ended: an application must not take it for an answer. Accepting pauses while
as many connections as allowed are open, of this proxy or of all, and while the process has no descriptors left: those
who call meanwhile wait in the kernel's queue, and are served later.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count
from typing import Final

import trio

from peerupd.features import ends
from peerupd.features.counting import USED, Traffic
from peerupd.features.ends import Listener, SocketEnd
from peerupd.features.lanes import Lanes
from peerupd.features.places import places as local_places
from peerupd.features.places import take
from peerupd.features.pump import End, Transfer, pump, reset_on_error
from peerupd.features.seldom import Seldom
from peerupd.features.streams import ByteStream, OpenStream
from peerupd.model.addresses import Endpoint
from peerupd.model.counters import Counters
from peerupd.model.errors import (
    EnvironmentalError,
    LimitReached,
    PeerupError,
    ProtocolUnsupported,
    RemoteError,
    StreamReset,
    TimedOut,
    UnknownProxy,
    WrongPeer,
)
from peerupd.model.logs import said
from peerupd.model.names import PeerId, ServiceName, printable, service_name, service_protocol
from peerupd.model.snapshots import Connect, PathWish, ProxyStatus

log = logging.getLogger(__name__)

OPEN_LIMIT: Final = 30.0  # seconds for one attempt to open a stream
PAUSES: Final = (1.0, 2.0, 4.0)  # seconds before the second, third and fourth attempt
MAX_CONNECTIONS: Final = 4096  # open at once, per proxy; further ones wait in the backlog
MAX_PROXIES: Final = 256
ACCEPT_PAUSE: Final = 0.2  # seconds, when accept(2) finds no room

_LASTING: Final = (ProtocolUnsupported, StreamReset, WrongPeer)  # an answer: another attempt would get it again


@dataclass(frozen=True, slots=True)
class Route:
    """Which service of which peer, over what path."""

    peer: PeerId
    service: ServiceName
    wish: PathWish


class Proxies:
    """All proxies of this node, and its pipes."""

    def __init__(
        self,
        open_stream: OpenStream,
        *,
        crowded: Callable[[PeerId], bool],
        places: trio.Semaphore | None = None,
        counters: Counters | None = None,
    ) -> None:
        """`crowded`: as `Lanes` asks it; `places`: for all local connections of the process."""
        self._open_stream = open_stream
        self._lanes = Lanes(crowded)
        self._places = places or local_places()
        self._traffic = Traffic(counters, USED)
        self._proxies: dict[str, _Proxy] = {}
        self._numbers = count(1)
        self._troubles = Seldom()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry what the proxies accept; to be started before `open`."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def open(self, peer: PeerId, ask: Connect) -> ProxyStatus:
        """Listen at `ask.listen` for the service of `peer`.

        Raises `InvalidName`, `InvalidAddress`, `AddressInUse`, `EnvironmentalError`, `LimitReached`.
        """
        assert self._nursery is not None, "run() comes first"
        if len(self._proxies) >= MAX_PROXIES:
            raise LimitReached(f"there are {MAX_PROXIES} proxies already", hint="disconnect one first")
        route = Route(peer, service_name(ask.service), ask.path)
        wanted = Endpoint.parse(ask.listen, any_port=True)
        sock = await ends.listen(wanted)
        proxy = _Proxy(f"proxy-{next(self._numbers)}", ask, route, ends.bound(wanted, sock))
        self._proxies[proxy.id] = proxy
        self._nursery.start_soon(self._run, proxy, sock)
        return proxy.status()

    def close(self, id: str) -> None:  # noqa: A002 - the word of the API
        """End a proxy and its connections; raises `UnknownProxy`."""
        proxy = self._proxies.pop(id, None)
        if proxy is None:
            raise UnknownProxy(f"proxy not found: {printable(id, 40)}")
        proxy.scope.cancel()

    def list(self) -> tuple[ProxyStatus, ...]:
        """All proxies, oldest first."""
        return tuple(proxy.status() for proxy in self._proxies.values())

    def settle(self) -> None:
        """Bring the counters up to now: bytes of connections that still run are counted too."""
        self._traffic.settle()

    async def pipe(self, peer: PeerId, service: str, near: End, *, wish: PathWish = PathWish.ANY) -> Transfer:
        """Carry one local end to a service until both directions have ended.

        Raises `InvalidName`, what opening a stream raises, and `StreamReset` for a torn end; `near` is reset then.
        """
        with reset_on_error(near):
            transfer = await self._carry(Route(peer, service_name(service), wish), near)
        if transfer.cut:
            raise StreamReset(f"the stream to {printable(service, 64)} of {peer.short} was cut: {transfer.cut}")
        return transfer

    async def _run(self, proxy: _Proxy, sock: Listener) -> None:
        with ExitStack() as undo, proxy.scope:
            undo.callback(self._proxies.pop, proxy.id, None)
            undo.callback(_unlink, proxy.listen)
            undo.callback(sock.close)
            async with trio.open_nursery() as nursery:
                while True:
                    await take(proxy.room)
                    near = SocketEnd(await self._accept(proxy, sock))
                    with reset_on_error(near):
                        await take(self._places)
                    nursery.start_soon(self._serve, proxy, near)

    async def _accept(self, proxy: _Proxy, sock: Listener) -> socket.socket:
        while True:
            try:
                return (await sock.accept())[0]
            except OSError as why:
                if why.errno != errno.ECONNABORTED:  # that one is the client's own doing
                    await self._catch_breath(proxy, why)

    async def _catch_breath(self, proxy: _Proxy, why: OSError) -> None:
        if self._troubles.due((proxy.id, why.errno)):
            log.warning(
                "%s cannot accept a connection: %s, retrying in %g s",
                proxy.id,
                why.strerror,
                ACCEPT_PAUSE,
                extra=said("proxy.accept_failed", proxy=proxy.id, why=str(why)),
            )
        await trio.sleep(ACCEPT_PAUSE)

    async def _serve(self, proxy: _Proxy, near: SocketEnd) -> None:
        proxy.connections += 1
        try:
            with reset_on_error(near):
                await self._carry(proxy.route, near)
        except PeerupError as why:
            self._tell(proxy, why)
        finally:
            proxy.connections -= 1
            proxy.room.release()
            self._places.release()

    async def _carry(self, route: Route, near: End) -> Transfer:
        async with self._lanes.place(route.peer, route.service):
            try:
                far = await self._reach(route)
            except PeerupError as why:
                self._traffic.refused(route.service, why.code)
                raise
            self._lanes.move_up(route.peer, route.service)
            with self._traffic.connection(route.service) as tally:
                return await pump(near, far, tally)

    async def _reach(self, route: Route) -> ByteStream:
        """A stream, after up to four attempts; raises what the last one raised, or at once what will not pass."""
        for pause in PAUSES:
            try:
                return await self._attempt(route)
            except _LASTING:
                raise
            except (EnvironmentalError, RemoteError) as why:
                log.debug("opening %s of %s: %s, retrying in %g s", route.service, route.peer, why, pause)
            await trio.sleep(pause)
        return await self._attempt(route)

    async def _attempt(self, route: Route) -> ByteStream:
        with trio.move_on_after(OPEN_LIMIT):
            return await self._open_stream(route.peer, (service_protocol(route.service),), wish=route.wish)
        raise TimedOut(f"opening a stream to {route.peer.short} took longer than {OPEN_LIMIT:g} s")

    def _tell(self, proxy: _Proxy, why: PeerupError) -> None:
        if self._troubles.due((proxy.id, why.code)):
            log.warning(
                "%s: no stream to service %s of %s: %s",
                proxy.id,
                proxy.route.service,
                proxy.route.peer,
                why,
                extra=said("proxy.stream_failed", proxy=proxy.id, peer=str(proxy.route.peer), code=why.code),
            )


class _Proxy:
    """One proxy: what was asked, where it listens, and the scope in which it lives."""

    def __init__(self, id: str, ask: Connect, route: Route, listen: Endpoint) -> None:  # noqa: A002 - the word of the API
        self.id = id
        self.ask = ask
        self.route = route
        self.listen = listen
        self.scope = trio.CancelScope()
        self.room = trio.Semaphore(MAX_CONNECTIONS)
        self.connections = 0

    def status(self) -> ProxyStatus:
        return ProxyStatus(
            id=self.id,
            listen_address=str(self.listen),
            peer=self.ask.peer,
            service=self.ask.service,
            path=self.ask.path,
            persist=self.ask.persist,
            connections=self.connections,
            warning=None if self.listen.is_loopback else f"{self.listen} can be reached by other machines",
        )


def _unlink(endpoint: Endpoint) -> None:
    if endpoint.path:
        with suppress(OSError):
            os.unlink(endpoint.path)
