"""A small network of real hosts on loopback, in one process: a relay, and nodes that know it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import trio

from peerupd.model.addresses import Multiaddr, RelayAddress
from peerupd.model.counters import Counters
from peerupd.model.names import PeerId
from peerupd.model.snapshots import PathChanged, ReservationChanged
from peerupd.p2p.circuit import Circuits
from peerupd.p2p.connection import Connection
from peerupd.p2p.host import Host
from peerupd.p2p.paths import Paths
from peerupd.p2p.relay import Relays
from peerupd.p2p.relay_limits import RelayLimits
from peerupd.p2p.relay_server import RelayServer
from peerupd.p2p.streams import Stream
from peerupd.p2p.vouch import Vouching
from peerupd.trust.authorized_keys import Allowlist
from peerupd.trust.gate import Gate, Role
from peerupd.trust.identity import Identity

LOOPBACK = Multiaddr.parse("/ip4/127.0.0.1/tcp/0")
ECHO = "/test/echo/1.0.0"
MANY = RelayLimits(max_reservations_per_ip=100)


async def echo(stream: Stream) -> None:
    """Send back what comes, to its end."""
    while data := await stream.receive_some(65536):
        await stream.send_all(data)
    await stream.send_eof()


class Machine:
    """A host with an identity and a gate; it can be stopped."""

    def __init__(self, identity: Identity | None, role: Role, *, gated: bool = True) -> None:
        self.identity = identity or Identity.generate()
        self.peer = self.identity.peer_id
        self.gate = Gate(enabled=gated, allowlist=Allowlist.parse(""), role=role, own=self.peer)
        self.host = Host(identity=self.identity, gate=self.gate, agent="test/0")
        self.scope = trio.CancelScope()
        self.stopped = trio.Event()

    def allow(self, *machines: Machine, **attributes: str) -> None:
        """These are in the allowlist from now on."""
        for machine in machines:
            self.gate.replace(self.gate.allowlist.add(machine.peer, **attributes))

    async def run(
        self, listen: Sequence[Multiaddr] = (), *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Until stopped."""
        with self.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.host.run, listen)
                await self.parts(nursery)
                task_status.started()
        self.stopped.set()

    async def parts(self, nursery: trio.Nursery) -> None:
        """Start what is more than a host."""

    async def stop(self) -> None:
        """End everything, as a killed process would."""
        self.scope.cancel()
        await self.stopped.wait()


class RelayMachine(Machine):
    """A relay."""

    def __init__(
        self,
        limits: RelayLimits = MANY,
        *,
        gated: bool = True,
        port: int = 0,
        identity: Identity | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(identity, "relay", gated=gated)
        self.listen = Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{port}")
        self.kept: list[tuple[PeerId, PeerId, str]] = []
        self.counters = Counters()
        self.server = RelayServer(
            self.host,
            self.gate,
            limits,
            self.identity,
            keep=self._keep,
            withdraw=self._withdraw,
            clock=clock,
            counters=self.counters,
        )

    async def start(self, nursery: trio.Nursery) -> RelayMachine:
        await nursery.start(self.run, [self.listen])
        return self

    async def parts(self, nursery: trio.Nursery) -> None:
        await nursery.start(self.server.run)

    @property
    def address(self) -> RelayAddress:
        """Where it is."""
        return RelayAddress(self.host.listen_addresses()[0].without_peer(), self.peer)

    async def _keep(self, inviter: PeerId, joiner: PeerId, name: str) -> None:
        self.kept.append((inviter, joiner, name))
        self.gate.replace(self.gate.allowlist.add(joiner, name, vouched_by=str(inviter)))

    async def _withdraw(self, _inviter: PeerId, joiner: PeerId) -> None:
        self.gate.replace(self.gate.allowlist.remove(joiner))


class NodeMachine(Machine):
    """A node that uses a relay; `direct`: it listens on loopback too."""

    def __init__(self, relay: RelayMachine | None = None, *, direct: bool = False, gated: bool = True) -> None:
        super().__init__(None, "node", gated=gated)
        self.relay = relay
        self.direct = direct
        self.changes: list[PathChanged] = []
        self.circuits = Circuits(self.host)
        self.relays = Relays(self.circuits.reserve, self.host.publish, announce=self.host.set_circuit_addresses)
        self.paths = Paths(self.host, self.circuits, self.relays.best_first)
        self.vouching = Vouching(self.host)
        self.host.set_stream_handler(ECHO, echo)
        self._news = trio.Event()
        self.host.subscribe(self._note)

    async def start(self, nursery: trio.Nursery, *, reserve: bool = True) -> NodeMachine:
        await nursery.start(self.run, [LOOPBACK] if self.direct else [])
        if self.relay is not None:
            self.relays.set([self.relay.address])
            if reserve:
                await self.until_reserved()
        return self

    async def parts(self, nursery: trio.Nursery) -> None:
        await nursery.start(self.paths.run)
        await nursery.start(self.relays.run)

    async def circuit_to(self, other: Machine) -> Connection:
        """A fresh circuit through the relay."""
        assert self.relay is not None
        return await self.circuits.dial([self.relay.address], other.peer)

    async def until_reserved(self) -> None:
        """Until the relay has granted a slot."""
        while [status.state for status in self.relays.statuses()] != ["reserved"]:
            await self._news.wait()

    async def until_path(self, other: Machine, kind: str) -> None:
        """Until the path to `other` is this: `UNKNOWN`, `RELAYED`, `DIRECT`."""
        while str(self.paths.state(other.peer)) != kind:
            await self._news.wait()

    def _note(self, event: object) -> None:
        if isinstance(event, PathChanged):
            self.changes.append(event)
        if isinstance(event, PathChanged | ReservationChanged):
            self._news.set()
            self._news = trio.Event()


async def read_all(stream: Stream) -> bytes:
    """Everything, to the clean end."""
    return b"".join([data async for data in stream])


async def until(true: Callable[[], object]) -> None:
    """Until something that has no event is so, five seconds at most."""
    with trio.fail_after(30):
        while not true():  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(0.01)
