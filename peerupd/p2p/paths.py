"""The best path to each peer: make one, prefer the direct one, notice when it changes.

    Unknown ──a circuit stands──▶ Relayed ──the peer was dialled──▶ Direct
       ▲  └──────────the peer was dialled, or dialled us──────────────▲ │
       └───────────no connection is left─── Relayed ◀──direct one lost──┘

Theory of operation. `reach` makes a path on demand: all addresses that the peer has told us are dialled at once, and
circuits through our relays beside them, each a little later than the one before. A circuit that stands waits a moment
for the direct dial, which is worth more. Whoever asks for the same peer meanwhile waits for the same race.

A peer that is only relayed is dialled again in the background: the side that made the circuit begins, the other one
follows, then both at growing intervals, and at once when somebody opens a new stream. New streams take the better
path; old ones finish where they are. A circuit with a limit is replaced before the limit: see `worn`. Of a peer's
addresses only those of an admitted peer are dialled, and few: what a stranger says is not worth a packet.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

import trio

from peerupd.model.addresses import Multiaddr, RelayAddress
from peerupd.model.errors import EnvironmentalError, PeerupError, RefusedError, RemoteError, Unreachable
from peerupd.model.logs import said
from peerupd.model.names import PeerId
from peerupd.model.snapshots import PathChanged, PathKind, PathWish
from peerupd.p2p.bulkhead import contained
from peerupd.p2p.connection import Connection
from peerupd.p2p.dialling import counted
from peerupd.p2p.host import Host

log = logging.getLogger(__name__)

MAX_ADDRESSES: Final = 16  # of one peer, dialled at once
STAGGER: Final = 0.25  # seconds between the beginnings of two circuits
GRACE: Final = 0.2  # seconds that a standing circuit waits for the direct dial
REACH_LIMIT: Final = 30.0  # seconds for one race
IDENTIFY_LIMIT: Final = 5.0  # seconds for a peer to say where it is
FOLLOW_AFTER: Final = 1.0  # seconds until the side that accepted the circuit dials too
RETRIES: Final = (2.0, 5.0, 10.0, 20.0, 60.0)  # seconds between direct dials of a relayed peer; the last one repeats
KICK_AFTER: Final = 3.0  # seconds since the last direct dial, before a new stream causes another
WORN: Final = 0.8  # of a circuit's time or data: new streams go elsewhere (settled 8)
IDLE_CIRCUIT: Final = 60.0  # seconds after which a circuit beside a direct connection is closed, if it is idle
TIDY_INTERVAL: Final = 20.0  # seconds

Trouble: Final = (RefusedError, RemoteError, EnvironmentalError)


@dataclass(frozen=True, slots=True)
class Unknown:
    """No connection."""

    kind = None

    def __str__(self) -> str:
        return "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Relayed:
    """Connected through a relay only."""

    address: Multiaddr
    kind = PathKind.RELAYED

    def __str__(self) -> str:
        return "RELAYED"


@dataclass(frozen=True, slots=True)
class Direct:
    """Connected without a relay."""

    address: Multiaddr
    kind = PathKind.DIRECT

    def __str__(self) -> str:
        return "DIRECT"


State: TypeAlias = Unknown | Relayed | Direct


class CircuitDialler(Protocol):
    """What makes a connection to `peer` through a relay, given by all its addresses (`circuit.Circuits`)."""

    async def dial(self, relay: Sequence[RelayAddress], peer: PeerId) -> Connection: ...


@dataclass(eq=False)
class Race:
    """One race for a path to a peer, and those who wait for it."""

    peer: PeerId
    wish: PathWish
    over: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    waiting: int = 0
    winner: Connection | None = None
    troubles: list[PeerupError] = field(default_factory=list)


class Paths:
    """The paths to all peers of one host."""

    def __init__(
        self,
        host: Host,
        circuits: CircuitDialler,
        relays: Callable[[], Sequence[Sequence[RelayAddress]]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`relays`: the addresses of each relay, best first. Installs itself as `host.reach`."""
        self._host = host
        self._circuits = circuits
        self._relays = relays
        self._clock = clock
        self._states: dict[PeerId, State] = {}
        self._races: dict[tuple[PeerId, PathWish], Race] = {}
        self._upgrades: dict[PeerId, Upgrade] = {}
        self._nursery: trio.Nursery | None = None
        host.reach = self.reach
        host.swarm.on_connected.append(self._connected)
        host.swarm.on_disconnected.append(self._disconnected)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Races and background upgrades live here; ends only by cancellation."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                while True:
                    await trio.sleep(TIDY_INTERVAL)
                    await contained("the search for idle circuits", self._tidy)
        finally:
            self._nursery = None

    def state(self, peer: PeerId) -> State:
        """How we are connected to `peer` now."""
        return self._states.get(peer, Unknown())

    async def reach(self, peer: PeerId, wish: PathWish = PathWish.ANY) -> Connection:
        """The best connection that fits the wish, made if there is none; raises `Unreachable`."""
        standing = [connection for connection in self._host.connections(peer) if _fits(connection, wish)]
        found = next((connection for connection in standing if not worn(connection, self._clock())), None)
        if found is None:
            try:
                found = await self._wait_for(self._race(peer, wish))
            except Unreachable:
                if not standing:
                    raise
                found = standing[0]
        if found.relayed and wish is PathWish.ANY:
            self.kick(peer)
        return found

    def kick(self, peer: PeerId) -> None:
        """Somebody wants more of a relayed peer: dial it directly, unless that was done just now."""
        if (upgrade := self._upgrades.get(peer)) is not None:
            upgrade.kick()

    def wake(self) -> None:
        """The network has changed: every relayed peer is worth a dial."""
        for upgrade in self._upgrades.values():
            upgrade.kick()

    # -- races -----------------------------------------------------------------------------------------------------

    def _race(self, peer: PeerId, wish: PathWish) -> Race:
        """The race that is on, or a new one."""
        if self._nursery is None:
            raise Unreachable(f"peer {peer} cannot be reached: this node is not running")
        race = self._races.get((peer, wish))
        if race is None:
            race = self._races[peer, wish] = Race(peer, wish)
            self._nursery.start_soon(contained, f"a race for {peer}", self._run_race, race)
        return race

    async def _wait_for(self, race: Race) -> Connection:
        race.waiting += 1
        try:
            await race.over.wait()
        finally:
            race.waiting -= 1
            if not race.waiting:
                self._call_off(race)
        if race.winner is None:
            raise _unreachable(race)
        return race.winner

    async def _run_race(self, race: Race) -> None:
        try:
            with race.scope, trio.move_on_after(REACH_LIMIT):
                async with trio.open_nursery() as legs:
                    direct = trio.Event()
                    legs.start_soon(self._direct_leg, race, direct)
                    if race.wish is not PathWish.DIRECT:
                        await self._circuit_legs(race, legs, direct)
        finally:
            self._call_off(race)
            race.over.set()

    def _call_off(self, race: Race) -> None:
        """Over, or nobody waits for it any more; whoever comes now wants a race of their own."""
        race.scope.cancel()
        if self._races.get((race.peer, race.wish)) is race:
            del self._races[race.peer, race.wish]

    async def _direct_leg(self, race: Race, over: trio.Event) -> None:
        """Dial the peer itself; if that succeeds the race is won."""
        if race.wish is not PathWish.RELAY:
            try:
                if race.wish is PathWish.DIRECT and not self._addresses(race.peer):
                    await self._ask_for_addresses(race.peer)
                race.winner = await self._dial(race.peer)
            except Trouble as why:
                race.troubles.append(Unreachable(f"directly: {why.message}", hint=why.hint))
            except Exception:  # what a peer tells of itself must not end us, nor the ways through relays
                log.exception("a bug ended a direct dial to %s", race.peer)
                race.troubles.append(Unreachable("directly: internal error"))
            else:
                race.scope.cancel()
        over.set()

    async def _circuit_legs(self, race: Race, legs: trio.Nursery, direct: trio.Event) -> None:
        """One leg per relay, the next one when the one before has failed or taken its time."""
        relays = [relay for relay in self._relays() if relay and relay[0].peer != race.peer]
        if not relays:
            race.troubles.append(Unreachable("through a relay: none is configured", hint="peerupctl relay add ADDRESS"))
        for relay in relays:
            failed = trio.Event()
            legs.start_soon(self._circuit_leg, race, relay, direct, failed)
            with trio.move_on_after(STAGGER):
                await failed.wait()

    async def _circuit_leg(
        self, race: Race, relay: Sequence[RelayAddress], direct: trio.Event, failed: trio.Event
    ) -> None:
        try:
            found = await self._circuits.dial(relay, race.peer)
        except Trouble as why:
            race.troubles.append(Unreachable(f"through relay {relay[0].peer.short}: {why.message}", hint=why.hint))
            failed.set()
            return
        except Exception:  # what a relay or a peer says must not end us, whatever it finds
            log.exception("a bug ended a dial through relay %s", relay[0].peer)
            race.troubles.append(Unreachable(f"through relay {relay[0].peer.short}: internal error"))
            failed.set()
            return
        with trio.move_on_after(GRACE):
            await direct.wait()
        race.winner = race.winner or found
        race.scope.cancel()

    async def _dial(self, peer: PeerId) -> Connection:
        if not (addresses := self._addresses(peer)):
            raise Unreachable("no address of it is known")
        with counted(self._host.counters, PathKind.DIRECT):
            return await self._host.connect(peer, addresses)

    async def _ask_for_addresses(self, peer: PeerId) -> None:
        """A peer that is to be reached directly is asked over a relay where it is."""
        standing = self._host.connections(peer)
        connection = standing[0] if standing else await self.reach(peer, PathWish.RELAY)
        with trio.move_on_after(IDENTIFY_LIMIT):
            await connection.identified.wait()

    def _addresses(self, peer: PeerId) -> list[Multiaddr]:
        """The direct addresses that are worth a dial: of a relay as configured, of an admitted peer what it told."""
        configured = [at.address for relay in self._relays() for at in relay if at.peer == peer]
        told = self._host.addresses_of(peer) if self._host.gate.authorized(peer, self._clock()) else []
        own = set(self._host.listen_addresses())
        known = dict.fromkeys(address.without_peer() for address in (*configured, *told))
        return [address for address in known if address.is_plain_tcp and address not in own][:MAX_ADDRESSES]

    # -- what happens by itself ------------------------------------------------------------------------------------

    def _connected(self, connection: Connection) -> None:
        how = "it dialled us" if connection.inbound else "dialled"
        self._review(connection.peer, f"{how} over {connection.remote}")

    def _disconnected(self, connection: Connection) -> None:
        self._review(connection.peer, f"the connection over {connection.remote} ended")

    def _review(self, peer: PeerId, why: str) -> None:
        """The one place where a peer's state changes, is logged and published."""
        standing = self._host.connections(peer)
        before, after = self.state(peer), _state(standing)
        self._states[peer] = after
        if isinstance(after, Unknown):
            del self._states[peer]
        if before.kind is not after.kind:
            change = said("path.changed", peer=str(peer), before=str(before), after=str(after))
            log.info("path to %s: %s -> %s: %s", peer.short, before, after, why, extra=change)
            self._host.publish(PathChanged(peer, before.kind, after.kind, why))
        if not isinstance(after, Relayed):
            self._end_upgrade(peer)
        elif peer not in self._upgrades and self._nursery is not None:
            upgrade = self._upgrades[peer] = Upgrade(standing[0])
            self._nursery.start_soon(contained, f"the dials to {peer}", self._upgrade, upgrade)

    def _end_upgrade(self, peer: PeerId) -> None:
        if (upgrade := self._upgrades.pop(peer, None)) is not None:
            upgrade.scope.cancel()

    async def _upgrade(self, upgrade: Upgrade) -> None:
        """Dial a relayed peer until it is connected directly, or not at all."""
        try:
            with upgrade.scope:
                await upgrade.begin()
                while True:
                    await self._try_directly(upgrade)
                    await upgrade.rest()
        finally:
            if self._upgrades.get(upgrade.peer) is upgrade:
                del self._upgrades[upgrade.peer]

    async def _try_directly(self, upgrade: Upgrade) -> None:
        upgrade.dials()
        try:
            await self._wait_for(self._race(upgrade.peer, PathWish.DIRECT))
        except Unreachable as why:
            log.debug("no direct connection to %s yet: %s, retrying", upgrade.peer.short, why)

    async def _tidy(self) -> None:
        async with trio.open_nursery() as nursery:
            for connection in self._idle_circuits():
                nursery.start_soon(connection.close)

    def _idle_circuits(self) -> list[Connection]:
        """Circuits that nobody needs any more, because a direct connection has stood for a while."""
        now = self._clock()
        found: list[Connection] = []
        for peer, state in self._states.items():
            connections = self._host.connections(peer)  # none, where the last one is ending just now
            if isinstance(state, Direct) and connections and now - connections[0].opened_at > IDLE_CIRCUIT:
                found += [c for c in connections if c.relayed and not c.streams]
        return found


