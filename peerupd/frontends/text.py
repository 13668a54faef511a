"""The text forms of reports: lines for `grep`, `awk` and `cut`, as Go peer-up prints them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from peerupd.model.names import SHORT
from peerupd.model.snapshots import (
    AuthEntry,
    NodeStatus,
    PeerStatus,
    Ping,
    PingReport,
    PingResult,
    ProxyStatus,
    RelayStatus,
    Resolved,
    ServiceStatus,
    Version,
    Whoami,
)


def render(verb: str, ask: object, report: object) -> str | None:
    """The lines of a report, each with its newline; None: this verb has no text form."""
    if verb not in FORMS:
        return None
    return "".join(f"{line}\n" for line in FORMS[verb](ask, report))


def short(peer: str) -> str:
    """A peer ID where a line has no room for all of it."""
    return f"{peer[:SHORT]}..."


def _status(_: object, report: NodeStatus) -> Iterator[str]:
    yield f"peer_id: {report.peer_id}"
    yield f"version: {report.version}"
    yield f"uptime: {report.uptime_seconds}s"
    yield f"connected_peers: {report.connected_peers}"
    yield f"services: {report.services_count}"
    yield from _block("listen_addresses", report.listen_addresses)
    yield from _block("relay_addresses", report.relay_addresses)
    if report.relays:
        yield from _block("relays", (f"{short(relay.peer_id)} {relay.state}" for relay in report.relays))
    if report.unused_addresses:
        yield from _block("unused_addresses", report.unused_addresses)
    if report.problems:
        yield from _block("problems", report.problems)


def _block(title: str, lines: Iterable[str]) -> Iterator[str]:
    listed = tuple(lines)
    yield f"{title}: {len(listed)}"
    yield from (f"  {line}" for line in listed)


def _services(_: object, report: Iterable[ServiceStatus]) -> Iterator[str]:
    for service in report:
        state = "enabled" if service.enabled else "disabled"
        yield f"{service.name}\t{service.local_address}\t{service.protocol}\t{state}"


def _peers(_: object, report: Iterable[PeerStatus]) -> Iterator[str]:
    for peer in report:
        yield f"{short(peer.id)}\t{peer.agent_version or 'unknown'}\t{len(peer.addresses)} addrs"


def _auth(_: object, report: Iterable[AuthEntry]) -> Iterator[str]:
    for entry in report:
        yield f"{entry.peer_id}\t# {entry.comment}" if entry.comment else entry.peer_id


def _ping(ask: Ping, report: PingReport) -> Iterator[str]:
    peer = report.peer_id or (report.results[0].peer_id if report.results else "")
    yield f"PING {ask.peer} ({short(peer)}):"
    yield from (_ping_line(result) for result in report.results)
    stats = report.stats
    yield f"--- {ask.peer} ping statistics ---"
    yield (
        f"{stats.sent} sent, {stats.received} received, {stats.loss_pct:.0f}% loss, "
        f"rtt min/avg/max = {stats.min_ms:.1f}/{stats.avg_ms:.1f}/{stats.max_ms:.1f} ms"
    )


def _ping_line(result: PingResult) -> str:
    if result.error:
        return f"seq={result.seq} error={result.error}"
    return f"seq={result.seq} rtt={result.rtt_ms:.1f}ms path=[{result.path}]"


def _resolved(_: object, report: Resolved) -> Iterator[str]:
    yield f"{report.name} → {report.peer_id} (source: {report.source})"


def _proxies(_: object, report: Iterable[ProxyStatus]) -> Iterator[str]:
    for proxy in report:
        yield f"{proxy.id}\t{proxy.listen_address}\t{proxy.peer}\t{proxy.service}\t{proxy.path}\t{proxy.connections}"


def _relays(_: object, report: Iterable[RelayStatus]) -> Iterator[str]:
    for relay in report:
        yield f"{relay.peer_id}\t{relay.state}\t{' '.join(relay.addresses)}"


def _whoami(_: object, report: Whoami) -> Iterator[str]:
    yield report.peer_id


def _version(_: object, report: Version) -> Iterator[str]:
    yield f"peerup {report.version} ({report.commit}) built {report.built}"
    yield f"Python {report.python}"


FORMS: Final[dict[str, Callable[[Any, Any], Iterator[str]]]] = {
    "status": _status,
    "services": _services,
    "peers": _peers,
    "auth_list": _auth,
    "ping": _ping,
    "resolve": _resolved,
    "proxies": _proxies,
    "relays": _relays,
    "whoami": _whoami,
    "version": _version,
}
