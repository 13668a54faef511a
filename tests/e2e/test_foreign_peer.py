"""A stock py-libp2p host and ours: each calls the other; identify, ping, a service stream, both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import ProtocolUnsupported
from peerupd.model.names import PeerId
from peerupd.p2p.host import Host
from peerupd.wire.identify import PROTOCOL
from tests.support.foreign_peer import ECHO, ForeignPeer
from tests.support.hosts import allow, make_host, running, until

SIZE = 3_000_000  # bytes: many windows


@asynccontextmanager
async def both() -> AsyncIterator[tuple[Host, ForeignPeer, PeerId]]:
    ours = make_host()
    async with ForeignPeer.started() as foreign, running(ours):
        peer = PeerId.parse(foreign.peer)
        ours.gate.replace(allow(peer))
        yield ours, foreign, peer


async def we_call(ours: Host, foreign: ForeignPeer, peer: PeerId) -> None:
    with trio.fail_after(10):
        connection = await ours.connect(peer, [Multiaddr.parse(foreign.address)])
        await connection.identified.wait()


async def it_calls(ours: Host, foreign: ForeignPeer, peer: PeerId) -> None:
    await foreign.ask("connect", address=str(ours.listen_addresses()[0].with_peer(ours.peer_id)))
    await until(lambda: ours.connections(peer), 10)
    with trio.fail_after(10):
        await ours.connections(peer)[0].identified.wait()


@pytest.mark.slow
@pytest.mark.parametrize("calls", [we_call, it_calls], ids=["we_call", "it_calls"])
async def test_identify_ping_and_services_in_both_directions(calls: object) -> None:
    async with both() as (ours, foreign, peer):
        await calls(ours, foreign, peer)
        with trio.fail_after(30):
            assert PROTOCOL in ours.protocols_of(peer)
            assert Multiaddr.parse(foreign.address).without_peer() in ours.addresses_of(peer)
            known = await foreign.ask("known", peer=str(ours.peer_id))
            assert ECHO in known["protocols"]
            assert [rtt for rtt in await ours.ping(peer) if rtt > 0]
            assert await foreign.ask("ping", peer=str(ours.peer_id)) >= 0
            assert await foreign.ask("echo", peer=str(ours.peer_id), size=SIZE)
            assert await echoed_by(ours, peer)


@pytest.mark.slow
async def test_neither_side_speaks_what_it_does_not_know() -> None:
    async with both() as (ours, foreign, peer):
        await we_call(ours, foreign, peer)
        with trio.fail_after(15):
            with pytest.raises(ProtocolUnsupported):
                await ours.new_stream(peer, ["/test/unknown/1.0.0"])
            with pytest.raises(RuntimeError, match=r"fail|not supported|unable"):
                await foreign.ask("echo", peer=str(ours.peer_id), size=1, protocol="/test/unknown/1.0.0")


@pytest.mark.slow
async def test_a_foreign_peer_that_is_not_authorised_gets_nothing() -> None:
    async with both() as (ours, foreign, peer):
        ours.gate.replace(allow())
        with pytest.raises(RuntimeError):
            await it_calls(ours, foreign, peer)
        assert ours.connections(peer) == []


async def echoed_by(ours: Host, peer: PeerId) -> bool:
    stream = await ours.new_stream(peer, [ECHO])
    sent, came = bytes(range(256)) * (SIZE // 256), bytearray()

    async def send() -> None:
        await stream.send_all(sent)
        await stream.send_eof()

    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while more := await stream.receive_some():
            came += more
    return bytes(came) == sent
