"""The multiplexer: one machine against written frames, then two machines against each other."""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from peerupd.model.errors import ConnectionLost, LimitReached, ProtocolViolation, StreamReset
from peerupd.wire.yamux import (
    HEADER_BYTES,
    INITIAL_WINDOW,
    MAX_FRAME,
    MAX_GROWTH,
    MAX_INBOUND_STREAMS,
    MAX_PENDING_REPLIES,
    MAX_STREAM_ID,
    MAX_TAKEN,
    MAX_WINDOW,
    MIN_SEND,
    RATE_PERIOD,
    SHORT_WINDOW,
    WIDE_WINDOW,
    DataReceived,
    EndReceived,
    GoAway,
    PongReceived,
    ResetReceived,
    StreamAccepted,
    StreamOpened,
    WentAway,
    WindowGrew,
    Yamux,
)
from tests.support.strategies import portions

DATA, UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


def frame(kind: int, flags: int = 0, stream: int = 0, value: int | bytes = 0, *, version: int = 0) -> bytes:
    """A frame as it is on the wire; `value` is the body of a data frame, or the length field."""
    body = value if isinstance(value, bytes) else b""
    return struct.pack(">BBHII", version, kind, flags, stream, len(body) if body else value or 0) + body


@dataclass(frozen=True)
class Data:
    """A `DataReceived` with its bytes."""

    stream: int
    data: bytes


def heard(machine: Yamux, data: bytes, start: int = 0) -> list[object]:
    """What `data` means to the machine."""
    return [Data(e.stream, e.data) if isinstance(e, DataReceived) else e for e in machine.receive(data, start)]


def output(machine: Yamux) -> bytes:
    return b"".join(machine.take_output())


def server(*frames: bytes, **more) -> Yamux:
    """A server that has received these frames, with its answers fetched."""
    machine = Yamux(client=False, **more)
    machine.receive(b"".join(frames))
    machine.take_output()
    return machine


# -- opening -------------------------------------------------------------------------------------------------------


def test_a_client_opens_odd_streams_and_a_server_even_ones():
    client, server = Yamux(client=True), Yamux(client=False)
    assert [client.open(), client.open()] == [1, 3]
    assert [server.open(), server.open()] == [2, 4]
    assert output(client) == frame(UPDATE, SYN, 1) + frame(UPDATE, SYN, 3)
    assert (client.streams, client.inbound) == (2, 0)


@pytest.mark.parametrize("kind", [DATA, UPDATE])
def test_a_stream_that_the_other_side_opens_is_accepted_at_once(kind):
    machine = Yamux(client=False)
    assert machine.receive(frame(kind, SYN, 1)) == [StreamOpened(1)]
    assert output(machine) == frame(UPDATE, ACK, 1)
    assert (machine.streams, machine.inbound) == (1, 1)


def test_an_acceptance_waits_for_something_to_go_with():
    machine = Yamux(client=False)
    machine.receive(frame(UPDATE, SYN, 1))
    assert machine.output_size == 0
    machine.send(1, b"hello")
    assert output(machine) == frame(UPDATE, ACK, 1) + frame(DATA, 0, 1, b"hello")
    assert output(machine) == b""


def test_an_acceptance_waits_no_longer_than_it_is_let():
    machine = Yamux(client=False)
    machine.receive(frame(UPDATE, SYN, 1))
    for _ in range(2):
        machine.acknowledge()
        assert machine.output_size == HEADER_BYTES
    assert output(machine) == frame(UPDATE, ACK, 1)
    machine.acknowledge()
    assert machine.output_size == 0


def test_the_first_frame_may_open_carry_data_and_finish():
    machine = Yamux(client=False)
    events = heard(machine, frame(DATA, SYN | FIN, 1, b"all of it"))
    assert events == [StreamOpened(1), Data(1, b"all of it"), EndReceived(1)]


def test_the_acceptance_of_our_stream_is_told_once():
    machine = Yamux(client=True)
    machine.open()
    assert machine.receive(frame(UPDATE, ACK, 1)) == [StreamAccepted(1)]
    assert heard(machine, frame(DATA, ACK, 1, b"x")) == [Data(1, b"x")]


