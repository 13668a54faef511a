import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.errors import FrameTooLarge, ProtocolViolation
from peerupd.wire.chunks import END, HEADER, MAX_CHUNK, ChunkReader, header


def chunked(*parts: bytes) -> bytes:
    return b"".join(header(len(part)) + part for part in parts)


@given(st.lists(st.binary(min_size=1, max_size=50)), st.data())
def test_content_comes_out_whole_however_it_is_split(parts, data):
    wire, whole = chunked(*parts) + END, b"".join(parts)
    reader, got, at = ChunkReader(), b"", 0
    while at < len(wire):
        assert not reader.ended
        size = data.draw(st.integers(1, len(wire) - at))
        got += reader.receive(wire[at : at + size])
        assert whole.startswith(got)
        at += size
    assert (got, reader.ended) == (whole, True)


@given(st.lists(st.binary(min_size=1, max_size=50)))
def test_who_reads_what_is_wanted_gets_each_chunk_in_one_piece(parts):
    wire, reader, pieces, at = chunked(*parts) + END, ChunkReader(), [], 0
    while not reader.ended:
        at, start = at + reader.wanted, at
        if piece := reader.receive(memoryview(wire)[start:at]):
            pieces.append(piece)
    assert (pieces, at) == (parts, len(wire))


def test_without_the_clean_end_it_has_not_ended():
    reader = ChunkReader()
    assert reader.receive(chunked(b"all of it")) == b"all of it"
    assert reader.receive(b"\0\0\0") == b""
    assert not reader.ended


def test_nothing_follows_the_end():
    reader = ChunkReader()
    with pytest.raises(ProtocolViolation, match="1 bytes behind the end"):
        reader.receive(END + b"x")


def test_a_chunk_has_a_largest_size():
    assert ChunkReader().receive(header(MAX_CHUNK) + b"x") == b"x"
    with pytest.raises(FrameTooLarge, match="at most 1048576"):
        ChunkReader().receive(header(MAX_CHUNK + 1))


@given(st.binary())
def test_junk_is_refused_or_carried_and_never_kept(junk):
    reader = ChunkReader()
    try:
        content = reader.receive(junk)
    except (ProtocolViolation, FrameTooLarge):
        return
    assert len(content) <= len(junk)
    assert len(reader._header) < HEADER
