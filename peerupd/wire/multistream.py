"""Agree on a protocol: multistream-select 1.0, both roles (multiformats/multistream-select).

Theory of operation. Every message is a line in a length-prefixed frame. Both sides name `/multistream/1.0.0`; then
the dialer proposes protocols one after the other and the listener answers with the same line (chosen) or `na`. The
dialer sends its header and its first proposal together, and a lazy dialer even its first payload: what follows the
choice is `leftover` and belongs to the chosen protocol. The dialer's talk is bounded by its list, the listener's by
`MAX_PROPOSALS`. `ls` is answered with `na`, as it was dropped from the protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Final

from peerupd.model.errors import ProtocolUnsupported, ProtocolViolation
from peerupd.model.names import printable
from peerupd.wire.framing import FrameReader, frame
from peerupd.wire.protobuf import Buffer

MULTISTREAM: Final = "/multistream/1.0.0"
NOT_AVAILABLE: Final = "na"
MAX_MESSAGE: Final = 1024  # bytes, with the line's end
MAX_PROPOSALS: Final = 64  # of one dialer, on one stream


class Dialer:
    """The side that proposes: the first of `protocols` that the other side speaks is `chosen`."""

    def __init__(self, protocols: Sequence[str]) -> None:
        self.chosen: str | None = None
        self._lines = _Lines()
        self._waiting = list(protocols)  # the first one is the one proposed
        self._greeted = False

    def start(self) -> bytes:
        """The header and the first proposal."""
        return _line(MULTISTREAM) + _line(self._waiting[0])

    def receive(self, data: Buffer) -> bytes:
        """What to send now; raises `ProtocolViolation`, or `ProtocolUnsupported` when all were refused."""
        self._lines.feed(data)
        out = b""
        while self.chosen is None and (line := self._lines.next()) is not None:
            out += self._answered(line)
        return out

    @property
    def leftover(self) -> bytes:
        """What came after the choice: bytes of the chosen protocol."""
        return self._lines.pending

    def _answered(self, line: str) -> bytes:
        if not self._greeted:
            self._greeted = _is_header(line)
        elif line == self._waiting[0]:
            self.chosen = line
        elif line == NOT_AVAILABLE:
            return self._next_proposal()
        else:
            raise ProtocolViolation(f"wanted an answer to a proposed protocol, got {printable(line, 60)!r}")
        return b""

    def _next_proposal(self) -> bytes:
        refused = self._waiting.pop(0)
        if not self._waiting:
            raise ProtocolUnsupported(f"the peer does not speak {refused}")
        return _line(self._waiting[0])


class Listener:
    """The side that chooses: the first proposal that is in `protocols` (or that it says yes to) is `chosen`."""

    def __init__(self, protocols: Callable[[str], bool] | Container[str]) -> None:
        self.chosen: str | None = None
        self._speaks = protocols if callable(protocols) else protocols.__contains__
        self._lines = _Lines()
        self._greeted = False
        self._proposals = 0

    def receive(self, data: Buffer) -> bytes:
        """What to send now; raises `ProtocolViolation`."""
        self._lines.feed(data)
        out = b""
        while self.chosen is None and (line := self._lines.next()) is not None:
            out += self._answer(line)
        return out

    @property
    def leftover(self) -> bytes:
        """What came after the choice: bytes of the chosen protocol."""
        return self._lines.pending

    def _answer(self, line: str) -> bytes:
        if not self._greeted:
            self._greeted = _is_header(line)
            return _line(MULTISTREAM)
        self._proposals += 1
        if self._proposals > MAX_PROPOSALS:
            raise ProtocolViolation(f"more than {MAX_PROPOSALS} protocols proposed on one stream")
        if not self._speaks(line):
            return _line(NOT_AVAILABLE)
        self.chosen = line
        return _line(line)


class _Lines:
    """Frames that hold one line each."""

    def __init__(self) -> None:
        self._frames = FrameReader(MAX_MESSAGE)

    def feed(self, data: Buffer) -> None:
        self._frames.feed(data)

    def next(self) -> str | None:
        body = self._frames.next()
        if body is None:
            return None
        if not body.endswith(b"\n"):
            raise ProtocolViolation("multistream message without a line's end")
        try:
            return body[:-1].decode()
        except UnicodeDecodeError:
            raise ProtocolViolation("multistream message is not UTF-8") from None

    @property
    def pending(self) -> bytes:
        return self._frames.pending


def _line(text: str) -> bytes:
    return frame(f"{text}\n".encode())


def _is_header(line: str) -> bool:
    if line != MULTISTREAM:
        raise ProtocolViolation(f"wanted {MULTISTREAM}, got {printable(line, 60)!r}")
    return True
