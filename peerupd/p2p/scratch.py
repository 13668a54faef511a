"""The buffers that all connections of a process share, for bytes on their way from one place to the next.

Whoever fills a buffer uses up what is in it before anybody else runs: nothing awaits in between, and there is one event
loop. A connection inside a circuit works while the one that carries it does, so there is one set for each depth.

A slot holds one frame on its way out: in front room for the length of a record and the header of a frame, behind it
room for the record's tag. For a connection inside another that is so twice, and the outer one seals around what the
inner one has sealed:

    depth 0                 2 12 payload 16
    depth 1            2 12 2 12 payload 16 16
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from peerupd.wire.noise import LENGTH, MAX_RECORD, TAG
from peerupd.wire.yamux import HEADER_BYTES

DEPTHS: Final = 2  # a connection, and one inside a circuit
READ_SIZE: Final = 256 * 1024  # bytes taken from below at once
PAYLOAD: Final = 32 * 1024  # bytes in a slot; larger ones leave the processor's L1 cache
SLOTS: Final = 16  # frames sent at once
INSET: Final = LENGTH + HEADER_BYTES  # bytes before what a slot carries, at each depth
AROUND: Final = INSET + TAG  # bytes that each depth adds to a slot

incoming: Final = memoryview(bytearray(READ_SIZE))


class Slots:
    """Frames on their way out."""

    def __init__(self, depth: int) -> None:
        self.inset = INSET * (depth + 1)  # bytes before the payload
        self.stride = PAYLOAD + AROUND * (depth + 1)
        self.view = memoryview(bytearray(self.stride * SLOTS))
        starts = range(self.inset, len(self.view), self.stride)
        self._payloads = [self.view[start : start + PAYLOAD] for start in starts]

    def payloads(self, size: int) -> list[memoryview]:
        """Where `size` bytes of what is to be sent may be put; no more than all slots hold."""
        whole, rest = divmod(size, PAYLOAD)
        views = self._payloads[:whole]
        if rest and whole < SLOTS:
            views.append(self._payloads[whole][:rest])
        return views

    def joined(self, sizes: Sequence[int], inset: int) -> memoryview | bytes:
        """What lies in the slots, so many bytes in each from `inset` on, in one piece."""
        if not inset:  # they touch: each is full but the last one
            return self.view[: sum(sizes)]
        starts = range(inset, len(self.view), self.stride)
        return b"".join(self.view[start : start + size] for start, size in zip(starts, sizes, strict=False))


@cache
def slots(depth: int) -> Slots:
    """Those of all connections at this depth."""
    return Slots(depth)


def batch(depth: int) -> int:
    """How many bytes a connection at this depth is given at once, at most: what the one outside may have opened."""
    return READ_SIZE + depth * MAX_RECORD


@cache
def plain(depth: int) -> memoryview:
    """Where connections at this depth put what they have opened, behind room for a header."""
    return memoryview(bytearray(HEADER_BYTES + batch(depth) + MAX_RECORD))
