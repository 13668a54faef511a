"""Proxies: local connections in, streams out; what fails is a reset, and what may pass is tried again."""

import errno
import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from peerupd.features import ends, proxy
from peerupd.features.lanes import CROWDED_STREAMS
from peerupd.features.proxy import Proxies
from peerupd.model.addresses import Endpoint
from peerupd.model.counters import PROXY_ACTIVE, PROXY_BYTES, PROXY_CONNECTIONS, PROXY_REFUSED, Counters
from peerupd.model.errors import (
    AddressInUse,
    ConnectionLost,
    GateRefused,
    InvalidAddress,
    InvalidName,
    LimitReached,
    ProtocolUnsupported,
    StreamReset,
    TimedOut,
    UnknownProxy,
    Unreachable,
)
from peerupd.model.snapshots import Connect, PathWish
from tests.support.fakes import MemoryNetwork, memory_streams

WEB = "/peerup/web/1.0.0"


class Laptop:
    """A node with proxies, and a home that echoes on `web`."""

    def __init__(self, nursery):
        self.network = MemoryNetwork(nursery)
        self.home = self.network.host(2)
        self.home.set_stream_handler(WEB, self._echo)
        self.crowded = False
        self.host = self.network.host(1)
        self.proxies = Proxies(self._open, crowded=lambda peer: self.crowded)
        self.failures = []
        self.attempts = []
        self.streams = 0

    async def _open(self, peer, protocols, /, *, wish=PathWish.ANY):
        self.attempts.append(trio.current_time())
        if self.failures:
            raise self.failures.pop(0)
        return await self.host.new_stream(peer, protocols, wish=wish)

    async def _echo(self, stream):
        self.streams += 1
        try:
            while data := await stream.receive_some():
                await stream.send_all(data)
            await stream.send_eof()
        except trio.BrokenResourceError:
            stream.reset()
        finally:
            self.streams -= 1

    async def proxy(self, listen="127.0.0.1:0", **more):
        return await self.proxies.open(self.home.peer, Connect("home", "web", listen, **more))

    async def connection(self, status):
        return await ends.dial(Endpoint.parse(status.listen_address))


@pytest.fixture
async def laptop(nursery):
    made = Laptop(nursery)
    await nursery.start(made.proxies.run)
    yield made
    nursery.cancel_scope.cancel()


async def echo(stream, text=b"hello"):
    with trio.fail_after(60):
        await stream.send_all(text)
        assert await stream.receive_some() == text


async def is_reset(stream):
    with trio.fail_after(600), pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    stream.reset()


async def test_a_connection_is_carried_to_the_service_with_its_ends(laptop):
    near = await laptop.connection(await laptop.proxy())
    await echo(near)
    await near.send_eof()
    assert await near.receive_some() == b""
    await near.aclose()


async def test_a_proxy_may_be_a_unix_socket(laptop, tmp_path):
    status = await laptop.proxy(f"unix:{tmp_path}/p.sock")
    assert status.listen_address == f"unix:{tmp_path}/p.sock"
    near = await laptop.connection(status)
    await echo(near)
    laptop.proxies.close(status.id)
    await wait_all_tasks_blocked()
    assert list(tmp_path.iterdir()) == []
    near.reset()


async def test_proxies_are_listed_with_their_connections(laptop):
    first = await laptop.proxy(path=PathWish.DIRECT, persist=True)
    near = await laptop.connection(first)
    await echo(near)
    (listed,) = laptop.proxies.list()
    assert (listed.id, listed.peer, listed.service, listed.path) == ("proxy-1", "home", "web", "direct")
    assert (listed.persist, listed.connections, listed.warning) == (True, 1, None)
    assert laptop.host.opened == [(laptop.home.peer, PathWish.DIRECT)]
    near.reset()
    await wait_all_tasks_blocked(0.01)
    assert laptop.proxies.list()[0].connections == 0


async def test_numbers_are_never_used_again(laptop):
    assert (await laptop.proxy()).id == "proxy-1"
    laptop.proxies.close("proxy-1")
    assert (await laptop.proxy()).id == "proxy-2"
    with pytest.raises(UnknownProxy, match="proxy not found: proxy-1"):
        laptop.proxies.close("proxy-1")


async def test_listening_for_other_machines_is_warned_of(laptop):
    status = await laptop.proxy("0.0.0.0:0")
    assert "other machines" in status.warning


async def test_closing_a_proxy_resets_its_connections_and_frees_its_port(laptop):
    status = await laptop.proxy()
    near = await laptop.connection(status)
    await echo(near)
    laptop.proxies.close(status.id)
    await is_reset(near)
    await wait_all_tasks_blocked()
    assert laptop.streams == 0
    again = await laptop.proxy(status.listen_address)
    assert again.listen_address == status.listen_address


