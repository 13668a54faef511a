"""Targets: the Noise handshake in both roles, and the records behind it in both forms.

Garbage alone dies at the first tag. So the other side is played by one who knows the keys: it says anything under the
right seal (`_Liar`), or changes one byte of a genuine message, and nobody may be met who has not proved who it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import pairwise

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from peerupd.model.errors import PeerupError, ProtocolViolation, WrongPeer
from peerupd.wire.noise import HAS_INTO, LENGTH, MAX_HANDSHAKE_MESSAGE, MAX_RECORD, RECORD, TAG, Handshake, Session
from peerupd.wire.protobuf import field
from tests.fuzz import mutation
from tests.fuzz.samples import ALICE, BOB, SIGNED_BY, public_of
from tests.fuzz.target import Choices, Target, portions, same_however_cut

MUXERS = ((), ("/yamux/1.0.0",), ("/mplex/6.7.0", "/yamux/1.0.0"), ("/other", *(f"/m/{at}" for at in range(40))))
EXPECTED = (None, public_of(BOB).peer_id, public_of(ALICE).peer_id)
LOW_ORDER = (bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f")  # points that give no secret (RFC 7748, 6)


def _handshake(
    private: Ed25519PrivateKey, *, initiator: bool, muxers: tuple[str, ...] = (), **more: object
) -> Handshake:
    return Handshake(initiator=initiator, identity_key=public_of(private), sign=private.sign, muxers=muxers, **more)  # type: ignore[arg-type] # the tests' own shorthand


class _Liar(Handshake):
    """Says something else of itself than who it is."""

    says: bytes = b""

    def _who(self) -> bytes:
        return self.says


# -- garbage -------------------------------------------------------------------------------------------------------


def _garbage(data: bytes) -> str:
    """Bytes of somebody who knows nothing: whatever the portions, the same end, and nobody is met."""
    initiator, rest = bool(data[:1] > b"\x7f"), data[1:]
    made: list[Handshake] = []

    def machine() -> Callable[[bytes], list[int]]:
        made.append(_handshake(ALICE, initiator=initiator))
        made[-1].start()
        return lambda piece: [len(made[-1].receive(piece))]

    said = same_however_cut(rest, machine, lambda sizes: [sum(sizes)])
    assert not made[0].done
    assert not made[1].done
    assert sum(said.events) <= MAX_HANDSHAKE_MESSAGE
    return f"{initiator} {sum(said.events) > 0}"


def _garbage_seeds() -> list[bytes]:
    first = _handshake(BOB, initiator=True).start()
    messages = [
        first,
        first + first,
        b"\0\x60" + bytes(96),
        b"\xff\xff",
        b"\x10\x01",
        b"\0\0",
        b"\0\x20" + LOW_ORDER[2],
    ]
    return [role + message for role in (b"\0", b"\xff") for message in messages]


# -- somebody who holds the keys of the handshake ------------------------------------------------------------------


def _lies(data: bytes) -> str:
    """Any payload under the right seal. The first byte: our role, our muxers, whom we expect."""
    choices = Choices(data)
    head = choices.byte()
    initiator, muxers, expected = bool(head & 1), MUXERS[head >> 1 & 3], EXPECTED[(head >> 3) % 3]
    ours = _handshake(ALICE, initiator=initiator, muxers=muxers, expected=expected)
    liar = _Liar(initiator=not initiator, identity_key=public_of(BOB), sign=BOB.sign)
    liar.says = _signed(choices, liar) if head & 0x80 else choices.rest()
    _talk(ours, liar)
    if not ours.done:
        return "not met"
    assert ours.remote_peer == ours.remote_key.peer_id
    assert expected in (None, ours.remote_peer)
    assert ours.muxer is None or ours.muxer in muxers
    assert head & 0x80, "met somebody who has signed nothing"
    return f"met, {ours.muxer}"


def _signed(choices: Choices, liar: Handshake) -> bytes:
    """The liar's key and a true signature, then whatever else."""
    signature = BOB.sign(b"noise-libp2p-static-key:" + liar._static.public_key().public_bytes_raw())
    return field(1, public_of(BOB).encode()) + field(2, signature) + choices.rest()


def _talk(ours: Handshake, theirs: Handshake) -> None:
    """Carry messages, ours in portions; raises what ours raises. The other side may be no good."""
    to_them, to_us = ours.start(), theirs.start()
    for _ in range(3):
        to_them += b"".join(ours.receive(piece) for piece in portions(to_us))
        try:
            to_us = theirs.receive(to_them)
        except PeerupError:
            return
        to_them = b""


