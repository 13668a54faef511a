"""`expires` of the allowlist, as time goes by: who is over is cut at that moment, and a week ahead somebody is told.

The sleep until the next end is never longer than `LONGEST_NAP`, because a wall clock may be set while we sleep.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NoReturn

import trio

from peerupd.control.clock import Clock
from peerupd.control.disk import Disk
from peerupd.model.logs import said
from peerupd.model.names import printable
from peerupd.trust.authorized_keys import Entry
from peerupd.trust.gate import Gate

log = logging.getLogger(__name__)

WARN_AHEAD: Final = 7 * 86_400.0  # seconds
LONGEST_NAP: Final = 30.0  # seconds
SHORTEST_NAP: Final = 0.05  # seconds; the two clocks need not agree to the last digit
MAX_SHOWN: Final = 20  # entries in the status


class Expiries:
    """Watches the ends of the entries in force."""

    def __init__(self, gate: Gate, clock: Clock, cut: Callable[[], None], disk: Disk) -> None:
        self._gate = gate
        self._clock = clock
        self._cut = cut
        self._disk = disk
        self._told: set[tuple[str, float]] = set()
        self._changed = trio.Event()

    def changed(self) -> None:
        """Another allowlist is in force."""
        self._changed.set()

    def notices(self) -> tuple[str, ...]:
        """Who has less than a week left, for a person to read."""
        return tuple(map(_notice, self._soon()[:MAX_SHOWN]))

    async def run(self) -> NoReturn:
        """Until cancelled."""
        while True:
            self._changed = trio.Event()
            nap = await self._look()
            with trio.move_on_after(nap):
                await self._changed.wait()

    async def _look(self) -> float:
        """Cut who is over, tell who will be soon; seconds until the next look."""
        now = self._clock()
        ends = self._ends()
        self._cut()
        await self._clock.decide(max((end for end in ends if end <= now), default=0.0), self._disk)
        self._tell()
        left = min((end - now for end in ends if end > now), default=LONGEST_NAP)
        return min(max(left, SHORTEST_NAP), LONGEST_NAP)

    def _ends(self) -> list[float]:
        entries = self._gate.allowlist.entries
        return [entry.expires_at for entry in entries if entry.expires_at is not None]

    def _soon(self) -> list[Entry]:
        now = self._clock()
        entries = self._gate.allowlist.entries
        return [entry for entry in entries if entry.expires_at and now < entry.expires_at <= now + WARN_AHEAD]

    def _tell(self) -> None:
        soon = self._soon()
        for entry in soon:
            if (str(entry.peer), entry.expires_at) not in self._told:
                log.warning("%s", _notice(entry), extra=said("auth.expires_soon", peer=str(entry.peer)))
        self._told = {(str(entry.peer), entry.expires_at or 0.0) for entry in soon}


def _notice(entry: Entry) -> str:
    end = datetime.fromtimestamp(entry.expires_at or 0.0, UTC)
    name = f" ({printable(entry.comment, 60)})" if entry.comment else ""
    return f"the authorization of {entry.peer.short}{name} ends at {end:%Y-%m-%dT%H:%M:%SZ}"
