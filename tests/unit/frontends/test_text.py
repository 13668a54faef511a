"""The text forms, line by line as Go peer-up's documents show them."""

from __future__ import annotations

from peerupd.frontends.answers import line
from peerupd.frontends.text import FORMS, render
from peerupd.model.snapshots import (
    AuthEntry,
    NodeStatus,
    Nothing,
    PeerStatus,
    Ping,
    PingReport,
    PingResult,
    PingStats,
    ProxyStatus,
    RelayStatus,
    ServiceStatus,
    Version,
)

PEER = "12D3KooWDRDMuwQVabcdefghijkmnopqrstuvwxyzABCDEFGHJKL"


def test_status() -> None:
    status = NodeStatus(PEER, "0.1.0", 3600, 2, ("/ip4/10.0.1.50/tcp/9000",), (), 2)
    assert render("status", Nothing(), status) == (
        f"peer_id: {PEER}\nversion: 0.1.0\nuptime: 3600s\nconnected_peers: 2\nservices: 2\n"
        "listen_addresses: 1\n  /ip4/10.0.1.50/tcp/9000\nrelay_addresses: 0\n"
    )


def test_status_says_more_where_there_is_more() -> None:
    relay = RelayStatus(PEER, (), "lost")
    status = NodeStatus(PEER, "1", 0, 0, (), (), 0, (relay,), ("/ip4/1.2.3.4/udp/1/quic-v1",), ("mend this",))
    text = render("status", Nothing(), status)
    assert text is not None
    assert text.endswith(
        "relays: 1\n  12D3KooWDRDMuwQV... lost\nunused_addresses: 1\n  /ip4/1.2.3.4/udp/1/quic-v1\n"
        "problems: 1\n  mend this\n"
    )


def test_services_are_tab_separated() -> None:
    services = (
        ServiceStatus("ssh", "/peerup/ssh/1.0.0", "localhost:22"),
        ServiceStatus("web", "/peerup/web/1.0.0", "localhost:80", enabled=False),
    )
    assert render("services", Nothing(), services) == (
        "ssh\tlocalhost:22\t/peerup/ssh/1.0.0\tenabled\nweb\tlocalhost:80\t/peerup/web/1.0.0\tdisabled\n"
    )


def test_peers_show_agent_and_number_of_addresses() -> None:
    peers = (PeerStatus(PEER, ("a", "b", "c"), "peerup/0.1.0"), PeerStatus(PEER, ()))
    assert render("peers", Nothing(), peers) == (
        "12D3KooWDRDMuwQV...\tpeerup/0.1.0\t3 addrs\n12D3KooWDRDMuwQV...\tunknown\t0 addrs\n"
    )


def test_auth_shows_the_whole_id_and_the_comment() -> None:
    assert render("auth_list", Nothing(), (AuthEntry(PEER, "laptop"), AuthEntry(PEER))) == f"{PEER}\t# laptop\n{PEER}\n"


def test_ping() -> None:
    results = (PingResult(1, PEER, 45.2, "RELAYED"), PingResult(2, PEER, 0.0, "", "stream: reset"))
    report = PingReport(results, PingStats(2, 1, 1, 50.0, 45.2, 45.2, 45.2))
    assert render("ping", Ping("home-server"), report) == (
        "PING home-server (12D3KooWDRDMuwQV...):\nseq=1 rtt=45.2ms path=[RELAYED]\nseq=2 error=stream: reset\n"
        "--- home-server ping statistics ---\n2 sent, 1 received, 50% loss, rtt min/avg/max = 45.2/45.2/45.2 ms\n"
    )


def test_ping_without_any_result_has_no_peer_to_show() -> None:
    text = render("ping", Ping("x"), PingReport((), PingStats(0, 0, 0, 0.0, 0.0, 0.0, 0.0)))
    assert text is not None
    assert text.startswith("PING x (...):\n---")


def test_proxies_relays_and_version() -> None:
    proxy = ProxyStatus("proxy-1", "127.0.0.1:2222", "home", "ssh", "any", connections=3)
    assert render("proxies", Nothing(), (proxy,)) == "proxy-1\t127.0.0.1:2222\thome\tssh\tany\t3\n"
    assert render("relays", Nothing(), (RelayStatus("p", ("a", "b"), "reserved"),)) == "p\treserved\ta b\n"
    shown = render("version", Nothing(), Version("0.1.0", "abc", "2026", "3.11"))
    assert shown == "peerup 0.1.0 (abc) built 2026\nPython 3.11\n"


def test_mutations_have_no_text_form() -> None:
    assert render("expose", Nothing(), ()) is None
    assert "expose" not in FORMS


def test_json_numbers_beyond_what_is_exact_stay_floats() -> None:
    assert line({"a": 2.0, "b": [1e300, 0.5], "c": "\u2028"}) == b'{"a":2,"b":[1e+300,0.5],"c":"\\u2028"}\n'
