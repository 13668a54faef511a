"""Real hosts on loopback in a thread of their own, so that a test may block on plain sockets against them.

A gated relay and an open one; a node that holds a slot on both and has the real features behind its real gate; a
second node on the gated relay. Where a host does not serve a protocol by itself, a witness does: what is refused, is
refused by the gate and not for want of a handler, and what gets through is seen.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import trio

from peerupd.config.schema import ServiceSettings
from peerupd.features.inviting import Inviting
from peerupd.features.probe import PROTOCOLS as PINGPONG
from peerupd.features.probe import Probe
from peerupd.features.registry import Registry
from peerupd.model.addresses import Endpoint, RelayAddress
from peerupd.model.names import PeerId
from peerupd.model.snapshots import InviteAsk
from peerupd.p2p.host import Host
from peerupd.p2p.streams import Stream
from peerupd.trust.gate import Refuse
from peerupd.trust.identity import Identity
from peerupd.wire import circuit, identify, invite, pairing, vouch
from tests.support.relaynet import NodeMachine, RelayMachine, until

PING = "/ipfs/ping/1.0.0"
KAD = "/peerup/kad/1.0.0"
SERVICE = "/peerup/files/1.0.0"
PROTOCOLS = (
    identify.PROTOCOL,
    identify.PUSH_PROTOCOL,
    PING,
    *PINGPONG,
    SERVICE,
    circuit.HOP_PROTOCOL,
    circuit.STOP_PROTOCOL,
    pairing.PROTOCOL,
    vouch.PROTOCOL,
    KAD,
)


class Net:
    """The hosts; everything but `call` is for the thread in which they live."""

    relay: RelayMachine
    open_relay: RelayMachine
    node: NodeMachine
    other: NodeMachine
    inviting: Inviting

    def __init__(self) -> None:
        self.touched: Counter[str] = Counter()
        self._ready = threading.Event()
        self._stop = trio.Event()
        self._token: trio.lowlevel.TrioToken
        self._trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    # -- for the test's thread -------------------------------------------------------------------------------------

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Net]:
        """All of it, ready; gone at the end."""
        net = cls()
        net._thread.start()
        assert net._ready.wait(20)
        try:
            if net._trouble is None:
                yield net
        finally:
            if net._trouble is None:
                net.call(net._stop.set)
            net._thread.join(20)
            if net._trouble is not None:
                raise net._trouble

    def call(self, what: Callable[..., Any], *words: Any) -> Any:
        """Do something where the hosts live, at most ten seconds; its result."""

        async def within_limit() -> Any:
            with trio.fail_after(10):
                result = what(*words)
                return await result if isinstance(result, Awaitable) else result

        return trio.from_thread.run(within_limit, trio_token=self._token)

    @contextmanager
    def code(self) -> Iterator[invite.Invite]:
        """An invite code of the node is open, and the gated relay knows; both are closed at the end."""
        opened = self.call(self.inviting.open, InviteAsk("node"))
        try:
            assert not opened.notes
            yield invite.decode(opened.code)
        finally:
            self.call(self.inviting.cancel, opened.id)
            self.call(until, self._relay_is_shut)

    def reservations(self) -> tuple[PeerId, ...]:
        """Who holds one at the gated relay."""
        held: tuple[PeerId, ...] = self.call(lambda: self.relay.server.reservations)
        return held

    def calm(self) -> None:
        """Wait until nobody is on probation any more."""
        self.call(until, lambda: not any(map(self._guests_on_probation, (self.relay, self.open_relay, self.node))))

    # -- for the hosts' thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as why:
            self._trouble = why
            self._ready.set()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, self._serve_locally, 0, host="127.0.0.1"))
            await self._start_hosts(nursery)
            await self._start_features(nursery, listeners[0].socket.getsockname()[1])
            self._witness_the_rest()
            self._ready.set()
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    async def _start_hosts(self, nursery: trio.Nursery) -> None:
        self.relay = await RelayMachine().start(nursery)
        self.open_relay = await RelayMachine(gated=False).start(nursery)
        self.node = NodeMachine(self.relay, direct=True)
        self.other = NodeMachine(self.relay)
        self.relay.allow(self.node, self.other)
        for node in (self.node, self.other):
            await node.start(nursery)
        self.node.relays.set([self.relay.address, self.open_relay.address])
        await until(lambda: [status.state for status in self.node.relays.statuses()] == ["reserved"] * 2)

    async def _start_features(self, nursery: trio.Nursery, service: int) -> None:
        Probe(self.node.host, self.node.host.new_stream).set(enabled=True)
        registry = Registry(self.node.host)
        registry.set({"files": ServiceSettings("files", True, Endpoint("127.0.0.1", service))})
        self.inviting = Inviting(
            own=self.node.peer,
            handlers=self.node.host,
            gate=self.node.gate,
            vouching=_Vouching(self.node, {self.relay.peer: self.relay.address}),
            relays=lambda: [self.relay.address],
            allowlist=_Books(),
            names=_Books(),
        )
        for room in (registry.run, self.inviting.run):
            await nursery.start(room)

    async def _serve_locally(self, stream: trio.SocketStream) -> None:
        self.touched[SERVICE] += 1
        with suppress(trio.BrokenResourceError):
            async with stream:
                async for data in stream:
                    await stream.send_all(data)

    def _witness_the_rest(self) -> None:
        """The invite protocol is the node's only while a code is open: no witness may stand in for it there."""
        for host, gone in (
            (self.node.host, {pairing.PROTOCOL}),
            (self.relay.host, set()),
            (self.open_relay.host, set()),
        ):
            for protocol in PROTOCOLS:
                if protocol not in host._serving.protocols and protocol not in gone:
                    host.set_stream_handler(protocol, self._witness)

    async def _witness(self, stream: Stream) -> None:
        assert stream.protocol is not None
        self.touched[stream.protocol] += 1
        await stream.send_all(b"leaked\n")

    @staticmethod
    def _guests_on_probation(machine: NodeMachine | RelayMachine) -> bool:
        return any(connection.on_probation for connection in machine.host.connections())

    def _relay_is_shut(self) -> bool:
        nobody = Identity.generate().peer_id
        return isinstance(self.relay.gate.decide(nobody, circuit=False, now=time.time()), Refuse)


