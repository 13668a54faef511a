"""How much memory this process may take, and how much of it the network may hold (cgroups(7)).

The unit's limit is the least that the control groups above us set, in either version of them; `PEERUP_MEMORY_MAX` in
the environment is one more, for service managers that set none. Of the limit the network gets `SHARE`; below about
160 MiB what is left beside the program itself. Without a limit it gets a fixed budget, on a small machine less.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from peerupd.model.names import printable

log = logging.getLogger(__name__)

MIB: Final = 1024 * 1024
SHARE: Final = 0.6  # of the unit's limit: the rest is the program, the kernel's socket buffers, what is to be sent
PROGRAM: Final = 64 * MIB  # bytes that the daemon takes beside the network's: 45 MiB at rest, and room to breathe
LEAST: Final = 4 * MIB  # bytes; with less nothing moves
UNLIMITED_BUDGET: Final = 256 * MIB  # bytes, where no limit is set
SHARE_OF_MACHINE: Final = 1 / 8  # of the RAM, where no limit is set: a router has 64 to 256 MiB of it
NEVER: Final = 1 << 60  # bytes; version 1 writes "no limit" as a number near 2^63

ENVIRONMENT: Final = "PEERUP_MEMORY_MAX"
MAX_SHOWN: Final = 40  # characters of a bad one
MAX_DIGITS: Final = 18  # of a good one
_UNITS: Final = {"": 1, "K": 1024, "M": MIB, "G": 1024 * MIB}


@dataclass(frozen=True, slots=True)
class Memory:
    """What the network may hold, and why so much."""

    budget: int
    """Bytes."""
    why: str


def budget(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Memory:
    """Of this process; `root` is where `proc` and `sys` are."""
    limits = list(_limits(environment, root))
    if not limits:
        ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return Memory(unlimited(ram), f"no limit is set, the machine has {ram // MIB} MiB")
    limit, where = min(limits)
    return Memory(share_of(limit), f"the limit is {limit // MIB} MiB, by {where}")


def share_of(limit: int) -> int:
    """What the network may hold of a unit's limit, in bytes."""
    return max(LEAST, min(int(limit * SHARE), limit - PROGRAM))


def unlimited(ram: int) -> int:
    """What the network may hold on a machine with so much memory and no limit, in bytes."""
    return max(LEAST, min(UNLIMITED_BUDGET, int(ram * SHARE_OF_MACHINE)))


def _limits(environment: Mapping[str, str], root: Path) -> Iterator[tuple[int, str]]:
    said = environment.get(ENVIRONMENT, "")
    if limit := _size(said):
        yield limit, ENVIRONMENT
    elif said:
        log.warning("%s=%s is no size (128M is one), ignoring", ENVIRONMENT, printable(said, MAX_SHOWN))
    for group, names in _groups(root):
        for name in names:
            if (at_most := _read(group / name)) is not None:
                yield at_most, name


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Our control groups with those above them, each with the names of the files that limit memory."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0":
            yield from _upwards(root / "sys/fs/cgroup", path, ("memory.max", "memory.high"))
        elif "memory" in controllers.split(","):
            yield from _upwards(root / "sys/fs/cgroup/memory", path, ("memory.limit_in_bytes",))


def _upwards(mount: Path, path: str, names: tuple[str, ...]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """From our group to the root of what is mounted; in a container ours may be mounted as the root itself."""
    group = PurePosixPath(path.lstrip("/"))
    for each in (group, *group.parents):
        if ".." not in each.parts:
            yield mount / each, names


def _read(file: Path) -> int | None:
    """The bytes in a limit's file; None: none, or no such file."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() and int(text) < NEVER else None


def _size(text: str) -> int:
    """The bytes of `134217728`, `128M`, `1G`; 0: that is no size."""
    digits, unit = text.rstrip("KMG"), text.lstrip("0123456789")
    good = digits.isascii() and digits.isdecimal() and unit in _UNITS and len(digits) <= MAX_DIGITS
    return int(digits) * _UNITS[unit] if good else 0
