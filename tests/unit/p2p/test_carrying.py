"""Bytes from sockets to sockets through streams, direct and through a circuit: all of them, and the true end."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import pytest
import trio
import trio.testing

from peerupd.p2p.outlet import Memory
from peerupd.p2p.scratch import PAYLOAD, SLOTS
from peerupd.p2p.streams import Stream, StreamLost, StreamWasReset
from peerupd.wire.yamux import INITIAL_WINDOW
from tests.support.hosts import until
from tests.support.lines import Pair, Relayed, SocketSource, direct, relayed, sockets

MiB = 1024 * 1024
DEADLINE = 60.0  # seconds

Maker = Callable[[], AbstractAsyncContextManager[Pair | Relayed]]


def pair_of(made: Pair | Relayed) -> Pair:
    return made.inner if isinstance(made, Relayed) else made


def content(size: int) -> bytes:
    return hashlib.shake_128(size.to_bytes(8, "big")).digest(min(size, MiB)) * (size // MiB or 1)


class Nothing:
    """A source that has nothing, and never will."""

    def fill(self, slots: list[memoryview]) -> int:
        raise BlockingIOError

    async def readable(self) -> None:
        await trio.sleep_forever()


class Picky:
    """A sink that takes a few bytes each time it is asked, and often none."""

    def __init__(self, portion: int) -> None:
        self.portion = portion
        self.got = bytearray()
        self.asked = 0

    def take(self, parts: Sequence[memoryview]) -> int:
        self.asked += 1
        taken = b"".join(parts)[: self.portion] if self.asked % 3 == 0 else b""
        self.got += taken
        return len(taken)

    async def writable(self) -> None:
        await trio.lowlevel.checkpoint()


class Broken:
    """A sink that breaks."""

    def __init__(self, how: Exception) -> None:
        self.how = how

    def take(self, parts: Sequence[memoryview]) -> int:
        raise self.how

    async def writable(self) -> None:
        raise AssertionError


async def through(made: Pair, near: socket.socket, far: socket.socket) -> tuple[int, int]:
    """Carry from `near` to `far` until the end; what both sides counted."""
    ours, theirs = await made.streams()
    counts = [0, 0]

    async def out() -> None:
        counts[0] = await ours.carry_from(SocketSource(near))
        await ours.send_eof()

    async def back() -> None:
        counts[1] = await theirs.carry_to(SocketSource(far))
        far.shutdown(socket.SHUT_WR)

    async with trio.open_nursery() as both:
        both.start_soon(out)
        both.start_soon(back)
    return counts[0], counts[1]


async def write(sock: socket.socket, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        await trio.lowlevel.wait_writable(sock)
        rest = rest[sock.send(rest) :]
    sock.shutdown(socket.SHUT_WR)


async def read(sock: socket.socket) -> bytes:
    whole = bytearray()
    while True:
        await trio.lowlevel.wait_readable(sock)
        if not (data := sock.recv(MiB)):
            return bytes(whole)
        whole += data


@pytest.mark.parametrize("make", [direct, relayed])
@pytest.mark.parametrize("size", [0, 1, 4096, 4097, PAYLOAD, PAYLOAD + 1, SLOTS * PAYLOAD, 24 * MiB])
async def test_all_bytes_pass_and_their_end(make: Maker, size: int) -> None:
    (app, near), (far, service) = sockets(), sockets()
    got: list[bytes] = []

    async def take() -> None:
        got.append(await read(service))

    with app, near, far, service, trio.fail_after(DEADLINE):
        async with make() as made, trio.open_nursery() as nursery:
            nursery.start_soon(write, app, content(size))
            nursery.start_soon(take)
            assert await through(pair_of(made), near, far) == (size, size)
    assert got == [content(size)]


@pytest.mark.parametrize("make", [direct, relayed])
async def test_many_streams_share_a_connection(make: Maker) -> None:
    got: dict[int, bytes] = {}

    async def one(ours: Stream, theirs: Stream, number: int) -> None:
        sink = Picky(1 + 10_000 * number)

        async def out() -> None:
            await ours.carry_from(Memory([content(number * 100_000)]))
            await ours.send_eof()

        async with trio.open_nursery() as both:
            both.start_soon(out)
            await theirs.carry_to(sink)
        got[number] = bytes(sink.got)

    with trio.fail_after(DEADLINE):
        async with make() as made, trio.open_nursery() as nursery:
            for number in range(1, 9):
                nursery.start_soon(one, *await pair_of(made).streams(), number)
    assert got == {number: content(number * 100_000) for number in range(1, 9)}


async def test_what_came_before_is_carried_first() -> None:
    async with direct() as made:
        ours, theirs = await made.streams()
        await ours.send_all(b"second ")
        await trio.testing.wait_all_tasks_blocked(0.05)
        theirs.push_back(b"first ")
        await ours.send_all(b"third")
        await ours.send_eof()
        sink = Picky(4)
        assert await theirs.carry_to(sink) == len(b"first second third")
        assert bytes(sink.got) == b"first second third"


async def test_a_sink_that_takes_nothing_holds_a_window_at_most() -> None:
    class Shut:
        def take(self, parts: Sequence[memoryview]) -> int:
            return 0

        async def writable(self) -> None:
            await trio.sleep_forever()

    async with direct() as made, trio.open_nursery() as nursery:
        ours, theirs = await made.streams()
        nursery.start_soon(theirs.carry_to, Shut())
        nursery.start_soon(ours.carry_from, Memory([bytes(4 * MiB)]))
        await until(lambda: made.second._muxer.budget.held >= INITIAL_WINDOW, DEADLINE)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert ours.sent == made.second._muxer.budget.held == INITIAL_WINDOW
        nursery.cancel_scope.cancel()


async def test_what_breaks_a_sink_breaks_its_reader_and_nothing_else() -> None:
    async with direct() as made:
        for how in (trio.BrokenResourceError("the socket"), RuntimeError("a bug")):
            ours, theirs = await made.streams()
            async with trio.open_nursery() as nursery:

                async def feed(stream: Stream = ours) -> None:
                    await trio.testing.wait_all_tasks_blocked(0.02)
                    await stream.send_all(bytes(100_000))

                nursery.start_soon(feed)
                with pytest.raises(type(how), match=str(how)):
                    await theirs.carry_to(Broken(how))
            theirs.reset()
        ours, theirs = await made.streams()
        await ours.send_all(b"goes on")
        assert await theirs.receive_some() == b"goes on"


@pytest.mark.parametrize("make", [direct, relayed])
async def test_who_carries_from_what_has_nothing_learns_of_a_reset_at_once(make: Maker) -> None:
    with trio.fail_after(DEADLINE):
        async with make() as made, trio.open_nursery() as nursery:
            ours, theirs = await pair_of(made).streams()

            async def reset() -> None:
                await theirs.send_eof()
                await trio.testing.wait_all_tasks_blocked(0.05)
                theirs.reset()  # a reset after an end is one still

            nursery.start_soon(reset)
            with pytest.raises(StreamWasReset):
                await ours.carry_from(Nothing())


async def test_who_carries_learns_of_a_loss_and_of_a_close() -> None:
    with trio.fail_after(DEADLINE):
        async with direct() as made, trio.open_nursery() as nursery:
            lost, closed = (await made.streams())[0], (await made.streams())[0]

            async def end() -> None:
                await trio.testing.wait_all_tasks_blocked(0.05)
                closed.reset()
                made.second.abort("the test")

            nursery.start_soon(end)
            with pytest.raises(trio.ClosedResourceError):
                await closed.carry_from(Nothing())
            with pytest.raises(StreamLost):
                await lost.carry_from(Nothing())


async def test_a_source_that_breaks_leaves_a_stream_that_can_only_be_reset() -> None:
    class Torn(Nothing):
        def fill(self, slots: list[memoryview]) -> int:
            raise trio.BrokenResourceError("torn")

    async with direct() as made:
        ours, theirs = await made.streams()
        with pytest.raises(trio.BrokenResourceError, match="torn"):
            await ours.carry_from(Torn())
        await ours.aclose()
        with pytest.raises(StreamWasReset):
            await theirs.receive_some()


async def test_a_reset_reaches_who_carries_to_a_sink_and_a_clean_end_is_none() -> None:
    async with direct() as made:
        ours, theirs = await made.streams()
        await ours.send_all(b"all")
        await ours.send_eof()
        sink = Picky(10)
        assert await theirs.carry_to(sink) == 3
        ours, theirs = await made.streams()
        await ours.send_all(b"half")
        ours.reset()
        with pytest.raises(StreamWasReset):
            await theirs.carry_to(Picky(10))


async def test_one_reader_and_one_sender_at_a_time() -> None:
    async with direct() as made, trio.open_nursery() as nursery:
        ours, _ = await made.streams()
        nursery.start_soon(ours.carry_from, Nothing())
        nursery.start_soon(ours.carry_to, Picky(1))
        await trio.testing.wait_all_tasks_blocked(0.02)
        with pytest.raises(trio.BusyResourceError):
            await ours.carry_from(Nothing())
        with pytest.raises(trio.BusyResourceError):
            await ours.carry_to(Picky(1))
        nursery.cancel_scope.cancel()


async def test_a_keystroke_passes_beside_bulk_that_waits_for_its_turn() -> None:
    """Its source has one byte: it needs no turn, and arrives while the bulk goes on."""
    app, near = sockets()
    with app, near, trio.fail_after(DEADLINE):
        async with direct() as made, trio.open_nursery() as nursery:
            bulk, bulk_far = await made.streams()
            keys, keys_far = await made.streams()
            nursery.start_soon(bulk.carry_from, Memory([bytes(MiB)] * 1000))
            nursery.start_soon(bulk_far.carry_to, Picky(10 * MiB))
            nursery.start_soon(keys.carry_from, SocketSource(near))
            for _ in range(10):
                app.send(b"k")
                assert await keys_far.receive_some() == b"k"
            assert bulk.sent < 1000 * MiB
            nursery.cancel_scope.cancel()
