"""Signed envelopes, and the peer record, which is what most of them carry.

An envelope is a public key, a payload with its type, and a signature over the domain, the type and the payload, each
with its length in front. The domain is not sent: a signature made for one purpose fits no other (libp2p RFC 0002,
signed envelopes; RFC 0003, routing records). Who signed is always asked: an envelope says only that somebody did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import InvalidAddress, InvalidPeerId, ProtocolViolation
from peerupd.model.names import PeerId
from peerupd.wire.keys import PublicKey
from peerupd.wire.protobuf import Buffer, Message, field, varint

MAX_ENVELOPE: Final = 16 * 1024  # bytes
MAX_ADDRESSES: Final = 64  # that are kept of one list; a peer may send more
PEER_RECORD_DOMAIN: Final = "libp2p-peer-record"
PEER_RECORD_TYPE: Final = b"\x03\x01"

Sign: TypeAlias = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Opened:
    """What a valid envelope held, and whose key signed it."""

    public_key: PublicKey
    payload: bytes


def seal(domain: str, payload_type: bytes, payload: bytes, public_key: PublicKey, sign: Sign) -> bytes:
    """An envelope around `payload`; `sign` signs with the private half of `public_key`."""
    signature = sign(_signed(domain, payload_type, payload))
    return field(1, public_key.encode()) + field(2, payload_type) + field(3, payload) + field(5, signature)


def open_(domain: str, payload_type: bytes, data: Buffer) -> Opened:
    """The payload of an envelope of this domain and type; raises `ProtocolViolation`, also for a wrong signature."""
    if len(data) > MAX_ENVELOPE:
        raise ProtocolViolation(f"signed envelope of {len(data)} bytes, at most {MAX_ENVELOPE} are allowed")
    message = Message(data)
    public_key = PublicKey.decode(message.bytes(1))
    found, payload = message.bytes(2), message.bytes(3)
    if found != payload_type:
        raise ProtocolViolation(f"signed envelope of type {found[:8].hex()}, wanted {payload_type.hex()}")
    public_key.verify(message.bytes(5), _signed(domain, payload_type, payload))
    return Opened(public_key, payload)


def _signed(domain: str, payload_type: bytes, payload: bytes) -> bytes:
    return b"".join(varint(len(part)) + part for part in (domain.encode(), payload_type, payload))


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """Where a peer says that it can be reached."""

    peer: PeerId
    seq: int
    """Of two records the one with the higher number counts; by custom nanoseconds since the epoch."""
    addresses: tuple[Multiaddr, ...] = ()

    def encode(self) -> bytes:
        """The bare message."""
        addresses = (field(3, field(1, address.to_bytes())) for address in self.addresses)
        return b"".join((field(1, self.peer.multihash), field(2, self.seq) if self.seq else b"", *addresses))

    @classmethod
    def decode(cls, data: Buffer) -> PeerRecord:
        """The record in a bare message; raises `ProtocolViolation`. Addresses not understood here are left out."""
        message = Message(data)
        raw = (Message(info).bytes(1) for info in message.all_bytes(3))
        return cls(peer_of(message.bytes(1)), message.int(2), known_addresses(raw))


def seal_record(record: PeerRecord, public_key: PublicKey, sign: Sign) -> bytes:
    """`record` in an envelope."""
    return seal(PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, record.encode(), public_key, sign)


def open_record(data: Buffer) -> PeerRecord:
    """The record in an envelope that its own peer signed; raises `ProtocolViolation`."""
    opened = open_(PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, data)
    record = PeerRecord.decode(opened.payload)
    if opened.public_key.peer_id != record.peer:
        raise ProtocolViolation(f"a peer record of {record.peer} is signed by {opened.public_key.peer_id}")
    return record


def peer_of(data: bytes) -> PeerId:
    """The peer ID in a message of a stranger; raises `ProtocolViolation`."""
    try:
        return PeerId.from_bytes(data)
    except InvalidPeerId as why:
        raise ProtocolViolation(str(why)) from None


def known_addresses(raw: Iterable[bytes]) -> tuple[Multiaddr, ...]:
    """The first `MAX_ADDRESSES` that are understood here; the others are left out, for peers speak newer ones too."""
    return tuple(islice((address for data in raw if (address := known_address(data)) is not None), MAX_ADDRESSES))


def known_address(data: bytes) -> Multiaddr | None:
    """The multiaddr in a message of a stranger, if it is understood here."""
    try:
        return Multiaddr.from_bytes(data)
    except InvalidAddress:
        return None
