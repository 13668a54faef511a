"""A test peer on stock py-libp2p that does what it is asked, as `peer-go peer` does.

Questions are JSON lines on stdin, answers JSON lines on stdout, the first of them `ready`. It ends with its stdin.

    peer.py --listen MA [--security tls,noise] [--limit-data BYTES --limit-seconds SECONDS]

Nothing in the library is replaced. What it cannot tell is looked up in its own objects: see `_end_of`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.identify import parse_identify_response
from libp2p.identity.identify_push.identify_push import push_identify_to_peers
from libp2p.network.stream.exceptions import StreamEOF, StreamError, StreamReset
from libp2p.peer.envelope import consume_envelope, unmarshal_envelope
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.relay.circuit_v2.config import RelayConfig, RelayRole
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Voucher
from libp2p.relay.circuit_v2.protocol import PROTOCOL_ID as HOP
from libp2p.relay.circuit_v2.protocol import CircuitV2Protocol
from libp2p.relay.circuit_v2.resources import RELAY_RSVP_DOMAIN, RelayLimits
from libp2p.relay.circuit_v2.transport import CircuitV2Transport
from libp2p.relay.circuit_v2.utils import read_delimited_msg, write_delimited_msg
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from libp2p.security.tls.transport import TLSTransport
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils.varint import read_length_prefixed_protobuf
from multiaddr import Multiaddr

ANSWER_LIMIT = 110.0  # seconds
CHUNK = 64 * 1024  # bytes
PAUSE_AT = 1 << 20  # bytes that a slow reader takes before it pauses
TALK = 512  # bytes of one half of a talk with echo
PLENTY = 10_000  # of what a test must not run into by chance
NO_LIMIT = 1 << 40  # bytes

ends: list[str] = []


def named(service: str) -> TProtocol:
    """The protocol of a test service."""
    return TProtocol(f"/peerup/{service}/1.0.0")


# -- streams -------------------------------------------------------------------------------------------------------


class Reader:
    """A stream read in order."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._kept = stream, b""

    async def read(self, most: int = CHUNK) -> bytes:
        """The next bytes, at most so many; nothing at the clean end."""
        if not self._kept:
            try:
                self._kept = await self._stream.read(CHUNK)
            except StreamEOF:
                return b""
        taken, self._kept = self._kept[:most], self._kept[most:]
        return taken

    async def exactly(self, size: int) -> bytes:
        """So many bytes, or as many as came before the clean end."""
        parts = b""
        while len(parts) < size and (data := await self.read(size - len(parts))):
            parts += data
        return parts

    async def line(self) -> str:
        """To the next end of a line."""
        line = b""
        while not line.endswith(b"\n"):
            if not (more := await self.read(1)):
                raise EOFError("the line did not end")
            line += more
        return line.decode()

    async def all(self, part: Callable[[bytes], object]) -> None:
        """Everything to the clean end."""
        while data := await self.read():
            part(data)


def _end_of(stream: Any, error: Exception | None = None) -> str:
    """`eof`, `reset`, `lost` or the words of another trouble.

    A reset is often an end of file to this library: the flag of its yamux says better.
    """
    if isinstance(error, StreamReset) or getattr(stream.muxed_stream, "reset_received", False):
        return "reset"
    if type(error) is StreamError:
        return "lost"
    return "eof" if error is None else f"{type(error).__name__}: {error}"


async def _send_content(stream: Any, size: int) -> bytes:
    """Random bytes; their SHA-256."""
    digest = hashlib.sha256()
    for start in range(0, size, CHUNK):
        block = os.urandom(min(CHUNK, size - start))
        digest.update(block)
        await stream.write(block)
    return digest.digest()


# -- services (see go/services.go) ---------------------------------------------------------------------------------


async def echo(stream: Any, reader: Reader) -> None:
    """Send back what comes."""
    while data := await reader.read():
        await stream.write(data)


