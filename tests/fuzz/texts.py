"""Targets: texts that people and files bring: names, addresses, durations, JSON of the control API, the allowlist."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from peerupd.linux import memory
from peerupd.model.addresses import Endpoint, Multiaddr, RelayAddress, relay_input
from peerupd.model.codec import from_json, to_json
from peerupd.model.duration import format_duration, parse_duration
from peerupd.model.errors import (
    AlreadyExists,
    InvalidAddress,
    InvalidKeyFile,
    InvalidName,
    InvalidPeerId,
    LimitReached,
    RequestError,
    UnknownPeer,
)
from peerupd.model.names import (
    MAX_PEER_NAME,
    PeerId,
    base58_decode,
    base58_encode,
    network_name,
    new_service_name,
    peer_name,
    printable,
    sanitised_name,
    service_name,
)
from peerupd.p2p import networks, relay_state
from peerupd.trust import authorized_keys
from peerupd.trust.authorized_keys import Allowlist, AllowlistFile, parse_moment
from peerupd.trust.identity import Identity
from tests.fuzz import mutation
from tests.fuzz.samples import ADDRESSES, HASHED, PEER, drawn
from tests.fuzz.target import Choices, Target
from tests.support.strategies import SNAPSHOT_KINDS, allowlist_lines, rfc3339_moments, snapshots

DAY = 24 * 3600.0  # seconds


def text_of(data: bytes) -> str:
    """As Python gives arguments and files that are no UTF-8: lone surrogates and all."""
    return data.decode("utf-8", "surrogateescape")


def _parsed(parse: Callable[[str], object], data: bytes) -> int:
    """What is written as text reads back as the same."""
    value = parse(text_of(data))
    assert parse(str(value)) == value, f"{value} came back as {parse(str(value))}"
    assert str(value).isprintable()
    return len(str(value)) // 32


def _name(data: bytes) -> int:
    text = text_of(data)
    kept = sanitised_name(text)
    assert sanitised_name(kept) == kept
    assert len(kept) <= MAX_PEER_NAME
    shown = printable(text, 1 + len(data) % 50)
    assert shown.isprintable()
    assert len(shown) <= 1 + len(data) % 50
    kind = (service_name, new_service_name, network_name, peer_name)[len(data) % 4]
    assert kind(text) == text
    text.encode("ascii")
    return len(data) % 4


def _base58(data: bytes) -> bool:
    assert base58_decode(base58_encode(data)) == data
    try:
        found = base58_decode(text_of(data))
    except ValueError:
        return False
    assert base58_encode(found).encode() == data
    return True


def _relay_input(data: bytes) -> str:
    found = relay_input(text_of(data))
    assert found.host is not None
    assert found.port is not None
    assert Multiaddr.parse(str(found)) == found
    return found.parts[0][0]


def _endpoint(data: bytes) -> str:
    text = text_of(data)
    found = Endpoint.parse(text, any_port=bool(len(data) & 1))
    assert Endpoint.parse(str(found), any_port=True) == found
    assert str(found).isprintable()
    return f"{found.is_loopback} {bool(found.path)}"


def _duration(data: bytes) -> bool | None:
    text = text_of(data)
    try:
        seconds = parse_duration(text)
    except ValueError as why:
        if not str(why).startswith("a duration"):
            raise
        return False
    assert 0 <= seconds <= 11 * 365 * DAY
    assert abs(parse_duration(format_duration(seconds)) - seconds) <= 0.001 * max(1, seconds)
    return None


def _memory_size(data: bytes) -> bool:
    """`PEERUP_MEMORY_MAX`; what is no size is none, not an end."""
    text = text_of(data).replace("\0", "")
    found = memory.budget({memory.ENVIRONMENT: text}, Path("/nonexistent"))
    assert found.budget >= memory.LEAST
    return memory._size(text) > 0


def _networks(data: bytes) -> str:
    table = networks.parse(data)
    found = [table.number_of(address.ip) for address in ADDRESSES if address.ip is not None]
    assert all(number is None or 0 < number <= networks.MAX_NUMBER for number in found)
    assert len(table.v4) + len(table.v6) <= 2 * (1 + len(data.splitlines()) * 2)
    assert table.trouble.isprintable()
    return f"{len(table.v4) > 0} {len(table.v6) > 0} {bool(table.trouble)} {found[0] is not None}"


def _relay_state(data: bytes) -> str:
    """What a relay has kept over its restart: written anew it says the same."""
    found = relay_state.from_text(data)
    again = relay_state.from_text(relay_state.to_text(found.kept))
    assert again.kept == found.kept
    assert not again.trouble
    assert found.trouble.isprintable()
    assert len({kept.peer for kept in found.kept}) == len(found.kept)
    return f"{min(len(found.kept), 2)} {found.trouble[:9]}"


def _relay_state_seeds() -> list[bytes]:
    kept = [
        relay_state.Kept(PEER, 1763838300, "203.0.113.7"),
        relay_state.Kept(HASHED, 0, "2001:db8:1:2::/64"),
        relay_state.Kept(PEER, relay_state.END_OF_TIME, None),
    ]
    return [relay_state.to_text(kept), relay_state.to_text(kept[:1] * 3), b"", b"another text\n"]


# -- the JSON of the control API -----------------------------------------------------------------------------------


def _json(data: bytes) -> str | bool:
    """Any JSON as any snapshot; the first byte says which."""
    kind = SNAPSHOT_KINDS[data[0] % len(SNAPSHOT_KINDS)] if data else SNAPSHOT_KINDS[0]
    try:
        value = json.loads(data[1:])
    except (ValueError, RecursionError):
        return False
    found = from_json(kind, value)
    again = from_json(kind, json.loads(json.dumps(to_json(found))))
    assert again == found, f"{found} came back as {again}"
    return kind.__name__


@cache
def json_seeds() -> list[bytes]:
    """Two of each kind, and some that are no objects."""
    pairs = [(at, value) for at, kind in enumerate(SNAPSHOT_KINDS) for value in drawn(snapshots(kind), 3)]
    good = [bytes([at]) + json.dumps(to_json(value)).encode() for at, value in pairs]
    return [*good, b"\0[]", b"\0null", b'\1{"a":' * 50, b"\1" + b"[" * 2000]


JSON_WORDS = (
    *(
        b"null",
        b"true",
        b"[]",
        b"{}",
        b"1e999",
        b"-1",
        b"NaN",
        b"Infinity",
        b"1e3",
        b'"\\ud800"',
        b'"\\u202e"',
        b"[[[[",
    ),
    *(b'"peer":', b'"path":', b'"relay"', b'"count":', b'"all":', b'"Name":', b'"listen":', b",", b"9" * 400, b"0.5"),
)


# -- the allowlist -------------------------------------------------------------------------------------------------


def _allowlist(data: bytes) -> str:
    """Any text; then changes of it, each of which does what it says and nothing else."""
    choices = Choices(data)
    text_from = choices.byte()
    before = Allowlist.parse(text_of(choices.rest()))
    assert Allowlist.parse(before.text).entries == before.entries
    assert len(before.problems) <= authorized_keys.MAX_PROBLEMS + 1
    assert all(problem.isprintable() for problem in before.problems)
    peer = before.entries[text_from % len(before.entries)].peer if before.entries else PEER
    _changed_allowlist(before, peer, text_from)
    return f"{min(len(before.entries), 3)} {min(len(before.problems), 2)}"


def _changed_allowlist(before: Allowlist, peer: PeerId, how: int) -> None:
    others = {entry.peer for entry in before.entries} - {peer}
    match how % 4:
        case 0:
            after = before.remove(peer)
            assert after.get(peer) is None
        case 1:
            after = before.set_attributes(peer, expires="2030-01-01T00:00:00Z", group=None)
            entry = after.get(peer)
            assert entry is not None
            assert entry.expires_at is not None
        case 2:
            after = before.add(HASHED, before.text[:300], verified="x")
            assert after.get(HASHED) is not None
        case _:
            after = Allowlist.parse(before.text + f"\n{HASHED}").at_most(before)
            assert {entry.peer for entry in after.entries} <= {entry.peer for entry in before.entries}
    kept = {entry.peer for entry in after.entries}
    assert others <= kept, "a peer was lost"
    for other in others:
        assert _end(after, other) <= _end(before, other), "a peer has more time than before"


def _end(allowlist: Allowlist, peer: PeerId) -> float:
    entry = allowlist.get(peer)
    assert entry is not None
    return float("inf") if entry.expires_at is None else entry.expires_at


def _allowlist_seeds() -> list[bytes]:
    lists = [
        b"\n".join(text.encode("utf-8", "replace") for text in drawn(allowlist_lines(), 8 + at)) for at in range(4)
    ]
    one = f"{PEER}  expires=2026-12-31T00:00:00Z  verified=sha256:1a3f881b  # laptop\n".encode()
    two = one + f"{HASHED} group=home keep=yes\n{PEER} # again\n".encode()
    return [bytes([at]) + text for at in range(4) for text in (*lists, one, two)]


def _moment(data: bytes) -> bool:
    seconds = parse_moment(text_of(data))
    assert -62135596800 - DAY <= seconds <= 253402300800 + DAY
    return seconds > 0


# -- files ---------------------------------------------------------------------------------------------------------


@cache
def _file(_process: int) -> Path:
    return Path(tempfile.mkdtemp(prefix="peerup-fuzz-")) / "file"


def _in_file(read: Callable[[Path], object], data: bytes) -> bool:
    """Bytes as a private file."""
    file = _file(os.getpid())
    if not file.exists():
        file.touch(0o600)
    file.write_bytes(data)
    return read(file) is not None


def _load_allowlist(file: Path) -> object:
    allowlist = AllowlistFile(file).load()
    assert allowlist.text.encode("utf-8", "surrogateescape") == file.read_bytes()
    return allowlist


def _identity_seeds() -> list[bytes]:
    whole = Identity.generate()._file_form()
    return [whole, whole[:-1], whole + b"\0", whole[:40] + bytes(28), bytes.fromhex("08001240") + whole[4:]]


_WORDS = (
    b"12D3KooW",
    b"Qm",
    b"expires=",
    b"verified=",
    b"#",
    b"=",
    b" ",
    b"\n",
    b"\r",
    "\u2028".encode(),
    b"\xff",
    b"..",
)
_PARTS = tuple(
    f"/{name}".encode() for name in ("ip4", "ip6", "dns", "tcp", "udp", "p2p", "p2p-circuit", "ws", "ipfs", "quic-v1")
)
_SHORT = 512  # bytes

TEXTS = (
    Target(
        "model.names", _name, lambda: [b"ssh", b"my-laptop", b"a", b"Home_1.x", b"ping", b"-"], (InvalidName,), _WORDS
    ),
    Target(
        "model.names.base58", _base58, lambda: [PEER.multihash, str(PEER).encode(), b"\0\0"], share=0.3, max_input=200
    ),
    Target(
        "model.names.peer_id",
        partial(_parsed, PeerId.parse),
        lambda: [str(PEER).encode(), str(HASHED).encode(), b"bafzaajaiaejcb", b"z2k" + str(PEER).encode()],
        (InvalidPeerId,),
        _WORDS,
        max_input=_SHORT,
    ),
    Target(
        "model.addresses.text",
        partial(_parsed, Multiaddr.parse),
        lambda: [str(address).encode() for address in ADDRESSES],
        (InvalidAddress,),
        _PARTS,
        max_input=2000,
    ),
    Target(
        "model.addresses.relay",
        partial(_parsed, RelayAddress.parse),
        lambda: [f"{address}/p2p/{PEER}".encode() for address in ADDRESSES[:3]],
        (InvalidAddress,),
        _PARTS,
        share=0.5,
    ),
    Target(
        "model.addresses.relay_input",
        _relay_input,
        lambda: [
            b"203.0.113.50",
            b"203.0.113.50:7777",
            b"[2001:db8::1]:7777",
            b"2001:db8::1",
            b"::ffff:1.2.3.4",
            b"fe80::1%eth0",
        ],
        (InvalidAddress,),
        _PARTS,
        share=0.5,
    ),
    Target(
        "model.addresses.endpoint",
        _endpoint,
        lambda: [b"localhost:22", b"[::1]:80", b"unix:/run/x.sock", b"192.168.1.5:0", b"a." * 100 + b"org:1"],
        (InvalidAddress,),
        (b":", b"[", b"]", b"unix:/", b"%", b"."),
    ),
    Target(
        "model.duration",
        _duration,
        lambda: [b"1h30m", b"0", b"2m0s", b"1.5s", b"250ms", "3µs".encode()],
        share=0.3,
        max_input=200,
    ),
    Target(
        "model.codec", _json, json_seeds, (RequestError,), JSON_WORDS, mutation.json_behind(1), share=1.5, memory=2000
    ),
    Target(
        "trust.authorized_keys",
        _allowlist,
        _allowlist_seeds,
        (UnknownPeer, AlreadyExists, LimitReached, RequestError),
        _WORDS,
        share=0.6,
    ),
    Target(
        "trust.authorized_keys.moment",
        _moment,
        lambda: [each.encode() for each in drawn(rfc3339_moments())],
        (RequestError,),
        share=0.5,
        max_input=100,
    ),
    Target(
        "trust.authorized_keys.file",
        partial(_in_file, _load_allowlist),
        lambda: [seed[1:] for seed in _allowlist_seeds()],
        (RequestError,),
        _WORDS,
        share=0.3,
    ),
    Target(
        "trust.identity", partial(_in_file, Identity.load), _identity_seeds, (InvalidKeyFile,), share=0.3, max_input=200
    ),
    Target(
        "linux.memory", _memory_size, lambda: [b"128M", b"1G", b"134217728", b"0K"], (), (b"M", b"9" * 5000), share=0.2
    ),
    Target(
        "p2p.networks",
        _networks,
        lambda: [
            b"# table\n203.0.113.0/24   AS64500\n2001:db8::/32    64501\n",
            b"0.0.0.0/0 1\n10.0.0.0/8 as2;x\n::/0 3\n",
        ],
        (RequestError,),
        (b"/0 ", b"/32", b"AS", b"4294967296", b"::", b"203.0.113.0/25 7\n"),
        share=0.7,
    ),
    Target("p2p.relay_state", _relay_state, _relay_state_seeds, (), (b" ", b"-", b"/64", b"::", b"\n"), share=0.5),
)
