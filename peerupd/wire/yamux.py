"""Many streams over one connection: yamux (hashicorp/yamux `spec.md`, libp2p specs, yamux), both roles.

Theory of operation. `receive` takes bytes as they come and answers with events. Data is not copied: neighbouring frames
of one stream are one event, whose parts lie in the caller's buffer, each with room before it where its header was, so
that a relay can put another header there. Nothing is kept but twelve bytes of a header.

What is to be sent waits in two queues, of which the first goes first: short frames that must not wait (openings, window
updates, answers), then data with all that must keep its place behind it. `take_output` empties both. Before them go the
answers to openings, which by themselves are no output until `acknowledge`: who is opened a stream to has something to
say soon. Who has much to send builds the frames elsewhere, with headers by `put_header`, and sends them when the queues
are empty.

Each direction of a stream has a window. We send only if the window has room for the data or for `MIN_SEND`: slivers
would make slivers of all that follows. We widen the window when the reader took half of it, and let it grow with
the reader's speed to what it takes in some round trips: enough for a long way, and on a short one no longer a queue
before the bytes of other streams. It stays within `max_window`, and within `MAX_GROWTH` for all streams together.

A stream is forgotten when both sides have finished or one has reset it; no list of former streams is kept. So frames
of unknown streams are skipped, as late ones, unless they name a stream of ours that was never opened.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from peerupd.model.errors import ConnectionLost, LimitReached, ProtocolViolation, StreamReset
from peerupd.wire.protobuf import Buffer

PROTOCOL: Final = "/yamux/1.0.0"
INITIAL_WINDOW: Final = 256 * 1024  # bytes, by the specification
MAX_WINDOW: Final = 16 * 1024 * 1024  # bytes; enough for 10 Gbit/s x 13 ms or 1 Gbit/s x 130 ms
MAX_GROWTH: Final = 64 * 1024 * 1024  # bytes above the initial window, for all streams of a connection together
MAX_SEND_WINDOW: Final = 2**32 - 1  # bytes
MAX_FRAME: Final = 32 * 1024  # bytes of data in a frame of ours
MAX_TAKEN: Final = 2 * MAX_FRAME  # bytes that one `send` takes, so that streams take turns
MIN_SEND: Final = 4 * 1024  # bytes; with less window than this we wait, unless the data is shorter still
MAX_INBOUND_STREAMS: Final = 2048  # open at once, opened by the other side
MAX_PENDING_REPLIES: Final = 4096  # frames that the other side has caused and not yet fetched
MAX_STREAM_ID: Final = 2**32 - 1
WINDOW_RTTS: Final = 4.0  # round trips whose bytes a window holds
WINDOW_TIME: Final = 0.008  # seconds whose bytes it holds where that is more, up to a size:
SHORT_WINDOW: Final = 1024 * 1024  # bytes, on a short way; more would be a queue before other streams' keystrokes
WIDE_WINDOW: Final = 4 * 1024 * 1024  # bytes, of a stream that carries a connection, whose own windows are short
RATE_PERIOD: Final = 0.02  # seconds, or a round trip where that is more, over which a reader's speed is measured
UNKNOWN_RTT: Final = 0.05  # seconds, until somebody has measured it
HEADER_BYTES: Final = 12

_header = struct.Struct(">BBHII")  # version, type, flags, stream, length
_unpack = _header.unpack_from
_VERSION: Final = 0
_DATA, _WINDOW_UPDATE, _PING, _GO_AWAY = range(4)
_SYN, _ACK, _FIN, _RST = 1, 2, 4, 8


class GoAway(IntEnum):
    """Why a connection ends."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The other side opened a stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamAccepted:
    """The other side knows the stream that we opened."""

    stream: int


