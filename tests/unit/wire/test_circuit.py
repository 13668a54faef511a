"""Circuit relay messages: both protocols round, the numbers of the specification, and vouchers by their relay only."""

from __future__ import annotations

import contextlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import ProtocolViolation
from peerupd.model.names import PeerId
from peerupd.wire.circuit import (
    MAX_MESSAGE,
    HopKind,
    HopMessage,
    Limit,
    Reservation,
    Status,
    StopKind,
    StopMessage,
    Voucher,
)
from peerupd.wire.envelope import PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, seal
from peerupd.wire.keys import KeyType, PublicKey
from peerupd.wire.protobuf import field
from tests.support.strategies import multiaddrs, peer_ids

SECRET = Ed25519PrivateKey.from_private_bytes(b"\x11" * 32)
KEY = PublicKey(KeyType.ED25519, SECRET.public_key().public_bytes_raw())
PEER = PeerId.parse("12D3KooWBRFW3HkJCLKSWb4yG6iWRBpgNjbM4FFvNsL5T5JKTqrd")
ADDRESS = Multiaddr.parse("/ip4/203.0.113.50/tcp/7777")

NUMBERS = st.integers(0, 2**64 - 1)
LIMITS = st.builds(Limit, st.integers(0, 2**32 - 1), NUMBERS)
RESERVATIONS = st.builds(Reservation, NUMBERS, st.lists(multiaddrs(), max_size=4).map(tuple), st.binary(max_size=200))
STATUSES = st.sampled_from(Status)


def hop_messages() -> st.SearchStrategy[HopMessage]:
    more = {"reservation": st.none() | RESERVATIONS, "limit": st.none() | LIMITS}
    return st.one_of(
        st.builds(HopMessage, st.just(HopKind.RESERVE)),
        st.builds(HopMessage, st.just(HopKind.CONNECT), peer=peer_ids()),
        st.builds(HopMessage, st.just(HopKind.STATUS), peer=st.none() | peer_ids(), status=STATUSES, **more),
    )


def stop_messages() -> st.SearchStrategy[StopMessage]:
    return st.one_of(
        st.builds(StopMessage, st.just(StopKind.CONNECT), peer=peer_ids(), limit=st.none() | LIMITS),
        st.builds(StopMessage, st.just(StopKind.STATUS), status=STATUSES),
    )


@given(hop_messages())
def test_a_hop_message_comes_back(message):
    assert HopMessage.decode(message.encode()) == message


@given(stop_messages())
def test_a_stop_message_comes_back(message):
    assert StopMessage.decode(message.encode()) == message


def test_the_kind_is_written_also_where_its_number_is_zero():
    assert HopMessage(HopKind.RESERVE).encode() == b"\x08\x00"
    assert StopMessage(StopKind.CONNECT, peer=PEER).encode().startswith(b"\x08\x00")


def test_a_limit_without_numbers_is_still_a_limit():
    message = HopMessage(HopKind.STATUS, limit=Limit(), status=Status.OK)
    assert HopMessage.decode(message.encode()).limit == Limit(0, 0)


def test_the_addresses_of_a_peer_and_unknown_fields_are_passed_over():
    peer = field(1, PEER.multihash) + field(2, ADDRESS.to_bytes()) + field(2, b"\xff")
    data = field(1, 1) + field(2, peer) + field(6, b"a record")
    assert HopMessage.decode(data) == HopMessage(HopKind.CONNECT, peer=PEER)


@pytest.mark.parametrize("number", [0, 1, 205, 2**63])
def test_a_status_of_the_future_is_unknown_and_not_ok(number):
    assert HopMessage.decode(field(1, 2) + field(5, number)).status is Status.UNKNOWN
    assert StopMessage.decode(field(1, 1) + field(4, number)).status is Status.UNKNOWN


def test_a_status_has_words():
    assert Status.NO_RESERVATION.words == "no reservation"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        field(1, 3),
        field(1, b"\0"),
        field(1, 1),
        field(1, 2),
        field(1, 1) + field(2, b""),
        field(1, 1) + field(2, field(1, b"nobody")),
        field(1, 0) + field(3, b"\xff"),
        field(1, 0) + field(4, b"\xff"),
        field(1, 0) + field(9, bytes(MAX_MESSAGE)),
    ],
)
def test_a_malformed_hop_message_is_refused(data):
    with pytest.raises(ProtocolViolation):
        HopMessage.decode(data)


@pytest.mark.parametrize(
    "data", [b"", field(1, 2), field(1, 0), field(1, 1), field(1, 0) + field(9, bytes(MAX_MESSAGE))]
)
def test_a_malformed_stop_message_is_refused(data):
    with pytest.raises(ProtocolViolation):
        StopMessage.decode(data)


@given(peer_ids(), st.integers(0, 2**63))
def test_a_voucher_comes_back_from_its_envelope(peer, expiration):
    voucher = Voucher(KEY.peer_id, peer, expiration)
    assert Voucher.open(voucher.seal(KEY, SECRET.sign)) == voucher


def test_a_voucher_signed_by_another_than_its_relay_is_refused():
    with pytest.raises(ProtocolViolation, match="is signed by"):
        Voucher.open(Voucher(PEER, KEY.peer_id, 1).seal(KEY, SECRET.sign))


def test_an_envelope_made_for_something_else_is_no_voucher():
    payload = field(1, KEY.peer_id.multihash) + field(2, PEER.multihash)
    with pytest.raises(ProtocolViolation):
        Voucher.open(seal(PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, payload, KEY, SECRET.sign))


def test_a_reservation_with_everything_fits_into_one_message():
    voucher = Voucher(KEY.peer_id, PEER, 2**40).seal(KEY, SECRET.sign)
    reservation = Reservation(2**40, (ADDRESS.with_peer(KEY.peer_id),) * 40, voucher)
    message = HopMessage(HopKind.STATUS, reservation=reservation, limit=Limit(600, 1 << 26), status=Status.OK)
    assert len(message.encode()) <= MAX_MESSAGE


FIELDS = st.lists(st.builds(field, st.integers(1, 6), st.one_of(st.binary(max_size=60), st.integers(0, 3), NUMBERS)))


@given(st.one_of(st.binary(max_size=200), FIELDS.map(b"".join)))
def test_garbage_is_refused_or_read_but_nothing_else_happens(data):
    for read in (HopMessage.decode, StopMessage.decode, Voucher.open):
        with contextlib.suppress(ProtocolViolation):
            read(data)
