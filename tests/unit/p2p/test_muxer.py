"""One connection: fairness, keeping alive, memory, and its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import trio
import trio.lowlevel
import trio.testing

from peerupd.model.errors import ConnectionLost
from peerupd.p2p.budget import Budget, Pool
from peerupd.p2p.muxer import PING_EVERY, SILENCE
from peerupd.p2p.outlet import SLICE, SMALL, SMALL_BOUND
from peerupd.p2p.scratch import PAYLOAD
from peerupd.p2p.streams import Stream, StreamLost
from peerupd.wire.yamux import INITIAL_WINDOW
from tests.support.hosts import connected

MiB = 1024 * 1024


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def drain(stream: Stream) -> None:
    while await stream.receive_some():
        pass


async def test_the_round_trip_is_known_soon() -> None:
    async with connected() as pair:
        await settle()
        assert pair.first.rtt is not None
        assert pair.second.rtt is not None


async def test_a_silent_peer_is_given_up_within_45_seconds(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as pair:
        await trio.sleep(PING_EVERY / 2)
        pair.stop_second_link()
        began = trio.current_time()
        await pair.first.closed.wait()
        assert SILENCE <= trio.current_time() - began <= PING_EVERY + SILENCE
        assert "nothing came for 30 s" in pair.first.reason


async def test_an_idle_connection_lives_on(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as pair:
        await trio.sleep(3600)
        assert not pair.first.closed.is_set()
        assert not pair.second.closed.is_set()


async def test_a_peer_that_we_do_not_listen_to_is_not_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """Its bytes wait in our socket because our budget is used up."""
    async with connected() as pair:
        pair.first._muxer._check_silence = lambda: None  # type: ignore[method-assign] # the peer is more patient
        ours, theirs = await pair.streams()
        pair.second._muxer.budget.take(10**9)
        await ours.send_all(b"x")
        await trio.sleep(300)
        assert not pair.second.closed.is_set()
        pair.second._muxer.budget.give_back(10**9)
        assert await theirs.receive_some() == b"x"


async def test_closing_sends_what_was_queued() -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        await ours.send_all(b"the last words")
        await pair.first.close()
        await pair.second.closed.wait()
        assert await theirs.receive_some() == b"the last words"
        with pytest.raises(StreamLost):
            await theirs.receive_some()
        await pair.first.close()


async def test_closing_a_stuck_connection_takes_a_second(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as pair:
        await pair.streams()
        pair.stop_first_link()
        began = trio.current_time()
        await pair.first.close()
        assert trio.current_time() - began == pytest.approx(1)


async def test_no_stream_is_opened_on_a_connection_that_has_ended_or_is_left() -> None:
    async with connected() as pair:
        pair.first.abort("the test")
        await pair.first.closed.wait()
        with pytest.raises(ConnectionLost, match="the test"):
            await pair.first.open_stream(["/x"])


async def test_the_peer_that_leaves_is_asked_for_no_more_streams() -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        pair.second._muxer._yamux.go_away()
        pair.second._muxer.outlet.flush()
        await settle()
        with pytest.raises(ConnectionLost, match="no more streams"):
            await pair.first.open_stream(["/x"])
        await ours.send_all(b"but those that are open go on")
        assert await theirs.receive_some()


@pytest.mark.parametrize("garbage", [b"\x00" * 40, b"\xff\xff" + bytes(65535), b"\x00\x11" + bytes(17)])
async def test_garbage_ends_the_connection_and_nothing_else(garbage: bytes) -> None:
    async with connected() as pair:
        await pair.left.send_all(garbage)
        await pair.second.closed.wait()
        assert "Noise record" in pair.second.reason


async def test_a_bug_in_reading_ends_the_connection_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with connected() as pair:

        def broken(_data: object, _start: int) -> Sequence[object]:
            raise RuntimeError("a bug")

        pair.second._muxer._yamux.receive = broken  # type: ignore[method-assign, assignment]
        with caplog.at_level(logging.ERROR):
            await pair.left.send_all(bytes(pair.first._muxer._session.seal(b"x")))
            await pair.second.closed.wait()
        assert "because of a bug" in caplog.text
        assert "a bug" in pair.second.reason


async def test_a_small_message_waits_for_no_turn() -> None:
    async with connected() as pair, trio.open_nursery() as nursery:
        bulk = [await pair.streams() for _ in range(4)]
        small = await pair.streams()
        for ours, theirs in bulk:
            nursery.start_soon(ours.send_all, bytes(20 * MiB))
            nursery.start_soon(drain, theirs)
        for _ in range(20):
            before = pair.first.sent
            await small[0].send_all(b"x")
            # one round of the scheduler, in which each of the others comes to its turn at most once
            assert pair.first.sent - before <= len(b"x") + len(bulk) * SLICE * PAYLOAD
            assert await small[1].receive_some() == b"x"
        nursery.cancel_scope.cancel()


async def test_small_messages_that_wait_are_bounded_all_together() -> None:
    async with connected() as pair, trio.open_nursery() as nursery:
        pair.stop_first_link()
        streams = [pair.half_stream() for _ in range(2 * SMALL_BOUND // SMALL)]
        for stream in streams:
            nursery.start_soon(stream.send_all, bytes(SMALL))
        await settle()
        assert pair.first.sent <= SMALL_BOUND + 2 * SMALL  # the first one is under way already
        nursery.cancel_scope.cancel()


async def test_streams_share_a_connection_fairly() -> None:
    async with connected() as pair, trio.open_nursery() as nursery:
        got = [0, 0, 0]
        pair.second._muxer._yamux._max_window = INITIAL_WINDOW  # windows grow at different times

        async def count(which: int, stream: Stream) -> None:
            while data := await stream.receive_some():
                got[which] += len(data)

        for which in range(3):
            ours, theirs = await pair.streams()
            nursery.start_soon(ours.send_all, bytes(100 * MiB))
            nursery.start_soon(count, which, theirs)
        while sum(got) < 30 * MiB:
            await trio.lowlevel.checkpoint()
        assert min(got) > 0.7 * max(got)
        nursery.cancel_scope.cancel()


async def test_a_stalled_reader_holds_up_no_other_stream() -> None:
    async with connected() as pair, trio.open_nursery() as nursery:
        stalled, lively = await pair.streams(), await pair.streams()
        nursery.start_soon(stalled[0].send_all, bytes(10 * MiB))
        await settle()
        await lively[0].send_all(b"hello")
        assert await lively[1].receive_some() == b"hello"
        assert pair.second._muxer.budget.held <= MiB
        nursery.cancel_scope.cancel()


async def test_over_its_budget_a_connection_pauses_and_resets_nothing() -> None:
    async with connected() as pair, trio.open_nursery() as nursery:
        pair.second._muxer.budget._limit = MiB
        streams = [await pair.streams() for _ in range(20)]
        for ours, _ in streams:
            nursery.start_soon(ours.send_all, bytes(200 * 1024))
        await settle()
        assert pair.second._muxer.budget.paused
        assert MiB < pair.second._muxer.budget.held < 2 * MiB
        for _, theirs in streams:
            nursery.start_soon(read, theirs, 200 * 1024)
        while pair.second.received < 20 * 200 * 1024:
            await trio.lowlevel.checkpoint()
        await settle()
        assert pair.second._muxer.budget.held == 0


async def read(stream: Stream, size: int) -> None:
    while size:
        size -= len(await stream.receive_some())


async def test_counts_what_goes_both_ways() -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        await ours.send_all(bytes(1000))
        assert len(await theirs.receive_some()) == 1000
        assert (pair.first.sent, pair.second.received) == (1000, 1000)


def test_when_the_process_is_over_its_budget_the_fattest_pause() -> None:
    pool = Pool(limit=100)
    fat, thin = Budget(pool, limit=1000), Budget(pool, limit=1000)
    fat.take(90)
    thin.take(20)
    assert fat.is_over
    assert not thin.is_over
    fat.give_back(90)
    assert not fat.is_over
    assert (pool.held, pool.holders) == (20, 1)


def test_what_an_ended_connection_still_holds_burdens_nobody() -> None:
    pool = Pool(limit=100)
    ended = Budget(pool)
    ended.take(500)
    ended.detach()
    assert (pool.held, pool.holders, ended.held) == (0, 0, 500)
    ended.give_back(500)
    assert (pool.held, ended.held) == (0, 0)
