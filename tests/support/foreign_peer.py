"""A stock py-libp2p host in a process of its own: TCP, Noise, yamux, identify, ping, an echo service.

Run as a program this file is the foreign peer: commands as JSON lines on stdin, answers as JSON lines on stdout; the
first line tells where it listens. Imported it is the near side, `ForeignPeer`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

ECHO = "/test/echo/1.0.0"
START_LIMIT = 30.0  # seconds; the import alone takes one, on a busy machine several
ANSWER_LIMIT = 15.0  # seconds


class ForeignPeer:
    """The near side."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._pending = b""
        self.address = ""
        self.peer = ""

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncIterator[ForeignPeer]:
        """The process, while the block lasts."""
        command = [sys.executable, "-W", "ignore", __file__]
        async with trio.open_nursery() as nursery:
            start = partial(
                trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, check=False
            )
            peer = cls(await nursery.start(start))
            with trio.fail_after(START_LIMIT):
                hello = json.loads(await peer._line())
            peer.address, peer.peer = hello["address"], hello["peer"]
            yield peer
            nursery.cancel_scope.cancel()

    async def ask(self, question: str, **words: Any) -> Any:
        """What the function of that name says; raises `RuntimeError` with what it raised."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps({"question": question, "words": words}).encode() + b"\n")
        with trio.fail_after(ANSWER_LIMIT):
            answer = json.loads(await self._line())
        if "raised" in answer:
            raise RuntimeError(answer["raised"])
        return answer["said"]

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._pending:
            more = await self._process.stdout.receive_some()
            if not more:
                raise RuntimeError("the foreign peer ended")
            self._pending += more
        line, _, self._pending = self._pending.partition(b"\n")
        return line


# -- the far side --------------------------------------------------------------------------------------------------


async def connect(host: Any, address: str) -> str:
    """Call the peer at this address."""
    from libp2p.peer.peerinfo import info_from_p2p_addr
    from multiaddr import Multiaddr

    await host.connect(info_from_p2p_addr(Multiaddr(address)))
    return "connected"


async def ping(host: Any, peer: str) -> int:
    """The round trip, as py-libp2p's ping service has it."""
    from libp2p.host.ping import PingService
    from libp2p.peer.id import ID

    return (await PingService(host).ping(ID.from_string(peer), 1))[0]


async def echo(host: Any, peer: str, size: int, protocol: str = ECHO) -> bool:
    """Whether `size` bytes sent to the peer's echo came back, with a clean end on both sides."""
    from libp2p.peer.id import ID

    stream = await host.new_stream(ID.from_string(peer), [protocol])
    sent, came = os.urandom(size), bytearray()

    async def send() -> None:
        await stream.write(sent)
        await stream.close_write()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while more := await _read(stream):
            came += more
    return bytes(came) == sent


async def _read(stream: Any) -> bytes:
    from libp2p.network.stream.exceptions import StreamEOF

    try:
        return await stream.read(65536)
    except StreamEOF:
        return b""


async def known(host: Any, peer: str) -> dict[str, Any]:
    """What identify has told of the peer, as soon as it has."""
    from libp2p.peer.id import ID
    from libp2p.peer.peerstore import PeerStoreError

    store, who = host.get_peerstore(), ID.from_string(peer)
    while True:
        try:
            if protocols := list(store.get_protocols(who)):
                return {"addresses": [str(a) for a in store.addrs(who)], "protocols": protocols}
        except PeerStoreError:
            pass
        await trio.sleep(0.05)


async def main() -> None:
    """The foreign peer."""
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
    from libp2p.custom_types import TProtocol
    from libp2p.security.noise.transport import PROTOCOL_ID, Transport
    from multiaddr import Multiaddr

    pair = create_new_key_pair()
    noise = Transport(pair, noise_privkey=create_noise_key_pair().private_key)
    host = new_host(key_pair=pair, sec_opt={PROTOCOL_ID: noise})

    async def serve_echo(stream: Any) -> None:
        while data := await _read(stream):
            await stream.write(data)
        await stream.close_write()

    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        host.set_stream_handler(TProtocol(ECHO), serve_echo)
        _say({"address": str(host.get_addrs()[0]), "peer": str(host.get_id())})
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            await _answer(host, json.loads(line))


async def _answer(host: Any, asked: dict[str, Any]) -> None:
    try:
        with trio.fail_after(10):
            _say({"said": await globals()[asked["question"]](host, **asked["words"])})
    except Exception as why:
        _say({"raised": f"{type(why).__name__}: {why}"})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main)
