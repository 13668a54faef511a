"""What stands and is held now, beside what was counted: read when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from peerupd.model import counters as names
from peerupd.model.counters import Count, Counters
from peerupd.model.snapshots import PathKind
from peerupd.p2p.host import Host


class Gauges:
    """Of one host, on top of what the rooms have counted."""

    def __init__(self, host: Host, counters: Counters, memory: int, settle: Sequence[Callable[[], None]] = ()) -> None:
        """`memory`: the budget in bytes; `settle`: who brings the counters up to now."""
        self._host = host
        self._counters = counters
        self._memory = memory
        self._settle = settle

    def read(self) -> tuple[Count, ...]:
        """All counters and gauges."""
        for settle in self._settle:
            settle()
        now = self._counters.copy()
        self._read_connections(now)
        now.put(names.MEMORY_HELD, self._host.swarm.held)
        now.put(names.MEMORY_LIMIT, self._memory)
        return now.snapshot()

    def _read_connections(self, now: Counters) -> None:
        connections = self._host.connections()
        now.put(names.STREAMS_ACTIVE, sum(connection.streams for connection in connections))
        for path in PathKind:
            alike = [connection for connection in connections if connection.path is path]
            now.put(names.CONNECTIONS_ACTIVE, len(alike), path_type=path)
            # those that have ended are counted already
            now.count(names.CONNECTION_BYTES, sum(c.received for c in alike), direction="rx", path_type=path)
            now.count(names.CONNECTION_BYTES, sum(c.sent for c in alike), direction="tx", path_type=path)