def _lie_seeds() -> list[bytes]:
    offers = [field(4, b"".join(field(2, name) for name in muxers)) for muxers in MUXERS]
    keys = [field(1, key.encode()) + field(2, signature) for key, signature in SIGNED_BY]
    roles = [
        bytes([0x80 | expected << 3 | muxers << 1 | role])
        for role in (0, 1)
        for muxers in (0, 1, 2, 3)
        for expected in (0, 1, 2)
    ]
    return [role + offers[at % 4] for at, role in enumerate(roles)] + [bytes([at]) + key for at, key in enumerate(keys)]


def _tampered(data: bytes) -> str:
    """One message of a genuine dialogue comes otherwise: then nobody is met."""
    choices = Choices(data)
    initiator, at = bool(choices.byte() & 1), choices.byte() % 3
    ours, theirs = _handshake(ALICE, initiator=initiator), _handshake(BOB, initiator=not initiator)
    to_them, to_us = ours.start(), theirs.start()
    changed = False
    for turn in range(3):
        if turn == at and to_us:
            genuine, to_us = to_us, _changed(choices, to_us)
            changed = to_us != genuine
        to_them += b"".join(ours.receive(piece) for piece in portions(to_us))
        if changed:
            break
        to_us, to_them = theirs.receive(to_them), b""
    if changed:
        _finish_late(ours, theirs, to_them)
    assert ours.done is not changed, f"done: {ours.done}, changed: {changed}"
    if ours.done:
        _same_secrets(ours, theirs)
    return f"{initiator} {at} {changed}"


def _finish_late(ours: Handshake, theirs: Handshake, to_them: bytes) -> None:
    """What the honest side says to an answer of ours that rests on a changed message."""
    try:
        ours.receive(theirs.receive(to_them))
    except PeerupError:
        return


def _changed(choices: Choices, message: bytes) -> bytes:
    """Changed before its end: what follows it is not part of it."""
    kind, at = choices.byte() % 5, choices.number(2) % max(1, len(message))
    match kind:
        case 0:
            return message[:at] + choices.piece() + message[at:]
        case 1:
            return message[:at]
        case 2:
            return message[:2] + LOW_ORDER[at % len(LOW_ORDER)] + message[34:]
        case 3:
            piece = choices.piece()[: len(message) - at]
            return message[:at] + piece + message[at + len(piece) :]
    return message


def _same_secrets(ours: Handshake, theirs: Handshake) -> None:
    assert (ours.remote_peer, theirs.remote_peer) == (public_of(BOB).peer_id, public_of(ALICE).peer_id)
    assert theirs.session.open(ours.session.seal(b"hello")) == b"hello"
    assert ours.session.open(theirs.session.seal(b"hello")) == b"hello"


def _tamper_seeds() -> list[bytes]:
    spots = (2, 30, 34, 40, 82, 98, 120, 200)
    return [
        bytes([role, at, kind]) + spot.to_bytes(2, "big") + b"\1\xff"
        for role in (0, 1)
        for at in range(3)
        for kind in (0, 1, 2, 3, 4)
        for spot in spots[:: 1 + kind]
    ]


def _low_order(data: bytes) -> str:
    """The responder's static key, well sealed, is any 32 bytes: also such as give no secret."""
    ours = _handshake(ALICE, initiator=True)
    first, liar = ours.start(), _Liar(initiator=False, identity_key=public_of(BOB), sign=BOB.sign)
    liar.says = data[33:]
    fake = LOW_ORDER[data[0] % 3] if data[:1] > b"\x7f" else data[1:33]
    state, ephemeral = liar._state, X25519PrivateKey.from_private_bytes(hashlib.sha256(data).digest())
    state.mix_hash(first[2:])
    state.mix_hash(b"")
    public = ephemeral.public_key().public_bytes_raw()
    state.mix_hash(public)
    liar._ephemeral = ephemeral
    from peerupd.wire.noise import _dh

    state.mix_key(_dh(ephemeral, first[2:34]))
    message = public + state.encrypt(fake) + liar.says
    ours.receive(len(message).to_bytes(2, "big") + message)
    raise AssertionError("a static key without a proof was taken")


# -- records -------------------------------------------------------------------------------------------------------

KEYS = (bytes(range(32)), bytes(range(32, 64)))
LARGEST = MAX_RECORD - TAG  # bytes of plaintext in one record
SIZES = (0, 1, 100, 4096, RECORD - 1, RECORD, RECORD + 1, 3 * RECORD)  # bytes of a piece to be sealed


def _pair(*, into: bool) -> tuple[Session, Session]:
    return Session(*KEYS, into=into), Session(KEYS[1], KEYS[0], into=HAS_INTO)


