"""One stream between two stock py-libp2p hosts (Noise, yamux), nothing proxied.

stock.py serve SIZE          prints its address; sends SIZE bytes on each stream of /bench/1
stock.py fetch ADDRESS SIZE  prints the seconds that they took
"""

from __future__ import annotations

import sys
import time

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport
from multiaddr import Multiaddr

PROTOCOL = "/bench/1"
CHUNK = bytes(65536)


def host():
    keys = create_new_key_pair()
    return new_host(key_pair=keys, sec_opt={NOISE: Transport(keys, noise_privkey=create_noise_key().private_key)})


async def serve(size: int) -> None:
    made = host()

    async def send(stream) -> None:
        for _ in range(size // len(CHUNK)):
            await stream.write(CHUNK)
        await stream.close()

    made.set_stream_handler(PROTOCOL, send)
    async with made.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        print(made.get_addrs()[0], flush=True)
        await trio.sleep_forever()


async def fetch(address: str, size: int) -> None:
    made = host()
    async with made.run(listen_addrs=[]):
        info = info_from_p2p_addr(Multiaddr(address))
        await made.connect(info)
        stream = await made.new_stream(info.peer_id, [PROTOCOL])
        began = time.perf_counter()
        got = 0
        while got < size:
            data = await stream.read(1 << 20)
            if not data:
                break
            got += len(data)
        print(time.perf_counter() - began if got == size else "cut short", flush=True)


if __name__ == "__main__":
    trio.run(*((serve, int(sys.argv[2])) if sys.argv[1] == "serve" else (fetch, sys.argv[2], int(sys.argv[3]))))
