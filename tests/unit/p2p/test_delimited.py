"""One delimited message from a stream: the message, and little of what follows it."""

from __future__ import annotations

import pytest

from peerupd.model.errors import FrameTooLarge, ProtocolViolation
from peerupd.p2p.delimited import receive_message
from peerupd.wire.framing import frame

LIMIT = 100  # bytes


class Source:
    """What `receive_message` needs of a stream; all of `data` is there at once."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        taken, self.data = self.data[:max_bytes], self.data[max_bytes or len(self.data) :]
        return taken

    def push_back(self, data: bytes) -> None:
        self.data = data + self.data
        self.pushed = len(data)


async def test_what_follows_a_message_stays_in_the_stream():
    """There its size is counted; what was taken out of the stream is not."""
    source = Source(frame(b"hello") + bytes(256 * 1024))
    assert await receive_message(source, LIMIT) == b"hello"
    assert source.data == bytes(256 * 1024)
    assert source.pushed < LIMIT


async def test_a_message_that_comes_in_pieces_is_put_together():
    source = Source(frame(bytes(LIMIT)))
    assert await receive_message(source, LIMIT) == bytes(LIMIT)
    assert source.data == b""


async def test_a_message_that_is_too_long_or_never_ends_is_a_violation():
    with pytest.raises(FrameTooLarge):
        await receive_message(Source(frame(bytes(LIMIT + 1))), LIMIT)
    with pytest.raises(ProtocolViolation):
        await receive_message(Source(frame(bytes(LIMIT))[:-1]), LIMIT)
