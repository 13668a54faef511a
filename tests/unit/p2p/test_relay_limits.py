"""What a relay gives away at most."""

from __future__ import annotations

import ipaddress

import pytest

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

HERE = ipaddress.ip_address("203.0.113.1")
THERE = ipaddress.ip_address("203.0.113.2")


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
    assert table.holders(0) == (peer(1), peer(2), peer(4))


def test_an_expired_reservation_gives_its_place_away():
    table = Reservations(RelayLimits(max_reservations=1, reservation_ttl=10))
    table.grant(peer(1), HERE, 0)
    table.grant(peer(2), HERE, 10)
    assert table.holders(10) == (peer(2),)


def test_a_circuit_counts_at_both_ends_while_it_stands():
    count = CircuitCount()
    with count.one_more((peer(1), 1), (peer(2), 2)):
        assert (count.total, count.of(peer(1)), count.of(peer(2))) == (1, 1, 1)
        with pytest.raises(LimitReached), count.one_more((peer(1), 1), (peer(3), 1)):
            pass
        with count.one_more((peer(3), 1), (peer(2), 2)), pytest.raises(LimitReached):
            count.one_more((peer(4), 9), (peer(2), 2)).__enter__()
    assert (count.total, count.of(peer(1)), count.of(peer(2))) == (0, 0, 0)
