"""Paths: made on demand, direct preferred, relayed ones improved by themselves. Real hosts on loopback."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from peerupd.model.addresses import Multiaddr, RelayAddress
from peerupd.model.counters import DIALS
from peerupd.model.errors import Unreachable
from peerupd.model.snapshots import PathKind, PathWish
from peerupd.p2p import paths
from peerupd.p2p.connection import Limit
from peerupd.p2p.paths import RETRIES, Direct, Relayed, Unknown, Upgrade, worn
from peerupd.p2p.relay_limits import RelayLimits
from tests.support.relaynet import ECHO, LOOPBACK, Machine, NodeMachine, RelayMachine, until

NOWHERE = RelayAddress.parse("/ip4/127.0.0.1/tcp/9/p2p/12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq")


class Net:
    """A relay, a home that may listen, and a laptop; they know one another."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery

    async def start(self, *, direct: bool = False, limits: RelayLimits | None = None) -> Net:
        self.relay = RelayMachine(limits or RelayLimits())
        self.home, self.laptop = NodeMachine(self.relay, direct=direct), NodeMachine(self.relay)
        self.relay.allow(self.home, self.laptop)
        self.home.allow(self.laptop)
        self.laptop.allow(self.home)
        await self.relay.start(self.nursery)
        with trio.fail_after(30):
            await self.home.start(self.nursery)
            await self.laptop.start(self.nursery)
        return self

    async def echo(self, text: bytes, wish: PathWish = PathWish.ANY) -> bool:
        """Whether it comes back; over what path is `self.over`."""
        stream = await self.laptop.host.new_stream(self.home.peer, [ECHO], wish=wish)
        self.over = "RELAYED" if stream.connection.relayed else "DIRECT"
        await stream.send_all(text)
        answer = await stream.receive_some()
        await stream.aclose()
        return answer == text

    async def listen_now(self) -> None:
        """Home becomes dialable, and says so."""
        listened = self.home.host.swarm.listen(LOOPBACK)
        if not isinstance(listened, Multiaddr):
            await listened
        self.home.host.addresses_changed()


@pytest.fixture
def net(nursery: trio.Nursery) -> Net:
    return Net(nursery)


async def for_ever(*_: object) -> None:
    """An attempt that never ends."""
    await trio.sleep_forever()


# -- reach ---------------------------------------------------------------------------------------------------------


async def test_a_peer_that_cannot_be_dialled_is_reached_through_the_relay(net):
    await net.start()
    with trio.fail_after(30):
        assert await net.echo(b"hello")
        assert net.over == "RELAYED"
        assert isinstance(net.laptop.paths.state(net.home.peer), Relayed)
        await net.home.until_path(net.laptop, "RELAYED")
    change = net.laptop.changes[-1]
    assert (change.peer, change.before, change.after) == (net.home.peer, None, PathKind.RELAYED)
    assert "p2p-circuit" in change.why


async def test_dials_are_counted_by_path_and_by_how_they_end(net):
    await net.start(direct=True)
    with trio.fail_after(30):
        assert await net.echo(b"hello", PathWish.RELAY)
        assert await net.echo(b"hello", PathWish.DIRECT)
    counted = net.laptop.host.counters
    assert counted.get(DIALS, path_type="RELAYED", result="success") == 1
    assert counted.get(DIALS, path_type="DIRECT", result="success") == 2, "the relay, then home"


async def test_a_relayed_peer_becomes_direct_by_itself_when_it_can_be_dialled(net):
    await net.start(direct=True)
    with trio.fail_after(30):
        assert await net.echo(b"hello")
        await net.laptop.until_path(net.home, "DIRECT")
        assert await net.echo(b"again")
        assert net.over == "DIRECT"
    assert [(c.before, c.after) for c in net.laptop.changes if c.peer == net.home.peer] == [
        (None, PathKind.RELAYED),
        (PathKind.RELAYED, PathKind.DIRECT),
    ]


