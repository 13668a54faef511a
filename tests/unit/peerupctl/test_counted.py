"""The counters as a short block for people."""

from __future__ import annotations

import pytest

from peerupctl.counted import rows
from peerupctl.render import size
from peerupd.model import counters as names
from peerupd.model.codec import to_json
from peerupd.model.counters import Counters


def shown(made: Counters) -> dict[str, str]:
    return dict(rows(to_json(made.snapshot())))


def test_an_older_daemon_without_counters_shows_nothing() -> None:
    assert list(rows([])) == []


def test_a_quiet_daemon_shows_its_connections_and_streams_only() -> None:
    made = Counters()
    made.put(names.STREAMS_ACTIVE, 0)
    assert list(shown(made)) == ["connections", "streams"]


def test_every_block_is_in_words() -> None:
    made = Counters()
    made.put(names.CONNECTIONS_ACTIVE, 2, path_type="DIRECT")
    made.put(names.CONNECTIONS_ACTIVE, 1, path_type="RELAYED")
    made.count(names.CONNECTIONS, 5, direction="inbound", path_type="DIRECT")
    made.count(names.CONNECTIONS, 3, direction="outbound", path_type="RELAYED")
    made.count(names.CONNECTIONS_REFUSED, 4, reason="rate")
    made.put(names.STREAMS_ACTIVE, 6)
    made.count(names.STREAMS, 7, direction="outbound")
    made.count(names.DECISIONS, 8, decision="allow")
    made.count(names.DECISIONS, decision="deny")
    made.count(names.DIALS, 2, path_type="DIRECT", result="success")
    made.count(names.DIALS, path_type="DIRECT", result="timeout")
    made.count(names.DIALS, 9, path_type="DIRECT", result="called_off")
    made.count(names.DIALS, 9, path_type="RELAYED", result="success")
    made.count(names.PROXY_CONNECTIONS, 3, service="ssh", side="served")
    made.count(names.PROXY_ACTIVE, service="ssh", side="served")
    made.count(names.PROXY_BYTES, 2048, direction="rx", service="ssh", side="served")
    made.count(names.PROXY_BYTES, 10, direction="tx", service="web", side="used")
    made.count(names.PROXY_CONNECTIONS, service="web", side="used")
    made.put(names.MEMORY_HELD, 512)
    made.put(names.MEMORY_LIMIT, 3 << 30)
    assert shown(made) == {
        "connections": "2 direct and 1 relayed now, 5 in, 3 out, 4 refused",
        "streams": "6 open now, 0 in, 7 out",
        "gate": "8 allowed, 1 denied",
        "dials": "2 of 3 direct, 9 of 9 relayed succeeded",
        "service ssh": "3 connections, 1 open now, 2.0 KiB in, 0 B out",
        "used web": "1 connections, 0 open now, 0 B in, 10 B out",
        "memory budget": "512 B held of 3.0 GiB",
    }


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 20, "1.0 MiB"),
        (5 << 40, "5.0 TiB"),
        (1 << 60, "1048576.0 TiB"),
    ],
)
def test_sizes_in_words(count: int, words: str) -> None:
    assert size(count) == words
