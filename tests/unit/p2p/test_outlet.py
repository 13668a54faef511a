"""What is sent: whole and in order whatever the link takes, in fair turns, small messages first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from peerupd.p2p.outlet import SLICE, SMALL, SMALL_BOUND, Memory, Outlet
from peerupd.p2p.scratch import PAYLOAD, SLOTS, Slots
from peerupd.wire.noise import Session
from peerupd.wire.yamux import DataReceived, Yamux

KEYS = (b"a" * 32, b"b" * 32)


class Trickle:
    """A link that takes what it is told to, and keeps it."""

    depth = 0
    paused = False

    def __init__(self, takes: Sequence[int] = ()) -> None:
        self.takes = list(takes)  # bytes, of each attempt to send at once; all of it when there are no more
        self.sent = bytearray()
        self.ended = False
        self.may_send = trio.Event()

    def room(self) -> int:
        return 1 << 30

    def send_now(self, data: memoryview | bytes) -> int:
        taken = min(len(data), self.takes.pop(0)) if self.takes else len(data)
        self.sent += data[:taken]
        return taken

    def send_slots(self, slots: Slots, sizes: Sequence[int], inset: int) -> int:
        return self.send_now(slots.joined(sizes, inset))

    async def send(self, data: memoryview) -> None:
        await self.may_send.wait()
        await trio.lowlevel.checkpoint()
        self.sent += data

    async def send_eof(self) -> None:
        self.ended = True


class Way:
    """An outlet, and the peer that reads what it sends."""

    def __init__(self, takes: Sequence[int] = ()) -> None:
        self.link = Trickle(takes)
        self.yamux = Yamux(client=True)
        self.broken: list[str] = []
        self.outlet = Outlet(self.link, Session(*KEYS), self.yamux, self.broken.append)
        self._session, self._peer = Session(*KEYS[::-1]), Yamux(client=False)

    def open(self, room: int = 1 << 30) -> int:
        stream = self.yamux.open()
        self.yamux._streams[stream].room = room
        return stream

    def got(self) -> dict[int, bytes]:
        """What has arrived of each stream."""
        found: dict[int, bytes] = defaultdict(bytes)
        for at in range(0, len(self.link.sent), 1000):
            for event in self._peer.receive(self._session.open(bytes(self.link.sent[at : at + 1000]))):
                if isinstance(event, DataReceived):
                    found[event.stream] += event.data
                    self._peer.consumed(event.stream, len(event.data), 0.0)
        self.link.sent.clear()
        return found


sizes = st.sampled_from([1, 100, SMALL, SMALL + 1, PAYLOAD, PAYLOAD + 1, 3 * PAYLOAD + 7, 20 * PAYLOAD])
steps = st.tuples(st.integers(0, 2), sizes, st.sampled_from(["offer", "pull", "probe"]))


@given(st.lists(steps, max_size=12), st.lists(st.sampled_from([0, 1, 1000, 40_000, 1 << 20]), max_size=12))
def test_bytes_arrive_in_order_whatever_the_link_takes(plan, takes):
    async def send() -> None:
        way = Way(takes)
        streams = [way.open(200_000), way.open(), way.open()]
        said: dict[int, bytes] = defaultdict(bytes)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(way.outlet.run)
            for number, (which, size, how) in enumerate(plan):
                stream, data = streams[which], bytes([number + 1]) * size
                room = way.outlet.window(stream)
                if how == "offer":
                    taken = way.outlet.offer(stream, [data[:10], data[10:]], size, turn=bool(number % 2))
                elif room < SMALL:
                    taken = 0
                elif how == "pull":
                    taken, more = way.outlet.pull(stream, Memory([data]), 3)
                    assert more == (taken == min(room, 3 * PAYLOAD)) or not way.outlet.is_free
                else:
                    taken, _ = way.outlet.probe(stream, Memory([data]))
                assert taken <= min(size, room, SLOTS * PAYLOAD)
                said[stream] += data[:taken]
                if number % 3 == 2:
                    way.link.may_send.set()
                    await trio.testing.wait_all_tasks_blocked()
            way.link.may_send.set()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert way.outlet.is_free
        assert way.got() == {stream: data for stream, data in said.items() if data}

    trio.run(send)


def test_memory_fills_slots_from_the_first_on() -> None:
    source = Memory([b"", b"abc", bytearray(b"de"), memoryview(b"fghij")])
    slots = [memoryview(bytearray(4)), memoryview(bytearray(3))]
    assert source.fill(slots) == 7
    assert b"".join(slots) == b"abcdefg"
    assert source.fill(slots) == 3
    assert bytes(slots[0][:3]) == b"hij"
    assert source.fill(slots) == 0


async def test_while_the_link_is_busy_bulk_waits_and_small_messages_are_bounded(nursery) -> None:
    way = Way([0])
    bulk, small = way.open(), way.open()
    nursery.start_soon(way.outlet.run)
    assert way.outlet.offer(bulk, [bytes(PAYLOAD)], PAYLOAD, turn=False) == PAYLOAD
    assert not way.outlet.is_free
    assert way.outlet.offer(bulk, [bytes(PAYLOAD)], PAYLOAD, turn=False) == 0
    sent = 0
    while taken := way.outlet.offer(small, [bytes(SMALL)], SMALL, turn=False):
        sent += taken
    assert SMALL_BOUND - SMALL < sent <= SMALL_BOUND + SMALL
    way.link.may_send.set()
    await trio.testing.wait_all_tasks_blocked()
    assert {stream: len(data) for stream, data in way.got().items()} == {bulk: PAYLOAD, small: sent}


async def test_turns_are_given_in_order_one_slice_each(nursery) -> None:
    way = Way([0])
    streams = [way.open() for _ in range(4)]
    assert way.outlet.offer(streams[0], [bytes(PAYLOAD)], PAYLOAD, turn=False)
    order: list[int] = []

    async def send(stream: int) -> None:
        for _ in range(3):
            await way.outlet.turn()
            taken, _ = way.outlet.pull(stream, Memory([bytes(SLOTS * PAYLOAD)]), SLOTS)
            order.append(stream)
            assert taken <= SLICE * PAYLOAD or not way.outlet._turns

    for stream in streams:
        nursery.start_soon(send, stream)
        await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(way.outlet.run)
    way.link.may_send.set()
    await trio.testing.wait_all_tasks_blocked()
    assert order == streams * 3


async def test_who_has_a_turn_and_nothing_to_send_holds_up_nobody(nursery) -> None:
    way = Way([0])
    stream = way.open()
    way.outlet.offer(stream, [bytes(PAYLOAD)], PAYLOAD, turn=False)
    came: list[int] = []

    async def wait(number: int) -> None:
        await way.outlet.turn()
        came.append(number)

    nursery.start_soon(way.outlet.run)
    for number in range(3):
        nursery.start_soon(wait, number)
    way.link.may_send.set()
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(came) == [0, 1, 2]


@pytest.mark.parametrize("how", ["offer", "slots"])
async def test_a_link_that_breaks_is_told_once_and_raises_nothing(how: str) -> None:
    way = Way()
    stream = way.open()
    way.outlet.flush()

    def broken(*_: object) -> int:
        raise OSError("the cable")

    way.link.send_now = broken  # type: ignore[method-assign]
    size = 10 if how == "offer" else PAYLOAD
    assert way.outlet.offer(stream, [bytes(size)], size, turn=False) == size
    assert way.broken == ["the cable"]


async def test_leaving_sends_what_is_there_and_then_the_end(nursery) -> None:
    way = Way([0])
    stream = way.open()
    way.outlet.offer(stream, [b"last"], 4, turn=False)
    way.outlet.leave()
    nursery.start_soon(way.outlet.run)
    await trio.testing.wait_all_tasks_blocked()
    assert not way.link.ended
    way.link.may_send.set()
    await trio.testing.wait_all_tasks_blocked()
    assert way.got() == {stream: b"last"}
    assert way.link.ended


async def test_frames_go_on_under_new_headers_and_large_ones_in_parts() -> None:
    way = Way()
    stream = way.open()
    sizes = [1, 1000, 65_524, PAYLOAD, 65_507]
    frames = [memoryview(bytearray(b"?" * 12 + bytes([at + 1]) * size)) for at, size in enumerate(sizes)]
    whole = b"".join(frame[12:] for frame in frames)
    assert way.outlet.send_frames(stream, frames) == len(whole)
    assert way.got() == {stream: whole}


async def test_frames_stop_at_the_window_and_where_the_buffer_ends() -> None:
    way = Way()
    narrow, wide = way.open(room=1500), way.open()
    frames = [memoryview(bytearray(12 + 1000)) for _ in range(3)]
    assert way.outlet.send_frames(narrow, frames) == 1000
    assert way.outlet.send_frames(wide, [memoryview(bytearray(12 + PAYLOAD)) for _ in range(40)]) == SLOTS * PAYLOAD
    assert {stream: len(data) for stream, data in way.got().items()} == {narrow: 1000, wide: SLOTS * PAYLOAD}
