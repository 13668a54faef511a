"""Signed envelopes and peer records: who signed, for what, and nothing else is taken."""

from __future__ import annotations

import contextlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import ProtocolViolation
from peerupd.wire.envelope import (
    MAX_ADDRESSES,
    MAX_ENVELOPE,
    PEER_RECORD_DOMAIN,
    PEER_RECORD_TYPE,
    PeerRecord,
    open_,
    open_record,
    seal,
    seal_record,
)
from peerupd.wire.keys import KeyType, PublicKey
from peerupd.wire.protobuf import field
from tests.support.strategies import multiaddrs, peer_ids

SECRET = Ed25519PrivateKey.from_private_bytes(b"\x11" * 32)
KEY = PublicKey(KeyType.ED25519, SECRET.public_key().public_bytes_raw())
OTHER = Ed25519PrivateKey.from_private_bytes(b"\x22" * 32)
ADDRESS = Multiaddr.parse("/ip4/192.0.2.1/tcp/4001")
RECORD = PeerRecord(KEY.peer_id, 7, (ADDRESS,))
SEALED = seal_record(RECORD, KEY, SECRET.sign)


@given(st.text(max_size=20), st.binary(max_size=4), st.binary(max_size=300))
def test_what_is_sealed_opens_and_names_its_signer(domain, kind, payload):
    opened = open_(domain, kind, seal(domain, kind, payload, KEY, SECRET.sign))
    assert (opened.public_key, opened.payload) == (KEY, payload)


def test_a_signature_for_one_domain_fits_no_other():
    with pytest.raises(ProtocolViolation):
        open_("libp2p-relay-rsvp", PEER_RECORD_TYPE, SEALED)


def test_another_type_of_payload_is_refused():
    with pytest.raises(ProtocolViolation, match="of type 0301, wanted 0302"):
        open_(PEER_RECORD_DOMAIN, b"\x03\x02", SEALED)


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_an_envelope_with_any_byte_changed_is_refused(at, change):
    wrong = bytearray(SEALED)
    wrong[at] ^= change
    with pytest.raises(ProtocolViolation):
        open_record(wrong)


def test_a_huge_envelope_is_refused_unread():
    with pytest.raises(ProtocolViolation, match=str(MAX_ENVELOPE)):
        open_record(bytes(MAX_ENVELOPE + 1))


@given(peer_ids(), st.integers(0, 2**64 - 1), st.lists(multiaddrs(), max_size=5).map(tuple))
def test_a_record_comes_back(peer, seq, addresses):
    record = PeerRecord(peer, seq, addresses)
    assert PeerRecord.decode(record.encode()) == record


def test_a_sealed_record_comes_back():
    assert open_record(SEALED) == RECORD


def test_a_record_signed_by_somebody_else_is_refused():
    forged = seal_record(PeerRecord(PublicKey(KeyType.ED25519, bytes(32)).peer_id, 1), KEY, SECRET.sign)
    with pytest.raises(ProtocolViolation, match="is signed by"):
        open_record(forged)


def test_a_key_that_did_not_sign_is_refused():
    with pytest.raises(ProtocolViolation, match="signature"):
        open_record(seal_record(RECORD, KEY, OTHER.sign))


def test_addresses_that_are_not_understood_are_left_out_and_too_many_are_cut():
    unknown = field(3, field(1, b"\xff\x7f"))
    encoded = PeerRecord(KEY.peer_id, 1).encode() + unknown + field(3, b"") + field(3, field(1, ADDRESS.to_bytes()))
    assert PeerRecord.decode(encoded).addresses == (ADDRESS,)
    many = PeerRecord(KEY.peer_id, 1, (ADDRESS,) * (MAX_ADDRESSES + 5))
    assert PeerRecord.decode(many.encode()).addresses == (ADDRESS,) * MAX_ADDRESSES


def test_a_record_without_a_peer_is_refused():
    with pytest.raises(ProtocolViolation, match="peer ID"):
        PeerRecord.decode(field(2, 1))


@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_refused_and_nothing_else_happens(data, signed):
    sealed = seal(PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, data, KEY, SECRET.sign) if signed else data
    with contextlib.suppress(ProtocolViolation):
        open_record(sealed)
