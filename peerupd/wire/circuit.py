"""Messages of circuit relay v2: a client asks its relay (hop), the relay asks the callee (stop).

    client ──RESERVE──▶ relay            a slot, with a voucher that the relay signs
    caller ──CONNECT──▶ relay ──CONNECT──▶ callee
    caller ◀──STATUS─── relay ◀──STATUS─── callee      after two OKs the streams carry raw bytes

Source: libp2p specs, relay/circuit-v2. Messages are sent delimited (`wire.framing`), at most 4096 bytes each. The
kind is always written, also where its number is zero: the specification's `required`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeVar

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import ProtocolViolation
from peerupd.model.names import PeerId
from peerupd.wire import envelope
from peerupd.wire.envelope import Sign, known_addresses, peer_of
from peerupd.wire.keys import PublicKey
from peerupd.wire.protobuf import Buffer, Message, field

HOP_PROTOCOL: Final = "/libp2p/circuit/relay/0.2.0/hop"
STOP_PROTOCOL: Final = "/libp2p/circuit/relay/0.2.0/stop"
MAX_MESSAGE: Final = 4096  # bytes
VOUCHER_DOMAIN: Final = "libp2p-relay-rsvp"
VOUCHER_TYPE: Final = b"\x03\x02"


class Status(IntEnum):
    """How a relay or a callee answers."""

    UNKNOWN = 0
    """Any number that is not listed here; never sent by us."""
    OK = 100
    RESERVATION_REFUSED = 200
    RESOURCE_LIMIT_EXCEEDED = 201
    PERMISSION_DENIED = 202
    CONNECTION_FAILED = 203
    NO_RESERVATION = 204
    MALFORMED_MESSAGE = 400
    UNEXPECTED_MESSAGE = 401

    @classmethod
    def _missing_(cls, value: object) -> Status:
        return cls.UNKNOWN

    @property
    def words(self) -> str:
        """As a person reads it."""
        return self.name.lower().replace("_", " ")


class HopKind(IntEnum):
    """What a hop message is."""

    RESERVE = 0
    CONNECT = 1
    STATUS = 2


class StopKind(IntEnum):
    """What a stop message is."""

    CONNECT = 0
    STATUS = 1


@dataclass(frozen=True, slots=True)
class Limit:
    """What a circuit may carry before the relay ends it; zero is no limit."""

    duration: int = 0
    """Seconds."""
    data: int = 0
    """Bytes, each way."""

    def encode(self) -> bytes:
        """The bare message."""
        return _number(1, self.duration or None) + _number(2, self.data or None)

    @classmethod
    def decode(cls, data: Buffer) -> Limit:
        """The limit in a bare message; raises `ProtocolViolation`."""
        message = Message(data)
        return cls(message.int(1), message.int(2))


@dataclass(frozen=True, slots=True)
class Reservation:
    """A slot on a relay."""

    expire: int
    """Seconds since the epoch, by the relay's clock."""
    addresses: tuple[Multiaddr, ...] = ()
    """The relay's own public addresses."""
    voucher: bytes = b""
    """A `Voucher` in its envelope; may be empty."""

    def encode(self) -> bytes:
        """The bare message."""
        addresses = (field(2, address.to_bytes()) for address in self.addresses)
        return b"".join((field(1, self.expire), *addresses, field(3, self.voucher) if self.voucher else b""))

    @classmethod
    def decode(cls, data: Buffer) -> Reservation:
        """The reservation in a bare message; raises `ProtocolViolation`."""
        message = Message(data)
        return cls(message.int(1), known_addresses(message.all_bytes(2)), message.bytes(3))


