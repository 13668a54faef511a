"""The Noise handshake and its records."""

from __future__ import annotations

from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection

from peerupd.model.errors import FrameTooLarge, ProtocolViolation, WrongPeer
from peerupd.wire.keys import KeyType, PublicKey
from peerupd.wire.noise import HAS_INTO, MAX_HANDSHAKE_MESSAGE, RECORD, TAG, Handshake, Session
from peerupd.wire.protobuf import Message, field
from tests.support.strategies import portions

ALICE, BOB = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
PATHS = [pytest.param(False, id="copied")] + [pytest.param(True, id="into")] * HAS_INTO


def _key(private: Ed25519PrivateKey) -> PublicKey:
    return PublicKey(KeyType.ED25519, private.public_key().public_bytes_raw())


def _handshake(private: Ed25519PrivateKey, *, initiator: bool, **more) -> Handshake:
    return Handshake(initiator=initiator, identity_key=_key(private), sign=private.sign, **more)


def _shake(alice: Handshake, bob: Handshake) -> None:
    bob.receive(alice.receive(bob.receive(alice.start())))


# -- the handshake -------------------------------------------------------------------------------------------------


@given(st.data())
def test_both_sides_know_each_other_afterwards_whatever_the_portions(data):
    alice, bob = _handshake(ALICE, initiator=True), _handshake(BOB, initiator=False)
    to_bob, to_alice = alice.start(), bob.start()
    while to_bob or to_alice:
        to_alice += b"".join(bob.receive(piece) for piece in data.draw(portions(to_bob)))
        to_bob = b"".join(alice.receive(piece) for piece in data.draw(portions(to_alice)))
        to_alice = b""
    assert alice.done
    assert bob.done
    assert (alice.remote_key, alice.remote_peer) == (_key(BOB), _key(BOB).peer_id)
    assert (bob.remote_key, bob.remote_peer) == (_key(ALICE), _key(ALICE).peer_id)
    assert bob.session.open(alice.session.seal(b"ping")) == b"ping"
    assert alice.session.open(bob.session.seal(b"pong")) == b"pong"


def test_records_that_come_with_the_last_message_are_left_over():
    alice, bob = _handshake(ALICE, initiator=True), _handshake(BOB, initiator=False)
    third = alice.receive(bob.receive(alice.start()))
    assert bob.receive(third + alice.session.seal(b"early")) == b""
    assert bob.session.open(bob.leftover) == b"early"


def test_the_expected_peer_is_accepted():
    alice = _handshake(ALICE, initiator=True, expected=_key(BOB).peer_id)
    _shake(alice, _handshake(BOB, initiator=False))
    assert alice.done


def test_somebody_else_is_refused_before_we_say_who_we_are():
    alice = _handshake(ALICE, initiator=True, expected=_key(ALICE).peer_id)
    bob = _handshake(BOB, initiator=False)
    second = bob.receive(alice.start())
    with pytest.raises(WrongPeer, match=f"but {_key(BOB).peer_id} answers"):
        alice.receive(second)
    assert not alice.done


@pytest.mark.parametrize(
    ("alices", "bobs", "agreed"),
    [
        (["/yamux/1.0.0", "/mplex"], ["/mplex", "/yamux/1.0.0"], "/yamux/1.0.0"),
        (["/yamux/1.0.0"], [], None),
        ([], ["/yamux/1.0.0"], None),
        (["/a"], ["/b"], None),
    ],
)
def test_the_muxer_is_the_initiators_first_that_both_know(alices, bobs, agreed):
    alice = _handshake(ALICE, initiator=True, muxers=alices)
    bob = _handshake(BOB, initiator=False, muxers=bobs)
    _shake(alice, bob)
    assert alice.muxer == bob.muxer == agreed


def test_another_prologue_is_another_conversation():
    alice = _handshake(ALICE, initiator=True, prologue=b"one")
    bob = _handshake(BOB, initiator=False, prologue=b"two")
    second = bob.receive(alice.start())
    with pytest.raises(ProtocolViolation, match="does not authenticate"):
        alice.receive(second)


def test_a_signature_by_another_key_is_refused():
    alice = _handshake(ALICE, initiator=True)
    mallory = Handshake(initiator=False, identity_key=_key(BOB), sign=ALICE.sign)
    second = mallory.receive(alice.start())
    with pytest.raises(ProtocolViolation, match="does not match its key"):
        alice.receive(second)