def test_the_acceptance_of_their_own_stream_means_nothing():
    assert server(frame(UPDATE, SYN, 1)).receive(frame(UPDATE, ACK, 1)) == []


@pytest.mark.parametrize(
    "again", [frame(UPDATE, SYN, 1), frame(UPDATE, SYN, 2), frame(DATA, SYN, 0)], ids=["known", "parity", "zero"]
)
def test_an_opening_with_a_number_that_is_not_free_is_refused(again):
    with pytest.raises(ProtocolViolation, match="cannot be opened by the other side"):
        server(frame(UPDATE, SYN, 1)).receive(again)


def test_too_many_streams_are_reset_and_their_data_skipped():
    machine = server(frame(UPDATE, SYN, 1), max_inbound_streams=1)
    assert heard(machine, frame(DATA, SYN, 3, b"skipped") + frame(DATA, 0, 1, b"read")) == [Data(1, b"read")]
    assert output(machine) == frame(UPDATE, RST, 3)
    assert (machine.streams, machine.inbound) == (1, 1)


def test_the_place_of_a_stream_that_is_over_is_free_again():
    machine = server(frame(UPDATE, SYN, 1), frame(UPDATE, RST, 1), max_inbound_streams=1)
    assert machine.receive(frame(UPDATE, SYN, 3)) == [StreamOpened(3)]


def test_stream_numbers_run_out():
    machine = Yamux(client=True)
    machine._next_id = MAX_STREAM_ID
    assert machine.open() == MAX_STREAM_ID
    with pytest.raises(LimitReached, match="connect anew"):
        machine.open()


# -- data and windows ----------------------------------------------------------------------------------------------


def test_data_is_cut_into_frames_and_streams_take_turns():
    machine = Yamux(client=True)
    machine.open()
    machine.take_output()
    data = bytes(range(256)) * 1024
    assert machine.send(1, memoryview(data)) == MAX_TAKEN
    assert machine.output_size == MAX_TAKEN + 2 * 12
    first, second = machine.take_output()
    assert first == frame(DATA, 0, 1, data[:MAX_FRAME])
    assert second == frame(DATA, 0, 1, data[MAX_FRAME:MAX_TAKEN])
    assert machine.output_size == 0


def test_what_is_queued_is_a_copy():
    machine, scratch = Yamux(client=True), bytearray(b"before")
    machine.send(machine.open(), memoryview(scratch))
    scratch[:] = b"after!"
    assert output(machine).endswith(b"before")


def test_a_shut_window_takes_nothing_and_no_slivers_are_sent():
    machine = Yamux(client=True)
    stream = machine.open()
    data = bytes(INITIAL_WINDOW)
    taken = 0
    while taken < INITIAL_WINDOW - 100:
        taken += machine.send(stream, data[: min(MAX_FRAME, INITIAL_WINDOW - 100 - taken)])
    assert machine.send(stream, data) == 0
    assert machine.send(stream, data[:101]) == 0
    assert machine.send(stream, data[:100]) == 100
    assert machine.receive(frame(UPDATE, 0, stream, MIN_SEND - 1)) == [WindowGrew(stream)]
    assert machine.send(stream, data) == 0
    assert machine.receive(frame(UPDATE, 0, stream, 1)) == [WindowGrew(stream)]
    assert machine.send(stream, data) == MIN_SEND


def test_who_builds_a_frame_elsewhere_takes_its_room_from_the_window():
    machine = server(frame(UPDATE, SYN, 1))
    built = bytearray(b"??" + bytes(HEADER_BYTES) + b"data")
    machine.put_header(1, 4, built, 2)
    assert bytes(built) == b"??" + frame(DATA, 0, 1, b"data")
    assert machine.room(1) == INITIAL_WINDOW - 4
    machine.finish(1)
    with pytest.raises(ValueError, match="finished by us"):
        machine.room(1)
    machine.reset(1)
    with pytest.raises(StreamReset):
        machine.room(1)


