"""All connections: listeners and dials make them, limits and the gate bound them, `connections` finds them.

Every connection is made by `upgrade_inbound` or `upgrade_outbound`, whatever carries its bytes: TCP, or a circuit's
stream. It then lives in a task of the swarm until it ends.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Final

import trio

from peerupd.model.addresses import Multiaddr, counted_as
from peerupd.model.counters import (
    CONNECTION_BYTES,
    CONNECTIONS,
    CONNECTIONS_ACTIVE,
    CONNECTIONS_REFUSED,
    Counters,
)
from peerupd.model.errors import EnvironmentalError, GateRefused, LimitReached, PeerupError, TimedOut, Unreachable
from peerupd.model.logs import said
from peerupd.model.names import PeerId
from peerupd.p2p.admission import MAX_CONNECTIONS, MAX_CONNECTIONS_PER_PEER, MAX_CONNECTIONS_PER_SOURCE, Admission
from peerupd.p2p.budget import PROCESS_BUDGET, Pool
from peerupd.p2p.bulkhead import contained
from peerupd.p2p.connection import Connection, Facts, Limit
from peerupd.p2p.dialling import connect, race
from peerupd.p2p.half_open import Half, HalfOpen
from peerupd.p2p.links import Link, over
from peerupd.p2p.listener import Listener
from peerupd.p2p.rates import DEFAULT, Addresses, Rates, stream_buckets
from peerupd.p2p.streams import Stream
from peerupd.p2p.tcp import TcpStream
from peerupd.p2p.upgrade import HANDSHAKE_LIMIT, Upgraded, upgrade_inbound, upgrade_outbound
from peerupd.trust.gate import Admit, Decision, Refuse
from peerupd.trust.identity import Identity

log = logging.getLogger(__name__)

EXPECTED: Final = (PeerupError, trio.BrokenResourceError, trio.ClosedResourceError, OSError)
"""What a bad peer or a bad network raises; anything else is a bug."""
RATE_LOG_INTERVAL: Final = 60.0  # seconds between two log lines about addresses that are sent away
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, no time


class Swarm:
    """`serve` handles each stream that a peer opens; `on_connected` and `on_disconnected` are told of connections."""

    def __init__(
        self,
        *,
        identity: Identity,
        admission: Admission,
        serve: Callable[[Stream], Awaitable[None]],
        clock: Callable[[], float],
        memory: int = PROCESS_BUDGET,
        counters: Counters | None = None,
        rates: Rates = DEFAULT,
    ) -> None:
        self.on_connected: list[Callable[[Connection], None]] = []
        self.on_disconnected: list[Callable[[Connection], None]] = []
        self.listening: list[Multiaddr] = []
        self.half_open = HalfOpen()
        self._identity = identity
        self._admission = admission
        self._serve = serve
        self._clock = clock
        self._pool = Pool(memory)
        self._counters = Counters() if counters is None else counters
        self._addresses = Addresses(rates)
        self._streams = stream_buckets(rates)
        self._told_of_rates = -RATE_LOG_INTERVAL
        self._connections: dict[PeerId, list[Connection]] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The home of all listeners and connections, until it is cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await self.half_open.serve_line()

    # -- making connections ----------------------------------------------------------------------------------------

    async def listen(self, address: Multiaddr) -> Multiaddr:
        """Listen; the address with its port. Raises `AddressInUse`, `InvalidAddress`, `EnvironmentalError`."""
        home, listener = self._home, Listener(address)
        home.start_soon(listener.serve, self._welcome)
        self.listening.append(listener.address)
        return listener.address

    @property
    def _home(self) -> trio.Nursery:
        if self._nursery is None:
            raise EnvironmentalError("the network is not running")
        return self._nursery

    def _welcome(self, sock: socket.socket, where: str) -> None:
        try:
            self._let_come(sock, where)
        except Exception:  # a caller must not end a listener, whatever it finds
            log.exception("a bug ended a connection from %s", where)
            sock.close()

    def _let_come(self, sock: socket.socket, where: str) -> None:
        if not self._addresses.may_come(place_of(where), trio.current_time()):
            self._send_away(sock, where)
            return
        try:
            stream = TcpStream(sock)
            remote = stream.remote
        except OSError:  # it is gone already
            sock.close()
            return
        self._home.start_soon(self._greet, stream, remote)

    def _send_away(self, sock: socket.socket, where: str) -> None:
        """Close with a reset, of which nothing stays behind, not even in the kernel."""
        self._counters.count(CONNECTIONS_REFUSED, reason="rate")
        with sock, suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        now = trio.current_time()
        if now - self._told_of_rates >= RATE_LOG_INTERVAL:
            self._told_of_rates = now
            log.warning(
                "too many handshakes from %s failed, its connections are sent away for now",
                *(where,),
                extra=said("connection.rate", address=where),
            )

    async def _greet(self, stream: TcpStream, remote: Multiaddr) -> None:
        try:
            await self.upgrade_inbound(stream, remote)
        except EXPECTED as why:
            log.debug("a connection from %s did not come about: %s", remote, why)
        except Exception:  # what a stranger sends must not end us, whatever it finds
            log.exception("a bug ended a handshake with %s", remote)

    async def dial(self, addresses: Sequence[Multiaddr], peer: PeerId) -> Connection:
        """A new connection to `peer` at the first of its plain TCP addresses that answers as it.

        Raises `Unreachable`, `WrongPeer`, `GateRefused`, `LimitReached`.
        """
        if peer == self._identity.peer_id:
            raise Unreachable(f"{peer} is this node itself")

        async def attempt(address: Multiaddr) -> tuple[TcpStream, Multiaddr, Upgraded]:
            stream = await connect(address)
            try:
                return stream, address, await upgrade_outbound(stream, self._identity, peer)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise

        def lose(second: tuple[TcpStream, Multiaddr, Upgraded]) -> None:
            self._home.start_soon(trio.aclose_forcefully, second[0])

        stream, address, upgraded = await race(peer, addresses, attempt, lose)
        return await self._adopt(stream, upgraded, self._facts(address, inbound=False))

    async def upgrade_inbound(
        self,
        byte_stream: trio.abc.HalfCloseableStream,
        remote: Multiaddr,
        *,
        circuit: bool = False,
        limit: Limit | None = None,
        source: str = "",
    ) -> Connection:
        """A connection out of bytes that somebody sent us; the gate decides. `source` counts half-open ones.

        Raises `GateRefused`, `LimitReached`, `ProtocolViolation`, `ConnectionLost`, `TimedOut`, trio's errors. On
        failure the stream is closed, else it belongs to the connection.
        """
        facts = self._facts(remote, inbound=True, circuit=circuit, limit=limit, source=source)

        def ask(peer: PeerId) -> Decision:
            return self._admission.on_arrival(peer, remote, circuit=circuit)

        async def shake(half: Half) -> Upgraded:
            async def turn() -> None:
                in_line = self._addresses.in_line(facts.source, trio.current_time())
                await self.half_open.spoke(half, in_line=in_line)

            return await upgrade_inbound(byte_stream, self._identity, turn=turn, ask=ask)

        return await self._upgraded(byte_stream, lambda: self.half_open.hold(facts.source, shake), facts)

    async def upgrade_outbound(
        self,
        byte_stream: trio.abc.HalfCloseableStream,
        peer: PeerId,
        remote: Multiaddr,
        *,
        circuit: bool = False,
        limit: Limit | None = None,
    ) -> Connection:
        """A connection to `peer` out of bytes that reach it. Raises as `upgrade_inbound` does, and `WrongPeer`."""
        facts = self._facts(remote, inbound=False, circuit=circuit, limit=limit)

        async def upgrade() -> Upgraded:
            return await upgrade_outbound(byte_stream, self._identity, peer)

        return await self._upgraded(byte_stream, upgrade, facts)

    async def _upgraded(
        self, stream: trio.abc.HalfCloseableStream, upgrade: Callable[[], Awaitable[Upgraded]], facts: Facts
    ) -> Connection:
        try:
            with trio.fail_after(HANDSHAKE_LIMIT):
                upgraded = await upgrade()
        except BaseException as why:
            if facts.inbound:
                self._failed(facts, why)
            await trio.aclose_forcefully(stream)
            if isinstance(why, trio.TooSlowError):
                raise TimedOut(f"the handshake took longer than {HANDSHAKE_LIMIT:.0f} s") from None
            raise
        return await self._adopt(stream, upgraded, facts)

    def _failed(self, facts: Facts, why: BaseException) -> None:
        """Its address pays, unless it is we who end."""
        if not isinstance(why, trio.Cancelled):
            self._addresses.failed(facts.source, trio.current_time())
            self._counters.count(CONNECTIONS_REFUSED, reason=_reason(why))

    def _facts(
        self, remote: Multiaddr, *, inbound: bool, circuit: bool = False, limit: Limit | None = None, source: str = ""
    ) -> Facts:
        where = source or (counted_as(remote.ip) if remote.ip else str(remote))
        return Facts(remote, inbound, circuit, limit, where, self._clock())

    async def _adopt(self, stream: trio.abc.HalfCloseableStream, upgraded: Upgraded, facts: Facts) -> Connection:
        """Give a connection its place and its task."""
        try:
            admission = self._still_welcome(upgraded.peer, facts)
            self._make_room(upgraded.peer, facts)
        except PeerupError as why:
            if facts.inbound:
                self._failed(facts, why)
            await trio.aclose_forcefully(stream)
            raise
        link: Link = stream if isinstance(stream, TcpStream) else over(stream)
        connection = Connection(
            upgraded,
            link,
            facts,
            admission=admission,
            serve=self._serve,
            pool=self._pool,
            may_open=lambda: self._streams.spend(upgraded.peer, trio.current_time()),
            counters=self._counters,
        )
        if connection.on_probation:
            self._addresses.failed(facts.source, trio.current_time())
        connection.on_closed = self._forget
        self._connections.setdefault(upgraded.peer, []).append(connection)
        self._count(connection, 1)
        self._home.start_soon(contained, f"the connection with {upgraded.peer}", connection.run)
        _tell(self.on_connected, connection)
        return connection

    def _still_welcome(self, peer: PeerId, facts: Facts) -> Decision:
        """Ask again: the answer may have changed during the handshake, and others may have gone on probation."""
        decision = self._admission.decide(peer, circuit=facts.relayed)
        if facts.inbound and isinstance(decision, Refuse):
            raise GateRefused(f"{peer} may not come in: {decision.why}")
        return decision

    def remember(self, connection: Connection) -> None:
        """The address of an authorised peer is known for a while: see `p2p.rates`."""
        if isinstance(connection.admission, Admit) and not connection.relayed:
            self._addresses.authorised(connection.facts.source, trio.current_time())

    # -- bounds ----------------------------------------------------------------------------------------------------

    def _make_room(self, peer: PeerId, facts: Facts) -> None:
        """Close the oldest idle connection where there are too many; raises `LimitReached` when all are in use.

        A peer that has too many of its own loses its oldest one even so: after a suspend the new one is the true one.
        """
        everyone = [c for c in self.connections() if not c.reason]  # who has one is ending already
        same_source = [c for c in everyone if c.facts.source == facts.source and c.inbound and facts.inbound]
        own = [c for c in everyone if c.peer == peer]
        _bounded(own, MAX_CONNECTIONS_PER_PEER, f"with {peer}", last_resort=own)
        _bounded(same_source, MAX_CONNECTIONS_PER_SOURCE, f"from {facts.source}")
        _bounded(everyone, MAX_CONNECTIONS, "in all")

    @property
    def held(self) -> int:
        """Received and unread bytes of all connections together."""
        return self._pool.held

    # -- finding and closing them ----------------------------------------------------------------------------------

    def connections(self, peer: PeerId | None = None) -> list[Connection]:
        """Those with `peer`, or all; oldest first."""
        if peer is not None:
            return list(self._connections.get(peer, ()))
        return [connection for several in self._connections.values() for connection in several]

    def _forget(self, connection: Connection) -> None:
        several = self._connections[connection.peer]
        several.remove(connection)
        if not several:
            del self._connections[connection.peer]
        self._count(connection, -1)
        log.debug("%r ended: %s", connection, connection.reason)
        _tell(self.on_disconnected, connection)

    def _count(self, connection: Connection, change: int) -> None:
        """One more connection stands, or one less."""
        counters, path = self._counters, str(connection.path)
        counters.count(CONNECTIONS_ACTIVE, change, path_type=path)
        if change > 0:
            counters.count(CONNECTIONS, direction="inbound" if connection.inbound else "outbound", path_type=path)
        else:
            counters.count(CONNECTION_BYTES, connection.received, direction="rx", path_type=path)
            counters.count(CONNECTION_BYTES, connection.sent, direction="tx", path_type=path)

    async def close_peer(self, peer: PeerId) -> None:
        """Close all connections with `peer`; a second at most."""
        async with trio.open_nursery() as nursery:
            for connection in self.connections(peer):
                nursery.start_soon(connection.close)


def _tell(callbacks: Sequence[Callable[[Connection], None]], connection: Connection) -> None:
    """A bug in one of them is logged and keeps nothing from the others."""
    for told in list(callbacks):
        try:
            told(connection)
        except Exception:
            log.exception("a room failed at news of %r", connection)


@lru_cache(maxsize=1024)
def place_of(ip: str) -> str:
    """What a caller's address counts as; a scope (`%eth0`) is taken off."""
    return counted_as(ipaddress.ip_address(ip.partition("%")[0]))


def _reason(why: BaseException) -> str:
    """Why a connection did not come about, in a word."""
    match why:
        case GateRefused():
            return "gate"
        case LimitReached():
            return "limit"
        case trio.TooSlowError():
            return "timeout"
    return "handshake"


def _bounded(connections: Sequence[Connection], limit: int, which: str, last_resort: Sequence[Connection] = ()) -> None:
    if len(connections) < limit:
        return
    idle = [connection for connection in connections if not connection.streams and not connection.keep]
    oldest = min(idle or last_resort, key=lambda connection: connection.opened_at, default=None)
    if oldest is None:
        raise LimitReached(f"{limit} connections {which} are in use already")
    oldest.abort("it was the oldest of too many")
