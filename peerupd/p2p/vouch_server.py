"""The relay's side of vouching: let a joiner that we do not know through to the inviter who sent it, and no further.

    inviter: OPEN ──▶ (open, until its code ends) ◀── joiner on probation: PROVE ──▶ may CONNECT to that inviter, 60 s
    inviter: KEEP ──▶ the joiner that proved itself for this inviter is in the allowlist, `vouched_by=` the inviter
    inviter: WITHDRAW ──▶ out of it, if it was this inviter who vouched

Theory of operation. Only admitted peers open, keep and withdraw. A joiner is on probation (`trust.gate`) and may try a
few proofs; each is compared with every open vouch, all of them every time. What was proved is remembered a little
longer than the code lives, because the inviter says KEEP when the dialogue is over.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import trio

from peerupd.model.errors import PeerupError, ProtocolViolation
from peerupd.model.names import PeerId
from peerupd.p2p.connection import Connection
from peerupd.p2p.delimited import receive_message, send_message
from peerupd.p2p.host import Host
from peerupd.p2p.streams import Stream
from peerupd.p2p.telling import Teller
from peerupd.trust.gate import Admit, Gate, Probation
from peerupd.wire.circuit import HOP_PROTOCOL
from peerupd.wire.vouch import (
    MAX_MESSAGE,
    PROTOCOL,
    Answer,
    Close,
    Keep,
    No,
    Ok,
    Open,
    Prove,
    Reason,
    Request,
    Withdraw,
    decode_request,
    proves,
)

log = logging.getLogger(__name__)

REQUEST_LIMIT: Final = 15.0  # seconds for a peer to say what it wants
MAX_OPEN_PER_PEER: Final = 4
MAX_OPEN: Final = 64
MAX_TRIES: Final = 3  # wrong proofs on one connection, which is closed then
PROVED_FOR: Final = 600.0  # seconds within which the inviter may say KEEP
MAX_PROVED: Final = 256  # joiners remembered; the oldest is forgotten
CALL_SECONDS: Final = 60.0  # of probation for a joiner that has proved itself

KeepJoiner: TypeAlias = Callable[[PeerId, PeerId, str], Awaitable[None]]
"""Write `(inviter, joiner, name)` into the allowlist in force; raises a `PeerupError` when it cannot."""
WithdrawJoiner: TypeAlias = Callable[[PeerId, PeerId], Awaitable[None]]
"""Take `(inviter, joiner)` out of it."""


@dataclass(eq=False, slots=True)
class Vouch:
    """A code that is out."""

    inviter: PeerId
    key: bytes = field(repr=False)
    until: float


@dataclass(frozen=True, slots=True)
class Proved:
    """A joiner that showed a code."""

    vouch: Vouch
    at: float


class VouchServer:
    """The vouches that are open at this relay."""

    def __init__(
        self,
        host: Host,
        gate: Gate,
        *,
        keep: KeepJoiner | None,
        withdraw: WithdrawJoiner | None,
        clock: Callable[[], float],
    ) -> None:
        self._host = host
        self._gate = gate
        self._keep_joiner = keep
        self._withdraw_joiner = withdraw
        self._clock = clock
        self._tell = Teller(log)
        self._open: list[Vouch] = []
        self._proved: dict[PeerId, Proved] = {}
        self._failures: dict[Connection, int] = {}

    def start(self) -> None:
        """Serve."""
        self._host.set_stream_handler(PROTOCOL, self._serve)
        self._host.swarm.on_disconnected.append(self._disconnected)

    def stop(self) -> None:
        """Serve no longer."""
        self._host.swarm.on_disconnected.remove(self._disconnected)
        self._host.remove_stream_handler(PROTOCOL)
        for vouch in list(self._open):
            self._end(vouch)

    def inviter_of(self, connection: Connection) -> PeerId | None:
        """Whom the joiner at the other end may call: the inviter of its code, while that is open."""
        proved = self._proved.get(connection.peer)
        admission = connection.admission
        if proved is None or not isinstance(admission, Probation) or HOP_PROTOCOL not in admission.protocols:
            return None
        self._forget_expired()
        return proved.vouch.inviter if proved.vouch in self._open else None

    def _disconnected(self, connection: Connection) -> None:
        self._failures.pop(connection, None)

    async def _serve(self, stream: Stream) -> None:
        """One request, one answer."""
        with trio.move_on_after(REQUEST_LIMIT):
            data = await receive_message(stream, MAX_MESSAGE)
            try:
                answer = await self._answer(stream.connection, decode_request(data))
            except ProtocolViolation:
                answer = No(Reason.MALFORMED)
            await send_message(stream, answer.encode())
        if self._failures.get(stream.connection, 0) >= MAX_TRIES:
            await stream.connection.close()

    async def _answer(self, connection: Connection, request: Request) -> Answer:
        self._forget_expired()
        if isinstance(request, Prove):
            return self._prove(connection, request)
        peer = connection.peer
        if not isinstance(connection.admission, Admit) or not self._gate.authorized(peer, self._clock()):
            return No(Reason.NOT_ALLOWED)
        match request:
            case Open():
                return self._opened(peer, request)
            case Close():
                return self._close(peer, request)
            case Keep():
                return await self._keep(peer, request)
            case Withdraw():
                return await self._withdraw(peer, request)

    # -- the inviter's -----------------------------------------------------------------------------------------------

    def _opened(self, inviter: PeerId, request: Open) -> Answer:
        self._close(inviter, Close(request.key))
        own = [vouch for vouch in self._open if vouch.inviter == inviter]
        if len(own) >= MAX_OPEN_PER_PEER or len(self._open) >= MAX_OPEN:
            return No(Reason.TOO_MANY)
        vouch = Vouch(inviter, request.key, self._clock() + request.seconds)
        self._open.append(vouch)
        self._gate.vouch_opened(vouch.until, vouch)
        self._tell.info("vouch.opened", "relay: %s vouches for a joiner", inviter, inviter=str(inviter))
        return Ok()

    def _close(self, inviter: PeerId, request: Close) -> Answer:
        for vouch in [vouch for vouch in self._open if (vouch.inviter, vouch.key) == (inviter, request.key)]:
            self._end(vouch)
        return Ok()

    async def _keep(self, inviter: PeerId, request: Keep) -> Answer:
        if self._gate.authorized(request.peer, self._clock()):
            return Ok()
        proved = self._proved.get(request.peer)
        if proved is None or proved.vouch.inviter != inviter or self._keep_joiner is None:
            return No(Reason.NOT_ALLOWED)
        try:
            await self._keep_joiner(inviter, request.peer, request.name)
        except PeerupError as why:
            words = "relay: %s, vouched for by %s, cannot be kept: %s"
            self._tell.error("vouch.not_kept", words, request.peer, inviter, why, **_about(inviter, request))
            return No(Reason.FAILED)
        words = "relay: %s is kept, %s vouches for it"
        self._tell.info("vouch.kept", words, request.peer, inviter, **_about(inviter, request))
        for connection in self._host.connections(request.peer):
            if self._gate.authorized(connection.peer, self._clock()):
                connection.promote(Admit())
        return Ok()

    async def _withdraw(self, inviter: PeerId, request: Withdraw) -> Answer:
        if (proved := self._proved.get(request.peer)) is not None and proved.vouch.inviter == inviter:
            del self._proved[request.peer]
        entry = self._gate.allowlist.get(request.peer)
        if entry is None:
            return Ok()
        if entry.attributes.get("vouched_by") != str(inviter) or self._withdraw_joiner is None:
            return No(Reason.NOT_ALLOWED)
        try:
            await self._withdraw_joiner(inviter, request.peer)
        except PeerupError as why:
            words = "relay: %s, withdrawn by %s, cannot be removed: %s"
            self._tell.error("vouch.not_withdrawn", words, request.peer, inviter, why, **_about(inviter, request))
            return No(Reason.FAILED)
        words = "relay: %s is withdrawn by %s"
        self._tell.info("vouch.withdrawn", words, request.peer, inviter, **_about(inviter, request))
        return Ok()

    # -- the joiner's ------------------------------------------------------------------------------------------------

    def _prove(self, connection: Connection, request: Prove) -> Answer:
        fitting = [vouch for vouch in self._open if proves(request.proof, vouch.key, connection.peer)]
        if not fitting:
            if isinstance(connection.admission, Probation):  # others have circuits to lose by a mistyped code
                self._failures[connection] = self._failures.get(connection, 0) + 1
            return No(Reason.NO_SUCH_CODE)
        inviter = fitting[0].inviter
        self._proved[connection.peer] = Proved(fitting[0], self._clock())
        for oldest in list(self._proved)[:-MAX_PROVED]:
            del self._proved[oldest]
        if isinstance(connection.admission, Probation):
            connection.promote(Probation(frozenset({HOP_PROTOCOL}), CALL_SECONDS, f"vouched for by {inviter}"))
        words = "relay: %s has a code of %s"
        self._tell.info("vouch.proved", words, connection.peer, inviter, inviter=str(inviter))
        return Ok(inviter)

    # -- ends --------------------------------------------------------------------------------------------------------

    def _end(self, vouch: Vouch) -> None:
        self._open.remove(vouch)
        self._gate.vouch_closed(vouch)

    def _forget_expired(self) -> None:
        """What its time, or the removal of its inviter, has ended."""
        now = self._clock()
        for vouch in list(self._open):
            if vouch.until <= now or not self._gate.authorized(vouch.inviter, now):
                self._end(vouch)
        for joiner in [joiner for joiner, proved in self._proved.items() if proved.at + PROVED_FOR <= now]:
            del self._proved[joiner]


def _about(inviter: PeerId, request: Keep | Withdraw) -> dict[str, str]:
    return {"inviter": str(inviter), "peer": str(request.peer)}
