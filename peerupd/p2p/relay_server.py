"""Be a relay: grant reservations, join circuits (libp2p circuit relay v2, the hop side).

    RESERVE   admitted? direct? a slot left?            → OK, until when, under which addresses, with a voucher
    CONNECT   direct? may it? is the other one here?    → ask the other one (STOP) → OK → bytes until an end or a limit

Theory of operation. One stream is one request, served by one task; a circuit is that task carrying bytes between two
streams until it ends, and it knows of no other circuit. A reservation ends with its time or with the last connection
of its peer; one that was kept over a restart waits `RETURN_LIMIT` for its peer to come back. The gate that let a
connection in is asked again here, because a peer on probation, which an inviter vouched for, may do one thing only:
call that inviter, briefly.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

import trio

from peerupd.model.addresses import IpAddress, Multiaddr, counted_as
from peerupd.model.counters import (
    CIRCUIT_BYTES,
    CIRCUITS,
    CIRCUITS_ACTIVE,
    RESERVATIONS,
    RESERVATIONS_ACTIVE,
    Counters,
)
from peerupd.model.errors import EnvironmentalError, LimitReached, ProtocolViolation, RemoteError
from peerupd.model.names import PeerId
from peerupd.p2p.connection import Connection, Limit
from peerupd.p2p.delimited import receive_message, send_message
from peerupd.p2p.forwarding import Ending, forward
from peerupd.p2p.host import Host
from peerupd.p2p.relay_limits import VOUCHED, VOUCHED_CIRCUITS, CircuitCount, Held, RelayLimits, Reservations
from peerupd.p2p.relay_state import Kept
from peerupd.p2p.streams import Stream
from peerupd.p2p.telling import Teller
from peerupd.p2p.throttle import Buckets
from peerupd.p2p.vouch_server import KeepJoiner, VouchServer, WithdrawJoiner
from peerupd.trust.gate import Admit, Gate
from peerupd.trust.identity import Identity
from peerupd.wire import circuit as wire
from peerupd.wire.circuit import (
    HOP_PROTOCOL,
    STOP_PROTOCOL,
    HopKind,
    HopMessage,
    Reservation,
    Status,
    StopKind,
    StopMessage,
    Voucher,
)

log = logging.getLogger(__name__)

REQUEST_LIMIT: Final = 60.0  # seconds for a peer to say what it wants
STOP_LIMIT: Final = 20.0  # seconds for the other end to accept a circuit
RETURN_LIMIT: Final = 600.0  # seconds for a peer to come back to its reservation after a restart of ours
MAX_ADDRESSES: Final = 16  # of ours, in the answer to RESERVE


class Denied(Exception):
    """What is answered instead of doing as asked; stays in this room."""

    def __init__(self, status: Status, why: str) -> None:
        super().__init__(why)
        self.status = status


class RelayServer:
    """The hop service of one host."""

    def __init__(
        self,
        host: Host,
        gate: Gate,
        limits: RelayLimits,
        identity: Identity,
        *,
        keep: KeepJoiner | None = None,
        withdraw: WithdrawJoiner | None = None,
        clock: Callable[[], float] = time.time,
        running: Callable[[], float] = trio.current_time,
        counters: Counters | None = None,
    ) -> None:
        """`keep` and `withdraw` write a vouched joiner into the allowlist and out of it; without them: refused.

        `clock` is what the gate and the wire go by; `running` only goes forward, and reservations end by it.
        """
        self._host = host
        self._gate = gate
        self._limits = limits
        self._identity = identity
        self._clock = clock
        self._running = running
        self._counters = Counters() if counters is None else counters
        self._tell = Teller(log, running)
        self._reservations = Reservations(limits)
        self._circuits = CircuitCount()
        self._buckets = Buckets(limits.bytes_per_second, lambda peer: self._circuits.of(peer) > 0, running)
        self._carried = 0  # bytes that are not in the counters yet
        self.on_reservations: Callable[[], None] = _nothing
        """Called when somebody got a reservation, renewed it or lost it."""
        self.vouching = VouchServer(host, gate, keep=keep, withdraw=withdraw, clock=clock)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; the handlers are there exactly as long."""
        self._host.swarm.on_disconnected.append(self._disconnected)
        self._host.set_stream_handler(HOP_PROTOCOL, self._serve)
        self.vouching.start()
        try:
            task_status.started()
            await trio.sleep(RETURN_LIMIT)
            self._give_up_the_absent()
            await trio.sleep_forever()
        finally:
            self.vouching.stop()
            self._host.remove_stream_handler(HOP_PROTOCOL)
            self._host.swarm.on_disconnected.remove(self._disconnected)

    @property
    def circuits(self) -> int:
        """How many circuits stand."""
        return self._circuits.total

    @property
    def reservations(self) -> tuple[PeerId, ...]:
        """Who holds a reservation."""
        return tuple(self._reservations.all(self._running()))

    def settle(self) -> None:
        """Bring the counters up to now."""
        carried, self._carried = self._carried, 0
        self._counters.count(CIRCUIT_BYTES, carried)
        self._counters.put(CIRCUITS_ACTIVE, self.circuits)
        self._counters.put(RESERVATIONS_ACTIVE, len(self.reservations))

    # -- over a restart --------------------------------------------------------------------------------------------

    def kept(self) -> tuple[Kept, ...]:
        """The reservations, for those who keep them."""
        now, wall = self._running(), self._clock()
        held = self._reservations.all(now)
        return tuple(Kept(peer, int(wall + one.until - now), one.place) for peer, one in held.items())

    def restore(self, kept: Iterable[Kept]) -> None:
        """These were held before the restart; whoever is not authorized any more has lost it."""
        now, wall = self._running(), self._clock()
        for one in kept:
            if self._gate.authorized(one.peer, wall):
                self._reservations.restore(one.peer, one.place, one.until - wall, now)

    def count_networks(self, number_of: Callable[[IpAddress], int | None]) -> None:
        """Reservations are bounded by network from now on; this says whose network an address is in."""
        self._reservations.count_networks(lambda place: number_of(ipaddress.ip_address(place.partition("/")[0])))

    def _give_up_the_absent(self) -> None:
        for peer in self.reservations:
            if not self._host.connections(peer):
                self._end(peer)

    def _disconnected(self, connection: Connection) -> None:
        if not self._host.connections(connection.peer):
            self._end(connection.peer)

    def _end(self, peer: PeerId) -> None:
        if self._reservations.end(peer):
            self.on_reservations()

    # -- requests --------------------------------------------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        try:
            await self._do_as_asked(stream, await _request(stream))
        except Denied as no:
            denied = {"peer": str(stream.peer), "status": no.status.name}
            self._tell.info("relay.denied", "relay: %s for %s: %s", no.status.words, stream.peer, no, **denied)
            await _reply(stream, HopMessage(HopKind.STATUS, status=no.status))

    async def _do_as_asked(self, stream: Stream, request: HopMessage) -> None:
        if stream.connection.relayed:
            raise Denied(Status.PERMISSION_DENIED, "it asked over a circuit")
        match request:
            case HopMessage(kind=HopKind.RESERVE):
                await self._reserve(stream)
            case HopMessage(kind=HopKind.CONNECT, peer=PeerId() as target):
                await self._connect(stream, target)
            case _:
                raise Denied(Status.UNEXPECTED_MESSAGE, "it sent a status")

    def _admits(self, connection: Connection) -> bool:
        """Whether the connection's peer is a full guest, still."""
        return isinstance(connection.admission, Admit) and self._gate.authorized(connection.peer, self._clock())

    # -- reservations ----------------------------------------------------------------------------------------------

    async def _reserve(self, stream: Stream) -> None:
        try:
            held = self._granted(stream.connection)
        except Denied as no:
            self._counters.count(RESERVATIONS, result=no.status.name.lower())
            raise
        self._keep_only(stream.peer, stream.connection)
        self.on_reservations()
        until = int(self._clock() + held.until - self._running())
        limit = self._limits.circuit(gated=self._gate.enabled)
        reservation = Reservation(until, self._addresses(), self._voucher(stream.peer, until))
        await _reply(stream, HopMessage(HopKind.STATUS, None, reservation, _told(limit), Status.OK))

    def _granted(self, connection: Connection) -> Held:
        """The peer's reservation, new or renewed; raises `Denied`."""
        peer, now = connection.peer, self._running()
        if not self._admits(connection):
            raise Denied(Status.PERMISSION_DENIED, "it is not in the allowlist")
        renewed = self._reservations.holds(peer, now)
        for over in self._reservations.expire(now):
            self._keep_only(over, None)
        ip = connection.remote.ip
        try:
            held = self._reservations.grant(peer, None if ip is None else counted_as(ip), now)
        except LimitReached as why:
            raise Denied(Status.RESERVATION_REFUSED, why.message) from why
        if not renewed:
            words = "relay: reservation for %s (%s)"
            self._tell.info("relay.reserved", words, peer, connection.remote, peer=str(peer))
        self._counters.count(RESERVATIONS, result="renewed" if renewed else "granted")
        return held

    def _keep_only(self, peer: PeerId, connection: Connection | None) -> None:
        """Only the connection that holds a reservation is worth keeping when there are too many."""
        for other in self._host.connections(peer):
            other.keep = other is connection

    def _addresses(self) -> tuple[Multiaddr, ...]:
        own = self._host.listen_addresses()[:MAX_ADDRESSES]
        return tuple(address.without_peer().with_peer(self._host.peer_id) for address in own)

    def _voucher(self, peer: PeerId, until: int) -> bytes:
        voucher = Voucher(relay=self._host.peer_id, peer=peer, expiration=until)
        return voucher.seal(self._identity.public_key, self._identity.sign)

    # -- circuits --------------------------------------------------------------------------------------------------

    async def _connect(self, stream: Stream, target: PeerId) -> None:
        try:
            await self._call(stream, target)
        except Denied as no:
            self._counters.count(CIRCUITS, result=no.status.name.lower())
            raise

    async def _call(self, stream: Stream, target: PeerId) -> None:
        limit, most = self._allowance(stream.connection, target)
        onward = self._way_to(target)
        at_target = self._limits.circuits(gated=self._gate.enabled)
        try:
            with self._circuits.one_more((stream.peer, most), (target, at_target)):
                await self._join(stream, onward, limit)
        except LimitReached as why:
            raise Denied(Status.RESOURCE_LIMIT_EXCEEDED, why.message) from why

    def _allowance(self, connection: Connection, target: PeerId) -> tuple[Limit, int]:
        """The limit of the circuit that is asked for, and how many of them there may be; raises `Denied`."""
        if self._admits(connection):
            gated = self._gate.enabled
            return self._limits.circuit(gated=gated), self._limits.circuits(gated=gated)
        inviter = self.vouching.inviter_of(connection)
        if inviter is None:
            raise Denied(Status.PERMISSION_DENIED, "it is not in the allowlist")
        if inviter != target:
            raise Denied(Status.PERMISSION_DENIED, "it may call its inviter only")
        return VOUCHED, VOUCHED_CIRCUITS

    def _way_to(self, target: PeerId) -> Connection:
        """The connection on which the other end is asked; raises `Denied`."""
        if self._reservations.holds(target, self._running()) and self._gate.authorized(target, self._clock()):
            for connection in self._host.connections(target):
                if not connection.relayed and isinstance(connection.admission, Admit):
                    return connection
        raise Denied(Status.NO_RESERVATION, f"{target} has no reservation")

    async def _join(self, stream: Stream, onward: Connection, limit: Limit) -> None:
        """Ask the other end, then carry bytes."""
        other = await self._stop(onward, stream.peer, limit)
        ends = {"source": str(stream.peer), "target": str(other.peer)}
        who = f"{stream.peer.short} -> {other.peer.short}"
        try:
            await _reply(stream, HopMessage(HopKind.STATUS, limit=_told(limit), status=Status.OK))
            self._counters.count(CIRCUITS, result="opened")
            self._tell.info("circuit.opened", "relay: circuit %s", who, **ends)
            how = await self._carry(stream, other, limit)
        except BaseException:
            other.reset()
            raise
        self._tell.info("circuit.closed", "relay: circuit %s is over: %s", who, how.value, **ends, why=how.name)
        if how is Ending.FINISHED:
            await other.aclose()

    async def _carry(self, stream: Stream, other: Stream, limit: Limit) -> Ending:
        return await forward(
            stream,
            other,
            buffer=self._limits.buffer_size,
            data=limit.data,
            seconds=limit.seconds,
            throttle=self._buckets.of(stream.peer, other.peer),
            on_bytes=self._count_carried,
        )

    def _count_carried(self, size: int) -> None:
        self._carried += size

    async def _stop(self, onward: Connection, source: PeerId, limit: Limit) -> Stream:
        """A stream on which the other end has accepted the circuit; raises `Denied`."""
        request = StopMessage(StopKind.CONNECT, peer=source, limit=_told(limit))
        try:
            with trio.move_on_after(STOP_LIMIT):
                other = await onward.open_stream([STOP_PROTOCOL])
                try:
                    await send_message(other, request.encode())
                    answer = StopMessage.decode(await receive_message(other, wire.MAX_MESSAGE))
                except BaseException:
                    other.reset()
                    raise
                if answer.status is Status.OK:
                    return other
                other.reset()
                raise Denied(Status.CONNECTION_FAILED, f"{onward.peer} does not accept it")
        except (RemoteError, EnvironmentalError, LimitReached) as why:
            raise Denied(Status.CONNECTION_FAILED, f"{onward.peer} cannot be asked: {why}") from why
        raise Denied(Status.CONNECTION_FAILED, f"{onward.peer} gave no answer in {STOP_LIMIT:g} s")


async def _request(stream: Stream) -> HopMessage:
    with trio.move_on_after(REQUEST_LIMIT):
        data = await receive_message(stream, wire.MAX_MESSAGE)
        try:
            return HopMessage.decode(data)
        except ProtocolViolation as why:
            raise Denied(Status.MALFORMED_MESSAGE, why.message) from why
    raise ProtocolViolation(f"no request in {REQUEST_LIMIT:g} s")


async def _reply(stream: Stream, message: HopMessage) -> None:
    await send_message(stream, message.encode())


def _told(limit: Limit) -> wire.Limit | None:
    """The limit as it is announced; no limit is not announced."""
    if limit.seconds is None and limit.data is None:
        return None
    return wire.Limit(int(limit.seconds or 0), limit.data or 0)


def _nothing() -> None:
    pass
