"""The addresses of this machine's interfaces, asked of the kernel over a raw netlink socket (rtnetlink(7))."""

from __future__ import annotations

import fcntl
import logging
import socket
import struct
from collections.abc import Iterator
from typing import Final

from peerupd.model.addresses import IpAddress
from peerupd.model.errors import ProtocolViolation
from peerupd.wire import netlink
from peerupd.wire.netlink import AddressSeen

ANSWER_TIMEOUT: Final = 1.0  # seconds for each datagram of the kernel
MAX_DATAGRAMS: Final = 256

_SIOCGIFFLAGS: Final = 0x8913  # netdevice(7)
_IFREQ: Final = struct.Struct("16sH22x")  # ifreq: name, flags, the rest of the union
_IFF_UP: Final = 0x1

log = logging.getLogger(__name__)


def addresses() -> list[IpAddress]:
    """The IP addresses of all interfaces that are up, loopback included; without those of IPv6 that are link-local.

    Empty where the kernel does not tell.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as kernel:
            kernel.settimeout(ANSWER_TIMEOUT)
            seen = list(_dump(kernel))
        up = _up({address.interface for address in seen})
    except (OSError, ProtocolViolation) as why:
        log.warning("cannot list the addresses of this machine: %s, ignoring", why)
        return []
    return [address.ip for address in seen if address.interface in up and _is_usable(address)]


def _dump(kernel: socket.socket) -> Iterator[AddressSeen]:
    kernel.send(netlink.request())
    for _ in range(MAX_DATAGRAMS):
        answer = netlink.parse(kernel.recv(netlink.MAX_DATAGRAM))
        yield from answer.addresses
        if answer.done:
            return


def _is_usable(address: AddressSeen) -> bool:
    link_local = address.ip.version == 6 and address.ip.is_link_local
    return not link_local and not address.flags & netlink.FLAG_TENTATIVE


def _up(indexes: set[int]) -> set[int]:
    """Those of the interfaces that are up; one that has gone in the meantime is not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        return {index for index in indexes if _is_up(any_socket, index)}


def _is_up(any_socket: socket.socket, index: int) -> bool:
    try:
        request = _IFREQ.pack(socket.if_indextoname(index).encode(), 0)
        flags = _IFREQ.unpack(fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
    except OSError:
        return False
    return bool(flags & _IFF_UP)
