"""From bytes to a peer: secure, ask the gate, agree on yamux. Both directions; also what each stream begins with.

    inbound     multistream /noise ─ Noise ─ the gate ─ multistream /yamux/1.0.0 (in Noise) ─ Upgraded
    outbound    the same, without a gate: whom we call we chose

The gate stands before the multiplexer: who is refused has not opened a single stream. A peer that closes the
connection right after Noise most likely refused us; that is told with the line its owner has to run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from peerupd.model.errors import ConnectionLost, GateRefused
from peerupd.model.names import PeerId
from peerupd.p2p.secure import Secured, secure_inbound, secure_outbound, some
from peerupd.p2p.streams import Stream, StreamLost
from peerupd.trust.gate import Decision, Refuse
from peerupd.trust.identity import Identity
from peerupd.wire import yamux
from peerupd.wire.multistream import Dialer, Listener
from peerupd.wire.noise import Session

HANDSHAKE_LIMIT: Final = 10.0  # seconds, from the first byte to yamux
NEGOTIATION_LIMIT: Final = 10.0  # seconds to agree on the protocol of a stream
_READ: Final = 4096  # bytes


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A peer that was let in, or that we called."""

    peer: PeerId
    session: Session
    received: bytes
    """Plaintext that came after the handshake: the first bytes of yamux."""


async def upgrade_inbound(
    stream: trio.abc.Stream,
    identity: Identity,
    *,
    turn: Callable[[], Awaitable[None]],
    ask: Callable[[PeerId], Decision],
) -> Upgraded:
    """Raises `GateRefused`, `ProtocolViolation`, `ConnectionLost`, trio's errors; the caller closes and limits."""
    secured = await secure_inbound(stream, identity, turn)
    match ask(secured.peer):
        case Refuse(why):
            raise GateRefused(f"{secured.peer} may not come in: {why}")
        case _:
            return await _listen_for_yamux(stream, secured)


async def upgrade_outbound(stream: trio.abc.Stream, identity: Identity, peer: PeerId) -> Upgraded:
    """Raises `WrongPeer`, `GateRefused`, `ProtocolUnsupported`, `ProtocolViolation`, `ConnectionLost`, trio's."""
    secured = await secure_outbound(stream, identity, peer)
    try:
        return await _propose_yamux(stream, secured)
    except (ConnectionLost, trio.BrokenResourceError, OSError) as why:
        raise GateRefused(
            "the peer closed the connection after the handshake",
            hint=f"if its authorized_keys lacks this node, run there: peerupctl auth add {identity.peer_id}",
        ) from why


async def _listen_for_yamux(stream: trio.abc.Stream, secured: Secured) -> Upgraded:
    sealed, listener = _Sealed(stream, secured), Listener({yamux.PROTOCOL})
    while listener.chosen is None:
        if answer := listener.receive(await sealed.some()):
            await sealed.send(answer)
    return Upgraded(secured.peer, secured.session, listener.leftover)


async def _propose_yamux(stream: trio.abc.Stream, secured: Secured) -> Upgraded:
    sealed, dialer = _Sealed(stream, secured), Dialer([yamux.PROTOCOL])
    await sealed.send(dialer.start())
    while dialer.chosen is None:
        dialer.receive(await sealed.some())
    return Upgraded(secured.peer, secured.session, dialer.leftover)


class _Sealed:
    """A secured stream, before it has a multiplexer."""

    def __init__(self, stream: trio.abc.Stream, secured: Secured) -> None:
        self._stream = stream
        self._session = secured.session
        self._early = secured.leftover

    async def some(self) -> bytearray:
        data: bytes | bytearray = self._early or await some(self._stream)
        self._early = b""
        while not (plain := self._session.open(data)):
            data = await some(self._stream)
        return plain

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(bytes(self._session.seal(data)))


# -- the beginning of a stream -------------------------------------------------------------------------------------


async def propose(stream: Stream, protocols: Sequence[str]) -> str:
    """Agree with the peer on one of `protocols`; raises `ProtocolUnsupported`, `ProtocolViolation`, `StreamLost`..."""
    dialer = Dialer(protocols)
    await _say(stream, dialer.start())
    while dialer.chosen is None:
        if more := dialer.receive(await _next(stream)):
            await _say(stream, more)
    return _settled(stream, dialer.chosen, dialer.leftover)


async def answer(stream: Stream, speaks: Callable[[str], bool]) -> str:
    """Let the peer choose a protocol of ours; raises `ProtocolViolation`, `StreamLost`, `StreamWasReset`."""
    listener = Listener(speaks)
    while listener.chosen is None:
        if more := listener.receive(await _next(stream)):
            await _say(stream, more)
    return _settled(stream, listener.chosen, listener.leftover)


async def _say(stream: Stream, words: bytes) -> None:
    if (sent := stream.send_now((words,))) < len(words):
        await stream.send_all(words[sent:])


async def _next(stream: Stream) -> bytes:
    if data := stream.receive_now(_READ):
        return data
    stream.acknowledge()
    if data := await stream.receive_some(_READ):
        return data
    raise StreamLost("the peer ended the stream before a protocol was agreed on")


def _settled(stream: Stream, chosen: str, leftover: bytes) -> str:
    stream.protocol = chosen
    stream.push_back(leftover)
    return chosen
