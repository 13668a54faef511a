"""A libp2p peer made of plain sockets and the machines of `peerupd.wire`: it can stop, stall and lie at every stage.

    Tcp ─ secure() ─▶ Secured ─ Muxed() ─▶ Muxed ─ open() ─▶ Talk ─ circuit() ─▶ Talk ─ secure() ─▶ ...

Nothing here waits longer than `SECONDS`, and nothing runs beside its caller: the far end's bytes are taken when the
caller asks for some. The multiplexer is proposed and used without waiting for a yes, as a hostile peer would.

Whoever is to get as far as it can comes from `somewhere()`, an address where nobody has failed yet: all of 127.0.0.0/8
is this machine.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, Self

from peerupd.model.errors import ProtocolUnsupported, ProtocolViolation
from peerupd.model.names import PeerId
from peerupd.trust.identity import Identity
from peerupd.wire import noise, yamux
from peerupd.wire.circuit import HOP_PROTOCOL, MAX_MESSAGE, HopKind, HopMessage, Status
from peerupd.wire.framing import FrameReader, frame
from peerupd.wire.multistream import MULTISTREAM, Dialer

SECONDS = 10.0  # limit of each wait


_hosts = itertools.count(1)


def somewhere() -> str:
    """An address that nobody has used in this process."""
    number = next(_hosts)
    return f"127.{1 + os.getpid() % 200}.{number // 250 % 256}.{1 + number % 250}"


class Gone(Exception):
    """The other side ended it; `how` is `eof` or `reset`."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Silent(Exception):
    """The other side neither answered nor ended within `SECONDS`."""


class Line(Protocol):
    """What a handshake runs over."""

    def send(self, data: bytes) -> None:
        """Raises `Gone`, `Silent`."""

    def receive(self) -> bytes:
        """Some bytes; raises `Gone`, `Silent`."""

    def close(self) -> None:
        """Leave."""


