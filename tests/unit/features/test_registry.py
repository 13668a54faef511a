"""Services: what is offered, to whom, and what happens to streams when that changes."""

import errno
import os
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from peerupd.config.schema import ServiceSettings
from peerupd.features import ends, registry
from peerupd.features.pump import reset_on_error
from peerupd.features.registry import Registry, silence_at
from peerupd.model.addresses import Endpoint
from peerupd.model.counters import PROXY_ACTIVE, PROXY_BYTES, PROXY_CONNECTIONS, PROXY_REFUSED, Counters
from peerupd.model.errors import AlreadyExists, InvalidName, UnknownService
from tests.support.fakes import MemoryHandlers, memory_streams, peer_id

ALICE, EVE = peer_id(1), peer_id(3)
WEB = "/peerup/web/1.0.0"


class Home:
    """A node that offers `web`, an echo at a local port."""

    def __init__(self, nursery, endpoint, **more):
        self.nursery = nursery
        self.handlers = MemoryHandlers()
        self.registry = Registry(self.handlers, now=lambda: 0.0, **more)
        self.web = ServiceSettings("web", True, endpoint)
        self.registry.set({"web": self.web})

    def offer(self, **changes):
        self.registry.set({"web": replace(self.web, **changes)})

    def call(self, peer=ALICE, protocol=WEB):
        near, far = memory_streams(first=peer, protocol=protocol)
        self.nursery.start_soon(self.handlers.run, far)
        return near

    async def echo(self, stream, text=b"hello"):
        with trio.fail_after(30):
            await stream.send_all(text)
            assert await stream.receive_some() == text


async def echo(client):
    end = ends.SocketEnd(client)
    with suppress(trio.BrokenResourceError), reset_on_error(end):
        while data := await end.receive_some():
            await end.send_all(data)
        await end.aclose()


async def serve_echo(sock):
    with sock:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(echo, (await sock.accept())[0])


@pytest.fixture
async def port(nursery):
    sock = await ends.listen(Endpoint("127.0.0.1", 0))
    nursery.start_soon(serve_echo, sock)
    return sock.getsockname()[1]


@pytest.fixture
async def home(nursery, port):
    return Home(nursery, Endpoint("127.0.0.1", port))


async def refused(stream):
    with trio.fail_after(30), pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()


async def test_a_stream_reaches_the_service_and_ends_with_it(home):
    stream = home.call()
    await home.echo(stream)
    await stream.send_eof()
    assert await stream.receive_some() == b""


async def test_a_service_may_be_a_unix_socket(home, tmp_path, nursery):
    endpoint = Endpoint("", 0, str(tmp_path / "web.sock"))
    sock = await ends.listen(endpoint)
    nursery.start_soon(serve_echo, sock)
    home.offer(local_address=endpoint)
    await home.echo(home.call())


async def test_nothing_at_the_address_is_a_reset_and_one_line(home, port, caplog):
    sock = await ends.listen(Endpoint("127.0.0.1", 0))
    address = ends.bound(Endpoint("127.0.0.1", 0), sock)
    sock.close()
    home.offer(local_address=address)
    for _ in range(3):
        await refused(home.call())
    assert [record.peerup["event"] for record in caplog.records] == ["service.refused"]


async def test_those_not_on_the_list_are_reset(home):
    home.offer(allowed_peers=(ALICE,))
    await home.echo(home.call(ALICE))
    await refused(home.call(EVE))


async def test_those_in_the_file_are_served_and_cut_when_they_leave_it(home, nursery, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"{EVE}\n{ALICE}\n")
    keys.chmod(0o600)
    home.offer(authorized_keys_file=keys)
    await nursery.start(home.registry.run)
    alice, eve = home.call(ALICE), home.call(EVE)
    await home.echo(alice)
    await home.echo(eve)
    keys.write_text(f"{ALICE}\n")
    await refused(eve)
    await home.echo(alice)
    await refused(home.call(EVE))


async def test_a_new_list_cuts_whom_it_does_not_hold(home):
    alice, eve = home.call(ALICE), home.call(EVE)
    await home.echo(alice)
    await home.echo(eve)
    home.offer(allowed_peers=(ALICE,))
    await refused(eve)
    await home.echo(alice)


async def test_disabled_takes_no_new_streams_and_keeps_the_running_ones(home):
    stream = home.call()
    await home.echo(stream)
    home.registry.disable("web")
    assert WEB not in home.handlers.handlers
    await home.echo(stream)
    home.registry.enable("web")
    await home.echo(home.call())


async def test_a_stream_that_comes_while_its_service_is_disabled_is_reset(home):
    handler = home.handlers.handlers[WEB]
    home.registry.disable("web")
    near, far = memory_streams(protocol=WEB)
    await handler(far)
    await refused(near)


async def test_removed_ends_its_streams(home):
    stream = home.call()
    await home.echo(stream)
    home.registry.remove("web")
    await refused(stream)
    assert home.handlers.handlers == {}
    assert home.registry.list() == ()


async def test_the_whole_wish_is_made_true(home):
    stream = home.call()
    await home.echo(stream)
    ssh = ServiceSettings("ssh", True, Endpoint("localhost", 22))
    home.registry.set({"ssh": ssh})
    assert list(home.handlers.handlers) == ["/peerup/ssh/1.0.0"]
    await refused(stream)
    home.registry.set({"ssh": ssh, "web": home.web})
    home.registry.set({"ssh": ssh, "web": home.web})
    await home.echo(home.call())


