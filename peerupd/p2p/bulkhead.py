"""Bulkheads between tasks: a bug that somebody finds ends the task that has it, and is told; nothing else ends."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple, Unpack

log = logging.getLogger(__name__)

Ts = TypeVarTuple("Ts")


async def contained(what: str, run: Callable[[Unpack[Ts]], Awaitable[object]], *args: *Ts) -> None:
    """Run it to its end; an exception is logged as a bug in `what` and goes no further. Cancellation passes."""
    try:
        await run(*args)
    except BaseExceptionGroup as several:
        bugs, others = several.split(Exception)
        if bugs is not None:
            log.error("a bug ended %s", what, exc_info=bugs)
        if others is not None:
            raise others from None
    except Exception as bug:
        log.error("a bug ended %s", what, exc_info=bug)
