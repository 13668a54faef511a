"""A byte stream with an honest end, for sockets that know no reset: `peerup-pipe` of the control socket.

    size: 4 bytes, big-endian, 1 to MAX_CHUNK    then so many bytes of content
    size: 0                                      a clean end of this direction; nothing may follow

Theory of operation. Content is handed out as it comes, whole chunks are never waited for and nothing but an unfinished
header is kept. Whoever reads at most `wanted` bytes at a time gets each chunk in as few pieces as it came. The end of
the socket before the clean end is a cut.
"""

from __future__ import annotations

from typing import Final

from peerupd.model.errors import FrameTooLarge, ProtocolViolation
from peerupd.wire.protobuf import Buffer

MAX_CHUNK: Final = 1 << 20  # bytes of content behind one header
HEADER: Final = 4  # bytes
END: Final = bytes(HEADER)
"""The clean end of one direction."""


def header(size: int) -> bytes:
    """What goes before `size` bytes of content, 1 to `MAX_CHUNK`."""
    return size.to_bytes(HEADER, "big")


class ChunkReader:
    """Chunks in any portions in, content out."""

    def __init__(self) -> None:
        self.ended = False
        """Whether the clean end has come."""
        self._header = bytearray()
        self._rest = 0  # bytes of content that are still to come

    @property
    def wanted(self) -> int:
        """How many bytes there are to the end of the next header."""
        return self._rest + HEADER - len(self._header)

    def receive(self, data: Buffer) -> bytes:
        """The content in `data`, perhaps none yet; raises `ProtocolViolation`, `FrameTooLarge`."""
        left, content = memoryview(data), []
        while left:
            if self.ended:
                raise ProtocolViolation(f"{len(left)} bytes behind the end of a pipe")
            if piece := left[: self._rest]:
                content.append(piece)
                self._rest -= len(piece)
                left = left[len(piece) :]
            else:
                left = self._begin(left)
        return b"".join(content)

    def _begin(self, data: memoryview) -> memoryview:
        """Take of the next header what is there; returns what follows it."""
        missing = HEADER - len(self._header)
        self._header += data[:missing]
        if len(self._header) == HEADER:
            self._rest = int.from_bytes(self._header, "big")
            self._header.clear()
            self.ended = self._rest == 0
            if self._rest > MAX_CHUNK:
                raise FrameTooLarge(f"chunk of {self._rest} bytes, at most {MAX_CHUNK} are allowed")
        return data[missing:]
