"""The joiner's side of pairing: by a code to its relay, through it to the inviter, and into each other's books.

The way is the code's relay alone: a known direct address of the inviter's ID would not be covered by its gate, which
lets unknown peers come over a circuit only. Every failure says in one sentence whose turn it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from peerupd.features.pairing import PROTOCOL, AllowlistKeeper, NamesKeeper, RelaysKeeper, dated, give_name
from peerupd.features.pump import reset_on_error
from peerupd.features.streams import ByteStream
from peerupd.model.addresses import RelayAddress
from peerupd.model.errors import (
    ConnectionLost,
    EnvironmentalError,
    GateRefused,
    InviteRefused,
    PeerupError,
    ProtocolUnsupported,
    RefusedError,
    RelayRefused,
    RemoteError,
    RequestError,
    StreamReset,
    TimedOut,
    Unreachable,
)
from peerupd.model.names import PeerId
from peerupd.wire import invite, vouch
from peerupd.wire.invite import Invite
from peerupd.wire.pairing import DataToSend, Joiner, Paired
from peerupd.wire.pairing_text import TextJoiner

JOIN_LIMIT: Final = 30.0  # seconds from the first dial to the inviter's answer
READ_SIZE: Final = 4096  # bytes

_STILL_WAITING: Final = "is `peerupctl invite` still waiting there? A code ends with its first success or its time"


class ReachRelay(Protocol):
    """A connection to a relay, made if there is none; raises `Unreachable`, `GateRefused`, `WrongPeer`."""

    async def __call__(self, relay: RelayAddress, /) -> None: ...


class OpenThrough(Protocol):
    """A stream to `peer` over a circuit through this relay and no other way; raises `RelayRefused` and others."""

    async def __call__(self, relay: RelayAddress, peer: PeerId, protocols: Sequence[str], /) -> ByteStream: ...


class Admission(Protocol):
    """What a joiner tells a relay (`wire.vouch`): that it holds the code behind `key`; raises `PeerupError`s."""

    async def prove(self, relay: PeerId, key: bytes, /) -> object: ...


@dataclass(frozen=True, slots=True)
class Pairing:
    """What joining has brought."""

    peer: PeerId
    """The inviter."""
    name: str
    """Under which it can be named here; empty: by its peer ID only."""
    relay: RelayAddress
    network: str


class Joining:
    """Joins by codes."""

    def __init__(
        self,
        *,
        own: PeerId,
        reach_relay: ReachRelay,
        admission: Admission,
        open_through: OpenThrough,
        allowlist: AllowlistKeeper,
        names: NamesKeeper,
        relays: RelaysKeeper,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._own = own
        self._reach_relay = reach_relay
        self._admission = admission
        self._open_through = open_through
        self._allowlist = allowlist
        self._names = names
        self._relays = relays
        self._now = now

    async def join(
        self, code: str, name: str = "", *, allow_legacy: bool = False, progress: Callable[[str], None] = lambda _: None
    ) -> Pairing:
        """Pair with the inviter behind `code`, to be called `name` there; `progress` is told each step in words.

        Raises `InvalidCode`, `RequestError` for one's own code, `Unreachable`, `GateRefused`, `InviteRefused`,
        `PairingMismatch`, `TimedOut`, and `StorageFailed` when the result cannot be written down.
        """
        asked = invite.decode(code, allow_legacy=allow_legacy)
        if asked.inviter == self._own:
            raise RequestError("this is your own invite code", hint="use it on the other machine")
        wished = await self._converse_within_limit(asked, name, progress)
        return await self._write_down(asked, wished)

    async def _converse_within_limit(self, asked: Invite, name: str, progress: Callable[[str], None]) -> str:
        with trio.move_on_after(JOIN_LIMIT):
            progress("Connecting to relay...")
            unproved = await self._enter_relay(asked)
            progress("Connected to relay.")
            progress("Connecting to inviter...")
            stream = await self._call_inviter(asked, unproved)
            with reset_on_error(stream):
                wished = await _converse(_joiner(asked, name), stream)
                await stream.aclose()
            return wished
        raise TimedOut(f"joining took longer than {JOIN_LIMIT:g} s", hint=_STILL_WAITING)

    async def _enter_relay(self, asked: Invite) -> PeerupError | None:
        """Be connected to the relay, as the holder of the code; why the relay would not have it, if it would not.

        That is no failure yet: another kind of relay knows no codes, and ours may know this node already.
        """
        try:
            await self._reach_relay(asked.relay)
        except GateRefused as why:
            raise self._hung_up(asked) from why
        except EnvironmentalError as why:
            raise Unreachable(
                f"cannot reach the relay of the code, {asked.relay}: {why.message}",
                hint="check this machine's network, that the relay is running, and that the code is still open",
            ) from why
        try:
            await self._admission.prove(asked.relay.peer, vouch.admission_key(asked.token))
        except (ConnectionLost, GateRefused) as why:
            raise self._hung_up(asked) from why
        except (RefusedError, RemoteError) as why:
            return why
        return None

    def _hung_up(self, asked: Invite) -> GateRefused:
        return GateRefused(
            f"the relay {asked.relay.peer.short} hung up: the code is over, or the relay knows no codes",
            hint=f"{_STILL_WAITING}; or have the relay's owner authorise this node: {self._authorise}",
        )

    async def _call_inviter(self, asked: Invite, unproved: PeerupError | None) -> ByteStream:
        try:
            return await self._open_through(asked.relay, asked.inviter, (PROTOCOL,))
        except (RefusedError, ProtocolUnsupported, StreamReset, ConnectionLost) as why:
            raise self._turned_away(unproved, why) from why

    def _turned_away(self, unproved: PeerupError | None, why: PeerupError) -> PeerupError:
        """What to tell a person when the way ends before the inviter."""
        if isinstance(unproved, RefusedError):
            return InviteRefused(f"the relay does not know the code: {unproved.message}", hint=_STILL_WAITING)
        if not isinstance(why, RelayRefused):
            return InviteRefused(f"the inviter takes no joiner now: {why.message}", hint=_STILL_WAITING)
        hint = _STILL_WAITING
        if unproved is not None:
            hint += f"; if it does, the relay's owner must authorise this node: {self._authorise}"
        return Unreachable(f"the inviter cannot be reached: {why.message}", hint=hint)

    @property
    def _authorise(self) -> str:
        return f"peerupctl relay authorize {self._own}"

    async def _write_down(self, asked: Invite, wished: str) -> Pairing:
        await self._allowlist.admit(asked.inviter, wished or dated("invited", self._now()))
        name = await give_name(self._names, wished, asked.inviter)
        await self._relays.add(asked.relay)
        return Pairing(asked.inviter, name, asked.relay, asked.network)


def _joiner(asked: Invite, name: str) -> Joiner | TextJoiner:
    """The dialect that the code's inviter speaks."""
    return TextJoiner(asked.token, name) if asked.legacy else Joiner(asked.token, name)


async def _converse(machine: Joiner | TextJoiner, stream: ByteStream) -> str:
    """What the inviter wants to be called, once it said OK; an end of any kind before that is its refusal."""
    try:
        await stream.send_all(machine.start())
        while data := await stream.receive_some(READ_SIZE):
            for event in machine.receive(bytes(data)):
                match event:
                    case DataToSend(proof):
                        await stream.send_all(proof)
                    case Paired(name):
                        return name
    except trio.BrokenResourceError:
        machine.closed()
    machine.closed()
    raise AssertionError("a dialogue that is done has returned")
