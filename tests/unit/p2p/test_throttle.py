"""Bytes per second of a peer: how much may go when, in which order, and what is remembered."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from peerupd.p2p.throttle import BURST_SECONDS, SMALLEST_PORTION, Buckets, Shared
from tests.support.fakes import peer_id

RATE = 100_000.0  # bytes per second: a portion has 1024, a burst 25,000
ANN, BEN, EVE = peer_id(1), peer_id(2), peer_id(3)


def of_one() -> Shared:
    """What holds a circuit of one peer."""
    shared = Buckets(RATE, lambda _peer: True).of(ANN)
    assert shared is not None
    return shared


async def test_a_burst_goes_at_once_and_the_last_portion_is_paid_by_time(autojump_clock: MockClock) -> None:
    bucket = of_one()
    await bucket.admit(25_000)
    assert trio.current_time() == 0
    await bucket.admit(SMALLEST_PORTION)
    assert trio.current_time() == 0
    await bucket.admit(1)
    assert trio.current_time() == pytest.approx(SMALLEST_PORTION / RATE, rel=0.01)


async def test_in_the_long_run_the_rate_is_kept(autojump_clock: MockClock) -> None:
    bucket = of_one()
    for size in (1, 100, 1024, 65_536, 3_000_000):
        for _ in range(3_000_000 // size if size > 1000 else 100):
            await bucket.admit(size)
    total = 100 + 10_000 + 1024 * (3_000_000 // 1024) + 65_536 * (3_000_000 // 65_536) + 3_000_000
    assert total / RATE - BURST_SECONDS - 0.02 <= trio.current_time() <= total / RATE


async def test_to_wait_is_to_stand_in_a_row_portion_by_portion(autojump_clock: MockClock) -> None:
    bucket = of_one()
    await bucket.admit(26_000)
    got: list[str] = []

    async def want(name: str, size: int, times: int) -> None:
        for _ in range(times):
            await bucket.admit(size)
            got.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(want, "bulk", 64 * 1024, 1)
        nursery.start_soon(want, "key", 1, 20)
    assert got == ["key"] * 20 + ["bulk"]
    assert trio.current_time() == pytest.approx((26_000 + 65_536 - 25_000) / RATE, abs=0.02)


async def test_who_gives_up_makes_room_for_the_next(autojump_clock: MockClock) -> None:
    bucket = of_one()
    with trio.move_on_after(1) as gone:
        await bucket.admit(100 * 1024 * 1024)
    assert gone.cancelled_caught
    with trio.fail_after(0.1):
        await bucket.admit(1)


async def test_both_ends_are_asked_and_a_peer_that_calls_itself_once(autojump_clock: MockClock) -> None:
    buckets = Buckets(RATE, lambda _peer: True)
    first, second, alone = buckets.of(ANN, BEN), buckets.of(EVE, BEN), buckets.of(ANN, ANN)
    assert first is not None
    assert second is not None
    assert alone is not None
    await first.admit(225_000)
    assert trio.current_time() == pytest.approx(2, abs=0.02)
    before = trio.current_time()
    await second.admit(100_000)  # of BEN's too, whose bucket ANN has emptied
    assert trio.current_time() - before == pytest.approx(1, abs=0.02)
    before = trio.current_time()
    await alone.admit(125_000)  # ANN's is full again
    assert trio.current_time() - before == pytest.approx(1, abs=0.02)


async def test_without_a_rate_nobody_is_asked() -> None:
    assert Buckets(0, lambda _peer: True).of(ANN, BEN) is None


async def test_a_bucket_is_kept_while_it_is_used_or_in_debt(autojump_clock: MockClock) -> None:
    busy = {ANN}
    buckets = Buckets(RATE, lambda peer: peer in busy)
    throttle = buckets.of(ANN, BEN)
    assert throttle is not None
    await throttle.admit(25_000)
    buckets.of(EVE)
    assert len(buckets) == 3
    await trio.sleep(2)
    buckets.of(ANN)
    assert len(buckets) == 1
    busy.clear()
    buckets.of(BEN)
    assert len(buckets) == 1