class Upgrade:
    """When a relayed peer is dialled directly."""

    def __init__(self, circuit: Connection) -> None:
        self.peer = circuit.peer
        self.scope = trio.CancelScope()
        self._circuit = circuit
        self._kicked = trio.Event()
        self._delays = itertools.chain(RETRIES, itertools.repeat(RETRIES[-1]))
        self._dialled_at = trio.current_time()

    async def begin(self) -> None:
        """Until the first dial: the peer's addresses are known, and the side that made the circuit goes first."""
        await self._circuit.identified.wait()
        if self._circuit.inbound:
            await trio.sleep(FOLLOW_AFTER)

    def dials(self) -> None:
        """A dial begins now."""
        self._dialled_at = trio.current_time()
        self._kicked = trio.Event()

    def kick(self) -> None:
        """Do not rest, if the last dial is not too recent."""
        if trio.current_time() - self._dialled_at > KICK_AFTER:
            self._kicked.set()

    async def rest(self) -> None:
        """Until the next dial."""
        with trio.move_on_after(next(self._delays)):
            await self._kicked.wait()


def worn(connection: Connection, now: float) -> bool:
    """Whether a circuit is so near its limit that new streams had better go elsewhere; `now` since the epoch."""
    limit = connection.limit
    if limit is None:
        return False
    data = limit.data is not None and max(connection.sent, connection.received) >= WORN * limit.data
    return data or (limit.seconds is not None and now - connection.opened_at >= WORN * limit.seconds)


def _fits(connection: Connection, wish: PathWish) -> bool:
    return wish is PathWish.ANY or connection.relayed is (wish is PathWish.RELAY)


def _state(standing: Sequence[Connection]) -> State:
    """What the best of these connections, which is the first, makes of the path."""
    if not standing:
        return Unknown()
    best = standing[0]
    return Relayed(best.remote) if best.relayed else Direct(best.remote)


def _unreachable(race: Race) -> Unreachable:
    """One text for all that was tried; the hint of the first trouble that had one."""
    tried = "; ".join(why.message for why in race.troubles) or f"no answer in {REACH_LIMIT:g} s"
    hints = [why.hint for why in race.troubles if why.hint]
    if race.wish is PathWish.DIRECT:
        hints.append("without --path direct a relay is used too")
    hints.append("see that the other node runs, and that it uses the same relay")
    return Unreachable(f"peer {race.peer} cannot be reached: {tried}", hint=hints[0])
