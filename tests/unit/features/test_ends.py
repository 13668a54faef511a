"""Local sockets: what a reset is there, who answers where, and what can be listened on."""

import errno
import os
import socket
import stat
from contextlib import ExitStack

import pytest
import trio

from peerupd.features.ends import PipeEnd, SocketEnd, bound, dial, listen
from peerupd.model.addresses import Endpoint
from peerupd.model.errors import AddressInUse, EnvironmentalError, ServiceDown


@pytest.fixture
def unix(tmp_path):
    return Endpoint("", 0, str(tmp_path / "s.sock"))


@pytest.fixture
async def tcp():
    sock = await listen(Endpoint("127.0.0.1", 0))
    yield sock
    sock.close()


async def accept(sock):
    with trio.fail_after(30):
        return SocketEnd((await sock.accept())[0])


async def connected(sock, endpoint):
    near = await dial(bound(endpoint, sock))
    return near, await accept(sock)


async def test_bytes_and_ends_over_tcp(tcp):
    near, far = await connected(tcp, Endpoint("127.0.0.1", 0))
    await near.send_all(b"hello")
    assert await far.receive_some() == b"hello"
    await near.send_eof()
    assert await far.receive_some() == b""
    await far.send_all(memoryview(b"still"))
    assert await near.receive_some(3) == b"sti"
    await far.aclose()
    assert await near.receive_some() == b"ll"
    assert await near.receive_some() == b""
    await near.aclose()


async def test_a_reset_that_the_writer_heard_is_no_end_for_the_reader(tcp):
    """The kernel tells an error once: to whoever asks first. After that, reading looks like an end."""
    for read in ("fill", "receive_some"):
        near, far = await connected(tcp, Endpoint("127.0.0.1", 0))
        near.reset()
        with pytest.raises(trio.BrokenResourceError):
            far.take((b"x",))
        with pytest.raises(trio.BrokenResourceError):
            far.fill([memoryview(bytearray(10))]) if read == "fill" else await far.receive_some()
        far.reset()


async def test_a_reset_is_an_rst_on_tcp(tcp):
    near, far = await connected(tcp, Endpoint("127.0.0.1", 0))
    near.reset()
    near.reset()
    with pytest.raises(trio.BrokenResourceError, match="Connection reset by peer"):
        await far.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await far.send_all(b"x")
        await far.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await far.send_eof()
    far.reset()


async def test_more_than_the_kernel_holds_arrives_whole(tcp, nursery):
    near, far = await connected(tcp, Endpoint("127.0.0.1", 0))
    data = os.urandom(1 << 20) * 8
    nursery.start_soon(near.send_all, data)
    got = bytearray()
    while len(got) < len(data):
        got += await far.receive_some()
    assert got == data
    near.reset()
    far.reset()


async def test_what_was_read_before_comes_first():
    one, other = trio.socket.socketpair()
    end = SocketEnd(one, b"early")
    await other.send(b"late")
    assert await end.receive_some(2) == b"ea"
    assert await end.receive_some() == b"rly"
    assert await end.receive_some() == b"late"
    end.reset()
    other.close()


async def test_localhost_is_found_on_either_loopback():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        near = await dial(Endpoint("localhost", server.getsockname()[1]))
        near.reset()


async def test_a_unix_socket_can_be_listened_on_and_dialled(unix):
    sock = await listen(unix)
    near, far = await connected(sock, unix)
    await near.send_all(b"x")
    assert await far.receive_some() == b"x"
    assert stat.S_IMODE(os.stat(unix.path).st_mode) == 0o600
    for each in (near, far):
        each.reset()
    sock.close()


async def test_nothing_there_is_told_with_the_address(unix):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ServiceDown, match=f"nothing answers at 127.0.0.1:{port}: Connection refused"):
        await dial(Endpoint("127.0.0.1", port))
    with pytest.raises(ServiceDown, match=r"nothing answers at localhost"):
        await dial(Endpoint("localhost", port))
    with pytest.raises(ServiceDown, match="No such file"):
        await dial(unix)


async def test_dialling_ends_at_its_limit():
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # its queue is full then: the kernel drops what comes
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        with pytest.raises(ServiceDown, match=r"nothing answers at 127\.0\.0\.1:\d+ within 0.01 s"):
            await dial(Endpoint(*server.getsockname()), limit=0.01)


async def test_a_taken_port_is_named(tcp):
    port = tcp.getsockname()[1]
    with pytest.raises(AddressInUse, match=f"cannot listen on localhost:{port}: the address is in use"):
        await listen(Endpoint("localhost", port))


async def test_an_address_that_is_not_ours_is_named():
    with pytest.raises(EnvironmentalError, match=r"cannot listen on 192\.0\.2\.1:0"):
        await listen(Endpoint("192.0.2.1", 0))


async def test_a_unix_socket_in_use_is_not_taken_over(unix):
    sock = await listen(unix)
    with pytest.raises(AddressInUse):
        await listen(unix)
    sock.close()


async def test_a_stale_unix_socket_is_replaced(unix):
    (await listen(unix)).close()
    sock = await listen(unix)
    near, far = await connected(sock, unix)
    for each in (near, far, sock):
        each.close() if each is sock else each.reset()


async def test_a_file_in_the_way_is_left_alone(unix):
    file = trio.Path(unix.path)
    await file.write_text("precious")
    with pytest.raises(AddressInUse):
        await listen(unix)
    assert await file.read_text() == "precious"


async def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(EnvironmentalError, match="No such file"):
        await listen(Endpoint("", 0, str(tmp_path / "no" / "s.sock")))


