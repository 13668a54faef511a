"""The one way to the disk: a single worker thread, so that the event loop never waits for a file.

Changes also hold `changing`: what is read, decided and written under it is one step to everybody else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import trio

P = ParamSpec("P")
T = TypeVar("T")


class Disk:
    """One worker, one lock."""

    def __init__(self) -> None:
        self.worker = trio.CapacityLimiter(1)
        self.changing = trio.Lock()

    async def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns, done in the worker thread; raises what it raises.

        It is not abandoned when the caller is cancelled: a file is never left half way.
        """
        return await trio.to_thread.run_sync(lambda: work(*args, **kwargs), limiter=self.worker)
