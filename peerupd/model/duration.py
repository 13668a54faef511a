"""Go's duration text (`2m`, `1h30m`, `1.5s`) to seconds and back, as peer-up's configurations have it."""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)
_LONGEST: Final = 10 * 365 * 24 * 3600.0  # seconds
_LONGEST_TEXT: Final = 64  # characters


def parse_duration(text: str) -> float:
    """Seconds; raises `ValueError` with what was wanted."""
    if text == "0":
        return 0.0
    parts = _PART.findall(text[:_LONGEST_TEXT])
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("a duration like 30s, 2m or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds > _LONGEST:
        raise ValueError("a duration of at most ten years")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """As Go prints it, to the millisecond: `2m0s`, `1h0m0s`, `1.5s`, `250ms`, `0s`."""
    thousandths = round(seconds * 1000)
    if 0 < thousandths < 1000:
        return f"{thousandths}ms"
    minutes, rest = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours}h"] * (hours > 0) + [f"{minutes}m"] * (hours + minutes > 0) + [f"{rest / 1000:g}s"]
    return "".join(parts)