class Tcp:
    """A socket."""

    def __init__(self, port: int, source: str = "127.0.0.1", seconds: float = SECONDS) -> None:
        try:
            self.socket = socket.create_connection(("127.0.0.1", port), seconds, (source, 0))
        except ConnectionResetError:
            raise Gone("reset") from None
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except TimeoutError:
            raise Silent from None
        except ConnectionError:
            raise Gone("reset") from None

    def receive(self) -> bytes:
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            raise Silent from None
        except ConnectionError:
            raise Gone("reset") from None
        if not data:
            raise Gone("eof")
        return data

    def fill(self, block: bytes, most: int) -> int:
        """Send `block` again and again, up to `most` bytes or until the other side ends it; how many were taken."""
        sent = 0
        with suppress(Gone):
            while sent < most:
                self.send(block)
                sent += len(block)
        return sent

    def finish(self) -> None:
        """FIN."""
        with suppress(OSError):  # it is gone already
            self.socket.shutdown(socket.SHUT_WR)

    def until_closed(self) -> bytes:
        """All that comes, to the end, however it ends; raises `Silent` when there is no end."""
        got = b""
        with suppress(Gone):
            while True:
                got += self.receive()
        return got

    def close(self) -> None:
        self.socket.close()

    def break_off(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


# -- Noise -----------------------------------------------------------------------------------------------------------


class Secured:
    """After the handshake: records."""

    def __init__(self, line: Line, handshake: noise.Handshake) -> None:
        self.line = line
        self.peer = handshake.remote_peer
        self._session = handshake.session
        self._early = handshake.leftover

    def send(self, plain: bytes) -> None:
        if plain:
            self.line.send(bytes(self._session.seal(plain)))

    def receive(self) -> bytes:
        plain = bytes(self._session.open(self._early))
        self._early = b""
        while not plain:
            plain = bytes(self._session.open(self.line.receive()))
        return plain

    def until_closed(self) -> bytes:
        """All plaintext that comes, to the end; raises `Silent` when there is no end."""
        got = b""
        with suppress(Gone):
            while True:
                got += self.receive()
        return got

    def close(self) -> None:
        self.line.close()


def secure(line: Line, identity: Identity, expected: PeerId | None = None) -> Secured:
    """The dialer's side of `/noise`; raises `Gone`, `Silent`."""
    return shaken(line, identity_key=identity.public_key, sign=identity.sign, expected=expected)


def shaken(line: Line, **words: object) -> Secured:
    """The same with words of one's own, be they lies."""
    dialer = Dialer([noise.PROTOCOL])
    handshake = noise.Handshake(initiator=True, **words)  # type: ignore[arg-type] # the caller's lies
    line.send(dialer.start() + handshake.start())
    while dialer.chosen is None:
        dialer.receive(line.receive())
    answer = handshake.receive(dialer.leftover)
    while not handshake.done:
        answer = handshake.receive(line.receive())
    line.send(answer)
    return Secured(line, handshake)


# -- yamux -----------------------------------------------------------------------------------------------------------


class Muxed:
    """A multiplexer that was proposed and is used, whether or not the other side agrees."""

    def __init__(self, secured: Secured) -> None:
        self.secured = secured
        self.yamux = yamux.Yamux(client=True)
        self.heard = 0  # bytes of plaintext
        self.offered: list[int] = []  # streams that the other side opened to us
        self.welcome: Callable[[Talk], None] | None = None  # what happens to them; None: reset
        self.talks: dict[int, Talk] = {}
        self._dialer = Dialer([yamux.PROTOCOL])
        with suppress(Gone):
            secured.send(self._dialer.start())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def agreed(self) -> bool:
        """Whether the other side has a multiplexer too."""
        return self._dialer.chosen is not None

    def open(self, protocol: str = "", payload: bytes = b"") -> Talk:
        """A stream; header, proposal and payload go at once. Without a protocol nothing is said."""
        number = self.yamux.open()
        talk = self.talks[number] = Talk(self, number, Dialer([protocol or "/nothing"]))
        if protocol:
            self.yamux.send(number, talk.dialer.start() + payload)
        self.flush()
        return talk

    def flush(self) -> None:
        """Send what is queued; that the other side is gone, its end tells."""
        with suppress(Gone):
            self.secured.send(b"".join(self.yamux.take_output()))

    def pump(self) -> None:
        """Take what comes next; raises `Gone`, `Silent`."""
        data = self.secured.receive()
        self.heard += len(data)
        if not self.agreed:
            self._dialer.receive(data)
            data = self._dialer.leftover
        if self.agreed:
            for event in self.yamux.receive(data):
                self._take(event)
            self.flush()

    def _take(self, event: yamux.Event) -> None:
        match event:
            case yamux.StreamOpened(number):
                self.offered.append(number)
                self.talks[number] = Talk(self, number, Dialer(["/nothing"]))
                if self.welcome is None:
                    self.yamux.reset(number)
                else:
                    self.welcome(self.talks[number])
            case yamux.DataReceived(number, data) if number in self.talks:
                self.talks[number].arrived(data)
            case yamux.EndReceived(number) if number in self.talks:
                self.talks[number].ended = "eof"
            case yamux.ResetReceived(number) if number in self.talks:
                self.talks[number].ended = "reset"

    def until_closed(self) -> None:
        """Take everything, to the end; raises `Silent` when there is no end."""
        with suppress(Gone):
            while True:
                self.pump()

    def close(self) -> None:
        self.secured.close()


class Talk:
    """One stream."""

    def __init__(self, muxed: Muxed, number: int, dialer: Dialer) -> None:
        self.muxed = muxed
        self.number = number
        self.dialer = dialer
        self.ended = ""
        self._data = b""

    def arrived(self, data: bytes) -> None:
        """The multiplexer: these bytes came."""
        self.muxed.yamux.consumed(self.number, len(data), 0.0)
        self._data += data

    def chosen(self) -> bool:
        """Whether the other side speaks the protocol; raises `Gone`, `Silent`."""
        try:
            while self.dialer.chosen is None:
                self.dialer.receive(self.receive())
        except ProtocolUnsupported:
            return False
        self._data = self.dialer.leftover + self._data
        return True

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            if self.ended == "reset":
                raise Gone("reset")
            if taken := self.muxed.yamux.send(self.number, rest):
                rest = rest[taken:]
                self.muxed.flush()
            else:
                self.muxed.pump()

    def receive(self) -> bytes:
        while not self._data:
            if self.ended:
                raise Gone(self.ended)
            self.muxed.pump()
        data, self._data = self._data, b""
        return data

    def message(self) -> bytes:
        """The next delimited message."""
        reader = FrameReader(MAX_MESSAGE)
        while (message := reader.next()) is None:
            reader.feed(self.receive())
        self._data = reader.pending + self._data
        return message

    def message_until(self, end: bytes) -> bytes:
        """The first bytes of the chosen protocol, to `end`."""
        assert self.chosen()
        got = b""
        while not got.endswith(end):
            got += self.receive()
        return got

    def rest(self) -> tuple[int, str]:
        """How many bytes still come, and how that ends."""
        size = 0
        try:
            while True:
                size += len(self.receive())
        except Gone as gone:
            return size, gone.how

    def finish(self) -> None:
        """FIN."""
        self.muxed.yamux.finish(self.number)
        self.muxed.flush()

    def reset(self) -> None:
        """RST."""
        self.muxed.yamux.reset(self.number)
        self.muxed.flush()

    def close(self) -> None:
        """Leave the whole connection below: whoever hangs up a circuit has nothing else to say."""
        self.muxed.close()


def connect(port: int, identity: Identity, expected: PeerId | None = None, source: str = "127.0.0.1") -> Muxed:
    """TCP, Noise, yamux (not waited for)."""
    line = Tcp(port, source)
    try:
        return Muxed(secure(line, identity, expected))
    except BaseException:
        line.close()
        raise


def ask_hop(muxed: Muxed, request: HopMessage) -> tuple[Status | None, Talk]:
    """What the relay answers; raises `ProtocolUnsupported` when it does not speak that to us, `Gone`, `Silent`."""
    talk = muxed.open(HOP_PROTOCOL, frame(request.encode()))
    if not talk.chosen():
        raise ProtocolUnsupported("the relay does not speak hop to us")
    return HopMessage.decode(talk.message()).status, talk


def circuit(muxed: Muxed, target: PeerId) -> Talk:
    """The bytes of a circuit; raises `ProtocolViolation` for any answer but OK."""
    status, talk = ask_hop(muxed, HopMessage(HopKind.CONNECT, peer=target))
    if status is not Status.OK:
        raise ProtocolViolation(f"the relay said {status}")
    return talk


# -- lies --------------------------------------------------------------------------------------------------------------

HEADER = frame(f"{MULTISTREAM}\n".encode())
NOT_UTF8 = frame(b"/\xff\xfe\x80peerup\xc3(\n")
GIB_VARINT = b"\x80\x80\x80\x80\x04"
"""The length 2**30."""
ENDLESS_VARINT = b"\xff" * 64

GARBAGE = (
    b"\x00" * 64,
    b"\xff" * 4096,
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),  # the beginning of TLS
    HEADER + b"\x00",
    HEADER + frame(b"no line feed"),
    HEADER + NOT_UTF8,
    HEADER + GIB_VARINT + b"x" * 4096,
    HEADER + frame(b"/noise\n") * 100,
    HEADER + frame(b"/tls/1.0.0\n") * 100,
    HEADER + frame(b"/noise\n") + b"\xff\xff" + os.urandom(8192),
    HEADER + frame(b"/noise\n") + b"\x00\x00",
    HEADER + frame(b"/noise\n") + b"\x00\x20" + bytes(32) + bytes(512),
    os.urandom(2048),
)
"""What strangers say to a listening socket."""
