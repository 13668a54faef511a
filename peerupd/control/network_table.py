"""The table that tells a relay whose network an address is in: read in a thread of its own, again when it has changed.

A table that cannot be read is a problem to be told, and no reason not to start: reservations are then not bounded by
network, or by the table that was read before.
"""

from __future__ import annotations

import logging
from pathlib import Path

import trio

from peerupd.control.watching import Stamp, stamp
from peerupd.model.errors import PeerupError
from peerupd.model.logs import said
from peerupd.p2p.relay_server import RelayServer

log = logging.getLogger(__name__)


class NetworkTable:
    """One relay's table; without a path there is none."""

    def __init__(self, path: Path | None, server: RelayServer) -> None:
        self._path = path
        self._server = server
        self._read_at: Stamp | None = None
        self._trouble = ""
        self._one = trio.CapacityLimiter(1)

    def problems(self) -> tuple[str, ...]:
        """What a person should mend."""
        return (self._trouble,) if self._trouble else ()

    async def read(self) -> None:
        """Put in force what the file says now, if it has changed."""
        path = self._path
        if path is None or ((now := stamp(path)) is not None and now == self._read_at):
            return
        from peerupd.p2p import networks  # few relays have a table

        try:
            # seconds of work for the whole internet: files that matter more must not stand behind it
            table = await trio.to_thread.run_sync(networks.load, path, limiter=self._one)
        except PeerupError as why:
            self._trouble = f"asn_table: {why}"
        else:
            self._read_at = now
            self._trouble = f"asn_table: {path}: {table.trouble}" if table.trouble else ""
            self._server.count_networks(table.number_of)
        if self._trouble:
            log.warning("%s, ignoring", self._trouble, extra=said("asn_table.bad", file=str(path)))
