"""A node, put together: every room introduced to those it needs, then run, then ended.

    Starting ──listening, control socket answering──▶ Running ──SIGTERM, SIGINT, shutdown──▶ Draining ──▶ Stopped

Theory of operation. `Node` builds and introduces; nothing runs before `run`. The nurseries are the lifetimes: the
network and the features live in the outer one, the doors in the inner one, so that at the end the doors close first and
the network says goodbye last. READY is told when the host listens and the control socket answers, and waits for no
relay: what needs the world outside starts beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Protocol

import trio

from peerupd.config.schema import NodeSettings, RateSettings
from peerupd.control import health, lock, watching
from peerupd.control.authorization import Authorization
from peerupd.control.bus import Bus
from peerupd.control.clock import Clock
from peerupd.control.configuration import Configuration
from peerupd.control.disk import Disk
from peerupd.control.expiries import Expiries
from peerupd.control.forwards import Forwards
from peerupd.control.gauges import Gauges
from peerupd.control.health import Check
from peerupd.control.lifetime import Notifier, Say, insisting, obey_signals, tell_status
from peerupd.control.names import Names
from peerupd.control.offers import Offers
from peerupd.control.opening import Opened, bindable, tell_warnings
from peerupd.control.operations import Operations, Parts
from peerupd.control.pairings import Books, Pairings, Ways, holding
from peerupd.control.reports import Reports
from peerupd.control.withdrawals import Withdrawals
from peerupd.features import places
from peerupd.features.inviting import Inviting
from peerupd.features.joining import Joining
from peerupd.features.probe import Probe
from peerupd.features.proxy import Proxies
from peerupd.features.registry import Registry
from peerupd.linux import links, memory
from peerupd.model import version
from peerupd.model.counters import Counters
from peerupd.model.logs import said
from peerupd.model.names import PeerId
from peerupd.model.snapshots import ProblemsChanged, ReservationChanged
from peerupd.p2p.bulkhead import contained
from peerupd.p2p.circuit import Circuits
from peerupd.p2p.host import Host
from peerupd.p2p.identify import PROTOCOL_VERSION
from peerupd.p2p.paths import Paths
from peerupd.p2p.rates import Rates
from peerupd.p2p.relay import Relays
from peerupd.p2p.vouch import Vouching

log = logging.getLogger(__name__)


class Door(Protocol):
    """Where callers come in."""

    async def open(self) -> None:
        """Take the place; nobody is answered yet. Raises `DaemonAlreadyRunning`, `StorageFailed`."""

    async def serve(self, operations: Operations, *, task_status: trio.TaskStatus[None]) -> None:
        """Answer, until `close`, and then until the callers are done or their time is over."""

    async def answers(self) -> bool:
        """Whether callers get in."""

    def close(self) -> None:
        """Let nobody in any more; whoever waits for something is sent away."""

    def remove(self) -> None:
        """Leave nothing behind."""

    def __str__(self) -> str: ...


class Node:
    """All rooms of one node."""

    def __init__(self, opened: Opened[NodeSettings]) -> None:
        settings = opened.settings
        clock = self.clock = Clock(settings.identity_key_file)
        self.opened = opened
        self.bus = Bus()
        self.disk = Disk()
        self.stop = trio.Event()
        self.configuration = Configuration(opened.file, opened.parsed, self.disk, opened.config_trouble)
        self.names = Names(settings.names)
        self._relays_in_use = settings.relays
        self.counters = Counters()
        self.memory = memory.budget()
        self.host = self._make_host()
        self.circuits = Circuits(self.host, clock=clock)
        self.relays = Relays(
            self.circuits.reserve,
            self.host.publish,
            announce=self.host.set_circuit_addresses,
            interval=settings.reservation_interval,
            clock=clock,
        )
        self.paths = Paths(self.host, self.circuits, self.relays.best_first, clock=clock)
        shared = places.places()
        self.registry = Registry(self.host, now=clock, worker=self.disk.worker, places=shared, counters=self.counters)
        self.proxies = Proxies(self.host.new_stream, crowded=self._is_crowded, places=shared, counters=self.counters)
        self.probe = Probe(self.host, self.host.new_stream)
        self.expiries = Expiries(opened.gate, clock, self.host.regate, self.disk)
        self.authorization = Authorization(
            opened.gate, opened.allowlist, self._allowlist_changed, self.disk, opened.allowlist_trouble
        )
        self._introduce(clock)

    def _make_host(self) -> Host:
        return Host(
            identity=self.opened.identity,
            gate=self.opened.gate,
            agent=f"peerup/{version.VERSION}",
            clock=self.clock,
            addresses=links.addresses,
            memory=self.memory.budget,
            counters=self.counters,
            rates=rates(self.opened.settings.rates),
        )

    def _make_inviting(self, books: Books, ways: Ways) -> Inviting:
        return Inviting(
            own=self.opened.identity.peer_id,
            handlers=self.host,
            gate=self.opened.gate,
            vouching=ways,
            relays=lambda: holding(self.relays),
            allowlist=books,
            names=books,
            network=self.configuration.settings.network,
            now=self.clock,
        )

    def _introduce(self, clock: Callable[[], float]) -> None:
        """The second half of building: those who need the first half."""
        own = self.opened.identity.peer_id
        books = Books(own, self.authorization, self.configuration)
        ways = Ways(self.host, self.circuits, Vouching(self.host), self.configuration, {})
        self.inviting = self._make_inviting(books, ways)
        joining = Joining(
            own=own,
            reach_relay=ways.reach,
            admission=ways,
            open_through=ways.open_through,
            allowlist=books,
            names=books,
            relays=books,
            now=clock,
        )
        settle = (self.registry.settle, self.proxies.settle)
        gauges = Gauges(self.host, self.counters, self.memory.budget, settle)
        self.reports = Reports(self.host, self.relays, self.registry, self.names, self.configuration, gauges)
        self.forwards = Forwards(self.configuration, self.proxies, self.names, self.paths.reach)
        self.withdrawals = Withdrawals(ways.withdraw)
        self.pairings = Pairings(inviting=self.inviting, joining=joining, books=books, relays=self.relays, bus=self.bus)
        self.operations = Operations(
            self._parts(Offers(self.configuration, self.registry, self.names, self.host.publish))
        )
        self.host.exempt = self._is_relay
        self.host.subscribe(self.bus.publish)
        self.configuration.tell(self._apply)

    def _parts(self, offers: Offers) -> Parts:
        return Parts(
            own=self.opened.identity.peer_id,
            configuration=self.configuration,
            names=self.names,
            reports=self.reports,
            offers=offers,
            authorization=self.authorization,
            forwards=self.forwards,
            proxies=self.proxies,
            probe=self.probe,
            pairings=self.pairings,
            withdrawals=self.withdrawals,
            stop=self.stop,
        )

    # -- what follows from settings and events ---------------------------------------------------------------------

    def _apply(self, settings: NodeSettings) -> None:
        self.names.replace(settings.names)
        gone = {relay.peer for relay in self._relays_in_use} - {relay.peer for relay in settings.relays}
        self._relays_in_use = settings.relays
        self.relays.set(settings.relays)
        for relay in gone:
            self._leave(relay)
        self.probe.set(enabled=settings.ping_enabled, protocol=settings.ping_id)

    def _leave(self, relay: PeerId) -> None:
        """It is no relay of ours any more: it brings no more circuits, and our slot there ends."""
        self.circuits.forget(relay)
        for connection in self.host.connections(relay):
            connection.abort("it is no relay of ours any more")

    def _allowlist_changed(self) -> None:
        self.host.regate()
        self.expiries.changed()
        self.bus.publish(ProblemsChanged())

    def _is_relay(self, peer: PeerId) -> bool:
        return any(relay.peer == peer for relay in self.configuration.settings.relays)

    def _is_crowded(self, peer: PeerId) -> bool:
        """Peers that are not of our kind refuse more than a few streams at once."""
        return self.host.protocol_version_of(peer) != PROTOCOL_VERSION

    # -- life ------------------------------------------------------------------------------------------------------

    async def run_network(self, *, listen: bool, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The host and what lives on it; with `listen`, peers may dial us. Ends only by cancellation."""
        async with trio.open_nursery() as nursery:
            addresses = bindable(self.configuration.settings.listen_addresses) if listen else ()
            await nursery.start(self.host.run, addresses)
            for room in (self.paths, self.proxies, self.inviting, self.registry):
                await nursery.start(room.run)
            task_status.started()

    async def run(self, door: Door, notifier: Notifier, say: Say = lambda line: None) -> None:
        """From the first second to the last. Raises what keeps a node from starting."""
        with lock.held(self.configuration.settings.identity_key_file), insisting(door.remove) as insist:
            await door.open()
            self._tell_problems()
            try:
                await self.authorization.renew_copy()
                async with trio.open_nursery() as lasting:
                    await lasting.start(obey_signals, self.stop, self.reload, say)
                    lasting.start_soon(insist, self.stop)
                    await lasting.start(lambda task_status: self.run_network(listen=True, task_status=task_status))
                    await self._run_doors(lasting, door, notifier, say)
                    await self.host.close()
                    lasting.cancel_scope.cancel()
            finally:
                door.remove()
        say("Daemon stopped.")
        log.info("stopped", extra=said("node.stopped"))

    async def _run_doors(self, lasting: trio.Nursery, door: Door, notifier: Notifier, say: Say) -> None:
        async with trio.open_nursery() as doors:
            await doors.start(door.serve, self.operations)
            notifier.ready()
            self._start_the_rest(lasting, door, notifier)
            self._tell_started(door, say)
            lasting.start_soon(self._tell_relay_addresses, say)
            await self._keep_copies()
            await self.stop.wait()
            notifier.stopping()
            door.close()

    def _start_the_rest(self, lasting: trio.Nursery, door: Door, notifier: Notifier) -> None:
        """What READY does not wait for."""
        for run in (self.relays.run, self.forwards.run, self.expiries.run):
            lasting.start_soon(run)
        lasting.start_soon(contained, "the withdrawals at relays", self.withdrawals.run)
        lasting.start_soon(self.clock.run, lambda: bool(self.host.connections()), self.disk)
        lasting.start_soon(tell_status, self.bus, self.reports.in_a_line, notifier)
        lasting.start_soon(health.watch, self.checks(door), notifier.watchdog, notifier.interval)
        if self.opened.allowlist is not None and self.opened.gate.enabled:
            path, known = self.opened.allowlist.path, self.opened.allowlist_stamp
            lasting.start_soon(watching.changes, path, known, self.authorization.reload_or_tell)

    def checks(self, door: Door) -> list[Check]:
        """What the watchdog asks."""
        return [Check("control socket", door.answers), Check("listeners", self._listeners_accept)]

    def _tell_problems(self) -> None:
        tell_warnings(self.opened, "peerupctl auth add PEER_ID")
        own_files = (self.configuration.problems, self.authorization.problems)
        for also in (*own_files, lambda: self.forwards.problems, self.clock.problems):
            self.reports.also(also)
        self.reports.note(self.expiries.notices)

    async def _keep_copies(self) -> None:
        """The start has succeeded: what it began with is good."""
        await self.configuration.keep()
        await self.authorization.keep()

    async def reload(self) -> None:
        """Read allowlist and configuration anew and put them in force, each if it is good; raises what reading raises.

        Then the one that is not good is shown as a problem until it is.
        """
        try:
            await self.authorization.reload()
        finally:
            try:
                await self.configuration.reload()
            finally:
                self.bus.publish(ProblemsChanged())

    async def _listeners_accept(self) -> bool:
        return all([await health.accepts(address) for address in self.host.swarm.listening])

    async def _tell_relay_addresses(self, say: Say) -> None:
        """Each circuit address, once it is ours."""
        told: set[str] = set()
        with self.bus.subscribe() as events:
            async for event in events:
                held = isinstance(event, ReservationChanged) and event.status.state == "reserved"
                for address in map(str, self.relays.circuit_addresses()) if held else ():
                    if address not in told:
                        say(f"Relay address: {address}")
                        told.add(address)

    def _tell_started(self, door: Door, say: Say) -> None:
        log.info("ready", extra=said("node.ready", peer=str(self.host.peer_id), door=str(door)))
        held = said("node.memory", bytes=self.memory.budget)
        log.info("connections may hold %d MiB: %s", self.memory.budget >> 20, self.memory.why, extra=held)
        for line in start_lines(self.opened, self.registry):
            say(line)
        say(f"Daemon API: {door}\n")


def rates(settings: RateSettings) -> Rates:
    """How often others may come, by the configuration."""
    return Rates(
        connection_burst=settings.connection_burst,
        connection_interval=settings.connection_interval,
        streams_per_second=settings.streams_per_second,
    )


def start_lines(opened: Opened[NodeSettings], registry: Registry) -> Iterator[str]:
    """What `peerup daemon` says on a terminal, as the predecessor said it."""
    settings = opened.settings
    yield f"peerup daemon {version.VERSION} ({version.own().commit})\n"
    yield f"Loaded configuration from {opened.file.path}"
    yield f"Rendezvous: {settings.rendezvous}\n"
    if opened.gate.enabled:
        yield f"Loading authorized peers from {settings.authorized_keys_file}\n"
    else:
        yield "WARNING: Connection gating is DISABLED - any peer can connect!\n"
    yield f"Peer ID: {opened.identity.peer_id}\n"
    if not settings.ping_enabled:
        yield "Ping-pong protocol disabled in config"
    for service in registry.list():
        if service.enabled:
            yield f"Exposing service: {service.name} -> {service.local_address}"
            if service.allowed_peers is not None:
                yield f"  ACL: {len(service.allowed_peers)} allowed peers"
