"""What a configuration may say, what is wrong with one, and what is only worth a warning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.config.schema import (
    NodeSettings,
    Parsed,
    ProxySettings,
    RateSettings,
    RelaySettings,
    ServiceSettings,
    TelemetrySettings,
    parse_node,
    parse_relay,
)
from peerupd.model.addresses import Endpoint, Multiaddr, RelayAddress
from peerupd.model.errors import ConfigInvalid
from peerupd.model.names import RESERVED_SERVICES, PeerId
from peerupd.model.snapshots import PathWish

FOLDER = Path("/srv/peerup")
HOME = "12D3KooWPrmh163sTHW3mYQm7YsLsSR2wr71fPp4g6yjuGv3sGQt"
LAPTOP = "12D3KooWNq8c1fNjXwhRoWxSXT419bumWQFoTbowCwHEa96RJRg6"
RELAY = f"/ip4/203.0.113.50/tcp/7777/p2p/{HOME}"
LEAST = "identity: {key_file: k}\nsecurity: {authorized_keys_file: a}\n"

ESSENTIAL = f"""\
identity:
  key_file: "identity.key"

network:
  listen_addresses:
    - "/ip4/0.0.0.0/tcp/0"
    - "/ip4/0.0.0.0/udp/0/quic-v1"
  force_private_reachability: false  # true for servers behind CGNAT

relay:
  addresses:
    - "{RELAY}"

security:
  authorized_keys_file: "authorized_keys"
  enable_connection_gating: true

# services:       # Uncomment to expose services (server only)
#   ssh:
#     enabled: true
#     local_address: "localhost:22"

names: {{}}         # Map friendly names to peer IDs
#  home: "12D3KooW..."
"""


def node(text: str, **kwargs: bool) -> NodeSettings:
    """The settings of a text that has nothing to warn of."""
    parsed: Parsed[NodeSettings] = parse_node(LEAST + text, FOLDER, **kwargs)
    assert parsed.warnings == ()
    return parsed.settings


def relay(text: str) -> RelaySettings:
    parsed: Parsed[RelaySettings] = parse_relay(LEAST + text, FOLDER)
    assert parsed.warnings == ()
    return parsed.settings


def warnings_of(text: str) -> tuple[str, ...]:
    return parse_node(LEAST + text, FOLDER).warnings


def problems_of(text: str, *, parse=parse_node, strict: bool = False) -> tuple[str, ...]:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text, FOLDER, strict=strict)
    return caught.value.problems


def problem_of(text: str, *, parse=parse_node, strict: bool = False) -> str:
    """The only problem, without its line: the text stands in line 3 after what must be there."""
    (problem,) = problems_of(LEAST + text, parse=parse, strict=strict)
    return problem.removeprefix("line 3: ")


# -- a node --------------------------------------------------------------------------------------------------------


def test_the_essential_config_of_the_seed_loads_with_sane_defaults():
    parsed = parse_node(ESSENTIAL, FOLDER, strict=True)
    assert parsed.warnings == ()
    assert parsed.settings == NodeSettings(
        identity_key_file=FOLDER / "identity.key",
        listen_addresses=(Multiaddr.parse("/ip4/0.0.0.0/tcp/0"),),
        force_private_reachability=False,
        resource_limits_enabled=False,
        relays=(RelayAddress.parse(RELAY),),
        reservation_interval=120.0,
        rendezvous="peerup-default-network",
        network="",
        bootstrap_peers=(),
        authorized_keys_file=FOLDER / "authorized_keys",
        gating=True,
        ping_enabled=True,
        ping_id="/pingpong/1.0.0",
        services={},
        names={},
        proxies=(),
        rates=RateSettings(),
        telemetry=TelemetrySettings(),
        log_level="info",
        unused_addresses=("/ip4/0.0.0.0/udp/0/quic-v1",),
        version=1,
    )


def test_every_key_of_a_node_is_read():
    settings = node(
        f"""\
