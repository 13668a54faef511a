"""Identify: what a peer says of itself, cut to size."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import ProtocolViolation
from peerupd.model.names import printable
from peerupd.wire.envelope import MAX_ADDRESSES
from peerupd.wire.identify import MAX_IDENTIFY, MAX_MESSAGES, MAX_PROTOCOLS, MAX_TEXT, Identify
from peerupd.wire.protobuf import decode, field
from tests.support.strategies import multiaddrs, public_keys

ADDRESS = Multiaddr.parse("/ip4/192.0.2.1/tcp/4001")
OTHER = Multiaddr.parse("/ip6/::1/tcp/4001")
TEXTS = st.text(max_size=MAX_TEXT).map(lambda text: printable(text, MAX_TEXT))


def identifies() -> st.SearchStrategy[Identify]:
    return st.builds(
        Identify,
        protocol_version=TEXTS,
        agent_version=TEXTS,
        public_key=st.none() | public_keys(),
        listen_addrs=st.lists(multiaddrs(), max_size=5).map(tuple),
        observed_addr=st.none() | multiaddrs(),
        protocols=st.lists(TEXTS, max_size=5).map(tuple),
        signed_record=st.binary(max_size=100),
    )


@given(identifies())
def test_an_identify_comes_back(identify):
    assert Identify.decode(identify.encode()) == identify


@given(identifies())
def test_fields_are_written_in_the_order_of_their_numbers(identify):
    numbers = [number for number, _ in decode(identify.encode())]
    assert numbers == sorted(numbers)


@given(identifies(), st.integers(0, 9))
def test_an_identify_in_several_messages_is_one(identify, cut):
    fields = [field(number, value) for number, value in decode(identify.encode())]
    messages = [b"".join(fields[:cut]), b"".join(fields[cut:])]
    assert Identify.merge(messages) == identify


def test_in_several_messages_lists_grow_and_the_last_single_value_counts():
    first = Identify(agent_version="old", listen_addrs=(ADDRESS,), protocols=("/a",))
    second = Identify(agent_version="new", listen_addrs=(OTHER,), protocols=("/b",))
    merged = Identify.merge([first.encode(), second.encode()])
    assert merged == Identify(agent_version="new", listen_addrs=(ADDRESS, OTHER), protocols=("/a", "/b"))


def test_too_many_messages_are_refused():
    with pytest.raises(ProtocolViolation, match=str(MAX_MESSAGES)):
        Identify.merge([b""] * (MAX_MESSAGES + 1))


def test_a_huge_identify_is_refused_unread():
    with pytest.raises(ProtocolViolation, match=str(MAX_IDENTIFY)):
        Identify.decode(bytes(MAX_IDENTIFY + 1))
    with pytest.raises(ProtocolViolation, match=str(MAX_IDENTIFY)):
        Identify.merge([bytes(MAX_IDENTIFY // 2)] * 3)


def test_addresses_that_are_not_understood_are_left_out_and_too_many_are_cut():
    data = field(2, b"\xff\x7f") + field(2, ADDRESS.to_bytes()) + field(2, b"") + field(4, b"\xff\x7f")
    assert Identify.decode(data) == Identify(listen_addrs=(ADDRESS,))
    assert len(Identify.decode(field(2, ADDRESS.to_bytes()) * 100).listen_addrs) == MAX_ADDRESSES


def test_texts_are_cut_and_made_printable():
    agent = Identify.decode(field(6, "go\x1b[31m" + "x" * 1000)).agent_version
    assert agent.startswith("go\N{REPLACEMENT CHARACTER}[31m")
    assert len(agent) == MAX_TEXT


def test_protocol_names_that_cannot_be_shown_are_left_out():
    assert Identify.decode(field(3, "/a\n") + field(3, "/b")).protocols == ("/b",)


@pytest.mark.parametrize(
    "data",
    [
        field(3, "/p") * (MAX_PROTOCOLS + 1),
        field(3, b"x" * 1025),
        field(3, b"\xff"),
        field(6, b"\xff"),
        field(1, b""),
        field(1, b"junk"),
        field(2, 7),
        b"\xff",
    ],
)
def test_what_no_peer_would_send_is_refused(data):
    with pytest.raises(ProtocolViolation):
        Identify.decode(data)


FIELDS = st.lists(st.builds(field, st.integers(1, 9), st.one_of(st.binary(max_size=60), st.integers(0, 2**64 - 1))))


@given(st.one_of(st.binary(max_size=200), FIELDS.map(b"".join)))
def test_garbage_is_refused_or_read_but_nothing_else_happens(data):
    with contextlib.suppress(ProtocolViolation):
        Identify.decode(data)
