"""Public keys of libp2p peers: their protobuf form, their peer ID, and whether they signed something.

Source: libp2p specs, peer-ids. All four key types are read because Go peers may hold any of them; peerup's own keys
are Ed25519. `cryptography` is imported at the first signature, so that rooms which only name keys stay light.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from peerupd.model.errors import ProtocolViolation
from peerupd.model.names import PeerId
from peerupd.wire.protobuf import Buffer, Message, field

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

MAX_KEY_BYTES: Final = 2048  # protobuf; RSA of 8192 bits has 1,070
MAX_SIGNATURE_BYTES: Final = 1024  # RSA of 8192 bits
ED25519_BYTES: Final = 32
RSA_BITS: Final = range(2048, 8192 + 1)
EC_CURVES: Final = frozenset({"secp256r1", "secp384r1", "secp521r1"})  # of the type ECDSA


class KeyType(IntEnum):
    """The numbers of libp2p's `KeyType`."""

    RSA = 0
    ED25519 = 1
    SECP256K1 = 2
    ECDSA = 3


_TYPES: Final[frozenset[int]] = frozenset(KeyType)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key as libp2p writes it: Ed25519 and secp256k1 raw, RSA and ECDSA as DER SubjectPublicKeyInfo."""

    type: KeyType
    data: bytes

    @classmethod
    def decode(cls, protobuf: Buffer) -> PublicKey:
        """The key in a `PublicKey` message; raises `ProtocolViolation`."""
        if len(protobuf) > MAX_KEY_BYTES:
            raise ProtocolViolation(f"public key of {len(protobuf)} bytes, at most {MAX_KEY_BYTES} are allowed")
        message = Message(protobuf)
        number, data = message.int(1, default=-1), message.bytes(2)
        if number not in _TYPES:
            raise ProtocolViolation("public key of unknown type")
        if number == KeyType.ED25519 and len(data) != ED25519_BYTES:
            raise ProtocolViolation(f"Ed25519 public key of {len(data)} bytes")
        return cls(KeyType(number), data)

    def encode(self) -> bytes:
        """The `PublicKey` message, in the one form that peer IDs are made of."""
        return field(1, int(self.type)) + field(2, self.data)

    @property
    def peer_id(self) -> PeerId:
        """The peer that this key names."""
        return PeerId.of_public_key(self.encode())

    def verify(self, signature: bytes, message: bytes) -> None:
        """Return if this key signed `message`; raises `ProtocolViolation` if not, or if the key is unusable."""
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

        if len(signature) > MAX_SIGNATURE_BYTES:
            raise ProtocolViolation(f"signature of {len(signature)} bytes")
        try:
            _VERIFIERS[self.type](self.data, signature, message)
        except InvalidSignature:
            raise ProtocolViolation("a signature does not match its key") from None
        except (ValueError, UnsupportedAlgorithm):
            raise ProtocolViolation(f"public key of type {self.type.name} cannot be used") from None


def _verify_ed25519(data: bytes, signature: bytes, message: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    Ed25519PublicKey.from_public_bytes(data).verify(signature, message)


def _verify_rsa(data: bytes, signature: bytes, message: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(data)
    if not isinstance(key, RSAPublicKey) or key.key_size not in RSA_BITS:
        raise ValueError("not an RSA key of an allowed size")
    key.verify(signature, message, PKCS1v15(), SHA256())


def _verify_secp256k1(data: bytes, signature: bytes, message: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, EllipticCurvePublicKey

    _verify_ec(EllipticCurvePublicKey.from_encoded_point(SECP256K1(), data), signature, message)


def _verify_ecdsa(data: bytes, signature: bytes, message: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(data)
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in EC_CURVES:
        raise ValueError("not a key on an allowed curve")
    _verify_ec(key, signature, message)


def _verify_ec(key: EllipticCurvePublicKey, signature: bytes, message: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    key.verify(signature, message, ECDSA(SHA256()))


_VERIFIERS: Final[dict[KeyType, Callable[[bytes, bytes, bytes], None]]] = {
    KeyType.RSA: _verify_rsa,
    KeyType.ED25519: _verify_ed25519,
    KeyType.SECP256K1: _verify_secp256k1,
    KeyType.ECDSA: _verify_ecdsa,
}
