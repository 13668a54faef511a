import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.addresses import (
    MAX_MULTIADDR_BYTES,
    Endpoint,
    Multiaddr,
    RelayAddress,
    counted_as,
    is_protocol,
    relay_input,
    tcp_multiaddr,
)
from peerupd.model.errors import InvalidAddress
from peerupd.model.names import PeerId
from tests.support.strategies import multiaddrs, peer_ids, relay_addresses

PEER = "12D3KooWPqT2nMDSiXUSx5D7fasaxhxKigVhcqfkKqrLghCq9jxz"
OTHER = "12D3KooWLdJAwPtyQ5RFnr9wGXsQzpf3P2SeqFbYkqbfVehLu4Ns"


@given(multiaddrs())
def test_a_multiaddr_survives_its_text_and_its_bytes(address):
    assert Multiaddr.parse(str(address)) == address
    assert Multiaddr.from_bytes(address.to_bytes()) == address


@given(st.text())
def test_any_text_is_a_multiaddr_or_an_invalid_address(text):
    for candidate in (text, f"/{text}", f"/dns4/{text}/tcp/1", f"/p2p/{text}"):
        try:
            address = Multiaddr.parse(candidate)
        except InvalidAddress:
            continue
        assert Multiaddr.from_bytes(address.to_bytes()) == address


@given(st.one_of(st.binary(), multiaddrs().flatmap(lambda a: st.binary().map(lambda tail: a.to_bytes()[:-1] + tail))))
def test_any_bytes_are_a_multiaddr_or_an_invalid_address(data):
    try:
        address = Multiaddr.from_bytes(data)
    except InvalidAddress:
        return
    assert Multiaddr.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "ip4/1.2.3.4",
        "/ip4",
        "/ip4/",
        "/ip4/1.2.3",
        "/ip6/1.2.3.4",
        "/tcp/65536",
        "/tcp/-1",
        "/tcp/١",
        "/p2p/nobody",
        "/carrier-pigeon/1",
        "/dns4/\x1b",
        "/dns4/\ud800",
        f"/dns4/{'x' * 254}",
        "/ws" * 17,
        "/" + "x" * 2000,
        f"/dns4/{'x' * 250}" * 3,
    ],
)
def test_what_is_no_multiaddr_is_refused(text):
    with pytest.raises(InvalidAddress):
        Multiaddr.parse(text)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x04\x01\x02",  # an IPv4 address of two bytes
        b"\x06\x00",
        b"\xff\xff\xff\xff\xff\xff",  # a number without end
        b"\x80",
        b"\x63\x00",  # no protocol has this number
        b"\x36\x00",  # dns4 without a name
        b"\x36\x01\xff",  # not UTF-8
        b"\x36\x03a/b",
        b"\xa5\x03\x02\x00\x00",  # p2p with something else than a peer ID
        b"\xa5\x03\x05\x00",
        b"\xdd\x03" * 17,
        b"\xdd\x03" * MAX_MULTIADDR_BYTES,
    ],
)
def test_what_is_no_binary_multiaddr_is_refused(data):
    with pytest.raises(InvalidAddress):
        Multiaddr.from_bytes(data)


def test_the_names_of_address_protocols_are_known():
    assert is_protocol("ip4")
    assert is_protocol("ipfs")
    assert not is_protocol("carrier-pigeon")


def test_the_old_name_of_p2p_and_a_slash_at_the_end_are_understood():
    assert str(Multiaddr.parse(f"/ip4/1.2.3.4/tcp/1/ipfs/{PEER}/")) == f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}"


def test_values_are_written_in_one_way_only():
    assert str(Multiaddr.parse("/ip6/2001:DB8:0::1%eth0/tcp/007")) == "/ip6/2001:db8::1/tcp/7"


def test_what_an_address_says_of_itself():
    address = Multiaddr.parse(f"/ip4/203.0.113.50/tcp/7777/p2p/{PEER}")

    assert (address.host, address.port, address.ip) == ("203.0.113.50", 7777, ipaddress.ip_address("203.0.113.50"))
    assert address.peer == PeerId.parse(PEER)
    assert address.without_peer().peer is None
    assert address.without_peer().with_peer(PeerId.parse(PEER)) == address
    assert address.is_plain_tcp
    assert not address.is_circuit
    assert address.get("ws") is None
    assert not address.has("ws")
    assert address.without_peer().join(Multiaddr.parse("/ws")).has("ws")


def test_an_address_without_host_or_port_has_none():
    bare = Multiaddr.parse(f"/p2p/{PEER}")

    assert (bare.host, bare.port, bare.ip) == (None, None, None)
    assert bare.without_peer() == bare  # nothing would be left
    assert not bare.is_plain_tcp


