"""Learn who is there: multistream-select of `/noise`, then the Noise handshake, over any trio stream.

Nothing else is offered or accepted: a peer that begins with TLS is told `na` and may go on with Noise. What a stranger
can make us keep is bounded by the machines in `wire`; how long it takes, by the caller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from peerupd.model.errors import ConnectionLost
from peerupd.model.names import PeerId
from peerupd.trust.identity import Identity
from peerupd.wire import noise
from peerupd.wire.multistream import Dialer, Listener

READ: Final = 4096  # bytes asked for at once before the peer is known
FIRST: Final = 2 + noise.KEY  # bytes of the shortest first message of Noise: its length, a key


@dataclass(frozen=True, slots=True)
class Secured:
    """An authenticated peer, and the records to it."""

    peer: PeerId
    session: noise.Session
    leftover: bytes
    """What came after the handshake, for `session.open`."""


async def secure_outbound(stream: trio.abc.Stream, identity: Identity, expected: PeerId) -> Secured:
    """We called: raises `WrongPeer`, `ProtocolUnsupported`, `ProtocolViolation`, `ConnectionLost`, trio's errors.

    The first Noise message goes out together with the proposal: one round trip less.
    """
    dialer, handshake = Dialer([noise.PROTOCOL]), _handshake(identity, initiator=True, expected=expected)
    await stream.send_all(dialer.start() + handshake.start())
    while dialer.chosen is None:
        dialer.receive(await some(stream))
    return await _shake_hands(stream, handshake, dialer.leftover)


async def secure_inbound(stream: trio.abc.Stream, identity: Identity, turn: Callable[[], Awaitable[None]]) -> Secured:
    """We were called; `turn` is waited for once the caller has sent its key, before anything is computed for it.

    Raises `ProtocolViolation`, `ConnectionLost`, trio's errors.
    """
    listener = Listener({noise.PROTOCOL})
    while listener.chosen is None:
        if answer := listener.receive(await some(stream)):
            await stream.send_all(answer)
    early = listener.leftover
    while len(early) < FIRST:
        early += await some(stream)
    await turn()
    return await _shake_hands(stream, _handshake(identity, initiator=False), early)


async def some(stream: trio.abc.ReceiveStream) -> bytes | bytearray:
    """The next bytes; raises `ConnectionLost` at the end."""
    if data := await stream.receive_some(READ):
        return data
    raise ConnectionLost("the peer closed the connection during the handshake")


async def _shake_hands(stream: trio.abc.Stream, handshake: noise.Handshake, early: bytes) -> Secured:
    answer = handshake.receive(early)
    while True:
        if answer:
            await stream.send_all(answer)
        if handshake.done:
            return Secured(handshake.remote_peer, handshake.session, handshake.leftover)
        answer = handshake.receive(await some(stream))


def _handshake(identity: Identity, *, initiator: bool, expected: PeerId | None = None) -> noise.Handshake:
    return noise.Handshake(initiator=initiator, identity_key=identity.public_key, sign=identity.sign, expected=expected)
