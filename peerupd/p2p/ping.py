"""libp2p's ping, `/ipfs/ping/1.0.0`: 32 bytes there, the same 32 bytes back, as often as the opener likes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import trio

from peerupd.model.errors import ConnectionLost, ProtocolViolation, TimedOut
from peerupd.p2p.streams import Stream

if TYPE_CHECKING:
    from peerupd.p2p.connection import Connection

PROTOCOL: Final = "/ipfs/ping/1.0.0"
SIZE: Final = 32  # bytes
IDLE_LIMIT: Final = 60.0  # seconds that a pinger may be silent
ANSWER_LIMIT: Final = 10.0  # seconds


async def answer(stream: Stream) -> None:
    """Echo until the opener ends, or is silent for too long."""
    while True:
        with trio.move_on_after(IDLE_LIMIT):
            if (asked := await _block(stream)) is None:
                return
            await stream.send_all(asked)
            continue
        raise TimedOut(f"a pinger was silent for {IDLE_LIMIT:.0f} s")


async def ping(connection: Connection) -> float:
    """The round trip in seconds. Raises `TimedOut`, `ProtocolViolation`, and as `open_stream` does."""
    stream = await connection.open_stream([PROTOCOL])
    async with stream:
        sent, began = os.urandom(SIZE), trio.current_time()
        with trio.move_on_after(ANSWER_LIMIT):
            await stream.send_all(sent)
            if await _block(stream) != sent:
                raise ProtocolViolation(f"{connection.peer} answered a ping with other bytes")
            return trio.current_time() - began
        raise TimedOut(f"{connection.peer} did not answer a ping within {ANSWER_LIMIT:.0f} s")


async def _block(stream: Stream) -> bytes | None:
    """The next whole block; None when the opener ended between two."""
    block = b""
    while len(block) < SIZE:
        if not (more := await stream.receive_some(SIZE - len(block))):
            if block:
                raise ConnectionLost("a ping was cut short")
            return None
        block += more
    return block
