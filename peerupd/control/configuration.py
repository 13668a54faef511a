"""The configuration while we run: edited on disk, read anew, and each part told to whoever lives by it.

An edit is validated and written by `config.store`; what is then in force is what the file says, not what we meant.
"""

from __future__ import annotations

from collections.abc import Callable

from peerupd.config.edits import Change
from peerupd.config.schema import NodeSettings
from peerupd.config.store import ConfigFile
from peerupd.control.disk import Disk

Told = Callable[[NodeSettings], None]


class Configuration:
    """A node's configuration file, and the settings in force."""

    def __init__(self, file: ConfigFile, settings: NodeSettings, disk: Disk) -> None:
        self.file = file
        self.settings = settings
        self.disk = disk
        self._told: list[Told] = []

    def tell(self, listener: Told) -> None:
        """`listener` is called now, and with the new settings after each change."""
        self._told.append(listener)
        listener(self.settings)

    async def edit(self, *changes: Change) -> None:
        """Write the changes and put the file in force; raises `ConfigInvalid`, `StorageFailed`: nothing is changed."""
        async with self.disk.changing:
            await self.disk.do(self.file.edit, *changes)
            await self._read()

    async def reload(self) -> tuple[str, ...]:
        """Put in force what the file says now; returns its warnings. Raises as `edit`: the old settings stay."""
        async with self.disk.changing:
            return await self._read()

    async def _read(self) -> tuple[str, ...]:
        parsed = await self.disk.do(self.file.load_node)
        self.settings = parsed.settings
        for listener in self._told:
            listener(parsed.settings)
        return parsed.warnings
