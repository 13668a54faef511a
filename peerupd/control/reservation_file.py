"""A relay's reservations over its restart: the file beside its key, read at the start, written as they change.

Theory of operation. A change is written `GATHER` after it, with what came meanwhile, and then not again for `PAUSE`: a
flash card lives long, and a relay that is killed loses half a minute of it. At the end it is written before the
connections are closed, and no more after: what ends with us is not to be ended by us.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import trio

from peerupd import files
from peerupd.control.disk import Disk
from peerupd.model.errors import NotFound, PeerupError
from peerupd.model.logs import said
from peerupd.p2p.relay_server import RelayServer
from peerupd.p2p.relay_state import MAX_TEXT, Found, from_text, to_text

log = logging.getLogger(__name__)

SUFFIX: Final = ".reservations"  # of the file beside the key
GATHER: Final = 1.0  # seconds from a change to its being written
PAUSE: Final = 30.0  # seconds between two writings
MODE: Final = 0o600


class ReservationFile:
    """Where one relay keeps its reservations."""

    def __init__(self, identity: Path, server: RelayServer, disk: Disk) -> None:
        self.path = identity.with_name(identity.name + SUFFIX)
        self._server = server
        self._disk = disk
        self._changed = trio.Event()
        self._writing = trio.CancelScope()
        self._trouble = ""
        server.on_reservations = self._note

    def problems(self) -> tuple[str, ...]:
        """What a person should mend."""
        return (self._trouble,) if self._trouble else ()

    async def restore(self) -> None:
        """Give the relay what was kept; a file that cannot be read is said, and costs the reservations only."""
        try:
            found = await self._disk.do(_read, self.path)
        except NotFound:
            return
        except PeerupError as why:
            found = Found(trouble=str(why))
        if found.trouble:
            trouble = said("reservations.bad_file", file=str(self.path))
            log.warning("%s: %s, ignoring", self.path, found.trouble, extra=trouble)
        self._server.restore(found.kept)
        count = len(self._server.reservations)
        log.info("%d reservations are kept from before", count, extra=said("reservations.restored", count=count))

    async def run(self) -> None:
        """Write changes, until `close`."""
        with self._writing:
            while True:
                await self._changed.wait()
                await trio.sleep(GATHER)
                await self._write()
                await trio.sleep(PAUSE)

    async def close(self) -> None:
        """Write for the last time: what comes now are goodbyes."""
        self._writing.cancel()
        await self._write()

    def _note(self) -> None:
        self._changed.set()

    async def _write(self) -> None:
        self._changed = trio.Event()
        try:
            await self._disk.do(files.replace, self.path, to_text(self._server.kept()), mode=MODE)
        except PeerupError as why:
            self._trouble = f"reservations would not outlive a restart: {why}"
            log.warning("%s, ignoring", self._trouble, extra=said("reservations.not_kept"))
        else:
            self._trouble = ""


def _read(path: Path) -> Found:
    return from_text(files.read_secret(path, MAX_TEXT))
