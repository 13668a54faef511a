"""Invite codes: byte for byte what peer-up makes, strict in what is taken, clear about what is not."""

from __future__ import annotations

import base64

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from peerupd.model.addresses import RelayAddress
from peerupd.model.errors import InvalidCode, LegacyCode
from peerupd.model.names import PeerId
from peerupd.wire.invite import MAX_CODE_TEXT, TOKEN_SIZE, Invite, decode, encode, new_token
from tests.support.strategies import invites

RELAY = PeerId.parse("12D3KooWPqT2nMDSiXUSx5D7fasaxhxKigVhcqfkKqrLghCq9jxz")
INVITER = PeerId.parse("12D3KooWLdJAwPtyQ5RFnr9wGXsQzpf3P2SeqFbYkqbfVehLu4Ns")
TOKEN = bytes(range(0xA0, 0xA8))

HEAD = "AGQK-DIVD-USS2-NJ6L-ABYT-EHTB-EYAC-ICAB-CIQN-ASVS-GJ2C-XNFL-HIJW-RPKG-CXSO-NUBC-JK3R-UALL-V6CS-BIZS-ZF3Y-"
GLOBAL = HEAD + "ONYA-AASA-QAIS-ECQJ-VJPU-PJTV-TABP-7FK7-RXBN-FIKK-LSM5-EO7J-P6DE-CJ77-SOBU-KWSP-A"
MY_CREW = HEAD + "ONYH-NV4S-2Y3S-MV3Q-AJAI-AEJC-BIE2-UX2H-UZ2Z-QAX7-SVPY-3QWS-UFFF-ZGOS-HPUX-7BSB-E77Z-HA2F-LJHQ"
LEGACY = HEAD + "ONYA-EQEA-CERA-UCNK-L5D2-M5MY-AL7Z-KX4N-YLJK-CSS4-THJD-X2L7-QZAS-P74T-QNCV-UTYA"
DEVELOPMENT = "AK" + GLOBAL.removeprefix("AG")
PAIRING = (
    "AKYL-DMVT-WS23-NN5Y-XG5L-XPF5-X274-WADR-GIPG-CJQA-EQEA-CERA-2BFL-EMTU-FO2K-WOQT-NC6U-MFPE-43IC-ESVX-DIAW-"
    "XL4F-ECRT-FSLX-Q43Q-"
)
PAIRING_GLOBAL = PAIRING + "A"
PAIRING_MY_CREW = PAIRING + "O3LZ-FVRX-EZLX"


def invite(relay: str = "/ip4/203.0.113.50/tcp/7777", network: str = "") -> Invite:
    return Invite(TOKEN, RelayAddress.parse(f"{relay}/p2p/{RELAY}"), INVITER, network)


def raw(code: str) -> bytes:
    text = code.replace("-", "")
    return base64.b32decode(text + "=" * (-len(text) % 8))


