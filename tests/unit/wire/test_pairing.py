"""The pairing dialogue: peer-up's vectors, any split of the bytes, and who learns what when something is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.errors import InviteRefused, PairingMismatch, ProtocolViolation
from peerupd.wire import pairing
from peerupd.wire.pairing import (
    MAX_FRAME,
    MIN_FRAME,
    NONCE_SIZE,
    DataToSend,
    Inviter,
    Joiner,
    JoinerProved,
    Paired,
    State,
    Step,
    hchacha20,
    seal,
    unseal,
)
from tests.support.strategies import peer_names, portions

TOKEN = bytes(range(0xA0, 0xA8))
OTHER_TOKEN = bytes(8)
NONCE = bytes(range(NONCE_SIZE))
JOINER_PUBLIC = bytes.fromhex("07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c")
INVITER_PUBLIC = bytes.fromhex("64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466")
KEY = bytes.fromhex("de8c5dd3e0f6de58c9f7cf33cc7159c18fe7098bec2ddd01ce8c06c76138ced3")
LAPTOP = bytes.fromhex(
    "002e000102030405060708090a0b0c0d0e0f10111213141516175303315825f10e1198c76cc7271ecd301edad0cc2f42"
)
OK_HOME = bytes.fromhex(
    "002f000102030405060708090a0b0c0d0e0f10111213141516177029614425ece5f06e0a91db48428c8c2619a88772159f"
)
EMPTY = bytes.fromhex("0028000102030405060708090a0b0c0d0e0f1011121314151617eeea1dad523eb1a51cfa056cfe4ee681")


def joiner(name: str = "laptop", token: bytes = TOKEN) -> Joiner:
    return Joiner(token, name, private_key=bytes(range(0x01, 0x21)), nonce=lambda: NONCE)


def inviter(name: str = "home", token: bytes = TOKEN) -> Inviter:
    return Inviter(token, name, private_key=bytes(range(0x41, 0x61)), nonce=lambda: NONCE)


def frame(text: bytes, key: bytes = KEY) -> bytes:
    body = seal(key, NONCE, text)
    return len(body).to_bytes(2, "big") + body


def inviter_with_key() -> Inviter:
    machine = inviter()
    machine.receive(b"\x01" + JOINER_PUBLIC)
    return machine


def joiner_with_key() -> Joiner:
    machine = joiner()
    machine.receive(INVITER_PUBLIC)
    return machine


# -- the way that leads to the end ---------------------------------------------------------------------------------


def test_the_dialogue_is_byte_for_byte_that_of_peer_up():
    home, laptop = inviter(), joiner()
    assert home.start() == b""
    assert laptop.start() == b"\x01" + JOINER_PUBLIC
    assert home.receive(laptop.start()) == [DataToSend(INVITER_PUBLIC)]
    assert laptop.receive(INVITER_PUBLIC) == [DataToSend(LAPTOP)]
    assert home.receive(LAPTOP) == [JoinerProved("laptop")]
    assert home.accept() == OK_HOME
    assert laptop.receive(OK_HOME) == [Paired("home")]
    assert (home.state, laptop.state) == (State.DONE, State.DONE)


def test_an_empty_name_is_sealed_as_peer_up_seals_it():
    machine = joiner(name="")
    assert machine.receive(INVITER_PUBLIC) == [DataToSend(EMPTY)]
    assert inviter_with_key().receive(EMPTY) == [JoinerProved("")]


@given(peer_names(), peer_names())
def test_with_fresh_keys_and_nonces_both_sides_learn_the_others_name(theirs, ours):
    home, laptop = Inviter(TOKEN, ours), Joiner(TOKEN, theirs)
    [shown] = home.receive(laptop.start())
    [proof] = laptop.receive(shown.data)
    assert home.receive(proof.data) == [JoinerProved(theirs)]
    assert laptop.receive(home.accept()) == [Paired(ours)]


@given(portions(b"\x01" + JOINER_PUBLIC + LAPTOP))
def test_any_split_of_the_joiners_bytes_means_the_same(chunks):
    machine = inviter()
    assert [event for chunk in chunks for event in machine.receive(chunk)] == [
        DataToSend(INVITER_PUBLIC),
        JoinerProved("laptop"),
    ]


@given(portions(INVITER_PUBLIC + OK_HOME))
def test_any_split_of_the_inviters_bytes_means_the_same(chunks):
    machine = joiner()
    assert [event for chunk in chunks for event in machine.receive(chunk)] == [DataToSend(LAPTOP), Paired("home")]


def test_names_are_sanitised_on_their_way_in_and_out():
    assert inviter_with_key().receive(frame(b"lap\x1b[31m top\xff\n")) == [JoinerProved("lap31mtop")]
    assert joiner_with_key().receive(frame(b"OK  my; home\n")) == [Paired("myhome")]
    assert joiner(name="lap top").receive(INVITER_PUBLIC) == [DataToSend(LAPTOP)]


def test_what_comes_after_the_last_message_is_not_read():
    home = inviter_with_key()
    assert home.receive(LAPTOP + b"junk") == [JoinerProved("laptop")]
    assert home.receive(b"junk") == []
    assert home.accept() == OK_HOME
    laptop = joiner_with_key()
    assert laptop.receive(OK_HOME + b"junk") == [Paired("home")]
    assert laptop.receive(b"junk") == []


# -- wrong guesses and refusals ------------------------------------------------------------------------------------


def test_a_joiner_with_another_code_is_a_wrong_guess():
    home, guesser = inviter(), joiner(token=OTHER_TOKEN)
    [shown] = home.receive(guesser.start())
    [proof] = guesser.receive(shown.data)
    with pytest.raises(PairingMismatch):
        home.receive(proof.data)
    assert home.state is State.FAILED


def test_an_inviter_with_another_code_is_not_believed():
    laptop = joiner_with_key()
    with pytest.raises(PairingMismatch):
        laptop.receive(frame(b"OK home", key=bytes(32)))
    assert laptop.state is State.FAILED


def test_a_refusal_says_who_refused_and_is_printable():
    home = inviter_with_key()
    home.receive(LAPTOP)
    answer = home.refuse()
    assert answer == frame(b"ERR server error")
    with pytest.raises(InviteRefused, match="server error"):
        joiner_with_key().receive(answer)
    with pytest.raises(InviteRefused) as refused:
        joiner_with_key().receive(frame(b"ERR \x1b[2J"))
    assert "\x1b" not in str(refused.value)


def test_the_inviter_seals_nothing_before_the_joiner_has_proved_itself():
    for machine in (inviter(), inviter_with_key()):
        with pytest.raises(KeyError):
            machine.accept()
        with pytest.raises(KeyError):
            machine.refuse()


def test_an_answer_is_given_once():
    home = inviter_with_key()
    home.receive(LAPTOP)
    home.accept()
    with pytest.raises(KeyError):
        home.accept()


def test_an_inviter_that_ends_after_the_proof_did_not_recognise_the_code():
    with pytest.raises(PairingMismatch):
        joiner_with_key().closed()


def test_an_inviter_that_ends_before_its_key_has_refused():
    with pytest.raises(InviteRefused):
        joiner().closed()


def test_an_end_after_the_answer_is_no_trouble():
    laptop = joiner_with_key()
    laptop.receive(OK_HOME)
    laptop.closed()


# -- junk ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"\x00", b"\x02", b"a0a1a2a3a4a5a6a7 laptop\n", b"\xff" * 100])
def test_an_unknown_first_byte_is_junk_at_once(first):
    with pytest.raises(ProtocolViolation, match="unknown version"):
        inviter().receive(first)


@pytest.mark.parametrize("size", [0, 1, MIN_FRAME - 1, MAX_FRAME + 1, 65535])
def test_a_frame_of_a_wrong_size_is_junk_and_not_a_guess(size):
    for machine in (inviter_with_key(), joiner_with_key()):
        with pytest.raises(ProtocolViolation, match=f"a frame of {size} bytes"):
            machine.receive(size.to_bytes(2, "big"))


@pytest.mark.parametrize("size", [MIN_FRAME, MAX_FRAME])
def test_a_frame_that_does_not_open_is_a_guess_when_it_is_whole(size):
    machine = inviter_with_key()
    assert machine.receive(size.to_bytes(2, "big") + bytes(size - 1)) == []
    with pytest.raises(PairingMismatch):
        machine.receive(b"\0")


def test_a_key_that_gives_no_secret_is_junk():
    with pytest.raises(ProtocolViolation, match="without a secret"):
        inviter().receive(b"\x01" + bytes(32))
    with pytest.raises(ProtocolViolation, match="without a secret"):
        joiner().receive(bytes(32))


def test_our_own_key_sent_back_is_junk():
    with pytest.raises(ProtocolViolation, match="our own key"):
        joiner().receive(JOINER_PUBLIC)


def test_an_answer_that_is_neither_ok_nor_err_is_junk():
    with pytest.raises(ProtocolViolation, match="neither OK nor ERR"):
        joiner_with_key().receive(frame(b"maybe"))


def test_after_a_failure_nothing_more_is_taken():
    machine = inviter()
    for _ in range(2):
        with pytest.raises(ProtocolViolation):
            machine.receive(b"\x00")


@given(
    st.lists(st.binary(max_size=200), max_size=6), st.sampled_from([inviter, inviter_with_key, joiner, joiner_with_key])
)
def test_garbage_raises_what_is_documented_and_nothing_else(chunks, make):
    machine = make()
    try:
        for chunk in chunks:
            machine.receive(chunk)
    except (ProtocolViolation, PairingMismatch):
        assert machine.state is State.FAILED


# -- tables and secrets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Joiner, Inviter])
def test_every_state_of_a_role_is_reached_and_ends(role):
    reached = {State.AWAITING_KEY} | {state for row in role.TRANSITIONS.values() for state in row.values()}
    assert set(role.TRANSITIONS) <= reached
    assert reached - set(role.TRANSITIONS) == {State.DONE, State.FAILED}
    assert {step for row in role.TRANSITIONS.values() for step in row} <= set(Step)


def test_no_secret_is_shown():
    for machine in (inviter_with_key(), joiner_with_key()):
        shown = repr(machine) + str(machine)
        assert KEY.hex() not in shown
        assert repr(TOKEN) not in shown


def test_the_session_key_is_that_of_peer_up():
    assert unseal(KEY, LAPTOP[2:]) == b"laptop"


def test_hchacha20_gives_the_key_of_the_draft():
    # draft-irtf-cfrg-xchacha-03, section 2.2.1
    key, nonce = bytes(range(32)), bytes.fromhex("000000090000004a0000000031415927")
    assert hchacha20(key, nonce).hex() == "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"


def test_xchacha20_poly1305_seals_as_python_opens():
    assert unseal(bytes(32), pairing.seal(bytes(32), NONCE, b"text")) == b"text"