def test_control_frames_go_before_waiting_data_but_an_end_does_not():
    machine = server(frame(UPDATE, SYN, 1))
    machine.send(1, b"data")
    machine.finish(1)
    machine.ping(7)
    assert output(machine) == frame(PING, SYN, 0, 7) + frame(DATA, 0, 1, b"data") + frame(DATA, FIN, 1)


def test_a_data_frame_is_handed_on_as_it_arrives():
    machine = server(frame(UPDATE, SYN, 1))
    whole = frame(DATA, FIN, 1, b"abcdef")
    assert machine.receive(whole[:5]) == []
    assert heard(machine, whole[5:14]) == [Data(1, b"ab")]
    assert heard(machine, whole[14:]) == [Data(1, b"cdef"), EndReceived(1)]


def test_neighbouring_data_of_a_stream_is_one_event():
    machine = server(frame(UPDATE, SYN, 1), frame(UPDATE, SYN, 3))
    came = [frame(DATA, 0, 1, b"a"), frame(DATA, 0, 1, b"b"), frame(DATA, 0, 3, b"c"), frame(DATA, FIN, 1, b"d")]
    assert heard(machine, b"".join(came)) == [Data(1, b"ab"), Data(3, b"c"), Data(1, b"d"), EndReceived(1)]


def test_a_stream_that_takes_the_number_of_another_at_once_gets_none_of_its_data():
    machine = server(frame(UPDATE, SYN, 1))
    came = [frame(DATA, 0, 1, b"old"), frame(UPDATE, RST, 1), frame(UPDATE, SYN, 1), frame(DATA, 0, 1, b"new")]
    assert heard(machine, b"".join(came)) == [Data(1, b"old"), ResetReceived(1), StreamOpened(1), Data(1, b"new")]


@given(st.data())
def test_data_is_handed_on_from_where_it_lies_behind_room_for_a_header(data):
    machine = server(frame(UPDATE, SYN, 1))
    came = b"".join(frame(DATA, 0, 1, bytes([n]) * 20) for n in range(1, 6))
    whole = b""
    for portion in data.draw(portions(came)):
        buffer = bytearray(HEADER_BYTES) + portion
        for event in machine.receive(memoryview(buffer), HEADER_BYTES):
            for part in event.frames:
                assert part.obj is buffer
                part[:HEADER_BYTES] = b"!" * HEADER_BYTES
                whole += part[HEADER_BYTES:]
    assert whole == b"".join(bytes([n]) * 20 for n in range(1, 6))


