"""Length-prefixed frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.errors import FrameTooLarge, ProtocolViolation
from peerupd.wire.framing import FrameReader, frame
from tests.support.strategies import portions


@given(st.data(), st.lists(st.binary(max_size=300), max_size=8))
def test_frames_read_back_from_any_portions(data, bodies):
    reader = FrameReader(limit=300)
    got = [
        body
        for portion in data.draw(portions(b"".join(map(frame, bodies))))
        for body in reader.receive(memoryview(portion))
    ]
    assert got == bodies
    assert reader.pending == b""


@given(st.data(), st.binary(max_size=200))
def test_garbage_is_read_waited_for_or_refused_whatever_its_portions(data, garbage):
    assert _read([garbage]) == _read(data.draw(portions(garbage)))


def _read(pieces):
    reader, got = FrameReader(limit=64), []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (body := reader.next()) is not None:
                got.append(body)
    except ProtocolViolation as why:
        return [*got, type(why)]
    return got


def test_what_follows_the_last_frame_taken_out_is_pending():
    reader = FrameReader(limit=10)
    reader.feed(frame(b"status") + b"\xff\xff\xff raw bytes")
    assert reader.next() == b"status"
    assert reader.pending == b"\xff\xff\xff raw bytes"


def test_a_length_above_the_limit_is_refused_before_the_body():
    with pytest.raises(FrameTooLarge, match="frame of 11 bytes, at most 10"):
        FrameReader(limit=10).receive(b"\x0b")


def test_a_length_that_never_ends_is_refused():
    reader = FrameReader(limit=10)
    assert reader.receive(b"\x80" * 4) == []
    with pytest.raises(ProtocolViolation, match="longer than 5 bytes"):
        reader.receive(b"\x80")
