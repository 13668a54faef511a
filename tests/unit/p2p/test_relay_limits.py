"""What a relay gives away at most."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.errors import LimitReached
from peerupd.model.names import PeerId
from peerupd.p2p.connection import Limit
from peerupd.p2p.relay_limits import (
    GUEST_CIRCUITS,
    STRANGER_CIRCUITS,
    STRANGER_DATA,
    STRANGER_SECONDS,
    CircuitCount,
    RelayLimits,
    Reservations,
)

HERE = "203.0.113.1"
THERE = "203.0.113.2"


def peer(number: int) -> PeerId:
    return PeerId.of_public_key(bytes((8, 1, 18, 32)) + bytes((number,)) * 32)


def test_strangers_are_limited_and_guests_are_not():
    limits = RelayLimits()
    assert limits.circuit(gated=False) == Limit(STRANGER_SECONDS, STRANGER_DATA)
    assert limits.circuit(gated=True) == Limit(None, None)
    assert limits.circuits(gated=False) == STRANGER_CIRCUITS
    assert limits.circuits(gated=True) == GUEST_CIRCUITS


@pytest.mark.parametrize("gated", [True, False])
def test_what_is_configured_holds_for_all(gated):
    limits = RelayLimits(session_duration=5.0, session_data_limit=1000, max_circuits=2)
    assert limits.circuit(gated=gated) == Limit(5.0, 1000)
    assert limits.circuits(gated=gated) == 2


def test_a_peer_has_one_reservation_and_renews_it():
    table = Reservations(RelayLimits(max_reservations=1, max_reservations_per_ip=1, reservation_ttl=10))
    assert table.grant(peer(1), HERE, 0).until == 10
    assert table.grant(peer(1), HERE, 5).until == 15
    assert table.holds(peer(1), 14.9)
    assert not table.holds(peer(1), 15)


def test_all_and_each_address_have_their_bounds():
    table = Reservations(RelayLimits(max_reservations=3, max_reservations_per_ip=1))
    table.grant(peer(1), HERE, 0)
    with pytest.raises(LimitReached, match=r"203\.0\.113\.1 holds 1"):
        table.grant(peer(2), HERE, 0)
    table.grant(peer(2), THERE, 0)
    table.grant(peer(3), None, 0)
    with pytest.raises(LimitReached, match="all 3"):
        table.grant(peer(4), None, 0)
    table.end(peer(3))
    table.end(peer(3))
    table.grant(peer(4), None, 0)
    assert tuple(table.all(0)) == (peer(1), peer(2), peer(4))
    assert len(table) == 3


def test_an_expired_reservation_gives_its_place_away():
    table = Reservations(RelayLimits(max_reservations=1, reservation_ttl=10))
    table.grant(peer(1), HERE, 0)
    table.grant(peer(2), HERE, 10)
    assert tuple(table.all(10)) == (peer(2),)


def test_each_network_has_its_bound_where_it_is_known_whose_an_address_is():
    table = Reservations(RelayLimits(max_reservations_per_asn=2, max_reservations_per_ip=9))
    table.grant(peer(1), HERE, 0)
    table.count_networks({HERE: 64500, THERE: 64500}.get)
    table.grant(peer(2), THERE, 0)
    with pytest.raises(LimitReached, match="AS64500 holds 2"):
        table.grant(peer(3), HERE, 0)
    table.grant(peer(3), "198.51.100.1", 0)
    table.grant(peer(2), HERE, 0)  # it moves within its network
    table.end(peer(1))
    table.grant(peer(4), THERE, 0)


def test_a_renewal_that_is_refused_leaves_what_there_is():
    table = Reservations(RelayLimits(max_reservations_per_ip=1, reservation_ttl=10))
    table.grant(peer(1), HERE, 0)
    table.grant(peer(2), THERE, 1)
    with pytest.raises(LimitReached):
        table.grant(peer(2), HERE, 5)
    assert table.all(10)[peer(2)].until == 11
    assert tuple(table.all(11)) == ()


def test_what_was_held_before_a_restart_counts_and_ends_when_it_would_have():
    table = Reservations(RelayLimits(max_reservations=3, max_reservations_per_ip=1, reservation_ttl=100))
    table.restore(peer(1), HERE, 0, 1000)
    table.restore(peer(2), HERE, 5, 1000)
    table.restore(peer(2), HERE, 50, 1000)
    table.restore(peer(3), None, 10_000, 1000)
    assert {holder: held.until for holder, held in table.all(1000).items()} == {peer(2): 1005, peer(3): 1100}
    with pytest.raises(LimitReached):
        table.grant(peer(4), HERE, 1000)
    table.grant(peer(4), HERE, 1005)
    table.restore(peer(5), THERE, 50, 1005)
    table.restore(peer(6), THERE, 60, 1005)  # there is no room for it
    assert tuple(table.all(1005)) == (peer(3), peer(4), peer(5))


PEERS = st.integers(1, 6)
PLACES = st.sampled_from([None, "a", "b", "c"])
STEPS = st.lists(st.tuples(st.sampled_from(["grant", "end", "wait", "networks"]), PEERS, PLACES), max_size=40)


@given(STEPS)
def test_whatever_happens_the_counts_are_those_of_what_is_held(steps):
    limits = RelayLimits(max_reservations=4, max_reservations_per_ip=2, max_reservations_per_asn=3, reservation_ttl=10)
    table = Reservations(limits)
    now = 0.0
    for what, who, place in steps:
        if what == "wait":
            now += who
        elif what == "end":
            table.end(peer(who))
        elif what == "networks":
            table.count_networks(lambda place, who=who: who if place in ("a", "b") else None)
        else:
            with suppress(LimitReached):
                assert table.grant(peer(who), place, now).until == now + 10
        held = list(table.all(now).values())
        assert all(one.until > now for one in held)
        assert len(held) <= 4
        assert sum(table._places.values()) == sum(one.place is not None for one in held)
        assert sum(table._networks.values()) == sum(one.network is not None for one in held)
        assert all(count <= 2 for count in table._places.values())


def test_a_circuit_counts_at_both_ends_while_it_stands():
    count = CircuitCount()
    with count.one_more((peer(1), 1), (peer(2), 2)):
        assert (count.total, count.of(peer(1)), count.of(peer(2))) == (1, 1, 1)
        with pytest.raises(LimitReached), count.one_more((peer(1), 1), (peer(3), 1)):
            pass
        with count.one_more((peer(3), 1), (peer(2), 2)), pytest.raises(LimitReached):
            count.one_more((peer(4), 9), (peer(2), 2)).__enter__()
    assert (count.total, count.of(peer(1)), count.of(peer(2))) == (0, 0, 0)
