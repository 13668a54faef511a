"""Notice that somebody changed a file by hand or by `peerupd once`: its identity is looked at once a second.

A file that is gone is not a change: an editor may be between two steps, and what is in force stays in force.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NoReturn

import trio

INTERVAL: Final = 1.0  # seconds between two looks
Stamp = tuple[int, int, int]  # inode, size, time of modification in nanoseconds


async def changes(path: Path, then: Callable[[], Awaitable[object]]) -> NoReturn:
    """Call `then` after each change of the file's identity since now."""
    known = stamp(path)
    while True:
        await trio.sleep(INTERVAL)
        seen = stamp(path)
        if seen is not None and seen != known:
            known = seen
            await then()


def stamp(path: Path) -> Stamp | None:
    """What tells a file's content from an earlier one without reading it; None: there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
