"""Generators of the house's values, for every test that needs any of them.

Written down once, so that a test says what it wants (`invites()`) and not how such a thing is made.
"""

from __future__ import annotations

import dataclasses
import string
from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import strategies as st

from peerupd.model import snapshots as snapshots_module
from peerupd.model.addresses import Multiaddr, RelayAddress
from peerupd.model.names import PeerId
from peerupd.wire.invite import TOKEN_SIZE, Invite
from peerupd.wire.keys import KeyType, PublicKey

LABEL_CHARACTERS = string.ascii_lowercase + string.digits
NAME_CHARACTERS = string.ascii_letters + string.digits + "-_."


# -- names ---------------------------------------------------------------------------------------------------------


def public_keys() -> st.SearchStrategy[PublicKey]:
    """Public keys in form only: nobody has the private half."""
    return st.binary(min_size=32, max_size=32).map(lambda data: PublicKey(KeyType.ED25519, data))


def peer_ids() -> st.SearchStrategy[PeerId]:
    """Of an Ed25519 key mostly, now and then a hash."""
    hashed = st.binary(min_size=32, max_size=32).map(lambda digest: PeerId(b"\x12\x20" + digest))
    return st.one_of(public_keys().map(lambda key: key.peer_id), hashed)


def labels() -> st.SearchStrategy[str]:
    """Service and network names."""
    return st.text(LABEL_CHARACTERS, min_size=1, max_size=63)


def peer_names() -> st.SearchStrategy[str]:
    """What is left of a peer's name once it is sanitised; may be empty."""
    return st.text(NAME_CHARACTERS, max_size=64)


# -- addresses -----------------------------------------------------------------------------------------------------


def host_parts() -> st.SearchStrategy[tuple[str, str]]:
    """The outermost part of a multiaddr."""
    return st.one_of(
        st.ip_addresses(v=4).map(lambda ip: ("ip4", str(ip))),
        st.ip_addresses(v=6).map(lambda ip: ("ip6", str(ip))),
        st.tuples(st.sampled_from(("dns", "dns4", "dns6")), labels().map(lambda label: f"{label}.example.org")),
    )


def tcp_addresses() -> st.SearchStrategy[Multiaddr]:
    """A host and a TCP port."""
    port = st.integers(0, 65535).map(lambda number: ("tcp", str(number)))
    return st.tuples(host_parts(), port).map(Multiaddr)


def multiaddrs() -> st.SearchStrategy[Multiaddr]:
    """Of all the protocols that are known; not all of them make sense."""
    part = st.one_of(
        host_parts(),
        st.tuples(st.sampled_from(("tcp", "udp")), st.integers(0, 65535).map(str)),
        st.tuples(st.just("p2p"), peer_ids().map(str)),
        st.tuples(st.just("sni"), labels()),
        st.tuples(
            st.sampled_from(("p2p-circuit", "tls", "noise", "quic", "quic-v1", "ws", "wss")),
            st.just(""),
        ),
    )
    return st.lists(part, min_size=1, max_size=6).map(lambda parts: Multiaddr(tuple(parts)))


def relay_addresses() -> st.SearchStrategy[RelayAddress]:
    """Relays over plain TCP."""
    return st.builds(RelayAddress, tcp_addresses(), peer_ids())


def invites() -> st.SearchStrategy[Invite]:
    """What a code may say."""
    token = st.binary(min_size=TOKEN_SIZE, max_size=TOKEN_SIZE)
    return st.builds(Invite, token, relay_addresses(), peer_ids(), st.one_of(st.just(""), labels()))


# -- bytes on their way --------------------------------------------------------------------------------------------


def portions(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """`data`, cut anywhere, as a socket may give it."""
    cuts = st.lists(st.integers(0, len(data)), max_size=8).map(lambda at: [0, *sorted(at), len(data)])
    return cuts.map(lambda at: [data[a:b] for a, b in pairwise(at)])


def fields() -> st.SearchStrategy[list[tuple[int, int | bytes]]]:
    """The fields of a protobuf message."""
    value = st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=64))
    return st.lists(st.tuples(st.integers(1, 2**29 - 1), value), max_size=12)


def protocols() -> st.SearchStrategy[str]:
    """Protocol IDs, as multistream-select negotiates them."""
    return st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1, max_size=40).map(
        lambda name: f"/{name}"
    )


# -- the control API -----------------------------------------------------------------------------------------------


SNAPSHOT_KINDS = [
    kind
    for kind in vars(snapshots_module).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind is not PeerId
]
"""Every frozen picture, request, report and event of the control API."""


def snapshots(kind: type) -> st.SearchStrategy[object]:
    """One of `SNAPSHOT_KINDS`, filled in any way."""
    st.register_type_strategy(PeerId, peer_ids())
    st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
    return st.from_type(kind)


# -- the allowlist -------------------------------------------------------------------------------------------------


def rfc3339_moments() -> st.SearchStrategy[str]:
    """A date and time with its zone, from 1970 to 2200."""
    moments = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))
    return moments.map(lambda moment: moment.isoformat(timespec="seconds"))


