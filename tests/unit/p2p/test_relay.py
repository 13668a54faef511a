"""A reservation is held for as long as we run, whatever the relay, the clocks and the network do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from peerupd.model.addresses import Multiaddr, RelayAddress
from peerupd.model.errors import PeerupError, RelayRefused, Unreachable
from peerupd.model.names import PeerId
from peerupd.model.snapshots import RelayStatus, ReservationChanged
from peerupd.p2p.relay import AFTER_A_BUG, FIRST_DELAY, LAST_DELAY, Absent, Granted, Keeper, Lost, Relays, Reserved

RELAY = RelayAddress.parse("/ip4/203.0.113.50/tcp/7777/p2p/12D3KooWKRyzVWW6ChFjQjK4miCty85Niy48tpPV95XdKu1BcvMA")
ALSO = RelayAddress(Multiaddr.parse("/ip6/2001:db8::1/tcp/7777"), RELAY.peer)
QUIC = RelayAddress(Multiaddr.parse("/ip4/203.0.113.50/udp/7777/quic-v1"), RELAY.peer)
OTHER = RelayAddress.parse("/ip4/203.0.113.51/tcp/7777/p2p/12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq")


class FakeRelay:
    """A small relay: it grants for an hour, and can be away, silent or unwilling."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, tuple[RelayAddress, ...]]] = []
        self.life = 3600.0
        self.trouble: PeerupError | None = None
        self.silent = False
        self.connections: list[trio.Event] = []
        self.clock: Callable[[], float] = trio.current_time

    async def ask(self, addresses: Sequence[RelayAddress]) -> Granted:
        self.asked.append((trio.current_time(), tuple(addresses)))
        await trio.sleep(0.05)
        if self.silent:
            await trio.sleep(10)
            raise Unreachable("no answer within 10 s")
        if self.trouble is not None:
            raise self.trouble
        self.connections.append(trio.Event())
        return Granted(until=self.clock() + self.life, lost=self.connections[-1])

    def vanish(self) -> None:
        self.trouble = Unreachable("connection refused")
        for connection in self.connections:
            connection.set()

    def swallow(self) -> None:
        self.vanish()
        self.silent = True

    def come_back(self) -> None:
        self.trouble = None
        self.silent = False


class Recorder:
    """Keeps what was published, and lets a test wait for a state."""

    def __init__(self) -> None:
        self.seen: list[RelayStatus] = []
        self._news = trio.Event()

    def __call__(self, change: ReservationChanged) -> None:
        self.seen.append(change.status)
        self._news.set()
        self._news = trio.Event()

    @property
    def states(self) -> list[str]:
        return [status.state for status in self.seen]

    async def until(self, state: str) -> None:
        seen = len(self.seen)
        while state not in self.states[seen:]:
            await self._news.wait()


@pytest.fixture
def relay() -> FakeRelay:
    return FakeRelay()


@pytest.fixture
def events() -> Recorder:
    return Recorder()


def keeper_of(relay: FakeRelay, events: Recorder, **more: object) -> Keeper:
    return Keeper(RELAY.peer, (RELAY,), relay.ask, events, clock=relay.clock, **more)  # type: ignore[arg-type] # test


async def test_a_reservation_is_asked_for_at_once(relay, events, nursery, autojump_clock):
    keeper = keeper_of(relay, events)
    assert isinstance(keeper.state, Absent)
    await nursery.start(keeper.run)
    await events.until("reserved")
    assert events.states == ["reserving", "reserved"]
    assert keeper.status().reserved_until == pytest.approx(3600, abs=1)
    assert relay.asked[0][1] == (RELAY,)


async def test_a_relay_that_comes_back_has_our_reservation_within_five_seconds(relay, events, nursery, autojump_clock):
    await nursery.start(keeper_of(relay, events).run)
    await events.until("reserved")
    relay.vanish()
    await trio.sleep(100)
    relay.come_back()
    with trio.fail_after(30):
        await events.until("reserved")


@pytest.mark.parametrize("moment", [0.3, 3.9, 4.1, 9.0, 9.9, 10.1, 12.3, 55.5])
async def test_so_has_one_that_swallowed_our_packets(relay, events, nursery, autojump_clock, moment):
    await nursery.start(keeper_of(relay, events).run)
    await events.until("reserved")
    relay.swallow()
    await trio.sleep(moment)
    relay.come_back()
    with trio.fail_after(30):
        await events.until("reserved")


