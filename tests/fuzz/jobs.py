"""A part of the work, done in one process: so many inputs of one target, from a seed.

A job begins with the target's own corpus and keeps every input that is answered in a new way: another error, another
kind of result, or, looked at in a sample, another way through the code. Its first inputs and all that it has kept run
under `coverage`. The input that is being run stands in a file, for the case that it ends the process.
"""

from __future__ import annotations

import logging
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import bounds
from tests.fuzz.bounds import Finding, Ran
from tests.fuzz.mutation import mutated
from tests.fuzz.reached import Meter, Trail
from tests.fuzz.shrinking import minimised
from tests.fuzz.target import Target

COVERED = 0.04  # of a job's inputs run under `coverage`
TRACED_EACH = 48  # one in so many is looked at for new ways
MEMORY_EACH = 211  # one in so many has its memory counted
CORPUS = 1500  # inputs that are kept
SLOT = 1024 * 1024  # bytes for the input that is being run
STEP = 256  # inputs between two words of progress

_VARYING = re.compile(r"\w{9,}|\d+|['\"].*|but .*|refused: .*")  # what an error quotes


@dataclass(frozen=True)
class Job:
    """What to do."""

    target: str
    inputs: int
    seed: str


@dataclass
class Done:
    """What was done."""

    target: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    """Of the processor, in the target alone."""
    slowest: float = 0.0
    kept: int = 0
    findings: list[Finding] = field(default_factory=list)


class Process:
    """What one process has for all of its jobs."""

    meter: Meter
    targets: dict[str, Target]
    slot: mmap.mmap
    progress: Any


def begin(module: str, folder: str, progress: Any) -> None:
    """Make a new process ready; the meter is on before what it measures is loaded."""
    Process.meter = Meter(Path(folder))
    with Process.meter.on():
        Process.targets = import_module(module).TARGETS
    Process.progress = progress
    logging.disable(logging.CRITICAL)
    Process.slot = _slot(Path(folder) / f"running.{os.getpid()}")
    bounds.limit_process()


def _slot(file: Path) -> mmap.mmap:
    file.write_bytes(bytes(SLOT))
    with file.open("r+b") as opened:
        return mmap.mmap(opened.fileno(), SLOT)


def last_input(file: Path) -> tuple[str, bytes]:
    """Target and input that a process which has died was running."""
    raw = file.read_bytes()
    name, _, rest = raw.partition(b"\n")
    size = int.from_bytes(rest[:4], "big")
    return name.decode(), rest[4 : 4 + size]


def is_left(file: Path) -> bool:
    """Whether a process has died before the end of its job."""
    return not file.read_bytes().startswith((b"\n", b"\0"))


def do(job: Job) -> Done:
    """Do one job; it ends at its first finding."""
    target = Process.targets[job.target]
    done = Done(target.name)
    corpus = _Corpus(target)
    with ExitStack() as covered:
        covered.enter_context(Process.meter.on())
        for number, data in enumerate(_inputs(job, target, corpus)):
            if number == int(job.inputs * COVERED):
                covered.close()
            _note(target, data)
            ran = corpus.run(data, number, traced=number % TRACED_EACH == 7 and number > job.inputs * COVERED)
            _count(done, ran)
            if isinstance(ran, Finding):
                done.findings.append(minimised(target, ran))
                break
            if number % STEP == STEP - 1 or number == job.inputs - 1:
                with Process.progress.get_lock():
                    Process.progress.value += 1 + number % STEP
    with Process.meter.on():
        for data in corpus.kept:
            bounds.run(target, data)
    Process.meter.save()
    Process.slot[:1] = b"\n"
    done.kept = len(corpus.kept)
    return done


def _inputs(job: Job, target: Target, corpus: _Corpus) -> Iterator[bytes]:
    random = Random(f"{job.seed}/{target.name}")
    seeds = corpus.seeds[: job.inputs]
    yield from seeds
    for _ in range(job.inputs - len(seeds)):
        yield mutated(random, target, corpus.some(random), corpus.some(random))


def _note(target: Target, data: bytes) -> None:
    """For those who find this process dead."""
    name = target.name.encode() + b"\n"
    size = min(len(data), SLOT - 128)
    Process.slot[: len(name) + 4 + size] = name + size.to_bytes(4, "big") + data[:size]


def _count(done: Done, ran: Ran | Finding) -> None:
    done.inputs += 1
    if isinstance(ran, Ran):
        done.seconds += ran.seconds
        done.slowest = max(done.slowest, ran.seconds)
        done.refused += ran.error is not None
        done.accepted += ran.error is None and ran.result is not False


class _Corpus:
    """Inputs worth changing further."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.seeds = list(target.seeds())
        self.kept: list[bytes] = [*self.seeds]
        self._answers: set[object] = set()
        self._trail = Trail()

    def some(self, random: Random) -> bytes:
        """One of the seeds as often as one of the others."""
        return random.choice(self.seeds if random.random() < 0.5 else self.kept)

    def run(self, data: bytes, number: int, *, traced: bool) -> Ran | Finding:
        """Run it, and keep it if its answer or its way is new."""
        if not traced:
            ran = bounds.run(self._target, data, memory=number % MEMORY_EACH == 3)
            self._keep(data, isinstance(ran, Ran) and self._is_new(ran))
            return ran
        answers: list[Ran | Finding] = []
        self._keep(data, self._trail.is_new(lambda: answers.append(bounds.run(self._target, data, memory=True))))
        return answers[0]

    def _keep(self, data: bytes, worth: bool) -> None:
        if worth and len(self.kept) < CORPUS + len(self.seeds):
            self.kept.append(data)

    def _is_new(self, ran: Ran) -> bool:
        before = len(self._answers)
        self._answers.add(_answer(ran))
        return len(self._answers) > before


def _answer(ran: Ran) -> object:
    """The answer without what differs from input to input."""
    if ran.error is None:
        return ran.result if isinstance(ran.result, str | int | tuple) else None
    return type(ran.error), _VARYING.sub("", ran.error.message[:120])
