"""Answers as text for eyes: tables, times, short peer IDs. Text of strangers is made printable by the daemon."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SHORT = 16  # characters of a peer ID where a line has no room


def table(rows: Iterable[Sequence[str]], indent: str = "") -> list[str]:
    """Rows in columns, two spaces apart, without trailing blanks."""
    kept = [tuple(row) for row in rows]
    if not kept:
        return []
    widths = [max(len(row[column]) for row in kept) for column in range(len(kept[0]))]
    return [
        indent + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in kept
    ]


def short(peer_id: str) -> str:
    """The beginning of a peer ID."""
    return f"{peer_id[:SHORT]}..." if len(peer_id) > SHORT else peer_id


def lasting(seconds: float) -> str:
    """A length of time: `45s`, `3m 20s`, `5h 12m`, `9d 4h`."""
    left = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def size(count: int) -> str:
    """So many bytes: `512 B`, `1.5 KiB`, `3.2 GiB`."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):.1f} {unit}"
    return f"{count} B"