async def test_a_relay_that_is_away_is_not_asked_without_pause(relay, events, nursery, autojump_clock):
    relay.vanish()
    await nursery.start(keeper_of(relay, events).run)
    await trio.sleep(60)
    assert 60 / (LAST_DELAY + 0.1) < len(relay.asked) < 30
    gaps = [later - earlier for (earlier, _), (later, _) in zip(relay.asked, relay.asked[1:], strict=False)]
    assert min(gaps) >= 0.75 * FIRST_DELAY
    assert max(gaps) <= LAST_DELAY + 0.1


async def test_the_loss_of_the_connection_is_noticed_at_once(relay, events, nursery, autojump_clock):
    keeper = keeper_of(relay, events)
    await nursery.start(keeper.run)
    await events.until("reserved")
    await trio.sleep(500)
    began = trio.current_time()
    relay.connections[-1].set()
    await events.until("lost")
    assert trio.current_time() == began
    await events.until("reserved")
    assert trio.current_time() - began < 1


async def test_it_is_renewed_at_two_thirds_of_its_life_and_stays_reserved_meanwhile(
    relay, events, nursery, autojump_clock
):
    await nursery.start(keeper_of(relay, events).run)
    await events.until("reserved")
    await events.until("reserved")
    assert trio.current_time() == pytest.approx(2400, abs=2)
    assert events.states == ["reserving", "reserved", "reserved"]


async def test_a_clock_that_was_set_forward_brings_the_renewal_forward(relay, events, nursery, autojump_clock):
    ahead = [0.0]
    relay.clock = lambda: trio.current_time() + ahead[0]
    await nursery.start(keeper_of(relay, events, interval=120.0).run)
    await events.until("reserved")
    ahead[0] = 3000.0
    with trio.fail_after(121):
        await events.until("reserved")


@pytest.mark.parametrize("life", [-1e9, 0.0, 1e12])
async def test_a_nonsensical_end_is_renewed_in_sensible_time(relay, events, nursery, autojump_clock, life):
    relay.life = life
    await nursery.start(keeper_of(relay, events).run)
    await trio.sleep(24 * 3600)
    assert 10 < len(relay.asked) <= 24 * 3600 / 20 + 1


async def test_waking_asks_a_lost_relay_at_once(relay, events, nursery, autojump_clock):
    relay.trouble = RelayRefused("it said no")
    keeper = keeper_of(relay, events)
    await nursery.start(keeper.run)
    await trio.sleep(100)
    await events.until("lost")
    relay.come_back()
    began = trio.current_time()
    keeper.wake()
    await events.until("reserved")
    assert trio.current_time() - began < 0.1


async def test_waking_looks_at_a_reservation_that_is_held(relay, events, nursery, autojump_clock):
    keeper = keeper_of(relay, events)
    await nursery.start(keeper.run)
    await events.until("reserved")
    keeper.wake()
    await events.until("reserved")
    assert len(relay.asked) == 2


async def test_a_relay_that_says_no_is_asked_less_often(relay, events, nursery, autojump_clock):
    relay.trouble = RelayRefused("relay 12D3KooW... said no")
    keeper = keeper_of(relay, events)
    await nursery.start(keeper.run)
    await trio.sleep(120)
    assert len(relay.asked) < 20
    await events.until("lost")
    status = keeper.status()
    assert (status.state, status.why) == ("lost", "relay 12D3KooW... said no")
    assert status.retry_in_seconds is not None


async def test_a_bug_is_not_caught(events, autojump_clock):
    async def ask(_addresses: Sequence[RelayAddress]) -> Granted:
        raise ZeroDivisionError

    with pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Keeper(RELAY.peer, (RELAY,), ask, events).run)
    assert caught.group_contains(ZeroDivisionError)


async def test_every_change_is_logged_once_in_words(relay, events, nursery, autojump_clock, caplog):
    caplog.set_level("INFO")
    await nursery.start(keeper_of(relay, events).run)
    await events.until("reserved")
    relay.vanish()
    await trio.sleep(60)
    relay.come_back()
    await events.until("reserved")
    words = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert words == [
        "reserving -> reserved",
        "reserved -> lost (the connection to it is gone), retrying",
        "reserving -> lost (connection refused), retrying",
        "reserving -> reserved",
    ]
    assert caplog.records[0].peerup["event"] == "reservation.changed"


# -- all relays ----------------------------------------------------------------------------------------------------