async def test_the_accepting_side_dials_too_if_the_other_cannot(net):
    """The laptop called over a circuit and cannot be told where home is; home can dial the laptop."""
    await net.start()
    listened = net.laptop.host.swarm.listen(LOOPBACK)
    if not isinstance(listened, Multiaddr):
        await listened
    with trio.fail_after(30):
        assert await net.echo(b"hello")
        await net.laptop.until_path(net.home, "DIRECT")
        await net.home.until_path(net.laptop, "DIRECT")
    assert net.laptop.host.connections(net.home.peer)[0].inbound


async def test_an_open_stream_finishes_where_it_is(net):
    await net.start(direct=True)
    with trio.fail_after(30):
        stream = await net.laptop.host.new_stream(net.home.peer, [ECHO])
        assert stream.connection.relayed
        await stream.send_all(b"before")
        assert await stream.receive_some() == b"before"
        await net.laptop.until_path(net.home, "DIRECT")
        await stream.send_all(b"after")
        assert await stream.receive_some() == b"after"


async def test_a_wish_is_obeyed(net):
    await net.start(direct=True)
    with trio.fail_after(30):
        assert await net.echo(b"x", PathWish.RELAY)
        assert net.over == "RELAYED"
        await net.laptop.until_path(net.home, "DIRECT")
        assert await net.echo(b"x", PathWish.RELAY)
        assert net.over == "RELAYED"
        assert await net.echo(b"x", PathWish.DIRECT)
        assert net.over == "DIRECT"


async def test_for_a_direct_wish_the_peer_is_asked_where_it_is(net):
    await net.start(direct=True)
    with trio.fail_after(30):
        connection = await net.laptop.paths.reach(net.home.peer, PathWish.DIRECT)
    assert not connection.relayed


async def test_a_direct_wish_for_a_peer_that_cannot_be_dialled_fails(net):
    await net.start()
    with trio.fail_after(30), pytest.raises(Unreachable, match="no address of it is known") as caught:
        await net.laptop.paths.reach(net.home.peer, PathWish.DIRECT)
    assert "--path" in caught.value.hint


async def test_a_relay_is_reached_at_its_configured_address(net):
    await net.start()
    with trio.fail_after(30):
        await net.laptop.host.close_peer(net.relay.peer)
        net.laptop.relays.set([])
        net.laptop.paths._relays = lambda: [[net.relay.address]]
        assert not (await net.laptop.paths.reach(net.relay.peer)).relayed


async def test_a_known_address_and_a_circuit_race_and_direct_wins(net):
    await net.start(direct=True)
    with trio.fail_after(30):
        await net.echo(b"x")
        await net.laptop.until_path(net.home, "DIRECT")
        await net.laptop.host.close_peer(net.home.peer)
        await until(lambda: net.laptop.paths.state(net.home.peer) == Unknown())
        assert not (await net.laptop.paths.reach(net.home.peer)).relayed


async def test_many_callers_share_one_race(net):
    await net.start()
    found = set()

    async def one() -> None:
        found.add(await net.laptop.paths.reach(net.home.peer))

    with trio.fail_after(30):
        async with trio.open_nursery() as many:
            for _ in range(50):
                many.start_soon(one)
    assert len(found) == 1
    assert len(net.laptop.host.connections(net.home.peer)) == 1


async def test_a_race_that_nobody_waits_for_any_more_is_called_off(net):
    await net.start()
    net.laptop.paths._circuits = SimpleNamespace(dial=for_ever)
    with trio.move_on_after(0.05):
        await net.laptop.paths.reach(net.home.peer)
    with trio.fail_after(10):
        await until(lambda: not net.laptop.paths._races)


async def test_what_failed_is_told_in_one_text_with_a_hint(net):
    await net.start()
    nobody = Machine(None, "node")
    with trio.fail_after(30), pytest.raises(Unreachable) as caught:
        await net.laptop.paths.reach(nobody.peer)
    assert str(nobody.peer) in caught.value.message
    assert "directly: no address of it is known" in caught.value.message
    assert "the peer is not connected to this relay right now" in caught.value.message
    assert "same relay" in caught.value.hint


