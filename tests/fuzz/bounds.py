"""One input, run within bounds on time and memory: it is accepted, refused by a declared error, or a finding.

Time is counted in seconds of the processor, so that a busy machine makes no findings. Memory is looked at for a sample
of the inputs only, because looking costs several times as much as the run; all are under the process's own limit.
"""

from __future__ import annotations

import resource
import signal
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from peerupd.model.errors import PeerupError
from tests.fuzz.target import Target

SLOW = 2.0  # seconds for one input, of the processor
ENDLESS = 15.0  # seconds after which an input is broken off
MEMORY = 4 * 1024 * 1024  # bytes at the peak, beside what a target may use for each byte of input
PROCESS_MEMORY = 2 * 1024 * 1024 * 1024  # bytes of data of a whole process


class Endless(BaseException):
    """It does not come back; no `except Exception` may hold this up."""


@dataclass(frozen=True)
class Finding:
    """Something that must not come out of a decoder."""

    target: str
    kind: str
    """Exception and place: the same for inputs that find the same."""
    told: str
    data: bytes


@dataclass(frozen=True)
class Ran:
    """How one input went."""

    error: PeerupError | None
    result: object
    seconds: float
    """Of the processor."""


def limit_process() -> None:
    """Break off what does not come back, and let a length bomb end in `MemoryError` instead of the machine's end."""
    break_off_the_endless()
    resource.setrlimit(resource.RLIMIT_DATA, (PROCESS_MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def break_off_the_endless() -> None:
    """From now on an input that does not come back ends in `Endless`."""
    signal.signal(signal.SIGVTALRM, _break_off)


def _break_off(_number: int, _frame: FrameType | None) -> None:
    raise Endless(f"no end after {ENDLESS:g} s of the processor")


def run(target: Target, data: bytes, *, memory: bool = False) -> Ran | Finding:
    """Run one input."""
    signal.setitimer(signal.ITIMER_VIRTUAL, ENDLESS)
    began = time.thread_time()
    try:
        if memory:
            with _little_memory(MEMORY + target.memory * len(data)):
                ran = _run(target, data, began)
        else:
            ran = _run(target, data, began)
        assert memory or ran.seconds < SLOW, f"{ran.seconds:.1f} s of the processor for {len(data)} bytes"
        return ran
    except (Exception, Endless) as why:
        return Finding(target.name, _kind(why), "".join(traceback.format_exception(why)), data)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _run(target: Target, data: bytes, began: float) -> Ran:
    error, result = None, None
    try:
        result = target.run(data)
    except target.declared as why:
        error = why
    assert error is None or error.message, "an error without a word"
    return Ran(error, result, time.thread_time() - began)


@contextmanager
def _little_memory(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak} bytes in use at the peak, {limit} are allowed"


def _kind(why: BaseException) -> str:
    """The exception, and the last place of ours on its way."""
    frames = [frame for frame in traceback.extract_tb(why.__traceback__) if _is_ours(frame.filename)]
    deepest = frames[-1] if frames else None
    where = f"{deepest.filename.rpartition('/')[2]}:{deepest.lineno}" if deepest else "nowhere"
    return f"{type(why).__name__} at {where}"


def _is_ours(file: str) -> bool:
    return any(f"/{room}/" in file for room in ("peerupd", "peerupctl", "fuzz")) and "site-packages" not in file
