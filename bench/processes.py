"""Processes for as long as a block lasts, the clients that do what they are told, and what CPU and memory they take."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.progress import Failed
from bench.stage import Place
from tests.support.cluster import DIE_WITH_US, end

LOAD = Path(__file__).with_name("load.py")
CPU_CLOCK = 2  # of a process: CPUCLOCK_SCHED of the kernel's posix-timers.h


@contextmanager
def running(
    command: Sequence[str], place: Place | None = None, *, errors: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process, there for as long as the block lasts."""
    words = [*DIE_WITH_US, *(place.prefix if place else ()), *command]
    with (errors or Path("/dev/null")).open("a") as stderr:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
        )
    try:
        yield process
    finally:
        end(process)


def line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    text = process.stdout.readline().strip()
    if not text:
        raise Failed(f"{process.args!r} said nothing")
    return text


class Client:
    """A client somewhere."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self, do: str, at: tuple[str, int], **more: Any) -> None:
        """Tell it to begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, "at": at, **more}) + "\n")
        self._process.stdin.flush()

    def seen(self) -> dict[str, Any]:
        """What came of it; raises `Failed`."""
        found: dict[str, Any] = json.loads(line(self._process))
        if "failed" in found or found.get("right") is False:
            raise Failed(found.get("failed", "not every byte was right"))
        return found

    def ask(self, do: str, at: tuple[str, int], **more: Any) -> dict[str, Any]:
        """Both."""
        self.begin(do, at, **more)
        return self.seen()


@contextmanager
def client(place: Place) -> Iterator[Client]:
    """A client there."""
    with running([sys.executable, str(LOAD), "client"], place) as process:
        yield Client(process)


@contextmanager
def service(place: Place) -> Iterator[int]:
    """The service there, on all addresses of a namespace; its port."""
    address = "0.0.0.0" if place.namespace else "127.0.0.1"
    with running([sys.executable, str(LOAD), "serve", address], place) as process:
        yield int(line(process))


def cpu(roots: Sequence[int]) -> float:
    """Seconds of CPU, user and system, that these processes and those below them have taken.

    The kernel's own sum (utime + stime of /proc/PID/stat), read where it has nanoseconds instead of ticks.
    """
    spent = 0.0
    for pid in [pid for root in roots for pid in family(root)]:
        with suppress(OSError):  # it has just ended
            spent += time.clock_gettime(((~pid) << 3) | CPU_CLOCK)
    return spent


def family(root: int) -> list[int]:
    """A process and all below it."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        below.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += below.get(pid, [])
    return found


def resident(pid: int) -> float:
    """Resident memory, MB of 10^6 bytes."""
    fields = dict(row.split(":", 1) for row in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024 / 1e6
