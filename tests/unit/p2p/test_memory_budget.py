"""The named memory budget reached: readers pause, nothing is reset, and all arrives once somebody reads."""

from __future__ import annotations

import hashlib
import os

import trio

from peerupd.p2p.connection import Connection
from peerupd.p2p.host import Host
from peerupd.p2p.streams import Stream
from peerupd.trust.identity import Identity
from tests.support.hosts import call, make_host, running, until

SINK = "/test/sink/1.0.0"
BUDGET = 4 << 20  # bytes
SENDERS, STREAMS = 3, 24
SLACK = SENDERS << 20  # bytes: what one batch of each connection may bring beyond it
SIZE = 512 * 1024  # bytes a stream
PATIENCE = 120.0  # seconds


class Sink:
    """Serves streams that nobody reads before the word."""

    def __init__(self) -> None:
        self.opened = 0
        self.word = trio.Event()
        self.digests: list[bytes] = []

    async def serve(self, stream: Stream) -> None:
        self.opened += 1
        await self.word.wait()
        seen = hashlib.sha256()
        async for data in stream:
            seen.update(data)
        self.digests.append(seen.digest())


async def send(connection: Connection, data: bytes) -> None:
    async with await connection.open_stream([SINK]) as stream:
        await stream.send_all(data)
        await stream.send_eof()
        assert await stream.receive_some() == b"", "the far side ended it cleanly"


async def test_readers_pause_nothing_is_reset_and_everything_arrives() -> None:
    senders = [Identity.generate() for _ in range(SENDERS)]
    home = make_host(*(sender.peer_id for sender in senders), memory=BUDGET)
    sink, data = Sink(), os.urandom(SIZE)
    home.set_stream_handler(SINK, sink.serve)
    others = [make_host(home.peer_id, identity=sender) for sender in senders]
    with trio.fail_after(PATIENCE):
        async with running(home, *others), trio.open_nursery() as nursery:
            for other in others:
                await flood(nursery, other, home, data)
            await until(lambda: home.swarm.held > BUDGET // 2, PATIENCE)
            worst = await settled(home)
            assert worst <= BUDGET + SLACK
            assert [c.reason for c in home.connections()] == [""] * SENDERS
            sink.word.set()
            await until(lambda: len(sink.digests) == SENDERS * STREAMS, PATIENCE)
            await until(lambda: home.swarm.held == 0, PATIENCE)
    assert set(sink.digests) == {hashlib.sha256(data).digest()}


async def flood(nursery: trio.Nursery, other: Host, home: Host, data: bytes) -> None:
    """As many streams as there may be, all full of data."""
    connection = await call(other, home)
    for _ in range(STREAMS):
        nursery.start_soon(send, connection, data)


async def settled(home: Host) -> int:
    """Once nothing more comes in: the most that was held."""
    worst, still = 0, 0
    before = -1
    while still < 20:
        await trio.sleep(0.02)
        now = home.swarm.held
        still = still + 1 if now == before else 0
        worst, before = max(worst, now), now
    return worst