async def test_a_gate_that_refuses_us_is_told_with_what_its_owner_has_to_run(net):
    await net.start()
    net.home.gate.replace(net.home.gate.allowlist.remove(net.laptop.peer))
    with trio.fail_after(30), pytest.raises(Unreachable) as caught:
        await net.laptop.paths.reach(net.home.peer)
    assert f"auth add {net.laptop.peer}" in caught.value.hint


async def test_silence_ends_too(net, monkeypatch):
    monkeypatch.setattr(paths, "REACH_LIMIT", 0.1)
    await net.start()
    net.laptop.paths._circuits = SimpleNamespace(dial=for_ever)
    net.laptop.paths._dial = for_ever
    with trio.fail_after(20), pytest.raises(Unreachable, match="no answer"):
        await net.laptop.paths.reach(net.home.peer)


async def test_without_a_relay_that_is_said(net):
    await net.start()
    net.laptop.relays.set([])
    match = r"through a relay: none is configured.*; peerupctl relay"
    with trio.fail_after(30), pytest.raises(Unreachable, match=match):
        await net.laptop.paths.reach(net.home.peer)


async def test_before_the_start_nothing_is_reached():
    with pytest.raises(Unreachable, match="not running"):
        await NodeMachine().paths.reach(Machine(None, "node").peer)


@pytest.mark.parametrize("slow", [True, False])
async def test_a_dead_relay_costs_a_moment_only(net, slow):
    await net.start()
    real = net.laptop.circuits

    async def dial(relay, peer):
        if relay[0].peer == NOWHERE.peer:
            if slow:
                await trio.sleep_forever()
            raise Unreachable("connection refused")
        return await real.dial(relay, peer)

    net.laptop.paths._circuits = SimpleNamespace(dial=dial)
    net.laptop.paths._relays = lambda: [[NOWHERE], [net.relay.address]]
    with trio.fail_after(20):
        assert (await net.laptop.paths.reach(net.home.peer)).relayed


async def test_a_circuit_that_stands_waits_a_moment_for_the_direct_dial(net, monkeypatch):
    monkeypatch.setattr(paths, "GRACE", 20.0)
    await net.start(direct=True)
    with trio.fail_after(30):
        address = net.home.host.listen_addresses()[0]

        async def dial_a_little_later(peer):
            await trio.sleep(0.1)
            return await net.laptop.host.connect(peer, [address])

        net.laptop.paths._dial = dial_a_little_later
        assert not (await net.laptop.paths.reach(net.home.peer)).relayed


async def test_addresses_of_a_peer_that_is_not_admitted_are_not_dialled(net):
    await net.start(direct=True)
    net.laptop.gate.replace(net.laptop.gate.allowlist.remove(net.home.peer))
    with trio.fail_after(30):
        assert await net.echo(b"x")
        connection = net.laptop.host.connections(net.home.peer)[0]
        await connection.identified.wait()
        assert net.laptop.paths._addresses(net.home.peer) == []


async def test_only_few_and_usable_addresses_are_dialled(net):
    await net.start()
    told = [Multiaddr.parse(f"/ip4/192.0.2.{n}/tcp/7777") for n in range(1, 30)]
    odd = [Multiaddr.parse("/ip4/192.0.2.99/udp/1/quic-v1"), NOWHERE.circuit_to(net.home.peer)]
    own = [Multiaddr.parse("/ip4/192.0.2.1/tcp/7777")]
    net.laptop.host.addresses_of = lambda _peer: [*odd, *told]
    net.laptop.host.listen_addresses = lambda: own
    assert net.laptop.paths._addresses(net.home.peer) == told[1 : 1 + paths.MAX_ADDRESSES]


# -- what happens by itself ------------------------------------------------------------------------------------------


async def test_when_the_direct_path_dies_the_relayed_one_is_there_and_improves_again(net):
    await net.start(direct=True)
    with trio.fail_after(30):
        await net.echo(b"x")
        await net.laptop.until_path(net.home, "DIRECT")
        for connection in net.laptop.host.connections(net.home.peer):
            if not connection.relayed:
                connection.abort("the test says so")
        await net.laptop.until_path(net.home, "RELAYED")
        assert await net.echo(b"y")
        await net.laptop.until_path(net.home, "DIRECT")
    words = [c.why for c in net.laptop.changes if c.after is PathKind.RELAYED]
    assert "ended" in words[-1]


