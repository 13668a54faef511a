"""Who may use a service: everyone whom the gate admits, or the union of a list of peers and an allowlist file.

A service with neither is open to all authorised peers; a list that is there and empty is open to nobody. The file is
read again when its modification time or size changed. A file that cannot be read leaves what it said last; one that
could never be read admits nobody.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import trio

from peerupd.config.schema import ServiceSettings
from peerupd.features.seldom import Seldom
from peerupd.model.errors import PeerupError
from peerupd.model.logs import said
from peerupd.model.names import PeerId
from peerupd.trust.authorized_keys import Allowlist, AllowlistFile

log = logging.getLogger(__name__)


class Access:
    """The access list of one service."""

    def __init__(self, settings: ServiceSettings, worker: trio.CapacityLimiter) -> None:
        self._listed = settings.allowed_peers
        self._file = _KeysFile(settings.authorized_keys_file, worker) if settings.authorized_keys_file else None

    @property
    def watches_a_file(self) -> bool:
        """Whether `refresh` can change anything."""
        return self._file is not None

    async def refresh(self) -> None:
        """Read the file again if it changed."""
        if self._file is not None:
            await self._file.refresh()

    def allows(self, peer: PeerId, now: float) -> bool:
        """Whether `peer` may use the service at the time `now`, by what was read last."""
        if self._listed is None and self._file is None:
            return True
        return peer in (self._listed or ()) or (self._file is not None and self._file.holds(peer, now))


class _KeysFile:
    """An authorized_keys file, kept in memory by its modification time."""

    def __init__(self, path: Path, worker: trio.CapacityLimiter) -> None:
        self._path = path
        self._worker = worker
        self._stamp: tuple[int, int, int] | None = None
        self._allowlist = Allowlist.parse("")
        self._trouble = Seldom()

    def holds(self, peer: PeerId, now: float) -> bool:
        entry = self._allowlist.get(peer)
        return entry is not None and not entry.expired(now)

    async def refresh(self) -> None:
        try:
            await trio.to_thread.run_sync(self._read, limiter=self._worker)
        except (OSError, PeerupError) as why:
            if self._trouble.due(self._path):
                log.warning(
                    "cannot read the access list %s: %s, keeping what it said last",
                    self._path,
                    why,
                    extra=said("service.access_unreadable", file=str(self._path)),
                )

    def _read(self) -> None:
        found = os.stat(self._path)
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp != self._stamp:
            self._allowlist = AllowlistFile(self._path).load()
            self._stamp = stamp
