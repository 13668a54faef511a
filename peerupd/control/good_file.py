"""One file that we live by: read anew while we run, its last good copy kept, and what is wrong with it now.

Theory of operation. What was read last stays in force for as long as the file cannot be read: `trouble` says why, and
ends with the next good reading. A start may begin in trouble, with what the last good copy held. Nothing here writes
the file itself. A copy that cannot be kept is said in the log and no reason to fail.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from peerupd.control.disk import Disk
from peerupd.model.errors import PeerupError
from peerupd.model.logs import said

log = logging.getLogger(__name__)

T = TypeVar("T")


class GoodFile(Generic[T]):
    """How one file is read and kept; callers hold `Disk.changing`."""

    def __init__(
        self, path: Path, read: Callable[[], T], keep: Callable[[T], None], disk: Disk, trouble: str = ""
    ) -> None:
        self.path = path
        self.trouble = trouble
        """Why the file is not in force; empty: it is."""
        self._read = read
        self._keep = keep
        self._disk = disk

    def problems(self) -> tuple[str, ...]:
        """The trouble, if there is one."""
        return (self.trouble,) if self.trouble else ()

    async def read(self) -> T:
        """What is in the file now, kept as the last good copy; raises what reading raises."""
        try:
            found = await self._disk.do(self._read)
        except PeerupError as why:
            self.trouble = f"{in_a_line(why)}; what was read before stays in force until it is mended"
            raise
        await self.keep(found)
        return found

    async def keep(self, found: T) -> None:
        """The file is known to hold `found`, which is good."""
        self.trouble = ""
        try:
            await self._disk.do(self._keep, found)
        except PeerupError as why:
            log.warning(
                "cannot keep the last good copy: %s, ignoring", why, extra=said("good.not_kept", file=str(self.path))
            )


def in_a_line(why: PeerupError) -> str:
    """The error's message without line breaks, for a status line."""
    return " ".join(why.message.split())
