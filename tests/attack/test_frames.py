"""Handshakes that are not what they seem; frames too long or cut short, at every layer, against running programs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from peerupd.trust.identity import Identity
from peerupd.wire.framing import frame
from tests.attack import raw
from tests.attack.raw import GIB_VARINT, HEADER, Gone, Muxed, Secured, Tcp, somewhere
from tests.attack.scene import MIB, PING, Target
from tests.attack.test_processes import HEAD, KERNEL

NOISE = HEADER + frame(b"/noise\n")
STRANGER = Identity.generate()


# -- wrong keys ------------------------------------------------------------------------------------------------------


def shaken(target: Target, **words: object) -> Secured:
    """A handshake with words of one's own."""
    return raw.shaken(Tcp(target.port, somewhere()), **words)


@pytest.mark.parametrize("sign", ["by another key", "of something else", "of no bytes", "too long"])
def test_the_key_of_a_friend_without_its_signature_is_nobody(target: Target, sign: str) -> None:
    signatures: dict[str, Callable[[bytes], bytes]] = {
        "by another key": STRANGER.sign,
        "of something else": lambda said: target.friend.sign(said + b"!"),
        "of no bytes": lambda _said: b"",
        "too long": lambda said: target.friend.sign(said) * 40,
    }
    with target.attacked():
        for _ in range(10):
            secured = shaken(target, identity_key=target.friend.public_key, sign=signatures[sign])
            with suppress(Gone):
                secured.send(raw.HEADER + frame(b"/yamux/1.0.0\n"))
            assert secured.until_closed() == b""
            secured.close()


class Tape(Tcp):
    """What was said is kept."""

    said = b""

    def send(self, data: bytes) -> None:
        self.said += data
        super().send(data)


def test_what_a_friend_said_is_worth_nothing_when_it_is_said_again(target: Target) -> None:
    with target.attacked():
        with Tape(target.port) as line:
            muxed = Muxed(raw.secure(line, target.friend, target.peer))
            assert muxed.open(PING, bytes(32)).chosen()
        for _ in range(10):
            with Tcp(target.port, somewhere()) as again:
                again.send(line.said)
                answer = again.until_closed()
                assert answer.startswith(NOISE)
                assert len(answer) < 600  # the second message of Noise, and nothing behind it


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32, b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_a_key_of_low_order_is_no_key(target: Target, key: bytes) -> None:
    with target.attacked(), Tcp(target.port, somewhere()) as line:
        line.send(NOISE + b"\x00\x20" + key)
        line.finish()
        line.until_closed()


@pytest.mark.parametrize("protocol", ["/plaintext/2.0.0", "/secio/1.0.0", "/tls/1.0.0", "/yamux/1.0.0", PING])
def test_nothing_but_noise_is_spoken_to_a_caller(target: Target, protocol: str) -> None:
    with target.attacked(), Tcp(target.port, somewhere()) as line:
        line.send(HEADER + frame(f"{protocol}\n".encode()) + target.friend.public_key.encode())
        line.finish()
        assert frame(f"{protocol}\n".encode()) not in line.until_closed()


# -- too long, or cut short ------------------------------------------------------------------------------------------


BEFORE_NOISE = {
    "multistream: too long": HEADER + frame(b"/" + b"x" * 2000 + b"\n"),
    "multistream: cut in the length": HEADER + b"\x80",
    "multistream: cut in the name": HEADER + frame(b"/noise\n")[:4],
    "Noise: too long": NOISE + b"\xff\xff" + bytes(65535),
    "Noise: empty": NOISE + b"\x00\x00",
    "Noise: cut in the length": NOISE + b"\x00",
    "Noise: cut in the key": NOISE + b"\x00\x20" + bytes(20),
    "Noise: longer than the key": NOISE + b"\x10\x00" + bytes(4096),
}
RECORDS = {
    "record: shorter than its tag": b"\x00\x04abcd",
    "record: empty": b"\x00\x00",
    "record: not sealed": b"\xff\xff" + bytes(65535),
    "record: cut short": b"\x40\x00" + bytes(100),
    "record: cut in the length": b"\x00",
}
INSIDE_NOISE = {
    "multistream inside Noise: too long": HEADER + GIB_VARINT + bytes(5000),
    "multistream inside Noise: cut short": HEADER + frame(b"/yamux/1.0.0\n")[:5],
    "multistream inside Noise: without end": HEADER + frame(b"/x\n") * 2000,
}
YAMUX = {
    "yamux: cut in the header": HEAD.pack(0, 1, 1, 1, 0)[:7],
    "yamux: cut in the data": HEAD.pack(0, 1, 1, 1, 0) + HEAD.pack(0, 0, 0, 1, 1000) + bytes(10),
    "yamux: longer than any window": HEAD.pack(0, 1, 1, 1, 0) + HEAD.pack(0, 0, 0, 1, 1 << 30) + bytes(1000),
    "yamux: data with every flag": HEAD.pack(0, 0, 0xFFFF, 1, 4) + bytes(4),
}


