"""Whole nodes and relays in this process, on loopback, with real files in a temporary folder."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from peerupd.control.founding import found_node, relay_setup
from peerupd.control.node import Node
from peerupd.control.opening import open_node, open_relay
from peerupd.control.operations import Operations
from peerupd.control.relay_node import RelayNode
from peerupd.features.ends import listen as listen_at
from peerupd.frontends import healthz
from peerupd.frontends.door import ControlDoor
from peerupd.frontends.socket import Place
from peerupd.model.addresses import Endpoint
from peerupd.model.snapshots import RelaySetup
from peerupd.trust.authorized_keys import AllowlistFile
from peerupd.trust.identity import Identity

LISTEN = '    - "/ip4/127.0.0.1/tcp/0"\n'


@dataclass
class FakeManager:
    """A service manager that remembers what it was told."""

    interval: float | None = None
    told: list[str] = field(default_factory=list)
    is_ready: trio.Event = field(default_factory=trio.Event)
    beats: int = 0

    def ready(self) -> None:
        self.told.append("READY")
        self.is_ready.set()

    def status(self, text: str) -> None:
        self.told.append(f"STATUS {text}")

    def stopping(self) -> None:
        self.told.append("STOPPING")

    def watchdog(self) -> None:
        self.beats += 1


def only_loopback(config: Path) -> Path:
    """Rewrite the listen addresses of a generated configuration to a free port of 127.0.0.1."""
    text = re.sub(r"(?m)^    (# )?- \"/ip[46].*\n", "", config.read_text())
    config.write_text(text.replace("  listen_addresses:\n", f"  listen_addresses:\n{LISTEN}"))
    return config


def make_node(folder: Path, relay: str | None = None) -> Path:
    """The configuration of a new node that listens on loopback only."""
    config = folder / "config.yaml"
    found_node(config, None, "", "test")
    only_loopback(config)
    if relay is not None:
        config.write_text(config.read_text().replace("addresses: []", f'addresses: ["{relay}"]'))
    return config


def make_relay(folder: Path) -> Path:
    """The configuration of a new relay server that listens on loopback only."""
    return only_loopback(Path(relay_setup(RelaySetup(directory=str(folder), address="127.0.0.1")).config))


def authorize(allowlist: Path, *keys: Path) -> None:
    """Let the owners of these key files in."""
    file = AllowlistFile(allowlist)
    allowed = file.load()
    for key in keys:
        allowed = allowed.add(Identity.load(key).peer_id)
    file.save(allowed)


@dataclass
class RunningNode:
    """A node and those around it."""

    node: Node
    manager: FakeManager
    said: list[str]

    @property
    def ask(self) -> Operations:
        return self.node.operations


@asynccontextmanager
async def running_node(config: Path, *, interval: float | None = None) -> AsyncIterator[RunningNode]:
    """A node from READY to its calm end."""
    running = RunningNode(Node(open_node(config, or_copy=True)), FakeManager(interval), [])
    door = ControlDoor(Place(config.parent / "s", shared=False))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.node.run, door, running.manager, running.said.append)
        with trio.fail_after(10):
            await running.manager.is_ready.wait()
        yield running
        running.node.stop.set()


@dataclass
class RunningRelay:
    """A relay server and those around it."""

    node: RelayNode
    manager: FakeManager
    said: list[str]

    @property
    def address(self) -> str:
        """Its whole multiaddr."""
        return str(self.node.host.listen_addresses()[0].with_peer(self.node.host.peer_id))


@asynccontextmanager
async def running_relay(config: Path, *, interval: float | None = None) -> AsyncIterator[RunningRelay]:
    """A relay from READY to its calm end."""
    running = RunningRelay(RelayNode(open_relay(config, or_copy=True)), FakeManager(interval), [])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.node.run, healthz.serve, running.manager, running.said.append)
        with trio.fail_after(10):
            await running.manager.is_ready.wait()
        yield running
        running.node.stop.set()


@asynccontextmanager
async def echo() -> AsyncIterator[str]:
    """A TCP service that says everything twice; its address."""

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async with stream:
                async for data in stream:
                    await stream.send_all(bytes(data) * 2)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def taken_port() -> AsyncIterator[str]:
    """An address on which somebody else listens."""
    sock = await listen_at(Endpoint("127.0.0.1", 0))
    with sock:
        yield f"127.0.0.1:{sock.getsockname()[1]}"


async def until(what: str, holds: Callable[[], object], seconds: float = 10.0) -> None:
    """Until `holds()`; `what` is for the reader of a failure."""
    with trio.move_on_after(seconds):
        while not holds():  # noqa: ASYNC110 - of any part of a node, and nobody tells
            await trio.sleep(0.02)
        return
    raise AssertionError(f"waited {seconds:g} s for {what}")