async def test_streams_of_all_services_are_bounded(home, monkeypatch):
    monkeypatch.setattr(registry, "MAX_STREAMS", 1)
    await home.echo(home.call())
    await refused(home.call())


async def test_services_are_added_by_name(home):
    home.registry.add(ServiceSettings("ssh", True, Endpoint("localhost", 22), tags=("a",), allowed_peers=(ALICE,)))
    ssh, web = home.registry.list()
    assert (ssh.name, ssh.protocol, ssh.local_address) == ("ssh", "/peerup/ssh/1.0.0", "localhost:22")
    assert (ssh.enabled, ssh.allowed_peers, ssh.tags, ssh.warning) == (True, (str(ALICE),), ("a",), None)
    assert (web.name, web.allowed_peers, web.tags) == ("web", None, None)


async def test_what_cannot_be_added_or_found_is_told(home):
    with pytest.raises(AlreadyExists):
        home.registry.add(home.web)
    with pytest.raises(InvalidName, match="reserved"):
        home.registry.add(replace(home.web, name="invite"))
    for verb in (home.registry.remove, home.registry.enable, home.registry.disable):
        with pytest.raises(UnknownService, match="service not found: nfs"):
            verb("nfs")


async def test_a_reserved_name_of_an_old_config_is_listed_and_not_served(home):
    home.registry.set({"ping": replace(home.web, name="ping", protocol="/x/1")})
    (ping,) = home.registry.list()
    assert "reserved" in ping.warning
    assert (ping.enabled, ping.protocol) == (False, "/x/1")
    assert home.handlers.handlers == {}


async def test_a_file_may_appear_after_the_service(home, nursery):
    home.offer(authorized_keys_file=Path("/nonexistent"))
    await refused(home.call())


async def test_whether_something_answers_can_be_asked(home):
    assert await silence_at(home.web.local_address) is None
    assert "nothing answers at" in await silence_at(Endpoint("", 0, "/nonexistent"))


async def test_connections_their_bytes_and_refusals_are_counted_by_service(nursery, port):
    home = Home(nursery, Endpoint("127.0.0.1", port), counters=(counters := Counters()))
    stream = home.call()
    await home.echo(stream, b"12345")
    await wait_all_tasks_blocked(0.01)
    home.registry.settle()
    for direction in ("tx", "rx"):
        assert counters.get(PROXY_BYTES, direction=direction, service="web", side="served") == 5
    assert counters.get(PROXY_ACTIVE) == counters.get(PROXY_CONNECTIONS) == 1
    home.offer(allowed_peers=())
    await refused(home.call(EVE))
    assert counters.get(PROXY_REFUSED, reason="access", service="web", side="served") == 1


async def test_a_stream_waits_for_a_place_among_all_local_connections(nursery, port):
    home = Home(nursery, Endpoint("127.0.0.1", port), places=trio.Semaphore(1))
    first = home.call()
    await home.echo(first)
    second = home.call()
    await second.send_all(b"patience")
    await wait_all_tasks_blocked(0.01)
    await first.send_eof()
    with trio.fail_after(60):
        assert await second.receive_some() == b"patience"


async def test_without_a_place_it_is_reset_in_the_end(nursery, port, monkeypatch, caplog):
    monkeypatch.setattr(registry, "PLACE_LIMIT", 0.01)
    home = Home(nursery, Endpoint("127.0.0.1", port), places=trio.Semaphore(0))
    await refused(home.call())
    assert "no descriptor became free" in caplog.text


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_service_is_dialled_again_when_the_process_had_no_descriptor(
    home, monkeypatch, nursery, tmp_path, kind
):
    monkeypatch.setattr(registry, "DIAL_PAUSE", 0.001)
    if kind == "unix":
        endpoint = Endpoint("", 0, str(tmp_path / "web.sock"))
        nursery.start_soon(serve_echo, await ends.listen(endpoint))
        home.offer(local_address=endpoint)
    failures, make = [errno.EMFILE, errno.ENFILE], ends._new

    def new(family):
        if failures:
            code = failures.pop()
            raise OSError(code, os.strerror(code))
        return make(family)

    monkeypatch.setattr(ends, "_new", new)
    await home.echo(home.call())
    assert failures == []


async def test_a_unix_service_with_a_full_queue_is_dialled_again(home, monkeypatch, nursery, tmp_path):
    monkeypatch.setattr(registry, "DIAL_PAUSE", 0.001)
    path, attempts, again, real = str(tmp_path / "web.sock"), [], trio.Event(), registry.dial

    async def dial(endpoint):
        attempts.append(endpoint)
        again.set() if len(attempts) > 1 else None
        return await real(endpoint)

    monkeypatch.setattr(registry, "dial", dial)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(0)
    sock.setblocking(False)
    service = trio.socket.from_stdlib_socket(sock)
    with service, socket.socket(socket.AF_UNIX) as early:
        early.connect(path)
        home.offer(local_address=Endpoint("", 0, path))
        stream = home.call()
        await stream.send_all(b"patience")
        with trio.fail_after(60):
            await again.wait()
        nursery.start_soon(serve_echo, service)
        with trio.fail_after(60):
            assert await stream.receive_some() == b"patience"
        nursery.cancel_scope.cancel()


async def test_a_process_that_gets_no_descriptor_for_long_resets_the_stream(home, monkeypatch, caplog):
    def fail(_family):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(registry, "PLACE_LIMIT", 0.01)
    monkeypatch.setattr(registry, "DIAL_PAUSE", 0.001)
    monkeypatch.setattr(ends, "_new", fail)
    await refused(home.call())
    assert os.strerror(errno.EMFILE) in caplog.text