async def source(stream: Any, reader: Reader) -> None:
    """As many bytes as the line says, then their digest."""
    await stream.write(await _send_content(stream, int(await reader.line())))


async def sink(stream: Any, reader: Reader) -> None:
    """Take everything, answer with the digest."""
    digest = hashlib.sha256()
    await reader.all(digest.update)
    await stream.write(digest.hexdigest().encode())


async def lazy(stream: Any, reader: Reader) -> None:
    """As `sink`, after a pause."""
    await trio.sleep(float(await reader.line()))
    await sink(stream, reader)


async def early(stream: Any, reader: Reader) -> None:
    """End first, then listen on."""
    await stream.write(b"early\n")
    await stream.close_write()
    await _note_end(stream, reader)


async def watch(stream: Any, reader: Reader) -> None:
    """Note how the stream ends."""
    await stream.write(b"watching\n")
    await _note_end(stream, reader)


async def cutter(stream: Any, reader: Reader) -> None:
    """Half an answer, then a reset."""
    await reader.line()
    await stream.write(b"half of an ans")
    await stream.reset()


async def _note_end(stream: Any, reader: Reader) -> None:
    size = await _until_end(stream, reader)
    ends.append(f"{size['end']} {size['got']}")


async def _until_end(stream: Any, reader: Reader) -> dict[str, Any]:
    got, began, error = 0, time.monotonic(), None
    try:
        while data := await reader.read():
            got += len(data)
    except Exception as why:
        error = why
    return {"end": _end_of(stream, error), "got": got, "seconds": time.monotonic() - began}


SERVICES = {service.__name__: service for service in (echo, source, sink, lazy, early, watch, cutter)}


