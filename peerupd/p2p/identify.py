"""Identify: tell peers who we are and where we listen, learn the same of them (`/ipfs/id/1.0.0` and its push).

On every admitted connection both sides ask once. When our addresses or protocols change, everybody connected is told,
after `SETTLE` seconds so that many changes make one message. What peers tell goes into the book; pushes are taken at
most `MAX_PUSHES` times a minute from one connection. What is served beyond the protocols that others would read is
served all the same: whoever asks for it by name gets it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn
from weakref import WeakKeyDictionary

import trio

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import FrameTooLarge, LimitReached, PeerupError, ProtocolUnsupported, TimedOut
from peerupd.model.logs import said
from peerupd.model.names import PeerId
from peerupd.p2p.book import MAX_ADDRESSES, Book, Entry
from peerupd.p2p.bulkhead import contained
from peerupd.p2p.connection import Connection
from peerupd.p2p.streams import Stream
from peerupd.trust.identity import Identity
from peerupd.wire.envelope import PeerRecord, seal_record
from peerupd.wire.framing import FrameReader, frame
from peerupd.wire.identify import MAX_IDENTIFY, MAX_PROTOCOLS, PROTOCOL, PUSH_PROTOCOL, Identify

log = logging.getLogger(__name__)

PROTOCOL_VERSION: Final = "peerup/2"
"""How our peers are told apart from Go ones, which take at most 64 streams of a protocol at a time."""
LIMIT: Final = 15.0  # seconds for one identify or push
SETTLE: Final = 0.2  # seconds between a change of ours and its push
MAX_PUSHES: Final = 10  # a minute, from one connection
MAX_SENT_ADDRESSES: Final = 64
SERVICES: Final = "/peerup/"  # how protocols of services begin


@dataclass(frozen=True, slots=True)
class Self:
    """What we say of ourselves; asked anew each time."""

    identity: Identity
    agent: str
    addresses: Callable[[], list[Multiaddr]]
    protocols: Callable[[], list[str]]


class Identifier:
    """Both sides of identify and of its push."""

    def __init__(self, own: Self, book: Book) -> None:
        self._own = own
        self._book = book
        self._changed = trio.Event()
        self._pushes: WeakKeyDictionary[Connection, list[float]] = WeakKeyDictionary()
        self._records = 0  # the number of the newest signed record
        self._left_out = 0  # protocols that had no room in what we told last

    # -- telling ---------------------------------------------------------------------------------------------------

    async def answer(self, stream: Stream) -> None:
        """Somebody asks who we are."""
        with trio.move_on_after(LIMIT):
            await self._tell(stream)

    async def _tell(self, stream: Stream) -> None:
        await stream.send_all(frame(self._message(stream.remote).encode()))
        await stream.send_eof()

    def _message(self, remote: Multiaddr) -> Identify:
        own = self._own
        addresses = tuple(own.addresses()[:MAX_SENT_ADDRESSES])
        return Identify(
            protocol_version=PROTOCOL_VERSION,
            agent_version=own.agent,
            public_key=own.identity.public_key,
            listen_addrs=addresses,
            observed_addr=remote,
            protocols=self._announced(own.protocols()),
            signed_record=self._record(addresses),
        )

    def _announced(self, served: list[str]) -> tuple[str, ...]:
        """As many as others read, those of libp2p first."""
        left_out = max(0, len(served) - MAX_PROTOCOLS)
        if left_out > self._left_out:
            told = said("identify.shortened", served=len(served), announced=MAX_PROTOCOLS)
            log.warning(
                "%d of %d protocols are served but not announced: others read %d",
                *(left_out, len(served), MAX_PROTOCOLS),
                extra=told,
            )
        self._left_out = left_out
        return tuple(sorted(served, key=lambda protocol: protocol.startswith(SERVICES))[:MAX_PROTOCOLS])

    def _record(self, addresses: tuple[Multiaddr, ...]) -> bytes:
        self._records = max(self._records + 1, time.time_ns())
        record = PeerRecord(self._own.identity.peer_id, self._records, addresses)
        return seal_record(record, self._own.identity.public_key, self._own.identity.sign)

    def changed(self) -> None:
        """Our addresses or protocols are others now."""
        self._changed.set()

    async def push(self, connections: Callable[[], list[Connection]]) -> NoReturn:
        """Tell everybody connected, whenever something has changed."""
        while True:
            await self._changed.wait()
            await trio.sleep(SETTLE)
            self._changed = trio.Event()
            async with trio.open_nursery() as nursery:
                for connection in connections():
                    if not connection.on_probation and connection.identified.is_set():
                        nursery.start_soon(contained, f"a push to {connection.peer}", self._push_to, connection)

    async def _push_to(self, connection: Connection) -> None:
        with trio.move_on_after(LIMIT):
            try:
                async with await connection.open_stream([PUSH_PROTOCOL]) as stream:
                    await self._tell(stream)
            except (PeerupError, trio.BrokenResourceError, trio.ClosedResourceError) as why:
                log.debug("%s was not told of a change of ours, ignoring: %s", connection.peer, why)

    # -- learning --------------------------------------------------------------------------------------------------

    async def ask(self, connection: Connection) -> None:
        """Learn who is there; whatever comes of it, `connection.identified` is set then."""
        try:
            await self._learn_from(connection)
        except (PeerupError, trio.BrokenResourceError, trio.ClosedResourceError) as why:
            level = logging.DEBUG if isinstance(why, ProtocolUnsupported) else logging.INFO
            log.log(level, "%s did not say who it is, ignoring: %s", connection.peer, why)
        except Exception:  # what a peer says of itself must not end us, whatever it finds
            log.exception("a bug ended the identification of %s", connection.peer)
        finally:
            connection.identified.set()

    async def _learn_from(self, connection: Connection) -> None:
        with trio.move_on_after(LIMIT):
            async with await connection.open_stream([PROTOCOL]) as stream:
                await stream.send_eof()
                self._learned(connection, await _received(stream))
            return
        raise TimedOut(f"identify took longer than {LIMIT:.0f} s")

    async def take_push(self, stream: Stream) -> None:
        """Somebody tells of a change; raises `LimitReached` when it does so too often."""
        now = trio.current_time()
        recent = [at for at in self._pushes.get(stream.connection, []) if now - at < 60]
        if len(recent) >= MAX_PUSHES:
            raise LimitReached(f"more than {MAX_PUSHES} identify pushes a minute")
        self._pushes[stream.connection] = [*recent, now]
        with trio.move_on_after(LIMIT):
            self._learned(stream.connection, await _received(stream))

    def _learned(self, connection: Connection, told: Identify) -> None:
        before = self._book.get(connection.peer)
        observed = before.observed if connection.relayed else _dialable(told.observed_addr) or before.observed
        self._book.put(
            connection.peer,
            Entry(
                agent=told.agent_version or before.agent,
                protocol_version=told.protocol_version or before.protocol_version,
                protocols=frozenset(told.protocols) or before.protocols,
                addresses=_usable(connection.peer, told.listen_addrs) or before.addresses,
                observed=observed,
                observed_inbound=before.observed_inbound if connection.relayed else connection.inbound,
            ),
        )


def _usable(peer: PeerId, addresses: tuple[Multiaddr, ...]) -> tuple[Multiaddr, ...]:
    """Without doubles and without `/p2p/<the peer itself>` at the end; an address of somebody else is left out."""
    own = (a if a.peer is None or a.is_circuit else a.without_peer() for a in addresses if a.peer in (None, peer))
    return tuple(dict.fromkeys(own))[:MAX_ADDRESSES]


def _dialable(seen: Multiaddr | None) -> Multiaddr | None:
    """An IP address and a TCP port, or nothing: we tell it on, and others call there."""
    return seen if seen is not None and seen.is_plain_tcp and seen.ip is not None else None


async def _received(stream: Stream) -> Identify:
    """All messages up to the end of the stream; raises `ProtocolViolation`, `FrameTooLarge`."""
    reader, size, messages = FrameReader(MAX_IDENTIFY), 0, list[bytes]()
    while data := await stream.receive_some():
        size += len(data)
        if size > MAX_IDENTIFY:
            raise FrameTooLarge(f"identify of more than {MAX_IDENTIFY} bytes")
        messages += reader.receive(data)
    return Identify.merge(messages)
