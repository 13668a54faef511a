"""Who is sent away and who gets in, what is counted of it, and bugs that stay where they are."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest
import trio

from peerupd.model.counters import (
    CONNECTION_BYTES,
    CONNECTIONS,
    CONNECTIONS_ACTIVE,
    CONNECTIONS_REFUSED,
    DECISIONS,
    STREAMS,
    STREAMS_REFUSED,
    Counters,
)
from peerupd.model.errors import PeerupError
from peerupd.p2p.connection import Connection
from peerupd.p2p.host import Host
from peerupd.p2p.rates import Rates
from peerupd.p2p.swarm import Swarm
from peerupd.trust.identity import Identity
from tests.support.hosts import allow, call, echoed, make_host, running, until


def pair(**words: object) -> tuple[Host, Host]:
    """A caller, and a called one that admits it."""
    identity = Identity.generate()
    called = make_host(identity.peer_id, **words)
    return make_host(called.peer_id, identity=identity), called


async def refused(called: Host, source: str = "127.0.0.1") -> bool:
    """A stranger's handshake; whether it was sent away without a word."""
    with closing(socket.socket()) as sock:
        sock.setblocking(False)
        sock.bind((source, 0))
        stream = trio.socket.from_stdlib_socket(sock)
        try:
            await stream.connect(("127.0.0.1", called.listen_addresses()[0].port))
            await stream.send(b"\xff" * 64)
            await stream.recv(100)
        except ConnectionResetError:
            return True
        return False


# -- rates -----------------------------------------------------------------------------------------------------------


async def test_an_address_that_failed_too_often_is_sent_away_and_another_is_not() -> None:
    caller, called = pair(rates=Rates(connection_burst=3, connection_interval=1000))
    async with running(caller, called):
        for _ in range(3):
            await refused(called, "127.3.0.1")
        await until(lambda: called.counters.get(CONNECTIONS_REFUSED, reason="handshake") == 3)
        with trio.fail_after(30):
            await refused(called, "127.3.0.1")
            await until(lambda: called.counters.get(CONNECTIONS_REFUSED, reason="rate") == 1)
            await call(caller, called)


async def test_where_an_authorised_peer_was_there_a_spent_address_stands_in_line() -> None:
    caller, called = pair(rates=Rates(connection_burst=1, connection_interval=1000))
    async with running(caller, called):
        await call(caller, called)
        for _ in range(5):
            await refused(called)
        await until(lambda: called.counters.get(CONNECTIONS_REFUSED, reason="handshake") == 5)
        with trio.fail_after(30):
            for _ in range(3):
                await caller.close_peer(called.peer_id)
                await call(caller, called)
        assert called.counters.get(CONNECTIONS_REFUSED, reason="rate") == 0


async def test_a_peer_that_is_let_in_pays_nothing() -> None:
    caller, called = pair(rates=Rates(connection_burst=1, connection_interval=1000))
    async with running(caller, called):
        for _ in range(5):
            await call(caller, called)
            await caller.close_peer(called.peer_id)
        assert called.counters.get(CONNECTIONS_REFUSED) == 0


async def test_streams_beyond_the_rate_are_reset() -> None:
    caller, called = pair(rates=Rates(streams_per_second=5))
    async with running(caller, called):
        connection = await call(caller, called)
        await connection.identified.wait()
        with pytest.raises((PeerupError, trio.BrokenResourceError)):
            for _ in range(200):
                await echoed(caller, called)
        assert called.counters.get(STREAMS_REFUSED, reason="rate") >= 1
        assert connection.reason == ""


# -- counters --------------------------------------------------------------------------------------------------------


async def test_connections_streams_bytes_and_decisions_are_counted() -> None:
    counters = Counters()
    caller, called = pair(counters=counters)
    assert called.counters is counters
    async with running(caller, called):
        await call(caller, called)
        await echoed(caller, called, bytes(1000))
        assert counters.get(CONNECTIONS, direction="inbound", path_type="DIRECT") == 1
        assert counters.get(CONNECTIONS_ACTIVE, path_type="DIRECT") == 1
        assert counters.get(STREAMS, direction="inbound") >= 1
        assert counters.get(DECISIONS, decision="allow") == 1
        await caller.close_peer(called.peer_id)
        await until(lambda: counters.get(CONNECTIONS_ACTIVE) == 0)
        assert counters.get(CONNECTION_BYTES, direction="rx") >= 1000
        assert counters.get(CONNECTION_BYTES, direction="tx") >= 1000
        called.gate.replace(allow())
        with pytest.raises(PeerupError):
            await call(caller, called)
        assert counters.get(DECISIONS, decision="deny") == 1
        assert counters.get(CONNECTIONS_REFUSED, reason="gate") == 1


# -- bugs ------------------------------------------------------------------------------------------------------------


async def test_a_room_that_fails_at_news_keeps_nothing_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_connection: Connection) -> None:
        raise ZeroDivisionError

    told: list[Connection] = []
    caller, called = pair()
    for news in (called.swarm.on_connected, called.swarm.on_disconnected):
        news += [broken, told.append]
    async with running(caller, called):
        connection = await call(caller, called)
        await until(lambda: len(told) == 1)
        await connection.close()
        await until(lambda: len(told) == 2)
        await call(caller, called)
    assert "a room failed at news" in caplog.text


async def test_a_bug_at_the_door_ends_one_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_words: object) -> None:
        raise ZeroDivisionError

    caller, called = pair()
    async with running(caller, called):
        with monkeypatch.context() as patch:
            patch.setattr(Swarm, "_let_come", broken)
            await refused(called)
        await call(caller, called)
    assert "a bug ended a connection" in caplog.text


async def test_a_bug_while_the_gate_is_asked_again_ends_that_connection_and_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caller, called = pair()
    async with running(caller, called):
        await call(caller, called)
        (inbound,) = called.connections()
        with monkeypatch.context() as patch:
            patch.setattr(inbound, "promote", lambda _decision: 1 / 0)
            patch.setattr(inbound, "_admission", None)
            called.regate()
        with trio.fail_after(30):
            await inbound.closed.wait()
        assert inbound.reason == "internal error"
        await call(caller, called)
    assert "a bug ended" in caplog.text
