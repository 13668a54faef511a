"""The kernel's list of addresses: what it really answers, and everything that it should never answer."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.errors import ProtocolViolation
from peerupd.wire.netlink import (
    FLAG_TEMPORARY,
    MAX_DATAGRAM,
    SCOPE_GLOBAL,
    SCOPE_HOST,
    AddressSeen,
    parse,
    request,
)

NEW_ADDRESS, DELETED_ADDRESS, DONE, ERROR = 20, 21, 3, 2
ADDRESS, LOCAL, LABEL, FLAGS = 1, 2, 3, 8


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body + bytes(-len(body) % 4)


def address(*attributes: bytes, family: int = 2, flags: int = 0x80, scope: int = 0, interface: int = 3) -> bytes:
    return message(NEW_ADDRESS, struct.pack("=BBBBI", family, 24, flags, scope, interface) + b"".join(attributes))


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def test_the_kernel_answers_with_the_loopback_address_and_an_end():
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.settimeout(5)
        link.send(request(7))
        seen: list[AddressSeen] = []
        while not (answer := parse(link.recv(MAX_DATAGRAM))).done:
            seen += answer.addresses
    loopback = next(one for one in seen if one.ip == ipaddress.ip_address("127.0.0.1"))
    assert (loopback.interface, loopback.scope) == (1, SCOPE_HOST)


def test_both_families_are_read_with_interface_scope_and_flags():
    answer = parse(
        address(attribute(ADDRESS, ip("192.0.2.1")), attribute(LABEL, b"eth0\0"))
        + address(attribute(ADDRESS, ip("2001:db8::1")), attribute(FLAGS, struct.pack("=I", 0x301)), family=10)
    )
    assert answer.addresses == (
        AddressSeen(ipaddress.ip_address("192.0.2.1"), 3, SCOPE_GLOBAL, 0x80),
        AddressSeen(ipaddress.ip_address("2001:db8::1"), 3, SCOPE_GLOBAL, 0x301),
    )
    assert answer.addresses[1].flags & FLAG_TEMPORARY
    assert not answer.done


def test_of_a_link_with_a_far_end_our_own_address_is_taken():
    answer = parse(address(attribute(ADDRESS, ip("192.0.2.2")), attribute(LOCAL, ip("192.0.2.1"))))
    assert [str(one.ip) for one in answer.addresses] == ["192.0.2.1"]


def test_what_is_not_an_ip_address_is_left_out():
    other_family = address(attribute(ADDRESS, b"\1\2"), family=7)
    answer = parse(other_family + address() + message(DELETED_ADDRESS, b"") + message(DONE, bytes(4)))
    assert answer.addresses == ()
    assert answer.done


def test_nothing_is_read_after_the_end():
    assert parse(message(DONE, b"") + b"junk").done


def test_an_error_of_the_kernel_is_named():
    with pytest.raises(ProtocolViolation, match="EPERM"):
        parse(message(ERROR, struct.pack("=i", -1) + bytes(16)))
    with pytest.raises(ProtocolViolation, match="4711"):
        parse(message(ERROR, struct.pack("=i", -4711)))


@pytest.mark.parametrize("body", [b"", struct.pack("=i", 0)])
def test_an_acknowledgement_is_no_error(body):
    assert not parse(message(ERROR, body)).done


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 8,
        struct.pack("=IHHII", 8, NEW_ADDRESS, 0, 0, 0),
        struct.pack("=IHHII", 17, NEW_ADDRESS, 0, 0, 0),
        message(NEW_ADDRESS, b"\2\0\0\0"),
        address(b"\0\0\0"),
        address(struct.pack("=HH", 3, ADDRESS)),
        address(struct.pack("=HH", 9, ADDRESS)),
        address(attribute(ADDRESS, b"\1\2\3\4\5")),
        bytes(MAX_DATAGRAM + 1),
    ],
)
def test_malformed_messages_are_refused(data):
    with pytest.raises(ProtocolViolation):
        parse(data)


ATTRIBUTES = st.lists(st.builds(attribute, st.integers(0, 10), st.binary(max_size=20)), max_size=4)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(lambda parts, family: address(*parts, family=family), ATTRIBUTES, st.sampled_from((2, 10, 7))),
        st.builds(message, st.integers(0, 30), st.binary(max_size=60)),
    )
)
def test_garbage_is_refused_or_read_but_nothing_else_happens(data):
    with contextlib.suppress(ProtocolViolation):
        parse(data)