@given(st.integers(0, 1), st.integers(min_value=2), st.integers(1, 255))
def test_a_changed_byte_in_the_second_or_third_message_is_refused(which, at, change):
    alice, bob = _handshake(ALICE, initiator=True), _handshake(BOB, initiator=False)
    message, reader = bytearray(bob.receive(alice.start())), alice
    if which:
        message, reader = bytearray(alice.receive(message)), bob
    message[2 + at % (len(message) - 2)] ^= change
    with pytest.raises(ProtocolViolation):
        reader.receive(message)
    assert not reader.done


@pytest.mark.parametrize(
    "low_order",
    [bytes(32), b"\x01" + bytes(31), bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")],
)
@pytest.mark.parametrize("initiator", [True, False])
def test_a_point_that_makes_every_secret_zero_is_refused(low_order, initiator):
    machine = _handshake(ALICE, initiator=initiator)
    machine.start()
    message = low_order + bytes(64)
    with pytest.raises(ProtocolViolation, match="unusable X25519 key"):
        machine.receive(len(message).to_bytes(2, "big") + message)


@pytest.mark.parametrize("initiator", [True, False])
def test_a_message_cut_short_is_refused(initiator):
    machine = _handshake(ALICE, initiator=initiator)
    with pytest.raises(ProtocolViolation, match="cut short"):
        machine.receive(b"\x00\x1f" + bytes(31))
    machine = _handshake(ALICE, initiator=True)
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(ProtocolViolation, match="does not authenticate"):
        machine.receive(b"\x00\x20" + public)


def test_a_stranger_cannot_make_us_wait_for_much():
    machine = _handshake(ALICE, initiator=False)
    with pytest.raises(FrameTooLarge, match="4097 bytes, at most 4096"):
        machine.receive((MAX_HANDSHAKE_MESSAGE + 1).to_bytes(2, "big"))


@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_refused_or_waited_for(garbage, initiator):
    machine = _handshake(ALICE, initiator=initiator)
    machine.start()
    with suppress(ProtocolViolation):
        machine.receive(garbage)
    assert not machine.done


# -- against another implementation --------------------------------------------------------------------------------


class Oracle:
    """The `noiseprotocol` package in the shape of our handshake."""

    def __init__(self, *, initiator: bool) -> None:
        self.noise = NoiseConnection.from_name(b"Noise_XX_25519_ChaChaPoly_SHA256")
        if initiator:
            self.noise.set_as_initiator()
        else:
            self.noise.set_as_responder()
        static = X25519PrivateKey.generate()
        self.noise.set_keypair_from_private_bytes(Keypair.STATIC, static.private_bytes_raw())
        self.noise.start_handshake()
        self.static = static.public_key().public_bytes_raw()

    def say(self, *, who: bool = False) -> bytes:
        signature = BOB.sign(b"noise-libp2p-static-key:" + self.static)
        payload = field(1, _key(BOB).encode()) + field(2, signature) if who else b""
        message = bytes(self.noise.write_message(payload))
        return len(message).to_bytes(2, "big") + message

    def hear(self, message: bytes) -> bytes:
        return bytes(self.noise.read_message(message[2:]))


def test_our_initiator_understands_another_responder():
    ours, theirs = _handshake(ALICE, initiator=True), Oracle(initiator=False)
    assert theirs.hear(ours.start()) == b""
    who = Message(theirs.hear(ours.receive(theirs.say(who=True))))
    assert who.bytes(1) == _key(ALICE).encode()
    _exchange_records(ours, theirs)


def test_our_responder_understands_another_initiator():
    ours, theirs = _handshake(ALICE, initiator=False), Oracle(initiator=True)
    assert ours.start() == b""
    who = Message(theirs.hear(ours.receive(theirs.say())))
    assert who.bytes(1) == _key(ALICE).encode()
    assert ours.receive(theirs.say(who=True)) == b""
    _exchange_records(ours, theirs)


def _exchange_records(ours: Handshake, theirs: Oracle) -> None:
    assert ours.remote_peer == _key(BOB).peer_id
    for word in (b"one", b"two", b"three"):
        assert theirs.noise.decrypt(bytes(ours.session.seal(word)[2:])) == word
        sealed = theirs.noise.encrypt(word)
        assert ours.session.open(len(sealed).to_bytes(2, "big") + sealed) == word


# -- the records ---------------------------------------------------------------------------------------------------


def _sessions(*, into: bool) -> tuple[Session, Session]:
    here, there = b"h" * 32, b"t" * 32
    return Session(here, there, into=into), Session(there, here, into=into)


@pytest.mark.parametrize("into", PATHS)
@given(batches=st.lists(st.lists(st.binary(max_size=100), max_size=5), max_size=5), data=st.data())
def test_what_is_sealed_opens_in_order_whatever_the_portions(into, batches, data):
    near, far = _sessions(into=into)
    sealed = b"".join(near.seal(pieces) for pieces in batches)
    opened = b"".join(far.open(portion) for portion in data.draw(portions(sealed)))
    assert opened == b"".join(piece for pieces in batches for piece in pieces)


@pytest.mark.parametrize("into", PATHS)
@pytest.mark.parametrize("size", [0, 1, RECORD - 1, RECORD, RECORD + 1, 3 * RECORD, 1_000_000])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_amount_of_any_bytes_is_sealed(into, size, kind):
    near, far = _sessions(into=into)
    plain = bytes(range(256)) * (size // 256 + 1)
    sealed = near.seal(kind(plain[:size]))
    assert len(sealed) == size + -(-size // RECORD) * (2 + TAG)
    assert far.open(sealed) == plain[:size]


@pytest.mark.parametrize("portion", [1, 2, 3, 17, 1000, 33_000])
def test_large_records_open_from_any_portions(portion):
    near, far = _sessions(into=HAS_INTO)
    plain = bytes(100_000)
    sealed = near.seal(plain)
    opened = b"".join(far.open(sealed[at : at + portion]) for at in range(0, len(sealed), portion))
    assert opened == plain


@pytest.mark.parametrize(
    ("sizes", "records"),
    [
        ([12, 12, 12], 1),
        ([RECORD, RECORD], 2),
        ([12, RECORD, 12], 3),
        ([12, RECORD - 12, 12], 2),
        ([2 * RECORD + 1, 5], 4),
        ([0, 0], 0),
    ],
)
def test_small_pieces_share_a_record_and_whole_frames_keep_their_own(sizes, records):
    near, far = _sessions(into=HAS_INTO)
    pieces = [bytes([index]) * size for index, size in enumerate(sizes)]
    sealed = near.seal(pieces)
    assert len(sealed) == sum(sizes) + records * (2 + TAG)
    assert far.open(sealed) == b"".join(pieces)


@pytest.mark.parametrize("into", PATHS)
def test_a_record_that_was_changed_repeated_or_left_out_is_refused(into):
    near, far = _sessions(into=into)
    first, second = bytes(near.seal(b"first")), bytes(near.seal(b"second"))
    with pytest.raises(ProtocolViolation, match="does not authenticate"):
        _sessions(into=into)[1].open(second)
    with pytest.raises(ProtocolViolation, match="does not authenticate"):
        _sessions(into=into)[1].open(first[:-1] + bytes([first[-1] ^ 1]))
    far.open(first)
    with pytest.raises(ProtocolViolation, match="does not authenticate"):
        far.open(first)


@pytest.mark.parametrize("pieces", [[b"\x00\x0f"], [b"\x00", b"\x0f"]])
def test_a_record_without_room_for_its_tag_is_refused(pieces):
    _, far = _sessions(into=HAS_INTO)
    with pytest.raises(ProtocolViolation, match="record of 15 bytes"):
        for piece in pieces:
            far.open(piece)


@given(st.binary(max_size=100), st.data())
def test_garbage_never_opens(garbage, data):
    _, far = _sessions(into=HAS_INTO)
    with suppress(ProtocolViolation):
        for portion in data.draw(portions(garbage)):
            assert far.open(portion) == b""


@pytest.mark.parametrize("into", PATHS)
def test_what_lies_in_a_buffer_is_sealed_and_opened_there(into):
    near, far = _sessions(into=into)
    wire, plain = memoryview(bytearray(200)), memoryview(bytearray(200))
    wire[2:7] = b"first"
    end = near.seal_in_place(wire, 0, 5)
    end = near.seal_into(b"second", wire, end)
    assert end == 5 + 6 + 2 * (2 + TAG)
    assert far.open_into(wire[: end - 1], plain, 12) == 17
    assert far.open_into(wire[end - 1 : end], plain, 17) == 23
    assert bytes(plain[12:23]) == b"firstsecond"


def test_who_reads_in_portions_leaves_no_record_begun():
    near, far = _sessions(into=HAS_INTO)
    record, limit = RECORD + 2 + TAG, 4 * RECORD
    sealed = memoryview(near.seal(bytes(20 * RECORD)))
    far.open(sealed[:1])
    assert far.portion(limit) == limit
    far.open(sealed[1 : 2 * record + 100])
    assert far.portion(limit) == record - 100 + 3 * record
    far.open(sealed[2 * record + 100 : 2 * record + 100 + far.portion(limit)])
    assert far.portion(limit) == 3 * record