@dataclass(frozen=True, slots=True, match_args=False)
class DataReceived:
    """Some bytes of a stream; `Yamux.consumed` gives their room back."""

    __match_args__ = ("stream", "data")

    stream: int
    frames: list[memoryview]
    """Behind `HEADER_BYTES` of room, in the buffer that `receive` was given; to be used up before it is filled anew."""

    @property
    def parts(self) -> list[memoryview]:
        """The bytes, without the room."""
        return [frame[HEADER_BYTES:] for frame in self.frames]

    @property
    def data(self) -> bytes:
        """The bytes, copied."""
        return b"".join(self.parts)


@dataclass(frozen=True, slots=True)
class EndReceived:
    """The other side has finished sending."""

    stream: int


@dataclass(frozen=True, slots=True)
class ResetReceived:
    """The other side has reset the stream: it is forgotten."""

    stream: int


@dataclass(frozen=True, slots=True)
class WindowGrew:
    """There is more room to send."""

    stream: int


@dataclass(frozen=True, slots=True)
class PongReceived:
    """The answer to our ping."""

    value: int


@dataclass(frozen=True, slots=True)
class WentAway:
    """The other side takes no more streams; see `GoAway` for the codes."""

    code: int


Event: TypeAlias = (
    StreamOpened | StreamAccepted | DataReceived | EndReceived | ResetReceived | WindowGrew | PongReceived | WentAway
)


@dataclass(slots=True)
class _Stream:
    id: int
    room: int = INITIAL_WINDOW  # bytes that we may send
    credit: int = INITIAL_WINDOW  # bytes that the other side may send
    window: int = INITIAL_WINDOW  # bytes; what `credit` is brought back to
    taken: int = 0  # bytes that the reader took since the last update
    short: int = SHORT_WINDOW  # bytes, of the window on a short way
    read: int = 0  # bytes that the reader took, at the updates since then:
    since: float = -math.inf  # seconds
    accepted: bool = True  # by the side that did not open it
    finished: bool = False  # by us
    ended: bool = False  # by the other side


