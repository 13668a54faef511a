"""Time that may lie: what the gate takes for now (`expires` of the allowlist depends on it).

Theory of operation. A board without a battery wakes up in 1970, a broken one in 2106. The wall clock is believed from
the latest moment that is known to have passed (the program's build, the last good time on disk) until `LONGEST_LEAP`
later. Outside of that, time goes on from that moment by the monotonic clock: such a clock revokes nobody and revives
nobody. The last good time moves on only after an hour of running with a peer or relay connected.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
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
MAX_FILE: Final = 64  # bytes
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
        self._floor = max(_stored(self._file), build_time() if built is None else built)
        self._since = running()

    def __call__(self) -> float:
        """Now."""
        return self._wall() if self.credible else self._floor + self._running() - self._since

    @property
    def credible(self) -> bool:
        """Whether the wall clock is believed."""
        return self._floor <= self._wall() <= (self._floor or self._wall()) + LONGEST_LEAP

    def problems(self) -> tuple[str, ...]:
        """What a person should mend."""
        return () if self.credible else ("this machine's clock is wrong; `expires` goes by the last good time",)

    async def run(self, connected: Callable[[], bool], disk: Disk) -> NoReturn:
        """Move the last good time on, hour by hour."""
        while True:
            await trio.sleep(PROVEN_AFTER)
            if connected() and self.credible:
                await self._advance(disk.do)

    async def _advance(self, do: Callable[..., Awaitable[None]]) -> None:
        now = self._wall()
        try:
            await do(files.replace, self._file, f"{now:.0f}\n".encode(), mode=MODE)
        except PeerupError as why:
            log.warning("cannot keep the last good time: %s, ignoring", why, extra=said("clock.not_kept"))
        self._floor, self._since = now, self._running()


def build_time() -> float:
    """When this program was built, in seconds since the epoch; 0 where that is not known."""
    try:
        return datetime.fromisoformat(version.own().built).timestamp()
    except ValueError:
        return 0.0


def _stored(file: Path) -> float:
    try:
        return float(files.read_text(file, MAX_FILE))
    except (PeerupError, ValueError):
        return 0.0
