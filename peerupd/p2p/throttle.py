"""Hold peers to so many bytes per second: a token bucket for each, taken from in small portions.

Theory of operation. A portion may go as soon as the bucket is not in debt; what it overdraws is paid by time. Who asks
while another waits stands behind it, and a large wish is many portions: so that circuits of one peer share its rate by
turns, and a keystroke waits for one portion of each other circuit and not for a bulk transfer. A bucket is kept while
its peer has circuits and until it is full again: to call anew gains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio

from peerupd.model.names import PeerId

BURST_SECONDS: Final = 0.25  # of the rate, that an idle peer may use at once
PORTION_SECONDS: Final = 0.01  # of the rate, that are taken in one turn
SMALLEST_PORTION: Final = 1024  # bytes


class Bucket:
    """One peer's bytes."""

    def __init__(self, rate: float, clock: Callable[[], float] = trio.current_time) -> None:
        """`rate`: bytes per second; `clock`: seconds that only go forward."""
        self._rate = rate
        self._clock = clock
        self._burst = rate * BURST_SECONDS
        self._left = self._burst
        self._at = clock()
        self._turn = trio.Lock()

    async def take(self, portion: int) -> None:
        """Returns when so many bytes may go on; in the order of asking."""
        async with self._turn:
            if self._filled() < 0:  # nobody else takes any while we wait
                await trio.sleep(-self._left / self._rate)
            self._left -= portion

    @property
    def idle(self) -> bool:
        """Whether it is full, and nobody waits."""
        return not self._turn.locked() and self._filled() >= self._burst

    def _filled(self) -> float:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left


class Buckets:
    """The bucket of each peer that uses circuits."""

    def __init__(
        self, rate: float, has_circuits: Callable[[PeerId], bool], clock: Callable[[], float] = trio.current_time
    ) -> None:
        """`rate`: bytes per second of one peer; 0: nobody is held to any."""
        self._rate = rate
        self._has_circuits = has_circuits
        self._clock = clock
        self._portion = max(SMALLEST_PORTION, int(rate * PORTION_SECONDS))
        self._buckets: dict[PeerId, Bucket] = {}

    def of(self, *peers: PeerId) -> Shared | None:
        """What a circuit between these peers has to ask; None: nothing."""
        if not self._rate:
            return None
        for peer in [peer for peer, bucket in self._buckets.items() if bucket.idle and not self._has_circuits(peer)]:
            del self._buckets[peer]
        return Shared([self._bucket(peer) for peer in dict.fromkeys(peers)], self._portion)

    def __len__(self) -> int:
        return len(self._buckets)

    def _bucket(self, peer: PeerId) -> Bucket:
        return self._buckets.setdefault(peer, Bucket(self._rate, self._clock))


class Shared:
    """The buckets of both ends of a circuit, whose bytes are taken from each; `admit` is what `forward` asks."""

    def __init__(self, buckets: Sequence[Bucket], portion: int) -> None:
        self._buckets = buckets
        self._portion = portion

    async def admit(self, size: int) -> None:
        """Returns when so many bytes may go on; by turns with other circuits of the same peers."""
        for begin in range(0, size, self._portion):
            for bucket in self._buckets:
                await bucket.take(min(self._portion, size - begin))
