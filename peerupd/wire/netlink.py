"""The kernel's list of interface addresses, asked over rtnetlink: one question, a dump in several messages.

Numbers are in the byte order of the machine (rtnetlink(7), netlink(7), linux/if_addr.h). The kernel answers in
datagrams of some kilobytes, each with whole messages, and ends the dump with NLMSG_DONE.
"""

from __future__ import annotations

import errno
import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from peerupd.model.addresses import IpAddress
from peerupd.model.errors import ProtocolViolation

MAX_DATAGRAM: Final = 1 << 16  # bytes; the kernel's dumps use at most 32 KiB at a time

SCOPE_GLOBAL: Final = 0
SCOPE_LINK: Final = 253
SCOPE_HOST: Final = 254
FLAG_TEMPORARY: Final = 0x01
FLAG_DEPRECATED: Final = 0x20
FLAG_TENTATIVE: Final = 0x40

_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ADDRESS: Final = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, interface index
_ATTRIBUTE: Final = struct.Struct("=HH")  # rtattr: length, type
_NUMBER: Final = struct.Struct("=I")
_SIGNED: Final = struct.Struct("=i")

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_RTM_NEWADDR: Final = 20
_RTM_GETADDR: Final = 22
_REQUEST_DUMP: Final = 0x001 | 0x300  # NLM_F_REQUEST | NLM_F_DUMP
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_IFA_FLAGS: Final = 8
_FAMILIES: Final = {2: 4, 10: 16}  # AF_INET, AF_INET6: bytes of an address


@dataclass(frozen=True, slots=True)
class AddressSeen:
    """One address of one interface."""

    ip: IpAddress
    interface: int
    """The index of the interface."""
    scope: int
    """`SCOPE_GLOBAL`, `SCOPE_LINK`, `SCOPE_HOST`, or between."""
    flags: int
    """`FLAG_TEMPORARY` and the like."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one datagram told."""

    addresses: tuple[AddressSeen, ...]
    done: bool
    """Whether the dump is complete."""


def request(sequence: int = 1) -> bytes:
    """The question for all addresses of all interfaces."""
    body = _ADDRESS.pack(0, 0, 0, 0, 0)
    return _HEADER.pack(_HEADER.size + len(body), _RTM_GETADDR, _REQUEST_DUMP, sequence, 0) + body


def parse(data: bytes) -> Answer:
    """One datagram of the dump; raises `ProtocolViolation`, also when the kernel answers with an error."""
    if len(data) > MAX_DATAGRAM:
        raise ProtocolViolation(f"netlink: a datagram of {len(data)} bytes, wanted at most {MAX_DATAGRAM}")
    seen: list[AddressSeen] = []
    for kind, body in _messages(data):
        if kind == _NLMSG_DONE:
            return Answer(tuple(seen), done=True)
        if kind == _NLMSG_ERROR:
            _raise_error(body)
        if kind == _RTM_NEWADDR and (address := _address(body)) is not None:
            seen.append(address)
    return Answer(tuple(seen), done=False)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if len(data) - at < _HEADER.size:
            raise ProtocolViolation("netlink: a message header cut short")
        size, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if not _HEADER.size <= size <= len(data) - at:
            raise ProtocolViolation(f"netlink: a message of {size} bytes, where {len(data) - at} are left")
        yield kind, data[at + _HEADER.size : at + size]
        at += _aligned(size)


def _raise_error(body: bytes) -> None:
    """The error that the kernel answers with: a negative errno. Zero is an acknowledgement, not an error."""
    number = -_SIGNED.unpack_from(body)[0] if len(body) >= _SIGNED.size else 0
    if number != 0:
        name = errno.errorcode.get(number, str(number))
        raise ProtocolViolation(f"netlink: the kernel refused the list of addresses: {name}")


def _address(body: bytes) -> AddressSeen | None:
    """One RTM_NEWADDR; None for families other than IP and for one that carries no address."""
    if len(body) < _ADDRESS.size:
        raise ProtocolViolation("netlink: an address message cut short")
    family, _, flags, scope, interface = _ADDRESS.unpack_from(body)
    attributes = dict(_attributes(body[_ADDRESS.size :]))
    # IFA_ADDRESS is the far end where the link has one; our own is IFA_LOCAL (linux/if_addr.h).
    raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if family not in _FAMILIES or raw is None:
        return None
    if len(raw) != _FAMILIES[family]:
        raise ProtocolViolation(f"netlink: an address of {len(raw)} bytes")
    wide = attributes.get(_IFA_FLAGS, b"")
    if len(wide) == _NUMBER.size:
        flags = _NUMBER.unpack(wide)[0]
    return AddressSeen(ipaddress.ip_address(raw), interface, scope, flags)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if len(data) - at < _ATTRIBUTE.size:
            raise ProtocolViolation("netlink: an attribute cut short")
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= size <= len(data) - at:
            raise ProtocolViolation(f"netlink: an attribute of {size} bytes, where {len(data) - at} are left")
        yield kind, data[at + _ATTRIBUTE.size : at + size]
        at += _aligned(size)


def _aligned(size: int) -> int:
    """The next multiple of four (NLMSG_ALIGN, RTA_ALIGN)."""
    return (size + 3) & ~3