async def test_several_addresses_of_one_relay_are_one_reservation(relay, events, nursery, autojump_clock):
    relays = Relays(relay.ask, events, clock=relay.clock)
    relays.set([RELAY, OTHER, ALSO, QUIC, RELAY])
    await nursery.start(relays.run)
    await trio.sleep(1)
    assert {addresses for _, addresses in relay.asked} == {(RELAY, ALSO), (OTHER,)}
    assert len(relay.asked) == 2
    assert [status.state for status in relays.statuses()] == ["reserved", "reserved"]
    assert relays.best_first() == [(RELAY, ALSO), (OTHER,)]


async def test_relays_come_and_go_live(relay, events, nursery, autojump_clock):
    announced: dict[str, list[str]] = {}

    def announce(owner: str, addresses: Sequence[Multiaddr]) -> None:
        announced[owner] = [str(address) for address in addresses]

    relays = Relays(relay.ask, events, announce=announce, clock=relay.clock)
    await nursery.start(relays.run)
    relays.set([RELAY])
    await trio.sleep(1)
    assert announced == {str(RELAY.peer): [f"{RELAY}/p2p-circuit"]}
    assert [str(address) for address in relays.circuit_addresses()] == [f"{RELAY}/p2p-circuit"]
    relays.set([OTHER])
    await trio.sleep(1)
    assert announced == {str(RELAY.peer): [], str(OTHER.peer): [f"{OTHER}/p2p-circuit"]}
    assert [status.peer_id for status in relays.statuses()] == [str(OTHER.peer)]
    assert relays.knows(OTHER.peer)
    assert not relays.knows(RELAY.peer)
    relay.vanish()
    await trio.sleep(10_000)
    assert {addresses for when, addresses in relay.asked if when > 2} == {(OTHER,)}


async def test_a_relay_with_a_new_address_is_asked_there_at_once_unless_it_holds(
    relay, events, nursery, autojump_clock
):
    relay.vanish()
    relays = Relays(relay.ask, events, clock=relay.clock)
    relays.set([RELAY])
    await nursery.start(relays.run)
    await trio.sleep(60)
    relay.come_back()
    relays.set([RELAY, ALSO])
    await trio.sleep(0.1)
    assert relay.asked[-1][1] == (RELAY, ALSO)
    asked = len(relay.asked)
    relays.set([RELAY])
    relays.set([RELAY])
    await trio.sleep(60)
    assert len(relay.asked) == asked
    relays.wake()
    await trio.sleep(60)
    assert relay.asked[-1][1] == (RELAY,)


async def test_a_relay_without_a_usable_address_is_absent(relay, events, nursery, autojump_clock):
    relays = Relays(relay.ask, events, clock=relay.clock)
    relays.set([QUIC])
    await nursery.start(relays.run)
    await wait_all_tasks_blocked()
    assert [status.state for status in relays.statuses()] == ["absent"]
    relays.set([RELAY])
    await trio.sleep(1)
    assert [status.state for status in relays.statuses()] == ["reserved"]


async def test_a_relay_that_answers_is_better_than_one_that_does_not(relay, events, nursery, autojump_clock):
    async def ask(addresses: Sequence[RelayAddress]) -> Granted:
        if addresses[0].peer == RELAY.peer:
            raise Unreachable("away")
        return await relay.ask(addresses)

    relays = Relays(ask, events, clock=relay.clock)
    relays.set([RELAY, OTHER])
    await nursery.start(relays.run)
    await trio.sleep(1)
    assert relays.best_first() == [(OTHER,), (RELAY,)]


async def test_a_bug_in_keeping_one_reservation_ends_neither_the_others_nor_the_daemon(
    relay, events, nursery, autojump_clock, caplog
):
    bugs = [ZeroDivisionError("a bug")]

    async def ask(addresses: Sequence[RelayAddress]) -> Granted:
        if addresses[0].peer == RELAY.peer and bugs:
            raise bugs.pop()
        return await relay.ask(addresses)

    relays = Relays(ask, events, clock=relay.clock)
    relays.set([RELAY, OTHER])
    await nursery.start(relays.run)
    await trio.sleep(1)
    assert [status.state for status in relays.statuses()] == ["reserving", "reserved"]
    assert "a bug ended the reservation at relay" in caplog.text
    await trio.sleep(AFTER_A_BUG)
    assert [status.state for status in relays.statuses()] == ["reserved", "reserved"]


def test_the_states_print_themselves():
    assert [str(state) for state in (Absent(), Reserved(0.0), Lost(0.0, Unreachable("x")))] == [
        "absent",
        "reserved",
        "lost",
    ]
    assert PeerId.parse(str(RELAY.peer)) == RELAY.peer
