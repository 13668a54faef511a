"""A sampling profiler of one process, loaded because this folder stands in PYTHONPATH and PEERUP_PROFILE names a file.

The first SIGUSR2 begins, the next one ends it and writes the file. In between, SIGPROF comes each two milliseconds of
CPU (not of the clock, so waiting costs no samples), and the stack of the main thread is noted. A signal that comes in a
call of C code is handled when that call returns, so its time stands at the line that called it.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from types import FrameType

EVERY = 0.002  # seconds of CPU
DEEP = 60  # frames, at most
OURS = "/peerupd/"


class Sampler:
    """What has been seen."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._running = False
        self._functions: Counter[str] = Counter()
        self._lines: Counter[str] = Counter()
        self._with: Counter[str] = Counter()

    def toggle(self, _number: int, _frame: FrameType | None) -> None:
        """Begin, or end and write."""
        self._running = not self._running
        signal.setitimer(signal.ITIMER_PROF, EVERY if self._running else 0, EVERY if self._running else 0)
        if not self._running:
            self._write()

    def note(self, _number: int, frame: FrameType | None) -> None:
        """One sample."""
        if frame is None:
            return
        self._functions[function(frame)] += 1
        self._lines[f"{frame.f_code.co_filename}:{frame.f_lineno}"] += 1
        seen = set()
        deeper: FrameType | None = frame
        for _ in range(DEEP):
            if deeper is None:
                break
            if OURS in deeper.f_code.co_filename:
                seen.add(function(deeper))
            deeper = deeper.f_back
        self._with.update(seen)

    def _write(self) -> None:
        found = {"functions": self._functions, "lines": self._lines, "with": self._with}
        whole = {name: counter.most_common(60) for name, counter in found.items()}
        text = json.dumps({"samples": self._functions.total(), **whole})
        beside = self._file.with_suffix(".part")
        beside.write_text(text)
        beside.rename(self._file)


def function(frame: FrameType) -> str:
    """Its module, as a path from the package on, and its name."""
    file = frame.f_code.co_filename
    short = file[file.find(OURS) + 1 :] if OURS in file else "/".join(file.split("/")[-2:])
    return f"{short.removesuffix('.py')}.{frame.f_code.co_qualname}"


if wanted := os.environ.get("PEERUP_PROFILE"):
    sampler = Sampler(Path(wanted))
    signal.signal(signal.SIGPROF, sampler.note)
    signal.signal(signal.SIGUSR2, sampler.toggle)
