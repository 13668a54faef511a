"""What a process holds now, as its kernel counts it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """Memory in bytes, counts, and seconds of CPU."""

    resident: int
    peak: int
    descriptors: int
    threads: int
    cpu: float

    def __str__(self) -> str:
        return (
            f"{self.resident / 1e6:.1f} MB (peak {self.peak / 1e6:.1f}), {self.descriptors} descriptors, "
            f"{self.threads} threads, {self.cpu:.1f} s CPU"
        )


def of(pid: int) -> Usage:
    """Of a process that runs."""
    place = Path(f"/proc/{pid}")
    rows = dict(row.split(":", 1) for row in (place / "status").read_text().splitlines())
    ticks = (place / "stat").read_text().rpartition(")")[2].split()[11:13]
    return Usage(
        resident=_bytes(rows["VmRSS"]),
        peak=_bytes(rows["VmHWM"]),
        descriptors=len(os.listdir(place / "fd")),
        threads=int(rows["Threads"]),
        cpu=sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"),
    )


def _bytes(row: str) -> int:
    return int(row.split()[0]) * 1024
