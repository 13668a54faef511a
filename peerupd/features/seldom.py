"""Say the same trouble once per interval: what a stranger can repeat must not fill a log."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

import trio

INTERVAL: Final = 60.0  # seconds between two lines about the same thing
MAX_KEYS: Final = 256  # things remembered


class Seldom:
    """Which troubles are due to be told."""

    def __init__(self, interval: float = INTERVAL, clock: Callable[[], float] = trio.current_time) -> None:
        self._interval = interval
        self._clock = clock
        self._told: dict[Hashable, float] = {}

    def due(self, key: Hashable) -> bool:
        """Whether a line about `key` may be logged now; a True counts as logged."""
        now = self._clock()
        last = self._told.get(key)
        if last is not None and now - last < self._interval:
            return False
        self._told.pop(key, None)
        if len(self._told) >= MAX_KEYS:
            del self._told[next(iter(self._told))]
        self._told[key] = now
        return True
