"""Targets: yamux in both roles, by programs of legal and hostile frames and of what we do meanwhile.

Two machines get the same bytes, one at once and one in portions, and the same calls; they must say and send the same.
Where all frames are whole a model says beforehand what they must say, and looks at all that they send.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from peerupd.model.errors import ConnectionLost, LimitReached, ProtocolViolation, StreamReset
from peerupd.wire import yamux
from peerupd.wire.yamux import GoAway, Yamux
from tests.fuzz.target import Choices, Target, portions, same_however_cut
from tests.fuzz.yamux_model import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    PING,
    RST,
    SYN,
    WINDOW,
    Frame,
    Model,
    Said,
    Violation,
)

FLAGS = (0, 0, 0, 0, SYN, SYN, ACK, FIN, FIN, RST, SYN | FIN, SYN | ACK, SYN | RST, ACK | FIN, FIN | RST, 0xFFFF, 0x10)
KINDS = (DATA, DATA, DATA, DATA, WINDOW, WINDOW, PING, GO_AWAY, 4)
VERSIONS = (*[0] * 31, 1)
LENGTHS = (0, 0, 1, 2, 11, 12, 13, 100, 700, 4096, 32768, 65536, 2**18, 2**18 + 1, 2**24 + 1, 2**31, 2**32 - 1)
MAX_INBOUND = (yamux.MAX_INBOUND_STREAMS, 0, 1, 3)
FLOODS = (1, 2, 10, yamux.MAX_PENDING_REPLIES + 1)
SENDS = (0, 1, 100, yamux.MIN_SEND, yamux.MAX_FRAME + 1, yamux.MAX_TAKEN, 2**18, 2**18 + 1)
ROOM = bytes(yamux.HEADER_BYTES)
SHORT = 17  # bytes of a body that may come in a flood
MAX_BODIES = 2**21  # bytes behind all headers of one program
MAX_BODY = 2**18  # bytes that are really sent behind a header


# -- events in words that can be compared --------------------------------------------------------------------------


def _said(events: list[yamux.Event]) -> list[Said]:
    """The events of one call, copied: what they hold may be overwritten by the next."""
    found: list[Said] = []
    for event in events:
        name, stream = type(event).__name__, getattr(event, "stream", 0)
        more = {"DataReceived": "data", "PongReceived": "value", "WentAway": "code"}.get(name)
        found.append((name, stream, getattr(event, more) if more else None))
    return found


def _in_a_buffer(machine: Yamux, piece: bytes) -> list[Said]:
    """The piece in a buffer of ours, behind room for a header: nothing is copied, and every room may be written to."""
    buffer = bytearray(ROOM) + piece
    events = machine.receive(buffer, len(ROOM))
    for event in events:
        if isinstance(event, yamux.DataReceived):
            for frame in event.frames:
                assert frame.obj is buffer, "copied"
                frame[: len(ROOM)] = bytes([0xEE]) * len(ROOM)  # as a relay does, which forwards it
    return _said(events)


def _as_bytes(machine: Yamux, piece: bytes) -> list[Said]:
    return _said(machine.receive(piece))


def _canonical(said: list[Said]) -> tuple[list[Said], dict[tuple[int, int], bytes]]:
    """All but data in its order, and the data of each stream as one; nothing comes behind a stream's end.

    Data may be told earlier than what came before it on the wire: all of one stream in a batch is told together.
    """
    lives: dict[int, int] = {}
    data: dict[tuple[int, int], bytes] = {}
    over: set[tuple[int, int]] = set()
    others: list[Said] = []
    for name, stream, value in said:
        life = lives[stream] = lives.get(stream, 0) + (name == "StreamOpened")
        if name == "DataReceived":
            assert isinstance(value, bytes)
            assert (stream, life) not in over, "data behind the end"
            data[stream, life] = data.get((stream, life), b"") + value
            continue
        if name in ("EndReceived", "ResetReceived"):
            over.add((stream, life))
        others.append((name, stream, value))
    return others, data


# -- two machines --------------------------------------------------------------------------------------------------


@dataclass
class _Twins:
    """One machine that gets batches whole, one that gets them in portions."""

    client: bool
    max_inbound: int
    heard: list[Said] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._whole, self._cut = (Yamux(client=self.client, max_inbound_streams=self.max_inbound) for _ in range(2))

    def receive(self, batch: bytes) -> list[Said]:
        """What both say; raises what both raise."""
        whole = _outcome(self._whole, [batch], _in_a_buffer)
        cut = _outcome(self._cut, portions(batch), _in_a_buffer if len(batch) & 1 else _as_bytes)
        if isinstance(whole, ProtocolViolation) or isinstance(cut, ProtocolViolation):
            assert type(whole) is type(cut), f"at once: {whole!r}, in portions: {cut!r}"
            assert isinstance(whole, ProtocolViolation)
            raise whole
        assert _canonical(whole) == _canonical(cut), f"at once: {whole}, in portions: {cut}"
        assert sum(len(value) for _, _, value in whole if isinstance(value, bytes)) <= len(batch)
        return whole

    def both(self, call: Callable[[Yamux], object]) -> object:
        """The same of both."""
        whole, cut = _answer(call, self._whole), _answer(call, self._cut)
        assert whole == cut
        return whole

    def output(self) -> bytes:
        """What both send: the one says at once which streams it has taken, the other with what it sends now."""
        self._whole.acknowledge()
        size = self._whole.output_size
        whole = b"".join(self._whole.take_output())
        assert whole == b"".join(self._cut.take_output())
        assert len(whole) == size
        assert (self._whole.streams, self._whole.inbound) == (self._cut.streams, self._cut.inbound)
        return whole


def _outcome(
    machine: Yamux, pieces: list[bytes], give: Callable[[Yamux, bytes], list[Said]]
) -> list[Said] | ProtocolViolation:
    said: list[Said] = []
    try:
        for piece in pieces:
            said += give(machine, piece)
    except ProtocolViolation as why:
        return why
    return said


def _answer(call: Callable[[Yamux], object], machine: Yamux) -> object:
    try:
        return call(machine)
    except (StreamReset, ValueError, LimitReached, ConnectionLost) as why:
        return type(why)


# -- programs ------------------------------------------------------------------------------------------------------


class _Program:
    """Reads steps off the input: frames of theirs, and calls of ours."""

    def __init__(self, choices: Choices, *, modelled: bool) -> None:
        self._choices = choices
        head = choices.byte()
        client, most = bool(head & 1), MAX_INBOUND[head >> 1 & 3]
        self._twins = _Twins(client, most)
        self._model = Model(client, most)
        self._modelled = modelled
        self._batch = bytearray()
        self._expected: list[Said] = []
        self._violated = False
        self._now = 0.0
        self._floods = 0
        self._left = MAX_BODIES

    def run(self) -> str:
        """All steps; raises `ProtocolViolation` where the other side was to blame."""
        steps = 0
        while self._choices and not self._violated:
            steps += 1
            kind = self._choices.byte()
            if kind < 0xA0:
                self._theirs(FLOODS[(kind == 0x9F) * 3] if self._floods < 2 else 1)
            else:
                self._deliver()
                self._ours(kind)
        self._deliver()
        if self._modelled:
            self._model.check_output(self._twins.output())
        return f"{min(steps, 6)} {len(self._model.lives)}"

    def _theirs(self, times: int) -> None:
        """One frame, or very many of the same."""
        self._floods += times > 1
        frame = self._frame()
        body = self._body(frame[4]) if frame[1] == DATA else b""
        for _ in range(times if len(body) < SHORT else 1):
            self._batch += HEADER.pack(*frame) + body
            if self._modelled and not self._violated:
                self._foretell(frame, body)

    def _body(self, size: int) -> bytes:
        """The bytes behind a header: all that it promises where there is a model, else perhaps fewer."""
        size = min(size, MAX_BODY if self._modelled else self._choices.number(2))
        size = min(size, self._left)
        self._left -= size
        some = self._choices.piece() or b"x"
        return (some * (size // len(some) + 1))[:size]

    def _frame(self) -> Frame:
        choices = self._choices
        version, kind, flags = choices.pick(VERSIONS), choices.pick(KINDS), choices.pick(FLAGS)
        return version, kind, flags, self._stream(), self._length(kind)

    def _stream(self) -> int:
        """A stream of ours or theirs, open or not; seldom any number."""
        number = self._choices.byte()
        if number == 0xFF:
            return self._choices.number(4)
        return number >> 1 if number < 0xC0 else (number & 15) * 2 + self._twins.client

    def _length(self, kind: int) -> int:
        length = self._choices.pick(LENGTHS) if self._choices.byte() & 1 else self._choices.byte()
        legal = kind == DATA and length <= yamux.MAX_WINDOW
        return min(length, MAX_BODY, self._left) if legal and self._modelled else length

    def _foretell(self, frame: Frame, body: bytes) -> None:
        try:
            self._expected += self._model.hear(frame, body)
        except Violation:
            self._violated = True

    def _deliver(self) -> None:
        """Give the machines what has come together."""
        batch, self._batch = bytes(self._batch), bytearray()
        expected, self._expected = self._expected, []
        try:
            said = self._twins.receive(batch)
        except ProtocolViolation:
            assert self._violated or not self._modelled, "legal frames were refused"
            raise
        assert not self._violated, "a violation was let through"
        assert not self._modelled or _canonical(said) == _canonical(expected), f"{said}, wanted {expected}"

    # -- what we do

    def _ours(self, kind: int) -> None:
        stream = self._stream()
        match kind % 8:
            case 0:
                self._open()
            case 1 if kind & 8:
                self._build(stream, self._choices.pick(SENDS))
            case 1:
                self._send(stream, self._choices.pick(SENDS))
            case 2:
                self._twins.both(lambda machine: machine.finish(stream))
                self._model.finish(stream)
            case 3:
                self._twins.both(lambda machine: machine.reset(stream))
                self._model.reset(stream)
            case 4:
                self._consume(stream)
            case 5:
                self._say(self._choices.byte())
            case 6:
                self._twins.both(lambda machine: setattr(machine, "rtt", stream / 64))
            case _:
                self._fetch()

    def _open(self) -> None:
        opened = self._twins.both(lambda machine: machine.open())
        if not self._modelled:
            return
        if self._model.they_leave:
            assert opened is ConnectionLost
        else:
            assert opened == self._model.open()

    def _send(self, stream: int, size: int) -> None:
        taken = self._twins.both(lambda machine: machine.send(stream, bytes(size)))
        if not self._modelled:
            return
        life = self._model.lives.get(stream)
        if life is None:
            assert taken is StreamReset
        elif life.finished:
            assert taken is ValueError
        else:
            assert isinstance(taken, int)
            assert 0 <= taken <= min(size, life.room)
            assert taken or life.room < yamux.MIN_SEND or not size, "room was not used"
            life.room -= taken
            self._model.sent[stream] += taken

    def _build(self, stream: int, size: int) -> None:
        """A frame built elsewhere, once all that waits is sent: only its header comes from the machine."""
        self._fetch()
        built = self._twins.both(lambda machine: _built(machine, stream, size))
        if not self._modelled:
            return
        life = self._model.lives.get(stream)
        if life is None:
            assert built is StreamReset
        elif life.finished:
            assert built is ValueError
        else:
            size = min(size, life.room, yamux.MAX_FRAME)
            life.room -= size
            assert built == (HEADER.pack(0, DATA, 0, stream, size) if size else b"")

    def _consume(self, stream: int) -> None:
        """Never more than has come: what is read was received."""
        life = self._model.lives.get(stream)
        came = life.granted - life.credit - life.taken if life and self._modelled else 0
        size = min(self._choices.pick(LENGTHS[:14]), came)
        self._now += self._choices.byte() / 100
        if life is not None:
            life.taken += size
        self._twins.both(lambda machine: machine.consumed(stream, size, self._now))
        self._fetch()

    def _say(self, value: int) -> None:
        if value < 0xF0:
            self._twins.both(lambda machine: machine.ping(value))
            self._model.owed[0, PING, SYN, 0, value] += 1
            return
        code = GoAway(value % 3)
        self._twins.both(lambda machine: machine.go_away(code))
        self._model.we_leave = True
        self._model.owed[0, GO_AWAY, 0, 0, int(code)] += 1

    def _fetch(self) -> None:
        output = self._twins.output()
        if self._modelled:
            self._model.check_output(output)


def _built(machine: Yamux, stream: int, size: int) -> bytes:
    """The header of such a frame, put in the middle of a buffer."""
    size = min(size, machine.room(stream), yamux.MAX_FRAME)
    if not size:
        return b""
    buffer = bytearray(4) + bytearray(ROOM) + bytearray(4)
    machine.put_header(stream, size, buffer, 4)
    assert buffer[:4] == buffer[-4:] == bytes(4), "written beside its place"
    return bytes(buffer[4:-4])


def _modelled(data: bytes) -> str:
    return _Program(Choices(data), modelled=True).run()


def _unmodelled(data: bytes) -> str:
    return _Program(Choices(data), modelled=False).run()


def _garbage(data: bytes) -> str:
    """Bytes as they are."""
    made: list[Yamux] = []

    def machine() -> Callable[[bytes], list[Said]]:
        made.append(Yamux(client=data[:1] > b"\x7f"))
        return lambda piece: _in_a_buffer(made[-1], piece)

    def canonical(said: list[Said]) -> list[object]:
        return list(_canonical(said))

    said = same_however_cut(data[1:], machine, canonical).events
    whole, cut = (b"".join(each.take_output()) for each in made)
    assert whole == cut
    assert len(whole) <= len(data), "more was sent than came"
    return f"{min(len(said), 4)}"


def _garbage_seeds() -> list[bytes]:
    def frame(kind: int, flags: int, stream: int, length: int, body: bytes = b"") -> bytes:
        return HEADER.pack(0, kind, flags, stream, length) + body

    talk = frame(WINDOW, SYN, 1, 0) + frame(DATA, 0, 1, 5, b"hello") + frame(DATA, FIN, 1, 3, b"end")
    return [
        b"\0" + talk,
        b"\0" + frame(PING, SYN, 0, 7) + frame(DATA, SYN | FIN, 3, 2, b"hi") + frame(WINDOW, RST, 3, 0),
        b"\xff" + frame(DATA, SYN, 2, 4, b"data") + frame(GO_AWAY, 0, 0, 2) + frame(PING, ACK, 0, 9),
        b"\xff" + frame(DATA, 0, 2, 2**24 + 1),
        b"\0" + talk + frame(DATA, 0, 1, 10, b"late data!") + frame(WINDOW, 0, 1, 2**32 - 1),
    ]


def _program_seeds(whole: bytes = b"") -> list[bytes]:
    """Legal talks: their opening, data, our answers; our opening, theirs; ends and resets.

    `whole` is what says, without a model, that all of a body comes.
    """

    def theirs(kind: int, flags: int, stream: int, length: int) -> bytes:
        head = bytes([0, 0, KINDS.index(kind), FLAGS.index(flags), stream << 1, 0, length])
        return head + (whole + b"\1a" if kind == DATA else b"")

    def ours(call: int, stream: int, *more: int) -> bytes:
        return bytes([0xA0 + call, stream << 1, *more])

    seeds = []
    for client in (0, 1):
        them, us = (2, 1) if client else (1, 2)
        opening = theirs(WINDOW, SYN, them, 0)
        data = theirs(DATA, 0, them, 200)
        much = bytes([0, 0, 0, 0, them << 1, 1, LENGTHS.index(2**18)]) + whole + b"\1b"
        consume = ours(4, them, LENGTHS.index(2**18), 1)
        open_ = ours(0, us) + theirs(WINDOW, ACK, us, 100)
        head = bytes([client])
        seeds += [
            head + opening + data + ours(4, them, 7, 1) + ours(1, them, 3) + theirs(DATA, FIN, them, 0) + ours(2, them),
            head + open_ + ours(1, us, 6) + ours(1, us, 6) + ours(7, 0) + ours(3, us) + theirs(DATA, 0, us, 9),
            head + open_ + theirs(DATA, FIN, us, 4) + ours(2, us) + ours(1, us, 1) + ours(5, 0, 0xF1) + opening,
            head
            + theirs(GO_AWAY, 0, 0, 1)
            + ours(0, 0)
            + theirs(PING, SYN, 0, 7)
            + ours(5, 0, 3)
            + theirs(PING, ACK, 0, 3),
            head
            + open_
            + ours(1, us, 6) * 6
            + theirs(WINDOW, FIN, us, 9) * 2
            + ours(2, us)
            + ours(2, us)
            + ours(1, us, 1),
            head + open_ + (ours(9, us, 6) + ours(1, us, 2)) * 5 + ours(2, us) + ours(9, us, 1) + ours(9, us + 2, 1),
            head + opening + ours(2, them) + ours(1, them, 2) + theirs(DATA, FIN, them, 0) + theirs(DATA, FIN, them, 0),
            bytes([client | 6]) + opening + theirs(WINDOW, SYN, them + 2, 0) * 4 + ours(7, 0),
        ]
    slow = [  # a flood, and a window that grows: one of each
        b"\0\x9f" + theirs(PING, SYN, 0, 7)[1:] + ours(7, 0),
        b"\1" + opening + (much + consume) * 6 + theirs(WINDOW, RST, them, 0) + opening + data,
    ]
    return seeds + slow


YAMUX = (
    Target("wire.yamux.modelled", _modelled, _program_seeds, share=1, max_input=400, memory=20_000),
    Target(
        "wire.yamux.mixed", _unmodelled, lambda: _program_seeds(b"\xff\xff"), share=0.3, max_input=400, memory=20_000
    ),
    Target("wire.yamux.garbage", _garbage, _garbage_seeds),
)