async def test_standard_streams_are_an_end(nursery):
    (stdin, feed), (drain, stdout) = os.pipe(), os.pipe()
    end = PipeEnd(stdin, stdout)
    os.write(feed, b"typed")
    assert await end.receive_some() == b"typed"

    async def type_later():
        await trio.testing.wait_all_tasks_blocked()
        os.write(feed, b"later")
        os.close(feed)

    nursery.start_soon(type_later)
    assert await end.receive_some() == b"later"
    assert await end.receive_some() == b""

    data = b"z" * (1 << 18)  # more than a pipe holds
    nursery.start_soon(end.send_all, data)
    got = b""
    while len(got) < len(data):
        await trio.testing.wait_all_tasks_blocked()
        got += os.read(drain, 1 << 20)
    await end.send_eof()
    assert os.read(drain, 1) == b""
    with pytest.raises(trio.BrokenResourceError):
        await end.send_all(b"x")
    await end.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await end.receive_some()
    os.close(drain)


async def test_a_reader_of_standard_output_that_left_is_not_an_end():
    (stdin, feed), (drain, stdout) = os.pipe(), os.pipe()
    end = PipeEnd(stdin, stdout)
    os.close(drain)
    with pytest.raises(trio.BrokenResourceError):
        await end.send_all(b"x")
    end.reset()
    os.close(feed)


async def test_a_file_as_standard_input_is_always_readable(tmp_path):
    file = tmp_path / "input"
    file.write_bytes(b"little")
    drain, stdout = os.pipe()
    end = PipeEnd(os.open(file, os.O_RDONLY), stdout)
    room = memoryview(bytearray(100))
    with trio.fail_after(10):
        assert end.fill([room]) == 6
        await end.readable()
        assert end.fill([room]) == 0
    end.reset()
    os.close(drain)


async def test_who_came_and_left_before_it_was_accepted_is_nobody(tcp, monkeypatch):
    accept, tries = socket.socket.accept, []

    def fail_once(self):
        tries.append(self)
        if len(tries) == 1:
            raise BlockingIOError
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", fail_once)
    near, far = await connected(tcp, Endpoint("127.0.0.1", 0))
    assert len(tries) == 2
    near.reset()
    far.reset()


async def test_closing_a_listening_socket_twice_is_fine(tcp):
    tcp.close()
    tcp.close()


async def test_a_scoped_or_named_address_is_left_to_the_resolver(monkeypatch):
    asked = []

    async def open_tcp_stream(host, port):
        asked.append(host)
        raise OSError(errno.ENETUNREACH, "no way")

    monkeypatch.setattr(trio, "open_tcp_stream", open_tcp_stream)
    for host in ("web.example", "fe80::1%lo"):
        with pytest.raises(ServiceDown, match="unreachable"):
            await dial(Endpoint(host, 9))
    assert asked == ["web.example", "fe80::1%lo"]


async def test_a_socket_fills_slots_and_takes_parts_without_waiting(tcp):
    near, far = await connected(tcp, Endpoint("127.0.0.1", 0))
    slots = [memoryview(bytearray(3)), memoryview(bytearray(100))]
    with pytest.raises(BlockingIOError):
        far.fill(slots)
    assert near.take([memoryview(b"hel"), memoryview(b"lo")]) == 5
    await far.readable()
    assert far.fill(slots) == 5
    assert bytes(slots[0]) + bytes(slots[1][:2]) == b"hello"
    assert near.take([memoryview(b"x")] * 5000) == 5000  # more pieces than one call may have
    while near.take([memoryview(bytes(1 << 20))]):
        pass
    near.reset()
    near.reset()
    with pytest.raises(trio.BrokenResourceError):
        while True:
            await far.readable()
            far.fill(slots)
    with pytest.raises(trio.BrokenResourceError):
        far.take([memoryview(b"x")])
        far.take([memoryview(b"x")])
    await far.aclose()


async def test_what_was_read_before_fills_slots_first():
    one, other = trio.socket.socketpair()
    end = SocketEnd(one, b"early")
    slot = [memoryview(bytearray(3))]
    assert end.fill(slot) == 3
    assert bytes(slot[0]) == b"ear"
    assert end.fill(slot) == 2
    with pytest.raises(BlockingIOError):
        end.fill(slot)
    end.reset()
    other.close()


async def test_closing_a_socket_wakes_who_waits_for_it(nursery):
    one, other = trio.socket.socketpair()
    end = SocketEnd(one)

    async def wait():
        with pytest.raises(trio.ClosedResourceError):
            await end.readable()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    end.reset()
    other.close()


async def test_standard_streams_fill_and_take_too():
    (stdin, feed), (drain, stdout) = os.pipe(), os.pipe()
    end = PipeEnd(stdin, stdout)
    slot = [memoryview(bytearray(10))]
    with pytest.raises(BlockingIOError):
        end.fill(slot)
    os.write(feed, b"typed")
    await end.readable()
    assert end.fill(slot) == 5
    await end.writable()
    assert end.take([memoryview(b"ab"), memoryview(b"c")] * 100) == 300
    assert os.read(drain, 1000) == b"abc" * 100
    while end.take([memoryview(bytes(1 << 16))]):
        pass
    os.close(feed)
    assert end.fill(slot) == 0
    end.reset()
    os.close(drain)
    with pytest.raises(trio.BrokenResourceError):
        end.fill(slot)
    with pytest.raises(trio.BrokenResourceError):
        end.take(slot)
