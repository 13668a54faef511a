"""What processes take: memory, CPU, time; and a line for each figure beside its goal."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

CPUCLOCK_SCHED = 2  # posix-timers of the kernel: the clock of another process is made of its ID and of this
MB = 1_000_000  # bytes: the goals count in these

Tell = Callable[[str], None]


def resident(pid: int) -> float:
    """Memory that a process has resident, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / MB for line in lines if line.startswith("VmRSS:"))


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has taken since its start, all threads, also those that have ended."""
    return time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)


def cpu_of(command: Sequence[str], env: dict[str, str], times: int = 7) -> float:
    """The median CPU seconds of a command, from its start to its end, its children with it."""
    return statistics.median(_once(command, env) for _ in range(times))


def _once(command: Sequence[str], env: dict[str, str]) -> float:
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with process.stderr as said:
        words = said.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return used.ru_utime + used.ru_stime


def line(name: str, what: str, value: float, unit: str, goal: float, bar: float | None = None) -> str:
    """One row of a table."""
    bars = f"   bar {bar:g} {unit}" if bar is not None else ""
    word = "met" if value <= goal else "missed"
    return f"  {name}  {what:<54}{value:8.3g} {unit:<3} goal {goal:g} {unit} ({word}){bars}"
