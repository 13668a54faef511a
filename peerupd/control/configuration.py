"""The configuration while we run: edited on disk, read anew, and each part told to whoever lives by it.

An edit is validated and written by `config.store`; what is then in force is what the file says, not what we meant.
"""

from __future__ import annotations

from collections.abc import Callable

from peerupd.config.edits import Change
from peerupd.config.schema import NodeSettings, Parsed
from peerupd.config.store import ConfigFile
from peerupd.control.disk import Disk
from peerupd.control.good_file import GoodFile

Told = Callable[[NodeSettings], None]


class Configuration:
    """A node's configuration file, and the settings in force."""

    def __init__(self, file: ConfigFile, parsed: Parsed[NodeSettings], disk: Disk, trouble: str = "") -> None:
        self.file = file
        self.disk = disk
        self._parsed = parsed
        self._good = GoodFile(file.path, file.load_node, file.keep, disk, trouble)
        self._told: list[Told] = []

    @property
    def settings(self) -> NodeSettings:
        """What is in force."""
        return self._parsed.settings

    def problems(self) -> tuple[str, ...]:
        """What a person should mend in the file."""
        return (*self._good.problems(), *self._parsed.warnings)

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
            await self._read()
        return self._parsed.warnings

    async def keep(self) -> None:
        """A start has succeeded with these settings: they are the last good ones."""
        async with self.disk.changing:
            if not self._good.trouble:
                await self._good.keep(self._parsed)

    async def _read(self) -> None:
        self._parsed = await self._good.read()
        for listener in self._told:
            listener(self.settings)
