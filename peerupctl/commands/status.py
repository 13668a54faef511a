"""`status`: what runs, and what is configured; it needs no daemon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peerupctl import counted
from peerupctl.call import Call, Verb
from peerupctl.render import lasting, table


def status(call: Call) -> int:
    """Of the running daemon, or of the files when none runs."""
    data = call.ask("status")
    return call.show(data, lambda data: _lines(call, data))


def _lines(call: Call, data: dict[str, Any]) -> Iterator[str]:
    running = "uptime_seconds" in data
    state = f"running for {lasting(data['uptime_seconds'])}" if running else call.colour("warn", "not running")
    yield f"peerup {data['version']}  {state}"
    for problem in data.get("problems", []):
        yield call.colour("bad", f"DEGRADED: {problem}")
    yield from table([("peer ID:", data["peer_id"]), ("config:", data.get("config", ""))])
    yield from _relays(call, data.get("relays", []))
    if running:
        yield f"peers connected: {data['connected_peers']}"
        yield from _listed("listening:", data["listen_addresses"])
    yield from _listed("unused addresses (no such transport here):", data.get("unused_addresses", []))
    for title, key in (("authorized peers:", "authorized"), ("services:", "services"), ("names:", "names")):
        yield from _listed(title, data.get(key, []))
    if running:
        yield from _listed("since the start:", table(counted.rows(data.get("counters", []))))


def _relays(call: Call, relays: list[dict[str, Any]]) -> Iterator[str]:
    if not relays:
        yield call.colour("warn", "no relay: not paired yet (peerupctl init | join)")
    for relay in relays:
        yield f"relay {call.relay_line(relay)}"


def _listed(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield title
        yield from (f"  {line}" for line in lines)


VERBS = {"status": Verb(status)}
