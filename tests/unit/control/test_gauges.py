"""Gauges: what stands now, on top of what was counted."""

from __future__ import annotations

import trio

from peerupd.control.gauges import Gauges
from peerupd.model import counters as names
from peerupd.model.counters import Count, Counters
from peerupd.trust.identity import Identity
from tests.support.hosts import ECHO, call, make_host, running

MEMORY = 1 << 20


def value(read: tuple[Count, ...], name: str, **labels: str) -> int:
    """Of the one counter that has exactly these labels."""
    return next(count.value for count in read if count.name == name and count.labels == labels)


async def test_connections_streams_bytes_and_memory_are_read_when_somebody_asks() -> None:
    counters = Counters()
    own, other = Identity.generate(), Identity.generate()
    host = make_host(other.peer_id, identity=own, counters=counters, memory=MEMORY)
    far = make_host(own.peer_id, identity=other)
    gauges = Gauges(host, counters, MEMORY)
    assert value(gauges.read(), names.CONNECTIONS_ACTIVE, path_type="DIRECT") == 0
    with trio.fail_after(30):
        async with running(host, far):
            connection = await call(host, far)
            stream = await connection.open_stream([ECHO])
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
            read = gauges.read()
            assert value(read, names.CONNECTIONS_ACTIVE, path_type="DIRECT") == 1
            assert value(read, names.CONNECTIONS_ACTIVE, path_type="RELAYED") == 0
            assert value(read, names.STREAMS_ACTIVE) >= 1
            assert value(read, names.CONNECTION_BYTES, direction="tx", path_type="DIRECT") >= 5
            assert value(read, names.CONNECTION_BYTES, direction="rx", path_type="DIRECT") >= 5
            assert value(read, names.MEMORY_LIMIT) == MEMORY
            assert value(read, names.MEMORY_HELD) == 0


async def test_who_counts_in_portions_is_asked_to_settle_first() -> None:
    counters = Counters()
    host = make_host(counters=counters)
    settle = lambda: counters.count(names.DECISIONS, decision="allow")  # noqa: E731 - one line says it
    gauges = Gauges(host, counters, MEMORY, (settle,))
    assert value(gauges.read(), names.DECISIONS, decision="allow") == 1


async def test_reading_changes_nothing_of_what_was_counted() -> None:
    counters = Counters()
    gauges = Gauges(make_host(counters=counters), counters, MEMORY)
    assert gauges.read() == gauges.read()
    assert counters.snapshot() == ()