def _handler(serve: Callable[[Any, Reader], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    async def handle(stream: Any) -> None:
        try:
            await serve(stream, Reader(stream))
            if serve is not cutter:
                await stream.close_write()
        except Exception:  # an exception in a handler would end this library's host
            await stream.reset()

    return handle


# -- clients -------------------------------------------------------------------------------------------------------


async def download(stream: Any, reader: Reader, size: int, pause: float = 0.0) -> dict[str, Any]:
    """So many bytes from a source; with `pause`, after the first megabyte nothing is read for so long."""
    await stream.write(f"{size}\n".encode())
    digest, got, error, told = hashlib.sha256(), 0, None, b""
    try:
        while got < size and (data := await reader.read(size - got)):
            if got < PAUSE_AT <= got + len(data):
                await trio.sleep(pause)
            digest.update(data)
            got += len(data)
        told = await reader.exactly(33)
    except Exception as why:
        error = why
    return {"end": _end_of(stream, error), "got": got, "right": told == digest.digest()}


async def upload(stream: Any, reader: Reader, size: int, pause: float = 0.0) -> dict[str, Any]:
    """So many bytes to a sink; with `pause`, to one that first pauses for so long."""
    if pause:
        await stream.write(f"{pause}\n".encode())
    told, error, digest = bytearray(), None, b""
    try:
        digest = await _send_content(stream, size)
        await stream.close_write()
        await reader.all(told.extend)
    except Exception as why:
        error = why
    return {"end": _end_of(stream, error), "right": bool(digest) and told.decode() == digest.hex()}


async def half_close(stream: Any, reader: Reader) -> dict[str, Any]:
    """Hear the acceptor's early end, and speak after it."""
    heard = bytearray()
    await reader.all(heard.extend)
    await stream.write(b"late words")
    await stream.close_write()
    return {"heard": heard.decode()}


async def cut(stream: Any, reader: Reader) -> dict[str, Any]:
    """Reset a stream that the other side reads."""
    await reader.line()
    await stream.write(bytes(1000))
    await stream.reset()
    return {}


async def be_cut(stream: Any, reader: Reader) -> dict[str, Any]:
    """See how a stream ends that the other side resets."""
    await stream.write(b"cut\n")
    return await _until_end(stream, reader)


async def linger(stream: Any, reader: Reader) -> dict[str, Any]:
    """Talk once, then wait for the end."""
    await _talk(stream, reader)
    return await _until_end(stream, reader)


async def _talk(stream: Any, reader: Reader) -> None:
    sent = os.urandom(TALK)
    await stream.write(sent)
    if await reader.exactly(TALK) != sent:
        raise ValueError("an echo of other bytes")


CLIENTS = {
    "download": ("source", download),
    "upload": ("sink", upload),
    "upload slowly": ("lazy", upload),
    "half-close": ("early", half_close),
    "cut": ("watch", cut),
    "be cut": ("cutter", be_cut),
    "linger": ("echo", linger),
}


# -- questions -----------------------------------------------------------------------------------------------------


class Peer:
    """The host, and what it can be asked."""

    def __init__(self, host: Any, circuits: CircuitV2Transport) -> None:
        self._host, self._circuits = host, circuits

    async def answer(self, do: str, **words: Any) -> dict[str, Any]:
        """The method of that name, or else the client of one stream."""
        if do in CLIENTS:
            return await self._be_client(*CLIENTS[do], **words)
        return await getattr(self, f"do_{do}")(**words)

    async def _be_client(self, service: str, client: Any, peer: str, **words: Any) -> dict[str, Any]:
        stream, began = await self._open(peer, named(service)), time.monotonic()
        found = await client(stream, Reader(stream), **words)
        return {"seconds": time.monotonic() - began} | found

    async def _open(self, peer: str, protocol: str) -> Any:
        return await self._host.new_stream(ID.from_string(peer), [TProtocol(protocol)])

    async def do_connect(self, address: str) -> dict[str, Any]:
        """Dial exactly this address, whatever else is known of the peer."""
        at, peer = Multiaddr(address), info_from_p2p_addr(Multiaddr(address))
        self._host.get_peerstore().clear_addrs(peer.peer_id)
        if "/p2p-circuit" in address:
            await self._circuits.dial(at)
        else:
            await self._host.connect(peer)
        return {"limited": "/p2p-circuit" in address, "address": address}

    async def do_disconnect(self, peer: str) -> dict[str, Any]:
        """End all connections with the peer."""
        await self._host.get_network().close_peer(ID.from_string(peer))
        return {}

    async def do_learned(self, peer: str, service: str = "") -> dict[str, Any]:
        """What identify tells, asked anew; with `service`, once the peer has pushed that it serves it."""
        store, who = self._host.get_peerstore(), ID.from_string(peer)
        while service and not store.supports_protocols(who, [named(service)]):  # noqa: ASYNC110 - there is no event
            await trio.sleep(0.02)
        stream = await self._open(peer, IDENTIFY)
        told = parse_identify_response(await read_length_prefixed_protobuf(stream, use_varint_format=True))
        _, record = consume_envelope(told.signedPeerRecord, "libp2p-peer-record")
        return {
            "agent": told.agent_version,
            "version": told.protocol_version,
            "protocols": list(told.protocols),
            "addresses": [str(Multiaddr(address)) for address in told.listen_addrs],
            "observed": str(Multiaddr(told.observed_addr)),
            "signed": [str(address) for address in record.addrs],
        }

    async def do_ping(self, peer: str) -> dict[str, Any]:
        """One round trip."""
        return {"milliseconds": (await PingService(self._host).ping(ID.from_string(peer), 1))[0]}

    async def do_many(self, peer: str, count: int) -> dict[str, Any]:
        """Talk to echo on so many streams that are all open at once."""
        troubles: dict[str, int] = defaultdict(int)
        talking, everybody = 0, trio.Event()

        async def arrive() -> None:
            nonlocal talking
            talking += 1
            if talking == count:
                everybody.set()

        async def talk_twice() -> None:
            try:
                try:
                    stream = await self._open(peer, named("echo"))
                    reader = Reader(stream)
                    await _talk(stream, reader)
                finally:
                    await arrive()
                await everybody.wait()
                await _talk(stream, reader)
                await stream.close_write()
                if await reader.read():
                    raise ValueError("bytes too many")
            except Exception as why:
                troubles[f"{type(why).__name__}: {why}"] += 1

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(talk_twice)
        return {"right": count - sum(troubles.values()), "trouble": "; ".join(troubles)}

    async def do_serve(self, service: str) -> dict[str, Any]:
        """Serve echo under one more name, and push it: this library does not by itself."""
        self._host.set_stream_handler(named(service), _handler(echo))
        await push_identify_to_peers(self._host)
        return {}

    async def do_ends(self) -> dict[str, Any]:
        """How streams ended for the services."""
        taken, ends[:] = list(ends), []
        return {"ends": taken}

    async def do_reserve(self, address: str) -> dict[str, Any]:
        """A reservation; the library takes any voucher, so it is opened here, with the library."""
        at = info_from_p2p_addr(Multiaddr(address))
        await self._host.connect(at)
        stream = await self._open(str(at.peer_id), HOP)
        await write_delimited_msg(stream, HopMessage(type=HopMessage.RESERVE))
        told = await read_delimited_msg(stream, HopMessage)
        await stream.reset()
        envelope = unmarshal_envelope(told.reservation.voucher)
        envelope.validate(RELAY_RSVP_DOMAIN)
        voucher = Voucher()
        voucher.ParseFromString(envelope.raw_payload)
        return {
            "relay": str(ID(voucher.relay)),
            "peer": str(ID(voucher.peer)),
            "life": voucher.expiration - time.time(),
            "data": told.limit.data,
            "seconds": told.limit.duration,
            "address": f"{address}/p2p-circuit/p2p/{self._host.get_id()}",
        }


# -- the process ---------------------------------------------------------------------------------------------------


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", default="")
    parser.add_argument("--security", default="tls,noise")
    parser.add_argument("--limit-data", type=int, default=0)
    parser.add_argument("--limit-seconds", type=float, default=0)
    return parser.parse_args()


def _host(options: argparse.Namespace) -> Any:
    pair = create_new_key_pair()
    known = {
        "noise": (NOISE, Noise(pair, noise_privkey=create_noise_key_pair().private_key)),
        "tls": (TLS, TLSTransport(pair)),
    }
    return new_host(key_pair=pair, sec_opt=dict(known[name] for name in options.security.split(",")))


@asynccontextmanager
async def _circuits(host: Any, options: argparse.Namespace) -> AsyncIterator[CircuitV2Transport]:
    limits = RelayLimits(
        duration=int(options.limit_seconds) or 3600,
        data=options.limit_data or NO_LIMIT,
        max_circuit_conns=PLENTY,
        max_reservations=PLENTY,
    )
    protocol = CircuitV2Protocol(host, limits, allow_hop=bool(options.listen))
    roles = RelayRole.STOP | RelayRole.CLIENT | (RelayRole.HOP if options.listen else RelayRole(0))
    async with background_trio_service(protocol):
        await protocol.event_started.wait()
        yield CircuitV2Transport(host, protocol, RelayConfig(roles=roles, limits=limits))


async def main() -> None:
    """The peer."""
    options = _options()
    host = _host(options)
    listen = [Multiaddr(options.listen)] if options.listen else []
    async with host.run(listen_addrs=listen), _circuits(host, options) as circuits, trio.open_nursery() as nursery:
        for service, serve in SERVICES.items():
            host.set_stream_handler(named(service), _handler(serve))
        _say({"ready": {"peer_id": str(host.get_id()), "addresses": [str(address) for address in host.get_addrs()]}})
        peer = Peer(host, circuits)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            nursery.start_soon(_answer, peer, json.loads(line))
        os._exit(0)  # this library's ways of ending take their time


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
    trio.run(main)
