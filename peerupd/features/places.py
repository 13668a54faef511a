"""Descriptors that local connections may take together, so that the network, the files and the doors find some too."""

from __future__ import annotations

import math
import resource
from typing import Final

import trio

RESERVED: Final = 512  # descriptors, for everything but local connections
LEAST: Final = 0.5  # of all descriptors, where there are few
MOST: Final = 16_384  # local connections at once


def places() -> trio.Semaphore:
    """One for each local connection of proxies and services that there may be at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return trio.Semaphore(MOST)
    return trio.Semaphore(min(MOST, max(soft - RESERVED, int(soft * LEAST))))


async def take(places: trio.Semaphore, seconds: float = math.inf) -> bool:
    """One of `places`, without a checkpoint where there is one; whether there was one within `seconds`."""
    try:
        places.acquire_nowait()
        return True
    except trio.WouldBlock:
        with trio.move_on_after(seconds):
            await places.acquire()
            return True
    return False
