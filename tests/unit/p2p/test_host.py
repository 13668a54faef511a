"""Two and more hosts on loopback: calling, being refused, being revoked, identify, events, bounds."""

from __future__ import annotations

import logging
import socket
from ipaddress import ip_address

import pytest
import trio
import trio.testing

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import (
    AddressInUse,
    EnvironmentalError,
    GateRefused,
    InvalidAddress,
    LimitReached,
    ProtocolUnsupported,
    Unreachable,
    WrongPeer,
)
from peerupd.model.snapshots import Event, PathKind, PathWish, PeerConnected, PeerDisconnected
from peerupd.p2p import swarm as swarm_module
from peerupd.p2p.admission import MAX_CONNECTIONS_PER_PEER
from peerupd.p2p.connection import Connection, Facts
from peerupd.p2p.host import Host
from peerupd.p2p.identify import PROTOCOL_VERSION
from peerupd.p2p.streams import Stream
from peerupd.p2p.upgrade import Upgraded
from peerupd.trust.gate import VOUCH_PROTOCOL, Admit
from peerupd.trust.identity import Identity
from peerupd.wire.identify import PROTOCOL
from peerupd.wire.noise import Session
from tests.support.hosts import ECHO, LOOPBACK, allow, call, echoed, make_host, running, until

SOON = 5.0  # seconds; how long a test waits for what must come
DEAD = Multiaddr.parse("/ip4/127.0.0.1/tcp/1")


def friends() -> tuple[Host, Host]:
    """Two that admit one another."""
    one, other = Identity.generate(), Identity.generate()
    return make_host(other.peer_id, identity=one), make_host(one.peer_id, identity=other)


async def until_gone(host: Host, other: Host) -> None:
    await until(lambda: not host.connections(other.peer_id))


async def test_an_authorised_peer_is_served() -> None:
    one, other = friends()
    async with running(one, other):
        await call(one, other)
        assert await echoed(one, other, b"there") == b"there"
        assert await echoed(other, one, b"and back") == b"and back"


async def test_a_stranger_is_refused_and_both_sides_are_told_what_to_run(caplog: pytest.LogCaptureFixture) -> None:
    one, other = make_host(), make_host()
    async with running(one, other):
        with pytest.raises(GateRefused, match="closed the connection after the handshake") as caught:
            await call(one, other)
        assert f"peerupctl auth add {one.peer_id}" in caught.value.hint
        assert other.connections() == []
    assert f"peerupctl auth add {one.peer_id}" in caplog.text


async def test_whom_we_called_may_open_only_what_a_relay_needs() -> None:
    caller = make_host()
    called = make_host(caller.peer_id)
    async with running(caller, called):
        connection = await call(caller, called)
        await connection.identified.wait()
        with pytest.raises(ProtocolUnsupported):
            await called.new_stream(caller.peer_id, [ECHO])
        assert await called.ping(caller.peer_id)
        await until(lambda: called.agent_of(caller.peer_id))


async def test_revocation_ends_connections_within_a_second() -> None:
    one, other = friends()
    async with running(one, other):
        connection = await call(one, other)
        stream = await one.new_stream(other.peer_id, [ECHO])
        other.gate.replace(allow())
        with trio.fail_after(10):
            other.regate()
            await connection.closed.wait()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert other.connections() == []


async def test_revocation_ends_what_we_called_ourselves_but_for_exempt_peers() -> None:
    one, other = friends()
    third = make_host(one.peer_id)
    one.gate.replace(allow(other.peer_id, third.peer_id))
    one.exempt = lambda peer: peer == third.peer_id
    async with running(one, other, third):
        ours, kept = await call(one, other), await call(one, third)
        one.gate.replace(allow())
        one.regate()
        with trio.fail_after(10):
            await ours.closed.wait()
        assert "no longer authorized" in ours.reason
        assert not kept.closed.is_set()
        with pytest.raises(ProtocolUnsupported):
            await third.new_stream(one.peer_id, [ECHO])


async def test_revocation_ends_what_an_exempt_peer_is_being_served() -> None:
    one, other = friends()
    one.exempt = lambda _peer: True
    async with running(one, other):
        connection = await call(one, other)
        served = await other.new_stream(one.peer_id, [ECHO])
        await served.send_all(b"x")
        assert await served.receive_some() == b"x"
        ours = await one.new_stream(other.peer_id, [ECHO])
        one.gate.replace(allow())
        one.regate()
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await served.receive_some()
        await ours.send_all(b"what we opened ourselves goes on")
        assert await ours.receive_some()
        assert not connection.closed.is_set()


