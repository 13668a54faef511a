"""What a relay gives away at most, and to whom it has given it: reservations and circuits, counted.

Two kinds of guests (libp2p circuit v2 knows only the first). Strangers, on a relay without a gate, get circuits that
are limited in time and data. Peers in the allowlist of a gated relay are its owner's own machines: no limit of time or
data, and circuits enough for work, unless the configuration says otherwise.

Reservations are counted in all, by place (an IPv4 address, or a /64 that its holder has whole) and, where a table says
whose network a place is in, by network. They end by a clock that only goes forward: no step of the wall clock ends one.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, TypeVar

from peerupd.model.errors import LimitReached
from peerupd.model.names import PeerId
from peerupd.p2p.connection import Limit
from peerupd.p2p.forwarding import BUFFER

K = TypeVar("K")

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
    max_reservations_per_asn: int = 32
    """Per network, where it is known whose an address is."""
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
    bytes_per_second: int = 0
    """Carried for one peer, all its circuits and both ways together; 0: no limit."""

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


NetworkOf: TypeAlias = Callable[[str], int | None]
"""The number of the network that a place is in, if it is known."""


@dataclass(frozen=True, slots=True)
class Held:
    """One peer's reservation."""

    until: float
    """Seconds of a clock that only goes forward."""
    place: str | None
    """Where it came from, as `counted_as` has it."""
    network: int | None
    """Whose network that is in, if it is known."""


class Reservations:
    """Who holds a reservation; `now` is always of a clock that only goes forward."""

    def __init__(self, limits: RelayLimits) -> None:
        self._limits = limits
        self._network_of: NetworkOf = _nobodys
        self._held: dict[PeerId, Held] = {}  # whose ends first stands first
        self._places: Counter[str] = Counter()
        self._networks: Counter[int] = Counter()

    def grant(self, peer: PeerId, place: str | None, now: float) -> Held:
        """A reservation from now on, new or renewed; raises `LimitReached`."""
        self.expire(now)
        held = Held(now + self._limits.reservation_ttl, place, self._network(place))
        self._check(held, self._held.get(peer))
        self._take(peer)
        return self._put(peer, held)

    def restore(self, peer: PeerId, place: str | None, seconds: float, now: float) -> None:
        """One that was granted before a restart and has so long to go; those that end first come first."""
        seconds = min(seconds, self._limits.reservation_ttl)
        if seconds > 0 and peer not in self._held and len(self._held) < self._limits.max_reservations:
            self._put(peer, Held(now + seconds, place, self._network(place)))

    def count_networks(self, network_of: NetworkOf) -> None:
        """From now on this says whose network a place is in, also for those who hold one already."""
        self._network_of = network_of
        for peer, held in list(self._held.items()):
            self._take(peer)
            self._put(peer, replace(held, network=self._network(held.place)))

    def holds(self, peer: PeerId, now: float) -> bool:
        """Whether the peer's reservation is alive."""
        held = self._held.get(peer)
        return held is not None and now < held.until

    def end(self, peer: PeerId) -> bool:
        """The peer is gone, or not welcome any more; whether it held one."""
        return self._take(peer) is not None

    def all(self, now: float) -> dict[PeerId, Held]:
        """Who holds one now; whose ends first stands first."""
        self.expire(now)
        return dict(self._held)

    def expire(self, now: float) -> list[PeerId]:
        """Forget what is over; whose it was."""
        over = list(itertools.takewhile(lambda peer: self._held[peer].until <= now, self._held))
        for peer in over:
            self._take(peer)
        return over

    def __len__(self) -> int:
        return len(self._held)

    def _network(self, place: str | None) -> int | None:
        return None if place is None else self._network_of(place)

    def _check(self, wanted: Held, own: Held | None) -> None:
        """Raises `LimitReached` where this one is too many; the peer's own, which it renews, does not count."""
        limits = self._limits
        if len(self._held) - (own is not None) >= limits.max_reservations:
            raise LimitReached(f"all {limits.max_reservations} reservations are taken")
        if (place := wanted.place) is not None:
            same = self._places[place] - (own is not None and own.place == place)
            if same >= limits.max_reservations_per_ip:
                raise LimitReached(f"{place} holds {limits.max_reservations_per_ip} reservations already")
        if (network := wanted.network) is not None:
            same = self._networks[network] - (own is not None and own.network == network)
            if same >= limits.max_reservations_per_asn:
                raise LimitReached(f"AS{network} holds {limits.max_reservations_per_asn} reservations already")

    def _put(self, peer: PeerId, held: Held) -> Held:
        self._held[peer] = held
        self._count(held, 1)
        return held

    def _take(self, peer: PeerId) -> Held | None:
        held = self._held.pop(peer, None)
        if held is not None:
            self._count(held, -1)
        return held

    def _count(self, held: Held, step: int) -> None:
        if held.place is not None:
            _add(self._places, held.place, step)
        if held.network is not None:
            _add(self._networks, held.network, step)


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
            _add(self._per_peer, peer, step)


def _add(counts: Counter[K], key: K, step: int) -> None:
    """What has come to nothing is not kept."""
    counts[key] += step
    if not counts[key]:
        del counts[key]


def _nobodys(_place: str) -> int | None:
    return None