async def test_a_peer_that_goes_away_is_unknown(net):
    await net.start()
    with trio.fail_after(30):
        await net.echo(b"x")
        await net.home.stop()
        await net.laptop.until_path(net.home, "UNKNOWN")
    assert net.laptop.changes[-1].after is None
    assert net.laptop.paths._states.keys() == {net.relay.peer}
    await until(lambda: not net.laptop.paths._upgrades)


async def test_a_new_wish_for_a_relayed_peer_dials_again_at_once(net, monkeypatch):
    monkeypatch.setattr(paths, "KICK_AFTER", 0.1)
    monkeypatch.setattr(paths, "RETRIES", (60.0,))
    await net.start()
    with trio.fail_after(8):
        await net.echo(b"x")
        await net.laptop.host.connections(net.home.peer)[0].identified.wait()
        await trio.sleep(0.3)
        await net.listen_now()
        await until(lambda: any(a.is_plain_tcp for a in net.laptop.host.addresses_of(net.home.peer)))
        assert isinstance(net.laptop.paths.state(net.home.peer), Relayed)
        assert await net.echo(b"y")
        await net.laptop.until_path(net.home, "DIRECT")


async def test_a_network_change_dials_again_at_once(net, monkeypatch):
    monkeypatch.setattr(paths, "KICK_AFTER", 0.1)
    monkeypatch.setattr(paths, "RETRIES", (60.0,))
    await net.start()
    with trio.fail_after(8):
        await net.echo(b"x")
        await net.laptop.host.connections(net.home.peer)[0].identified.wait()
        await trio.sleep(0.3)
        await net.listen_now()
        await until(lambda: any(a.is_plain_tcp for a in net.laptop.host.addresses_of(net.home.peer)))
        net.laptop.paths.wake()
        await net.laptop.until_path(net.home, "DIRECT")


async def test_a_circuit_near_its_limit_is_replaced_for_what_comes_next(net):
    await net.start(limits=RelayLimits(session_data_limit=200_000))
    with trio.fail_after(30):
        first = await net.laptop.paths.reach(net.home.peer)
        stream = await first.open_stream([ECHO])
        for _ in range(11):
            await stream.send_all(bytes(15_000))
            rest = 15_000
            while rest:
                rest -= len(await stream.receive_some())
        second = await net.laptop.paths.reach(net.home.peer)
        assert second is not first
        stream_2 = await second.open_stream([ECHO])
        await stream_2.send_all(b"fresh")
        assert await stream_2.receive_some() == b"fresh"
        await stream.send_all(b"old")
        assert await stream.receive_some() == b"old"


async def test_a_worn_circuit_is_better_than_none(net):
    await net.start(limits=RelayLimits(session_data_limit=50_000, max_circuits=1))
    with trio.fail_after(30):
        first = await net.laptop.paths.reach(net.home.peer)
        stream = await first.open_stream([ECHO])
        await stream.send_all(bytes(42_000))
        await until(lambda: worn(first, 0))
        assert await net.laptop.paths.reach(net.home.peer) is first


async def test_who_comes_after_the_last_one_left_gets_a_race_of_their_own(net):
    await net.start()
    real, net.laptop.paths._circuits = net.laptop.circuits, SimpleNamespace(dial=for_ever)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(net.laptop.paths.reach, net.home.peer)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        net.laptop.paths._circuits = real
        assert (await net.laptop.paths.reach(net.home.peer)).relayed


