"""Vouching at a relay for a joiner that it does not know yet (`/peerup/relay-vouch/1.0.0`, peerup's own).

    inviter ──OPEN(V, seconds)──▶ relay           a code is out; V is derived from its token
    joiner  ──PROVE(proof)──────▶ relay           HMAC-SHA256(V, own peer ID): may call that inviter, for a while
    inviter ──KEEP(peer, name)──▶ relay           paired: the joiner stays in the relay's allowlist
    inviter ──WITHDRAW(peer)────▶ relay           no longer
    inviter ──CLOSE(V)──────────▶ relay           the code is used, burned or over

The relay learns V, not the token: it can tell who holds the code and cannot join by it. A proof is bound to the peer
ID that the joiner's connection has proved, so that it is worth nothing to another. Messages are protobuf, sent
delimited (`wire.framing`), at most 512 bytes each: one request, one answer.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from peerupd.model.errors import ProtocolViolation
from peerupd.model.names import PeerId, PeerName, sanitised_name
from peerupd.wire import protobuf
from peerupd.wire.envelope import peer_of
from peerupd.wire.protobuf import Buffer, Message

PROTOCOL: Final = "/peerup/relay-vouch/1.0.0"
MAX_MESSAGE: Final = 512  # bytes
MAX_SECONDS: Final = 7 * 24 * 3600  # for which a code may be open
KEY_SIZE: Final = 32  # bytes of V and of a proof
_INFO: Final = b"peerup-relay-admit-v1"


class _Kind(IntEnum):
    OPEN = 1
    CLOSE = 2
    PROVE = 3
    KEEP = 4
    WITHDRAW = 5


class Reason(IntEnum):
    """Why a relay says no."""

    UNKNOWN = 0
    """Any number that is not listed here."""
    NOT_ALLOWED = 1
    """The asking peer may not ask this."""
    NO_SUCH_CODE = 2
    """No open code fits: wrong, used, burned or over."""
    TOO_MANY = 3
    """Too many codes are open."""
    MALFORMED = 4
    """The request could not be read."""
    FAILED = 5
    """The relay could not write it down."""

    @classmethod
    def _missing_(cls, value: object) -> Reason:
        return cls.UNKNOWN

    @property
    def words(self) -> str:
        """As a person reads it."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class Open:
    """A code is out: let its joiner through to me."""

    key: bytes = field(repr=False)
    seconds: int
    """How long the code still lives."""

    def encode(self) -> bytes:
        """The bare message."""
        return _request(_Kind.OPEN, (2, self.key), (3, self.seconds))


@dataclass(frozen=True, slots=True)
class Close:
    """The code is used, burned or over."""

    key: bytes = field(repr=False)

    def encode(self) -> bytes:
        """The bare message."""
        return _request(_Kind.CLOSE, (2, self.key))


@dataclass(frozen=True, slots=True)
class Prove:
    """I hold a code."""

    proof: bytes = field(repr=False)

    def encode(self) -> bytes:
        """The bare message."""
        return _request(_Kind.PROVE, (4, self.proof))


@dataclass(frozen=True, slots=True)
class Keep:
    """This joiner is paired with me: keep it in the allowlist."""

    peer: PeerId
    name: PeerName
    """What it wants to be called; may be empty."""

    def encode(self) -> bytes:
        """The bare message."""
        return _request(_Kind.KEEP, (5, self.peer.multihash), (6, self.name))


@dataclass(frozen=True, slots=True)
class Withdraw:
    """I no longer vouch for this peer."""

    peer: PeerId

    def encode(self) -> bytes:
        """The bare message."""
        return _request(_Kind.WITHDRAW, (5, self.peer.multihash))


Request: TypeAlias = Open | Close | Prove | Keep | Withdraw


@dataclass(frozen=True, slots=True)
class Ok:
    """Done."""

    inviter: PeerId | None = None
    """Whose code it is; in the answer to PROVE."""

    def encode(self) -> bytes:
        """The bare message."""
        return protobuf.field(1, 1) + (protobuf.field(2, self.inviter.multihash) if self.inviter else b"")


@dataclass(frozen=True, slots=True)
class No:
    """Not done."""

    reason: Reason

    def encode(self) -> bytes:
        """The bare message."""
        return protobuf.field(1, 0) + protobuf.field(3, int(self.reason))


Answer: TypeAlias = Ok | No


def decode_request(data: Buffer) -> Request:
    """The request in `data`; raises `ProtocolViolation`."""
    message = _message(data)
    match message.int(1):
        case _Kind.OPEN:
            return Open(_secret(message, 2), _seconds(message))
        case _Kind.CLOSE:
            return Close(_secret(message, 2))
        case _Kind.PROVE:
            return Prove(_secret(message, 4))
        case _Kind.KEEP:
            return Keep(peer_of(message.bytes(5)), sanitised_name(message.text(6)))
        case _Kind.WITHDRAW:
            return Withdraw(peer_of(message.bytes(5)))
        case _:
            raise ProtocolViolation("vouch request of unknown kind")


def decode_answer(data: Buffer) -> Answer:
    """The answer in `data`; raises `ProtocolViolation`."""
    message = _message(data)
    if message.int(1) != 1:
        return No(Reason(message.int(3)))
    return Ok(peer_of(message.bytes(2)) if message.has(2) else None)


def admission_key(token: bytes) -> bytes:
    """V, which a relay may know, from the token of a code, which it may not."""
    return HKDF(SHA256(), KEY_SIZE, salt=None, info=_INFO).derive(token)


def proof(key: bytes, peer: PeerId) -> bytes:
    """That `peer` holds the code behind `key`."""
    return hmac.digest(key, peer.multihash, "sha256")


def proves(given: bytes, key: bytes, peer: PeerId) -> bool:
    """Whether `given` is the proof of `peer` for `key`; takes the same time either way."""
    return hmac.compare_digest(given, proof(key, peer))


def _request(kind: _Kind, *fields: tuple[int, int | bytes | str]) -> bytes:
    return protobuf.field(1, int(kind)) + b"".join(protobuf.field(number, value) for number, value in fields)


def _message(data: Buffer) -> Message:
    if len(data) > MAX_MESSAGE:
        raise ProtocolViolation(f"vouch message of {len(data)} bytes, at most {MAX_MESSAGE} are allowed")
    return Message(data)


def _secret(message: Message, number: int) -> bytes:
    value = message.bytes(number)
    if len(value) != KEY_SIZE:
        raise ProtocolViolation(f"vouch request with a secret of {len(value)} bytes, wanted {KEY_SIZE}")
    return value


def _seconds(message: Message) -> int:
    seconds = message.int(3)
    if not 0 < seconds <= MAX_SECONDS:
        raise ProtocolViolation(f"vouch request for {seconds} s, wanted 1 to {MAX_SECONDS}")
    return seconds
