"""Our envelopes, peer records, vouchers, identify and circuit messages against py-libp2p's own, byte for byte."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.addresses import Multiaddr
from peerupd.model.names import PeerId
from peerupd.wire.circuit import (
    HopKind,
    HopMessage,
    Limit,
    Reservation,
    Status,
    StopKind,
    StopMessage,
    Voucher,
)
from peerupd.wire.envelope import PeerRecord, open_record, seal_record
from peerupd.wire.identify import Identify
from peerupd.wire.keys import KeyType, PublicKey
from tests.support.libp2p_side import Libp2pSide
from tests.support.strategies import multiaddrs, peer_ids

SEED = b"\x11" * 32
SECRET = Ed25519PrivateKey.from_private_bytes(SEED)
KEY = PublicKey(KeyType.ED25519, SECRET.public_key().public_bytes_raw())
CIRCUIT = "relay.circuit_v2.pb.circuit"

ADDRESSES = st.lists(multiaddrs(), max_size=4).map(tuple)
TEXTS = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=20)
NUMBERS = st.integers(1, 2**63)
LIMITS = st.builds(Limit, st.integers(1, 2**32 - 1), NUMBERS)
STATUSES = st.sampled_from([status for status in Status if status is not Status.UNKNOWN])


@pytest.fixture(scope="module")
def theirs() -> Iterator[Libp2pSide]:
    with Libp2pSide() as side:
        yield side


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_seed_has_the_same_public_key_and_peer_id(theirs):
    assert theirs.ask("key", seed=SEED.hex()) == {"public": KEY.encode().hex(), "peer": str(KEY.peer_id)}


@given(seq=NUMBERS, addresses=ADDRESSES)
def test_a_signed_peer_record_is_the_same_and_each_opens_the_others(theirs, seq, addresses):
    record = PeerRecord(KEY.peer_id, seq, addresses)
    ours = seal_record(record, KEY, SECRET.sign)
    words = {"peer": str(KEY.peer_id), "seq": seq, "addresses": [address.to_bytes().hex() for address in addresses]}

    assert theirs.ask("seal_record", seed=SEED.hex(), **words) == ours.hex()
    opened = theirs.ask("open_record", data=ours.hex())
    # As bytes: the same address has more than one text, and not every text is read everywhere (`/sni/dns`).
    theirs_read = tuple(Multiaddr.from_bytes(bytes.fromhex(address)) for address in opened["addresses"])
    found = PeerRecord(PeerId.parse(opened["peer"]), opened["seq"], theirs_read)
    assert found == open_record(ours) == record


@given(peer=peer_ids(), expiration=NUMBERS)
def test_a_voucher_is_the_same_and_opens_there(theirs, peer, expiration):
    content = {
        "relay": base64_of(KEY.peer_id.multihash),
        "peer": base64_of(peer.multihash),
        "expiration": str(expiration),
    }
    payload = theirs.ask("message", module=CIRCUIT, name="Voucher", content=content)
    ours = Voucher(KEY.peer_id, peer, expiration).seal(KEY, SECRET.sign)

    assert theirs.ask("seal_voucher", seed=SEED.hex(), payload=payload) == ours.hex()
    assert theirs.ask("open_voucher", data=ours.hex()) == payload


@given(
    version=TEXTS,
    agent=TEXTS,
    listen=ADDRESSES,
    observed=multiaddrs(),
    protocols=st.lists(TEXTS, max_size=4).map(tuple),
    record=st.binary(min_size=1, max_size=60),
)
def test_an_identify_is_the_same(theirs, version, agent, listen, observed, protocols, record):
    ours = Identify(version, agent, KEY, listen, observed, protocols, record)
    content = {
        "protocol_version": version,
        "agent_version": agent,
        "public_key": base64_of(KEY.encode()),
        "listen_addrs": [base64_of(address.to_bytes()) for address in listen],
        "observed_addr": base64_of(observed.to_bytes()),
        "protocols": list(protocols),
        "signedPeerRecord": base64_of(record),
    }
    assert theirs.ask("message", module="identity.identify.pb.identify", name="Identify", content=content) == (
        ours.encode().hex()
    )


def test_a_reserve_is_the_same(theirs):
    assert theirs.ask("message", module=CIRCUIT, name="HopMessage", content={"type": "RESERVE"}) == (
        HopMessage(HopKind.RESERVE).encode().hex()
    )


@given(peer=peer_ids())
def test_a_connect_is_the_same(theirs, peer):
    content = {"type": "CONNECT", "peer": peer_json(peer)}
    assert theirs.ask("message", module=CIRCUIT, name="HopMessage", content=content) == (
        HopMessage(HopKind.CONNECT, peer=peer).encode().hex()
    )


@given(limit=LIMITS, status=STATUSES, expire=NUMBERS, addresses=ADDRESSES, voucher=st.binary(min_size=1, max_size=60))
def test_the_answer_to_a_reserve_is_the_same(theirs, limit, status, expire, addresses, voucher):
    reservation = Reservation(expire, addresses, voucher)
    ours = HopMessage(HopKind.STATUS, reservation=reservation, limit=limit, status=status)
    content = {
        "type": "STATUS",
        "reservation": {
            "expire": str(expire),
            "addrs": [base64_of(address.to_bytes()) for address in addresses],
            "voucher": base64_of(voucher),
        },
        "limit": limit_json(limit),
        "status": status.name,
    }
    assert theirs.ask("message", module=CIRCUIT, name="HopMessage", content=content) == ours.encode().hex()


@given(peer=peer_ids(), limit=LIMITS)
def test_a_stop_connect_is_the_same(theirs, peer, limit):
    content = {"type": "CONNECT", "peer": peer_json(peer), "limit": limit_json(limit)}
    assert theirs.ask("message", module=CIRCUIT, name="StopMessage", content=content) == (
        StopMessage(StopKind.CONNECT, peer=peer, limit=limit).encode().hex()
    )


@given(status=STATUSES)
def test_a_stop_status_is_the_same(theirs, status):
    content = {"type": "STATUS", "status": status.name}
    assert theirs.ask("message", module=CIRCUIT, name="StopMessage", content=content) == (
        StopMessage(StopKind.STATUS, status=status).encode().hex()
    )


def peer_json(peer: PeerId) -> dict[str, str]:
    return {"id": base64_of(peer.multihash)}


def limit_json(limit: Limit) -> dict[str, object]:
    return {"duration": limit.duration, "data": str(limit.data)}
