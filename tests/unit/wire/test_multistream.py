"""Protocol negotiation, both roles."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.errors import FrameTooLarge, ProtocolUnsupported, ProtocolViolation
from peerupd.wire.framing import frame
from peerupd.wire.multistream import MAX_PROPOSALS, Dialer, Listener
from tests.support.strategies import portions, protocols

HEADER = b"\x13/multistream/1.0.0\n"
NA = b"\x03na\n"


def _line(text: str) -> bytes:
    return frame(text.encode() + b"\n")


@given(st.lists(protocols(), min_size=1, max_size=6, unique=True), st.sets(protocols(), max_size=4), st.data())
def test_both_sides_agree_on_the_first_proposal_that_the_listener_speaks(wanted, others, data):
    spoken = others | set(data.draw(st.lists(st.sampled_from(wanted), max_size=3)))
    dialer, listener = Dialer(wanted), Listener(spoken)
    shared = next((name for name in wanted if name in spoken), None)
    if shared is None:
        with pytest.raises(ProtocolUnsupported):
            _talk(dialer, listener, data)
    else:
        _talk(dialer, listener, data)
    assert dialer.chosen == listener.chosen == shared


def _talk(dialer, listener, data):
    to_listener = dialer.start()
    while to_listener:
        to_dialer = b"".join(listener.receive(piece) for piece in data.draw(portions(to_listener)))
        to_listener = b"".join(dialer.receive(piece) for piece in data.draw(portions(to_dialer)))


def test_the_dialogue_on_the_wire():
    dialer, listener = Dialer(["/a", "/b"]), Listener({"/b"}.__contains__)
    assert dialer.start() == HEADER + _line("/a")
    assert listener.receive(HEADER + _line("/a")) == HEADER + NA
    assert dialer.receive(HEADER + NA) == _line("/b")
    assert listener.receive(_line("/b")) == _line("/b")
    assert dialer.receive(_line("/b") + b"first words") == b""
    assert (dialer.chosen, dialer.leftover) == ("/b", b"first words")


def test_a_lazy_dialer_may_send_its_payload_with_its_proposal():
    listener = Listener({"/a"})
    assert listener.receive(HEADER + _line("/a") + b"\xff payload") == HEADER + _line("/a")
    assert (listener.chosen, listener.leftover) == ("/a", b"\xff payload")


def test_ls_is_not_available():
    listener = Listener({"/a"})
    assert listener.receive(HEADER + _line("ls")) == HEADER + NA


def test_a_peer_that_speaks_none_of_them_is_named_by_what_was_asked_last():
    dialer = Dialer(["/a"])
    with pytest.raises(ProtocolUnsupported, match="does not speak /a"):
        dialer.receive(HEADER + NA)


def test_a_listener_does_not_hear_proposals_for_ever():
    listener = Listener(set())
    listener.receive(HEADER + _line("/x") * MAX_PROPOSALS)
    with pytest.raises(ProtocolViolation, match="more than 64 protocols"):
        listener.receive(_line("/x"))


@pytest.mark.parametrize("machine", [lambda: Dialer(["/a"]), lambda: Listener({"/a"})], ids=["dialer", "listener"])
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (_line("/multistream/2.0.0"), "wanted /multistream/1.0.0"),
        (frame(b"/multistream/1.0.0"), "without a line's end"),
        (frame(b"\xff\n"), "not UTF-8"),
        (b"\x80\x80\x80\x80\x80", "longer than 5 bytes"),
    ],
)
def test_what_is_no_greeting_is_a_violation(machine, data, why):
    with pytest.raises(ProtocolViolation, match=why):
        machine().receive(data)


def test_a_message_has_at_most_1024_bytes():
    with pytest.raises(FrameTooLarge):
        Listener({"/a"}).receive(HEADER + b"\x81\x08")


def test_an_answer_that_was_not_asked_for_is_a_violation():
    with pytest.raises(ProtocolViolation, match="got '/b'"):
        Dialer(["/a"]).receive(HEADER + _line("/b"))


@given(st.binary(max_size=100), st.data())
def test_garbage_is_a_violation_or_waited_for(garbage, data):
    for machine in (Dialer(["/a"]), Listener({"/a"})):
        with suppress(ProtocolViolation, ProtocolUnsupported):
            for piece in data.draw(portions(HEADER + garbage)):
                machine.receive(piece)
