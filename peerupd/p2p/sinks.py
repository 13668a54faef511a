"""Where the bytes of a stream go: a socket, the other leg of a circuit, a connection inside of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from peerupd.wire.yamux import HEADER_BYTES


class Sink(Protocol):
    """Takes what it has room for."""

    def take(self, parts: Sequence[memoryview], /) -> int:
        """Now, without waiting: how many bytes were taken, from the first on. Raises `trio.BrokenResourceError`."""

    async def writable(self) -> None:
        """Wait until some would be taken."""


Onward: TypeAlias = Callable[[Sequence[memoryview]], int]
"""As `Sink.take`, or for frames: parts with room for a header before them."""


def without_room(take: Onward) -> Onward:
    """`take` for frames."""
    return lambda frames: take([frame[HEADER_BYTES:] for frame in frames])
