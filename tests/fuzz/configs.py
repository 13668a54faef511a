"""Targets: the configuration: its YAML, the settings of a node and of a relay, and changes of its text."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from peerupd.config.edits import Append, Change, Drop, Put, Remove, Value, edited
from peerupd.config.schema import Parsed, parse_node, parse_relay
from peerupd.config.yaml_text import MAX_CONFIG_BYTES, MAX_DEPTH, Plain, Table, plain, read
from peerupd.model.errors import ConfigInvalid, Conflict
from tests.fuzz.samples import ADDRESSES, PEER, drawn
from tests.fuzz.target import Choices, Target
from tests.fuzz.texts import text_of
from tests.support.strategies import yaml_texts

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = Path("/etc/peerup")


def _yaml(data: bytes) -> str:
    document = read(text_of(data))
    assert 0 <= document.end <= len(text_of(data))
    assert _depth(plain(document.root)) <= MAX_DEPTH
    _check_places(document.root, len(text_of(data)))
    return f"{min(len(document.root.entries), 4)} {min(len(document.problems), 2)}"


def _depth(value: Plain) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _check_places(table: Table, size: int) -> None:
    for entry in table.entries:
        assert 0 <= entry.key.start <= entry.key.end <= entry.value.end <= size
        if isinstance(entry.value, Table):
            _check_places(entry.value, size)


def _node(data: bytes) -> str:
    """First byte odd: strictly."""
    parsed = parse_node(text_of(data[1:]), FOLDER, strict=_strict(data))
    assert parsed.settings.authorized_keys_file is not None or not parsed.settings.gating, "open without being told"
    return _checked(parsed.warnings, parsed, data)


def _relay(data: bytes) -> str:
    parsed = parse_relay(text_of(data[1:]), FOLDER, strict=_strict(data))
    assert parsed.settings.authorized_keys_file is not None or not parsed.settings.gating, "open without being told"
    return _checked(parsed.warnings, parsed, data)


def _strict(data: bytes) -> bool:
    return bool(data and data[0] & 1)


def _checked(warnings: tuple[str, ...], parsed: Parsed[object], data: bytes) -> str:  # type: ignore[type-arg]
    assert parsed.text == text_of(data[1:])
    assert all(warning.isprintable() for warning in warnings), warnings
    return f"{len(warnings) > 0}"


# -- changes -------------------------------------------------------------------------------------------------------

KEYS = ("names", "relay", "addresses", "services", "ssh", "a", "b", "c d", "no", "1", "é", "proxies", "x: y", "#", "")
VALUES: tuple[Value, ...] = (
    *("x", "", str(PEER), str(ADDRESSES[0]), "a: b", "- y", "#no", '"', "\u202e\n\0", "\ud800", "true", "1e3"),
    *(True, None, 0, -1, 1.5, [], {}, ["x", 1], {"enabled": True, "local_address": "localhost:22"}, [{"peer": "a"}]),
)


def _edit(data: bytes) -> str:
    """A few changes of any text: made as wished, or refused; made twice they change nothing more."""
    choices = Choices(data)
    changes = [_change(choices) for _ in range(1 + choices.byte() % 3)]
    text = text_of(choices.rest())
    after = edited(text, *changes)
    read(after.removeprefix("\ufeff"))
    if len(changes) == 1:
        assert edited(after, *changes) == after, "not the same the second time"
    kinds = {type(change).__name__ for change in changes}
    return f"{'+'.join(sorted(kinds))} {after == text}"


def _change(choices: Choices) -> Change:
    path = tuple(choices.pick(KEYS) for _ in range(1 + choices.byte() % 3))
    value = choices.pick(VALUES)
    match choices.byte() % 4:
        case 0:
            return Put(path, value)
        case 1:
            return Remove(path)
        case 2:
            return Append(path, value)
    return Drop(path, value)


# -- seeds ---------------------------------------------------------------------------------------------------------


@cache
def _samples() -> tuple[bytes, bytes]:
    return (ROOT / "etc/peerup/config.yaml").read_bytes(), (ROOT / "etc/peerup/relay.yaml").read_bytes()


NODE = f"""
identity: {{key_file: identity.key}}
security: {{authorized_keys_file: authorized_keys, enable_connection_gating: yes}}
network: {{listen_addresses: ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"], force_private_reachability: true}}
relay:
  addresses:
  - {ADDRESSES[0]}/p2p/{PEER}
  reservation_interval: 2m
discovery: {{network: home, rendezvous: x, bootstrap_peers: []}}
protocols: {{ping_pong: {{enabled: true, id: /pingpong/1.0.0}}}}
names: {{home: {PEER}}}
services:
  ssh: {{enabled: true, local_address: "localhost:22", allowed_peers: [home], tags: [a]}}
  ping: {{enabled: true, local_address: unix:/run/x.sock}}
proxies:
- {{peer: home, service: ssh, listen: 2222, path: relay}}
telemetry: {{metrics: {{enabled: on, listen_address: 127.0.0.1:9091}}, audit: {{enabled: off}}}}
log_level: debug
""".encode()

RELAY = b"""identity: {key_file: relay.key}
security: {enable_connection_gating: false}
network: {listen_addresses: [/ip4/0.0.0.0/tcp/7777]}
resources: {max_reservations: 10, reservation_ttl: 1h, session_data_limit: 64MB, buffer_size: 65536}
health: {enabled: true, listen_address: "127.0.0.1:9090"}
version: 1
"""


def _yaml_seeds() -> list[bytes]:
    texts = [text.encode("utf-8", "replace") for text in drawn(yaml_texts(), 16)]
    return [
        NODE,
        RELAY,
        *_samples(),
        *texts,
        b"a: &x [1]\nb: *x\n",
        b"[" * 40,
        b"a: |\n  block\n  text\nb: >-\n  x\n",
        b"!!int a: !x b\n",
    ]


def _edit_seeds() -> list[bytes]:
    heads = [bytes([count, length, *path, value, how]) for count, length, path, value, how in _heads()]
    return [head + text for at, text in enumerate(_yaml_seeds()) for head in heads[at % 3 :: 3]]


def _heads() -> list[tuple[int, int, list[int], int, int]]:
    return [
        (0, len(path) - 1, path, at % len(VALUES), at % 4)
        for at, path in enumerate(([0, 5], [1, 2], [3, 4], [5], [5, 6], [7], [8], [11]))
    ]


_TOKENS = (
    *(
        b": ",
        b"- ",
        b"\n",
        b"\n  ",
        b"{",
        b"}",
        b"[",
        b"]",
        b", ",
        b'"',
        b"'",
        b"|\n",
        b">-\n",
        b"# x\n",
        b"&a ",
        b"*a",
        b"!!x ",
    ),
    *(
        b"? ",
        b"---\n",
        b"...\n",
        b"%YAML 1.1\n",
        b"\t",
        b"\r\n",
        b"~",
        b"null",
        b"1e999",
        b"0x1f",
        b"0o7",
        b"9" * 30,
        b"\xef\xbb\xbf",
    ),
    *(
        b"names:",
        b"services:",
        b"relay:",
        b"addresses:",
        b"version: 2\n",
        b"enabled: maybe\n",
        "\u2028".encode(),
        b"\x85",
        b"\\ud800",
    ),
)
_MUCH = 1500  # bytes of memory for each byte of YAML: a node and its events

CONFIGS = (
    Target("config.yaml_text", _yaml, _yaml_seeds, (ConfigInvalid,), _TOKENS, share=0.5, memory=_MUCH),
    Target(
        "config.yaml_text.large",
        _yaml,
        lambda: [seed[:200] for seed in _yaml_seeds()],
        (ConfigInvalid,),
        _TOKENS,
        lambda random, data, other: (
            (data + other) * (MAX_CONFIG_BYTES // (1 + len(data) + len(other)) + random.randrange(2))
        ),
        share=0.004,
        max_input=MAX_CONFIG_BYTES + 64,
        memory=_MUCH,
    ),
    Target(
        "config.schema.node",
        _node,
        lambda: [flag + each for flag in (b"\0", b"\1") for each in (NODE, _samples()[0])],
        (ConfigInvalid,),
        _TOKENS,
        share=0.2,
        memory=_MUCH,
    ),
    Target(
        "config.schema.relay",
        _relay,
        lambda: [flag + each for flag in (b"\0", b"\1") for each in (RELAY, _samples()[1])],
        (ConfigInvalid,),
        _TOKENS,
        share=0.2,
        memory=_MUCH,
    ),
    Target("config.edits", _edit, _edit_seeds, (ConfigInvalid, Conflict), _TOKENS, share=0.3, memory=_MUCH),
)