class Yamux:
    """One connection's streams. `rtt` (seconds) may be set at any time; it decides how eagerly windows grow."""

    def __init__(
        self,
        *,
        client: bool,
        max_inbound_streams: int = MAX_INBOUND_STREAMS,
        max_window: int = MAX_WINDOW,
        short_window: int = SHORT_WINDOW,
    ) -> None:
        self.rtt = UNKNOWN_RTT
        self.output_size = 0  # bytes
        self.inbound = 0  # streams opened by the other side
        self._parity = 1 if client else 0  # of our streams
        self._next_id = 1 if client else 2
        self._max_inbound = max_inbound_streams
        self._max_window = max(max_window, INITIAL_WINDOW)
        self._short_window = short_window
        self._streams: dict[int, _Stream] = {}
        self._acks: list[Buffer] = []
        self._urgent: list[Buffer] = []
        self._queue: list[Buffer] = []
        self._replies = 0  # frames
        self._growth = 0  # bytes
        self._we_leave = False
        self._they_leave = False
        self._partial = b""  # of a header
        self._body_of = 0  # stream
        self._body_left = 0  # bytes
        self._body_ends = False

    @property
    def streams(self) -> int:
        """How many streams are open, whoever opened them."""
        return len(self._streams)

    def is_ours(self, stream: int) -> bool:
        """Whether a stream of this number is opened by us."""
        return stream & 1 == self._parity

    # -- what we want ----------------------------------------------------------------------------------------------

    def open(self) -> int:
        """The ID of a new stream; raises `LimitReached`, or `ConnectionLost` when the other side went away."""
        if self._they_leave:
            raise ConnectionLost("the peer takes no more streams on this connection")
        if self._next_id > MAX_STREAM_ID:
            raise LimitReached("this connection has used all of its stream numbers", hint="connect anew")
        stream = self._next_id
        self._next_id += 2
        self._streams[stream] = _Stream(stream, accepted=False, short=self._short_window)
        self._at_once(_WINDOW_UPDATE, _SYN, stream, 0)
        return stream

    def send(self, stream: int, data: Buffer) -> int:
        """Copy the first bytes of `data` into the output, and say how many: 0 while the window is shut.

        Raises `StreamReset` for a stream that is over, `ValueError` after `finish`.
        """
        state = self._sending(stream)
        if state.room < min(len(data), MIN_SEND):
            return 0
        view = memoryview(data)[: min(state.room, MAX_TAKEN)]
        for start in range(0, len(view), MAX_FRAME):
            self._in_turn(_DATA, 0, stream, view[start : start + MAX_FRAME])
        state.room -= len(view)
        return len(view)

    def room(self, stream: int) -> int:
        """How many bytes may be sent now; raises as `send` does."""
        return self._sending(stream).room

    def put_header(self, stream: int, size: int, buffer: bytearray | memoryview, at: int) -> None:
        """Put the header of a data frame of `size` bytes at `at`; there must be `room` for it."""
        self._streams[stream].room -= size
        _header.pack_into(buffer, at, _VERSION, _DATA, 0, stream, size)

    def finish(self, stream: int) -> None:
        """Say that no more data follows; once, and nothing to do if the stream is forgotten."""
        state = self._streams.get(stream)
        if state is None or state.finished:
            return
        state.finished = True
        self._in_turn(_DATA, _FIN, stream)
        self._forget_if_over(state)

    def reset(self, stream: int) -> None:
        """Break the stream off and forget it; nothing to do if it is forgotten."""
        state = self._streams.get(stream)
        if state is not None:
            self._forget(state)
            self._in_turn(_WINDOW_UPDATE, _RST, stream)

    def consumed(self, stream: int, size: int, now: float) -> None:
        """The reader took `size` bytes at `now` (seconds of any clock): give their room back, at half a window."""
        state = self._streams.get(stream)
        if state is None or state.ended:
            return
        state.taken += size
        if 2 * state.taken < state.window:
            return
        delta = state.taken + self._grow(state, now)
        state.taken = 0
        state.credit += delta
        self._at_once(_WINDOW_UPDATE, 0, stream, delta)

    def widen(self, stream: int) -> None:
        """Let the window grow as befits a stream that carries a connection."""
        if (state := self._streams.get(stream)) is not None:
            state.short = WIDE_WINDOW

    def ping(self, value: int) -> None:
        """Ask for a `PongReceived` with this value (32 bits)."""
        self._at_once(_PING, _SYN, 0, value)

    def go_away(self, code: int = GoAway.NORMAL) -> None:
        """Take no more streams; those that are open go on."""
        self._we_leave = True
        self._queue_frame(self._queue, _header.pack(_VERSION, _GO_AWAY, 0, 0, code))

    def acknowledge(self) -> None:
        """Do not let the answers to openings wait for the first frame of something else."""
        self.output_size += sum(map(len, self._acks))
        self._urgent = self._acks + self._urgent
        self._acks = []

    def take_output(self) -> list[Buffer]:
        """The frames to be sent now, in this order; they belong to the caller."""
        out = self._acks + self._urgent + self._queue
        self._acks, self._urgent, self._queue = [], [], []
        self.output_size = self._replies = 0
        return out

    # -- what the other side says ----------------------------------------------------------------------------------

    def receive(self, data: Buffer, start: int = 0) -> list[Event]:
        """What `data`, from `start` on, means; raises `ProtocolViolation`: the connection is to be closed then.

        Data is not copied if `data` can be written to and `start` is `HEADER_BYTES` or more.
        """
        view = memoryview(data)
        events: list[Event] = []
        at, end = start, len(view)
        if self._body_left or self._partial:
            at = self._go_on(view, at, events)
        while end - at >= HEADER_BYTES:
            version, kind, flags, stream, length = _unpack(view, at)
            body = at + HEADER_BYTES
            state = self._streams.get(stream)
            if (
                version == flags == kind == 0  # _VERSION, nothing, _DATA: what most frames are
                and state is not None
                and 0 < length <= state.credit
                and length <= end - body
                and not state.ended
            ):
                state.credit -= length
                _got(stream, view[at : body + length], events)
                at = body + length
            else:
                self._on_frame(version, kind, flags, stream, length, events)
                at = self._body(view, body, events) if self._body_left else body
        self._partial += view[at:]
        return events

    def _go_on(self, view: memoryview, at: int, events: list[Event]) -> int:
        """Take in the rest of a frame that began earlier; where the next begins."""
        if self._partial:
            rest = at + HEADER_BYTES - len(self._partial)
            head = self._partial + view[at:rest]
            if len(head) < HEADER_BYTES:
                self._partial = head
                return len(view)
            self._partial, at = b"", rest
            version, kind, flags, stream, length = _unpack(head)
            self._on_frame(version, kind, flags, stream, length, events)
        return self._body(view, at, events) if self._body_left else at

    def _body(self, view: memoryview, at: int, events: list[Event]) -> int:
        """Hand on what is there of a data frame; where the rest begins."""
        end = min(at + self._body_left, len(view))
        state = self._streams.get(self._body_of)
        self._body_left -= end - at
        if state is not None:
            if end > at:
                _got(state.id, _with_room(view, at, end), events)
            if self._body_ends and not self._body_left:
                self._on_end(state, events)
        return end

    def _on_frame(self, version: int, kind: int, flags: int, stream: int, length: int, events: list[Event]) -> None:
        if version != _VERSION or kind > _GO_AWAY:
            raise ProtocolViolation(f"yamux frame of version {version}, type {kind}")
        if kind == _PING:
            self._on_ping(flags, length, events)
        elif kind == _GO_AWAY:
            self._they_leave = True
            events.append(WentAway(length))
        else:
            self._on_stream(kind, flags, stream, length, events)

    def _on_ping(self, flags: int, value: int, events: list[Event]) -> None:
        if flags & _SYN:
            self._reply(_PING, _ACK, 0, value)
        else:
            events.append(PongReceived(value))

    def _on_stream(self, kind: int, flags: int, stream: int, length: int, events: list[Event]) -> None:
        if flags & _SYN:
            self._on_opening(stream, events)
        state = self._streams.get(stream)
        if state is None:
            self._on_late(kind, stream, length)
            return
        if flags & _ACK and not state.accepted:
            state.accepted = True
            events.append(StreamAccepted(stream))
        if flags & _RST:
            self._forget(state)
            events.append(ResetReceived(stream))
            self._on_late(kind, stream, length)
        elif kind == _DATA:
            self._on_data(state, flags, length, events)
        else:
            self._on_window(state, flags, length, events)

    def _on_opening(self, stream: int, events: list[Event]) -> None:
        if stream == 0 or self.is_ours(stream) or stream in self._streams:
            raise ProtocolViolation(f"yamux stream {stream} cannot be opened by the other side")
        if self._we_leave or self.inbound >= self._max_inbound:
            self._reply(_WINDOW_UPDATE, _RST, stream, 0)
            return
        self._streams[stream] = _Stream(stream, short=self._short_window)
        self.inbound += 1
        self._count_reply()
        self._acks.append(_header.pack(_VERSION, _WINDOW_UPDATE, _ACK, stream, 0))
        events.append(StreamOpened(stream))

    def _on_late(self, kind: int, stream: int, length: int) -> None:
        """A frame of a stream that we do not know (any more): its data is skipped."""
        if stream == 0 or (self.is_ours(stream) and stream >= self._next_id):
            raise ProtocolViolation(f"yamux frame of stream {stream}, which was never opened")
        if kind == _DATA:
            if length > self._max_window:
                raise ProtocolViolation(f"yamux frame of {length} bytes, beyond any window")
            self._expect_body(stream, length, ends=False)

    def _on_data(self, state: _Stream, flags: int, length: int, events: list[Event]) -> None:
        if length > state.credit or (length and state.ended):
            raise ProtocolViolation(f"yamux frame of {length} bytes, beyond the stream's window or end")
        state.credit -= length
        self._expect_body(state.id, length, ends=bool(flags & _FIN))
        if flags & _FIN and not length:
            self._on_end(state, events)

    def _on_window(self, state: _Stream, flags: int, delta: int, events: list[Event]) -> None:
        state.room += delta
        if state.room > MAX_SEND_WINDOW:
            raise ProtocolViolation("yamux window beyond 32 bits")
        if delta:
            events.append(WindowGrew(state.id))
        if flags & _FIN:
            self._on_end(state, events)

    def _on_end(self, state: _Stream, events: list[Event]) -> None:
        if not state.ended:
            state.ended = True
            events.append(EndReceived(state.id))
            self._forget_if_over(state)

    def _expect_body(self, stream: int, length: int, *, ends: bool) -> None:
        self._body_of, self._body_left, self._body_ends = stream, length, ends

    # -- streams and queues ----------------------------------------------------------------------------------------

    def _sending(self, stream: int) -> _Stream:
        state = self._streams.get(stream)
        if state is None:
            raise StreamReset(f"stream {stream} is over")
        if state.finished:
            raise ValueError(f"stream {stream} was finished by us")
        return state

    def _grow(self, state: _Stream, now: float) -> int:
        """By how much the window is made larger, now that the reader took half of it."""
        state.read += state.taken
        seconds = now - state.since
        if seconds < max(self.rtt, RATE_PERIOD):
            return 0
        speed = state.read / seconds
        state.read, state.since = 0, now
        wanted = max(speed * WINDOW_RTTS * self.rtt, min(speed * WINDOW_TIME, state.short))
        largest = min(int(wanted), 2 * state.window, self._max_window)
        growth = max(0, min(largest - state.window, MAX_GROWTH - self._growth))
        state.window += growth
        self._growth += growth
        return growth

    def _forget_if_over(self, state: _Stream) -> None:
        if state.finished and state.ended:
            self._forget(state)

    def _forget(self, state: _Stream) -> None:
        del self._streams[state.id]
        self._growth -= state.window - INITIAL_WINDOW
        if not self.is_ours(state.id):
            self.inbound -= 1

    def _reply(self, kind: int, flags: int, stream: int, value: int) -> None:
        self._count_reply()
        self._at_once(kind, flags, stream, value)

    def _count_reply(self) -> None:
        self._replies += 1
        if self._replies > MAX_PENDING_REPLIES:
            raise ProtocolViolation(f"more than {MAX_PENDING_REPLIES} yamux answers asked for and not fetched")

    def _at_once(self, kind: int, flags: int, stream: int, value: int) -> None:
        self._queue_frame(self._urgent, _header.pack(_VERSION, kind, flags, stream, value))

    def _in_turn(self, kind: int, flags: int, stream: int, data: Buffer = b"") -> None:
        head = _header.pack(_VERSION, kind, flags, stream, len(data))
        self._queue_frame(self._queue, b"".join((head, data)))

    def _queue_frame(self, queue: list[Buffer], frame: bytes) -> None:
        queue.append(frame)
        self.output_size += len(frame)


def _got(stream: int, frame: memoryview, events: list[Event]) -> None:
    if events and isinstance(last := events[-1], DataReceived) and last.stream == stream:
        last.frames.append(frame)
    else:
        events.append(DataReceived(stream, [frame]))


def _with_room(view: memoryview, start: int, end: int) -> memoryview:
    """These bytes behind room for a header: what lies before them was a header, or is the caller's."""
    if start >= HEADER_BYTES:
        return view[start - HEADER_BYTES : end]
    return memoryview(bytearray(HEADER_BYTES) + view[start:end])