async def test_an_idle_circuit_beside_a_direct_connection_is_closed(net, monkeypatch):
    monkeypatch.setattr(paths, "TIDY_INTERVAL", 0.05)
    monkeypatch.setattr(paths, "IDLE_CIRCUIT", 0.2)
    await net.start(direct=True)
    with trio.fail_after(30):
        stream = await net.laptop.host.new_stream(net.home.peer, [ECHO])
        assert stream.connection.relayed
        await net.laptop.until_path(net.home, "DIRECT")
        await trio.sleep(0.4)
        assert not stream.connection.closed.is_set()
        await stream.aclose()
        await stream.connection.closed.wait()
    assert isinstance(net.laptop.paths.state(net.home.peer), Direct)


async def test_tidying_survives_a_connection_that_is_just_ending(net, monkeypatch, caplog):
    monkeypatch.setattr(paths, "IDLE_CIRCUIT", 0.0)
    await net.start(direct=True)
    with trio.fail_after(30):
        connection = await net.laptop.paths.reach(net.home.peer, PathWish.DIRECT)
        for one in net.laptop.host.connections(net.home.peer):
            one.abort("a test ends it")
        assert isinstance(net.laptop.paths.state(net.home.peer), Direct)
        await net.laptop.paths._tidy()
        await connection.closed.wait()
    assert "a bug ended" not in caplog.text


async def test_dials_come_at_growing_intervals(autojump_clock):
    identified = trio.Event()
    identified.set()
    upgrade = Upgrade(SimpleNamespace(peer=NOWHERE.peer, inbound=True, identified=identified))
    await upgrade.begin()
    times = [trio.current_time()]
    for _ in range(7):
        upgrade.dials()
        await upgrade.rest()
        times.append(trio.current_time())
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == pytest.approx([*RETRIES, RETRIES[-1], RETRIES[-1]])


async def test_kicks_in_a_row_are_one(autojump_clock):
    identified = trio.Event()
    identified.set()
    upgrade = Upgrade(SimpleNamespace(peer=NOWHERE.peer, inbound=False, identified=identified))
    await upgrade.begin()
    upgrade.dials()
    upgrade.kick()
    await upgrade.rest()
    assert trio.current_time() == pytest.approx(RETRIES[0])
    await trio.sleep(3)
    upgrade.kick()
    await upgrade.rest()
    assert trio.current_time() == pytest.approx(RETRIES[0] + 3)


@pytest.mark.parametrize(
    ("limit", "sent", "age", "expected"),
    [
        (None, 10**9, 10**9, False),
        (Limit(None, None), 10**9, 10**9, False),
        (Limit(None, 1000), 799, 10**9, False),
        (Limit(None, 1000), 800, 0, True),
        (Limit(100, None), 10**9, 79, False),
        (Limit(100, None), 0, 80, True),
    ],
)
def test_a_circuit_is_worn_at_four_fifths_of_its_limit(limit, sent, age, expected):
    assert worn(SimpleNamespace(limit=limit, sent=sent, received=0, opened_at=50), 50 + age) is expected
    assert worn(SimpleNamespace(limit=limit, sent=0, received=sent, opened_at=50), 50 + age) is expected


async def test_a_bug_on_the_way_through_a_relay_ends_that_way_only(net, caplog):
    async def bugged(relay, peer):
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    await net.start()
    net.laptop.paths._circuits = SimpleNamespace(dial=bugged)
    with trio.fail_after(30), pytest.raises(Unreachable, match="internal error"):
        await net.laptop.paths.reach(net.home.peer)
    assert "a bug ended a dial through relay" in caplog.text


async def test_a_bug_in_the_direct_dial_leaves_the_way_through_the_relay(net, monkeypatch, caplog):
    await net.start(direct=True)

    async def bugged(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    monkeypatch.setattr(net.laptop.paths, "_dial", bugged)
    with trio.fail_after(30):
        assert await net.echo(b"hello")
    assert net.over == "RELAYED"
    assert "a bug ended a direct dial" in caplog.text


async def test_background_dials_that_a_bug_ended_begin_anew_with_the_next_circuit(net, monkeypatch, caplog):
    await net.start()

    async def bugged(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(net.laptop.paths, "_try_directly", bugged)
    with trio.fail_after(30):
        assert await net.echo(b"hello")
        await until(lambda: not net.laptop.paths._upgrades)
    assert "a bug ended the dials to" in caplog.text
