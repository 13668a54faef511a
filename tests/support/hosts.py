"""Hosts on loopback, and connections over memory, for tests of the runtime."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
import trio.testing

from peerupd.model.addresses import Multiaddr
from peerupd.model.names import PeerId
from peerupd.p2p.budget import Pool
from peerupd.p2p.connection import Connection, Facts
from peerupd.p2p.host import Host
from peerupd.p2p.links import Over
from peerupd.p2p.streams import Stream
from peerupd.p2p.upgrade import Upgraded
from peerupd.trust.authorized_keys import Allowlist
from peerupd.trust.gate import Admit, Decision, Gate, Role
from peerupd.trust.identity import Identity
from peerupd.wire.noise import Session

LOOPBACK = Multiaddr.parse("/ip4/127.0.0.1/tcp/0")
ECHO = "/test/echo/1.0.0"
NOWHERE = Multiaddr.parse("/ip4/192.0.2.1/tcp/1")


async def echo(stream: Stream) -> None:
    """Send back what comes, to its end."""
    while data := await stream.receive_some():
        await stream.send_all(data)


def allow(*peers: PeerId) -> Allowlist:
    """An allowlist of these."""
    return Allowlist.parse("".join(f"{peer}\n" for peer in peers))


def make_host(
    *allowed: PeerId, gated: bool = True, role: Role = "node", identity: Identity | None = None, **words: object
) -> Host:
    """A host that admits these and echoes."""
    identity = identity or Identity.generate()
    gate = Gate(enabled=gated, allowlist=allow(*allowed), role=role, own=identity.peer_id)
    host = Host(identity=identity, gate=gate, agent="peerup/test", **words)  # type: ignore[arg-type]
    host.set_stream_handler(ECHO, echo)
    return host


@asynccontextmanager
async def running(*hosts: Host, listen: Sequence[Multiaddr] = (LOOPBACK,)) -> AsyncIterator[trio.Nursery]:
    """These hosts, on loopback."""
    async with trio.open_nursery() as nursery:
        for host in hosts:
            await nursery.start(host.run, listen)
        yield nursery
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Return once `condition()` holds; other hosts and processes tell no event."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await trio.sleep(0.002)


async def call(caller: Host, called: Host) -> Connection:
    """A connection between the two."""
    return await caller.swarm.dial(called.listen_addresses(), called.peer_id)


async def echoed(caller: Host, called: Host, data: bytes = b"are you there?") -> bytes:
    """What comes back when `data` is sent to the other's echo."""
    async with await caller.new_stream(called.peer_id, [ECHO]) as stream:
        await stream.send_all(data)
        await stream.send_eof()
        answer = b""
        while more := await stream.receive_some():
            answer += more
        return answer


@dataclass
class MemoryPair:
    """Two ends of one connection over memory; `arrived` are the streams that the second end was opened."""

    first: Connection
    second: Connection
    arrived: trio.MemoryReceiveChannel[Stream]
    left: trio.testing.MemorySendStream
    right: trio.testing.MemorySendStream

    def stop_first_link(self) -> None:
        """From now on the first end can send nothing more: its link takes no byte."""
        _stop(self.left)

    def stop_second_link(self) -> None:
        """The same for the second end."""
        _stop(self.right)

    def half_stream(self) -> Stream:
        """A stream of the first end of which the second need not know."""
        return self.first._muxer.open()

    async def streams(self) -> tuple[Stream, Stream]:
        """A new stream, both ends of it, nothing negotiated."""
        ours = self.first._muxer.open()
        return ours, await self.arrived.receive()


def _stop(link: trio.testing.MemorySendStream) -> None:
    link.send_all_hook = trio.sleep_forever
    link.close_hook = None


@asynccontextmanager
async def connected(
    serve: Callable[[Stream], Awaitable[None]] | None = None, *, admission: Decision | None = None
) -> AsyncIterator[MemoryPair]:
    """Two ends of a connection; `serve` handles the streams of the second (else they are in `arrived`)."""
    send, receive = trio.open_memory_channel[Stream](1000)

    async def keep(stream: Stream) -> None:
        send.send_nowait(stream)
        await trio.sleep_forever()

    left, right = trio.testing.memory_stream_pair()
    there, back = os.urandom(32), os.urandom(32)
    first = _end(left, Session(there, back), inbound=False, serve=keep)
    second = _end(right, Session(back, there), inbound=True, serve=serve or keep, admission=admission)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.run)
        nursery.start_soon(second.run)
        yield MemoryPair(first, second, receive, left.send_stream, right.send_stream)
        nursery.cancel_scope.cancel()


def _end(
    stream: trio.abc.HalfCloseableStream,
    session: Session,
    *,
    inbound: bool,
    serve: Callable[[Stream], Awaitable[None]],
    admission: Decision | None = None,
) -> Connection:
    facts = Facts(NOWHERE, inbound, False, None, "192.0.2.1", 0.0)
    upgraded = Upgraded(Identity.generate().peer_id, session, b"")
    return Connection(upgraded, Over(stream), facts, admission=admission or Admit(), serve=serve, pool=Pool())