def allowlist_lines() -> st.SearchStrategy[str]:
    """A line of `authorized_keys` as a person, peer-up or an accident may have written it."""
    attributes = st.lists(
        st.one_of(
            rfc3339_moments().map(lambda moment: f"expires={moment}"),
            st.sampled_from(("verified=sha256:1a3f881b", "group=home", "zebra=1", "keep=yes", "expires=soon", "junk")),
        ),
        max_size=3,
        unique_by=lambda word: word.partition("=")[0],
    )
    comment = st.one_of(
        st.just(""), st.text(st.characters(exclude_characters="\n"), max_size=20).map(lambda c: f" #{c}")
    )
    entry = st.tuples(peer_ids(), attributes, comment).map(lambda e: "  ".join([str(e[0]), *e[1]]) + e[2])
    return st.one_of(entry, st.just(""), st.just("# a note"), st.text(max_size=30).map(lambda t: t.replace("\n", " ")))


# -- configuration text --------------------------------------------------------------------------------------------

YAML_KEYS = ("a", "b", "c d", "no", "1", "é")
YAML_TEXTS = ("x", "true", "12", "# no comment", "a: b", '"', "'", "- y", "{", "", "é 𝄞", "\u202e", "tab\there", "a\nb")


def yaml_values() -> st.SearchStrategy[object]:
    """Plain data as a configuration may hold, three levels deep."""
    scalars = st.none() | st.booleans() | st.integers(-9, 99) | st.sampled_from(YAML_TEXTS)
    shallow = st.lists(scalars, max_size=3) | st.dictionaries(st.sampled_from(YAML_KEYS), scalars, max_size=3)
    deep = st.lists(scalars | shallow, max_size=3)
    return scalars | shallow | deep | st.dictionaries(st.sampled_from(YAML_KEYS), scalars | shallow, max_size=3)


@st.composite
def yaml_texts(draw: st.DrawFn) -> str:
    """A table as YAML of many hands: block and flow, indents, quotes, comments (each once), blank lines, line ends."""
    data = draw(st.dictionaries(st.sampled_from(YAML_KEYS), yaml_values(), max_size=4))
    lines = _YamlHand(draw).table(data, "")
    head, end = draw(st.sampled_from(["", "# head\n\n", "---\n"])), draw(st.sampled_from(["\n", "\n\n# foot\n", ""]))
    newline = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    return (head + "\n".join(lines) + end).replace("\n", newline)


class _YamlHand:
    """Writes plain data with styles as they are drawn."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._comments = 0

    def table(self, data: dict[str, object], pad: str) -> list[str]:
        lines = []
        for key, value in data.items():
            lines += self._before(pad)
            written = key if self._chance() else f'"{key}"'
            lines += self._value(f"{pad}{written}:", value, pad)
        return lines

    def items(self, data: list[object], pad: str) -> list[str]:
        lines = []
        for value in data:
            lines += self._before(pad)
            if isinstance(value, dict) and value and self._chance():
                first, *rest = self.table(value, pad + "  ")
                lines += [f"{pad}-", first, *rest] if "#" in first or not first else [f"{pad}- {first.lstrip()}", *rest]
                continue
            lines += self._value(f"{pad}-", value, pad)
        return lines

    def _value(self, start: str, value: object, pad: str) -> list[str]:
        if not (isinstance(value, dict | list) and value and self._chance()):
            written = self._inline(value)
            return [f"{start} {written}{self._tail()}" if written else f"{start}{self._tail()}"]
        deeper = pad + " " * self._draw(st.sampled_from([2, 4]))
        if isinstance(value, dict):
            return [start + self._tail(), *self.table(value, deeper)]
        dashes = pad if start.endswith(":") and self._chance() else deeper
        return [start + self._tail(), *self.items(value, dashes)]

    def _inline(self, value: object) -> str:
        if value is None:
            return self._draw(st.sampled_from(["", "~", "null"]))
        return self._flow(value)

    def _flow(self, value: object) -> str:
        match value:
            case dict():
                return "{" + ", ".join(f"{self._flow(key)}: {self._flow(inner)}" for key, inner in value.items()) + "}"
            case list():
                return "[" + ", ".join(map(self._flow, value)) + "]"
            case str():
                bare = value.isalpha() and value not in ("true", "no") and self._chance()
                return value if bare else _yaml_quoted(value)
            case None:
                return "~"
            case bool():
                return "true" if value else "false"
        return str(value)

    def _before(self, pad: str) -> list[str]:
        return self._draw(st.sampled_from([[], [], [""], [pad + self._comment()], [self._comment()]]))

    def _tail(self) -> str:
        return self._draw(st.sampled_from(["", "", "  " + self._comment()]))

    def _comment(self) -> str:
        self._comments += 1
        return f"# comment {self._comments}: {{}} [] - x"

    def _chance(self) -> bool:
        return self._draw(st.booleans())


def _yaml_quoted(text: str) -> str:
    escaped = {"\n": "\\n", "\t": "\\t", '"': '\\"', "\u202e": "\\u202e"}
    return '"' + "".join(escaped.get(character, character) for character in text) + '"'
