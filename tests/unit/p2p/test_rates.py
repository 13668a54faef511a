"""How often somebody may come: tables, and what holds for every order of events."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.p2p.rates import (
    FAILURE_INTERVAL,
    FAILURES,
    KNOWN_FOR,
    MAX_ADDRESSES,
    MAX_KNOWN,
    Addresses,
    Buckets,
    Rates,
    stream_buckets,
)
from peerupd.p2p.swarm import place_of
from peerupd.trust.identity import Identity

START = 1_000.0
PEER = Identity.generate().peer_id


# -- a bucket --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "spent"),
    [
        ([0.0] * 20, 16),
        ([0.0] * 20 + [4.9], 16),
        ([0.0] * 20 + [5.0], 17),
        ([0.0] * 20 + [5.0, 9.9, 10.0], 18),
        ([0.0] * 20 + [80.0] * 20, 32),
        ([0.0] * 20 + [1_000_000.0] * 20, 32),
        ([5.0 * number for number in range(100)], 100),
    ],
)
def test_a_burst_of_16_then_1_in_5_seconds(seconds: list[float], spent: int) -> None:
    buckets = Buckets[str](16, 5.0, 10)
    assert sum(buckets.spend("x", START + at) for at in seconds) == spent


@given(
    burst=st.integers(1, 20),
    interval=st.floats(0.001, 100),
    waits=st.lists(st.floats(0, 30), max_size=80),
    tries=st.integers(1, 5),
)
def test_in_no_span_of_time_more_is_spent_than_the_burst_and_what_came_in(
    burst: int, interval: float, waits: list[float], tries: int
) -> None:
    buckets, now, times = Buckets[str](burst, interval, 10), START, list[float]()
    for wait in waits:
        now += wait
        times += [now for _ in range(tries) if buckets.spend("x", now)]
    for first, began in enumerate(times):
        for last, ended in enumerate(times[first:], first):
            assert last - first + 1 <= burst + (ended - began) / interval + 0.01


@given(st.integers(1, 20), st.floats(0.01, 100), st.floats(0, 1000))
def test_a_bucket_that_was_drained_has_a_token_after_one_interval(burst: int, interval: float, wait: float) -> None:
    buckets = Buckets[str](burst, interval, 10)
    for _ in range(burst + 3):
        buckets.drain("x", START)
    assert buckets.has("x", START + wait) is (wait + 1e-6 >= interval)


def test_draining_an_empty_bucket_begins_the_wait_anew() -> None:
    buckets = Buckets[str](1, 5.0, 10)
    buckets.drain("x", START)
    buckets.drain("x", START + 4.0)
    assert not buckets.has("x", START + 8.9)
    assert buckets.has("x", START + 9.0)


def test_one_key_does_not_pay_for_another() -> None:
    buckets = Buckets[str](1, 5.0, 10)
    assert buckets.spend("x", START)
    assert buckets.spend("y", START)
    assert not buckets.has("x", START)


def test_an_interval_of_0_is_no_limit() -> None:
    buckets = Buckets[str](1, 0.0, 10)
    assert all(buckets.spend("x", START) for _ in range(1000))
    assert len(buckets) == 0


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 3))))
def test_no_more_keys_are_kept_than_the_limit_and_none_for_ever(spent: list[tuple[int, float]]) -> None:
    buckets, now = Buckets[int](2, 1.0, 8), START
    for key, wait in spent:
        now += wait
        buckets.drain(key, now)
        assert len(buckets) <= 8
    for _ in range(20):
        buckets.drain(-1, now + 1000)
    assert len(buckets) == 1


# -- addresses -------------------------------------------------------------------------------------------------------


def exhausted(place: str, rates: Rates | None = None) -> Addresses:
    made = Addresses(rates or Rates())
    for _ in range(16):
        assert made.may_come(place, START)
        made.failed(place, START)
    return made


def test_an_address_is_sent_away_after_16_failures_until_5_seconds_have_passed() -> None:
    made = exhausted("203.0.113.1")
    assert not made.may_come("203.0.113.1", START + 4.9)
    assert made.may_come("203.0.113.1", START + 5.0)
    assert made.may_come("203.0.113.2", START)


def test_who_is_let_in_pays_nothing_however_often_it_comes() -> None:
    made = Addresses()
    for _ in range(1000):
        assert made.may_come("203.0.113.1", START)
        assert not made.in_line("203.0.113.1", START)
        made.authorised("203.0.113.1", START)


@pytest.mark.parametrize(("hours", "may_come"), [(0, True), (23.9, True), (24.1, False)])
def test_where_an_authorised_peer_was_there_is_a_way_in_for_a_day(hours: float, may_come: bool) -> None:
    made = Addresses()
    made.authorised("203.0.113.1", START)
    now = START + hours * 3600
    for _ in range(16):
        made.failed("203.0.113.1", now)
    assert made.may_come("203.0.113.1", now) is may_come
    assert made.in_line("203.0.113.1", now)
    assert pytest.approx(86_400) == KNOWN_FOR


def test_a_day_counts_from_the_last_authorised_handshake() -> None:
    made = exhausted("203.0.113.1")
    made.authorised("203.0.113.1", START)
    made.authorised("203.0.113.1", START + 80_000)
    for _ in range(16):
        made.failed("203.0.113.1", START + 160_000)
    assert made.may_come("203.0.113.1", START + 160_000)


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    made = Addresses()
    for number in range(MAX_ADDRESSES + 100):
        made.failed(f"fail{number}", START)
        made.authorised(f"good{number}", START)
    assert len(made._tokens) == MAX_ADDRESSES
    assert len(made._known) == MAX_KNOWN


def test_addresses_without_number_do_not_make_a_known_one_forgotten() -> None:
    made = exhausted("203.0.113.1")
    made.authorised("203.0.113.1", START)
    for number in range(2 * MAX_ADDRESSES):
        made.failed(f"2001:db8:{number:x}::/64", START)
    assert made.may_come("203.0.113.1", START)


def test_while_handshakes_fail_everywhere_unknown_addresses_stand_in_line_and_known_ones_do_not() -> None:
    made = Addresses()
    made.authorised("203.0.113.1", START)
    for number in range(FAILURES):
        assert not made.in_line("203.0.113.2", START)
        made.failed(f"2001:db8::{number:x}", START)
    assert made.may_come("203.0.113.2", START)
    assert made.in_line("203.0.113.2", START)
    assert not made.in_line("203.0.113.1", START)
    assert not made.in_line("203.0.113.2", START + FAILURE_INTERVAL)


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_a_64_is_one_place(address: IPv6Address, host: int) -> None:
    neighbour = IPv6Address(int(address) >> 64 << 64 | host)
    if address.ipv4_mapped is None and neighbour.ipv4_mapped is None:
        assert place_of(str(address)) == place_of(str(neighbour))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.1", "203.0.113.2", False),
        ("203.0.113.1", "::ffff:203.0.113.1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_an_ipv4_address_is_one_place_however_it_is_written(one: str, other: str, same: bool) -> None:
    assert (place_of(one) == place_of(other)) is same


# -- streams ---------------------------------------------------------------------------------------------------------


def test_4000_streams_at_once_and_then_2000_a_second_are_let_through() -> None:
    buckets = stream_buckets(Rates())
    assert all(buckets.spend(PEER, START) for _ in range(4000))
    assert all(buckets.spend(PEER, START + number / 2000) for number in range(10_000))


def test_a_flood_of_streams_is_cut_to_the_rate() -> None:
    buckets = stream_buckets(Rates(streams_per_second=10.0))
    assert sum(buckets.spend(PEER, START + number / 1000) for number in range(10_000)) == pytest.approx(140, abs=2)


def test_a_rate_of_0_is_no_limit() -> None:
    buckets = stream_buckets(Rates(streams_per_second=0))
    assert all(buckets.spend(PEER, START) for _ in range(100_000))
