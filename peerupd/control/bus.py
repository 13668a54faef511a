"""What happened, told to whoever listens: bounded queues, and a slow listener loses the oldest, never stops anybody."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from peerupd.model.snapshots import Event

MAX_WAITING: Final = 256  # events per subscriber


class Subscription:
    """The events since `subscribe`, oldest first; iterate with `async for`."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque(maxlen=MAX_WAITING)
        self._there = trio.Event()
        self.lost = 0
        """Events that fell out because nobody took them."""

    def put(self, event: Event) -> None:
        """Queue an event."""
        self.lost += len(self._waiting) == MAX_WAITING
        self._waiting.append(event)
        self._there.set()

    async def next(self) -> Event:
        """The next event."""
        while not self._waiting:
            self._there = trio.Event()
            await self._there.wait()
        return self._waiting.popleft()

    def clear(self) -> None:
        """Forget what is queued."""
        self._waiting.clear()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        return await self.next()


class Bus:
    """Publish and subscribe; publishing never waits and may be done from any task of the loop."""

    def __init__(self) -> None:
        self._subscribers: list[Subscription] = []

    def publish(self, event: Event) -> None:
        """Give `event` to everyone who listens."""
        for subscriber in self._subscribers:
            subscriber.put(event)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Listen while the block runs."""
        subscription = Subscription()
        self._subscribers.append(subscription)
        try:
            yield subscription
        finally:
            self._subscribers.remove(subscription)
