"""Counters: what happens, counted in one place; read by `status`, and by metrics later.

A name that ends in `_total` only grows, any other is a gauge: what stands or is held now. Names and labels are those of
`NAMES` and no others; a label takes at most `MAX_VALUES` different values, whatever comes beyond is counted as `other`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MAX_VALUES: Final = 256  # different values of one label of one name
OTHER: Final = "other"

CONNECTIONS: Final = "peerup_connections_total"
CONNECTIONS_ACTIVE: Final = "peerup_connections_active"
CONNECTIONS_REFUSED: Final = "peerup_connections_refused_total"
CONNECTION_BYTES: Final = "peerup_connection_bytes_total"
STREAMS: Final = "peerup_streams_total"
STREAMS_ACTIVE: Final = "peerup_streams_active"
STREAMS_REFUSED: Final = "peerup_streams_refused_total"
DECISIONS: Final = "peerup_auth_decisions_total"
DIALS: Final = "peerup_path_dial_total"
PROXY_CONNECTIONS: Final = "peerup_proxy_connections_total"
PROXY_ACTIVE: Final = "peerup_proxy_active_connections"
PROXY_REFUSED: Final = "peerup_proxy_refused_total"
PROXY_BYTES: Final = "peerup_proxy_bytes_total"
RESERVATIONS: Final = "peerup_relay_reservations_total"
RESERVATIONS_ACTIVE: Final = "peerup_relay_reservations_active"
CIRCUITS: Final = "peerup_relay_circuits_total"
CIRCUITS_ACTIVE: Final = "peerup_relay_circuits_active"
CIRCUIT_BYTES: Final = "peerup_relay_circuit_bytes_total"
MEMORY_HELD: Final = "peerup_memory_held_bytes"
MEMORY_LIMIT: Final = "peerup_memory_limit_bytes"

NAMES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    CONNECTIONS: (
        "Connections that stood: direction inbound or outbound, path_type DIRECT or RELAYED.",
        ("direction", "path_type"),
    ),
    CONNECTIONS_ACTIVE: ("Connections that stand.", ("path_type",)),
    CONNECTIONS_REFUSED: ("Callers sent away before their connection stood, by reason.", ("reason",)),
    CONNECTION_BYTES: (
        "Bytes of streams, rx from and tx to peers; those of RELAYED connections run through a relay's connection too.",
        ("direction", "path_type"),
    ),
    STREAMS: ("Streams opened, inbound by peers or outbound by us.", ("direction",)),
    STREAMS_ACTIVE: ("Streams that are open.", ()),
    STREAMS_REFUSED: ("Streams of peers that were refused, by reason.", ("reason",)),
    DECISIONS: ("What the gate decided: allow or deny.", ("decision",)),
    DIALS: (
        "Dials: path_type DIRECT or RELAYED, result success, refused, wrong_peer, timeout, called_off or failure.",
        ("path_type", "result"),
    ),
    PROXY_CONNECTIONS: ("Connections to a service: side served (ours) or used (a peer's).", ("service", "side")),
    PROXY_ACTIVE: ("Connections to a service that are open.", ("service", "side")),
    PROXY_REFUSED: ("Connections to a service that came to nothing, by reason.", ("service", "side", "reason")),
    PROXY_BYTES: ("Bytes of a service, each once: rx from and tx to the peer.", ("direction", "service", "side")),
    RESERVATIONS: ("Reservations asked of this relay: result granted, renewed or the reason of a no.", ("result",)),
    RESERVATIONS_ACTIVE: ("Reservations that this relay holds.", ()),
    CIRCUITS: ("Circuits asked of this relay: result opened or the reason of a no.", ("result",)),
    CIRCUITS_ACTIVE: ("Circuits that stand on this relay.", ()),
    CIRCUIT_BYTES: ("Bytes that this relay carried, each once.", ()),
    MEMORY_HELD: ("Received and unread bytes that all connections hold.", ()),
    MEMORY_LIMIT: ("What all connections may hold: over it, readers pause.", ()),
}
"""What each name means, and its labels."""


@dataclass(frozen=True, slots=True)
class Count:
    """One counter or gauge, now."""

    name: str
    labels: Mapping[str, str]
    value: int


class Counters:
    """The counters of one process."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[str, ...], int]] = {}
        self._seen: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._keys: dict[tuple[object, ...], tuple[str, ...]] = {}

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """So many more; fewer, by a negative number, for a gauge. Raises `KeyError` for unknown names and labels."""
        key = self._key(name, labels)
        values = self._values.setdefault(name, {})
        values[key] = values.get(key, 0) + by

    def put(self, name: str, value: int, **labels: str) -> None:
        """A gauge stands at `value` now. Raises `KeyError` as `count` does."""
        self._values.setdefault(name, {})[self._key(name, labels)] = value

    def get(self, name: str, **labels: str) -> int:
        """The value, 0 if never counted: the sum over all labels that are not named. Raises `KeyError` as `count`."""
        known = NAMES[name][1]
        places = {known.index(label): value for label, value in labels.items() if _is_known(label, known)}
        values = self._values.get(name, {}).items()
        return sum(value for key, value in values if all(key[at] == wanted for at, wanted in places.items()))

    def copy(self) -> Counters:
        """The same counts; what is counted in one from now on is not in the other."""
        made = Counters()
        made._values = {name: dict(values) for name, values in self._values.items()}
        made._seen.update((where, set(values)) for where, values in self._seen.items())
        return made

    def snapshot(self) -> tuple[Count, ...]:
        """All that was ever counted, in the order of `NAMES`, then of the labels."""
        return tuple(
            Count(name, dict(zip(NAMES[name][1], key, strict=True)), value)
            for name in NAMES
            for key, value in sorted(self._values.get(name, {}).items())
        )

    def _key(self, name: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Found once; those with other values than the first `MAX_VALUES` are not kept."""
        asked = (name, *labels.items())
        if (found := self._keys.get(asked)) is not None:
            return found
        known = NAMES[name][1]
        if len(labels) != len(known):
            raise KeyError(f"{name} has the labels {known}, not {tuple(labels)}")
        found = tuple(self._bounded(name, label, labels[label]) for label in known)
        if OTHER not in found:
            self._keys[asked] = found
        return found

    def _bounded(self, name: str, label: str, value: str) -> str:
        seen = self._seen[name, label]
        if value not in seen:
            if len(seen) >= MAX_VALUES:
                return OTHER
            seen.add(value)
        return value


def _is_known(label: str, known: tuple[str, ...]) -> bool:
    if label not in known:
        raise KeyError(f"{label} is not one of the labels {known}")
    return True
