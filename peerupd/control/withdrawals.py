"""Tell our relays that a peer we once vouched for is no longer welcome, and go on telling until they have heard it.

What is not told yet when the daemon ends is told no more; the log says so.
"""

from __future__ import annotations

import logging
from typing import Final, NoReturn, Protocol

import trio

from peerupd.model.errors import EnvironmentalError, RefusedError, RemoteError
from peerupd.model.logs import said
from peerupd.model.names import PeerId

log = logging.getLogger(__name__)

MAX_WAITING: Final = 1024  # peers; the oldest is forgotten
PAUSES: Final = (5.0, 30.0, 120.0, 600.0)  # seconds between attempts; the last one repeats


class Withdraw(Protocol):
    """Tells every relay of ours; raises when one of them could not be told."""

    async def __call__(self, peer: PeerId) -> None: ...


class Withdrawals:
    """Peers still to be withdrawn."""

    def __init__(self, withdraw: Withdraw) -> None:
        self._withdraw = withdraw
        self._waiting: dict[PeerId, int] = {}  # to how often it was tried
        self._more = trio.Event()

    def ask(self, peer: PeerId) -> None:
        """Withdraw `peer`, soon."""
        while len(self._waiting) >= MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[peer] = 0
        self._more.set()

    async def run(self) -> NoReturn:
        """Work until cancelled."""
        try:
            while True:
                self._more = trio.Event()
                await self.settle()
                with trio.move_on_after(self._pause()):
                    await self._more.wait()
        finally:
            for peer in self._waiting:
                log.warning("the relays may still admit %s, which is no longer authorized here", peer)

    async def settle(self) -> None:
        """One attempt for everybody who waits."""
        for peer in tuple(self._waiting):
            await self._try(peer)

    async def _try(self, peer: PeerId) -> None:
        try:
            await self._withdraw(peer)
        except (RefusedError, RemoteError, EnvironmentalError) as why:
            if peer in self._waiting:  # else others have taken its place meanwhile
                self._waiting[peer] += 1
            log.info("cannot withdraw %s at a relay: %s, retrying in %g s", peer, why.message, self._pause())
        else:
            self._waiting.pop(peer, None)
            log.info("peer %s is withdrawn at our relays", peer, extra=said("auth.withdrawn", peer=str(peer)))

    def _pause(self) -> float:
        if not self._waiting:
            return float("inf")
        return PAUSES[min(min(self._waiting.values()), len(PAUSES) - 1)]
