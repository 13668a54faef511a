"""The samples in etc/ and the templates: they load, and they show every key."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from peerupd.config.schema import NodeSettings, Parsed, RelaySettings, parse_node, parse_relay
from peerupd.config.templates import node_template, relay_template
from peerupd.model.names import PeerId

SAMPLES = Path(__file__).parents[3] / "etc" / "peerup"
FOLDER = Path("/etc/peerup")
HOME = "12D3KooWPrmh163sTHW3mYQm7YsLsSR2wr71fPp4g6yjuGv3sGQt"
RELAY = f"/ip4/203.0.113.50/tcp/7777/p2p/{HOME}"

NODE_KEYS = """
    version identity key_file network listen_addresses force_private_reachability resource_limits_enabled
    relay addresses reservation_interval discovery rendezvous bootstrap_peers security authorized_keys_file
    enable_connection_gating protocols ping_pong enabled id services local_address protocol allowed_peers
    authorized_keys tags names proxies peer service listen path telemetry metrics listen_address audit
    log_level rates connection_burst connection_interval streams_per_second
"""
RELAY_KEYS = """
    version identity key_file network listen_addresses discovery security authorized_keys_file
    enable_connection_gating resources max_reservations max_circuits buffer_size max_reservations_per_ip
    max_reservations_per_asn reservation_ttl session_duration session_data_limit health enabled listen_address
    telemetry metrics audit log_level asn_table keep_reservations
    rates connection_burst connection_interval streams_per_second bytes_per_second circuits_per_peer
"""
EXAMPLE_KEYS = "|".join((*NODE_KEYS.split(), *RELAY_KEYS.split(), "ssh", "xrdp", "web", "laptop"))
EXAMPLE = re.compile(rf"^( *)#(?: (?=(?:  )*\S))?( *(?:- |(?:{EXAMPLE_KEYS}):))", re.MULTILINE)


def uncommented(text: str) -> str:
    """The text with its examples in force and its empty tables gone."""
    text = EXAMPLE.sub(r"\1\2", text)
    return re.sub(r"^(\w+): (\{\}|\[\])$", r"\1:", text, flags=re.MULTILINE).replace("12D3KooW...", HOME)


def test_the_sample_of_a_node_loads_strictly_and_without_a_warning():
    parsed = parse_node((SAMPLES / "config.yaml").read_text(), FOLDER, strict=True)
    assert parsed.warnings == ()
    assert parsed.settings.identity_key_file == Path("/var/lib/peerup/identity.key")
    assert parsed.settings.authorized_keys_file == FOLDER / "authorized_keys"
    assert parsed.settings.relays == ()
    assert parsed.settings.gating


def test_the_sample_of_a_relay_loads_strictly_and_without_a_warning():
    parsed = parse_relay((SAMPLES / "relay.yaml").read_text(), FOLDER, strict=True)
    assert parsed.warnings == ()
    assert parsed.settings.session_duration is None
    assert [str(address) for address in parsed.settings.listen_addresses] == [
        "/ip4/0.0.0.0/tcp/7777",
        "/ip6/::/tcp/7777",
    ]


@pytest.mark.parametrize(("sample", "keys"), [("config.yaml", NODE_KEYS), ("relay.yaml", RELAY_KEYS)])
def test_a_sample_shows_every_key(sample, keys):
    text = (SAMPLES / sample).read_text()
    assert [key for key in keys.split() if not re.search(rf"\b{key}:", text)] == []


def test_the_examples_in_the_samples_are_right():
    node = parse_node(uncommented((SAMPLES / "config.yaml").read_text()), FOLDER, strict=True).settings
    assert node.services["ssh"].allowed_peers == (PeerId.parse(HOME),)
    assert node.proxies[0].listen.port == 2222
    assert node.network == "my-network"
    assert len(node.unused_addresses) == 2
    relay = parse_relay(uncommented((SAMPLES / "relay.yaml").read_text()), FOLDER, strict=True).settings
    assert (relay.session_duration, relay.session_data_limit) == (600.0, 64 << 20)


def test_commented_resources_of_the_relay_are_the_defaults():
    text = (SAMPLES / "relay.yaml").read_text()
    plain = parse_relay(text, FOLDER).settings
    spelled = parse_relay(uncommented(text), FOLDER).settings
    unlike = {"max_circuits": None, "session_duration": None, "session_data_limit": None, "network": ""}
    assert spelled.asn_table == FOLDER / "asn.txt"
    assert spelled.rates.circuits_per_peer == 512
    assert dataclasses.replace(spelled, **unlike, asn_table=None, rates=plain.rates) == plain
    assert dataclasses.replace(spelled.rates, circuits_per_peer=None) == plain.rates


@pytest.mark.parametrize("relay", [None, RELAY])
@pytest.mark.parametrize("network", ["", "my-network"])
def test_a_generated_node_config_loads_without_a_warning(relay, network):
    parsed: Parsed[NodeSettings] = parse_node(node_template(relay, network), FOLDER, strict=True)
    assert parsed.warnings == ()
    assert [str(address) for address in parsed.settings.relays] == ([relay] if relay else [])
    assert parsed.settings.network == network
    assert parsed.settings.identity_key_file == FOLDER / "identity.key"
    assert parsed.settings.unused_addresses == ("/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/udp/0/quic-v1")


def test_the_examples_in_the_generated_node_config_are_right():
    settings = parse_node(uncommented(node_template()), FOLDER, strict=True).settings
    assert set(settings.services) == {"ssh", "xrdp", "web"}
    assert settings.proxies[0].service == "ssh"


def test_the_generated_node_config_says_what_absent_keys_mean():
    spelled = dataclasses.replace(parse_node(node_template(), FOLDER).settings, unused_addresses=())
    absent = "identity: {key_file: identity.key}\nsecurity: {authorized_keys_file: authorized_keys}"
    assert parse_node(absent, FOLDER).settings == spelled


def test_the_generated_node_config_has_the_texts_that_peer_up_edits_by_line():
    lines = node_template().splitlines()
    assert {"names: {}", "services: {}", "  addresses: []"} <= set(lines)
    assert f'    - "{RELAY}"' in node_template(RELAY).splitlines()


def test_a_generated_relay_config_loads_without_a_warning():
    parsed: Parsed[RelaySettings] = parse_relay(relay_template(), FOLDER, strict=True)
    assert parsed.warnings == ()
    assert parsed.settings.identity_key_file == FOLDER / "relay_node.key"
    assert parsed.settings.authorized_keys_file == FOLDER / "relay_authorized_keys"
    assert parsed.settings.unused_addresses == ()
    assert parse_relay(uncommented(relay_template()), FOLDER, strict=True).settings.health_enabled


def test_a_path_with_quotes_in_a_template_stays_a_path():
    nasty = Path('/srv/a "b" #c\\d/key')
    assert parse_node(node_template(key_file=nasty), FOLDER).settings.identity_key_file == nasty
    assert parse_relay(relay_template(key_file=nasty), FOLDER).settings.identity_key_file == nasty
