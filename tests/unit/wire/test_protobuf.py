"""The protobuf encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.errors import ProtocolViolation
from peerupd.wire.protobuf import MAX_FIELDS, Message, decode, field, read_varint, varint
from tests.support.strategies import fields


@given(st.integers(0, 2**64 - 1))
def test_a_varint_reads_back(number):
    assert read_varint(varint(number), 0) == (number, len(varint(number)))


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_number_that_no_varint_holds_is_a_bug_of_ours(number):
    with pytest.raises(ValueError, match="varint"):
        varint(number)


@given(fields())
def test_a_message_reads_back(content):
    assert decode(b"".join(field(number, value) for number, value in content)) == content


@given(st.binary(max_size=200))
def test_garbage_is_read_or_refused(data):
    try:
        content = decode(data)
    except ProtocolViolation:
        return
    assert len(content) <= len(data)


def test_encodings_of_the_protobuf_documentation():
    assert field(1, 150) == bytes.fromhex("089601")
    assert field(2, "testing") == bytes.fromhex("120774657374696e67")
    assert decode(memoryview(bytes.fromhex("089601120774657374696e67"))) == [(1, 150), (2, b"testing")]


def test_fixed_numbers_are_skipped():
    assert decode(b"\x0d1234" + b"\x1112345678" + field(3, 7)) == [(3, 7)]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x08", "cut short in a number"),
        (b"\x08\x96", "cut short in a number"),
        (b"\x08" + b"\x80" * 10, "longer than 10 bytes"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "above 64 bits"),
        (b"\x00\x00", "number 0"),
        (varint(2**29 << 3) + b"\x00", "number 536870912"),
        (b"\x12\x05abcd", "cut short"),
        (b"\x0d123", "cut short"),
        (b"\x111234567", "cut short"),
        (b"\x0b", "unknown type 3"),
        (b"\x0c", "unknown type 4"),
        (b"\x0f", "unknown type 7"),
    ],
)
def test_malformed_messages_are_refused(data, why):
    with pytest.raises(ProtocolViolation, match=why):
        decode(data)


def test_a_message_has_a_bounded_number_of_fields_even_skipped_ones():
    decode(field(1, 0) * MAX_FIELDS)
    with pytest.raises(ProtocolViolation, match="more than 4096 fields"):
        decode(field(1, 0) * (MAX_FIELDS + 1))
    with pytest.raises(ProtocolViolation, match="more than 2 fields"):
        Message(b"\x0d1234" * 3, limit=2)


def test_a_message_answers_field_by_field_and_the_last_one_counts():
    message = Message(field(1, 5) + field(2, b"a") + field(2, "ä") + field(1, 6))
    assert message.has(1)
    assert not message.has(3)
    assert (message.int(1), message.int(3), message.int(3, default=9)) == (6, 0, 9)
    assert (message.bytes(2), message.bytes(3), message.bytes(3, b"-")) == ("ä".encode(), b"", b"-")
    assert (message.text(2), message.text(3), message.text(3, "-")) == ("ä", "", "-")
    assert message.all_bytes(2) == [b"a", "ä".encode()]
    assert message.all_text(2) == ["a", "ä"]
    assert message.all_bytes(3) == []


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda message: message.int(2), "field 2: wanted a number"),
        (lambda message: message.bytes(1), "field 1: wanted bytes"),
        (lambda message: message.text(1), "field 1: wanted bytes"),
        (lambda message: message.bytes(2, limit=2), "field 2 has 3 bytes, at most 2"),
        (lambda message: message.text(2, limit=2), "field 2 has 3 bytes, at most 2"),
        (lambda message: message.text(3), "field 3 is not UTF-8"),
        (lambda message: message.all_bytes(3, limit_count=1), "field 3 comes 2 times, at most 1"),
        (lambda message: message.all_text(3, limit=0), "field 3 has 1 bytes, at most 0"),
    ],
)
def test_an_answer_of_another_type_or_size_is_a_violation(ask, why):
    message = Message(field(1, 1) + field(2, b"abc") + field(3, b"\xff") + field(3, b"\xff"))
    with pytest.raises(ProtocolViolation, match=why):
        ask(message)
