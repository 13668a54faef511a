"""Notice that somebody changed a file by hand or by `peerupd once`: its identity is looked at once a second.

A file that is gone is a change only when it stays so: an editor may be between two steps.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NoReturn

import trio

INTERVAL: Final = 1.0  # seconds between two looks
GONE_FOR: Final = 5  # looks that find no file, before that is a change
Stamp = tuple[int, int, int]  # inode, size, time of the last change (of content or rights) in nanoseconds


async def changes(path: Path, known: Stamp | None, then: Callable[[], Awaitable[object]]) -> NoReturn:
    """Call `then` after each change of the file's identity since it was `known`."""
    gone = 0
    while True:
        await trio.sleep(INTERVAL)
        seen = stamp(path)
        gone = gone + 1 if seen is None else 0
        if seen != known and (seen is not None or gone >= GONE_FOR):
            known = seen
            await then()


def stamp(path: Path) -> Stamp | None:
    """What tells a file's content from an earlier one without reading it; None: there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_ctime_ns