@dataclass(frozen=True, slots=True)
class HopMessage:
    """Between a client and its relay."""

    kind: HopKind
    peer: PeerId | None = None
    """Whom a CONNECT asks for; there in every CONNECT that was decoded."""
    reservation: Reservation | None = None
    limit: Limit | None = None
    status: Status | None = None
    """There in every STATUS that was decoded."""

    def encode(self) -> bytes:
        """The bare message."""
        return (
            field(1, int(self.kind))
            + _peer(self.peer)
            + (field(3, self.reservation.encode()) if self.reservation else b"")
            + (field(4, self.limit.encode()) if self.limit else b"")
            + _number(5, self.status)
        )

    @classmethod
    def decode(cls, data: Buffer) -> HopMessage:
        """The message in `data`; raises `ProtocolViolation`."""
        message = _message(data)
        kind = _kind(HopKind, message)
        return cls(
            kind,
            peer=_read_peer(message, wanted=kind is HopKind.CONNECT),
            reservation=Reservation.decode(message.bytes(3)) if message.has(3) else None,
            limit=Limit.decode(message.bytes(4)) if message.has(4) else None,
            status=_read_status(message, 5, wanted=kind is HopKind.STATUS),
        )


@dataclass(frozen=True, slots=True)
class StopMessage:
    """Between a relay and the callee."""

    kind: StopKind
    peer: PeerId | None = None
    """Who calls; there in every CONNECT that was decoded."""
    limit: Limit | None = None
    status: Status | None = None
    """There in every STATUS that was decoded."""

    def encode(self) -> bytes:
        """The bare message."""
        return (
            field(1, int(self.kind))
            + _peer(self.peer)
            + (field(3, self.limit.encode()) if self.limit else b"")
            + _number(4, self.status)
        )

    @classmethod
    def decode(cls, data: Buffer) -> StopMessage:
        """The message in `data`; raises `ProtocolViolation`."""
        message = _message(data)
        kind = _kind(StopKind, message)
        return cls(
            kind,
            peer=_read_peer(message, wanted=kind is StopKind.CONNECT),
            limit=Limit.decode(message.bytes(3)) if message.has(3) else None,
            status=_read_status(message, 4, wanted=kind is StopKind.STATUS),
        )


@dataclass(frozen=True, slots=True)
class Voucher:
    """The relay's word that it holds a slot for a peer."""

    relay: PeerId
    peer: PeerId
    expiration: int
    """Seconds since the epoch."""

    def seal(self, public_key: PublicKey, sign: Sign) -> bytes:
        """This voucher in an envelope of the relay."""
        payload = field(1, self.relay.multihash) + field(2, self.peer.multihash) + field(3, self.expiration)
        return envelope.seal(VOUCHER_DOMAIN, VOUCHER_TYPE, payload, public_key, sign)

    @classmethod
    def open(cls, data: Buffer) -> Voucher:
        """The voucher in an envelope that its relay signed; raises `ProtocolViolation`."""
        opened = envelope.open_(VOUCHER_DOMAIN, VOUCHER_TYPE, data)
        message = Message(opened.payload)
        voucher = cls(peer_of(message.bytes(1)), peer_of(message.bytes(2)), message.int(3))
        if opened.public_key.peer_id != voucher.relay:
            raise ProtocolViolation(f"a voucher of {voucher.relay} is signed by {opened.public_key.peer_id}")
        return voucher


Kind = TypeVar("Kind", bound=IntEnum)


def _message(data: Buffer) -> Message:
    if len(data) > MAX_MESSAGE:
        raise ProtocolViolation(f"circuit message of {len(data)} bytes, at most {MAX_MESSAGE} are allowed")
    return Message(data)


def _kind(kinds: type[Kind], message: Message) -> Kind:
    number = message.int(1, default=-1)
    try:
        return kinds(number)
    except ValueError:
        raise ProtocolViolation("circuit message of unknown kind") from None


def _peer(peer: PeerId | None) -> bytes:
    return field(2, field(1, peer.multihash)) if peer else b""


def _number(number: int, value: int | None) -> bytes:
    return b"" if value is None else field(number, int(value))


def _read_peer(message: Message, *, wanted: bool) -> PeerId | None:
    """The peer in field 2; its addresses are not looked at, because whoever is asked for is found by ID."""
    if not message.has(2):
        if wanted:
            raise ProtocolViolation("circuit message without the peer that it is about")
        return None
    return peer_of(Message(message.bytes(2)).bytes(1))


def _read_status(message: Message, number: int, *, wanted: bool) -> Status | None:
    if not message.has(number):
        if wanted:
            raise ProtocolViolation("circuit status message without a status")
        return None
    return Status(message.int(number))
