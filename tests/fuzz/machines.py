"""Targets: the machines of `wire/` that take bytes as they come (noise and yamux have rooms of their own).

Each sees the input at once and in portions and must say the same. Where the first bytes of a dialogue are a fence, the
input is what stands behind it: lines in whole frames, texts sealed with the right key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from peerupd.model.errors import InviteRefused, PairingMismatch, ProtocolUnsupported, ProtocolViolation
from peerupd.wire import chunks, multistream, pairing, pairing_text
from peerupd.wire.chunks import ChunkReader
from peerupd.wire.framing import FrameReader, frame
from peerupd.wire.multistream import MULTISTREAM, NOT_AVAILABLE, Dialer, Listener
from peerupd.wire.pairing import DataToSend, Inviter, Joiner, Paired, State
from peerupd.wire.pairing_text import TextJoiner
from tests.fuzz.samples import drawn
from tests.fuzz.target import Choices, Target, same_however_cut
from tests.support.strategies import protocols

LIMITS = (0, 1, 17, 1024, 4096, 65536)  # bytes of a frame


def _joined(events: list[bytes]) -> list[bytes]:
    return [b"".join(events)]


# -- frames --------------------------------------------------------------------------------------------------------


def _frames(data: bytes) -> int:
    choices = Choices(data)
    limit, body = choices.pick(LIMITS), choices.rest()
    readers: list[FrameReader] = []

    def machine() -> Callable[[bytes], list[bytes]]:
        readers.append(FrameReader(limit))
        return readers[-1].receive

    found = same_however_cut(body, machine).events
    assert all(len(each) <= limit for each in found)
    assert readers[0].pending == readers[1].pending
    assert FrameReader(limit).receive(b"".join(map(frame, found))) == found
    assert body.endswith(readers[0].pending)
    return min(len(found), 4)


def _frame_seeds() -> list[bytes]:
    bodies = [b"", b"a", b"seventeen bytes !", b"x" * 1024, b"y" * 130]
    whole = b"".join(map(frame, bodies))
    return [bytes([at]) + whole for at in range(len(LIMITS))] + [b"\5" + b"\x80" * 6, b"\5\xff\xff\xff\xff\x0f"]


# -- multistream-select --------------------------------------------------------------------------------------------

SPOKEN = ("/ipfs/id/1.0.0", "/peerup/ssh/1.0.0", "/noise")


def _lines(data: bytes) -> bytes:
    """The lines of the input in frames, if its first byte is even; else the input as it is."""
    if not data or data[0] & 1:
        return data[1:]
    return b"".join(frame(line + b"\n") for line in data[1:].split(b"\n"))


def _dialer(data: bytes) -> str:
    made: list[Dialer] = []

    def machine() -> Callable[[bytes], Iterable[bytes]]:
        made.append(Dialer(SPOKEN))
        made[-1].start()
        return lambda piece: [made[-1].receive(piece)]

    said = same_however_cut(_lines(data), machine, _joined)
    _check_choice(made, _lines(data))
    assert len(b"".join(said.events)) <= sum(len(name) + 3 for name in SPOKEN)
    return made[0].chosen or "not yet"


def _listener(data: bytes) -> str:
    made: list[Listener] = []
    spoken = SPOKEN if not data or data[0] & 2 else SPOKEN.__contains__

    def machine() -> Callable[[bytes], Iterable[bytes]]:
        made.append(Listener(spoken))
        return lambda piece: [made[-1].receive(piece)]

    said = same_however_cut(_lines(data), machine, _joined)
    _check_choice(made, _lines(data))
    assert len(b"".join(said.events)) <= 64 + multistream.MAX_PROPOSALS * 8
    return made[0].chosen or "not yet"


def _check_choice(made: list[Dialer] | list[Listener], sent: bytes) -> None:
    whole, cut = made
    assert (whole.chosen, whole.leftover) == (cut.chosen, cut.leftover)
    assert whole.chosen is None or whole.chosen in SPOKEN
    assert sent.endswith(whole.leftover)


def _talk_seeds() -> list[bytes]:
    head = MULTISTREAM.encode()
    talks = [
        *([head, name.encode()] for name in SPOKEN),
        *([head, *[NOT_AVAILABLE.encode()] * times, SPOKEN[times].encode()] for times in (1, 2)),
        [head, *[NOT_AVAILABLE.encode()] * 3],
        [head, *[b"/unknown/1.0.0"] * 70, b"/noise"],
        [head, *(name.encode() for name in drawn(protocols(), 6)), b"ls"],
        [b"/multistream/0.9.9"],
    ]
    framed = [b"\0" + b"\n".join(talk) for talk in talks]
    return framed + [b"\3" + b"".join(frame(line + b"\n") for line in talk) + b"payload" for talk in talks[:4]]


# -- pairing -------------------------------------------------------------------------------------------------------

TOKEN, OTHER_TOKEN = b"\x01\x02\x03\x04\x05\x06\x07\x08", bytes(8)
OURS, THEIRS = bytes(range(32)), bytes(range(1, 33))
THEIR_PUBLIC = X25519PrivateKey.from_private_bytes(THEIRS).public_key().public_bytes_raw()
OUR_PUBLIC = X25519PrivateKey.from_private_bytes(OURS).public_key().public_bytes_raw()
NONCE = bytes(range(pairing.NONCE_SIZE))
_KEYS = {
    token: pairing.session_key(X25519PrivateKey.from_private_bytes(OURS), THEIR_PUBLIC, token)
    for token in (TOKEN, OTHER_TOKEN)
}


def _pairing(role: type[Joiner | Inviter], prefix: bytes, data: bytes) -> str:
    """First byte 0: bytes as they are; 1: the right key, then those bytes; 2: and a text sealed; 3: by another code."""
    kind, rest = data[:1], data[1:]
    if kind > b"\0":
        rest = prefix + THEIR_PUBLIC + (rest if kind == b"\1" else _sealed(kind, rest))
    made: list[Joiner | Inviter] = []

    def machine() -> Callable[[bytes], list[pairing.Event]]:
        made.append(role(TOKEN, "us", private_key=OURS, nonce=lambda: NONCE))
        made[-1].start()
        return made[-1].receive

    said = same_however_cut(rest, machine)
    assert made[0].state is made[1].state
    assert not (made[0].state is State.DONE and kind != b"\2"), "paired without the code"
    for event in said.events:
        _check_event(made[0], event)
    reached = made[0].state
    if isinstance(made[0], Joiner):
        _end(made[0], done=reached is State.DONE)
    return reached.value


def _end(joiner: Joiner | TextJoiner, *, done: bool) -> None:
    """The stream ends here: that is a refusal unless all has been said."""
    try:
        joiner.closed()
        assert done
    except (InviteRefused, PairingMismatch):
        assert not done


def _sealed(kind: bytes, text: bytes) -> bytes:
    """A whole frame, and the same again."""
    body = pairing.seal(_KEYS[TOKEN if kind == b"\2" else OTHER_TOKEN], NONCE, text)[: pairing.MAX_FRAME]
    return (len(body).to_bytes(2, "big") + body) * 2


def _check_event(machine: Joiner | Inviter, event: pairing.Event) -> None:
    if isinstance(event, DataToSend):
        assert len(event.data) < 2 + pairing.MAX_FRAME
        return
    assert len(event.name) <= 64
    assert isinstance(event, Paired) is isinstance(machine, Joiner)
    if isinstance(machine, Inviter):
        answer = machine.accept() if event.name else machine.refuse()
        assert pairing.unseal(_KEYS[TOKEN], answer[2:]).startswith(b"OK" if event.name else b"ERR")


def _joiner(data: bytes) -> str:
    return _pairing(Joiner, b"", data)


def _inviter(data: bytes) -> str:
    return _pairing(Inviter, b"\1", data)


def _pairing_seeds() -> list[bytes]:
    texts = (b"OK home", b"OK", b"ERR server error", b"laptop", b"", b"\xff\xfeOK", b"OK " + b"n" * 300)
    keys = (THEIR_PUBLIC, bytes(32), OUR_PUBLIC, b"\1" + THEIR_PUBLIC, b"\1" + OUR_PUBLIC, b"\2")
    frames = (b"\0\x28" + bytes(40), b"\0\0", b"\xff\xff", b"\0\x30" + bytes(48))
    return [
        *(b"\0" + key for key in keys),
        *(b"\1" + each for each in frames),
        *(kind + text for text in texts for kind in (b"\2", b"\3")),
    ]


def _text_joiner(data: bytes) -> str:
    made: list[TextJoiner] = []

    def machine() -> Callable[[bytes], list[pairing.Event]]:
        made.append(TextJoiner(TOKEN, "us"))
        return made[-1].receive

    said = same_however_cut(data, machine)
    assert len(said.events) <= 1
    _end(made[0], done=bool(said.events))
    return "paired" if said.events else "waiting"


# -- chunks --------------------------------------------------------------------------------------------------------


def _chunks(data: bytes) -> str:
    made: list[ChunkReader] = []

    def machine() -> Callable[[bytes], list[bytes]]:
        made.append(ChunkReader())
        return lambda piece: [made[-1].receive(piece)]

    content = b"".join(same_however_cut(data, machine, _joined).events)
    whole, cut = made
    assert (whole.ended, whole.wanted) == (cut.ended, cut.wanted)
    assert len(content) <= len(data)
    assert 0 < whole.wanted <= chunks.MAX_CHUNK + chunks.HEADER
    return f"{whole.ended} {bool(content)}"


def _chunk_seeds() -> list[bytes]:
    def chunk(content: bytes) -> bytes:
        return chunks.header(len(content)) + content

    return [
        chunk(b"hello") + chunk(b"x" * 300) + chunks.END,
        chunks.END,
        chunks.header(chunks.MAX_CHUNK) + b"abc",
        (chunks.MAX_CHUNK + 1).to_bytes(4, "big"),
        chunk(b"a") + chunks.END + b"b",
    ]


def _line_mutations(random: Random, data: bytes, other: bytes) -> bytes:
    """Lines less, more, of the other and in another order; the first byte stays."""
    head, lines, further = data[:1] or b"\0", data[1:].split(b"\n"), other[1:].split(b"\n")
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(lines))
        match random.randrange(4):
            case 0 if len(lines) > 1:
                del lines[at]
            case 1:
                lines.insert(at, random.choice(further))
            case 2:
                lines[at:at] = [lines[at]] * random.choice((1, 3, 66))
            case _:
                lines[at] = random.choice((b"na", b"ls", b"", *(name.encode() for name in SPOKEN)))
    return head + b"\n".join(lines)


_WORDS = (b"OK", b"ERR", b"\n", b"OK home\n", b"\r\n", b"\x00", "\u202e".encode())

MACHINES = (
    Target("wire.framing", _frames, _frame_seeds, max_input=max(LIMITS) + 64),
    Target(
        "wire.multistream.dialer",
        _dialer,
        _talk_seeds,
        declared=(ProtocolViolation, ProtocolUnsupported),
        mutate=_line_mutations,
    ),
    Target("wire.multistream.listener", _listener, _talk_seeds, mutate=_line_mutations),
    Target(
        "wire.pairing.joiner",
        _joiner,
        _pairing_seeds,
        declared=(ProtocolViolation, PairingMismatch, InviteRefused),
        tokens=_WORDS,
        share=0.25,
    ),
    Target(
        "wire.pairing.inviter",
        _inviter,
        _pairing_seeds,
        declared=(ProtocolViolation, PairingMismatch),
        tokens=_WORDS,
        share=0.25,
    ),
    Target(
        "wire.pairing_text",
        _text_joiner,
        lambda: [b"OK home\n", b"OK\n", b"ERR no\nmore", b"what\n", b"x" * pairing_text.MAX_LINE + b"\n"],
        declared=(ProtocolViolation, InviteRefused),
        tokens=_WORDS,
    ),
    Target("wire.chunks", _chunks, _chunk_seeds),
)
