"""Time that may lie: what the gate takes for now (`expires` of the allowlist depends on it).

Theory of operation. A board without a battery wakes up in 1970, a broken one in 2106. The wall clock is believed from
the latest moment that is known to have passed (the program's build, the last good time on disk) until `LONGEST_LEAP`
later. Outside of that, the last decision about each key stands: time goes on, by the monotonic clock, from the last
moment that was believed. Over a restart that moment is what the disk holds: the last good time, which moves on only
after an hour of running with a peer or relay connected, or the latest `expires` that was decided to have passed. So a
lying clock revokes nobody whose time has not really passed, and revives nobody.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

import trio

from peerupd import files
from peerupd.control.disk import Disk
from peerupd.model import version
from peerupd.model.errors import PeerupError
from peerupd.model.logs import said

log = logging.getLogger(__name__)

SUFFIX: Final = ".time"  # of the file beside the key
LONGEST_LEAP: Final = 10 * 365 * 86_400.0  # seconds that a machine may have been switched off
PROVEN_AFTER: Final = 3600.0  # seconds of running, connected, before the wall clock becomes the last good time
MAX_FILE: Final = 64  # bytes: the last good time, and the latest end that was decided
END_OF_TIME: Final = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
WRITTEN: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()  # no clock before this is right
MODE: Final = 0o600


class Clock:
    """Seconds since the epoch, as far as they can be believed; call it."""

    def __init__(
        self,
        identity: Path,
        *,
        wall: Callable[[], float] = time.time,
        running: Callable[[], float] = time.monotonic,
        built: float | None = None,
    ) -> None:
        self._file = identity.with_name(identity.name + SUFFIX)
        self._wall = wall
        self._running = running
        good, self._decided = _stored(self._file)
        self._floor = max(good, build_time() if built is None else built)
        self._believed = max(self._floor, self._decided)
        self._at = running()

    def __call__(self) -> float:
        """Now."""
        wall = self._wall()
        if not self._believes(wall):
            return self._believed + self._running() - self._at
        self._believed, self._at = wall, self._running()
        return wall

    @property
    def credible(self) -> bool:
        """Whether the wall clock is believed."""
        return self._believes(self._wall())

    def problems(self) -> tuple[str, ...]:
        """What a person should mend."""
        return () if self.credible else ("this machine's clock is wrong; `expires` goes by the last good time",)

    async def run(self, connected: Callable[[], bool], disk: Disk) -> NoReturn:
        """Move the last good time on, hour by hour."""
        while True:
            await trio.sleep(PROVEN_AFTER)
            if connected() and self.credible:
                self._floor = self._wall()
                await self._keep(disk.do)

    async def decide(self, end: float, disk: Disk) -> None:
        """An `expires` of this moment has passed; that stands, also over a restart with a clock that lies."""
        if end > self._decided and self.credible:
            self._decided = end
            await self._keep(disk.do)

    def _believes(self, wall: float) -> bool:
        return self._floor <= wall <= (self._floor or wall) + LONGEST_LEAP

    async def _keep(self, do: Callable[..., Awaitable[None]]) -> None:
        moments = f"{self._floor:.0f} {self._decided:.0f}\n"
        try:
            await do(files.replace, self._file, moments.encode(), mode=MODE)
        except PeerupError as why:
            log.warning("cannot keep the last good time: %s, ignoring", why, extra=said("clock.not_kept"))


def build_time() -> float:
    """When this program was built, in seconds since the epoch; `WRITTEN` where that is not known."""
    try:
        return datetime.fromisoformat(version.own().built).timestamp()
    except ValueError:
        return WRITTEN


def _stored(file: Path) -> tuple[float, float]:
    """The last good time and the latest end that was decided; 0 for what is not there."""
    try:
        good, decided = [*map(float, files.read_text(file, MAX_FILE).split()), 0.0][:2]
    except (PeerupError, ValueError):
        return 0.0, 0.0
    return (good, decided) if 0 <= good < END_OF_TIME and 0 <= decided < END_OF_TIME else (0.0, 0.0)