version: 1
network:
  listen_addresses: [/ip4/127.0.0.1/tcp/4001, /ip6/::1/tcp/4001]
  force_private_reachability: true
  resource_limits_enabled: true
relay: {{addresses: ["{RELAY}"], reservation_interval: 1m30s}}
discovery: {{rendezvous: mine, network: my-net, bootstrap_peers: ["{RELAY}"]}}
protocols: {{ping_pong: {{enabled: false, id: /mine/1}}}}
services:
  ssh:
    enabled: true
    local_address: 192.168.1.5:22
    protocol: ssh
    allowed_peers: [{HOME}, laptop]
    authorized_keys: ssh_keys
    tags: [gpu, 1]
names: {{laptop: {LAPTOP}}}
proxies: [{{peer: laptop, service: web, listen: "[::1]:8080", path: direct}}]
rates: {{connection_burst: 1, connection_interval: 500ms, streams_per_second: 0}}
telemetry: {{metrics: {{enabled: true, listen_address: 127.0.0.1:1}}, audit: {{enabled: true}}}}
log_level: debug
""",
        strict=True,
    )
    assert [str(address) for address in settings.listen_addresses] == ["/ip4/127.0.0.1/tcp/4001", "/ip6/::1/tcp/4001"]
    assert (settings.force_private_reachability, settings.resource_limits_enabled) == (True, True)
    assert (settings.relays, settings.reservation_interval) == ((RelayAddress.parse(RELAY),), 90.0)
    assert (settings.rendezvous, settings.network) == ("mine", "my-net")
    assert settings.bootstrap_peers == (Multiaddr.parse(RELAY),)
    assert (settings.ping_enabled, settings.ping_id) == (False, "/mine/1")
    assert settings.services == {
        "ssh": ServiceSettings(
            name="ssh",
            enabled=True,
            local_address=Endpoint("192.168.1.5", 22),
            protocol="ssh",
            allowed_peers=(PeerId.parse(HOME), PeerId.parse(LAPTOP)),
            authorized_keys_file=FOLDER / "ssh_keys",
            tags=("gpu", "1"),
        )
    }
    assert settings.names == {"laptop": PeerId.parse(LAPTOP)}
    assert settings.proxies == (ProxySettings("laptop", "web", Endpoint("::1", 8080), PathWish.DIRECT),)
    assert settings.rates == RateSettings(1, 0.5, 0)
    assert settings.telemetry == TelemetrySettings(True, Endpoint("127.0.0.1", 1), True)
    assert settings.log_level == "debug"


def test_paths_are_relative_to_the_file_and_a_tilde_is_a_name():
    settings = parse_node("identity: {key_file: ~/k}\nsecurity: {authorized_keys_file: /etc/a}", FOLDER).settings
    assert settings.identity_key_file == FOLDER / "~/k"
    assert settings.authorized_keys_file == Path("/etc/a")


def test_all_problems_are_reported_at_once_in_the_order_of_their_lines():
    text = f"""\
version: one
names: {{}}
network:
  listen_addresses: []
  force_private_reachability: maybe
relay:
  addresses: ["203.0.113.50", "{RELAY}", /ip4/1.2.3.4/tcp/1]
  reservation_interval: 90
discovery: {{rendezvous: "", network: My Net, bootstrap_peers: there}}
security: {{enable_connection_gating: 1, authorized_keys_file: ""}}
protocols: {{ping_pong: [], ping: {{id: ping}}}}
services:
  SSH: {{local_address: "localhost:22"}}
  web: {{enabled: "true", local_address: localhost, tags: [{{}}]}}
  db:
  x: y
