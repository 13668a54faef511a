import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.errors import InvalidName, InvalidPeerId
from peerupd.model.names import (
    MAX_PEER_NAME,
    RESERVED_SERVICES,
    PeerId,
    base58_decode,
    base58_encode,
    network_name,
    new_service_name,
    peer_name,
    printable,
    sanitised_name,
    service_name,
    service_protocol,
)
from tests.support.strategies import peer_ids, peer_names

# wire spec 3.6: the relay's key is Ed25519 of 32 bytes 0x11
RELAY = "12D3KooWPqT2nMDSiXUSx5D7fasaxhxKigVhcqfkKqrLghCq9jxz"
RELAY_BYTES = bytes.fromhex("002408011220d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c9778737")


def cid_base32(peer: PeerId) -> str:
    return "b" + base64.b32encode(b"\x01\x72" + peer.multihash).decode().lower().rstrip("=")


def test_the_peer_id_of_a_known_key():
    assert str(PeerId.from_bytes(RELAY_BYTES)) == RELAY
    assert PeerId.parse(RELAY).to_bytes() == RELAY_BYTES
    assert PeerId.of_public_key(RELAY_BYTES[2:]) == PeerId.parse(RELAY)
    assert repr(PeerId.parse(RELAY)) == f"PeerId({RELAY})"
    assert PeerId.parse(RELAY).short == "12D3KooWPqT2nMDS..."


def test_a_large_key_is_named_by_its_hash():
    peer = PeerId.of_public_key(bytes(43))

    assert peer.multihash[:2] == b"\x12\x20"
    assert str(peer).startswith("Qm")


@given(peer_ids())
def test_a_peer_id_is_read_in_each_of_its_forms(peer):
    assert PeerId.parse(str(peer)) == peer
    assert PeerId.parse(cid_base32(peer)) == peer
    assert PeerId.parse(cid_base32(peer).upper()) == peer
    assert PeerId.parse("z" + base58_encode(b"\x01\x72" + peer.multihash)) == peer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "12D3KooW",
        RELAY[:-1],
        RELAY + "1",
        RELAY.replace("W", "0"),
        "1" * 200,
        "Qm",
        "b",
        "bafk!",
        "bafkreiaeu5u7bjiryyyjnwc2yfnbosgncgnsmzicycswvysegragdqq6ei",  # a CID, but of other content
        "z",
        "z2",
        "xyz",
        "é",
    ],
)
def test_what_is_no_peer_id_is_refused(text):
    with pytest.raises(InvalidPeerId):
        PeerId.parse(text)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x00\x00", b"\x00\x02x", b"\x12\x02xx", b"\x00\x2b" + bytes(43), b"\x13\x20" + bytes(32)]
)
def test_bytes_that_are_not_one_multihash_are_refused(data):
    with pytest.raises(InvalidPeerId):
        PeerId.from_bytes(data)


@given(st.text(max_size=130))
def test_any_text_is_a_peer_id_or_an_invalid_one(text):
    for candidate in (text, f"b{text}", f"z{text}", f"1{text}"):
        try:
            peer = PeerId.parse(candidate)
        except InvalidPeerId:
            continue
        assert PeerId.parse(str(peer)) == peer


@given(st.binary(max_size=80))
def test_base58_survives(data):
    assert base58_decode(base58_encode(data)) == data


def test_names_are_labels_or_nothing():
    assert service_name("ssh") == "ssh"
    assert service_name("ping") == "ping"  # an old configuration may have it
    assert network_name("my-crew") == "my-crew"
    assert service_protocol(service_name("ssh")) == "/peerup/ssh/1.0.0"


@pytest.mark.parametrize("text", ["", "-x", "x-", "X", "a_b", "a/b", "x" * 64, "x\n", "ß"])
def test_other_names_are_refused_with_the_rule(text):
    with pytest.raises(InvalidName, match="use 1-63 lowercase letters"):
        service_name(text)
    with pytest.raises(InvalidName, match="network name"):
        network_name(text)


@pytest.mark.parametrize("name", sorted(RESERVED_SERVICES))
def test_no_service_takes_the_name_of_a_protocol_of_ours(name):
    with pytest.raises(InvalidName, match="reserved"):
        new_service_name(name)


def test_a_free_name_may_be_added():
    assert new_service_name("ssh") == "ssh"


def test_a_peer_name_is_taken_as_it_stands_or_refused():
    assert peer_name("home.server_1-a") == "home.server_1-a"
    for bad in ("", "a b", "x" * (MAX_PEER_NAME + 1), "\x1b[31m"):
        with pytest.raises(InvalidName, match="invalid peer name"):
            peer_name(bad)


@given(st.text())
def test_a_name_from_the_other_side_keeps_nothing_that_could_hurt(text):
    name = sanitised_name(text)

    assert len(name) <= MAX_PEER_NAME
    assert not name or peer_name(name) == name


@given(peer_names())
def test_a_good_name_from_the_other_side_is_kept(name):
    assert sanitised_name(name) == name


@given(st.text(), st.integers(1, 50))
def test_text_of_a_stranger_is_fit_for_a_terminal(text, limit):
    shown = printable(text, limit)

    assert shown.isprintable()
    assert len(shown) <= limit


def test_short_text_is_shown_whole_and_long_text_says_so():
    assert printable("é x", 3) == "é x"
    assert printable("abcd", 3) == "ab…"
    assert printable("a\nb\u202e") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
