"""Identify: what a peer says of itself, and as what it sees us (`/ipfs/id/1.0.0`, libp2p specs, identify).

Everything in it is a claim. The connection proves the peer ID; the addresses count only as hints, the signed record
is opened by `envelope.open_record`, and texts are cut and made printable here, at the border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import ProtocolViolation
from peerupd.model.names import printable
from peerupd.wire.envelope import known_address, known_addresses
from peerupd.wire.keys import PublicKey
from peerupd.wire.protobuf import Buffer, Message, field

PROTOCOL: Final = "/ipfs/id/1.0.0"
PUSH_PROTOCOL: Final = "/ipfs/id/push/1.0.0"
MAX_IDENTIFY: Final = 64 * 1024  # bytes, all messages together
MAX_MESSAGES: Final = 10  # into which one identify may be cut
MAX_PROTOCOLS: Final = 256
MAX_PROTOCOL_BYTES: Final = 1024
MAX_TEXT: Final = 128  # characters kept of an agent's name


@dataclass(frozen=True, slots=True)
class Identify:
    """One identify. Texts and bytes that were not sent are empty."""

    protocol_version: str = ""
    agent_version: str = ""
    public_key: PublicKey | None = None
    listen_addrs: tuple[Multiaddr, ...] = ()
    observed_addr: Multiaddr | None = None
    """How the sender sees the receiver."""
    protocols: tuple[str, ...] = ()
    signed_record: bytes = b""

    def encode(self) -> bytes:
        """The bare message."""
        return b"".join(
            (
                *_some(1, self.public_key.encode() if self.public_key else b""),
                *(field(2, address.to_bytes()) for address in self.listen_addrs),
                *(field(3, protocol) for protocol in self.protocols),
                *_some(4, self.observed_addr.to_bytes() if self.observed_addr else b""),
                *_some(5, self.protocol_version),
                *_some(6, self.agent_version),
                *_some(8, self.signed_record),
            )
        )

    @classmethod
    def decode(cls, data: Buffer) -> Identify:
        """The identify in a bare message; raises `ProtocolViolation`.

        Left out: addresses not understood here or beyond `envelope.MAX_ADDRESSES`, unprintable protocol names.
        """
        if len(data) > MAX_IDENTIFY:
            raise ProtocolViolation(f"identify of {len(data)} bytes, at most {MAX_IDENTIFY} are allowed")
        message = Message(data)
        protocols = message.all_text(3, limit_count=MAX_PROTOCOLS, limit=MAX_PROTOCOL_BYTES)
        return cls(
            protocol_version=printable(message.text(5), MAX_TEXT),
            agent_version=printable(message.text(6), MAX_TEXT),
            public_key=PublicKey.decode(message.bytes(1)) if message.has(1) else None,
            listen_addrs=known_addresses(message.all_bytes(2)),
            observed_addr=known_address(message.bytes(4)),
            protocols=tuple(protocol for protocol in protocols if protocol.isprintable()),
            signed_record=message.bytes(8),
        )

    @classmethod
    def merge(cls, messages: Sequence[Buffer]) -> Identify:
        """The identify that was cut into several messages, as the specification allows; raises `ProtocolViolation`.

        Protobuf messages merge by standing one behind the other.
        """
        if len(messages) > MAX_MESSAGES:
            raise ProtocolViolation(f"identify in {len(messages)} messages, at most {MAX_MESSAGES} are allowed")
        return cls.decode(b"".join(messages))


def _some(number: int, value: bytes | str) -> tuple[bytes, ...]:
    return (field(number, value),) if value else ()