proxies:
- {{peer: home, service: web}}
- home
telemetry: {{metrics: {{listen_address: 127.0.0.1}}}}
log_level: loud
names: again
"""
    assert problems_of(text) == (
        "line 1: version: wanted a whole number from 0 to 1000000, got 'one'",
        "line 1: identity.key_file: wanted the path of a file, got nothing",
        "line 4: network.listen_addresses: wanted at least one address, got none",
        "line 5: network.force_private_reachability: wanted true or false, got 'maybe'",
        "line 7: relay.addresses[0]: wanted a relay address like /ip4/203.0.113.50/tcp/7777/p2p/12D3KooW..., "
        "got '203.0.113.50'",
        "line 7: relay.addresses[2]: wanted a relay address like /ip4/203.0.113.50/tcp/7777/p2p/12D3KooW..., "
        "got '/ip4/1.2.3.4/tcp/1'",
        "line 8: relay.reservation_interval: wanted a duration of at least one second, like 30s, 2m or 1h30m, got '90'",
        "line 9: discovery.rendezvous: wanted a text of 1 to 200 printable characters, got ''",
        "line 9: discovery.network: wanted a network name of 1-63 lowercase letters, digits or hyphens, got 'My Net'",
        "line 9: discovery.bootstrap_peers: wanted a list, got 'there'",
        "line 10: security.enable_connection_gating: wanted true or false, got '1'",
        "line 10: security.authorized_keys_file: wanted the path of a file, got ''",
        "line 11: protocols.ping.id: wanted a protocol ID like /pingpong/1.0.0, got 'ping'",
        "line 11: protocols.ping_pong: wanted a group of keys, got a list",
        "line 13: services.SSH: wanted a service name of 1-63 lowercase letters, digits or hyphens, got 'SSH'",
        "line 14: services.web.enabled: wanted true or false, got 'true'",
        "line 14: services.web.local_address: wanted an address like localhost:22, [::1]:22 or unix:/run/x.sock, "
        "got 'localhost'",
        "line 14: services.web.tags[0]: wanted a text of 1 to 200 printable characters, got a group of keys",
        "line 15: services.db.local_address: wanted an address like localhost:22, [::1]:22 or unix:/run/x.sock, "
        "got nothing",
        "line 16: services.x: wanted a group of keys, got 'y'",
        "line 18: proxies[0].listen: wanted an address like 127.0.0.1:2222, or a port, got nothing",
        "line 19: proxies[1]: wanted a group of keys, got 'home'",
        "line 20: telemetry.metrics.listen_address: wanted an address like 127.0.0.1:2222, or a port, got '127.0.0.1'",
        "line 21: log_level: wanted debug, info, warning or error, got 'loud'",
        "line 22: names: wanted each key once, got it again (first in line 2)",
    )


def test_one_problem_is_called_one():
    with pytest.raises(ConfigInvalid, match=r"^the configuration has a problem:\n  line 3: log_level: wanted"):
        parse_node(LEAST + "log_level: 7", FOLDER)


def test_a_newer_version_is_refused_with_the_advice_to_upgrade():
    with pytest.raises(ConfigInvalid) as caught:
        parse_node("version: 2\nwhatever: is new there\n", FOLDER)
    assert str(caught.value) == (
        "config version too new: version 2 is newer than supported version 1; please upgrade peerup"
    )


@pytest.mark.parametrize("version", ["version: 0\n", "version: 1\n", "version:\n", ""])
def test_no_version_is_the_first(version):
    assert node(version).version == 1


def test_absent_and_empty_keys_are_the_same():
    empty = "names:\nservices: ~\nrelay: {addresses: }\nproxies: []\nnetwork:\n  listen_addresses:\nlog_level: null\n"
    assert node(empty) == node("")


def test_without_gating_no_allowlist_is_needed():
    settings = parse_node("identity: {key_file: k}\nsecurity: {enable_connection_gating: false}", FOLDER).settings
    assert (settings.gating, settings.authorized_keys_file) == (False, None)


def test_with_gating_the_allowlist_must_be_named():
    assert problems_of("identity: {key_file: k}\nsecurity:\n  authorized_keys_file:\n") == (
        "line 3: security.authorized_keys_file: wanted the path of a file, got nothing",
    )


@pytest.mark.parametrize("text", ["0", "500ms", "soon", "-1s", "1d"])
def test_a_reservation_is_not_looked_at_more_than_once_in_a_second(text):
    wanted = "wanted a duration of at least one second, like 30s, 2m or 1h30m"
    assert problem_of(f"relay: {{reservation_interval: {text}}}") == (
        f"relay.reservation_interval: {wanted}, got '{text}'"
    )


@pytest.mark.parametrize(("text", "value"), [("on", True), ("yes", True), ("Off", False), ("n", False), ("TRUE", True)])
def test_a_truth_may_be_spelled_as_go_reads_it(text, value):
    assert node(f"network: {{force_private_reachability: {text}}}").force_private_reachability is value


def test_the_key_ping_is_another_name_of_ping_pong():
    assert not node("protocols: {ping: {enabled: false}}").ping_enabled
    assert node("protocols: {ping: {enabled: false}, ping_pong: {enabled: true}}").ping_enabled
    assert node("protocols: {ping: {id: /a/1}}").ping_id == "/a/1"


@pytest.mark.parametrize("name", ["\0", "k\0"])
def test_a_path_is_a_path(name):
    quoted = name.replace("\0", "\\0")
    assert problems_of(f'identity: {{key_file: "{quoted}"}}\nsecurity: {{authorized_keys_file: a}}') != ()


@pytest.mark.parametrize(
    "bad", ["/with space/1", "pingpong", "/" + "x" * 200, "/a\u202eb"], ids=["space", "no slash", "long", "bidi"]
)
def test_a_protocol_id_is_short_and_printable(bad):
    assert problem_of(f"protocols: {{ping_pong: {{id: '{bad}'}}}}").startswith("protocols.ping_pong.id: wanted")


# -- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/0.0.0.0/udp/0/quic-v1",
        "/ip4/0.0.0.0/tcp/0/ws",
        "/ip4/0.0.0.0/udp/0/quic-v1/webtransport",
        "/ip4/0.0.0.0/udp/0/webrtc-direct",
        "/dns4/home.example.org/tcp/0",
        "/ip6zone/eth0/ip6/fe80::1/tcp/0",
        "/unix/run/x.sock",
    ],
)
def test_a_listen_address_that_cannot_be_served_is_named_as_unused(address):
    settings = node(f"network: {{listen_addresses: [{address}, /ip4/0.0.0.0/tcp/0]}}")
    assert settings.listen_addresses == (Multiaddr.parse("/ip4/0.0.0.0/tcp/0"),)
    assert settings.unused_addresses == (address,)


@pytest.mark.parametrize(
    "address",
    [
        "localhost:0",
        "0.0.0.0",
        "/",
        "/ip4",
        "/unix",
        "/ip4/0.0.0.0.0/tcp/0",
        "/ip4/0.0.0.0/tcp/0/p2p/nobody",
        "/ip4/0.0.0.0/tcp/70000/quic-v2",
        "/tcpp/0",
        "/ip4/0.0.0.0/tcp/0/!",
        "/ip4/0.0.0.0/tcp/0/a" + "b" * 200,
        "x/ip4/0.0.0.0/tcp/0/new",
    ],
)
def test_a_listen_address_that_means_nothing_is_a_problem(address):
    assert problem_of(f"network: {{listen_addresses: ['{address}']}}").startswith(
        "network.listen_addresses[0]: wanted an address like /ip4/0.0.0.0/tcp/0, got "
    )


def test_relay_addresses_stay_apart_and_those_without_transport_are_named_too():
    quic = f"/ip4/203.0.113.50/udp/7777/quic-v1/p2p/{HOME}"
    newer = f"/ip4/203.0.113.50/udp/7777/quic-v1/webtransport/p2p/{HOME}"
    settings = node(f"relay: {{addresses: ['{RELAY}', '{quic}', '{newer}']}}")
    assert [str(address) for address in settings.relays] == [RELAY, quic]
    assert [address.usable for address in settings.relays] == [True, False]
    assert settings.unused_addresses == (quic, newer)


def test_a_bootstrap_peer_that_cannot_be_dialled_is_named_as_unused():
    dnsaddr = f"/dnsaddr/bootstrap.libp2p.io/p2p/{HOME}"
    settings = node(f"discovery: {{bootstrap_peers: ['{dnsaddr}', '{RELAY}', /ip4/1.2.3.4/tcp/5]}}")
    assert settings.bootstrap_peers == (Multiaddr.parse(RELAY),)
    assert settings.unused_addresses == (dnsaddr, "/ip4/1.2.3.4/tcp/5")


# -- services, names, proxies --------------------------------------------------------------------------------------


def test_a_service_is_off_until_it_is_enabled_and_open_to_all_who_are_authorized():
    service = node("services: {ssh: {local_address: 'unix:/run/x.sock'}}").services["ssh"]
    assert service == ServiceSettings("ssh", False, Endpoint("", 0, "/run/x.sock"))
    assert service.allowed_peers is None


@pytest.mark.parametrize("name", sorted(RESERVED_SERVICES))
def test_a_service_with_a_reserved_name_loads_with_a_warning(name):
    text = LEAST + f"services:\n  {name}: {{local_address: localhost:1}}\n"
    parsed = parse_node(text, FOLDER, strict=True)
    assert parsed.settings.services[name].reserved
    assert parsed.warnings == (
        f"line 4: services.{name}: this name belongs to peerup itself, the service is not served",
    )


def test_an_empty_list_of_allowed_peers_is_no_list():
    assert node("services: {a: {local_address: a:1, allowed_peers: []}}").services["a"].allowed_peers is None


def test_allowed_peers_that_cannot_be_read_admit_nobody():
    text = "services:\n  a: {local_address: a:1, allowed_peers: [nobody, [x], ~]}\n"
    assert parse_node(LEAST + text, FOLDER).settings.services["a"].allowed_peers == ()
    assert warnings_of(text) == tuple(
        f"line 4: services.a.allowed_peers[{at}]: wanted a peer ID or a name of names:, got {got}, ignoring"
        for at, got in enumerate(("'nobody'", "a list", "nothing"))
    )
    assert len(problems_of(LEAST + text, strict=True)) == 3


def test_a_bad_name_costs_itself_only():
    text = f'names:\n  home: {HOME}\n  bad: 12D3\n  worse: []\n  "{"x" * 65}": {LAPTOP}\n  laptop: {LAPTOP}\n'
    assert dict(parse_node(LEAST + text, FOLDER).settings.names) == {
        "home": PeerId.parse(HOME),
        "laptop": PeerId.parse(LAPTOP),
    }
    assert warnings_of(text)[:2] == (
        "line 5: names.bad: wanted a peer ID like 12D3KooW..., got '12D3', ignoring",
        "line 6: names.worse: wanted a peer ID like 12D3KooW..., got a list, ignoring",
    )
    assert warnings_of(text)[2].startswith("line 7: names.xxx")
    assert len(problems_of(LEAST + text, strict=True)) == 3


def test_names_of_old_files_are_taken_as_they_are():
    assert node(
        f'names: {{"My Home": {HOME}, no: {HOME}, 1: {HOME}, "": {HOME}}}'.replace(f', "": {HOME}', "")
    ).names.keys() == {
        "My Home",
        "no",
        "1",
    }


def test_a_proxy_may_name_only_a_port_and_remembers_how_it_is_written():
    (proxy,) = node("proxies:\n- {peer: home, service: ssh, listen: 2222}\n").proxies
    assert (proxy.listen, proxy.path) == (Endpoint("127.0.0.1", 2222), PathWish.ANY)
    assert proxy.written == {"peer": "home", "service": "ssh", "listen": 2222}


@pytest.mark.parametrize("path", ["nearest", "ANY"])
def test_a_path_wish_is_one_of_three(path):
    text = f"proxies: [{{peer: a, service: b, listen: 1, path: {path}}}]"
    assert problem_of(text) == f"proxies[0].path: wanted any, direct or relay, got '{path}'"


# -- unknown keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("loglevel: info", "loglevel: unknown key (did you mean log_level?)"),
        ("relay: {adresses: []}", "relay.adresses: unknown key (did you mean addresses?)"),
        ("services: {a: {local_address: a:1, tag: []}}", "services.a.tag: unknown key (did you mean tags?)"),
        ("protocols: {pong: {}}", "protocols.pong: unknown key (did you mean ping?)"),
        ("telemetry: {metrics: {zzz: 1}}", "telemetry.metrics.zzz: unknown key"),
        ('"\\e[31mred": 1', "\ufffd[31mred: unknown key"),
    ],
)
def test_an_unknown_key_is_a_warning_with_the_nearest_known_one_and_a_problem_when_strict(text, found):
    assert warnings_of(text) == (f"line 3: {found}, ignoring",)
    assert problem_of(text, strict=True) == found


def test_values_of_strangers_are_made_printable_in_problems():
    assert "\x1b" not in problem_of('log_level: "\\e[31mred"')


# -- a relay server ------------------------------------------------------------------------------------------------


def test_a_relay_has_sane_defaults():
    settings = relay("")
    assert settings == RelaySettings(
        identity_key_file=FOLDER / "k",
        listen_addresses=(Multiaddr.parse("/ip4/0.0.0.0/tcp/7777"), Multiaddr.parse("/ip6/::/tcp/7777")),
        network="",
        authorized_keys_file=FOLDER / "a",
        gating=True,
        max_reservations=128,
        max_circuits=None,
        buffer_size=65536,
        max_reservations_per_ip=8,
        max_reservations_per_asn=32,
        asn_table=None,
        reservation_ttl=3600.0,
        keep_reservations=False,
        session_duration=None,
        session_data_limit=None,
        health_enabled=False,
        health_listen=Endpoint("127.0.0.1", 9090),
        rates=RateSettings(),
        telemetry=TelemetrySettings(),
        log_level="info",
        unused_addresses=(),
    )


def test_every_key_of_a_relay_is_read():
    settings = relay(
        """\
