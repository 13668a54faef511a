"""Connections over real sockets on loopback, without hosts: two ends, or two ends with a relay between them."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from peerupd.p2p import links
from peerupd.p2p.budget import Pool
from peerupd.p2p.connection import Connection, Facts
from peerupd.p2p.forwarding import Ending, forward
from peerupd.p2p.links import Link
from peerupd.p2p.streams import Stream
from peerupd.p2p.tcp import TcpStream
from peerupd.p2p.upgrade import Upgraded
from peerupd.trust.gate import Admit
from peerupd.trust.identity import Identity
from peerupd.wire.noise import Session
from tests.support.hosts import NOWHERE


def sockets() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection, not blocking."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other = server.accept()[0]
    for each in (one, other):
        each.setblocking(False)
    return one, other


def tcp_links() -> tuple[TcpStream, TcpStream]:
    """The same as links."""
    one, other = sockets()
    return TcpStream(one), TcpStream(other)


@dataclass
class Pair:
    """A connection: who opened it, who accepted it, and the streams that the second end was opened."""

    first: Connection
    second: Connection
    arrived: trio.MemoryReceiveChannel[Stream]

    async def streams(self) -> tuple[Stream, Stream]:
        """Both ends of a new stream, nothing negotiated."""
        ours = self.first._muxer.open()
        with trio.fail_after(30):
            return ours, await self.arrived.receive()


def join(nursery: trio.Nursery, near: Link, far: Link) -> Pair:
    """A running connection over these two ends of a link."""
    give, take = trio.open_memory_channel[Stream](1000)

    async def keep(stream: Stream) -> None:
        give.send_nowait(stream)
        await trio.sleep_forever()

    there, back = os.urandom(32), os.urandom(32)
    ends = []
    for link, session, inbound in ((near, Session(there, back), False), (far, Session(back, there), True)):
        upgraded = Upgraded(Identity.generate().peer_id, session, b"")
        facts = Facts(NOWHERE, inbound, False, None, "192.0.2.1", 0.0)
        ends.append(Connection(upgraded, link, facts, admission=Admit(), serve=keep, pool=Pool()))
        nursery.start_soon(ends[-1].run)
    return Pair(ends[0], ends[1], take)


@asynccontextmanager
async def direct() -> AsyncIterator[Pair]:
    """A connection over TCP."""
    async with trio.open_nursery() as nursery:
        yield join(nursery, *tcp_links())
        nursery.cancel_scope.cancel()


@dataclass
class Relayed:
    """`near` and `far` are the relay's connections, `inner` is the one inside of the circuit."""

    near: Pair
    far: Pair
    inner: Pair
    ending: list[Ending]
    legs: tuple[Stream, Stream]


@asynccontextmanager
async def relayed(**limits: object) -> AsyncIterator[Relayed]:
    """A connection inside of a circuit."""
    async with trio.open_nursery() as nursery:
        near, far = join(nursery, *tcp_links()), join(nursery, *tcp_links())
        caller, relay_in = await near.streams()
        relay_out, callee = await far.streams()
        ending: list[Ending] = []

        async def relay() -> None:
            ending.append(await forward(relay_in, relay_out, **limits))  # type: ignore[arg-type] # the tests' shorthand

        nursery.start_soon(relay)
        inner = join(nursery, links.over(caller), links.over(callee))
        yield Relayed(near, far, inner, ending, (relay_in, relay_out))
        nursery.cancel_scope.cancel()


class SocketSource:
    """A socket as what a stream is filled from and taken to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def fill(self, slots: list[memoryview]) -> int:
        """As `Source.fill`."""
        return self.sock.recvmsg_into(slots)[0]

    async def readable(self) -> None:
        """As `Source.readable`."""
        await trio.lowlevel.wait_readable(self.sock)

    def take(self, parts: list[memoryview]) -> int:
        """As `Sink.take`."""
        try:
            return self.sock.sendmsg(parts[:100])
        except BlockingIOError:
            return 0

    async def writable(self) -> None:
        """As `Sink.writable`."""
        await trio.lowlevel.wait_writable(self.sock)
