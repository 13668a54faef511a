"""A relay, a home and a laptop in one process: clocks that jump under them, and what connections leave behind."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from peerupd.control.clock import Clock
from peerupd.control.opening import open_node
from peerupd.features.ends import SocketEnd
from peerupd.features.pump import Tally
from peerupd.model.snapshots import Connect, Nothing, PathWish, Ping, ServiceAdd
from peerupd.p2p.streams import Stream
from tests.support.nodes import (
    RunningNode,
    RunningRelay,
    authorize,
    echo,
    make_node,
    make_relay,
    running_node,
    running_relay,
    until,
)

YEAR = 365 * 86_400.0  # seconds
COUNT = 10_000 if os.environ.get("FULL") else 500  # connections
PATHS = [PathWish.RELAY, PathWish.DIRECT]


@dataclass
class Three:
    """The machines, and a service that says everything twice."""

    relay: RunningRelay
    home: RunningNode
    laptop: RunningNode

    async def door(self, path: PathWish) -> int:
        """A proxy at the laptop for the service; its port."""
        peer = str(self.home.node.host.peer_id)
        made = await self.laptop.ask.connect(Connect(peer, "twice", "127.0.0.1:0", path=path))
        return int(made.listen_address.rpartition(":")[2])

    async def ping(self, path: PathWish) -> str:
        """The trouble with a ping at home; empty: none."""
        with trio.fail_after(60):
            report = await self.laptop.ask.ping(Ping(str(self.home.node.host.peer_id), count=1, path=path))
        return report.results[0].error

    def is_reserved(self) -> bool:
        """Whether both have their slots at the relay."""
        return all(each.node.reports.relays()[0].state == "reserved" for each in (self.home, self.laptop))


@asynccontextmanager
async def three(folder: Path) -> AsyncIterator[Three]:
    """All of them, running, each authorized at the others."""
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(running_relay(make_relay(folder / "relay")))
        configs = [make_node(folder / name, relay.address) for name in ("home", "laptop")]
        keys = [config.with_name("identity.key") for config in configs]
        for config, other in zip(configs, reversed(keys), strict=True):
            authorize(config.with_name("authorized_keys"), other)
            await relay.node.authorization.add(open_node(config).identity.peer_id)
        home, laptop = [await stack.enter_async_context(running_node(config)) for config in configs]
        made = Three(relay, home, laptop)
        address = await stack.enter_async_context(echo())
        await home.ask.service_add(ServiceAdd("twice", address))
        await until("the reservations", made.is_reserved, 60.0)
        for path in PATHS:
            assert not await made.ping(path)
        yield made


async def said_twice(port: int, word: bytes = b"hello") -> None:
    """One connection, from its first byte to its last."""
    with trio.fail_after(60):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(word)
            assert await exactly(stream, 2 * len(word)) == 2 * word
            await stream.send_eof()
            assert await stream.receive_some() == b""


async def exactly(stream: trio.SocketStream, size: int) -> bytes:
    """So many bytes, or what came before the end."""
    data = b""
    while len(data) < size and (more := await stream.receive_some(size - len(data))):
        data += more
    return data


# -- clocks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leap", [YEAR, -YEAR, -time.time(), 80 * YEAR], ids=["a year", "back", "1970", "2106"])
async def test_a_clock_that_jumps_ends_nothing_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leap: float
) -> None:
    """Reservations, circuits, direct paths and running connections, while it lies and when it is right again."""
    by = [0.0]
    monkeypatch.setitem(Clock.__init__.__kwdefaults__, "wall", lambda: time.time() + by[0])
    async with three(tmp_path) as machines:
        doors = {path: await machines.door(path) for path in PATHS}
        running = [await trio.open_tcp_stream("127.0.0.1", port) for port in doors.values()]
        for jump in (leap, 0.0):
            by[0] = jump
            for node in (machines.home.node, machines.laptop.node, machines.relay.node):
                node.host.regate()
            for stream, word in zip(running, (b"relay", b"direct"), strict=True):
                await stream.send_all(word)
                with trio.fail_after(60):
                    assert await exactly(stream, 2 * len(word)) == 2 * word
            for path, port in doors.items():
                assert not await machines.ping(path)
                await said_twice(port)
            await until("the reservations", machines.is_reserved, 60.0)
        for stream in running:
            await stream.aclose()


# -- what is left --------------------------------------------------------------------------------------------------


def living(*kinds: type) -> dict[str, int]:
    """How many objects of these there are, and how many tasks."""
    gc.collect()
    found = [type(each) for each in gc.get_objects()]
    return {kind.__name__: found.count(kind) for kind in kinds} | {
        "tasks": trio.lowlevel.current_statistics().tasks_living
    }


@pytest.mark.parametrize("path", PATHS)
async def test_connections_leave_no_task_and_no_stream_behind(tmp_path: Path, path: PathWish) -> None:
    async with three(tmp_path) as machines:
        port = await machines.door(path)
        await said_twice(port)
        await until("the first one's end", lambda: not open_connections(machines))
        before = living(Stream, SocketEnd, Tally)
        for number in range(COUNT):
            await said_twice(port, b"%d" % number)
        await until("the last one's end", lambda: not open_connections(machines))
        after = living(Stream, SocketEnd, Tally)
        assert (await machines.laptop.ask.proxies(Nothing()))[0].connections == 0
        for name, count in after.items():
            assert count <= before[name] + 4, (name, before, after)  # an identify, a ping, a beat of the watchdog


def open_connections(machines: Three) -> int:
    """Of services, as both ends count them."""
    return sum(
        each.value
        for node in (machines.home.node, machines.laptop.node)
        for each in node.counters.snapshot()
        if each.name == "peerup_proxy_active_connections"
    )
