"""Many peers that hold a slot on a relay and do nothing else; a program.

guests.py RELAY COUNT   prints their peer IDs; after a line on stdin all ask for a slot; prints how many hold one
"""

from __future__ import annotations

import json
import sys

import trio

from peerupd.model.addresses import RelayAddress
from peerupd.model.errors import PeerupError
from peerupd.p2p.circuit import Circuits
from peerupd.p2p.host import Host
from peerupd.trust.authorized_keys import Allowlist
from peerupd.trust.gate import Gate
from peerupd.trust.identity import Identity

AT_ONCE = 8  # handshakes
SECONDS = 120.0


async def main(relay: RelayAddress, count: int) -> None:
    """Until stdin ends."""
    identities = [Identity.generate() for _ in range(count)]
    print(json.dumps([str(identity.peer_id) for identity in identities]), flush=True)
    await trio.to_thread.run_sync(sys.stdin.readline)
    held, places = [0], trio.CapacityLimiter(AT_ONCE)

    async def reserve(identity: Identity) -> None:
        gate = Gate(enabled=False, allowlist=Allowlist.parse(""), role="node", own=identity.peer_id)
        host = Host(identity=identity, gate=gate, agent="bench/0")
        await nursery.start(host.run, [])
        async with places:
            try:
                await Circuits(host).reserve([relay])
            except PeerupError as why:
                print(why, file=sys.stderr)
            else:
                held[0] += 1

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(SECONDS):
            async with trio.open_nursery() as asking:
                for identity in identities:
                    asking.start_soon(reserve, identity)
        print(held[0], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, RelayAddress.parse(sys.argv[1]), int(sys.argv[2]))
