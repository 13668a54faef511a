"""`ping`, `resolve`."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from itertools import count as count_up
from time import sleep
from typing import Any

from peerupctl.call import Call, Verb
from peerupctl.render import short
from peerupd.model.duration import parse_duration
from peerupd.model.errors import DaemonNotRunning, EnvironmentalError, RequestError


def ping(call: Call) -> int:
    """Until interrupted, or `-c` times; exit status 1 when nobody answered."""
    return _ping(call, call.options.count)


def daemon_ping(call: Call) -> int:
    """Four times unless told otherwise."""
    call.the_daemon()
    return _ping(call, call.options.count or 4)


def resolve(call: Call) -> int:
    """By the names of the config; peer IDs stand for themselves."""
    data = call.ask("resolve", name=call.options.name)
    return call.show(data, lambda data: [f"{data['name']} → {data['peer_id']} (source: {data['source']})"])


def _ping(call: Call, count: int) -> int:
    results: list[dict[str, Any]] = []
    try:
        for result in _pings(call, count):
            if not results:
                _say_target(call, result)
            results.append(result)
            call.say(json.dumps(result) if call.options.json else _line(result))
    except KeyboardInterrupt:
        call.note("")
    stats = _stats(results)
    call.say(json.dumps(stats) if call.options.json else _summary(call.options.peer, stats))
    return 0 if stats["received"] else 1


def _pings(call: Call, count: int) -> Iterator[dict[str, Any]]:
    """One question a ping: the daemon keeps the connection, so each costs one stream."""
    o = call.options
    request = {"peer": o.peer, "interval_ms": o.interval, "path": o.path}
    if call.daemon is None:  # a host of our own is made once, so it must do them all
        report = call.ask("ping", **request, count=count or 4)
        yield from report["results"]
        return
    for number in count_up(1):
        yield _one_ping(call, request, number)
        if number == count:
            return
        sleep(o.interval / 1000)


def _one_ping(call: Call, request: dict[str, Any], number: int) -> dict[str, Any]:
    """A peer that has answered may be away for a while; raises when the first ping cannot even be tried."""
    try:
        report = call.ask("ping", **request, count=1)
    except DaemonNotRunning:
        raise
    except EnvironmentalError as why:
        if number == 1:
            raise
        return {"seq": number, "peer_id": call.options.peer, "rtt_ms": 0.0, "path": "", "error": why.message}
    return {**report["results"][0], "seq": number}


def _say_target(call: Call, result: dict[str, Any]) -> None:
    if not call.options.json:
        call.say(f"PING {call.options.peer} ({short(result['peer_id'])}):")


def _line(result: dict[str, Any]) -> str:
    if result.get("error"):
        return f"seq={result['seq']} error={result['error']}"
    return f"seq={result['seq']} rtt={result['rtt_ms']:.1f}ms path=[{result['path']}]"


def _stats(results: list[dict[str, Any]]) -> dict[str, Any]:
    times = [result["rtt_ms"] for result in results if not result.get("error")]
    sent, received = len(results), len(times)
    return {
        "sent": sent,
        "received": received,
        "lost": sent - received,
        "loss_pct": 100.0 * (sent - received) / sent if sent else 0.0,
        "min_ms": min(times, default=0.0),
        "avg_ms": sum(times) / received if received else 0.0,
        "max_ms": max(times, default=0.0),
    }


def _summary(peer: str, stats: dict[str, Any]) -> str:
    spread = f"{stats['min_ms']:.1f}/{stats['avg_ms']:.1f}/{stats['max_ms']:.1f}"
    counts = f"{stats['sent']} sent, {stats['received']} received, {stats['loss_pct']:.0f}% loss"
    return f"--- {peer} ping statistics ---\n{counts}, rtt min/avg/max = {spread} ms"


def _milliseconds(text: str) -> int:
    """`1s`, `500ms`, or a bare number of milliseconds."""
    try:
        return int(text) if text.isdigit() else int(parse_duration(text) * 1000)
    except ValueError as why:
        raise RequestError(f"--interval: wanted {why}, got {text!r}") from None


def _ping_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("peer", help="a name or a peer ID")
    parser.add_argument("-c", "-n", "--count", type=int, default=0, metavar="N", help="how many; default: endless")
    parser.add_argument("--interval", type=_milliseconds, default=1000, help="between pings; default 1s")
    parser.add_argument("--path", choices=("any", "direct", "relay"), default="any", help="insist on a path")


VERBS = {
    "ping": Verb(ping, _ping_arguments),
    "daemon_ping": Verb(daemon_ping, _ping_arguments),
    "resolve": Verb(resolve, lambda parser: parser.add_argument("name", help="a name or a peer ID")),
}
