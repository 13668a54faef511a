"""A relay server, put together: a host, the hop service, the allowlist, and `/healthz` when it is wanted.

It has no control socket: its files are its interface, and they are watched. Joiners for whom an inviter vouched are
written into the allowlist with `vouched_by=`, and only that inviter can have them removed again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import trio

from peerupd.config.schema import RateSettings, RelaySettings
from peerupd.control import health, lock, watching
from peerupd.control.authorization import Authorization
from peerupd.control.bus import Bus
from peerupd.control.clock import Clock
from peerupd.control.disk import Disk
from peerupd.control.expiries import Expiries
from peerupd.control.gauges import Gauges
from peerupd.control.good_file import GoodFile
from peerupd.control.health import Check
from peerupd.control.lifetime import Notifier, Say, degraded, insisting, obey_signals, tell_status
from peerupd.control.network_table import NetworkTable
from peerupd.control.opening import Opened, bindable, tell_warnings
from peerupd.control.reservation_file import ReservationFile
from peerupd.linux import links, memory
from peerupd.model import version
from peerupd.model.addresses import Endpoint
from peerupd.model.counters import Counters
from peerupd.model.logs import said
from peerupd.model.names import PeerId
from peerupd.model.snapshots import ProblemsChanged
from peerupd.p2p.host import Host
from peerupd.p2p.rates import Rates
from peerupd.p2p.relay_limits import RelayLimits
from peerupd.p2p.relay_server import RelayServer

log = logging.getLogger(__name__)

Figures = Callable[[], Mapping[str, str | int]]


class HealthDoor(Protocol):
    """Serves the figures of `/healthz`."""

    async def __call__(self, where: Endpoint, figures: Figures, *, task_status: trio.TaskStatus[Endpoint]) -> None: ...


class RelayNode:
    """All rooms of one relay server."""

    def __init__(self, opened: Opened[RelaySettings]) -> None:
        self.opened = opened
        clock = self.clock = Clock(opened.settings.identity_key_file)
        self.disk = Disk()
        self.bus = Bus()
        self.stop = trio.Event()
        self.counters = Counters()
        self.memory = memory.budget()
        self.host = Host(
            identity=opened.identity,
            gate=opened.gate,
            agent=f"relay-server/{version.VERSION}",
            clock=clock,
            addresses=links.addresses,
            memory=self.memory.budget,
            counters=self.counters,
            rates=rates(opened.settings.rates),
        )
        self.expiries = Expiries(opened.gate, clock, self.host.regate, self.disk)
        self.authorization = Authorization(
            opened.gate, opened.allowlist, self._allowlist_changed, self.disk, opened.allowlist_trouble
        )
        self._config = GoodFile(
            opened.file.path, opened.file.load_relay, opened.file.keep, self.disk, opened.config_trouble
        )
        self.server = RelayServer(
            self.host,
            opened.gate,
            limits(opened.settings),
            opened.identity,
            keep=self._keep,
            withdraw=self._withdraw,
            clock=clock,
            counters=self.counters,
        )
        self.gauges = Gauges(self.host, self.counters, self.memory.budget, (self.server.settle,))
        self.networks = NetworkTable(opened.settings.asn_table, self.server)
        self.reservations = self._reservation_file()
        self.host.subscribe(self.bus.publish)
        self._parsed = opened.parsed
        self._started = trio.current_time()
        self._serving = False

    async def run(self, health_door: HealthDoor, notifier: Notifier, say: Say = lambda line: None) -> None:
        """From the first second to the last. Raises what keeps a relay from starting."""
        with lock.held(self.opened.settings.identity_key_file), insisting() as insist:
            tell_warnings(self.opened, "peerupctl relay authorize PEER_ID")
            await self.authorization.renew_copy()
            async with trio.open_nursery() as nursery:
                await nursery.start(obey_signals, self.stop, self.reload, say)
                nursery.start_soon(insist, self.stop)
                if self.reservations is not None:
                    await self.reservations.restore()
                await nursery.start(self.host.run, bindable(self.opened.settings.listen_addresses))
                await nursery.start(self._serve_hop)
                if self.opened.settings.health_enabled:
                    await nursery.start(health_door, self.opened.settings.health_listen, self.figures)
                notifier.ready()
                self._start_the_rest(nursery, notifier)
                self._tell_started(say)
                await self._keep_copies()
                await self.stop.wait()
                notifier.stopping()
                if self.reservations is not None:
                    await self.reservations.close()
                await self.host.close()
                nursery.cancel_scope.cancel()
        say("Relay stopped.")
        log.info("stopped", extra=said("relay.stopped"))

    def figures(self) -> Mapping[str, str | int]:
        """What `/healthz` says."""
        return {
            "status": "ok",
            "uptime_seconds": int(trio.current_time() - self._started),
            "connected_peers": len(self._peers()),
        }

    def checks(self) -> list[Check]:
        """What the watchdog asks."""
        return [Check("listeners", self._listeners_accept), Check("hop handler", self._serves_hop)]

    def problems(self) -> tuple[str, ...]:
        """What a person should mend."""
        own_files = (*self._config.problems(), *self._parsed.warnings, *self.authorization.problems())
        kept = () if self.reservations is None else self.reservations.problems()
        return (*own_files, *self.networks.problems(), *kept, *self.clock.problems())

    async def reload(self) -> None:
        """Read the allowlist anew, then the table of networks, and put them in force; raises what reading raises.

        The configuration is read too: that it is good again is known then, what it changes wants a restart.
        """
        try:
            await self.authorization.reload()
        finally:
            try:
                await self._reread()
                await self.networks.read()
            finally:
                self.bus.publish(ProblemsChanged())

    async def _reread(self) -> None:
        async with self.disk.changing:
            self._parsed = await self._config.read()

    async def _keep_copies(self) -> None:
        """The start has succeeded: what it began with is good."""
        async with self.disk.changing:
            if not self._config.trouble:
                await self._config.keep(self._parsed)
        await self.authorization.keep()

    def _allowlist_changed(self) -> None:
        self.host.regate()
        self.expiries.changed()
        self.bus.publish(ProblemsChanged())

    def _start_the_rest(self, nursery: trio.Nursery, notifier: Notifier) -> None:
        nursery.start_soon(self.expiries.run)
        nursery.start_soon(self.networks.read)
        if self.reservations is not None:
            nursery.start_soon(self.reservations.run)
        nursery.start_soon(self.clock.run, lambda: bool(self._peers()), self.disk)
        nursery.start_soon(tell_status, self.bus, self._in_a_line, notifier)
        nursery.start_soon(health.watch, self.checks(), notifier.watchdog, notifier.interval)
        if self.opened.allowlist is not None and self.opened.gate.enabled:
            path, known = self.opened.allowlist.path, self.opened.allowlist_stamp
            nursery.start_soon(watching.changes, path, known, self.authorization.reload_or_tell)

    def _reservation_file(self) -> ReservationFile | None:
        settings = self.opened.settings
        if not settings.keep_reservations:
            return None
        return ReservationFile(settings.identity_key_file, self.server, self.disk)

    async def _keep(self, inviter: PeerId, joiner: PeerId, name: str) -> None:
        await self.authorization.ensure(joiner, name, vouched_by=str(inviter))

    async def _withdraw(self, inviter: PeerId, joiner: PeerId) -> None:
        await self.authorization.remove(
            joiner, only_if=lambda entry: entry.attributes.get("vouched_by") == str(inviter)
        )

    async def _listeners_accept(self) -> bool:
        return all([await health.accepts(address) for address in self.host.swarm.listening])

    async def _serve_hop(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            self._serving = True
            await self.server.run(task_status=task_status)
        finally:
            self._serving = False

    async def _serves_hop(self) -> bool:
        return self._serving

    def _peers(self) -> set[PeerId]:
        return {connection.peer for connection in self.host.connections()}

    def _in_a_line(self) -> str:
        reservations, circuits = len(self.server.reservations), self.server.circuits
        words = f"{len(self._peers())} peers connected, {reservations} reservations, {circuits} circuits"
        stale = "" if self._parsed.settings == self.opened.settings else ", restart to use the changed configuration"
        return degraded(self.problems()) + words + stale

    def _tell_started(self, say: Say) -> None:
        held = said("relay.memory", bytes=self.memory.budget)
        log.info("connections may hold %d MiB: %s", self.memory.budget >> 20, self.memory.why, extra=held)
        log.info("ready", extra=said("relay.ready", peer=str(self.host.peer_id)))
        for line in self._start_lines():
            say(line)

    def _start_lines(self) -> Iterator[str]:
        yield f"=== Private libp2p Relay Server ({version.VERSION}) ==="
        yield f"Loaded configuration from {self.opened.file.path}"
        if not self.opened.gate.enabled:
            yield "WARNING: Connection gating is DISABLED - any peer can connect!"
        yield f"Peer ID: {self.host.peer_id}"
        yield "Multiaddrs:"
        yield from (f"  {address.with_peer(self.host.peer_id)}" for address in self.host.listen_addresses())
        yield "Private relay running."


def limits(settings: RelaySettings) -> RelayLimits:
    """The bounds of the configuration."""
    return RelayLimits(
        max_reservations=settings.max_reservations,
        max_reservations_per_ip=settings.max_reservations_per_ip,
        max_reservations_per_asn=settings.max_reservations_per_asn,
        reservation_ttl=settings.reservation_ttl,
        max_circuits=settings.rates.circuits_per_peer or settings.max_circuits,
        session_duration=settings.session_duration,
        session_data_limit=settings.session_data_limit,
        buffer_size=settings.buffer_size,
        bytes_per_second=settings.rates.bytes_per_second,
    )


def rates(settings: RateSettings) -> Rates:
    """How often others may come, by the configuration."""
    return Rates(
        connection_burst=settings.connection_burst,
        connection_interval=settings.connection_interval,
        streams_per_second=settings.streams_per_second,
    )
