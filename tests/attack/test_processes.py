"""Attacks on running programs: a node's daemon and a relay, each one process with its own log, memory and descriptors.

After every attack the same process still serves an authorised peer, over a connection that stood and over a new one;
its memory has grown by less than `ROOM`, its descriptors are back where they were, and no bug is in its log.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from tempfile import TemporaryDirectory

import pytest

from peerupd.p2p.budget import CONNECTION_BUDGET
from peerupd.p2p.muxer import MAX_INBOUND_STREAMS
from peerupd.trust.identity import Identity
from peerupd.wire import circuit, identify, noise, pairing, vouch
from peerupd.wire.circuit import HopKind, HopMessage, Status, StopKind, StopMessage
from peerupd.wire.framing import frame
from tests.attack import raw
from tests.attack.raw import GIB_VARINT, HEADER, NOT_UTF8, Gone, Muxed, Silent, Tcp, somewhere
from tests.attack.scene import MIB, PING, PINGPONG, ROOM, Scene, Target
from tests.support.cluster import end
from tests.support.pair import TRAFFIC

STREAMS, PER_STREAM = MAX_INBOUND_STREAMS, 16 * 1024  # open at once, of one connection; bytes that each may cost
KERNEL = 16 * MIB  # bytes that both kernels may take before a writer learns that nobody reads
MANY = 300
SERVED = (
    identify.PROTOCOL,
    identify.PUSH_PROTOCOL,
    PING,
    PINGPONG,
    "/peerup/ping/1.0.0",
    "/peerup/echo/1.0.0",
    circuit.HOP_PROTOCOL,
    circuit.STOP_PROTOCOL,
    pairing.PROTOCOL,
    vouch.PROTOCOL,
    "/peerup/kad/1.0.0",
)


# -- 1. a protocol name that is not UTF-8 --------------------------------------------------------------------------


def test_a_name_that_is_not_utf8_before_security(target: Target):
    with target.attacked():
        for _ in range(20):
            with Tcp(target.port, somewhere()) as line:
                line.send(HEADER + NOT_UTF8)
                line.until_closed()


@pytest.mark.parametrize("who", ["a stranger", "the traitor"])
def test_a_name_that_is_not_utf8_inside_noise(target: Target, who: str):
    with target.attacked():
        for _ in range(20):
            identity = target.traitor if who == "the traitor" else Identity.generate()
            secured = raw.secure(Tcp(target.port, somewhere()), identity)
            secured.send(HEADER + NOT_UTF8)
            secured.until_closed()
            secured.close()


def test_a_name_that_is_not_utf8_on_a_stream_ends_the_stream_only(target: Target):
    with target.attacked(), target.call(target.traitor) as muxed:
        for _ in range(20):
            talk = muxed.open()
            talk.send(HEADER + NOT_UTF8)
            assert talk.rest()[1] == "reset"
        assert muxed.open(PING, bytes(32)).chosen()


# -- 2. junk for every handler -------------------------------------------------------------------------------------

FAR = Identity.generate()
JUNK = (
    b"",
    bytes(64),
    b"\xff" * 5000,
    bytes(range(256)) * 256,
    frame(b""),
    frame(b"\xff" * 300),
    GIB_VARINT + bytes(100),
    raw.ENDLESS_VARINT,
    b"ping" * 100,
    b"GET / HTTP/1.1\r\n\r\n",
    frame(identify.Identify("x", "y" * 60_000, FAR.public_key, (), None, (), b"").encode()),
    frame(b"".join(b"\x12\x02\x08\x01" for _ in range(5000))),  # addresses that are none
    frame(b"".join(b"\x1a\x01x" for _ in range(5000))),  # as many protocols
    frame(b"\x0a\x02\xff\xfe\x32\x01\xff\x42\x04junk"),  # key, agent and record that cannot be read
    frame(HopMessage(HopKind.CONNECT, peer=FAR.peer_id).encode()),
    frame(HopMessage(HopKind.STATUS, status=Status.OK).encode()),
    frame(StopMessage(StopKind.CONNECT, peer=FAR.peer_id).encode()) + bytes(512),
    frame(b"\x08\x01\x12\x05\x00\x24\x08\x01\x12"),  # a peer ID cut short
    frame(vouch.Prove(bytes(32)).encode()),
    frame(vouch.Keep(FAR.peer_id, "").encode()),
    frame(vouch.Open(bytes(32), 1).encode()) * 50,
    pairing.Joiner(bytes(8), "x").start() + b"\x00\x28" + bytes(40),
)


def test_junk_ends_one_stream_and_nothing_else(target: Target):
    with target.attacked(), target.call(target.traitor) as muxed:
        for protocol in SERVED:
            for junk in JUNK:
                talk = muxed.open(protocol, junk)
                talk.finish()
                talk.rest()
                muxed.open(protocol, junk).reset()
            assert muxed.open(PING, bytes(32)).chosen(), protocol


def test_junk_for_every_handler_at_once(target: Target):
    with target.attacked(), target.call(target.traitor) as muxed:
        talks = [muxed.open(protocol, junk) for protocol in SERVED for junk in JUNK]
        for talk in talks:
            talk.finish()
        for talk in talks:
            talk.rest()
        assert muxed.open(PING, bytes(32)).chosen()


def test_junk_in_answer_to_identify(target: Target):
    """The host asks us who we are, as it asks everybody."""
    with target.attacked():
        for junk in JUNK:
            with target.call(target.traitor) as muxed:
                told: list[raw.Talk] = []
                muxed.welcome = told.append
                assert muxed.open(PING, bytes(32)).chosen()
                while not told:
                    muxed.pump()
                muxed.yamux.send(told[0].number, HEADER + frame(f"{identify.PROTOCOL}\n".encode()) + junk)
                muxed.yamux.finish(told[0].number)
                muxed.flush()
                assert muxed.open(PING, bytes(32)).chosen()


def test_junk_while_an_invite_is_open(scene: Scene):
    with scene.node.attacked():
        invite = scene.pair.cluster.begin(scene.pair.home, "invite", "--non-interactive")
        assert invite.stdout is not None
        assert invite.stdout.readline().strip()
        with scene.node.call(scene.node.traitor) as muxed:
            for junk in JUNK:
                talk = muxed.open(pairing.PROTOCOL, junk)
                talk.finish()
                talk.rest()
        assert end(invite) != 0


HEAD = struct.Struct(">BBHII")  # version, type, flags, stream, length
LIES = {
    "another version": HEAD.pack(9, 0, 0, 1, 0),
    "an unknown type": HEAD.pack(0, 9, 0, 1, 0),
    "a window beyond 32 bits": HEAD.pack(0, 1, 1, 1, 0) + HEAD.pack(0, 1, 0, 1, 2**32 - 1),
    "a frame of 4 GiB": HEAD.pack(0, 1, 1, 1, 0) + HEAD.pack(0, 0, 0, 1, 2**32 - 1) + bytes(4096),
    "a number of ours": HEAD.pack(0, 1, 1, 2, 0),
    "a stream opened twice": HEAD.pack(0, 1, 1, 1, 0) * 2,
    "data of stream 0": HEAD.pack(0, 0, 0, 0, 16) + bytes(16),
}


def test_a_lie_to_the_multiplexer_ends_one_connection(target: Target):
    with target.attacked(), target.call(target.traitor) as other:
        for lie in LIES.values():
            with target.call(target.traitor) as muxed:
                while not muxed.agreed:
                    muxed.pump()
                muxed.secured.send(lie)
                muxed.secured.until_closed()
        assert other.open(PING, bytes(32)).chosen()


# -- 3. half-open connections ----------------------------------------------------------------------------------------


def test_300_half_open_connections_held(target: Target):
    first = noise.Handshake(initiator=True, identity_key=target.traitor.public_key, sign=target.traitor.sign).start()
    said = (b"", HEADER, HEADER + frame(b"/noise\n") + first, HEADER[:3])
    with target.attacked(), ExitStack() as held:
        for number in range(MANY):
            line = held.enter_context(Tcp(target.port))
            line.send(said[number % len(said)])
        target.assert_serves()


# -- 4. lengths without bounds before anybody is known ---------------------------------------------------------------


LENGTHS = {
    "a header of 1 GiB": GIB_VARINT,
    "a proposal of 1 GiB": HEADER + GIB_VARINT,
    "a length without end": raw.ENDLESS_VARINT,
    "Noise messages of 65535 bytes": HEADER + frame(b"/noise\n") + b"\xff\xff",
}


def test_lengths_without_bounds_are_not_believed(target: Target):
    with target.attacked():
        for said in LENGTHS.values():
            with Tcp(target.port, somewhere()) as line:
                line.send(said)
                assert line.fill(b"\xff" * 65536, 64 * MIB) < KERNEL
                line.until_closed()


def test_proposals_without_end_are_not_listened_to(target: Target):
    with target.attacked(), Tcp(target.port, somewhere()) as line:
        line.send(HEADER)
        assert line.fill(frame(b"/x\n") * 1000, 64 * MIB) < KERNEL


def test_lengths_without_bounds_from_an_authorised_peer(target: Target):
    with target.attacked():
        secured = raw.secure(Tcp(target.port, somewhere()), target.traitor)
        secured.send(HEADER + GIB_VARINT + bytes(4096))
        secured.until_closed()
        secured.close()
        with target.call(target.traitor) as muxed:
            for protocol in SERVED:
                talk = muxed.open(protocol, GIB_VARINT + bytes(100_000))
                talk.finish()
                talk.rest()
            assert muxed.open(PING, bytes(32)).chosen()


# -- 5. complete connections, many -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("who", "many"), [("a stranger", MANY // 3), ("the traitor", MANY)])
def test_complete_connections_one_after_another(target: Target, who: str, many: int):
    with target.attacked():
        for number in range(many):
            line = Tcp(target.port, somewhere())
            muxed = Muxed(raw.secure(line, target.traitor if who == "the traitor" else Identity.generate()))
            try:
                muxed.open(PING, bytes(32)).chosen()
                assert who == "the traitor"
            except Gone:
                assert who == "a stranger"
            line.break_off() if number % 2 else line.close()


def test_300_complete_connections_of_one_peer_held(target: Target):
    with target.attacked(), ExitStack() as held:
        for _ in range(MANY):
            muxed = held.enter_context(target.call(target.traitor))
            while not muxed.agreed:
                muxed.pump()
        target.assert_serves()


# -- junk on every listening socket ----------------------------------------------------------------------------------


def test_junk_on_the_listening_socket(target: Target):
    with target.attacked():
        for junk in raw.GARBAGE:
            for leave in (Tcp.until_closed, Tcp.break_off):
                with Tcp(target.port, somewhere()) as line:
                    line.send(junk)
                    line.finish()
                    leave(line)


HTTP_JUNK = (
    *raw.GARBAGE,
    b"\r\n" * 1000,
    b"GET /v1/status\r\n\r\n",
    b"GET /v1/status HTTP/9.9\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
    b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X-Y: z\r\n" * 10_000 + b"\r\n",
    b"POST /v1/connect HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{",
    b"POST /v1/connect HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/connect HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
    b"POST /v1/connect HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
)
BODIES = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"[" * 100_000,
    b'{"peer": 7}',
    b'{"peer": "\xff"}',
    b'{"peer": {"a": []}}',
    b"1e999",
)


def say(where: socket.socket, words: bytes) -> bytes:
    """All that is answered, to the end."""
    got = b""
    with where:
        where.settimeout(10)
        try:
            where.sendall(words)
            where.shutdown(socket.SHUT_WR)
            while data := where.recv(65536):
                got += data
        except (ConnectionResetError, BrokenPipeError):
            pass
    return got


def control(scene: Scene) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(scene.pair.home.home / ".config/peerup/peerup.sock"))
    return sock


def test_junk_on_the_control_socket(scene: Scene):
    with scene.node.attacked():
        for junk in HTTP_JUNK:
            answer = say(control(scene), junk)
            assert not answer or answer.startswith(b"HTTP/1.1 4"), answer[:200]
        assert scene.pair.home.ask("daemon", "status")["peer_id"] == str(scene.node.peer)


def test_junk_in_well_formed_requests_to_the_control_socket(scene: Scene):
    cookie = (scene.pair.home.home / ".config/peerup/.daemon-cookie").read_bytes()
    paths = (b"/v1/connect", b"/v1/auth", b"/v1/join", b"/v1/services", b"/v1/ping", b"/v1/invite/x", b"/v1/relays")
    with scene.node.attacked():
        for method in (b"POST", b"DELETE", b"GET", b"PUT"):
            for path in paths:
                for body in BODIES:
                    head = b"%b %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n"
                    answer = say(control(scene), head % (method, path, cookie, len(body)) + body)
                    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200")), (path, body[:50], answer[:300])
                    assert b"internal error" not in answer


def test_silent_callers_of_the_control_socket_keep_nobody_out(scene: Scene):
    with scene.node.attacked(), ExitStack() as held:
        for _ in range(MANY):
            held.enter_context(control(scene)).sendall(b"GET /v1/st")
        assert scene.pair.home.ask("daemon", "status")["peer_id"] == str(scene.node.peer)


def test_junk_on_healthz(scene: Scene):
    with scene.relay.attacked():
        for junk in HTTP_JUNK:
            answer = say(socket.create_connection(("127.0.0.1", scene.health)), junk)
            assert not answer or answer.startswith(b"HTTP/1.1 4"), answer[:200]
        answer = say(socket.create_connection(("127.0.0.1", scene.health)), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"]


# -- many at once ----------------------------------------------------------------------------------------------------


def test_10000_streams_of_an_authorised_peer(target: Target):
    """As many as may be open at once, the others reset; 16 KiB each at the most."""
    with target.attacked(room=STREAMS * PER_STREAM + ROOM), target.call(target.traitor) as muxed:
        before, talks = target.memory(), []
        for count in range(1, 11):
            talks += [muxed.open() for _ in range(1000)]
            while sum(talk.ended == "reset" for talk in talks) < 1000 * count - STREAMS:
                muxed.pump()
        grown = target.memory() - before
        print(f"{target.name}: {STREAMS} streams held take {grown / MIB:.1f} MiB")
        assert grown < STREAMS * PER_STREAM
        target.assert_lets_in()


UNREAD = 600  # streams
AHEAD = 8 * MIB  # bytes that the daemon may have read ahead for all streams, beside what each may cost


@pytest.mark.parametrize("way", ["from a peer to a silent service", "from a service to a silent peer"])
def test_data_that_nobody_reads_is_bounded(scene: Scene, way: str):
    """Each stream with its windows full, and as much behind it as the node will take."""
    node, bound = scene.node, CONNECTION_BUDGET + AHEAD + UNREAD * PER_STREAM
    service, send = {
        "from a peer to a silent service": (silent_service, bytes(240_000)),
        "from a service to a silent peer": (endless_service, b"1000000000 7\n"),
    }[way]
    with service() as where, node.attacked(room=bound), node.call(node.traitor) as muxed:
        scene.pair.home.ctl("service", "add", "unread", where)
        before = node.memory()
        for _ in range(UNREAD):
            talk = muxed.open("/peerup/unread/1.0.0")
            for start in range(0, len(send), 60_000):
                muxed.yamux.send(talk.number, send[start : start + 60_000])
            muxed.flush()
        hear_without_reading(muxed)
        grown = node.memory() - before
        print(f"{UNREAD} streams {way}: memory grown by {grown / MIB:.1f} MiB, {bound / MIB:.1f} MiB are allowed")
        node.assert_serves()
        scene.pair.home.ctl("service", "remove", "unread")
        assert grown < bound


def hear_without_reading(muxed: Muxed) -> None:
    """Take what comes and grant nothing for it, until the other side has no window left."""
    muxed.yamux.consumed = lambda *_: None  # type: ignore[method-assign] # that is the lie
    muxed.secured.line.socket.settimeout(1)  # type: ignore[attr-defined] # it is a Tcp
    with suppress(Silent):
        while True:
            muxed.pump()


@contextmanager
def silent_service() -> Iterator[str]:
    """It takes connections and reads nothing; its address."""
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/service")
        listener.listen(UNREAD)
        yield f"unix:{folder}/service"


@contextmanager
def endless_service() -> Iterator[str]:
    """It sends without end; its address."""
    command = [sys.executable, str(TRAFFIC), "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        try:
            yield f"127.0.0.1:{json.loads(service.stdout.readline())['source']}"
        finally:
            service.kill()
