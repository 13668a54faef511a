"""What has arrived on a stream and is not yet read, in the order in which it came."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

from peerupd.wire.yamux import HEADER_BYTES

SMALL: Final = 4096  # bytes; smaller pieces are put together, for each costs memory of its own beside its bytes


class Unread:
    """`held` counts the bytes but not those that were pushed back, which count as read already."""

    __slots__ = ("_chunks", "_front", "held")

    def __init__(self) -> None:
        self.held = 0
        self._chunks: deque[bytes] = deque()
        self._front = b""

    def __bool__(self) -> bool:
        return bool(self._chunks or self._front)

    def push_back(self, data: bytes) -> None:
        """Put bytes in front of everything else."""
        self._front = data + self._front

    def store(self, frames: Sequence[memoryview], skip: int) -> None:
        """Copy what lies behind `HEADER_BYTES` in each frame, all but the first `skip` bytes."""
        for frame in frames:
            part = frame[HEADER_BYTES + skip :]
            skip = max(0, skip + HEADER_BYTES - len(frame))
            if self._chunks and len(self._chunks[-1]) + len(part) <= SMALL:
                self._chunks[-1] += part
            elif part:
                self._chunks.append(bytes(part))
            self.held += len(part)

    def take(self, limit: int) -> bytes:
        """The first of it, at most `limit` bytes."""
        if self._front:
            taken, self._front = self._front[:limit], self._front[limit:]
            return taken
        taken = b"".join(self._whole(limit)) or self._chunks[0][:limit]
        self.drop(len(taken))
        return taken

    def _whole(self, limit: int) -> Iterator[bytes]:
        for chunk in self._chunks:
            limit -= len(chunk)
            if limit < 0:
                return
            yield chunk

    def first(self, limit: int) -> list[memoryview]:
        """Where the first of it lies, at most `limit` bytes."""
        parts: list[memoryview] = []
        for chunk in chain((self._front,) if self._front else (), self._chunks):
            if limit <= 0:
                break
            parts.append(memoryview(chunk)[:limit])
            limit -= len(chunk)
        return parts

    def drop(self, size: int) -> None:
        """So many bytes were taken."""
        if self._front:
            early = min(size, len(self._front))
            self._front = self._front[early:]
            size -= early
        self.held -= size
        while size:
            chunk = self._chunks.popleft()
            if len(chunk) > size:
                self._chunks.appendleft(chunk[size:])
            size -= min(size, len(chunk))

    def clear(self) -> None:
        """Nobody will read it."""
        self.held = 0
        self._front = b""
        self._chunks.clear()
