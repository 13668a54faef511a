"""Our end of a circuit: ask a relay for a reservation, dial through it, and be dialled (libp2p circuit relay v2).

Theory of operation. To the relay a circuit is one stream on each of two connections; to us it is a byte stream that is
secured and multiplexed like a fresh TCP connection, so that the relay sees ciphertext and the gate sees the far end.
Asking and dialling go over the connection to the relay that stands, or over a new one. Being dialled is for relays
that we asked for a reservation and for nobody else, and never over a circuit: no circuits in circuits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import trio

from peerupd.model.addresses import RelayAddress
from peerupd.model.errors import (
    ConnectionLost,
    EnvironmentalError,
    ProtocolViolation,
    RefusedError,
    RelayRefused,
    RemoteError,
    TimedOut,
)
from peerupd.model.logs import said
from peerupd.model.names import PeerId
from peerupd.model.snapshots import PathKind
from peerupd.p2p.connection import Connection, Limit
from peerupd.p2p.delimited import receive_message, send_message
from peerupd.p2p.dialling import counted
from peerupd.p2p.host import Host
from peerupd.p2p.relay import Granted
from peerupd.p2p.streams import Stream
from peerupd.wire import circuit as wire
from peerupd.wire.circuit import (
    HOP_PROTOCOL,
    STOP_PROTOCOL,
    HopKind,
    HopMessage,
    Status,
    StopKind,
    StopMessage,
    Voucher,
)

log = logging.getLogger(__name__)

RESERVE_LIMIT: Final = 10.0  # seconds for the answer to RESERVE
STALE: Final = 3.0  # seconds without an answer on a standing connection: a new one is dialled beside it
CONNECT_LIMIT: Final = 30.0  # seconds for the answer to CONNECT: the relay has to ask the other side
STOP_LIMIT: Final = 10.0  # seconds for the relay to say what it wants of us
MAX_ASKED: Final = 64  # relays whose circuits we take; the one asked longest ago is forgotten

_IN_WORDS: Final = {
    Status.RESERVATION_REFUSED: "it has no reservation left for us",
    Status.RESOURCE_LIMIT_EXCEEDED: "its limit of circuits for one peer is reached",
    Status.PERMISSION_DENIED: "it does not let us: see that we are in its allowlist",
    Status.CONNECTION_FAILED: "it could not reach the peer, although the peer holds a reservation",
    Status.NO_RESERVATION: "the peer is not connected to this relay right now",
}


class Circuits:
    """What one host does with the relays of others."""

    def __init__(self, host: Host, *, clock: Callable[[], float] = time.time) -> None:
        """Installs the handler of the stop protocol; `clock`: seconds since the epoch."""
        self._host = host
        self._clock = clock
        self._asked: dict[PeerId, None] = {}  # in the order of asking
        host.set_stream_handler(STOP_PROTOCOL, self._serve_stop)

    async def reserve(self, relay: Sequence[RelayAddress]) -> Granted:
        """A reservation, new or renewed, at the relay that has all these addresses.

        Raises `RelayRefused`, `Unreachable`, `TimedOut`, `ConnectionLost`, `ProtocolUnsupported`, `ProtocolViolation`.
        """
        self._remember(relay[0].peer)
        standing = self._standing(relay)
        if standing is not None:
            with trio.move_on_after(STALE):
                return await self._reserve_over(standing)
        fresh = await self._dial_relay(relay)
        try:
            granted = await self._reserve_over(fresh)
        except RefusedError:
            raise
        except BaseException:
            fresh.abort("it gave no reservation")
            raise
        if standing is not None:
            standing.abort("it does not answer, a fresh connection does")
        return granted

    async def dial(self, relay: Sequence[RelayAddress], peer: PeerId) -> Connection:
        """A connection to `peer` through the relay that has all these addresses.

        Raises as `reserve` does, and `WrongPeer` or `GateRefused` for the far end.
        """
        over = self._standing(relay) or await self._dial_relay(relay)
        with counted(self._host.counters, PathKind.RELAYED):
            return await self._dial_over(over, relay, peer)

    async def _dial_over(self, over: Connection, relay: Sequence[RelayAddress], peer: PeerId) -> Connection:
        stream = await over.open_stream([HOP_PROTOCOL])
        answer = await _ask(stream, HopMessage(HopKind.CONNECT, peer=peer), CONNECT_LIMIT)
        via = relay[0].address if over.inbound else over.remote.without_peer()
        remote, limit = RelayAddress(via, relay[0].peer).circuit_to(peer), _limit(answer.limit)
        try:
            return await self._host.swarm.upgrade_outbound(stream, peer, remote, circuit=True, limit=limit)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as why:
            raise ConnectionLost(f"the circuit broke during its handshake: {why}") from None

    def _standing(self, relay: Sequence[RelayAddress]) -> Connection | None:
        """Our best connection to the relay itself, if there is one."""
        return next((c for c in self._host.connections(relay[0].peer) if not c.relayed), None)

    async def _dial_relay(self, relay: Sequence[RelayAddress]) -> Connection:
        with counted(self._host.counters, PathKind.DIRECT):
            return await self._host.swarm.dial([address.address for address in relay], relay[0].peer)

    def forget(self, relay: PeerId) -> None:
        """The relay is not ours any more: it may bring no more circuits."""
        self._asked.pop(relay, None)

    def _remember(self, relay: PeerId) -> None:
        self.forget(relay)
        self._asked[relay] = None
        for oldest in list(self._asked)[:-MAX_ASKED]:
            self.forget(oldest)

    async def _reserve_over(self, connection: Connection) -> Granted:
        stream = await connection.open_stream([HOP_PROTOCOL])
        answer = await _ask(stream, HopMessage(HopKind.RESERVE), RESERVE_LIMIT)
        stream.reset()
        if answer.reservation is None:
            raise ProtocolViolation(f"relay {connection.peer.short} granted a reservation without saying which")
        self._check_voucher(connection.peer, answer.reservation.voucher)
        if answer.reservation.expire <= self._clock():
            log.warning("relay %s: its clock and ours do not agree, ignoring", connection.peer.short)
        for other in self._host.connections(connection.peer):
            other.keep = other is connection
        return Granted(until=answer.reservation.expire, lost=connection.closed)

    def _check_voucher(self, relay: PeerId, voucher: bytes) -> None:
        """A voucher is for showing to others, which nobody asks for: a bad one is only worth a line."""
        if not voucher:
            return
        try:
            told = Voucher.open(voucher)
        except ProtocolViolation as why:
            log.warning("relay %s gave a voucher that cannot be read: %s, ignoring", relay.short, why)
            return
        if (told.relay, told.peer) != (relay, self._host.peer_id):
            log.warning("relay %s gave a voucher for somebody else, ignoring", relay.short)

    # -- being dialled ---------------------------------------------------------------------------------------------

    async def _serve_stop(self, stream: Stream) -> None:
        """A relay says that a peer wants us."""
        try:
            connection = await self._accept(stream)
        except (RefusedError, RemoteError, EnvironmentalError) as why:
            refused = said("circuit.refused", relay=str(stream.peer))
            log.info("a circuit over relay %s came to nothing: %s, ignoring", stream.peer.short, why, extra=refused)
        else:
            await connection.closed.wait()

    async def _accept(self, stream: Stream) -> Connection:
        if stream.connection.relayed or stream.peer not in self._asked:
            await _answer(stream, Status.PERMISSION_DENIED)
            raise RelayRefused(f"{stream.peer} is not a relay of ours")
        request = StopMessage.decode(await _within(STOP_LIMIT, stream))
        if request.kind is not StopKind.CONNECT or request.peer is None:
            await _answer(stream, Status.UNEXPECTED_MESSAGE)
            raise ProtocolViolation("a circuit that does not begin with CONNECT")
        await _answer(stream, Status.OK)
        remote = RelayAddress(stream.connection.remote.without_peer(), stream.peer).circuit_to(request.peer)
        return await self._host.swarm.upgrade_inbound(
            stream, remote, circuit=True, limit=_limit(request.limit), source=str(stream.peer)
        )


async def _ask(stream: Stream, request: HopMessage, seconds: float) -> HopMessage:
    """The relay's OK; its no, its silence and anything else reset the stream and raise."""
    relay = stream.peer.short
    try:
        await send_message(stream, request.encode())
        answer = HopMessage.decode(await _within(seconds, stream))
        if answer.kind is not HopKind.STATUS or answer.status is None:
            raise ProtocolViolation(f"relay {relay} answered with something else than a status")
        if answer.status is not Status.OK:
            raise RelayRefused(f"relay {relay} said no: {_IN_WORDS.get(answer.status, answer.status.words)}")
    except BaseException:
        stream.reset()
        raise
    return answer


async def _within(seconds: float, stream: Stream) -> bytes:
    """The next message, in time; raises `TimedOut`."""
    with trio.move_on_after(seconds):
        return await receive_message(stream, wire.MAX_MESSAGE)
    raise TimedOut(f"{stream.peer.short} gave no answer in {seconds:g} s")


async def _answer(stream: Stream, status: Status) -> None:
    await send_message(stream, StopMessage(StopKind.STATUS, status=status).encode())


def _limit(told: wire.Limit | None) -> Limit | None:
    """The limit that a relay announced; zeros are no limit."""
    if told is None or not (told.duration or told.data):
        return None
    return Limit(told.duration or None, told.data or None)
