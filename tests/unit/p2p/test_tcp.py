"""A TCP stream: trio's promises, calls that do not wait, broken and closed connections."""

from __future__ import annotations

import socket
import struct

import pytest
import trio
from trio.testing import check_half_closeable_stream

from peerupd.p2p.listener import Listener
from peerupd.p2p.scratch import READ_SIZE
from peerupd.p2p.tcp import TcpStream
from tests.support.hosts import LOOPBACK, until


async def make() -> tuple[TcpStream, TcpStream]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        return TcpStream(one), TcpStream(server.accept()[0])


async def test_it_is_a_half_closeable_stream() -> None:
    with trio.fail_after(10):
        await check_half_closeable_stream(make, None)


async def test_what_is_there_is_had_without_a_task_switch() -> None:
    ours, theirs = await make()
    async with ours, theirs:
        with trio.testing.assert_no_checkpoints():
            await ours.send(b"hello")
        await theirs.wait_send_all_might_not_block()
        await trio.lowlevel.wait_readable(theirs._socket)
        with trio.testing.assert_no_checkpoints():
            assert bytes(await theirs.receive()) == b"hello"


async def test_after_little_nobody_asks_the_kernel_before_there_is_more() -> None:
    ours, theirs = await make()
    async with ours, theirs, trio.open_nursery() as nursery:
        for words in (b"little", b"more"):
            nursery.start_soon(ours.send, words)
            with trio.fail_after(60):
                assert bytes(await theirs.receive()) == words
        nursery.start_soon(ours.send_eof)
        with trio.fail_after(60):
            assert bytes(await theirs.receive()) == b""
            assert bytes(await theirs.receive()) == b""


async def test_more_than_the_kernel_takes_waits_for_room() -> None:
    ours, theirs = await make()
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(ours.send, bytes(20_000_000))
        got = 0
        while got < 20_000_000:
            data = await theirs.receive()
            assert len(data) <= READ_SIZE
            got += len(data)


async def test_addresses_of_both_ends() -> None:
    ours, theirs = await make()
    async with ours, theirs:
        assert ours.local == theirs.remote
        assert ours.remote == theirs.local


async def test_a_connection_that_the_other_side_broke() -> None:
    ours, theirs = await make()
    theirs._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await theirs.aclose()
    async with ours:
        with pytest.raises(trio.BrokenResourceError):
            await ours.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await ours.send_all(b"x")


async def test_closing_wakes_who_waits() -> None:
    ours, theirs = await make()

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive()

    async with theirs, trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await ours.aclose()
        await ours.aclose()


async def test_a_listener_gives_up_no_connection_for_one_that_died_in_the_queue() -> None:
    listener = Listener(LOOPBACK)
    got: list[socket.socket] = []
    with socket.create_connection(("127.0.0.1", listener.address.port or 0)) as dying:
        dying.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with socket.create_connection(("127.0.0.1", listener.address.port or 0)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.serve, lambda sock, _where: got.append(sock))
            await until(lambda: got)
            nursery.cancel_scope.cancel()
    for one in got:
        one.close()
