"""How often somebody may come: new connections by address, new streams by peer. Pure: the time is given.

Theory of operation. A bucket holds `burst` tokens and gets one back every `interval` seconds; of each only the moment
is kept when it is full again, and a full one is not kept at all. An address pays for handshakes that fail or that do
not end in admission, and for no others: a peer that is let in may come as often as it likes. An address with no token
left is sent away before any cryptography, unless an authorised peer came from there within a day. Then the address is
known, which keeps a way in for that peer although somebody behind the same NAT wastes all tokens: its handshakes go on,
but stand in line (`p2p.half_open`). So do those from unknown addresses while handshakes fail in great number, wherever
they come from.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from peerupd.model.names import PeerId

CONNECTION_BURST: Final = 16  # handshakes that may fail at once, per address
CONNECTION_INTERVAL: Final = 5.0  # seconds until one more may
FAILURES: Final = 64  # handshakes that may fail at once, from all addresses, before unknown ones stand in line
FAILURE_INTERVAL: Final = 0.1  # seconds until one more may
STREAMS_PER_SECOND: Final = 2000.0  # of one peer, in the long run; more than a Python program can serve
STREAM_BURST: Final = 4.0  # seconds' worth of streams that may come at once
KNOWN_FOR: Final = 86_400.0  # seconds after an authorised handshake that an address keeps a way in
MAX_ADDRESSES: Final = 4096  # whose tokens are counted; who paid longest ago is forgotten, as if its bucket were full
MAX_KNOWN: Final = 1024  # addresses
MAX_PEERS: Final = 1024  # whose streams are counted
_ROUNDING: Final = 1e-6  # seconds

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Rates:
    """What somebody may do how often; an interval or a rate of 0 is no limit."""

    connection_burst: int = CONNECTION_BURST
    """Handshakes from one address that may fail at once."""
    connection_interval: float = CONNECTION_INTERVAL
    """Seconds until one more may fail."""
    streams_per_second: float = STREAMS_PER_SECOND
    """New streams of one peer, in the long run; `STREAM_BURST` times as many at once."""


DEFAULT: Final = Rates()


class Buckets(Generic[K]):
    """One bucket of tokens for each key; at most `limit` that are not full."""

    def __init__(self, burst: int, interval: float, limit: int) -> None:
        self._interval = interval
        self._depth = burst * interval  # seconds that an empty bucket takes to be full
        self._limit = limit
        self._full_at: OrderedDict[K, float] = OrderedDict()  # spent from longest ago first

    def has(self, key: K, now: float) -> bool:
        """Whether there is a token."""
        return self._missing(key, now) + self._interval <= self._depth + _ROUNDING

    def spend(self, key: K, now: float) -> bool:
        """Take a token; False, and nothing is taken, when there is none."""
        if not self.has(key, now):
            return False
        self._keep(key, now + self._missing(key, now) + self._interval, now)
        return True

    def drain(self, key: K, now: float) -> None:
        """Take a token; where there is none, begin the wait for the next one anew."""
        if not self.spend(key, now):
            self._keep(key, now + self._depth, now)

    def _missing(self, key: K, now: float) -> float:
        """Seconds until it is full."""
        return max(0.0, self._full_at.get(key, now) - now)

    def _keep(self, key: K, full_at: float, now: float) -> None:
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        oldest = next(iter(self._full_at))
        if len(self._full_at) > self._limit or self._full_at[oldest] <= now:
            del self._full_at[oldest]

    def __len__(self) -> int:
        return len(self._full_at)


def stream_buckets(rates: Rates) -> Buckets[PeerId]:
    """The tokens of peers for new streams."""
    rate = rates.streams_per_second
    return Buckets(max(1, round(rate * STREAM_BURST)), 1 / rate if rate else 0.0, MAX_PEERS)


class Addresses:
    """From where connections may come now; `place` is an address as `model.addresses.counted_as` has it."""

    def __init__(self, rates: Rates = DEFAULT) -> None:
        self._tokens = Buckets[str](rates.connection_burst, rates.connection_interval, MAX_ADDRESSES)
        self._of_all = Buckets[None](FAILURES, FAILURE_INTERVAL if rates.connection_interval else 0.0, 1)
        self._known: OrderedDict[str, float] = OrderedDict()  # until when; the soonest first

    def may_come(self, place: str, now: float) -> bool:
        """Whether a connection from there is worth a handshake."""
        return self._tokens.has(place, now) or self._is_known(place, now)

    def in_line(self, place: str, now: float) -> bool:
        """Whether its handshakes have to stand in line: too many failed."""
        return not self._tokens.has(place, now) or not (self._of_all.has(None, now) or self._is_known(place, now))

    def failed(self, place: str, now: float) -> None:
        """A handshake from there failed, or its peer was not let in."""
        self._tokens.drain(place, now)
        self._of_all.drain(None, now)

    def authorised(self, place: str, now: float) -> None:
        """A peer of ours came from there."""
        self._known[place] = now + KNOWN_FOR
        self._known.move_to_end(place)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def _is_known(self, place: str, now: float) -> bool:
        return self._known.get(place, now) > now