def code_of(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=")


@pytest.mark.parametrize(("network", "code"), [("", GLOBAL), ("my-crew", MY_CREW)])
def test_the_codes_of_peer_up_are_made_and_read_byte_for_byte(network, code):
    assert encode(invite(network=network)) == code
    assert decode(code) == invite(network=network)


@given(invites())
def test_every_invite_comes_back_from_its_code(made):
    assert decode(encode(made)) == made


@given(invites())
def test_a_relay_by_ipv4_has_version_1_and_any_other_our_own(made):
    assert raw(encode(made))[0] == (1 if made.relay.address.get("ip4") else 3)


@pytest.mark.parametrize("relay", ["/ip6/2001:db8::1/tcp/7777", "/dns4/relay.example.org/tcp/443", "/dns/r/tcp/1"])
def test_our_own_version_carries_relays_by_ipv6_and_by_name(relay):
    made = invite(relay, network="my-crew")
    assert decode(encode(made)) == made


def test_a_relay_with_more_than_ipv4_and_tcp_loses_nothing():
    made = invite("/ip4/203.0.113.50/tcp/443/ws")
    assert decode(encode(made)) == made


def test_case_dashes_and_white_space_do_not_matter():
    lines = "\n".join(GLOBAL.lower().replace("-", " - ").split("on"))
    assert decode(f" {lines.replace(chr(10), 'on' + chr(9))}\r\n\xa0") == invite()


def test_the_token_is_never_shown():
    assert "token" not in repr(invite())
    assert len(new_token()) == TOKEN_SIZE
    assert new_token() != new_token()


def test_a_code_of_the_text_dialect_is_recognised_and_named():
    with pytest.raises(LegacyCode, match="--allow-legacy"):
        decode(LEGACY)


def test_where_it_is_allowed_a_code_of_the_text_dialect_is_read():
    read = decode(LEGACY, allow_legacy=True)
    assert (read.legacy, read.token.hex(), str(read.inviter)) == (True, "a0a1a2a3a4a5a6a7", str(INVITER))
    assert str(read.relay.address) == "/ip4/203.0.113.50/tcp/7777"


def test_a_code_of_the_development_dialect_is_refused_as_such():
    with pytest.raises(InvalidCode, match="development versions"):
        decode(DEVELOPMENT)


@pytest.mark.parametrize("code", [PAIRING_GLOBAL, PAIRING_MY_CREW])
def test_a_pairing_code_is_refused_as_such(code):
    with pytest.raises(InvalidCode, match="pairing code"):
        decode(code)


@pytest.mark.parametrize("version", [4, 5, 255])
def test_a_newer_version_is_refused_as_such(version):
    with pytest.raises(InvalidCode, match=f"version {version}"):
        decode(code_of(bytes((version,)) + raw(GLOBAL)[1:]))


@pytest.mark.parametrize("text", ["", "  ", "-", " - \n"])
def test_no_code_at_all_is_said_to_be_none(text):
    with pytest.raises(InvalidCode, match="no invite code was given"):
        decode(text)


@pytest.mark.parametrize("text", ["hello!", "ÄÖÜ" * 20, "A=======", GLOBAL + "=", "A" * (MAX_CODE_TEXT + 1)])
def test_what_is_no_code_is_said_to_be_none(text):
    with pytest.raises(InvalidCode, match="not an invite code"):
        decode(text)


def test_a_short_code_is_said_to_be_short():
    with pytest.raises(InvalidCode, match="too short"):
        decode(GLOBAL[:20])


@pytest.mark.parametrize(
    "text",
    [
        GLOBAL.replace("A", "1"),  # not of the alphabet
        GLOBAL[:-7],  # cut short
        GLOBAL + "A",  # one character more than bytes need
        code_of(raw(GLOBAL) + b"\0"),  # a byte after the end
        GLOBAL[:-1] + "B",  # bits after the end
        code_of(raw(LEGACY) + b"\0"),
        code_of(raw(PAIRING_GLOBAL) + b"\0"),
        code_of(b"\0" + raw(GLOBAL)[1:]),
        code_of(raw(GLOBAL)[:16]),
        code_of(b"\3" + raw(GLOBAL)[1:]),
        code_of(raw(MY_CREW).replace(b"my-crew", b"my crew")),
        code_of(raw(MY_CREW).replace(b"my-crew", b"my\xffcrew")),
    ],
)
def test_a_damaged_code_is_said_to_be_damaged(text):
    with pytest.raises(InvalidCode, match="damaged"):
        decode(text)


@pytest.mark.parametrize(
    "relay",
    [
        b"\x04\xcb\x00\x71\x32\x06\x1e\x61",  # IPv4 and TCP: that is version 1
        b"\x29" + bytes(16),  # no port
        b"\x29" + bytes(16) + b"\x06\x1e\x61\xa2\x02",  # a circuit
        b"\xa9\x00" + bytes(16) + b"\x06\x1e\x61",  # a number that is longer than it needs to be
        b"\x29" + bytes(16) + b"\x06\x1e\x61\xa5\x03\x26" + RELAY.multihash,  # a peer inside
        b"",
        b"\xff",
    ],
)
def test_our_own_version_takes_a_relay_in_its_one_form_only(relay):
    good = raw(encode(invite("/ip6/::/tcp/7777")))
    address = b"\x29" + bytes(16) + b"\x06\x1e\x61"
    found = len(address).to_bytes(2, "big") + address
    assert found in good
    with pytest.raises(InvalidCode, match="damaged"):
        decode(code_of(good.replace(found, len(relay).to_bytes(2, "big") + relay)))


@given(st.text())
def test_any_text_is_a_code_or_refused(text):
    _decoded_or_refused(text)


@given(st.integers(0, 4), st.binary(min_size=16, max_size=150))
def test_any_bytes_are_a_code_or_refused(version, data):
    _decoded_or_refused(code_of(bytes((version,)) + data))


@given(invites(), st.integers(0, 400), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_code_with_a_wrong_character_is_refused_or_another_code(made, at, character):
    code = encode(made)
    assume(code[at % len(code)] != "-")
    wrong = code[: at % len(code)] + character + code[at % len(code) + 1 :]
    _decoded_or_refused(wrong)


def _decoded_or_refused(text: str) -> None:
    """What is taken at all is the code of what it says: nothing is skipped, nothing is guessed."""
    try:
        found = decode(text)
    except InvalidCode:
        return
    assert encode(found).replace("-", "") == "".join(text.split()).replace("-", "").upper()
