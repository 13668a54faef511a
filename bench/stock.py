"""One stream at a time between two stock py-libp2p hosts (Noise, yamux), nothing proxied; a program.

stock.py serve ADDRESS    prints where it is; a stream of /bench/1 begins with a line, `down SIZE` or `up SIZE`
stock.py fetch MULTIADDR  prints `connected`; for each such line on stdin, the seconds that it took
"""

from __future__ import annotations

import sys
import time
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport
from multiaddr import Multiaddr

PROTOCOL = "/bench/1"
CHUNK = bytes(65536)  # the size with which it is fastest


def host() -> Any:
    """A host as its makers have it."""
    keys = create_new_key_pair()
    noise: Any = {NOISE: Transport(keys, noise_privkey=create_noise_key().private_key)}
    return new_host(key_pair=keys, sec_opt=noise)


async def serve(address: str) -> None:
    """For ever."""
    made = host()

    async def talk(stream: Any) -> None:
        line = b""
        while not line.endswith(b"\n"):
            line += await stream.read(1)
        way, size = line.split()
        await (give if way == b"down" else take)(stream, int(size))
        if way == b"up":
            await stream.write(b"!")
        await stream.close()

    made.set_stream_handler(PROTOCOL, talk)
    async with made.run(listen_addrs=[Multiaddr(f"/ip4/{address}/tcp/0")]):
        print(made.get_addrs()[0], flush=True)
        await trio.sleep_forever()


async def fetch(address: str) -> None:
    """Do what stdin says."""
    made = host()
    async with made.run(listen_addrs=[]):
        info = info_from_p2p_addr(Multiaddr(address))
        await made.connect(info)
        print("connected", flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            print(await timed(await made.new_stream(info.peer_id, [PROTOCOL]), line), flush=True)


async def timed(stream: Any, line: str) -> float:
    """Seconds of one transfer."""
    way, size = line.split()
    began = time.perf_counter()
    await stream.write(line.encode())
    await (take if way == "down" else give)(stream, int(size))
    if way == "up":
        await stream.read(1)
    seconds = time.perf_counter() - began
    await stream.close()
    return seconds


async def give(stream: Any, size: int) -> None:
    """Send."""
    for _ in range(size // len(CHUNK)):
        await stream.write(CHUNK)


async def take(stream: Any, size: int) -> None:
    """Read."""
    got = 0
    while got < size // len(CHUNK) * len(CHUNK):
        data = await stream.read(1 << 20)
        if not data:
            raise EOFError(f"{got} of {size} bytes came")
        got += len(data)


if __name__ == "__main__":
    trio.run(serve if sys.argv[1] == "serve" else fetch, sys.argv[2])
