"""Bytes both ways, ends kept apart from resets, nothing kept in between."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from peerupd.features import pump as room
from peerupd.features.pump import CHUNK, SMALL_CHUNK, Purse, Tally, Transfer, pump
from tests.support.fakes import memory_streams


class Pumped:
    """An application, a pump, and a peer: `app | near == far | peer`."""

    def __init__(self, window=CHUNK):
        self.app, self.near = memory_streams(window=window)
        self.far, self.peer = memory_streams(window=window)
        self.scope = trio.CancelScope()
        self.transfer = None
        self.done = trio.Event()

    async def run(self):
        with self.scope:
            self.transfer = await pump(self.near, self.far)
        self.done.set()


@pytest.fixture
async def pumped(nursery):
    made = Pumped()
    nursery.start_soon(made.run)
    return made


async def read_all(stream):
    return b"".join([part async for part in stream])


async def test_bytes_go_both_ways_and_are_counted(pumped):
    await pumped.app.send_all(b"question")
    await pumped.app.send_eof()
    await pumped.peer.send_all(b"a long answer")
    await pumped.peer.send_eof()
    assert await read_all(pumped.peer) == b"question"
    assert await read_all(pumped.app) == b"a long answer"
    await pumped.done.wait()
    assert pumped.transfer == Transfer(sent=8, received=13)


@pytest.mark.parametrize("first", ["app", "peer"])
async def test_an_end_of_data_closes_one_half_only(pumped, first):
    one, other = (pumped.app, pumped.peer) if first == "app" else (pumped.peer, pumped.app)
    await one.send_eof()
    assert await other.receive_some() == b""
    await wait_all_tasks_blocked()
    assert not pumped.done.is_set()
    await other.send_all(b"still here")
    assert await one.receive_some() == b"still here"
    await other.send_eof()
    assert await one.receive_some() == b""
    await pumped.done.wait()
    assert pumped.transfer.cut == ""


@pytest.mark.parametrize("first", ["app", "peer"])
async def test_a_reset_is_passed_on_as_a_reset(pumped, first):
    one, other = (pumped.app, pumped.peer) if first == "app" else (pumped.peer, pumped.app)
    await one.send_all(b"torn")
    one.reset()
    await pumped.done.wait()
    with pytest.raises(trio.BrokenResourceError):
        while await other.receive_some():
            pass
    assert "reset" in pumped.transfer.cut


async def test_a_reset_after_one_end_of_data_is_still_a_reset(pumped):
    await pumped.app.send_eof()
    assert await pumped.peer.receive_some() == b""
    pumped.peer.reset()
    with pytest.raises(trio.BrokenResourceError):
        await pumped.app.receive_some()


async def test_a_reader_that_closed_resets_its_writer(pumped):
    await pumped.peer.aclose()
    assert await pumped.app.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        while True:
            await pumped.app.send_all(b"into the void")


async def test_an_end_that_was_closed_under_the_pump_is_a_cut(pumped):
    await wait_all_tasks_blocked()
    pumped.near.reset()
    pumped.app.reset()
    pumped.near._back.changed.unpark_all()
    await pumped.done.wait()
    assert pumped.transfer.cut


async def test_cancelling_resets_both_ends(pumped):
    await wait_all_tasks_blocked()
    pumped.scope.cancel()
    await pumped.done.wait()
    assert pumped.near.was_reset
    assert pumped.far.was_reset


async def test_a_chunk_is_passed_on_as_it_came(pumped):
    await pumped.app.send_all(b"x")
    assert await pumped.peer.receive_some() == b"x"
    await pumped.app.send_all(b"y" * SMALL_CHUNK)
    assert await pumped.peer.receive_some() == b"y" * SMALL_CHUNK
    await pumped.app.send_all(b"z" * CHUNK)
    assert await pumped.peer.receive_some() == b"z" * CHUNK


async def test_a_slow_reader_slows_its_writer_down(nursery, autojump_clock):
    pumped = Pumped(window=1000)
    nursery.start_soon(pumped.run)
    sent = 0
    with trio.move_on_after(1):
        while True:
            await pumped.app.send_all(b"x" * 100)
            sent += 100
    assert sent <= 3 * 1000  # a window before the pump, one after it, one chunk in it


async def test_there_is_no_idle_limit(pumped, autojump_clock):
    await trio.sleep(7 * 24 * 3600)
    await pumped.app.send_all(b"good morning")
    assert await pumped.peer.receive_some() == b"good morning"


class Stalled:
    """It has data without end, takes one chunk, and then no more."""

    taken = given = 0

    async def receive_some(self, max_bytes=None):
        await trio.lowlevel.checkpoint()
        self.given += max_bytes
        return bytes(max_bytes)

    async def send_all(self, data):
        if self.taken:
            await trio.sleep_forever()
        self.taken += len(data)

    def reset(self):
        pass


async def test_what_pumps_hold_whose_readers_do_not_read_is_bounded(nursery, monkeypatch):
    limit, ends = 1024 * 1024, [(Stalled(), Stalled()) for _ in range(20)]
    monkeypatch.setattr(room, "purse", Purse(limit))
    for near, far in ends:
        nursery.start_soon(pump, near, far)
    await wait_all_tasks_blocked()
    held = sum(near.given - far.taken + far.given - near.taken for near, far in ends)
    assert held <= limit + 2 * len(ends) * SMALL_CHUNK
    nursery.cancel_scope.cancel()


class Local:
    """An end that is filled from and taken from at once."""

    def __init__(self, data):
        self.data, self.got, self.ended, self.closed = data, b"", False, False

    def fill(self, slots):
        slots[0][: len(self.data)], size, self.data = self.data, len(self.data), b""
        return size

    def take(self, parts):
        self.got += b"".join(parts)
        return sum(map(len, parts))

    async def readable(self): ...

    async def writable(self): ...

    async def receive_some(self, max_bytes=None): ...

    async def send_all(self, data): ...

    async def send_eof(self):
        self.ended = True

    async def aclose(self):
        self.closed = True

    def reset(self):
        raise AssertionError


class Carrying(Local):
    """An end that carries by itself."""

    async def carry_from(self, source):
        slot = memoryview(bytearray(10))
        while size := source.fill([slot]):
            self.got += slot[:size]

    async def carry_to(self, sink):
        while self.data:
            self.data = self.data[sink.take([memoryview(self.data)]) :]

    def end_now(self):
        self.ended = True

    def close_now(self):
        self.closed = True


@pytest.mark.parametrize("turned", [False, True])
async def test_who_carries_by_itself_does_and_the_bytes_are_counted(turned):
    near, far, tally = Local(b"question"), Carrying(b"answer"), Tally()
    transfer = await pump(*((far, near) if turned else (near, far)), tally)
    assert (near.got, far.got) == (b"answer", b"question")
    assert all((near.ended, far.ended, near.closed, far.closed))
    assert transfer == (Transfer(6, 8) if turned else Transfer(8, 6))
    assert (tally.sent, tally.received) == (transfer.sent, transfer.received)
