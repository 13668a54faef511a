"""What ended or starved a stock py-libp2p host leaves ours serving an authorised peer, from the same address."""

from __future__ import annotations

import logging
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress

import pytest
import trio

from peerupd.model.counters import CONNECTIONS_REFUSED
from peerupd.p2p.half_open import MAX_PER_SOURCE
from peerupd.p2p.host import Host
from peerupd.p2p.rates import CONNECTION_BURST
from peerupd.p2p.streams import Stream
from peerupd.trust.identity import Identity
from peerupd.wire.multistream import MULTISTREAM, Listener
from tests.support.hosts import NOWHERE, call, echoed, make_host, running, until

ANSWER_WITHIN = 5.0  # seconds


class Scene:
    """A gated host, an authorised friend, and whoever attacks."""

    def __init__(self) -> None:
        friend, insider = Identity.generate(), Identity.generate()
        self.victim = make_host(friend.peer_id, insider.peer_id)
        self.friend = make_host(identity=friend, gated=False)
        self.insider = make_host(identity=insider, gated=False)  # authorised, and hostile

    @property
    def port(self) -> tuple[str, int]:
        return "127.0.0.1", self.victim.listen_addresses()[0].port or 0

    async def raw(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(*self.port)

    async def assert_friend_is_served(self) -> None:
        """Over a new connection."""
        with trio.fail_after(ANSWER_WITHIN):
            await self.friend.close_peer(self.victim.peer_id)
            await call(self.friend, self.victim)
            assert await echoed(self.friend, self.victim, b"hello") == b"hello"


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    async with running(made.victim, made.friend, made.insider):
        yield made


def line(text: bytes) -> bytes:
    assert len(text) < 127
    return bytes([len(text) + 1]) + text + b"\n"


HEADER = line(MULTISTREAM.encode())


async def raw_stream(attacker: Host, victim: Host) -> Stream:
    """A stream with nothing said on it yet."""
    connection = attacker.connections(victim.peer_id)[0]
    return connection._muxer.open()


async def test_a_protocol_name_that_is_not_text_before_authentication() -> None:
    async with scene() as at, await at.raw() as stream:
        await stream.send_all(HEADER + line(b"\xff\xfe\xfd"))
        with trio.fail_after(ANSWER_WITHIN):
            while await stream.receive_some():
                pass  # our header, then the end
        await at.assert_friend_is_served()


async def test_a_protocol_name_that_is_not_text_on_a_stream() -> None:
    async with scene() as at:
        await call(at.insider, at.victim)
        stream = await raw_stream(at.insider, at.victim)
        await stream.send_all(HEADER + line(b"\xff\xfe\xfd"))
        with trio.fail_after(ANSWER_WITHIN), pytest.raises(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        assert await echoed(at.insider, at.victim, b"the connection lives") == b"the connection lives"
        await at.assert_friend_is_served()


async def test_a_handler_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(stream: Stream) -> None:
        await stream.receive_some()
        raise RuntimeError("a bug in a handler")

    async with scene() as at:
        at.victim.set_stream_handler("/broken", broken)
        await call(at.insider, at.victim)
        caplog.set_level(logging.ERROR)
        for _ in range(3):
            stream = await at.insider.new_stream(at.victim.peer_id, ["/broken"])
            await stream.send_all(b"x")
            with trio.fail_after(ANSWER_WITHIN), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        await at.assert_friend_is_served()
    assert [bool(record.exc_info) for record in caplog.records] == [True, False, False]


async def test_a_bug_in_the_handshake_ends_one_handshake(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug in the handshake")

    async with scene() as at:
        with monkeypatch.context() as patch:
            patch.setattr(Listener, "receive", broken)
            async with await at.raw() as stream:
                await stream.send_all(HEADER)
                with trio.fail_after(ANSWER_WITHIN), suppress(trio.BrokenResourceError):
                    assert await stream.receive_some() == b""
        await until(lambda: "a bug in the handshake" in caplog.text)
        await at.assert_friend_is_served()


async def test_300_half_open_connections_from_the_address_of_an_authorised_peer() -> None:
    async with scene() as at:
        await at.assert_friend_is_served()
        sockets = [socket.create_connection(at.port) for _ in range(300)]
        try:
            await at.assert_friend_is_served()
            assert len(at.victim.swarm.half_open) <= MAX_PER_SOURCE
        finally:
            for one in sockets:
                one.close()
        await at.assert_friend_is_served()


async def test_a_length_of_1_gib_before_authentication_is_cut_at_once() -> None:
    async with scene() as at, await at.raw() as stream:
        await stream.send_all(b"\x80\x80\x80\x80\x04")
        with trio.fail_after(ANSWER_WITHIN), pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(65536))
        await at.assert_friend_is_served()


async def test_300_completed_connections_one_after_another() -> None:
    async with scene() as at:
        for _ in range(300):
            connection = await call(at.insider, at.victim)
            await connection.close()
        await at.assert_friend_is_served()
        assert at.victim.connections(at.insider.peer_id) == []
        assert len(at.victim.swarm.half_open) == 0


async def test_strangers_who_complete_the_handshake_are_refused_then_sent_away_and_leave_nothing() -> None:
    async with scene() as at:
        tasks = trio.lowlevel.current_statistics().tasks_living
        for number in range(50):
            stranger = make_host(gated=False)
            async with running(stranger, listen=()):
                refused = "peerupctl auth add" if number < CONNECTION_BURST else "reset by peer"
                with pytest.raises(Exception, match=refused):
                    await call(stranger, at.victim)
        await until(lambda: trio.lowlevel.current_statistics().tasks_living == tasks)
        assert at.victim.counters.get(CONNECTIONS_REFUSED, reason="gate") == CONNECTION_BURST
        assert at.victim.counters.get(CONNECTIONS_REFUSED, reason="rate") == 50 - CONNECTION_BURST
        assert at.victim.connections() == []


async def test_a_peer_that_speaks_tls_first_is_told_na_and_may_go_on() -> None:
    async with scene() as at, await at.raw() as stream:
        await stream.send_all(HEADER + line(b"/tls/1.0.0"))
        answer = b""
        with trio.fail_after(ANSWER_WITHIN):
            while len(answer) < len(HEADER) + 4:
                answer += await stream.receive_some()
            assert answer == HEADER + line(b"na")
            await stream.send_all(line(b"/noise"))
            assert await stream.receive_some() == line(b"/noise")


async def test_slow_and_silent_handshakes_end_after_ten_seconds(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    victim = make_host()
    async with running(victim, listen=()), trio.open_nursery() as nursery:
        began = trio.current_time()

        async def drip() -> None:
            for byte in HEADER[:9]:
                await theirs.send_all(bytes([byte]))
                await trio.sleep(1)

        nursery.start_soon(drip)
        with pytest.raises(Exception, match="took longer than 10 s"):
            await victim.swarm.upgrade_inbound(ours, NOWHERE)
        assert trio.current_time() - began == pytest.approx(10)
        nursery.cancel_scope.cancel()


async def test_a_stranger_on_the_same_machine_cannot_use_up_the_descriptors(caplog: pytest.LogCaptureFixture) -> None:
    async with scene() as at:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with closing(socket.socket()) as waiting:
            waiting.setblocking(False)
            resource.setrlimit(resource.RLIMIT_NOFILE, (waiting.fileno() + 1, before[1]))
            try:
                waiting.connect_ex(at.port)
                await until(lambda: "cannot accept connections" in caplog.text)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
        await at.assert_friend_is_served()
