"""Length-prefixed frames: an unsigned varint, then that many bytes (libp2p "delimited" messages).

Theory of operation. The reader is fed whatever the socket gave and hands out whole frames; it never waits and never
guesses. Two things can end it: a length above the limit, known before a single byte of the body is waited for, and a
varint longer than a length can be. Both are the other side's fault and both mean: close the connection. A protocol
that switches to raw bytes after some frame takes its frames one by one with `feed` and `next`; what follows the last
one is `pending`.
"""

from __future__ import annotations

from typing import Final

from peerupd.model.errors import FrameTooLarge, ProtocolViolation
from peerupd.wire.protobuf import Buffer, varint

MAX_VARINT_BYTES: Final = 5  # lengths above 2**35 have no business here


def frame(body: Buffer) -> bytes:
    """`body` with its length in front."""
    return b"".join((varint(len(body)), body))


class FrameReader:
    """Bytes in any portions in, whole frames out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes of body
        self._pending = bytearray()

    def receive(self, data: Buffer) -> list[bytes]:
        """The frames that `data` completed, in order; raises `ProtocolViolation` or `FrameTooLarge`."""
        self.feed(data)
        frames = []
        while (found := self.next()) is not None:
            frames.append(found)
        return frames

    def feed(self, data: Buffer) -> None:
        """Take `data` in without looking at it."""
        self._pending += data

    def next(self) -> bytes | None:
        """The next whole frame, taken out; None if it is not complete; raises as `receive` does."""
        start, size = self._length()
        if start == 0 or len(self._pending) < start + size:
            return None
        body = bytes(self._pending[start : start + size])
        del self._pending[: start + size]
        return body

    @property
    def pending(self) -> bytes:
        """What came after the last frame taken out."""
        return bytes(self._pending)

    def _length(self) -> tuple[int, int]:
        """Where the body begins (0: not known yet) and how long it is."""
        size = 0
        for index, byte in enumerate(self._pending[:MAX_VARINT_BYTES]):
            size |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return index + 1, self._allowed(size)
        if len(self._pending) >= MAX_VARINT_BYTES:
            raise ProtocolViolation(f"frame length longer than {MAX_VARINT_BYTES} bytes")
        return 0, 0

    def _allowed(self, size: int) -> int:
        if size > self._limit:
            raise FrameTooLarge(f"frame of {size} bytes, at most {self._limit} are allowed")
        return size
