"""What a yamux machine must say to whole frames, and may send: a plain second opinion for the targets.

Written from the specification and the rules in `peerupd.wire.yamux`'s head, frame by frame and without any thought of
speed. The window that the machine grants is not foretold but read off what it sends; it must be large enough for what
was consumed, and no larger than its bound allows.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import TypeAlias

from peerupd.wire import yamux

HEADER = struct.Struct(">BBHII")
DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8

Frame: TypeAlias = tuple[int, int, int, int, int]
"""Version, kind, flags, stream, length."""
Said: TypeAlias = tuple[str, int, object]
"""An event in plain words: its name, the stream, what more."""


class Violation(Exception):
    """The other side broke the rules with this frame."""


@dataclass
class Life:
    """One stream, from its opening to its end."""

    room: int = yamux.INITIAL_WINDOW
    credit: int = yamux.INITIAL_WINDOW
    accepted: bool = True
    finished: bool = False
    ended: bool = False
    granted: int = yamux.INITIAL_WINDOW
    taken: int = 0


@dataclass
class Model:
    """One side of a connection."""

    client: bool
    max_inbound: int
    lives: dict[int, Life] = field(default_factory=dict)
    owed: Counter[Frame] = field(default_factory=Counter)
    """Frames without data that the machine must send."""
    sent: Counter[int] = field(default_factory=Counter)
    """Bytes of data of each stream that the machine was given and must send."""
    replies: int = 0
    inbound: int = 0
    next_id: int = 0
    we_leave: bool = False
    they_leave: bool = False

    def __post_init__(self) -> None:
        self.next_id = 1 if self.client else 2

    def is_ours(self, stream: int) -> bool:
        """Whether this side opens streams of this number."""
        return stream % 2 == self.client

    # -- what they say ---------------------------------------------------------------------------------------------

    def hear(self, frame: Frame, body: bytes) -> list[Said]:
        """What a whole frame means; raises `Violation`."""
        version, kind, flags, stream, length = frame
        if version or kind > GO_AWAY:
            raise Violation("no such frame")
        if kind == PING:
            if not flags & SYN:
                return [("PongReceived", 0, length)]
            self._reply((0, PING, ACK, 0, length))
            return []
        if kind == GO_AWAY:
            self.they_leave = True
            return [("WentAway", 0, length)]
        said = self._opening(stream) if flags & SYN else []
        return said + self._of_stream(kind, flags, stream, length, body)

    def _opening(self, stream: int) -> list[Said]:
        if stream == 0 or self.is_ours(stream) or stream in self.lives:
            raise Violation("cannot be opened")
        if self.we_leave or self.inbound >= self.max_inbound:
            self._reply((0, WINDOW, RST, stream, 0))
            return []
        self.lives[stream] = Life()
        self.inbound += 1
        self._reply((0, WINDOW, ACK, stream, 0))
        return [("StreamOpened", stream, None)]

    def _of_stream(self, kind: int, flags: int, stream: int, length: int, body: bytes) -> list[Said]:
        life = self.lives.get(stream)
        if life is None:
            self._late(kind, stream, length)
            return []
        said: list[Said] = []
        if flags & ACK and not life.accepted:
            life.accepted = True
            said.append(("StreamAccepted", stream, None))
        if flags & RST:
            self.forget(stream)
            self._late(kind, stream, length)
            return [*said, ("ResetReceived", stream, None)]
        said += self._data(life, stream, length, body) if kind == DATA else self._window(life, stream, length)
        if flags & FIN and not life.ended:
            life.ended = True
            said.append(("EndReceived", stream, None))
            self._forget_if_over(stream)
        return said

    def _late(self, kind: int, stream: int, length: int) -> None:
        if stream == 0 or (self.is_ours(stream) and stream >= self.next_id):
            raise Violation("never opened")
        if kind == DATA and length > yamux.MAX_WINDOW:
            raise Violation("beyond any window")

    def _data(self, life: Life, stream: int, length: int, body: bytes) -> list[Said]:
        if length > life.credit or (length and life.ended):
            raise Violation("beyond window or end")
        life.credit -= length
        return [("DataReceived", stream, body)] if length else []

    def _window(self, life: Life, stream: int, delta: int) -> list[Said]:
        life.room += delta
        if life.room > yamux.MAX_SEND_WINDOW:
            raise Violation("window beyond 32 bits")
        return [("WindowGrew", stream, None)] if delta else []

    def _reply(self, frame: Frame) -> None:
        self.replies += 1
        if self.replies > yamux.MAX_PENDING_REPLIES:
            raise Violation("too many answers asked for")
        self.owed[frame] += 1

    # -- what we do ------------------------------------------------------------------------------------------------

    def open(self) -> int:
        """The stream that is opened."""
        stream, self.next_id = self.next_id, self.next_id + 2
        self.lives[stream] = Life(accepted=False)
        self.owed[0, WINDOW, SYN, stream, 0] += 1
        return stream

    def finish(self, stream: int) -> None:
        """No more data of ours."""
        life = self.lives.get(stream)
        if life is not None and not life.finished:
            life.finished = True
            self.owed[0, DATA, FIN, stream, 0] += 1
            self._forget_if_over(stream)

    def reset(self, stream: int) -> None:
        """Broken off by us."""
        if stream in self.lives:
            self.forget(stream)
            self.owed[0, WINDOW, RST, stream, 0] += 1

    def forget(self, stream: int) -> None:
        """It is over."""
        del self.lives[stream]
        self.inbound -= not self.is_ours(stream)

    def _forget_if_over(self, stream: int) -> None:
        life = self.lives[stream]
        if life.finished and life.ended:
            self.forget(stream)

    # -- what the machine sends ------------------------------------------------------------------------------------

    def check_output(self, output: bytes) -> None:
        """The output is whole frames: all that is owed, the data that was given, and room for what was consumed."""
        at = 0
        while at < len(output):
            frame = HEADER.unpack_from(output, at)
            at += HEADER.size
            version, kind, flags, stream, length = frame
            if (kind, flags) == (DATA, 0):
                assert version == 0
                assert 0 < length <= yamux.MAX_FRAME
                self.sent[stream] -= length
                at += length
            elif (kind, flags) == (WINDOW, 0):
                self._check_grant(stream, length)
            else:
                self.owed[frame] -= 1
        assert at == len(output), "a frame cut short"
        assert not +self.owed, f"not sent: {+self.owed}"
        assert not -self.owed, f"sent without a reason: {-self.owed}"
        assert not +self.sent, f"data not sent: {+self.sent}"
        assert not -self.sent, f"data sent that nobody gave: {-self.sent}"
        self.replies = 0

    def _check_grant(self, stream: int, delta: int) -> None:
        life = self.lives[stream]
        life.credit += delta
        life.granted += delta
        assert life.credit <= max(yamux.MAX_WINDOW, yamux.INITIAL_WINDOW)
        assert life.granted <= life.taken + yamux.MAX_WINDOW
