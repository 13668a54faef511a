"""The near end of a pipe: the caller's socket, switched from HTTP to chunks when it is first used.

A Unix socket has no reset, so both directions are framed (`wire.chunks`): the clean end is said, and a caller that
hangs up without it was cut. A reset of ours is just that: the socket ends, and the end was not said.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from peerupd.features.ends import SocketEnd
from peerupd.features.pump import CHUNK
from peerupd.model.errors import ProtocolViolation
from peerupd.wire.chunks import END, MAX_CHUNK, ChunkReader, header


class ChunkedEnd:
    """Satisfies `features.pump.End`; `switch` says 101 and gives the bare socket away."""

    def __init__(self, switch: Callable[[], Awaitable[SocketEnd]]) -> None:
        self._switch = switch
        self._switching = trio.Lock()
        self._reader = ChunkReader()
        self._end: SocketEnd | None = None

    @property
    def begun(self) -> bool:
        """Whether the caller was told."""
        return self._end is not None

    async def receive_some(self, max_bytes: int | None = None, /) -> bytes:
        end = await self._switched()
        while not self._reader.ended:
            data = await end.receive_some(min(self._reader.wanted, max_bytes or CHUNK))
            if not data:
                raise trio.BrokenResourceError("the caller was cut off")
            if content := self._content(data):
                return content
        return b""

    async def send_all(self, data: bytes | bytearray | memoryview, /) -> None:
        end, rest = await self._switched(), memoryview(data)
        while rest:
            piece, rest = rest[:MAX_CHUNK], rest[MAX_CHUNK:]
            await end.send_all(header(len(piece)))
            await end.send_all(piece)

    async def send_eof(self) -> None:
        await (await self._switched()).send_all(END)

    async def aclose(self) -> None:
        await (await self._switched()).aclose()

    def reset(self) -> None:
        if self._end is not None:
            self._end.reset()

    async def _switched(self) -> SocketEnd:
        async with self._switching:
            if self._end is None:
                self._end = await self._switch()
        return self._end

    def _content(self, data: bytes) -> bytes:
        try:
            return self._reader.receive(data)
        except ProtocolViolation as why:
            raise trio.BrokenResourceError(why.message) from why
