"""Names: peer IDs, peer names, service names, networks. Parsed once at the border, trusted inside.

A peer ID is a multihash of a public key (libp2p specs, peer-ids): shown in base58btc, accepted as base58btc or as
CIDv1 (multibase base32 or base58btc, codec libp2p-key).
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Final, NewType

from peerupd.model.errors import InvalidName, InvalidPeerId

ServiceName = NewType("ServiceName", str)
PeerName = NewType("PeerName", str)
NetworkName = NewType("NetworkName", str)

MAX_PEER_ID_TEXT: Final = 128  # characters; a CIDv1 of a sha2-256 multihash has 59
MAX_PEER_NAME: Final = 64  # characters, as Go peer-up sanitises names
MAX_INLINE_KEY: Final = 42  # bytes: up to here the multihash is the key itself (libp2p specs, peer-ids)
SHORT: Final = 16  # characters of a peer ID where a line has no room for all 52

RESERVED_SERVICES: Final = frozenset(
    {"ping", "invite", "relay-pair", "relay-vouch", "peer-notify", "rtt-probe", "vnet", "discovery", "kad"}
)
"""Names that are protocols of peerup itself (`/peerup/<name>/1.0.0`)."""

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_IDENTITY: Final = 0x00
_SHA2_256: Final = 0x12
_CID_LIBP2P_KEY: Final = b"\x01\x72"


@dataclass(frozen=True, slots=True, order=True)
class PeerId:
    """A peer, by the multihash of its public key."""

    multihash: bytes

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """The peer ID in `text`, base58 or CID form; raises `InvalidPeerId`."""
        if not text or len(text) > MAX_PEER_ID_TEXT:
            raise InvalidPeerId(f"not a peer ID: {printable(text, 40)!r}", hint="a peer ID starts with 12D3KooW")
        try:
            if text.startswith(("1", "Qm")):
                return cls.from_bytes(base58_decode(text))
            return cls.from_bytes(_cid_multihash(text))
        except ValueError:
            raise InvalidPeerId(
                f"not a peer ID: {printable(text, 60)!r}", hint="a peer ID starts with 12D3KooW"
            ) from None

    @classmethod
    def from_bytes(cls, data: bytes) -> PeerId:
        """A peer ID from exactly one multihash (identity or sha2-256); raises `InvalidPeerId`."""
        if len(data) < 3 or data[1] != len(data) - 2:
            raise InvalidPeerId("not a peer ID: the bytes are not one multihash")
        if data[0] == _IDENTITY and len(data) - 2 <= MAX_INLINE_KEY:
            return cls(bytes(data))
        if data[0] == _SHA2_256 and len(data) == 34:
            return cls(bytes(data))
        raise InvalidPeerId("not a peer ID: unknown hash")

    @classmethod
    def of_public_key(cls, protobuf: bytes) -> PeerId:
        """The peer ID of a public key in libp2p's protobuf form."""
        if len(protobuf) <= MAX_INLINE_KEY:
            return cls(bytes((_IDENTITY, len(protobuf))) + protobuf)
        return cls(bytes((_SHA2_256, 32)) + hashlib.sha256(protobuf).digest())

    @property
    def short(self) -> str:
        """The first sixteen characters and `...`, for lines without room."""
        return f"{str(self)[:SHORT]}..."

    def to_bytes(self) -> bytes:
        """The multihash (the name that py-libp2p's `ID` has for it)."""
        return self.multihash

    def __str__(self) -> str:
        return base58_encode(self.multihash)

    def __repr__(self) -> str:
        return f"PeerId({self})"


def service_name(text: str) -> ServiceName:
    """`text` as the name of a service; raises `InvalidName`. Reserved names pass: see `RESERVED_SERVICES`."""
    return ServiceName(_label(text, "service"))


def new_service_name(text: str) -> ServiceName:
    """`text` as the name of a service to be added; raises `InvalidName` for reserved names too."""
    name = service_name(text)
    if name in RESERVED_SERVICES:
        raise InvalidName(f"service name {name!r} is reserved for peerup itself", hint="choose another name")
    return name


def network_name(text: str) -> NetworkName:
    """`text` as the name of a private network; raises `InvalidName`."""
    return NetworkName(_label(text, "network"))


def peer_name(text: str) -> PeerName:
    """`text` as a local name for a peer; raises `InvalidName`. For names from the other side see `sanitised_name`."""
    if not text or text != sanitised_name(text):
        raise InvalidName(
            f"invalid peer name {printable(text, MAX_PEER_NAME)!r}",
            hint=f"use 1-{MAX_PEER_NAME} letters, digits, '-', '_' or '.'",
        )
    return PeerName(text)


def sanitised_name(text: str) -> PeerName:
    """What is left of a name that the other side chose: `A-Za-z0-9-_.`, at most 64; may be empty."""
    return PeerName(re.sub(r"[^A-Za-z0-9_.-]", "", text)[:MAX_PEER_NAME])


def service_protocol(name: ServiceName) -> str:
    """The protocol ID under which a service is reached."""
    return f"/peerup/{name}/1.0.0"


def printable(text: str, limit: int = 200) -> str:
    """`text` of a stranger, fit for a terminal, a log or YAML: no control or format characters, at most `limit`."""
    kept = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: limit + 1])
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def base58_encode(data: bytes) -> str:
    """base58btc."""
    zeros = len(data) - len(data.lstrip(b"\0"))
    number = int.from_bytes(data, "big")
    digits = []
    while number:
        number, rest = divmod(number, 58)
        digits.append(_BASE58[rest])
    return "1" * zeros + "".join(reversed(digits))


def base58_decode(text: str) -> bytes:
    """base58btc; raises `ValueError` for a character outside the alphabet."""
    number = 0
    for character in text:
        number = number * 58 + _BASE58.index(character)
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _label(text: str, kind: str) -> str:
    if not _LABEL.fullmatch(text):
        raise InvalidName(
            f"invalid {kind} name {printable(text, 64)!r}",
            hint="use 1-63 lowercase letters, digits or hyphens, starting and ending with a letter or digit",
        )
    return text


def _cid_multihash(text: str) -> bytes:
    if text[0] in "bB":
        body = text[1:].upper()
        raw = base64.b32decode(body + "=" * (-len(body) % 8))
    elif text[0] == "z":
        raw = base58_decode(text[1:])
    else:
        raise ValueError(text)
    if raw[:2] != _CID_LIBP2P_KEY:
        raise ValueError(text)
    return raw[2:]
