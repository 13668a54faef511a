"""Log what peers cause, but not as often as they cause it: a stranger must not fill the disk.

Of each event `AT_ONCE` lines may come together, then one in `INTERVAL`; the next line that is told says how many were
left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from peerupd.model.logs import said

AT_ONCE: Final = 30  # lines of one event
INTERVAL: Final = 10.0  # seconds until one more


@dataclass(slots=True)
class Quota:
    """What one event has left."""

    left: float
    at: float
    silent: int = 0
    """Lines left out since the last one that was told."""


class Teller:
    """The lines of one room; the names of its events are few, and its own."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = trio.current_time) -> None:
        self._log = log
        self._clock = clock
        self._quotas: dict[str, Quota] = {}

    def info(self, event: str, words: str, *args: object, **fields: str) -> None:
        """What happened, if a line about it is due."""
        self._log_if_due(logging.INFO, event, words, args, fields)

    def error(self, event: str, words: str, *args: object, **fields: str) -> None:
        """What failed, if a line about it is due."""
        self._log_if_due(logging.ERROR, event, words, args, fields)

    def _log_if_due(self, level: int, event: str, words: str, args: tuple[object, ...], fields: dict[str, str]) -> None:
        quota = self._quota(event)
        if quota.left < 1:
            quota.silent += 1
            return
        more = f" ({quota.silent} more like it were not told)" if quota.silent else ""
        quota.left -= 1
        quota.silent = 0
        self._log.log(level, f"{words}{more}", *args, extra=said(event, **fields))

    def _quota(self, event: str) -> Quota:
        now = self._clock()
        quota = self._quotas.setdefault(event, Quota(AT_ONCE, now))
        quota.left = min(AT_ONCE, quota.left + (now - quota.at) / INTERVAL)
        quota.at = now
        return quota
