"""`make fuzz`: so many inputs over all targets, on all cores; a table, the branches of `wire/` reached, and findings.

    python -m tests.fuzz --inputs 1000000 [--seed S] [--target NAME ...]     the run
    python -m tests.fuzz --repeat FILE                                       one finding, with its traceback

Exit status 1 with a finding, or when a whole run has reached less than `BAR` of the branches of `wire/`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = Path(os.environ.get("PEERUP_FUZZ_FOLDER", ROOT / ".make/fuzz"))
TARGETS = "tests.fuzz.targets"
BAR = 95.0  # percent of the branches of wire/
FEWEST = 100_000  # inputs of all targets below which no bar is asked for
SLICE = 20_000  # inputs of a job, or an eighth of its target's if that is more
TELL = 5.0  # seconds between two lines of progress


def main(words: list[str]) -> int:
    """As the head of this module says."""
    asked = _arguments(words)
    if asked.repeat:
        return repeat(import_module(asked.targets).TARGETS, asked.repeat)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="run-", dir=FOLDER) as folder:
        return _Run(asked, Path(folder)).all()


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=100_000, help="over all targets together")
    parser.add_argument("--seed", default="", help="the same seed, the same inputs; default: another each time")
    parser.add_argument("--target", action="append", default=[], help="only these (their names may be cut short)")
    parser.add_argument("--targets", default=TARGETS, help="the module that holds them")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeat", type=Path, help="run the input in this file")
    return parser.parse_args(words)


def repeat(targets: dict[str, Any], file: Path) -> int:
    """Run a finding once more."""
    from tests.fuzz import bounds

    bounds.limit_process()
    target = targets[file.name.rpartition("-")[0]]
    ran = bounds.run(target, file.read_bytes(), memory=True)
    print(ran.told if isinstance(ran, bounds.Finding) else f"{target.name}: {ran.error or 'accepted'}")
    return int(isinstance(ran, bounds.Finding))


class _Run:
    """One run over the targets that were asked for."""

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        from tests.fuzz.jobs import Done, Job

        self._folder = folder
        targets = import_module(asked.targets).TARGETS
        self._asked = asked
        self._seed = asked.seed or os.urandom(4).hex()
        self._targets = [t for t in targets.values() if not asked.target or t.name.startswith(tuple(asked.target))]
        if not self._targets:
            sys.exit(f"fuzz: no target begins with {' or '.join(asked.target)}; there are {', '.join(targets)}")
        whole = sum(target.share for target in self._targets)
        counts = {target.name: max(1, round(asked.inputs * target.share / whole)) for target in self._targets}
        self._jobs = [
            Job(name, size, f"{self._seed}/{at}") for name, count in counts.items() for at, size in _slices(count)
        ]
        self._inputs = sum(job.inputs for job in self._jobs)
        self._done = {target.name: Done(target.name) for target in self._targets}
        self._began = self._told = time.monotonic()

    def all(self) -> int:
        """Do it, tell it; the exit status."""
        print(
            f"fuzz: {self._inputs:,} inputs, {len(self._targets)} targets, {self._asked.processes} processes, ", end=""
        )
        print(f"SEED={self._seed}", flush=True)
        died = self._work()
        self._table()
        findings = [finding for done in self._done.values() for finding in done.findings]
        for finding in findings:
            self._tell(finding.target, finding.kind, finding.told, finding.data)
        for target, data in died:
            self._tell(target, "the process died", "", data)
        below = self._branches()
        print("fuzz:", f"{len(findings) + len(died)} findings" if findings or died else "clean", flush=True)
        return int(bool(findings or died or below))

    def _work(self) -> list[tuple[str, bytes]]:
        """Do all jobs; what ran in a process that has died."""
        from tests.fuzz import jobs

        context = multiprocessing.get_context("spawn")
        progress = context.Value("q", 0)
        with ProcessPoolExecutor(
            self._asked.processes, context, jobs.begin, (self._asked.targets, str(self._folder), progress)
        ) as pool:
            todo = [pool.submit(jobs.do, job) for job in sorted(self._jobs, key=lambda job: -job.inputs)]
            try:
                waiting = set(todo)
                while waiting:
                    waiting -= self._collect(waiting)
                    self._progress(progress.value)
            except BrokenProcessPool:
                return [jobs.last_input(file) for file in self._folder.glob("running.*") if jobs.is_left(file)]
        return []

    def _collect(self, waiting: set) -> set:
        done = set()
        try:
            for future in as_completed(waiting, timeout=TELL):
                self._add(future.result())
                done.add(future)
                if time.monotonic() - self._told > TELL:
                    break
        except TimeoutError:
            pass
        return done

    def _add(self, more) -> None:
        done = self._done[more.target]
        for name in ("inputs", "accepted", "refused", "seconds", "kept"):
            setattr(done, name, getattr(done, name) + getattr(more, name))
        done.slowest = max(done.slowest, more.slowest)
        known = {finding.kind for finding in done.findings}
        done.findings += [finding for finding in more.findings if finding.kind not in known]

    # -- words -----------------------------------------------------------------------------------------------------

    def _progress(self, count: int) -> None:
        if time.monotonic() - self._told < TELL:
            return
        self._told = time.monotonic()
        rate = count / (self._told - self._began)
        left = (self._inputs - count) / rate if rate else 0
        findings = sum(len(done.findings) for done in self._done.values())
        share = 100 * count / self._inputs
        print(f"  {count:>12,} ({share:.0f} %)  {rate:,.0f}/s  {findings} findings  {left:.0f} s to go", flush=True)

    def _table(self) -> None:
        print(
            f"\n  {'target':<30}{'inputs':>10}{'refused':>9}{'accepted':>10}{'a second':>10}{'slowest':>10}{'kept':>6}"
        )
        for done in self._done.values():
            rate = done.inputs / done.seconds if done.seconds else 0
            print(
                f"  {done.target:<30}{done.inputs:>10,}{done.refused:>9,}{done.accepted:>10,}{rate:>10,.0f}"
                f"{done.slowest * 1000:>7.0f} ms{done.kept:>6}"
            )
        seconds = time.monotonic() - self._began
        count = sum(done.inputs for done in self._done.values())
        print(f"  {count:,} inputs in {seconds:.0f} s, {count / seconds:,.0f} a second\n")

    def _tell(self, target: str, kind: str, told: str, data: bytes) -> None:
        file = FOLDER / f"{target}-{sha256(kind.encode()).hexdigest()[:8]}"
        file.write_bytes(data)
        shown = repr(data) if len(data) < 400 else f"{data[:400]!r}... ({len(data)} bytes)"
        print(f"FINDING in {target}: {kind}\n{told}  input: {shown}")
        module = [] if self._asked.targets == TARGETS else ["--targets", self._asked.targets]
        command = [
            os.path.relpath(sys.executable, ROOT),
            "-m",
            "tests.fuzz",
            *module,
            "--repeat",
            os.path.relpath(file, ROOT),
        ]
        print(f"  again: {shlex.join(command)}\n")

    def _branches(self) -> bool:
        """Tell what was reached of `wire/`; whether that is too little."""
        from tests.fuzz import reached

        found = reached.read(self._folder)
        print("  branches of wire/ reached, in a sample of the inputs:")
        for each in found:
            if each.of:
                missed = f"   missed: {', '.join(each.missed[:8])}" if each.missed else ""
                print(f"  {each.module:<14}{each.reached:>4} of {each.of:>4}{missed}")
        total, of = sum(each.reached for each in found), sum(each.of for each in found)
        percent = 100 * total / of if of else 0.0
        asked_for = self._inputs >= FEWEST and not self._asked.target
        bar = f"bar {BAR:g} %" if asked_for else "no bar for so few inputs"
        print(f"  {'all':<14}{total:>4} of {of:>4}   {percent:.1f} % ({bar})\n")
        return asked_for and percent < BAR


def _slices(count: int) -> list[tuple[int, int]]:
    """The number and size of the jobs for so many inputs."""
    size = max(SLICE, -(-count // 8))
    return [(at, min(size, count - at * size)) for at in range(-(-count // size))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