async def test_a_taken_address_is_named(laptop):
    status = await laptop.proxy()
    with pytest.raises(AddressInUse, match=status.listen_address):
        await laptop.proxy(status.listen_address)
    assert len(laptop.proxies.list()) == 1


async def test_bad_names_and_addresses_are_refused_at_the_door(laptop, monkeypatch):
    with pytest.raises(InvalidName):
        await laptop.proxies.open(laptop.home.peer, Connect("home", "No such", "127.0.0.1:0"))
    with pytest.raises(InvalidAddress):
        await laptop.proxy("nowhere")
    monkeypatch.setattr(proxy, "MAX_PROXIES", 0)
    with pytest.raises(LimitReached):
        await laptop.proxy()


async def test_trouble_that_may_pass_is_tried_again_after_1_2_and_4_seconds(laptop, autojump_clock):
    laptop.failures = [Unreachable("no path"), ConnectionLost("gone"), TimedOut("slow")]
    near, far = memory_streams()
    with trio.move_on_after(60):
        await laptop.proxies.pipe(laptop.home.peer, "web", near)
    start = laptop.attempts[0]
    assert [at - start for at in laptop.attempts] == [0, 1, 3, 7]
    far.reset()


async def test_after_four_attempts_the_connection_is_reset(laptop, caplog):
    laptop.failures = [Unreachable("no path")] * 4
    proxy.PAUSES, before = (0.0, 0.0, 0.0), proxy.PAUSES
    try:
        near = await laptop.connection(await laptop.proxy())
        await is_reset(near)
    finally:
        proxy.PAUSES = before
    assert len(laptop.attempts) == 4
    assert [record.peerup["event"] for record in caplog.records] == ["proxy.stream_failed"]


@pytest.mark.parametrize("why", [ProtocolUnsupported("no such service"), GateRefused("no"), StreamReset("shut out")])
async def test_what_will_not_pass_is_not_tried_again(laptop, why):
    laptop.failures = [why]
    near = await laptop.connection(await laptop.proxy())
    await is_reset(near)
    assert len(laptop.attempts) == 1


async def test_an_attempt_has_30_seconds(laptop, autojump_clock):
    async def never(peer, protocols, /, *, wish=PathWish.ANY):
        laptop.attempts.append(trio.current_time())
        await trio.sleep_forever()

    proxies = Proxies(never, crowded=lambda peer: False)
    near, _far = memory_streams()
    with pytest.raises(TimedOut, match="longer than 30 s"):
        await proxies.pipe(laptop.home.peer, "web", near)
    start = laptop.attempts[0]
    assert [at - start for at in laptop.attempts] == [0, 31, 63, 97]
    assert near.was_reset


async def test_a_pipe_carries_one_stream_and_says_how_it_ended(laptop, nursery):
    near, far = memory_streams()
    transfers = []

    async def pipe():
        transfers.append(await laptop.proxies.pipe(laptop.home.peer, "web", near, wish=PathWish.RELAY))

    nursery.start_soon(pipe)
    await echo(far)
    await far.send_eof()
    assert await far.receive_some() == b""
    await wait_all_tasks_blocked()
    assert (transfers[0].sent, transfers[0].received, transfers[0].cut) == (5, 5, "")
    with pytest.raises(InvalidName):
        await laptop.proxies.pipe(laptop.home.peer, "No such", near)


async def test_a_pipe_that_is_torn_raises(laptop):
    async def torn(stream):
        stream.reset()

    laptop.home.set_stream_handler("/peerup/torn/1.0.0", torn)
    near, _far = memory_streams()
    with pytest.raises(StreamReset, match=r"the stream to torn of .* was cut"):
        await laptop.proxies.pipe(laptop.home.peer, "torn", near)
    assert near.was_reset


async def test_five_hundred_connections_at_once(laptop, nursery):
    status = await laptop.proxy()
    done = []

    async def one(number):
        near = await laptop.connection(status)
        await echo(near, b"%d" % number * 100)
        done.append(near)

    with trio.fail_after(60):
        async with trio.open_nursery() as clients:
            for number in range(500):
                clients.start_soon(one, number)
    assert laptop.streams == laptop.proxies.list()[0].connections == 500
    for near in done:
        near.reset()


