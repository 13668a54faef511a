"""Count connections to services and their bytes; those of connections that still run are counted whenever asked.

A connection's bytes are told to the counters in portions: what its tally has more than at the last telling.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from peerupd.features.pump import Tally
from peerupd.model.counters import PROXY_ACTIVE, PROXY_BYTES, PROXY_CONNECTIONS, PROXY_REFUSED, Counters

SERVED: Final = "served"  # a service of ours, used by a peer
USED: Final = "used"  # a service of a peer, used here


class Traffic:
    """Connections to services, on one side of them."""

    def __init__(self, counters: Counters | None, side: str) -> None:
        self._counters = counters or Counters()
        self._side = side
        self._running: set[_Told] = set()

    @contextmanager
    def connection(self, service: str) -> Iterator[Tally]:
        """One connection, while the block lasts; whoever carries its bytes writes them into the tally."""
        told = _Told(service)
        self._running.add(told)
        self._count(PROXY_CONNECTIONS, service)
        self._count(PROXY_ACTIVE, service)
        try:
            yield told.tally
        finally:
            self._tell(told)
            self._running.remove(told)
            self._count(PROXY_ACTIVE, service, -1)

    def refused(self, service: str, reason: str) -> None:
        """A connection came to nothing; there are few reasons, each a word."""
        self._counters.count(PROXY_REFUSED, service=service, side=self._side, reason=reason)

    def settle(self) -> None:
        """Count what running connections have carried by now."""
        for told in self._running:
            self._tell(told)

    def _count(self, name: str, service: str, by: int = 1) -> None:
        self._counters.count(name, by, service=service, side=self._side)

    def _tell(self, told: _Told) -> None:
        sent, received = told.news()
        self._counters.count(PROXY_BYTES, sent, direction="tx", service=told.service, side=self._side)
        self._counters.count(PROXY_BYTES, received, direction="rx", service=told.service, side=self._side)


class _Told:
    """One connection: what it has carried, and what of it is counted."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.tally = Tally()
        self._sent = self._received = 0

    def news(self) -> tuple[int, int]:
        """Bytes sent and received since the last time."""
        sent, received = self.tally.sent - self._sent, self.tally.received - self._received
        self._sent, self._received = self.tally.sent, self.tally.received
        return sent, received
