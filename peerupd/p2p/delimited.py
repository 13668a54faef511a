"""One delimited message from, and to, a stream (libp2p: a varint length, then the message)."""

from __future__ import annotations

from peerupd.model.errors import ProtocolViolation
from peerupd.p2p.streams import Stream
from peerupd.wire.framing import FrameReader, frame


async def receive_message(stream: Stream, limit: int) -> bytes:
    """The next message, at most `limit` bytes; what came after it is left to be read from the stream.

    Raises `ProtocolViolation` (also when the stream ends before), `StreamWasReset`, `StreamLost`.
    """
    reader = FrameReader(limit)
    while (message := reader.next()) is None:
        data = await stream.receive_some(limit)  # what follows a message stays in the stream, where it is counted
        if not data:
            raise ProtocolViolation("the stream ended where a message was due")
        reader.feed(data)
    if reader.pending:
        stream.push_back(reader.pending)
    return message


async def send_message(stream: Stream, message: bytes) -> None:
    """Send one message; raises as `Stream.send_all`."""
    await stream.send_all(frame(message))
