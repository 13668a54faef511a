"""What a relay gives away at most, and to whom it has given it: reservations and circuits, counted.

Two kinds of guests (libp2p circuit v2 knows only the first). Strangers, on a relay without a gate, get circuits that
are limited in time and data. Peers in the allowlist of a gated relay are its owner's own machines: no limit of time or
data, and circuits enough for work, unless the configuration says otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from peerupd.model.addresses import IpAddress, counted_as
from peerupd.model.errors import LimitReached
from peerupd.model.names import PeerId
from peerupd.p2p.connection import Limit
from peerupd.p2p.forwarding import BUFFER

STRANGER_SECONDS: Final = 600.0  # of one circuit
STRANGER_DATA: Final = 64 * 1024 * 1024  # bytes each way of one circuit
STRANGER_CIRCUITS: Final = 16  # per peer, at either end
GUEST_CIRCUITS: Final = 512  # per peer of the allowlist, at either end
VOUCHED_SECONDS: Final = 60.0  # of the one circuit of a vouched joiner
VOUCHED_DATA: Final = 64 * 1024  # bytes each way, likewise
VOUCHED_CIRCUITS: Final = 2  # per vouched joiner


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """The bounds of a relay, as configured; None: the default, which depends on the guest."""

    max_reservations: int = 128
    """All peers together; each has one."""
    max_reservations_per_ip: int = 8
    reservation_ttl: float = 3600.0
    """Seconds."""
    max_circuits: int | None = None
    """Per peer, counted for source and destination."""
    session_duration: float | None = None
    """Seconds of one circuit."""
    session_data_limit: int | None = None
    """Bytes each way of one circuit."""
    buffer_size: int = BUFFER
    """Bytes taken at a time."""

    def circuits(self, *, gated: bool) -> int:
        """How many circuits a peer may have; `gated`: it stands in our allowlist."""
        if self.max_circuits is not None:
            return self.max_circuits
        return GUEST_CIRCUITS if gated else STRANGER_CIRCUITS

    def circuit(self, *, gated: bool) -> Limit:
        """The limit of one circuit."""
        if gated:
            return Limit(self.session_duration, self.session_data_limit)
        return Limit(self.session_duration or STRANGER_SECONDS, self.session_data_limit or STRANGER_DATA)


VOUCHED: Final = Limit(VOUCHED_SECONDS, VOUCHED_DATA)


@dataclass(frozen=True, slots=True)
class Held:
    """One peer's reservation."""

    until: float
    """Seconds since the epoch."""
    place: str | None
    """Where it came from, as bounds count it."""


class Reservations:
    """Who holds a reservation."""

    def __init__(self, limits: RelayLimits) -> None:
        self._limits = limits
        self._held: dict[PeerId, Held] = {}

    def grant(self, peer: PeerId, ip: IpAddress | None, now: float) -> Held:
        """A reservation from now on, new or renewed; raises `LimitReached`."""
        self.expire(now)
        others = [held.place for holder, held in self._held.items() if holder != peer]
        place = counted_as(ip) if ip is not None else None
        if len(others) >= self._limits.max_reservations:
            raise LimitReached(f"all {self._limits.max_reservations} reservations are taken")
        if place is not None and others.count(place) >= self._limits.max_reservations_per_ip:
            raise LimitReached(f"{place} holds {self._limits.max_reservations_per_ip} reservations already")
        held = self._held[peer] = Held(now + self._limits.reservation_ttl, place)
        return held

    def holds(self, peer: PeerId, now: float) -> bool:
        """Whether the peer's reservation is alive."""
        held = self._held.get(peer)
        return held is not None and now < held.until

    def end(self, peer: PeerId) -> None:
        """The peer is gone, or not welcome any more."""
        self._held.pop(peer, None)

    def holders(self, now: float) -> tuple[PeerId, ...]:
        """Who holds one now."""
        self.expire(now)
        return tuple(self._held)

    def expire(self, now: float) -> list[PeerId]:
        """Forget what is over; whose it was."""
        over = [peer for peer, held in self._held.items() if held.until <= now]
        for peer in over:
            del self._held[peer]
        return over


class CircuitCount:
    """How many circuits stand, in all and per peer at either end."""

    def __init__(self) -> None:
        self._per_peer: Counter[PeerId] = Counter()
        self.total = 0

    def of(self, peer: PeerId) -> int:
        """The circuits that begin or end at this peer."""
        return self._per_peer[peer]

    @contextmanager
    def one_more(self, *ends: tuple[PeerId, int]) -> Iterator[None]:
        """A circuit between these peers, each with the most it may have; raises `LimitReached`."""
        for peer, most in ends:
            if self._per_peer[peer] >= most:
                raise LimitReached(f"peer {peer} has {most} circuits already")
        self._count(ends, 1)
        try:
            yield
        finally:
            self._count(ends, -1)

    def _count(self, ends: tuple[tuple[PeerId, int], ...], step: int) -> None:
        self.total += step
        for peer, _ in ends:
            self._per_peer[peer] += step
            if not self._per_peer[peer]:
                del self._per_peer[peer]