@pytest.mark.parametrize("text", ["/ip4/1.2.3.4/tcp/1/ws", "/ip4/1.2.3.4/udp/1", "/tcp/1/ip4/1.2.3.4", "/tcp/1"])
def test_only_a_host_and_a_tcp_port_are_plain_tcp(text):
    assert not Multiaddr.parse(text).is_plain_tcp


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("192.0.2.1", "/ip4/192.0.2.1/tcp/5"),
        ("fe80::1%eth0", "/ip6/fe80::1/tcp/5"),
        ("::ffff:192.0.2.1", "/ip4/192.0.2.1/tcp/5"),
    ],
)
def test_a_socket_address_becomes_a_multiaddr(host, text):
    assert str(tcp_multiaddr(host, 5)) == text


@given(relay_addresses(), peer_ids())
def test_a_relay_address_survives_its_text_and_leads_to_peers(relay, peer):
    assert RelayAddress.parse(str(relay)) == relay
    assert relay.usable

    circuit = relay.circuit_to(peer)
    assert circuit.is_circuit
    assert circuit.peer == peer
    assert str(circuit) == f"{relay}/p2p-circuit/p2p/{peer}"


def test_a_relay_of_a_transport_that_is_not_there_loads_and_is_not_usable():
    assert not RelayAddress.parse(f"/ip4/203.0.113.50/udp/7777/quic-v1/p2p/{PEER}").usable


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/203.0.113.50/tcp/7777",
        f"/p2p/{PEER}",
        f"/ip4/203.0.113.50/p2p/{PEER}",
        f"/ip4/203.0.113.50/tcp/7777/p2p/{PEER}/p2p-circuit/p2p/{OTHER}",
    ],
)
def test_a_relay_address_names_place_and_peer_and_no_circuit(text):
    with pytest.raises(InvalidAddress, match="a relay address looks like"):
        RelayAddress.parse(text)


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("203.0.113.50", "/ip4/203.0.113.50/tcp/7777"),
        (" 203.0.113.50:4001 ", "/ip4/203.0.113.50/tcp/4001"),
        ("2001:db8::1", "/ip6/2001:db8::1/tcp/7777"),
        ("[2001:db8::1]", "/ip6/2001:db8::1/tcp/7777"),
        ("[2001:db8::1]:4001", "/ip6/2001:db8::1/tcp/4001"),
        ("/dns4/relay.example.org/tcp/7777", "/dns4/relay.example.org/tcp/7777"),
        (f"/ip4/203.0.113.50/tcp/1/p2p/{PEER}", f"/ip4/203.0.113.50/tcp/1/p2p/{PEER}"),
    ],
)
def test_a_relay_can_be_typed_in_many_ways(typed, address):
    assert str(relay_input(typed)) == address


@pytest.mark.parametrize(
    "typed",
    [
        "relay.example.org",
        "relay.example.org:7777",
        "203.0.113.50:0",
        "203.0.113.50:",
        "203.0.113.50:65536",
        "203.0.113.50:123456",
        "[2001:db8::1",
        "[2001:db8::1]7777",
        "/ip4/203.0.113.50",
        "/tcp/7777",
        f"/ip4/203.0.113.50/tcp/1/p2p/{PEER}/p2p-circuit",
        "",
    ],
)
def test_a_bare_host_name_or_half_an_address_is_no_relay(typed):
    with pytest.raises(InvalidAddress):
        relay_input(typed)


@pytest.mark.parametrize(
    "text", ["localhost:22", "192.168.1.5:80", "[::1]:22", "nas.lan.:445", "unix:/run/x.sock", "_tcp.x:1"]
)
def test_an_endpoint_survives_its_text(text):
    assert str(Endpoint.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "22",
        "localhost",
        "localhost:0",
        "localhost:http",
        ":22",
        "a b:22",
        "::1:22",
        "[::1%\x1b]:22",
        "-x:22",
        "unix:x.sock",
        "unix:/run/\0",
        "unix:/\ud800",
        "unix:/" + "x" * 107,
    ],
)
def test_what_is_no_endpoint_is_refused(text):
    with pytest.raises(InvalidAddress):
        Endpoint.parse(text)


def test_port_zero_is_for_listeners_only():
    assert Endpoint.parse("127.0.0.1:0", any_port=True).port == 0


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("localhost:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("unix:/run/x.sock", True),
        ("0.0.0.0:1", False),
        ("nas.lan:1", False),
        ("192.168.1.5:1", False),
    ],
)
def test_an_endpoint_knows_whether_others_can_reach_it(text, loopback):
    assert Endpoint.parse(text).is_loopback is loopback


@given(st.text())
def test_any_text_is_an_endpoint_or_an_invalid_address(text):
    for candidate in (text, f"{text}:22", f"[{text}]:22", f"unix:/{text}"):
        try:
            endpoint = Endpoint.parse(candidate)
        except InvalidAddress:
            continue
        assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("ip", "place"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
    ],
)
def test_whoever_has_a_whole_64_has_one_place(ip, place):
    assert counted_as(ipaddress.ip_address(ip)) == place
