"""Small real implementations of what features need of the network: streams in memory, hosts that reach each other.

They keep the promises of the real ones: bounded buffers, half-close, and a reset that is not an end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from peerupd.model.addresses import RelayAddress
from peerupd.model.errors import ProtocolUnsupported, RelayRefused, StreamReset, Unreachable
from peerupd.model.names import PeerId
from peerupd.model.snapshots import PathWish

WINDOW = 256 * 1024  # bytes kept for a reader that is slow


def peer_id(number: int) -> PeerId:
    """A peer ID that is good for nothing else: the multihash of an Ed25519 key of equal bytes."""
    return PeerId.of_public_key(b"\x08\x01\x12\x20" + bytes([number]) * 32)


class MemoryReset(StreamReset, trio.BrokenResourceError):
    """As p2p's: the other side reset the stream."""


@dataclass
class MemoryCarrier:
    relayed: bool = False


class _Way:
    """One direction: bytes under way, and how it ended."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.data = bytearray()
        self.ended = self.reset = self.unread = False
        self.changed = trio.lowlevel.ParkingLot()

    def say(self, **what: bool) -> None:
        self.__dict__.update(what)
        self.changed.unpark_all()


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a stream between two peers."""

    def __init__(self, out: _Way, back: _Way, peer: PeerId, protocol: str, connection: MemoryCarrier) -> None:
        self._out, self._back = out, back
        self.peer, self.protocol, self.connection = peer, protocol, connection
        self._closed = self._finished = self._sending = self._receiving = False
        self.was_reset = False  # by us

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            await self._send(memoryview(data))
        finally:
            self._sending = False

    async def _send(self, rest: memoryview) -> None:
        self._check_open(self._closed or self._finished)
        while rest:
            self._check_open(self._closed)
            if self._out.reset or self._out.unread:
                raise MemoryReset("the other side reset the stream")
            room = self._out.window - len(self._out.data)
            if room <= 0:
                await self._out.changed.park()
                continue
            self._out.data += rest[:room]
            rest = rest[room:]
            self._out.say()

    async def wait_send_all_might_not_block(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            self._check_open(self._closed or self._finished)
            while len(self._out.data) >= self._out.window and not (self._out.reset or self._out.unread):
                await self._out.changed.park()
                self._check_open(self._closed)
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and int(max_bytes) != max_bytes:
            raise TypeError("max_bytes is an integer")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes is at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            return await self._receive(max_bytes or WINDOW)
        finally:
            self._receiving = False

    async def _receive(self, limit: int) -> bytes:
        while True:
            self._check_open(self._closed)
            if self._back.reset:
                raise MemoryReset("the other side reset the stream")
            if self._back.data:
                taken = bytes(self._back.data[:limit])
                del self._back.data[:limit]
                self._back.say()
                return taken
            if self._back.ended:
                return b""
            await self._back.changed.park()

    async def send_eof(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        await trio.lowlevel.checkpoint()
        self._check_open(self._closed)
        self._finished = True
        self._out.say(ended=True)

    async def aclose(self) -> None:
        self._closed = True
        self._out.say(ended=True)
        self._back.say(unread=True)
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        if self._closed:
            return
        self._closed = self.was_reset = True
        self._out.say(reset=True)
        self._back.say(reset=True)

    def _check_open(self, closed: bool) -> None:
        if closed:
            raise trio.ClosedResourceError("this end is closed")


def memory_streams(
    first: PeerId | None = None,
    second: PeerId | None = None,
    *,
    protocol: str = "/test/1.0.0",
    relayed: bool = False,
    window: int = WINDOW,
) -> tuple[MemoryStream, MemoryStream]:
    """The two ends of a stream: the one that `first` holds, and the one that `second` holds."""
    there, back, connection = _Way(window), _Way(window), MemoryCarrier(relayed)
    return (
        MemoryStream(there, back, second or peer_id(2), protocol, connection),
        MemoryStream(back, there, first or peer_id(1), protocol, connection),
    )


Handler = Callable[[MemoryStream], Awaitable[None]]


class MemoryHandlers:
    """Where inbound streams are answered."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}

    def set_stream_handler(self, protocol: str, handler: Handler) -> None:
        assert protocol not in self.handlers
        self.handlers[protocol] = handler

    def remove_stream_handler(self, protocol: str) -> None:
        del self.handlers[protocol]

    async def run(self, stream: MemoryStream) -> None:
        """What a host does with an inbound stream: it is the handler's until that returns, then it is closed."""
        try:
            await self.handlers[stream.protocol](stream)
        except trio.BrokenResourceError:
            stream.reset()
        else:
            await stream.aclose()


class MemoryNetwork:
    """Hosts that reach each other, each by its peer ID; `nursery` runs their handlers."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.hosts: dict[PeerId, MemoryHost] = {}
        self.relayed = False

    def host(self, number: int) -> MemoryHost:
        host = MemoryHost(self, peer_id(number))
        self.hosts[host.peer] = host
        return host


class MemoryHost(MemoryHandlers):
    """One node: `new_stream` is its `OpenStream`."""

    def __init__(self, network: MemoryNetwork, peer: PeerId) -> None:
        super().__init__()
        self.network = network
        self.peer = peer
        self.opened: list[tuple[PeerId, PathWish]] = []

    async def new_stream(
        self, peer: PeerId, protocols: Sequence[str], *, wish: PathWish = PathWish.ANY
    ) -> MemoryStream:
        await trio.lowlevel.checkpoint()
        self.opened.append((peer, wish))
        there = self.network.hosts.get(peer)
        if there is None:
            raise Unreachable(f"no path to {peer.short}")
        protocol = next((each for each in protocols if each in there.handlers), None)
        if protocol is None:
            raise ProtocolUnsupported(f"{peer.short} speaks none of {', '.join(protocols)}")
        near, far = memory_streams(self.peer, peer, protocol=protocol, relayed=self.network.relayed)
        self.network.nursery.start_soon(there.run, far)
        return near


class MemoryBooks:
    """What one node has written down: allowlist, names, relays. `trouble` is raised instead of writing."""

    def __init__(self) -> None:
        self.allowlist: dict[PeerId, str] = {}
        self.known: dict[str, PeerId] = {}
        self.relays: list[RelayAddress] = []
        self.trouble: Exception | None = None
        self.name_trouble: Exception | None = None
        self.slowness = 0.0  # seconds for writing the allowlist

    async def admit(self, peer: PeerId, comment: str, /) -> None:
        await trio.sleep(self.slowness)
        self._check(self.trouble)
        self.allowlist.setdefault(peer, comment)

    def names(self) -> Mapping[str, PeerId]:
        return self.known

    async def put(self, name: str, peer: PeerId, /) -> None:
        await trio.lowlevel.checkpoint()
        self._check(self.name_trouble or self.trouble)
        self.known[name] = peer

    async def add(self, relay: RelayAddress, /) -> None:
        await trio.lowlevel.checkpoint()
        self._check(self.trouble)
        if relay not in self.relays:
            self.relays.append(relay)

    def _check(self, trouble: Exception | None) -> None:
        if trouble is not None:
            raise trouble


class MemoryRelay:
    """A relay's book of open codes and kept peers, as both sides of pairing see it. `trouble` is its answer instead."""

    def __init__(self) -> None:
        self.open_codes: dict[bytes, float] = {}
        self.kept: dict[PeerId, str] = {}
        self.proved = 0
        self.trouble: Exception | None = None
        self.silent = False

    async def open(self, relay: PeerId, key: bytes, seconds: float, /) -> None:
        await self._answer()
        self.open_codes[key] = seconds

    async def close(self, relay: PeerId, key: bytes, /) -> None:
        await self._answer()
        self.open_codes.pop(key, None)

    async def keep(self, relay: PeerId, peer: PeerId, name: str, /) -> None:
        await self._answer()
        self.kept[peer] = name

    async def prove(self, relay: PeerId, key: bytes, /) -> None:
        await self._answer()
        if key not in self.open_codes:
            raise RelayRefused("vouch: no such code")
        self.proved += 1

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.silent:
            await trio.sleep_forever()
        if self.trouble is not None:
            raise self.trouble
