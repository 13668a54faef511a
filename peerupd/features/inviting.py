"""The inviter's side of pairing: one open code, from the first word to the written key.

    Open(wrong guesses) ──a joiner proves itself──▶ claimed ──written──▶ joined
        │                                              └──cannot be written──▶ Open
        ├──third wrong guess──▶ burned
        ├──time is over──▶ expired
        └──cancelled, another one opened──▶ cancelled

Nothing in the dialogue names the code, so there is one at a time: opening another cancels the first. Only a frame that
does not open counts as a guess; silence and junk do not. A joiner is written down before it hears `OK`, and the code
ends once that answer had its time to arrive. While a code is open the gate lets unknown peers come this far, over a
circuit, and the relay was asked to let its holder through; where the relay does not know how, that is a note for a
person, not an error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import count
from typing import Final, Protocol

import trio

from peerupd.features import qr
from peerupd.features.pairing import PROTOCOL, AllowlistKeeper, NamesKeeper, dated, give_name
from peerupd.features.pump import reset_on_error
from peerupd.features.streams import ByteStream, Handlers
from peerupd.model.addresses import RelayAddress
from peerupd.model.errors import (
    NoRelay,
    PairingMismatch,
    PeerupError,
    ProtocolViolation,
    RequestError,
    TimedOut,
    UnknownInvite,
)
from peerupd.model.logs import said
from peerupd.model.names import PeerId, PeerName, printable, sanitised_name
from peerupd.model.snapshots import InviteAsk, InviteOpened, InviteOutcome
from peerupd.wire import invite, vouch
from peerupd.wire.pairing import DataToSend, Inviter, JoinerProved

log = logging.getLogger(__name__)

MAX_WRONG_GUESSES: Final = 3
MAX_DIALOGUES: Final = 4  # joiners heard at once
MAX_REMEMBERED: Final = 8  # codes whose outcome can still be asked for
DIALOGUE_LIMIT: Final = 30.0  # seconds
RELAY_LIMIT: Final = 5.0  # seconds for one word with the relay
ANSWER_LIMIT: Final = 2.0  # seconds that the joiner has to take the answer, before the stream is closed
MAX_TTL: Final = float(vouch.MAX_SECONDS)  # seconds
READ_SIZE: Final = 4096  # bytes


class InviteGate(Protocol):
    """The gate, which admits unknown peers to this protocol alone while a code is open."""

    def invite_opened(self, until: float, /) -> None: ...

    def invite_closed(self) -> None: ...


class Vouching(Protocol):
    """What an inviter tells a relay (`wire.vouch`); `relay` is connected. All raise `PeerupError`s."""

    async def open(self, relay: PeerId, key: bytes, seconds: float, /) -> None: ...

    async def close(self, relay: PeerId, key: bytes, /) -> None: ...

    async def keep(self, relay: PeerId, peer: PeerId, name: str, /) -> None: ...


class Inviting:
    """Codes of this node, one open at a time."""

    def __init__(
        self,
        *,
        own: PeerId,
        handlers: Handlers,
        gate: InviteGate,
        vouching: Vouching,
        relays: Callable[[], Sequence[RelayAddress]],
        allowlist: AllowlistKeeper,
        names: NamesKeeper,
        network: str = "",
        now: Callable[[], float] = time.time,
    ) -> None:
        """`relays`: those that hold a slot for us, best first; `now`: seconds since the epoch."""
        self._own = own
        self._handlers = handlers
        self._gate = gate
        self._vouching = vouching
        self._relays = relays
        self._allowlist = allowlist
        self._names = names
        self._network = network
        self._now = now
        self._numbers = count(1)
        self._current: _Code | None = None
        self._codes: dict[str, _Code] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch the codes' time; to be started before `open`. Its end cancels an open code."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._overtake("cancelled")
                self._nursery = None

    async def open(self, ask: InviteAsk) -> InviteOpened:
        """A new code, in place of one that is open; raises `RequestError` for the time, `NoRelay`."""
        assert self._nursery is not None, "run() comes first"
        if not 1 <= ask.ttl_seconds <= MAX_TTL:
            raise RequestError(f"an invite cannot live for {ask.ttl_seconds:g} s", hint=f"1 s to {MAX_TTL:g} s can be")
        code = _Code(f"invite-{next(self._numbers)}", self._relay(), sanitised_name(ask.name))
        await self._tell_relay(
            partial(self._vouching.open, code.relay.peer, code.key, ask.ttl_seconds),
            code,
            "the relay cannot let a joiner through that it does not know: its owner must authorise the joiner first",
        )
        self._begin(code, self._now() + ask.ttl_seconds)
        self._nursery.start_soon(self._watch, code, ask.ttl_seconds)
        text = invite.encode(invite.Invite(code.token, code.relay, self._own, self._network))
        return InviteOpened(code.id, text, code.expires_at, str(code.relay), qr=qr.lines(text), notes=tuple(code.notes))

    async def wait(self, id: str) -> InviteOutcome:  # noqa: A002 - the word of the API
        """How it ended, awaited; raises `UnknownInvite`."""
        code = self._get(id)
        await code.ended.wait()
        assert code.outcome is not None
        return code.outcome

    def cancel(self, id: str) -> None:  # noqa: A002 - the word of the API
        """End it now; one that is over stays as it ended. Raises `UnknownInvite`."""
        if self._get(id) is self._current:
            self._overtake("cancelled")

    # -- the code's life -------------------------------------------------------------------------------------------

    def _relay(self) -> RelayAddress:
        relay = next((relay for relay in self._relays() if relay.usable), None)
        if relay is None:
            raise NoRelay(
                "an invite needs a relay that holds a slot for this node, and there is none",
                hint="see `peerupctl status`, or add one with `peerupctl relay add`",
            )
        return relay

    def _get(self, id: str) -> _Code:  # noqa: A002 - the word of the API
        try:
            return self._codes[id]
        except KeyError:
            raise UnknownInvite(f"invite not found: {printable(id, 40)}") from None

    def _begin(self, code: _Code, expires_at: float) -> None:
        self._overtake("cancelled")
        code.expires_at = expires_at
        self._codes[code.id] = self._current = code
        if len(self._codes) > MAX_REMEMBERED:
            del self._codes[next(iter(self._codes))]
        self._gate.invite_opened(expires_at)
        self._handlers.set_stream_handler(PROTOCOL, self._answer)
        log.info("%s is open", code.id, extra=said("invite.opened", invite=code.id, relay=str(code.relay.peer)))

    async def _watch(self, code: _Code, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await code.ended.wait()
        if code is self._current:
            self._overtake("expired")

    def _overtake(self, how: str) -> None:
        """Take no more joiners by the current code; it ends so, unless one is being written down just now."""
        if (code := self._current) is None:
            return
        self._current = None
        self._handlers.remove_stream_handler(PROTOCOL)
        self._gate.invite_closed()
        code.overtaken = how
        if not code.claimed:
            self._end(code, how)

    def _end(self, code: _Code, how: str, peer: PeerId | None = None, name: str | None = None) -> None:
        """The one place where a code gets its outcome."""
        code.outcome = InviteOutcome(code.id, how, None if peer is None else str(peer), name, tuple(code.notes))
        code.ended.set()
        log.info("%s is over: %s", code.id, how, extra=said("invite.ended", invite=code.id, how=how))
        if self._nursery is not None:
            self._nursery.start_soon(self._tell_relay, partial(self._vouching.close, code.relay.peer, code.key), code)

    async def _tell_relay(self, say: Callable[[], Awaitable[None]], code: _Code, note: str = "") -> None:
        """One word with the relay; what fails is noted on the code for a person to read."""
        try:
            with trio.fail_after(RELAY_LIMIT):
                await say()
        except (PeerupError, trio.TooSlowError) as trouble:
            why = str(trouble) or str(TimedOut(f"no answer within {RELAY_LIMIT:g} s"))
            log.info("relay %s: %s, ignoring", code.relay.peer, why, extra=said("invite.relay_silent", why=why))
            if note:
                code.notes.append(f"{note} ({why})")

    # -- the dialogue ----------------------------------------------------------------------------------------------

    async def _answer(self, stream: ByteStream) -> None:
        code = self._current
        if code is None or code.dialogues >= MAX_DIALOGUES:
            stream.reset()
            return
        code.dialogues += 1
        try:
            with trio.move_on_after(DIALOGUE_LIMIT), reset_on_error(stream):
                await self._converse(code, stream)
        except PairingMismatch:
            self._count_wrong(code, stream.peer)
        except (ProtocolViolation, trio.BrokenResourceError) as why:
            log.info("pairing with %s failed: %s", stream.peer, why, extra=said("invite.junk", peer=str(stream.peer)))
        finally:
            code.dialogues -= 1

    async def _converse(self, code: _Code, stream: ByteStream) -> None:
        machine = Inviter(code.token, code.name)
        wished = await _hear_proof(machine, stream)
        if code.claimed or code is not self._current:
            raise ProtocolViolation("pairing: the code is over")
        code.claimed = True
        # From here to the answer nothing may be half done; each step has its own limit.
        with trio.CancelScope(shield=True):
            try:
                await self._allowlist.admit(stream.peer, wished or dated("joined", self._now()))
            except PeerupError as why:
                await self._refuse(code, stream, machine, why)
            else:
                await self._welcome(code, stream, machine, wished)

    async def _refuse(self, code: _Code, stream: ByteStream, machine: Inviter, why: PeerupError) -> None:
        log.error("cannot write down %s: %s", stream.peer, why, extra=said("invite.failed", peer=str(stream.peer)))
        code.claimed = False
        if code.overtaken:
            self._end(code, code.overtaken)
        await _say(stream, machine.refuse())

    async def _welcome(self, code: _Code, stream: ByteStream, machine: Inviter, wished: str) -> None:
        name = await self._name(code, stream.peer, wished)
        await self._tell_relay(
            partial(self._vouching.keep, code.relay.peer, stream.peer, name or wished),
            code,
            f"the relay's owner must authorise {stream.peer}",
        )
        if not await _say(stream, machine.accept()):
            code.notes.append("the answer may not have reached the joiner; both sides can be told with `auth add`")
        if code is self._current:
            self._overtake("joined")
        self._end(code, "joined", stream.peer, name or None)

    async def _name(self, code: _Code, peer: PeerId, wished: str) -> str:
        try:
            return await give_name(self._names, wished, peer)
        except PeerupError as why:
            code.notes.append(f"the name {wished!r} could not be written down: {why}")
            return ""

    def _count_wrong(self, code: _Code, peer: PeerId) -> None:
        code.wrong += 1
        log.warning(
            "invalid invite code from %s, %d of %d",
            peer,
            code.wrong,
            MAX_WRONG_GUESSES,
            extra=said("invite.wrong_guess", peer=str(peer), guesses=code.wrong),
        )
        if code.wrong >= MAX_WRONG_GUESSES and code is self._current:
            self._overtake("burned")


class _Code:
    """One code and how far it has come."""

    def __init__(self, id: str, relay: RelayAddress, name: PeerName) -> None:  # noqa: A002 - the word of the API
        self.id = id
        self.relay = relay
        self.name = name
        self.token = invite.new_token()
        self.key = vouch.admission_key(self.token)
        self.expires_at = 0.0
        self.wrong = 0
        self.dialogues = 0
        self.claimed = False  # a joiner has proved itself and is being written down
        self.overtaken = ""  # how it ends if nobody is being written down
        self.notes: list[str] = []
        self.outcome: InviteOutcome | None = None
        self.ended = trio.Event()


async def _hear_proof(machine: Inviter, stream: ByteStream) -> PeerName:
    """What the joiner wants to be called, once it has proved itself."""
    while data := await stream.receive_some(READ_SIZE):
        for event in machine.receive(bytes(data)):
            match event:
                case DataToSend(answer):
                    await stream.send_all(answer)
                case JoinerProved(name):
                    return name
    raise ProtocolViolation("pairing: the joiner ended the stream")


async def _say(stream: ByteStream, answer: bytes) -> bool:
    """The last word: sent, and given time to arrive before the stream is closed; whether it could be sent."""
    sent = False
    with trio.move_on_after(ANSWER_LIMIT):
        try:
            await stream.send_all(answer)
            await stream.send_eof()
            sent = True
            while await stream.receive_some(READ_SIZE):
                continue
        except trio.BrokenResourceError:
            stream.reset()
            return sent
    if sent:
        await stream.aclose()
    else:
        stream.reset()
    return sent
