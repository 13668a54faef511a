"""The counters of a daemon as a short block for people; `--json` has all of them (docs/counters.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from peerupctl.render import size


def rows(counters: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """A title and its words a row; rows of which nothing was counted are left out."""
    found = _Counts(counters)
    if found.empty:
        return
    yield from _connections(found)
    yield from _gate(found)
    yield from _dials(found)
    yield from _services(found)
    yield from _memory(found)


class _Counts:
    """The counters by name and labels."""

    def __init__(self, counters: Iterable[Mapping[str, Any]]) -> None:
        self._all = [
            (c["name"].removeprefix("peerup_").removesuffix("_total"), c["labels"], c["value"]) for c in counters
        ]
        self.empty = not self._all

    def sum(self, name: str, **labels: str) -> int:
        """Of all that have this name and these labels."""
        return sum(value for known, has, value in self._all if known == name and labels.items() <= has.items())

    def values(self, name: str, label: str, **labels: str) -> list[str]:
        """What values a label has."""
        return sorted({has[label] for known, has, _ in self._all if known == name and labels.items() <= has.items()})


def _connections(found: _Counts) -> Iterator[tuple[str, str]]:
    direct, relayed = (found.sum("connections_active", path_type=path) for path in ("DIRECT", "RELAYED"))
    refused = found.sum("connections_refused")
    yield (
        "connections",
        f"{direct} direct and {relayed} relayed now, {_ways(found, 'connections')}, {refused} refused",
    )
    yield "streams", f"{found.sum('streams_active')} open now, {_ways(found, 'streams')}"


def _ways(found: _Counts, name: str) -> str:
    return f"{found.sum(name, direction='inbound')} in, {found.sum(name, direction='outbound')} out"


def _gate(found: _Counts) -> Iterator[tuple[str, str]]:
    allowed, denied = (found.sum("auth_decisions", decision=decision) for decision in ("allow", "deny"))
    if allowed or denied:
        yield "gate", f"{allowed} allowed, {denied} denied"


def _dials(found: _Counts) -> Iterator[tuple[str, str]]:
    words = []
    for path, title in (("DIRECT", "direct"), ("RELAYED", "relayed")):
        called_off = found.sum("path_dial", path_type=path, result="called_off")
        if tried := found.sum("path_dial", path_type=path) - called_off:
            words.append(f"{found.sum('path_dial', path_type=path, result='success')} of {tried} {title}")
    if words:
        yield "dials", ", ".join(words) + " succeeded"


def _services(found: _Counts) -> Iterator[tuple[str, str]]:
    """A row a service and side: ours are offered, those of peers are used."""
    for side, title in (("served", "service"), ("used", "used")):
        for service in found.values("proxy_connections", "service", side=side):
            labels = {"service": service, "side": side}
            made, open_ = (found.sum(name, **labels) for name in ("proxy_connections", "proxy_active_connections"))
            rx, tx = (size(found.sum("proxy_bytes", direction=way, **labels)) for way in ("rx", "tx"))
            yield f"{title} {service}", f"{made} connections, {open_} open now, {rx} in, {tx} out"


def _memory(found: _Counts) -> Iterator[tuple[str, str]]:
    if limit := found.sum("memory_limit_bytes"):
        yield "memory budget", f"{size(found.sum('memory_held_bytes'))} held of {size(limit)}"