class _Vouching:
    """`p2p.vouch` in the words of `features.inviting`, as the node's assembler does it."""

    def __init__(self, node: NodeMachine, relays: Mapping[PeerId, RelayAddress]) -> None:
        self._vouching = node.vouching
        self._relays = relays

    async def open(self, relay: PeerId, key: bytes, seconds: float, /) -> None:
        await self._vouching.open([self._relays[relay]], key, seconds)

    async def close(self, relay: PeerId, key: bytes, /) -> None:
        await self._vouching.close([self._relays[relay]], key)

    async def keep(self, relay: PeerId, peer: PeerId, name: str, /) -> None:
        await self._vouching.keep([self._relays[relay]], peer, name)


class _Books:
    """Nobody in these tests gets so far that something is written down."""

    async def admit(self, peer: PeerId, comment: str, /) -> None:
        raise AssertionError(f"{peer} was admitted")

    def names(self) -> Mapping[str, PeerId]:
        raise AssertionError("a name was asked for")

    async def put(self, name: str, peer: PeerId, /) -> None:
        raise AssertionError(f"{name} was written down")


def port_of(host: Host) -> int:
    """Where a host listens on loopback."""
    return next(address.port for address in host.swarm.listening if address.port)


async def open_from(host: Host, peer: PeerId, protocols: Sequence[str]) -> bool:
    """Whether `peer` speaks one of `protocols` to `host`, on the connection that stands."""
    stream = await host.connections(peer)[0].open_stream(protocols)
    stream.reset()
    return True