async def test_whom_we_called_though_never_admitted_is_left_alone_by_a_change_of_the_list() -> None:
    caller = make_host()
    called = make_host(caller.peer_id)
    async with running(caller, called):
        connection = await call(caller, called)
        caller.gate.replace(allow(Identity.generate().peer_id))
        caller.regate()
        await trio.testing.wait_all_tasks_blocked()
        assert not connection.closed.is_set()


async def test_an_expired_entry_is_refused_its_next_stream_and_found_by_the_next_look() -> None:
    now = [1_000_000.0]
    friend = Identity.generate()
    called = make_host(clock=lambda: now[0])
    called.gate.replace(allow().add(friend.peer_id, expires="1970-01-20T00:00:00Z"))
    caller = make_host(identity=friend, gated=False)
    async with running(caller, called):
        connection = await call(caller, called)
        assert await echoed(caller, called)
        now[0] += 1_000_000
        with pytest.raises(ProtocolUnsupported):
            await caller.new_stream(called.peer_id, [ECHO])
        called.regate()
        with trio.fail_after(10):
            await connection.closed.wait()


async def test_on_probation_neither_identify_nor_ping_is_answered_until_promoted() -> None:
    relay, joiner = make_host(role="relay"), make_host()
    served: list[Connection] = []

    async def vouch(stream: Stream) -> None:
        served.append(stream.connection)

    relay.set_stream_handler(VOUCH_PROTOCOL, vouch)
    events: list[Event] = []
    relay.subscribe(events.append)
    async with running(relay, joiner):
        relay.gate.vouch_opened(until=2**40)
        connection = await call(joiner, relay)
        await connection.identified.wait()
        assert joiner.agent_of(relay.peer_id) == ""
        for protocol in (PROTOCOL, "/ipfs/ping/1.0.0", ECHO):
            with pytest.raises(ProtocolUnsupported):
                await connection.open_stream([protocol])
        await (await connection.open_stream([VOUCH_PROTOCOL])).aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert [e for e in events if isinstance(e, PeerConnected)] == []
        relay.gate.replace(allow(joiner.peer_id))
        relay.regate()
        assert isinstance(served[0].admission, Admit)
        assert await echoed(joiner, relay)
        with trio.fail_after(SOON):
            await served[0].identified.wait()
        assert [e.peer for e in events if isinstance(e, PeerConnected)] == [joiner.peer_id]


# -- identify ------------------------------------------------------------------------------------------------------


async def test_both_sides_learn_who_the_other_is() -> None:
    one, other = friends()
    async with running(one, other):
        connection = await call(one, other)
        with trio.fail_after(SOON):
            await connection.identified.wait()
            await other.connections()[0].identified.wait()
        for asker, asked in ((one, other), (other, one)):
            assert asker.agent_of(asked.peer_id) == "peerup/test"
            assert asker.protocol_version_of(asked.peer_id) == PROTOCOL_VERSION
            assert asker.addresses_of(asked.peer_id) == asked.listen_addresses()
            assert ECHO in asker.protocols_of(asked.peer_id)
        assert [a.ip for a in one.observed_addresses()] == [ip_address("127.0.0.1")]


async def test_only_what_callers_see_of_us_is_advertised() -> None:
    """Whom we called sees a port of ours on which nobody listens."""
    one, other = friends()
    async with running(one, other):
        connection = await call(one, other)
        with trio.fail_after(SOON):
            await connection.identified.wait()
            await other.connections()[0].identified.wait()
        assert one.observed_addresses() != one.listen_addresses()
        assert one.advertised() == one.listen_addresses()
        assert other.advertised() == other.listen_addresses()


async def test_a_change_of_our_addresses_is_pushed() -> None:
    one, other = friends()
    circuit = Multiaddr.parse(f"/ip4/192.0.2.7/tcp/7777/p2p/{Identity.generate().peer_id}/p2p-circuit")
    async with running(one, other):
        await (await call(one, other)).identified.wait()
        await until(lambda: other.agent_of(one.peer_id))
        one.set_circuit_addresses("a relay", [circuit])
        await until(lambda: circuit in other.addresses_of(one.peer_id))
        one.set_circuit_addresses("a relay", [])
        await until(lambda: circuit not in other.addresses_of(one.peer_id))


