"""Public keys of libp2p peers."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.errors import ProtocolViolation
from peerupd.wire.keys import MAX_KEY_BYTES, MAX_SIGNATURE_BYTES, KeyType, PublicKey
from peerupd.wire.protobuf import field

MESSAGE = b"noise-libp2p-static-key:..."
RSA_2048 = rsa.generate_private_key(65537, 2048)


def _der(private) -> bytes:
    return private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _ed25519():
    private = ed25519.Ed25519PrivateKey.generate()
    return PublicKey(KeyType.ED25519, private.public_key().public_bytes_raw()), private.sign(MESSAGE)


def _rsa():
    return PublicKey(KeyType.RSA, _der(RSA_2048)), RSA_2048.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())


def _secp256k1():
    private = ec.generate_private_key(ec.SECP256K1())
    point = private.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    return PublicKey(KeyType.SECP256K1, point), private.sign(MESSAGE, ec.ECDSA(hashes.SHA256()))


def _ecdsa():
    private = ec.generate_private_key(ec.SECP256R1())
    return PublicKey(KeyType.ECDSA, _der(private)), private.sign(MESSAGE, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("make", [_ed25519, _rsa, _secp256k1, _ecdsa])
def test_every_kind_of_key_verifies_its_own_signature_and_no_other(make):
    key, signature = make()
    assert PublicKey.decode(key.encode()) == key
    key.verify(signature, MESSAGE)
    with pytest.raises(ProtocolViolation, match="does not match"):
        key.verify(signature, MESSAGE + b"!")


@pytest.mark.parametrize(
    ("kind", "encoded"),
    [
        (KeyType.ED25519, "080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"),
        (KeyType.SECP256K1, "08021221037777e994e452c21604f91de093ce415f5432f701dd8cd1a7a6fea0e630bfca99"),
        (
            KeyType.ECDSA,
            "0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004de3d300fa36ae0e8f5d530899d83abab44abf3161f"
            "162a4bc901d8e6ecda020e8b6d5f8da30525e71d6851510c098e5c47c646a597fb4dcec034e9f77c409e62",
        ),
    ],
)
def test_keys_of_the_specification_read_and_write_alike(kind, encoded):
    key = PublicKey.decode(bytes.fromhex(encoded))
    assert key.type is kind
    assert key.encode().hex() == encoded


def test_an_ed25519_key_names_a_peer_that_starts_12d3koow():
    assert str(_ed25519()[0].peer_id).startswith("12D3KooW")


def test_a_long_key_names_a_peer_by_its_hash():
    assert str(_rsa()[0].peer_id).startswith("Qm")


@given(st.binary(max_size=80))
def test_garbage_is_a_key_or_refused(data):
    try:
        key = PublicKey.decode(data)
    except ProtocolViolation:
        return
    with pytest.raises(ProtocolViolation):
        key.verify(b"\0" * 64, MESSAGE)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "unknown type"),
        (field(2, b"\0" * 32), "unknown type"),
        (field(1, 4) + field(2, b"\0" * 32), "unknown type"),
        (field(1, 1) + field(2, b"\0" * 31), "Ed25519 public key of 31 bytes"),
        (b"\0" * (MAX_KEY_BYTES + 1), "public key of 2049 bytes"),
    ],
)
def test_unreadable_keys_are_refused(data, why):
    with pytest.raises(ProtocolViolation, match=why):
        PublicKey.decode(data)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (KeyType.RSA, b"no DER"),
        (KeyType.RSA, _der(ec.generate_private_key(ec.SECP256R1()))),
        (KeyType.RSA, _der(rsa.generate_private_key(65537, 1024))),
        (KeyType.SECP256K1, b"no point"),
        (KeyType.ECDSA, b"no DER"),
        (KeyType.ECDSA, _der(RSA_2048)),
        (KeyType.ECDSA, _der(ec.generate_private_key(ec.SECP256K1()))),
    ],
)
def test_a_key_that_is_not_what_it_says_is_unusable(kind, data):
    with pytest.raises(ProtocolViolation, match=f"type {kind.name} cannot be used"):
        PublicKey(kind, data).verify(b"signature", MESSAGE)


def test_an_overlong_signature_is_not_even_looked_at():
    with pytest.raises(ProtocolViolation, match="signature of 1025 bytes"):
        _ed25519()[0].verify(b"\0" * (MAX_SIGNATURE_BYTES + 1), MESSAGE)
