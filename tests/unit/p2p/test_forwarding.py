"""The middle of a circuit: every byte, the true end, limits to the byte, throttles, counts."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
import trio
import trio.testing

from peerupd.p2p.forwarding import INSTALMENT, Ending, forward
from peerupd.p2p.streams import Stream, StreamLost, StreamWasReset
from tests.support.lines import Pair, join, tcp_links

MiB = 1024 * 1024
DEADLINE = 60.0  # seconds


class Middle:
    """`caller` and `callee`, and what is forwarded between them."""

    def __init__(self, nursery: trio.Nursery, **limits: object) -> None:
        self.nursery = nursery
        self.limits = limits
        self.ending: Ending | None = None
        self.over = trio.Event()
        self.near: Pair
        self.far: Pair

    async def start(self) -> tuple[Stream, Stream]:
        self.near, self.far = join(self.nursery, *tcp_links()), join(self.nursery, *tcp_links())
        caller, one = await self.near.streams()
        other, callee = await self.far.streams()
        self.nursery.start_soon(self._run, one, other)
        return caller, callee

    async def _run(self, one: Stream, other: Stream) -> None:
        self.ending = await forward(one, other, **self.limits)  # type: ignore[arg-type] # the tests' shorthand
        self.over.set()


async def rest_of(stream: Stream) -> bytes:
    whole = bytearray()
    while data := await stream.receive_some():
        whole += data
    return bytes(whole)


async def send(stream: Stream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()


@pytest.mark.parametrize("size", [0, 1, 4096, 70_000, 5 * MiB])
async def test_bytes_go_both_ways_to_a_clean_end(nursery, size) -> None:
    told: list[int] = []
    middle = Middle(nursery, on_bytes=told.append)
    with trio.fail_after(DEADLINE):
        caller, callee = await middle.start()
        there, back = os.urandom(size), os.urandom(size // 2)
        nursery.start_soon(send, caller, there)
        assert await rest_of(callee) == there
        nursery.start_soon(send, callee, back)
        assert await rest_of(caller) == back
        await middle.over.wait()
    assert middle.ending is Ending.FINISHED
    assert sum(told) == len(there) + len(back)


async def test_tiny_frames_are_put_together(nursery) -> None:
    middle = Middle(nursery)
    with trio.fail_after(DEADLINE):
        caller, callee = await middle.start()
        for number in range(2000):
            await caller.send_all(bytes([number % 251]))
        await caller.send_eof()
        assert await rest_of(callee) == bytes(number % 251 for number in range(2000))


@pytest.mark.parametrize("limit", [0, 1, 100_000, 300_001])
async def test_a_limit_is_met_to_the_byte_and_is_a_reset(nursery, limit) -> None:
    told: list[int] = []
    middle = Middle(nursery, data=limit, on_bytes=told.append)
    with trio.fail_after(DEADLINE):
        caller, callee = await middle.start()
        nursery.start_soon(_pushed, caller, limit + 1)
        with pytest.raises(StreamWasReset):
            await rest_of(callee)
        await middle.over.wait()
    assert middle.ending is Ending.DATA_LIMIT
    assert sum(told) == limit


async def _pushed(stream: Stream, size: int) -> None:
    with suppress(trio.BrokenResourceError):
        await send(stream, bytes(size))


async def test_exactly_what_is_allowed_passes(nursery) -> None:
    middle = Middle(nursery, data=100_000)
    with trio.fail_after(DEADLINE):
        caller, callee = await middle.start()
        nursery.start_soon(send, caller, bytes(100_000))
        assert len(await rest_of(callee)) == 100_000
        await send(callee, b"")
        await middle.over.wait()
    assert middle.ending is Ending.FINISHED


async def test_time_is_a_limit(nursery) -> None:
    middle = Middle(nursery, seconds=0.05)
    with trio.fail_after(DEADLINE):
        _, callee = await middle.start()
        with pytest.raises(StreamWasReset):
            await rest_of(callee)
        await middle.over.wait()
    assert middle.ending is Ending.TIME_LIMIT


@pytest.mark.parametrize("which", ["caller", "callee"])
async def test_a_reset_is_passed_on_as_one(nursery, which) -> None:
    middle = Middle(nursery)
    with trio.fail_after(DEADLINE):
        caller, callee = await middle.start()
        one, other = (caller, callee) if which == "caller" else (callee, caller)
        await one.send_all(b"half")
        assert await other.receive_some() == b"half"
        one.reset()
        with pytest.raises(StreamWasReset):
            await other.receive_some()
        await middle.over.wait()
    assert middle.ending is Ending.BROKEN


async def test_a_lost_connection_is_a_reset_for_the_other_side(nursery) -> None:
    middle = Middle(nursery)
    with trio.fail_after(DEADLINE):
        caller, callee = await middle.start()
        middle.near.second.abort("the test")
        with pytest.raises(StreamWasReset):
            await callee.receive_some()
        with pytest.raises(StreamLost):
            await caller.receive_some()
    assert middle.ending is Ending.BROKEN


async def test_a_slow_reader_is_waited_for_within_the_windows(nursery) -> None:
    middle = Middle(nursery)
    with trio.fail_after(DEADLINE):
        caller, callee = await middle.start()
        nursery.start_soon(send, caller, bytes(4 * MiB))
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert middle.near.second._muxer.budget.held <= MiB
        assert len(await rest_of(callee)) == 4 * MiB


class Metered:
    """A throttle that admits when told."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.go = trio.Semaphore(0)

    async def admit(self, size: int) -> None:
        self.asked.append(size)
        await self.go.acquire()


async def test_a_throttle_is_asked_before_bytes_go_on_in_instalments(nursery) -> None:
    throttle = Metered()
    middle = Middle(nursery, throttle=throttle)
    with trio.fail_after(DEADLINE):
        caller, callee = await middle.start()
        nursery.start_soon(send, caller, bytes(INSTALMENT + 100))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert callee.received == 0
        assert middle.far.first.sent == 0
        for _ in range(10):
            throttle.go.release()
        assert len(await rest_of(callee)) == INSTALMENT + 100
    assert max(throttle.asked) <= INSTALMENT
    assert sum(throttle.asked) == INSTALMENT + 100