async def test_listening_on_all_interfaces_is_told_by_their_addresses() -> None:
    own = [ip_address("192.0.2.9"), ip_address("2001:db8::9")]
    host = make_host(addresses=lambda: own)
    async with running(host, listen=[Multiaddr.parse("/ip4/0.0.0.0/tcp/0"), Multiaddr.parse("/ip6/::/tcp/0")]):
        assert [a.ip for a in host.listen_addresses()] == own
        assert host.get_addrs() == host.advertised()
        host.addresses_changed()


# -- calling -------------------------------------------------------------------------------------------------------


async def test_the_first_address_that_answers_wins_and_a_dead_one_costs_nothing() -> None:
    one, other = friends()
    async with running(one, other):
        with trio.fail_after(SOON):
            connection = await one.connect(other.peer_id, [DEAD, *other.listen_addresses()])
        assert connection.remote == other.listen_addresses()[0]
        assert await one.connect(other.peer_id, [DEAD]) is connection


async def test_another_peer_at_the_address_is_told_as_such() -> None:
    one, other = friends()
    wanted = Identity.generate().peer_id
    async with running(one, other):
        with pytest.raises(WrongPeer, match=f"wanted {wanted}.*{other.peer_id} answers here"):
            await one.swarm.dial(other.listen_addresses(), wanted)
        assert other.connections() == []


async def test_a_failure_names_every_address_and_why() -> None:
    one, wanted = make_host(), Identity.generate().peer_id
    async with running(one):
        with pytest.raises(Unreachable, match=r"tcp/1: Connection refused, .*localhost/tcp/2: "):
            await one.swarm.dial([DEAD, Multiaddr.parse("/dns4/localhost/tcp/2")], wanted)
        with pytest.raises(Unreachable, match="no TCP address"):
            await one.swarm.dial([Multiaddr.parse("/ip4/127.0.0.1/udp/1/quic-v1")], wanted)
        with pytest.raises(Unreachable, match="this node itself"):
            await one.swarm.dial([DEAD], one.peer_id)
        with pytest.raises(Unreachable, match="this node itself"):
            await one.new_stream(one.peer_id, [ECHO])


async def test_names_are_resolved() -> None:
    one, other = friends()
    port = 0
    async with running(one, other):
        port = other.listen_addresses()[0].port
        connection = await one.connect(other.peer_id, [Multiaddr.parse(f"/dns/localhost/tcp/{port}")])
        assert str(connection.remote) == f"/dns/localhost/tcp/{port}"


async def test_ipv6() -> None:
    one, other = friends()
    async with running(one, other, listen=[Multiaddr.parse("/ip6/::1/tcp/0")]):
        await call(one, other)
        assert await echoed(one, other) == b"are you there?"


async def test_a_stream_takes_the_path_that_is_there_or_that_reach_finds() -> None:
    one, other = friends()
    wishes: list[PathWish] = []

    async def reach(_peer: object, wish: PathWish) -> Connection:
        wishes.append(wish)
        return await call(one, other)

    async with running(one, other):
        with pytest.raises(Unreachable, match="not connected"):
            await one.new_stream(other.peer_id, [ECHO])
        await call(one, other)
        await (await one.new_stream(other.peer_id, [ECHO])).aclose()
        await (await one.new_stream(other.peer_id, [ECHO], wish=PathWish.DIRECT)).aclose()
        with pytest.raises(Unreachable, match="not connected"):
            await one.new_stream(other.peer_id, [ECHO], wish=PathWish.RELAY)
        one.reach = reach
        await (await one.new_stream(other.peer_id, [ECHO], wish=PathWish.RELAY)).aclose()
        assert wishes == [PathWish.RELAY]


async def test_before_it_runs_a_host_reaches_nobody() -> None:
    with pytest.raises(EnvironmentalError, match="not running"):
        await make_host().swarm.listen(LOOPBACK)


# -- listening -----------------------------------------------------------------------------------------------------


async def test_a_port_in_use_is_told_as_such() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}")
        with pytest.RaisesGroup(AddressInUse, flatten_subgroups=True):
            async with running(make_host(), listen=[address]):
                pytest.fail("it runs")


