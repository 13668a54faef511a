"""Streams over a circuit keep trio's contract: the circuit's own bytes, and the streams of a connection inside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import check_half_closeable_stream

from peerupd.p2p.delimited import receive_message, send_message
from peerupd.p2p.streams import Stream
from peerupd.wire.circuit import (
    HOP_PROTOCOL,
    MAX_MESSAGE,
    STOP_PROTOCOL,
    HopKind,
    HopMessage,
    Status,
    StopKind,
    StopMessage,
)
from tests.support.relaynet import NodeMachine, RelayMachine

GIVE = "/test/give/1.0.0"

STUCK_AFTER = 0.3  # seconds without more window

Pair = tuple[Stream, Stream]
Maker = Callable[[], Awaitable[Pair]]


class Far:
    """What arrives at the far end, one stream after the other."""

    def __init__(self) -> None:
        self._give, self.take = trio.open_memory_channel[Stream](1)

    async def serve(self, stream: Stream) -> None:
        """Hand the stream to the test, and hold it until the connection ends."""
        await self._give.send(stream)
        await stream.connection.closed.wait()

    async def stop(self, stream: Stream) -> None:
        """The same for a bare circuit."""
        await receive_message(stream, MAX_MESSAGE)
        await send_message(stream, StopMessage(StopKind.STATUS, status=Status.OK).encode())
        await self.serve(stream)


async def machines(nursery: trio.Nursery) -> tuple[RelayMachine, NodeMachine, NodeMachine]:
    relay = RelayMachine()
    home, laptop = NodeMachine(relay, gated=False), NodeMachine(relay, gated=False)
    relay.allow(home, laptop)
    await relay.start(nursery)
    with trio.fail_after(30):
        await home.start(nursery)
        await laptop.start(nursery)
    return relay, home, laptop


async def bare(nursery: trio.Nursery) -> Maker:
    """Two ends of a circuit, with nothing in it yet."""
    relay, home, laptop = await machines(nursery)
    far = Far()
    home.host.set_stream_handler(STOP_PROTOCOL, far.stop)

    async def make() -> Pair:
        near = await laptop.host.connections(relay.peer)[0].open_stream([HOP_PROTOCOL])
        await send_message(near, HopMessage(HopKind.CONNECT, peer=home.peer).encode())
        assert HopMessage.decode(await receive_message(near, MAX_MESSAGE)).status is Status.OK
        return near, await far.take.receive()

    return make


async def inside(nursery: trio.Nursery) -> Maker:
    """A stream of a connection that is carried by a circuit."""
    _, home, laptop = await machines(nursery)
    far = Far()
    home.host.set_stream_handler(GIVE, far.serve)
    connection = await laptop.circuit_to(home)

    async def make() -> Pair:
        near = await connection.open_stream([GIVE])
        return near, await far.take.receive()

    return make


async def clog(end: Stream) -> None:
    """Send until the window is used up to its last byte, and no more of it comes."""
    window = end._muxer.outlet.window
    while window(end.number):
        while room := window(end.number):
            await end.send_all(bytes(min(room, 65536)))
        await trio.sleep(STUCK_AFTER)


def clogged(make: Maker) -> Maker:
    """Pairs whose sending is stuck until the other side reads."""

    async def make_clogged() -> Pair:
        near, far = await make()
        for end in (near, far):
            await clog(end)
        return near, far

    return make_clogged


@pytest.mark.slow
@pytest.mark.parametrize("kind", [bare, inside])
async def test_streams_over_a_circuit_are_half_closeable_streams(nursery: trio.Nursery, kind) -> None:
    make = await kind(nursery)
    with trio.fail_after(120):
        await check_half_closeable_stream(make, clogged(make))
