"""Be a relay: grant reservations, join circuits (libp2p circuit relay v2, the hop side).

    RESERVE   admitted? direct? a slot left?            → OK, until when, under which addresses, with a voucher
    CONNECT   direct? may it? is the other one here?    → ask the other one (STOP) → OK → bytes until an end or a limit

Theory of operation. One stream is one request, served by one task; a circuit is that task carrying bytes between two
streams until it ends, and it knows of no other circuit. A reservation ends with its time or with the last connection
of its peer. The gate that let a connection in is asked again here, because a peer on probation, which an inviter
vouched for, may do one thing only: call that inviter, briefly.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import trio

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import EnvironmentalError, LimitReached, ProtocolViolation, RemoteError
from peerupd.model.logs import said
from peerupd.model.names import PeerId
from peerupd.p2p.connection import Connection, Limit
from peerupd.p2p.delimited import receive_message, send_message
from peerupd.p2p.forwarding import Ending, forward
from peerupd.p2p.host import Host
from peerupd.p2p.relay_limits import VOUCHED, VOUCHED_CIRCUITS, CircuitCount, RelayLimits, Reservations
from peerupd.p2p.streams import Stream
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
    ) -> None:
        """`keep` and `withdraw` write a vouched joiner into the allowlist and out of it; without them: refused."""
        self._host = host
        self._gate = gate
        self._limits = limits
        self._identity = identity
        self._clock = clock
        self._reservations = Reservations(limits)
        self._circuits = CircuitCount()
        self.vouching = VouchServer(host, gate, keep=keep, withdraw=withdraw, clock=clock)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; the handlers are there exactly as long."""
        self._host.swarm.on_disconnected.append(self._disconnected)
        self._host.set_stream_handler(HOP_PROTOCOL, self._serve)
        self.vouching.start()
        try:
            task_status.started()
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
        return self._reservations.holders(self._clock())

    def _disconnected(self, connection: Connection) -> None:
        if not self._host.connections(connection.peer):
            self._reservations.end(connection.peer)

    # -- requests --------------------------------------------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        try:
            await self._do_as_asked(stream, await _request(stream))
        except Denied as no:
            denied = said("relay.denied", peer=str(stream.peer), status=no.status.name)
            log.info("relay: %s for %s: %s", no.status.words, stream.peer, no, extra=denied)
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
        connection, now = stream.connection, self._clock()
        if not self._admits(connection):
            raise Denied(Status.PERMISSION_DENIED, "it is not in the allowlist")
        renewed = self._reservations.holds(connection.peer, now)
        for peer in self._reservations.expire(now):
            self._keep_only(peer, None)
        try:
            held = self._reservations.grant(connection.peer, connection.remote.ip, now)
        except LimitReached as why:
            raise Denied(Status.RESERVATION_REFUSED, why.message) from why
        if not renewed:
            granted = said("relay.reserved", peer=str(connection.peer))
            log.info("relay: reservation for %s (%s)", connection.peer, connection.remote, extra=granted)
        self._keep_only(connection.peer, connection)
        limit = self._limits.circuit(gated=self._gate.enabled)
        reservation = Reservation(int(held.until), self._addresses(), self._voucher(connection.peer, held.until))
        await _reply(stream, HopMessage(HopKind.STATUS, None, reservation, _told(limit), Status.OK))

    def _keep_only(self, peer: PeerId, connection: Connection | None) -> None:
        """Only the connection that holds a reservation is worth keeping when there are too many."""
        for other in self._host.connections(peer):
            other.keep = other is connection

    def _addresses(self) -> tuple[Multiaddr, ...]:
        own = self._host.listen_addresses()[:MAX_ADDRESSES]
        return tuple(address.without_peer().with_peer(self._host.peer_id) for address in own)

    def _voucher(self, peer: PeerId, until: float) -> bytes:
        voucher = Voucher(relay=self._host.peer_id, peer=peer, expiration=int(until))
        return voucher.seal(self._identity.public_key, self._identity.sign)

    # -- circuits --------------------------------------------------------------------------------------------------

    async def _connect(self, stream: Stream, target: PeerId) -> None:
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
        if self._reservations.holds(target, self._clock()) and self._gate.authorized(target, self._clock()):
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
            log.info("relay: circuit %s", who, extra=said("circuit.opened", **ends))
            how = await forward(stream, other, buffer=self._limits.buffer_size, data=limit.data, seconds=limit.seconds)
        except BaseException:
            other.reset()
            raise
        log.info("relay: circuit %s is over: %s", who, how.value, extra=said("circuit.closed", **ends, why=how.name))
        if how is Ending.FINISHED:
            await other.aclose()

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