@pytest.mark.parametrize("text", ["/ip4/192.0.2.1/tcp/0", "/dns4/localhost/tcp/1"])
async def test_an_address_that_is_not_ours_cannot_be_listened_on(text: str) -> None:
    host = make_host()
    async with running(host, listen=()):
        with pytest.raises(InvalidAddress, match="cannot listen"):
            await host.swarm.listen(Multiaddr.parse(text))


async def test_listen_addresses_of_transports_that_are_not_there_are_passed_over() -> None:
    host = make_host()
    async with running(host, listen=[Multiaddr.parse("/ip4/127.0.0.1/udp/0/quic-v1"), LOOPBACK]):
        assert len(host.listen_addresses()) == 1


# -- bounds and events ---------------------------------------------------------------------------------------------


async def test_of_too_many_connections_with_one_peer_the_oldest_idle_one_goes() -> None:
    one, other = friends()
    async with running(one, other):
        all_of_them = []
        for _ in range(MAX_CONNECTIONS_PER_PEER):
            connection = await call(one, other)
            await connection.identified.wait()
            all_of_them.append(connection)
        in_use = await all_of_them[0].open_stream([ECHO])
        await trio.testing.wait_all_tasks_blocked()
        newest = await call(one, other)
        await trio.testing.wait_all_tasks_blocked()
        assert [c.closed.is_set() for c in all_of_them].count(True) == 1
        assert not all_of_them[0].closed.is_set()
        assert not newest.closed.is_set()
        await in_use.aclose()


async def test_connections_that_come_all_at_once_are_bounded_too() -> None:
    host, peer = make_host(gated=False), Identity.generate().peer_id
    facts = Facts(DEAD, inbound=True, relayed=False, limit=None, source="192.0.2.1", opened_at=0.0)
    async with running(host):
        for _ in range(3 * MAX_CONNECTIONS_PER_PEER):
            link, _far = trio.testing.memory_stream_pair()
            await host.swarm._adopt(link, Upgraded(peer, Session(bytes(32), bytes(32)), b""), facts)
        await trio.testing.wait_all_tasks_blocked()
        assert len(host.connections(peer)) == MAX_CONNECTIONS_PER_PEER


async def test_when_all_with_one_peer_are_in_use_its_oldest_one_goes() -> None:
    one, other = friends()
    async with running(one, other):
        all_of_them = [await call(one, other) for _ in range(MAX_CONNECTIONS_PER_PEER)]
        for connection in (*all_of_them, *other.connections()):
            connection.keep = True
        await call(one, other)
        await all_of_them[0].closed.wait()


async def test_a_connection_more_than_can_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm_module, "MAX_CONNECTIONS", 1)
    one, other = friends()
    async with running(one, other):
        connection = await call(one, other)
        connection.keep = True
        for theirs in other.connections():
            theirs.keep = True
        with pytest.raises(LimitReached, match="in all"):
            await call(one, other)
        assert not connection.closed.is_set()


async def test_events_tell_of_the_first_and_the_last_connection() -> None:
    one, other = friends()
    events: list[Event] = []
    async with running(one, other):
        stop = other.subscribe(events.append)
        first, second = await call(one, other), await call(one, other)
        await first.close()
        await second.close()
        await until_gone(other, one)
        stop()
        await (await call(one, other)).close()
    told = [e for e in events if isinstance(e, PeerConnected | PeerDisconnected)]
    assert [type(e) for e in told] == [PeerConnected, PeerDisconnected]
    assert told[0] == PeerConnected(one.peer_id, PathKind.DIRECT, told[0].address)


async def test_a_subscriber_that_fails_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    host = make_host()
    seen: list[Event] = []

    def broken(_event: Event) -> None:
        raise ValueError("a bug")

    host.subscribe(broken)
    host.subscribe(seen.append)
    with caplog.at_level(logging.ERROR):
        host.publish(PeerDisconnected(host.peer_id))
    assert len(seen) == 1
    assert "a bug" in caplog.text


async def test_a_connection_that_is_ending_is_nobodys_path() -> None:
    one, other = friends()
    async with running(one, other):
        connection = await call(one, other)
        connection._muxer.close()
        assert not connection.closed.is_set()
        assert one.connections(other.peer_id) == []


async def test_closing_a_peer_and_closing_all() -> None:
    one, other = friends()
    async with running(one, other):
        for close in (one.close, lambda: one.close_peer(other.peer_id)):
            await call(one, other)
            await call(one, other)
            assert one.get_connected_peers() == [other.peer_id]
            await close()
            assert one.get_connected_peers() == []
            await until_gone(other, one)
