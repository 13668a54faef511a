"""Listening sockets: bind what was asked for, hand on what connects, survive a shortage of descriptors."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from typing import Final, NoReturn, TypeAlias

import trio

from peerupd.model.addresses import Multiaddr, tcp_multiaddr
from peerupd.model.errors import AddressInUse, EnvironmentalError, InvalidAddress

log = logging.getLogger(__name__)

BACKLOG: Final = 4096  # connections that the kernel completes before we take them, if it agrees
SHORTAGE_PAUSE: Final = 0.5  # seconds without accepting after the process ran out of descriptors or memory
SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
SHORTAGE_LOG_INTERVAL: Final = 60.0  # seconds
TURN: Final = 32  # connections taken before others may run

Welcome: TypeAlias = Callable[[socket.socket, str], None]
"""Gets a connection, and the IP address that it comes from."""


class Listener:
    """One listening TCP socket."""

    def __init__(self, address: Multiaddr) -> None:
        """Bind; raises `InvalidAddress`, `AddressInUse`, `EnvironmentalError`."""
        self._socket = _bound(address)
        host, port = self._socket.getsockname()[:2]
        self.address = tcp_multiaddr(host, port)  # with the port that the kernel chose
        self._told_at = -SHORTAGE_LOG_INTERVAL

    async def serve(self, welcome: Welcome) -> NoReturn:
        """Hand each connection to `welcome`, for ever."""
        with self._socket:
            while True:
                await trio.lowlevel.wait_readable(self._socket.fileno())
                await self._accept_some(welcome)

    async def _accept_some(self, welcome: Welcome) -> None:
        try:
            for _ in range(TURN):
                connected, where = self._socket.accept()
                welcome(connected, where[0])
        except BlockingIOError:
            pass
        except OSError as why:
            await self._after(why)

    async def _after(self, why: OSError) -> None:
        """A connection that died in the queue is nothing; without descriptors or memory we wait."""
        if why.errno not in SHORTAGES:
            return
        if trio.current_time() - self._told_at >= SHORTAGE_LOG_INTERVAL:
            self._told_at = trio.current_time()
            log.warning("cannot accept connections on %s: %s, retrying every %s s", self.address, why, SHORTAGE_PAUSE)
        await trio.sleep(SHORTAGE_PAUSE)


def _bound(address: Multiaddr) -> socket.socket:
    ip, port = address.ip, address.port
    if not address.is_plain_tcp or ip is None or port is None:
        raise InvalidAddress(f"cannot listen on {address}", hint="a listen address looks like /ip4/0.0.0.0/tcp/4001")
    sock = socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ip.version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((str(ip), port))
        sock.listen(BACKLOG)
    except OSError as why:
        sock.close()
        raise _explained(address, why) from why
    return sock


def _explained(address: Multiaddr, why: OSError) -> EnvironmentalError | InvalidAddress:
    if why.errno == errno.EADDRINUSE:
        return AddressInUse(f"cannot listen on {address}: another program uses it", hint="is a daemon running already?")
    if why.errno == errno.EADDRNOTAVAIL:
        return InvalidAddress(f"cannot listen on {address}: this machine has no such address")
    return EnvironmentalError(f"cannot listen on {address}: {why.strerror}")