def test_frames_too_long_or_cut_short_before_anybody_is_known(target: Target) -> None:
    with target.attacked():
        for said in BEFORE_NOISE.values():
            for finish in (True, False):
                with Tcp(target.port, somewhere(), seconds=15) as line:
                    line.send(said)
                    if finish:
                        line.finish()
                        line.until_closed()


@pytest.mark.parametrize("who", ["stranger", "traitor"])
def test_frames_too_long_or_cut_short_inside_noise(target: Target, who: str) -> None:
    with target.attacked():
        for said in (*RECORDS.values(), *INSIDE_NOISE.values()):
            line = Tcp(target.port, somewhere())
            secured = raw.secure(line, STRANGER if who == "stranger" else target.traitor)
            with suppress(Gone):
                secured.send(said) if said in INSIDE_NOISE.values() else line.send(said)
            line.finish()
            assert len(secured.until_closed()) < 20_000
            secured.close()


def test_frames_too_long_or_cut_short_in_the_multiplexer(target: Target) -> None:
    with target.attacked(), target.call(target.traitor) as other:
        for said in YAMUX.values():
            with target.call(target.traitor) as muxed:
                while not muxed.agreed:
                    muxed.pump()
                muxed.secured.send(said)
                line = muxed.secured.line
                assert isinstance(line, Tcp)
                line.finish()
                muxed.secured.until_closed()
        assert other.open(PING, bytes(32)).chosen()


ON_A_STREAM = {
    "too long": HEADER + GIB_VARINT + bytes(5000),
    "a name too long": HEADER + frame(b"/" + b"x" * 2000 + b"\n"),
    "cut short": HEADER + frame(b"/ipfs/ping/1.0.0\n")[:6],
    "without end": HEADER + b"".join(frame(b"/peerup/%d/1.0.0\n" % number) for number in range(3000)),
    "cut in a ping": HEADER + frame(b"/ipfs/ping/1.0.0\n") + bytes(31),
}


def test_frames_too_long_or_cut_short_on_a_stream_end_that_stream(target: Target) -> None:
    with target.attacked(), target.call(target.traitor) as muxed:
        for said in ON_A_STREAM.values():
            talk = muxed.open()
            with suppress(Gone):
                talk.send(said)
                talk.finish()
            talk.rest()
            assert muxed.open(PING, bytes(32)).chosen()


# -- windows ---------------------------------------------------------------------------------------------------------


def test_who_ignores_its_window_loses_the_connection(target: Target) -> None:
    """A ping is answered, the answer is not read: then nobody reads, and the window shuts."""
    block = HEAD.pack(0, 0, 0, 1, 32_768) + bytes(32_768)
    with target.attacked(), target.call(target.traitor) as muxed, target.call(target.friend) as friend:
        while not muxed.agreed:
            muxed.pump()
        muxed.secured.send(HEAD.pack(0, 1, 1, 1, 0))
        hello = HEADER + frame(f"{PING}\n".encode())
        muxed.secured.send(HEAD.pack(0, 0, 0, 1, len(hello)) + hello)
        sent = 0
        with suppress(Gone):
            while sent < 64 * MIB:
                muxed.secured.send(block)
                sent += len(block)
        assert sent < KERNEL
        assert friend.open(PING, bytes(32)).chosen()
