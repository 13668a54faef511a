"""Call a peer at several addresses at once: staggered starts, the first that proves to be the peer wins.

Only plain TCP is dialled; circuits and other transports are the business of others and skipped here. The text of a
failure names every address and why it did not do.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import trio

from peerupd.model.addresses import Multiaddr
from peerupd.model.counters import DIALS, Counters
from peerupd.model.errors import GateRefused, PeerupError, RelayRefused, TimedOut, Unreachable, WrongPeer
from peerupd.model.names import PeerId
from peerupd.model.snapshots import PathKind
from peerupd.p2p.tcp import TcpStream

log = logging.getLogger(__name__)

STAGGER: Final = 0.25  # seconds between two starts; a failure starts the next one at once
DIAL_LIMIT: Final = 10.0  # seconds for one address, handshake included
MAX_DIALLED: Final = 16  # addresses of one race

_FAMILIES: Final = {"dns": socket.AF_UNSPEC, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}

T = TypeVar("T")
Attempt = Callable[[Multiaddr], Awaitable[T]]


@contextmanager
def counted(counters: Counters, path: PathKind) -> Iterator[None]:
    """Count the dial that the block is, by how it ends."""
    try:
        yield
    except BaseException as why:
        counters.count(DIALS, path_type=str(path), result=_result(why))
        raise
    counters.count(DIALS, path_type=str(path), result="success")


def _result(why: BaseException) -> str:
    match why:
        case GateRefused() | RelayRefused():
            return "refused"
        case WrongPeer():
            return "wrong_peer"
        case TimedOut():
            return "timeout"
        case trio.Cancelled():
            return "called_off"
    return "failure"


async def race(peer: PeerId, addresses: Sequence[Multiaddr], attempt: Attempt[T], lose: Callable[[T], None]) -> T:
    """What `attempt` made of the first address that did; `lose` gets a second winner.

    Raises `Unreachable`, or, when that is the news, `GateRefused` or `WrongPeer`.
    """
    runners = list(dict.fromkeys(a.without_peer() for a in addresses if a.is_plain_tcp))[:MAX_DIALLED]
    won: list[T] = []
    failures: list[tuple[Multiaddr, Exception]] = []

    async def run(address: Multiaddr, over: trio.Event) -> None:
        try:
            made = await _limited(attempt, address)
        except (PeerupError, trio.BrokenResourceError, trio.ClosedResourceError, OSError) as why:
            failures.append((address, why))
            over.set()
            return
        except Exception as bug:  # what a peer says must not end us, whatever it finds
            log.exception("a bug ended a dial to %s", address)
            failures.append((address, bug))
            over.set()
            return
        won.append(made)
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in runners:
                over = trio.Event()
                nursery.start_soon(run, address, over)
                with trio.move_on_after(STAGGER):
                    await over.wait()
    except BaseException:  # cancelled after somebody won: nobody will take it
        for made in won:
            lose(made)
        raise
    for late in won[1:]:
        lose(late)
    if won:
        return won[0]
    raise _summary(peer, failures)


async def _limited(attempt: Attempt[T], address: Multiaddr) -> T:
    try:
        with trio.fail_after(DIAL_LIMIT):
            return await attempt(address)
    except trio.TooSlowError:
        raise TimedOut(f"no answer within {DIAL_LIMIT:.0f} s") from None


def _summary(peer: PeerId, failures: Sequence[tuple[Multiaddr, Exception]]) -> PeerupError:
    if not failures:
        return Unreachable(f"no TCP address of {peer} is known")
    reasons = [why for _, why in failures]
    text = f"cannot reach {peer}: " + ", ".join(f"{address}: {_words(why)}" for address, why in failures)
    if refusal := next((why for why in reasons if isinstance(why, GateRefused)), None):
        return GateRefused(text, hint=refusal.hint)
    return WrongPeer(text) if all(isinstance(why, WrongPeer) for why in reasons) else Unreachable(text)


def _words(why: Exception) -> str:
    if isinstance(why, PeerupError):
        return why.message
    return (isinstance(why, OSError) and why.strerror) or str(why) or type(why).__name__


async def connect(address: Multiaddr) -> TcpStream:
    """A TCP connection; names are resolved, their addresses tried in order. Raises `OSError`."""
    failure: OSError | None = None
    for family, where in await _resolve(address):
        try:
            return await _connect(family, where)
        except OSError as why:
            failure = why
    raise failure or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))


async def _resolve(address: Multiaddr) -> list[tuple[int, tuple[str, int]]]:
    host, port = address.host or "", address.port or 0
    if (ip := address.ip) is not None:
        return [(socket.AF_INET if ip.version == 4 else socket.AF_INET6, (str(ip), port))]
    family = _FAMILIES[address.parts[0][0]]
    try:
        found = await trio.socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except UnicodeError:  # a peer may tell any text as its name, and IDNA cannot write every text
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    return [(kind, (str(where[0]), int(where[1]))) for kind, _, _, _, where in found]


async def _connect(family: int, where: tuple[str, int]) -> TcpStream:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if (code := sock.connect_ex(where)) == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(sock.fileno())
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        return TcpStream(sock)
    except BaseException:
        sock.close()
        raise
