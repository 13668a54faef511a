"""The shortest input that still finds the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from tests.fuzz import bounds
from tests.fuzz.bounds import Finding
from tests.fuzz.target import Target

MAX_RUNS = 3000
MAX_SECONDS = 20.0


def minimised(target: Target, found: Finding) -> Finding:
    """`found` with an input from which no piece can be left out, as far as `MAX_RUNS` runs tell."""
    best, runs, until = found, 0, time.monotonic() + MAX_SECONDS
    shorter = True
    while shorter:
        shorter = False
        for data in _simpler(best.data):
            runs += 1
            if runs > MAX_RUNS or time.monotonic() > until:
                return best
            ran = bounds.run(target, data)
            if isinstance(ran, Finding) and ran.kind == found.kind:
                best, shorter = replace(ran, data=data), True
                break
    return best


def _simpler(data: bytes) -> Iterator[bytes]:
    """Without a piece, large pieces first; then with a plainer byte."""
    size = len(data)
    while size:
        for start in range(0, len(data), size):
            yield data[:start] + data[start + size :]
        size //= 2
    for at, byte in enumerate(data):
        for plainer in (0, 0x30):
            if byte > plainer:
                yield data[:at] + bytes((plainer,)) + data[at + 1 :]