def _records(data: bytes) -> str:
    """Batches of pieces, sealed, then changed at one place: what is opened is what was sent, up to there."""
    choices = Choices(data)
    head = choices.byte()
    sender, receiver = _pair(into=HAS_INTO and bool(head & 1))
    sent, wire = bytearray(), bytearray()
    for _ in range(1 + (head >> 1) % 4):
        seal = choices.pick((Session.seal, _sealed_one_by_one, _sealed_in_place))
        batch = [choices.byte().to_bytes(1, "big") * choices.pick(SIZES) for _ in range(choices.byte() % 5)]
        sent += b"".join(batch)
        wire += seal(sender, batch)
    changed = _changed(choices, bytes(wire)) if head & 0x80 else bytes(wire)
    open_ = choices.pick((Session.open, _opened_into))
    opened = bytearray()
    try:
        for piece in portions(changed):
            opened += open_(receiver, piece)
    finally:
        assert sent.startswith(opened), "opened what was not sent"
    assert changed != wire or opened == sent
    return f"{min(len(sent), 2)} {changed == wire}"


def _pieces(batch: list[bytes]) -> Iterator[bytes]:
    """Cut into what one record holds at most."""
    for piece in batch:
        yield from (piece[at : at + LARGEST] for at in range(0, len(piece), LARGEST))


def _sealed_one_by_one(session: Session, batch: list[bytes]) -> bytes:
    wire, at = bytearray(), 0
    for piece in _pieces(batch):
        wire += bytes(LENGTH + len(piece) + TAG)
        with memoryview(wire) as view:
            at = session.seal_into(piece, view, at)
    assert at == len(wire)
    return bytes(wire)


def _sealed_in_place(session: Session, batch: list[bytes]) -> bytes:
    wire, at = bytearray(), 0
    for piece in _pieces(batch):
        wire += bytes(LENGTH) + piece + bytes(TAG)
        with memoryview(wire) as view:
            at = session.seal_in_place(view, at, len(piece))
    assert at == len(wire)
    return bytes(wire)


def _opened_into(session: Session, piece: bytes) -> bytes:
    """Into a buffer with something before."""
    buffer = bytearray(b"before") + bytes(len(piece) + MAX_RECORD)
    end = session.open_into(piece, memoryview(buffer), 6)
    assert buffer.startswith(b"before"), "written before its place"
    return bytes(buffer[6:end])


def _record_garbage(data: bytes) -> str:
    """Records of somebody without the key; none opens, however they are cut."""
    _, receiver = _pair(into=HAS_INTO)
    _, copying = _pair(into=False)

    opened = same_however_cut(data, iter((_opener(receiver), _opener(copying))).__next__, _joined)
    assert opened.events in ([], [b""])
    return "waiting"


def _joined(events: list[bytes]) -> list[bytes]:
    return [b"".join(events)]


def _opener(session: Session) -> Callable[[bytes], list[bytes]]:
    return lambda piece: [bytes(_opened_into(session, piece) if len(piece) & 1 else session.open(piece))]


def _record_seeds() -> list[bytes]:
    pieces = [bytes([at, 2, 65, at, 66, at]) for at in range(len(SIZES))]
    heads = (0, 1, 0x86, 0x87, 0x81)
    changes = (b"\3\0\0\1\xff", b"\3\0\2\1\1", b"\1\0\x20", b"\0\0\0\2\0\0\1", b"\3\0\0\2\0\1", b"\4")
    return [
        bytes([head]) + a + b + change
        for head in heads
        for (a, b), change in zip(pairwise(pieces), changes * 2, strict=False)
    ]


assert TAG == 16, "the seeds below are made for this"

NOISE = (
    Target("wire.noise.garbage", _garbage, _garbage_seeds, share=0.3, max_input=MAX_HANDSHAKE_MESSAGE + 64),
    Target(
        "wire.noise.lies",
        _lies,
        _lie_seeds,
        declared=(ProtocolViolation, WrongPeer),
        mutate=lambda random, data, other: data[:1] + mutation.protobuf(random, data[1:], other[1:]),
        share=0.2,
        max_input=3900,
    ),
    Target("wire.noise.tampered", _tampered, _tamper_seeds, share=0.2, max_input=512),
    Target("wire.noise.static", _low_order, lambda: [bytes([at]) + bytes(40) for at in (0, 128, 129, 130)], share=0.1),
    Target("wire.noise.records", _records, _record_seeds, share=0.5, max_input=256, memory=100_000),
    Target(
        "wire.noise.record_garbage",
        _record_garbage,
        lambda: [b"\0\x10" + bytes(16), b"\0\x0f", b"\xff\xff" + bytes(100), b"\0\x20" + bytes(31), b"\0"],
        max_input=70_000,
    ),
)