def test_a_window_is_given_back_when_half_of_it_was_read():
    machine = server(frame(UPDATE, SYN, 1), frame(DATA, 0, 1, bytes(INITIAL_WINDOW)))
    machine.consumed(1, INITIAL_WINDOW // 2 - 1, now=0.0)
    assert machine.take_output() == []
    machine.consumed(1, 1, now=0.0)
    assert output(machine) == frame(UPDATE, 0, 1, INITIAL_WINDOW // 2)


def test_more_than_the_window_is_a_violation():
    machine = server(frame(UPDATE, SYN, 1), frame(DATA, 0, 1, bytes(INITIAL_WINDOW)))
    with pytest.raises(ProtocolViolation, match="beyond the stream's window"):
        machine.receive(frame(DATA, 0, 1, b"x"))


def test_a_frame_beyond_the_window_is_refused_at_its_header():
    with pytest.raises(ProtocolViolation, match="beyond the stream's window"):
        server(frame(UPDATE, SYN, 1)).receive(struct.pack(">BBHII", 0, DATA, 0, 1, INITIAL_WINDOW + 1))


def _window_updates(machine: Yamux, *, every: float, rounds: int) -> list[int]:
    """A reader that takes half a window `every` so many seconds: what it gives back each time."""
    deltas, half = [], INITIAL_WINDOW // 2
    for turn in range(rounds):
        machine.receive(struct.pack(">BBHII", 0, DATA, 0, 1, half) + bytes(half))
        machine.consumed(1, half, now=turn * every)
        deltas.append(struct.unpack(">BBHII", output(machine))[4])
        half += (deltas[-1] - half) // 2
    return deltas


def test_the_window_of_a_reader_that_keeps_up_doubles_up_to_its_bound():
    machine = server(frame(UPDATE, SYN, 1))
    machine.rtt = 0.125
    deltas = _window_updates(machine, every=0.125, rounds=9)
    grown = [delta // 1024 for delta in deltas]
    assert grown == [128, 128 + 256, 256 + 512, 512 + 1024, 1024 + 2048, 2048 + 4096, 4096 + 8192, 8192, 8192]
    assert machine._streams[1].window == MAX_WINDOW


def test_the_window_of_a_slow_reader_stays():
    machine = server(frame(UPDATE, SYN, 1))
    machine.rtt = 0.1
    assert set(_window_updates(machine, every=0.5, rounds=5)) == {INITIAL_WINDOW // 2}


@pytest.mark.parametrize("wide", [False, True])
def test_on_a_short_way_the_window_of_a_fast_reader_grows_to_a_size_and_no_further(wide):
    machine = server(frame(UPDATE, SYN, 1))
    machine.rtt = 0.0001
    if wide:
        machine.widen(1)
        machine.widen(99)
    _window_updates(machine, every=RATE_PERIOD / 50, rounds=1000)
    assert machine._streams[1].window == (WIDE_WINDOW if wide else SHORT_WINDOW)


def test_a_reader_that_comes_in_bursts_is_as_fast_as_it_is_on_the_whole():
    machine = server(frame(UPDATE, SYN, 1))
    machine.rtt = 0.0001
    for burst in range(10):
        for _ in range(4):
            machine.receive(struct.pack(">BBHII", 0, DATA, 0, 1, INITIAL_WINDOW // 2) + bytes(INITIAL_WINDOW // 2))
            machine.consumed(1, INITIAL_WINDOW // 2, now=burst * 1.0)
    assert machine._streams[1].window == INITIAL_WINDOW


def test_a_bound_below_the_initial_window_means_no_growth():
    machine = server(frame(UPDATE, SYN, 1), max_window=1)
    assert set(_window_updates(machine, every=0.0, rounds=3)) == {INITIAL_WINDOW // 2}


def test_all_windows_together_grow_within_a_bound_and_give_it_back():
    machine = server(frame(UPDATE, SYN, 1))
    machine._growth = MAX_GROWTH - 1000
    machine.rtt = 0.125
    assert _window_updates(machine, every=0.125, rounds=2)[1] == INITIAL_WINDOW // 2 + 1000
    machine.reset(1)
    assert machine._growth == MAX_GROWTH - 1000


def test_no_room_is_given_back_to_a_stream_that_ended_or_is_gone():
    machine = server(frame(UPDATE, SYN, 1), frame(DATA, FIN, 1, bytes(INITIAL_WINDOW)))
    machine.consumed(1, INITIAL_WINDOW, now=0.0)
    machine.consumed(99, INITIAL_WINDOW, now=0.0)
    assert machine.take_output() == []


def test_a_window_beyond_32_bits_is_a_violation():
    with pytest.raises(ProtocolViolation, match="beyond 32 bits"):
        server(frame(UPDATE, SYN, 1)).receive(frame(UPDATE, 0, 1, 2**32 - 1))


# -- endings -------------------------------------------------------------------------------------------------------


def test_a_stream_is_forgotten_when_both_sides_have_finished():
    machine = server(frame(UPDATE, SYN, 1))
    machine.finish(1)
    machine.finish(1)
    assert output(machine) == frame(DATA, FIN, 1)
    assert heard(machine, frame(DATA, 0, 1, b"still") + frame(UPDATE, FIN, 1)) == [
        Data(1, b"still"),
        EndReceived(1),
    ]
    assert (machine.streams, machine.inbound) == (0, 0)
    machine.finish(1)
    assert machine.take_output() == []


def test_after_their_end_we_may_still_send():
    machine = server(frame(UPDATE, SYN, 1), frame(DATA, FIN, 1))
    assert machine.send(1, b"answer") == 6
    machine.finish(1)
    assert machine.streams == 0


def test_an_end_is_told_once_and_data_after_it_is_a_violation():
    machine = server(frame(UPDATE, SYN, 1), frame(DATA, FIN, 1))
    assert machine.receive(frame(UPDATE, FIN, 1)) == []
    with pytest.raises(ProtocolViolation, match="or end"):
        machine.receive(frame(DATA, 0, 1, b"x"))


def test_sending_after_our_own_end_is_a_bug():
    machine = server(frame(UPDATE, SYN, 1))
    machine.finish(1)
    with pytest.raises(ValueError, match="finished by us"):
        machine.send(1, b"x")


def test_a_reset_ends_both_directions():
    machine = server(frame(UPDATE, SYN, 1))
    assert machine.receive(frame(UPDATE, RST, 1)) == [ResetReceived(1)]
    assert (machine.streams, machine.inbound) == (0, 0)
    with pytest.raises(StreamReset):
        machine.send(1, b"x")


def test_the_data_of_a_resetting_frame_is_skipped():
    machine = server(frame(UPDATE, SYN, 1))
    assert machine.receive(frame(DATA, RST, 1, b"skipped") + frame(PING, ACK, 0, 3)) == [
        ResetReceived(1),
        PongReceived(3),
    ]


def test_a_header_in_portions_ends_no_stream_that_took_the_number_of_an_ended_one():
    machine = server(frame(UPDATE, SYN, 1), frame(DATA, FIN, 1, b"all"))
    machine.finish(1)
    again = frame(UPDATE, SYN, 1)
    assert heard(machine, again[:5]) == []
    assert heard(machine, again[5:]) == [StreamOpened(1)]


def test_late_frames_of_a_stream_that_we_reset_are_skipped():
    machine = server(frame(UPDATE, SYN, 1), frame(DATA, 0, 1, b"first half")[:-4])
    machine.reset(1)
    machine.reset(1)
    assert output(machine) == frame(UPDATE, RST, 1)
    late = b"half" + frame(DATA, 0, 1, b"late") + frame(UPDATE, 0, 1, 9) + frame(DATA, FIN, 1) + frame(UPDATE, RST, 1)
    assert machine.receive(late) == []
    assert machine.take_output() == []


@pytest.mark.parametrize("stream", [0, 2])
@pytest.mark.parametrize("kind", [DATA, UPDATE])
def test_a_frame_of_a_stream_that_was_never_opened_is_a_violation(kind, stream):
    with pytest.raises(ProtocolViolation, match="never opened"):
        server().receive(frame(kind, 0, stream, 1))


def test_a_late_frame_beyond_any_window_is_a_violation():
    with pytest.raises(ProtocolViolation, match="beyond any window"):
        server().receive(frame(DATA, 0, 1, MAX_WINDOW + 1))


def test_a_storm_of_resets_leaves_nothing_behind():
    machine = server()
    for stream in range(1, 20_000, 2):
        machine.receive(frame(UPDATE, SYN, stream) + frame(UPDATE, RST, stream))
        machine.take_output()
    assert (machine.streams, machine.inbound, machine.output_size) == (0, 0, 0)


# -- pings, farewells, junk ----------------------------------------------------------------------------------------


def test_pings_are_answered_and_answers_told():
    client, server = Yamux(client=True), Yamux(client=False)
    client.ping(42)
    assert server.receive(output(client)) == []
    assert client.receive(output(server)) == [PongReceived(42)]


def test_a_flood_of_pings_is_a_violation_unless_the_answers_are_fetched():
    machine = server()
    for _ in range(2):
        machine.receive(frame(PING, SYN, 0, 1) * MAX_PENDING_REPLIES)
        assert machine.output_size == 12 * MAX_PENDING_REPLIES
        machine.take_output()
    with pytest.raises(ProtocolViolation, match="answers asked for and not fetched"):
        machine.receive(frame(PING, SYN, 0, 1) * (MAX_PENDING_REPLIES + 1))


def test_a_flood_of_openings_is_a_violation_unless_the_answers_are_fetched():
    machine = server()
    machine.receive(b"".join(frame(UPDATE, SYN, 2 * n + 1) for n in range(MAX_PENDING_REPLIES)))
    assert machine.inbound == MAX_INBOUND_STREAMS
    with pytest.raises(ProtocolViolation, match="answers asked for and not fetched"):
        machine.receive(frame(UPDATE, SYN, MAX_STREAM_ID))


def test_after_their_farewell_we_open_nothing_and_go_on_with_what_is_open():
    machine = Yamux(client=True)
    stream = machine.open()
    assert machine.receive(frame(GO_AWAY, 0, 0, 2)) == [WentAway(2)]
    with pytest.raises(ConnectionLost, match="no more streams"):
        machine.open()
    assert machine.send(stream, b"still here") == 10


def test_after_our_farewell_new_streams_are_reset():
    machine = server(frame(UPDATE, SYN, 1))
    machine.go_away(GoAway.PROTOCOL_ERROR)
    assert output(machine) == frame(GO_AWAY, 0, 0, 1)
    assert heard(machine, frame(UPDATE, SYN, 3) + frame(DATA, 0, 1, b"x")) == [Data(1, b"x")]
    assert output(machine) == frame(UPDATE, RST, 3)


@pytest.mark.parametrize("junk", [frame(DATA, 0, 1, version=1), frame(4, 0, 1), b"GET / HTTP/1.1\r\n"])
def test_another_version_or_type_is_a_violation(junk):
    with pytest.raises(ProtocolViolation, match="yamux frame of version"):
        server().receive(junk)


def _frames() -> st.SearchStrategy[bytes]:
    """Frames that make sense more often than chance would have it."""
    head = (st.integers(0, 3), st.integers(0, 15), st.integers(0, 6))
    value = st.one_of(st.binary(min_size=1, max_size=20), st.integers(0, 40))
    return st.tuples(*head, value).map(lambda parts: frame(*parts))


@given(st.data(), st.lists(_frames(), max_size=12).map(b"".join))
def test_any_split_of_the_bytes_means_the_same_and_junk_is_a_violation(data, junk):
    assert _told([junk]) == _told(data.draw(portions(junk)))


def _told(pieces: list[bytes]) -> object:
    """All events of each stream (adjacent data joined) and the answers; or the violation."""
    machine, told = Yamux(client=False), {}
    machine.open()
    try:
        for event in (event for piece in pieces for event in heard(machine, piece)):
            stream = getattr(event, "stream", None)
            before = told.setdefault(stream, [])
            if isinstance(event, Data) and before and isinstance(before[-1], Data):
                event = Data(event.stream, before.pop().data + event.data)
            before.append(event)
    except ProtocolViolation:
        return ProtocolViolation
    return told, output(machine)


# -- two machines --------------------------------------------------------------------------------------------------


class Side:
    """One machine with an application on top that remembers all it said and heard."""

    def __init__(self, *, client: bool) -> None:
        self.machine = Yamux(client=client, max_window=2 * INITIAL_WINDOW)
        self.live: set[int] = set()
        self.finished: set[int] = set()
        self.said = defaultdict(bytearray)
        self.heard = defaultdict(bytearray)
        self.unread = defaultdict(int)
        self.ended: set[int] = set()
        self.was_reset: set[int] = set()
        self.pongs: list[int] = []

    def hear(self, data: bytes) -> None:
        for event in heard(self.machine, data):
            match event:
                case StreamOpened(stream):
                    self.live.add(stream)
                case Data(stream, data):
                    assert stream not in self.ended
                    self.heard[stream] += data
                    self.unread[stream] += len(data)
                    assert self.unread[stream] <= 2 * INITIAL_WINDOW
                case EndReceived(stream):
                    self.ended.add(stream)
                case ResetReceived(stream):
                    self.was_reset.add(stream)
                    self.live.discard(stream)
                case PongReceived(value):
                    self.pongs.append(value)
                case other:
                    assert isinstance(other, StreamAccepted | WindowGrew)

    def read(self, stream: int) -> None:
        self.machine.consumed(stream, self.unread.pop(stream, 0), now=0.0)


class TwoSides(RuleBasedStateMachine):
    """Applications that open, send, finish, reset and read as they like, over a line that delivers as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = (Side(client=True), Side(client=False))
        self.lines = (bytearray(), bytearray())  # towards each side
        self.reset: set[int] = set()
        self.pinged = 0

    def _side(self, data, *, need=lambda side: side.live) -> tuple[Side, int]:
        side = data.draw(st.sampled_from([side for side in self.sides if need(side)]))
        return side, data.draw(st.sampled_from(sorted(need(side))))

    @rule(which=st.integers(0, 1))
    def open(self, which):
        side = self.sides[which]
        side.live.add(side.machine.open())

    @precondition(lambda self: any(side.live - side.finished for side in self.sides))
    @rule(data=st.data(), size=st.sampled_from([1, 100, MIN_SEND, MAX_TAKEN + 1, INITIAL_WINDOW]))
    def send(self, data, size):
        side, stream = self._side(data, need=lambda side: side.live - side.finished)
        piece = bytes([len(side.said[stream]) % 251]) * size
        taken = side.machine.send(stream, piece)
        assert 0 <= taken <= min(size, MAX_TAKEN)
        side.said[stream] += piece[:taken]

    @precondition(lambda self: any(side.live for side in self.sides))
    @rule(data=st.data())
    def finish(self, data):
        side, stream = self._side(data)
        side.machine.finish(stream)
        side.finished.add(stream)

    @precondition(lambda self: any(side.live for side in self.sides))
    @rule(data=st.data())
    def break_off(self, data):
        side, stream = self._side(data)
        side.machine.reset(stream)
        side.live.discard(stream)
        self.reset.add(stream)

    @precondition(lambda self: any(side.unread for side in self.sides))
    @rule(data=st.data())
    def read(self, data):
        side, stream = self._side(data, need=lambda side: side.unread)
        side.read(stream)

    @rule(which=st.integers(0, 1))
    def ping(self, which):
        self.sides[which].machine.ping(self.pinged)
        self.pinged += 1

    @rule(which=st.integers(0, 1), size=st.sampled_from([1, 11, 13, 5000, 10**6]))
    def deliver(self, which, size):
        line = self.lines[which]
        line += output(self.sides[1 - which].machine)
        self.sides[which].hear(bytes(line[:size]))
        del line[:size]

    @invariant()
    def what_was_heard_is_what_was_said(self):
        for near, far in (self.sides, self.sides[::-1]):
            for stream, heard in near.heard.items():
                assert far.said[stream].startswith(heard)

    def teardown(self):
        for _ in range(3):
            self.deliver(0, 10**7)
            self.deliver(1, 10**7)
        self.what_was_heard_is_what_was_said()
        near, far = self.sides
        assert sorted(near.pongs + far.pongs) == list(range(self.pinged))
        assert near.was_reset | far.was_reset <= self.reset
        for one, other in (self.sides, self.sides[::-1]):
            for stream in one.live - self.reset:
                assert other.heard[stream] == one.said[stream]
                assert (stream in other.ended) == (stream in one.finished)
        open_now = (near.live | far.live) - self.reset - (near.finished & far.finished)
        assert near.machine.streams == far.machine.streams == len(open_now)


TestTwoSides = TwoSides.TestCase


def test_a_large_body_passes_whole_through_windows_that_open_and_shut():
    client, server = Side(client=True), Side(client=False)
    stream = client.machine.open()
    body = memoryview(bytes(range(256)) * 16_384)
    sent = 0
    while sent < len(body):
        while taken := client.machine.send(stream, body[sent:]):
            sent += taken
        server.hear(output(client.machine))
        server.read(stream)
        client.hear(output(server.machine))
    client.machine.finish(stream)
    server.hear(output(client.machine))
    assert server.heard[stream] == body
    assert server.ended == {stream}