network: {listen_addresses: [/ip4/0.0.0.0/tcp/1, /ip4/0.0.0.0/tcp/2/ws]}
discovery: {network: net}
resources:
  max_reservations: 1
  max_circuits: 2
  buffer_size: 2048
  max_reservations_per_ip: 3
  max_reservations_per_asn: 4
  asn_table: asn.txt
  reservation_ttl: 30m
  keep_reservations: true
  session_duration: 5m
  session_data_limit: 128MB
health: {enabled: true, listen_address: 127.0.0.1:1234}
rates:
  connection_burst: 5
  connection_interval: 1m
  streams_per_second: 6
  bytes_per_second: 7MB
  circuits_per_peer: 8
telemetry: {audit: {enabled: true}}
log_level: error
"""
    )
    assert (settings.max_reservations, settings.max_circuits, settings.buffer_size) == (1, 2, 2048)
    assert (settings.max_reservations_per_ip, settings.max_reservations_per_asn) == (3, 4)
    assert (settings.asn_table, settings.keep_reservations) == (FOLDER / "asn.txt", True)
    assert (settings.reservation_ttl, settings.session_duration) == (1800.0, 300.0)
    assert settings.session_data_limit == 128 << 20
    assert (settings.health_enabled, settings.health_listen) == (True, Endpoint("127.0.0.1", 1234))
    assert settings.rates == RateSettings(5, 60.0, 6, 7 << 20, 8)
    assert (settings.network, settings.log_level, settings.telemetry.audit_enabled) == ("net", "error", True)
    assert settings.unused_addresses == ("/ip4/0.0.0.0/tcp/2/ws",)


def test_resources_of_zero_are_the_defaults():
    counts = "max_reservations: 0, buffer_size: 0"
    sizes = "reservation_ttl: 0s, session_duration: 0s, session_data_limit: 0"
    assert relay(f"resources: {{{counts}, {sizes}}}") == relay("")


@pytest.mark.parametrize(
    ("text", "size"), [("1024", 1024), ("5B", 5), ("1kb", 1024), ("64 MB", 64 << 20), ("2GB", 2 << 30)]
)
def test_a_size_is_an_integer_with_a_unit(text, size):
    assert relay(f"resources: {{session_data_limit: {text}}}").session_data_limit == size


@pytest.mark.parametrize("text", ["1.5MB", "-1", "MB", "1TB", "999999999999GB", "''"])
def test_another_size_is_a_problem(text):
    problem = problem_of(f"resources: {{session_data_limit: {text}}}", parse=parse_relay)
    assert problem.startswith("resources.session_data_limit: wanted a size like 64MB (B, KB, MB or GB), got ")


@pytest.mark.parametrize("count", ["-1", "1000001", "many", "[]", "1.5"])
def test_a_count_is_a_whole_number_within_bounds(count):
    problem = problem_of(f"resources: {{max_circuits: {count}}}", parse=parse_relay)
    assert problem.startswith("resources.max_circuits: wanted a whole number from 0 to 1000000, got ")


@pytest.mark.parametrize("parse", [parse_node, parse_relay])
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("connection_burst: 0", "a whole number from 1 to 1000000, got '0'"),
        ("connection_interval: 0", "a duration of at least 1ms, like 500ms, 5s or 1m, got '0'"),
        ("connection_interval: 5", "a duration of at least 1ms, like 500ms, 5s or 1m, got '5'"),
        ("streams_per_second: -1", "a whole number from 0 to 1000000, got '-1'"),
    ],
)
def test_a_rate_that_is_none_is_a_problem(parse, text, wanted):
    assert problem_of(f"rates: {{{text}}}", parse=parse) == f"rates.{text.partition(':')[0]}: wanted {wanted}"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("bytes_per_second: 1MBit", "a size like 64MB (B, KB, MB or GB), got '1MBit'"),
        ("circuits_per_peer: many", "a whole number from 0 to 1000000, got 'many'"),
    ],
)
def test_the_rates_of_a_relay_alone_have_bounds_too_and_are_unknown_to_a_node(text, wanted):
    key = text.partition(":")[0]
    assert problem_of(f"rates: {{{text}}}", parse=parse_relay) == f"rates.{key}: wanted {wanted}"
    assert problem_of(f"rates: {{{key}: 1}}", strict=True).startswith(f"rates.{key}: unknown key")


def test_circuits_per_peer_of_zero_is_not_configured():
    assert relay("rates: {circuits_per_peer: 0}").rates == RateSettings()


def test_a_node_key_in_a_relay_config_is_unknown():
    assert problem_of("services: {}", parse=parse_relay, strict=True) == "services: unknown key"


# -- anything ------------------------------------------------------------------------------------------------------

WORDS = (
    "version identity key_file network listen_addresses relay addresses discovery bootstrap_peers security "
    "enable_connection_gating protocols ping ping_pong id services ssh local_address allowed_peers tags names proxies "
    "peer listen path resources session_data_limit health telemetry metrics enabled rates bytes_per_second "
    "connection_interval asn_table keep_reservations"
)
KEYS = st.sampled_from(WORDS.split())
VALUES = st.recursive(
    st.sampled_from(["~", "yes", "12", "-1", "1h", "/ip4/1.2.3.4/tcp/5", HOME, "a:1", '""', '"\\0"', "x" * 300]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(KEYS, inner, max_size=4).map(
            lambda table: "{" + ", ".join(f"{key}: {value}" for key, value in table.items()) + "}"
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, VALUES, max_size=6), st.sampled_from([parse_node, parse_relay]), st.booleans())
def test_whatever_a_file_says_it_is_settings_or_problems_with_lines(table, parse, strict):
    text = "".join(f"{key}: {value}\n" for key, value in table.items())
    problems: tuple[str, ...] = ()
    try:
        parse(text, FOLDER, strict=strict)
    except ConfigInvalid as why:
        problems = why.problems or ("line 1: too new",)
    assert all(re.match(r"line \d+: ", problem) for problem in problems)
