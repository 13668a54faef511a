"""A test peer on our own host, in the shape of the foreign ones: for what no command of the daemon shows.

ours.py --listen MA --allow ID,ID
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import trio

from peerupd.model.addresses import Multiaddr
from peerupd.model.names import PeerId
from peerupd.p2p import ping
from peerupd.p2p.connection import Connection
from peerupd.p2p.delimited import receive_message, send_message
from peerupd.p2p.host import Host
from peerupd.p2p.streams import Stream
from peerupd.trust.authorized_keys import Allowlist
from peerupd.trust.gate import Gate
from peerupd.trust.identity import Identity
from peerupd.wire.circuit import HOP_PROTOCOL, MAX_MESSAGE, HopKind, HopMessage, Status, Voucher
from peerupd.wire.noise import PROTOCOL as NOISE
from peerupd.wire.yamux import PROTOCOL as YAMUX

ANSWER_LIMIT = 110.0  # seconds
TALK = 512  # bytes of one half of a talk with echo
SERVICES = ("echo", "source", "sink")  # only echo works: the others are there to be told of


def named(service: str) -> str:
    """The protocol of a test service."""
    return f"/peerup/{service}/1.0.0"


async def echo(stream: Stream) -> None:
    """Send back what comes."""
    while data := await stream.receive_some():
        await stream.send_all(data)


class Peer:
    """The host, and what it can be asked."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def answer(self, do: str, **words: Any) -> dict[str, Any]:
        """The method of that name."""
        found: dict[str, Any] = await getattr(self, f"do_{do}")(**words)
        return found

    async def do_connect(self, address: str) -> dict[str, Any]:
        """Dial exactly this address."""
        connection = await self._dial(address)
        return {"security": NOISE, "muxer": YAMUX, "limited": False, "address": str(connection.remote)}

    async def _dial(self, address: str) -> Connection:
        at = Multiaddr.parse(address)
        return await self._host.connect(PeerId.parse(address.rpartition("/p2p/")[2]), [at.without_peer()])

    async def do_disconnect(self, peer: str) -> dict[str, Any]:
        """End all connections with the peer."""
        await self._host.close_peer(PeerId.parse(peer))
        return {}

    async def do_serve(self, service: str) -> dict[str, Any]:
        """Serve echo under one more name."""
        self._host.set_stream_handler(named(service), echo)
        return {}

    async def do_learned(self, peer: str, service: str = "") -> dict[str, Any]:
        """What identify has told of the peer; with `service`, once it has told that the peer serves it."""
        who = PeerId.parse(peer)
        while not (told := self._host.protocols_of(who)) or (  # noqa: ASYNC110 - there is no event to wait for
            service and named(service) not in told
        ):
            await trio.sleep(0.02)
        return {
            "agent": self._host.agent_of(who),
            "version": self._host.protocol_version_of(who),
            "protocols": sorted(told),
            "addresses": [str(address) for address in self._host.addresses_of(who)],
            "observed": " ".join(str(address) for address in self._host.observed_addresses()),
        }

    async def do_ping(self, peer: str) -> dict[str, Any]:
        """One round trip."""
        connection = self._host.connections(PeerId.parse(peer))[0]
        return {"milliseconds": round(1000 * await ping.ping(connection), 3)}

    async def do_many(self, peer: str, count: int) -> dict[str, Any]:
        """Talk to echo on so many streams that are all open at once."""
        began, crowd = time.monotonic(), Crowd(self._host, PeerId.parse(peer), count)
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(crowd.talk_twice)
        return {"right": crowd.right, "trouble": crowd.trouble, "seconds": time.monotonic() - began}

    async def do_reserve(self, address: str) -> dict[str, Any]:
        """A reservation, and what its voucher says once its signature was found right."""
        connection = await self._dial(address)
        stream = await connection.open_stream([HOP_PROTOCOL])
        await send_message(stream, HopMessage(HopKind.RESERVE).encode())
        told = HopMessage.decode(await receive_message(stream, MAX_MESSAGE))
        stream.reset()
        if told.status is not Status.OK or told.reservation is None:
            raise ValueError(f"no reservation: {told.status}")
        voucher = Voucher.open(told.reservation.voucher)
        limit = told.limit
        return {
            "relay": str(voucher.relay),
            "peer": str(voucher.peer),
            "life": voucher.expiration - time.time(),
            "data": (limit and limit.data) or 0,
            "seconds": (limit and limit.duration) or 0,
        }


class Crowd:
    """Streams to one peer's echo that wait for one another."""

    def __init__(self, host: Host, peer: PeerId, count: int) -> None:
        self._host, self._peer, self._missing = host, peer, count
        self._everybody = trio.Event()
        self.right, self.trouble = 0, ""

    async def talk_twice(self) -> None:
        """Once when the stream is open, once when all are."""
        try:
            await self._talk_twice()
            self.right += 1
        except Exception as why:
            self.trouble = repr(why)

    async def _talk_twice(self) -> None:
        try:
            stream = await self._host.new_stream(self._peer, [named("echo")])
            await _talk(stream)
        finally:
            self._missing -= 1
            if not self._missing:
                self._everybody.set()
        async with stream:
            await self._everybody.wait()
            await _talk(stream)
            await stream.send_eof()
            if await stream.receive_some():
                raise ValueError("bytes too many")


async def _talk(stream: Stream) -> None:
    sent, came = os.urandom(TALK), b""
    await stream.send_all(sent)
    while len(came) < TALK and (more := await stream.receive_some(TALK - len(came))):
        came += more
    if came != sent:
        raise ValueError("an echo of other bytes")


async def main(words: Sequence[str]) -> None:
    """The peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", default="/ip4/127.0.0.1/tcp/0")
    parser.add_argument("--allow", default="")
    options = parser.parse_args(words)
    identity = Identity.generate()
    allowed = Allowlist.parse("".join(f"{peer}\n" for peer in options.allow.split(",")))
    gate = Gate(enabled=True, allowlist=allowed, role="node", own=identity.peer_id)
    host = Host(identity=identity, gate=gate, agent="peerup/interop")
    for service in SERVICES:
        host.set_stream_handler(named(service), echo)
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run, [Multiaddr.parse(options.listen)])
        addresses = [str(address.with_peer(host.peer_id)) for address in host.listen_addresses()]
        _say({"ready": {"peer_id": str(host.peer_id), "addresses": addresses}})
        read = partial(trio.to_thread.run_sync, sys.stdin.readline, abandon_on_cancel=True)
        while line := await read():
            nursery.start_soon(_answer, Peer(host), json.loads(line))
        nursery.cancel_scope.cancel()


async def _answer(peer: Peer, question: dict[str, Any]) -> None:
    number = question.pop("id")
    try:
        with trio.fail_after(ANSWER_LIMIT):
            _say({"id": number, "said": await peer.answer(**question)})
    except Exception as why:
        _say({"id": number, "raised": f"{type(why).__name__}: {why}"})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
