"""How much received and unread data may be held: by one connection, and by all of a process together.

Over its own budget a connection's reader pauses. When together they hold half of the process's, those pause that hold
at least their equal share of that half, so that the fattest pay and a thin one goes on: until all have their share,
which is the other half at most. Reading frees, and wakes whoever paused.
"""

from __future__ import annotations

from typing import Final

import trio

CONNECTION_BUDGET: Final = 32 * 1024 * 1024  # bytes, of one connection
PROCESS_BUDGET: Final = 256 * 1024 * 1024  # bytes, of all


class Pool:
    """What all connections of a process hold."""

    def __init__(self, limit: int = PROCESS_BUDGET) -> None:
        self._mark = limit // 2
        self.held = 0  # bytes
        self.holders = 0  # connections that hold anything
        self.freed = trio.lowlevel.ParkingLot()

    @property
    def is_over(self) -> bool:
        """Whether together they hold so much that some must pause."""
        return self.held > self._mark

    @property
    def share(self) -> int:
        """What each holder may hold then, in bytes."""
        return self._mark // max(1, self.holders)


class Budget:
    """What one connection holds."""

    def __init__(self, pool: Pool | None = None, limit: int = CONNECTION_BUDGET) -> None:
        self._pool = pool or Pool()
        self._limit = limit
        self.held = 0  # bytes
        self.paused = False

    def take(self, size: int) -> None:
        """So many bytes arrived."""
        if size and not self.held:
            self._pool.holders += 1
        self.held += size
        self._pool.held += size

    def give_back(self, size: int) -> None:
        """So many bytes were read, or dropped."""
        self.held -= size
        self._pool.held -= size
        if size and not self.held:
            self._pool.holders -= 1
        if size:
            self._pool.freed.unpark_all()

    def detach(self) -> None:
        """The connection is over: what is still unread counts no longer for the others."""
        held, self.held = self.held, 0
        self._pool.held -= held
        self._pool.holders -= bool(held)
        self._pool.freed.unpark_all()
        self._pool = Pool()
        self.take(held)

    @property
    def is_over(self) -> bool:
        """Whether the reader must pause."""
        return self.held > self._limit or (self._pool.is_over and self.held >= self._pool.share)

    async def room(self) -> None:
        """Return once the reader may go on."""
        self.paused = True
        try:
            while self.is_over:
                await self._pool.freed.park()
        finally:
            self.paused = False
