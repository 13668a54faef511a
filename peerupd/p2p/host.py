"""The host: what the rest of the program knows of the network, in the shape of py-libp2p's `IHost`.

Assembled here: the gate's admission, the swarm, the handlers, identify and ping. `reach` is what finds or makes a
path to a peer; `p2p.paths` puts itself there. Without it, a connection that stands is used. Peers are told of our
addresses whenever these change.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

import trio

from peerupd.model.addresses import IpAddress, Multiaddr, tcp_multiaddr
from peerupd.model.counters import Counters
from peerupd.model.errors import Unreachable
from peerupd.model.names import PeerId
from peerupd.model.snapshots import Event, PathKind, PathWish, PeerConnected, PeerDisconnected
from peerupd.p2p import identify, ping
from peerupd.p2p.admission import OUTBOUND_SERVED, Admission
from peerupd.p2p.book import Book
from peerupd.p2p.budget import PROCESS_BUDGET
from peerupd.p2p.connection import Connection
from peerupd.p2p.rates import DEFAULT, Rates
from peerupd.p2p.serving import Handler, Serving
from peerupd.p2p.streams import Stream
from peerupd.p2p.swarm import Swarm
from peerupd.trust.gate import Admit, Gate
from peerupd.trust.identity import Identity
from peerupd.wire.identify import PROTOCOL, PUSH_PROTOCOL

if TYPE_CHECKING:
    from libp2p.crypto.keys import PrivateKey
    from libp2p.peer.peerstore import PeerStore

log = logging.getLogger(__name__)

Reach = Callable[[PeerId, PathWish], Awaitable[Connection]]

_WISHES: Final = {PathWish.DIRECT: PathKind.DIRECT, PathWish.RELAY: PathKind.RELAYED}


class Host:
    """A libp2p host. `agent`: what others see (`peerup/<version>`); `addresses`: those of our interfaces, now.

    `memory`: bytes that all connections together may hold of what was received and not yet read; `rates`: how often
    others may come; `counters`: where all of it is counted.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        gate: Gate,
        agent: str,
        clock: Callable[[], float] = time.time,
        addresses: Callable[[], list[IpAddress]] = list,
        memory: int = PROCESS_BUDGET,
        counters: Counters | None = None,
        rates: Rates = DEFAULT,
    ) -> None:
        self.identity = identity
        self.peer_id: PeerId = identity.peer_id
        self.gate = gate
        self.reach: Reach | None = None
        self.exempt: Callable[[PeerId], bool] = _nobody
        """Of whom our own connections survive that they are not in the allowlist: the configured relays."""
        self._interfaces = addresses
        self._circuits: dict[str, tuple[Multiaddr, ...]] = {}
        self._subscribers: list[Callable[[Event], None]] = []
        self.counters = Counters() if counters is None else counters
        self._admission = Admission(
            gate, clock=clock, connections=self._all_connections, publish=self.publish, counters=self.counters
        )
        self._serving = Serving(self._admission)
        self.swarm = Swarm(
            identity=identity,
            admission=self._admission,
            serve=self._serving.serve,
            clock=clock,
            memory=memory,
            counters=self.counters,
            rates=rates,
        )
        self.swarm.on_connected.append(self._connected)
        self.swarm.on_disconnected.append(self._disconnected)
        self._book = Book()
        own = identify.Self(identity, agent, self.advertised, lambda: self._serving.protocols)
        self._identifier = identify.Identifier(own, self._book)
        self._serving.set(PROTOCOL, self._identifier.answer)
        self._serving.set(PUSH_PROTOCOL, self._identifier.take_push)
        self._serving.set(ping.PROTOCOL, ping.answer)
        self._nursery: trio.Nursery | None = None
        self._peerstore: PeerStore | None = None

    async def run(
        self, listen: Sequence[Multiaddr], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Be on the network until cancelled; started once all plain TCP addresses of `listen` are bound.

        Raises `AddressInUse`, `InvalidAddress`, `EnvironmentalError`.
        """
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self.swarm.run)
            for address in listen:
                if address.is_plain_tcp:
                    await self.swarm.listen(address)
            self._nursery.start_soon(self._identifier.push, self.connections)
            task_status.started()

    # -- streams ---------------------------------------------------------------------------------------------------

    def set_stream_handler(self, protocol_id: str, stream_handler: Handler) -> None:
        """Serve `protocol_id`; the handler owns its stream until it returns (see `p2p.serving`)."""
        self._serving.set(protocol_id, stream_handler)
        self._identifier.changed()

    def remove_stream_handler(self, protocol_id: str) -> None:
        """Serve it no longer."""
        self._serving.remove(protocol_id)
        self._identifier.changed()

    async def new_stream(
        self, peer_id: PeerId, protocol_ids: Sequence[str], *, wish: PathWish = PathWish.ANY
    ) -> Stream:
        """A stream over the best path that fits the wish; `reach`, once it is there, chooses or makes it.

        Raises `Unreachable`, `ProtocolUnsupported`, `ConnectionLost`, `LimitReached`, `TimedOut`.
        """
        connection = await self._connection(peer_id, wish)
        return await connection.open_stream(protocol_ids)

    async def _connection(self, peer: PeerId, wish: PathWish) -> Connection:
        if peer == self.peer_id:
            raise Unreachable(f"{peer} is this node itself")
        if self.reach is not None:
            return await self.reach(peer, wish)
        for connection in self.connections(peer):
            if wish is PathWish.ANY or connection.path is _WISHES[wish]:
                return connection
        raise Unreachable(f"not connected to {peer}")

    # -- connections -----------------------------------------------------------------------------------------------

    async def connect(self, peer: PeerId, addresses: Sequence[Multiaddr]) -> Connection:
        """A direct connection that stands, or else a new one. Raises `Unreachable`, `WrongPeer`, `GateRefused`..."""
        direct = [connection for connection in self.connections(peer) if not connection.relayed]
        return direct[0] if direct else await self.swarm.dial(addresses, peer)

    def connections(self, peer: PeerId | None = None) -> list[Connection]:
        """Those with `peer`, or all, but for those that are ending; the best first.

        That is: direct, then without a limit, then the newest.
        """
        standing = [connection for connection in self.swarm.connections(peer) if not connection.reason]
        return sorted(standing, key=lambda c: (c.relayed, c.on_probation, c.limit is not None, -c.opened_at))

    def _all_connections(self) -> list[Connection]:
        """Also those that are ending: until they have, they occupy what they occupy."""
        return self.swarm.connections()

    async def close_peer(self, peer: PeerId) -> None:
        """Close all connections with `peer`."""
        await self.swarm.close_peer(peer)

    async def close(self) -> None:
        """Say goodbye to everybody, a second at most for each: over circuits first, while what carries them stands."""
        for relayed in (True, False):
            async with trio.open_nursery() as nursery:
                for connection in self.connections():
                    if connection.relayed is relayed:
                        nursery.start_soon(connection.close)

    def regate(self) -> None:
        """The allowlist has changed, or time has: end the connections of those who are no longer admitted, at once.

        What we called is free to stay if it never was admitted (an inviter, before pairing) or is exempt.
        """
        for connection in self._all_connections():
            try:
                self._regate(connection)
            except Exception:  # whom a bug spares may not be welcome
                log.exception("a bug ended %r", connection)
                connection.abort("internal error")

    def _regate(self, connection: Connection) -> None:
        before, after = connection.admission, self._admission.now(connection)
        was_admitted = isinstance(before, Admit) and not isinstance(after, Admit)
        if was_admitted and (connection.inbound or not self.exempt(connection.peer)):
            connection.abort("its peer is no longer authorized")
        elif before != after:
            connection.promote(after)
        if was_admitted:
            connection.serve_only(OUTBOUND_SERVED)

    def _connected(self, connection: Connection) -> None:
        connection.on_promotion = self._admitted
        if not connection.on_probation:
            self._admitted(connection)

    def _admitted(self, connection: Connection) -> None:
        assert self._nursery is not None
        self.swarm.remember(connection)
        self._nursery.start_soon(self._identifier.ask, connection)
        if len(self.swarm.connections(connection.peer)) == 1:
            self.publish(PeerConnected(connection.peer, connection.path, str(connection.remote)))

    def _disconnected(self, connection: Connection) -> None:
        if not self.swarm.connections(connection.peer) and not connection.on_probation:
            self.publish(PeerDisconnected(connection.peer))

    # -- addresses -------------------------------------------------------------------------------------------------

    def listen_addresses(self) -> list[Multiaddr]:
        """Where our listeners can be reached: `0.0.0.0` and `::` as the addresses of our interfaces."""
        return list(dict.fromkeys(each for address in self.swarm.listening for each in self._concrete(address)))

    def _concrete(self, address: Multiaddr) -> list[Multiaddr]:
        ip, port = address.ip, address.port
        assert ip is not None
        assert port is not None
        if not ip.is_unspecified:
            return [address]
        return [tcp_multiaddr(str(own), port) for own in self._interfaces() if own.version == ip.version]

    def advertised(self) -> list[Multiaddr]:
        """What peers are told: listeners, as what callers saw us, and circuits."""
        circuits = [address for several in self._circuits.values() for address in several]
        return list(dict.fromkeys([*self.listen_addresses(), *self._book.observed(inbound_only=True), *circuits]))

    def set_circuit_addresses(self, owner: str, addresses: Sequence[Multiaddr]) -> None:
        """What the reservation of `owner` (a relay) gives us; none: it is over. Peers are told."""
        before = self._circuits.pop(owner, ())
        if addresses:
            self._circuits[owner] = tuple(addresses)
        if before != tuple(addresses):
            self._identifier.changed()

    def addresses_changed(self) -> None:
        """The interfaces have other addresses now: peers are told."""
        self._identifier.changed()

    # -- what peers told -------------------------------------------------------------------------------------------

    def agent_of(self, peer: PeerId) -> str:
        """Its program and version; empty: unknown."""
        return self._book.get(peer).agent

    def protocol_version_of(self, peer: PeerId) -> str:
        """`identify.PROTOCOL_VERSION` for ours; empty: unknown, or a Go peer."""
        return self._book.get(peer).protocol_version

    def protocols_of(self, peer: PeerId) -> frozenset[str]:
        """What it said it serves."""
        return self._book.get(peer).protocols

    def addresses_of(self, peer: PeerId) -> list[Multiaddr]:
        """Where it says that it listens."""
        return list(self._book.get(peer).addresses)

    def observed_addresses(self) -> list[Multiaddr]:
        """As what peers see us."""
        return self._book.observed()

    # -- events ----------------------------------------------------------------------------------------------------

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """`callback` gets each event from now on, until what is returned is called."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def publish(self, event: Event) -> None:
        """Tell all subscribers; a bug in one of them is logged and keeps nothing from the others."""
        for callback in list(self._subscribers):
            try:
                callback(event)
            except Exception:
                log.exception("a subscriber failed at %r", event)

    # -- in the shape of libp2p's IHost ----------------------------------------------------------------------------

    def get_id(self) -> PeerId:
        """Our peer ID."""
        return self.peer_id

    def get_addrs(self) -> list[Multiaddr]:
        """As `advertised`."""
        return self.advertised()

    def get_connected_peers(self) -> list[PeerId]:
        """With whom we are connected."""
        return list(dict.fromkeys(connection.peer for connection in self.connections()))

    async def ping(self, peer_id: PeerId, ping_amt: int = 1) -> list[int]:
        """Round trips in whole microseconds, as py-libp2p's ping service has them."""
        connection = await self._connection(peer_id, PathWish.ANY)
        return [round(await ping.ping(connection) * 1e6) for _ in range(ping_amt)]

    def get_private_key(self) -> PrivateKey:
        """Our key in py-libp2p's form: it signs, and does not show itself."""
        from peerupd.p2p.records import private_key

        return private_key(self.identity)

    def get_peerstore(self) -> PeerStore:
        """py-libp2p's peerstore, loaded and filled from the book at the first ask."""
        if self._peerstore is None:
            from peerupd.p2p.records import peerstore

            self._peerstore = peerstore(self._book)
        return self._peerstore


def _nobody(_peer: PeerId) -> bool:
    return False
