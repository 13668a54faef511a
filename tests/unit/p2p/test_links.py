"""A connection inside of another one's stream: no tasks in between, its troubles its own."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from peerupd.p2p import links
from peerupd.p2p.links import Circuit, Over
from peerupd.p2p.muxer import PING_EVERY, SILENCE
from peerupd.p2p.streams import Stream, StreamLost
from tests.support.lines import direct, join, relayed

MiB = 1024 * 1024
DEADLINE = 60.0  # seconds


async def rest_of(stream: Stream) -> int:
    size = 0
    while data := await stream.receive_some():
        size += len(data)
    return size


async def send(stream: Stream, size: int) -> None:
    await stream.send_all(bytes(size))
    await stream.send_eof()


async def test_a_stream_of_a_connection_is_a_circuit_and_one_in_a_circuit_is_any_stream() -> None:
    async with relayed() as made:
        assert isinstance(made.inner.first._muxer._link, Circuit)
        ours, _ = await made.inner.streams()
        assert ours.depth == 1
        assert isinstance(links.over(ours), Over)
        assert isinstance(links.over(trio.testing.memory_stream_pair()[0]), Over)


async def test_a_connection_three_deep_works_too() -> None:
    with trio.fail_after(DEADLINE):
        async with relayed() as made, trio.open_nursery() as nursery:
            deepest = join(nursery, *[links.over(end) for end in await made.inner.streams()])
            ours, theirs = await deepest.streams()
            nursery.start_soon(send, ours, 3 * MiB)
            assert await rest_of(theirs) == 3 * MiB
            nursery.cancel_scope.cancel()


async def test_what_a_circuit_carries_is_sealed_in_place_and_not_kept() -> None:
    """So long as the connection outside is free."""
    async with relayed() as made:
        ours, theirs = await made.inner.streams()
        kept: list[int] = []
        outlet = made.inner.first._muxer.outlet
        outlet._keep = lambda sealed: kept.append(len(sealed))  # type: ignore[method-assign]
        await ours.send_all(bytes(100_000))
        assert not kept
        got = 0
        while got < 100_000:
            got += len(await theirs.receive_some())


async def test_inside_frames_wait_for_the_window_outside() -> None:
    with trio.fail_after(DEADLINE):
        async with relayed() as made, trio.open_nursery() as nursery:
            ours, theirs = await made.inner.streams()
            outside = made.near.first._muxer
            [carrier] = outside._streams.values()
            outside._yamux._streams[carrier.number].room = 10
            nursery.start_soon(send, ours, 100_000)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert theirs.received == 0
            made.near.second._muxer._yamux._streams[carrier.number].credit = 256 * 1024
            outside._yamux._streams[carrier.number].room = 256 * 1024
            carrier.window_grew()
            assert await rest_of(theirs) == 100_000


async def test_the_end_outside_is_the_end_inside() -> None:
    with trio.fail_after(DEADLINE):
        async with relayed() as made:
            ours, theirs = await made.inner.streams()
            made.near.first.abort("the test")
            with pytest.raises(StreamLost):
                await theirs.receive_some()
            with pytest.raises(StreamLost):
                await ours.receive_some()


async def test_garbage_inside_ends_the_connection_inside_and_nothing_else() -> None:
    with trio.fail_after(DEADLINE):
        async with direct() as pair, trio.open_nursery() as nursery:
            caller, callee = await pair.streams()
            inner = join(nursery, Over(trio.testing.memory_stream_pair()[0]), links.over(callee))
            await caller.send_all(bytes(1000))
            await inner.second.closed.wait()
            assert "Noise record" in inner.second.reason
            ours, theirs = await pair.streams()
            await send(ours, 5)
            assert await rest_of(theirs) == 5
            nursery.cancel_scope.cancel()


async def test_a_connection_inside_that_has_no_room_pauses_and_is_not_given_up(autojump_clock) -> None:
    async with direct() as pair, trio.open_nursery() as nursery:
        inner = join(nursery, *[links.over(end) for end in await pair.streams()])
        ours, theirs = await inner.streams()
        for muxer in (inner.first._muxer, pair.first._muxer, pair.second._muxer):
            muxer._check_silence = lambda: None  # type: ignore[method-assign] # the others are patient
        inner.second._muxer.budget.take(10**9)
        await ours.send_all(b"x")
        await trio.sleep(10 * (PING_EVERY + SILENCE))
        assert inner.second._muxer.paused
        assert not inner.second.closed.is_set()
        inner.second._muxer.budget.give_back(10**9)
        assert await theirs.receive_some() == b"x"
        nursery.cancel_scope.cancel()


async def test_while_the_connection_outside_is_paused_the_one_inside_waits(autojump_clock) -> None:
    async with direct() as pair, trio.open_nursery() as nursery:
        inner = join(nursery, *[links.over(end) for end in await pair.streams()])
        ours, theirs = await inner.streams()
        for muxer in (inner.first._muxer, pair.first._muxer):
            muxer._check_silence = lambda: None  # type: ignore[method-assign]
        pair.second._muxer.budget.take(10**9)
        await ours.send_all(b"x")
        await trio.sleep(10 * (PING_EVERY + SILENCE))
        assert inner.second._muxer.paused
        assert not inner.second.closed.is_set()
        pair.second._muxer.budget.give_back(10**9)
        assert await theirs.receive_some() == b"x"
        nursery.cancel_scope.cancel()
