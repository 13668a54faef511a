"""The configuration file: where it is looked for, how it is read, and how it is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from peerupd import files
from peerupd.config.edits import Change, edited
from peerupd.config.schema import NodeSettings, Parsed, RelaySettings, parse_node, parse_relay
from peerupd.config.yaml_text import MAX_CONFIG_BYTES
from peerupd.model.errors import ConfigInvalid, ConfigNotFound, Conflict, NotFound

SYSTEM_CONFIG: Final = Path("/etc/peerup/config.yaml")
SYSTEM_RELAY_CONFIG: Final = Path("/etc/peerup/relay.yaml")
NEW_MODE: Final = 0o600
WRITABLE_BY_OTHERS: Final = 0o022
"""A configuration holds no secret, but who may write it decides whom the node trusts."""


def find_config(explicit: Path | None, *, cwd: Path, home: Path | None, is_root: bool, or_copy: bool = False) -> Path:
    """The node's configuration: the explicit one, or the first that exists; raises `ConfigNotFound`.

    With `or_copy`, one that is gone is found all the same if its last good copy is there and no other one exists.
    Root never takes `./peerup.yaml` unless told to: whoever can write there would decide what root runs.
    """
    places = [] if is_root else [cwd / "peerup.yaml"]
    if home is not None:
        places.append(home / ".config" / "peerup" / "config.yaml")
    return _first(explicit, [*places, SYSTEM_CONFIG], "peerupctl init", or_copy=or_copy)


def find_relay_config(explicit: Path | None, *, cwd: Path, is_root: bool, or_copy: bool = False) -> Path:
    """The relay server's configuration, as `find_config`; the working directory's has its old name.

    Root takes that one where nobody else could have put it: `relay setup` in a folder of root's own makes it.
    """
    here = cwd / "relay-server.yaml"
    places = [] if is_root and not _only_ours(here) else [here]
    return _first(explicit, [*places, SYSTEM_RELAY_CONFIG], "peerupctl relay setup", or_copy=or_copy)


def _only_ours(path: Path) -> bool:
    """Whether file and folder are this user's, and nobody else may write there; so it is where no file is."""
    there = [os.stat(each) for each in (path, path.parent) if each.exists()]
    return all(each.st_uid == os.geteuid() and not each.st_mode & WRITABLE_BY_OTHERS for each in there)


def _first(explicit: Path | None, places: Sequence[Path], command: str, *, or_copy: bool) -> Path:
    named = places if explicit is None else [explicit]
    found = [place for place in named if place.exists()]
    if or_copy:
        found += [place for place in named if files.copy_of(place).exists()]
    if found:
        return found[0]
    if explicit is not None:
        raise ConfigNotFound(f"config file not found: {explicit}")
    searched = ", ".join(map(str, places))
    raise ConfigNotFound(f"no config file found (searched: {searched})", hint=f"make one: {command}")


class ConfigFile:
    """One configuration file of a node or of a relay server."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load_node(self, *, strict: bool = False) -> Parsed[NodeSettings]:
        """A node's settings. Raises as `read`, and `ConfigInvalid` with all problems; `strict` as in `parse_node`."""
        text = self.read()
        with _naming(self.path):
            return parse_node(text, self.path.parent, strict=strict)

    def load_relay(self, *, strict: bool = False) -> Parsed[RelaySettings]:
        """A relay server's settings; as `load_node`."""
        text = self.read()
        with _naming(self.path):
            return parse_relay(text, self.path.parent, strict=strict)

    def read(self) -> str:
        """The text; raises `ConfigNotFound`, `InsecurePermissions`, `StorageFailed`, or `RequestError` (no text)."""
        try:
            files.check_mode(self.path, WRITABLE_BY_OTHERS)
            return files.read_text(self.path, MAX_CONFIG_BYTES)
        except NotFound:
            raise ConfigNotFound(f"config file not found: {self.path}") from None

    def keep(self, parsed: Parsed[NodeSettings] | Parsed[RelaySettings]) -> None:
        """What was read is good: it is the last good copy now; raises `StorageFailed`."""
        files.keep_copy(self.path, parsed.text.encode())

    def edit(self, *changes: Change) -> None:
        """Make these changes of a node's configuration, all or none; its comments, order and mode stay.

        What is so already is left as it is. Raises as `read`; `ConfigInvalid` if it was or would become invalid;
        `Conflict` if a person must edit it; `StorageFailed` if it cannot be written. Then nothing is changed.
        """
        text = self.read()
        with _naming(self.path):
            changed = edited(text, *changes)
            parse_node(changed, self.path.parent)
        if changed != text:
            files.replace(self.path, changed.encode(), mode=files.mode_of(self.path, otherwise=NEW_MODE))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts the file's path in front of what is wrong with its text."""
    try:
        yield
    except ConfigInvalid as why:
        first, *_ = why.message.splitlines()
        raise ConfigInvalid(f"{path}: {first}", problems=why.problems, hint=why.hint) from None
    except Conflict as why:
        raise Conflict(f"{path}: {why.message}", hint=why.hint) from None
