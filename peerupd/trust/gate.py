"""Who may come in: `Admit`, `Probation` or `Refuse`. No clock, no network; asked again before each stream.

Theory of operation. Who is in the allowlist, unexpired, is admitted. Everyone else is refused, with one narrow
exception per role, so that pairing can begin (settled with the protocols of `wire.pairing` and `wire.vouch`):

    node     while an invite code is open, over a circuit: one protocol, the invite dialogue, for 60 s
    relay    while an inviter vouches, on a direct connection: one protocol, the vouching, for 15 s

Probation never outlives what it was given for, and never becomes more by itself: only the allowlist admits. Our own
peer ID is refused always: whoever shows it holds a copy of our key.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from peerupd.model.errors import LimitReached
from peerupd.model.names import PeerId, printable
from peerupd.trust.authorized_keys import Allowlist, Entry

Role: TypeAlias = Literal["node", "relay"]

INVITE_PROTOCOL: Final = "/peerup/invite/1.0.0"
VOUCH_PROTOCOL: Final = "/peerup/relay-vouch/1.0.0"
INVITE_PROBATION: Final = 60.0  # seconds
VOUCH_PROBATION: Final = 15.0  # seconds
MAX_ON_PROBATION: Final = 10  # connections at once
MAX_OPEN: Final = 256  # invites, and vouches, at once


@dataclass(frozen=True, slots=True)
class Admit:
    """Come in."""


@dataclass(frozen=True, slots=True)
class Probation:
    """These protocols, for so many seconds, and nothing else."""

    protocols: frozenset[str]
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """No."""

    why: str


Decision: TypeAlias = Admit | Probation | Refuse


class Gate:
    """Holds what is in force now; each decision is a function of that, the peer, and the time."""

    def __init__(self, *, enabled: bool, allowlist: Allowlist, role: Role, own: PeerId | None = None) -> None:
        self.enabled = enabled
        self._allowlist = allowlist
        self._role = role
        self._own = own
        self._invites: dict[Hashable, float] = {}
        self._vouches: dict[Hashable, float] = {}

    @property
    def allowlist(self) -> Allowlist:
        """The allowlist in force."""
        return self._allowlist

    def replace(self, allowlist: Allowlist) -> None:
        """From now on this one is in force; who closes the connections of those no longer in it is the caller."""
        self._allowlist = allowlist

    def decide(self, peer: PeerId, *, circuit: bool, now: float, on_probation: int = 0) -> Decision:
        """May `peer` come in, over a circuit or directly?

        `now` in seconds since the epoch; `on_probation`: other connections that are on probation at this moment.
        """
        if peer == self._own:
            return Refuse("it shows our own peer ID")
        why_not = self._why_not(peer, now)
        if not why_not:
            return Admit()
        seconds = self._probation(circuit, now)
        if not seconds:
            return Refuse(why_not)
        if on_probation >= MAX_ON_PROBATION:
            return Refuse(f"{why_not}, and {MAX_ON_PROBATION} peers are on probation already")
        if self._role == "node":
            return Probation(frozenset({INVITE_PROTOCOL}), seconds, f"{why_not}, but an invite code is open")
        return Probation(frozenset({VOUCH_PROTOCOL}), seconds, f"{why_not}, but an inviter vouches for a peer")

    def authorized(self, peer: PeerId, now: float) -> bool:
        """Whether `peer` is admitted without condition; `now` in seconds since the epoch."""
        return peer != self._own and not self._why_not(peer, now)

    def invite_opened(self, until: float, code: Hashable = "") -> None:
        """Unknown peers may try an invite code until this time; `code` tells several from one another."""
        _open(self._invites, code, until)

    def invite_closed(self, code: Hashable = "") -> None:
        """That code is over; closing twice is fine."""
        self._invites.pop(code, None)

    def vouch_opened(self, until: float, vouch: Hashable = "") -> None:
        """Unknown peers may prove until this time that an inviter sent them; `vouch` tells several apart."""
        _open(self._vouches, vouch, until)

    def vouch_closed(self, vouch: Hashable = "") -> None:
        """That vouch is over; closing twice is fine."""
        self._vouches.pop(vouch, None)

    def _why_not(self, peer: PeerId, now: float) -> str:
        """Why the allowlist does not admit `peer`; empty when it does."""
        if not self.enabled:
            return ""
        entry = self._allowlist.get(peer)
        if entry is None:
            return "not in authorized_keys"
        return _overdue(entry) if entry.expired(now) else ""

    def _probation(self, circuit: bool, now: float) -> float:
        """How many seconds an unknown peer may have; 0: none."""
        if self._role == "node":
            return _rest(self._invites, now, INVITE_PROBATION) if circuit else 0.0
        return 0.0 if circuit else _rest(self._vouches, now, VOUCH_PROBATION)


def _open(table: dict[Hashable, float], key: Hashable, until: float) -> None:
    if key not in table and len(table) >= MAX_OPEN:
        raise LimitReached(f"{MAX_OPEN} invites are open already", hint="wait until one is over")
    table[key] = until


def _rest(table: dict[Hashable, float], now: float, longest: float) -> float:
    return min(longest, max(0.0, max(table.values(), default=now) - now))


def _overdue(entry: Entry) -> str:
    expires = printable(entry.attributes.get("expires", ""), 40)
    return f"expires={expires} in authorized_keys (line {entry.line}) has passed or cannot be read"