async def test_towards_crowded_peers_the_rest_waits(laptop, nursery):
    laptop.crowded = True
    status = await laptop.proxy()
    clients = [await laptop.connection(status) for _ in range(CROWDED_STREAMS + 5)]
    for client in clients[:CROWDED_STREAMS]:
        await echo(client)
    await wait_all_tasks_blocked(0.01)
    assert laptop.streams == CROWDED_STREAMS
    clients[0].reset()
    await echo(clients[CROWDED_STREAMS])
    laptop.crowded = False
    clients[1].reset()
    for client in clients[CROWDED_STREAMS + 1 :]:
        await echo(client)
    for client in clients:
        client.reset()


async def test_full_house_makes_new_connections_wait(laptop, monkeypatch):
    monkeypatch.setattr(proxy, "MAX_CONNECTIONS", 1)
    status = await laptop.proxy()
    first, second = await laptop.connection(status), await laptop.connection(status)
    await echo(first)
    await second.send_all(b"hello")
    await wait_all_tasks_blocked(0.01)
    assert laptop.streams == 1
    first.reset()
    with trio.fail_after(30):
        assert await second.receive_some() == b"hello"
    second.reset()


async def test_a_full_process_makes_new_connections_of_all_proxies_wait(laptop, nursery):
    proxies = Proxies(laptop._open, crowded=lambda peer: False, places=trio.Semaphore(2))
    await nursery.start(proxies.run)
    doors = [await proxies.open(laptop.home.peer, Connect("home", "web", "127.0.0.1:0")) for _ in range(2)]
    first, second = [await laptop.connection(door) for door in doors]
    await echo(first)
    await echo(second)
    third, fourth = [await laptop.connection(door) for door in doors]
    await third.send_all(b"third")
    await fourth.send_all(b"fourth")
    await wait_all_tasks_blocked(0.01)
    assert laptop.streams == 2
    first.reset()
    second.reset()
    with trio.fail_after(60):
        assert await third.receive_some() == b"third"
        assert await fourth.receive_some() == b"fourth"
    third.reset()
    proxies.close(doors[1].id)
    await is_reset(fourth)


async def test_a_proxy_that_is_closed_while_it_waits_for_a_place_leaves_none_behind(laptop, nursery):
    places = trio.Semaphore(0)
    proxies = Proxies(laptop._open, crowded=lambda peer: False, places=places)
    await nursery.start(proxies.run)
    door = await proxies.open(laptop.home.peer, Connect("home", "web", "127.0.0.1:0"))
    near = await laptop.connection(door)
    await wait_all_tasks_blocked(0.01)
    proxies.close(door.id)
    await is_reset(near)
    assert places.value == 0


async def test_connections_their_bytes_and_failures_are_counted_by_service(laptop, nursery):
    counters = Counters()
    proxies = Proxies(laptop._open, crowded=lambda peer: False, counters=counters)
    await nursery.start(proxies.run)
    near = await laptop.connection(await proxies.open(laptop.home.peer, Connect("home", "web", "127.0.0.1:0")))
    await echo(near, b"12345")
    await wait_all_tasks_blocked(0.01)
    proxies.settle()
    for direction in ("tx", "rx"):
        assert counters.get(PROXY_BYTES, direction=direction, service="web", side="used") == 5
    assert counters.get(PROXY_ACTIVE) == counters.get(PROXY_CONNECTIONS) == 1
    laptop.failures = [ProtocolUnsupported("no such service")]
    one, _ = memory_streams()
    with pytest.raises(ProtocolUnsupported):
        await proxies.pipe(laptop.home.peer, "web", one)
    assert counters.get(PROXY_REFUSED, reason=ProtocolUnsupported.code, service="web", side="used") == 1
    near.reset()


class ShortOfDescriptors:
    """A listening socket that fails a few times first."""

    def __init__(self, sock, *errors):
        self.sock = sock
        self.errors = list(errors)

    async def accept(self):
        if self.errors:
            code = self.errors.pop(0)
            raise OSError(code, os.strerror(code))
        return await self.sock.accept()

    def close(self):
        self.sock.close()

    def getsockname(self):
        return self.sock.getsockname()


async def test_accepting_goes_on_after_the_process_ran_out_of_descriptors(laptop, monkeypatch, caplog):
    real = ends.listen

    async def listen(endpoint):
        return ShortOfDescriptors(await real(endpoint), errno.ECONNABORTED, errno.EMFILE, errno.EMFILE)

    monkeypatch.setattr(ends, "listen", listen)
    monkeypatch.setattr(proxy, "ACCEPT_PAUSE", 0.01)
    near = await laptop.connection(await laptop.proxy())
    await echo(near)
    assert [record.peerup["event"] for record in caplog.records] == ["proxy.accept_failed"]
    near.reset()
