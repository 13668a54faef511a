"""`make profile`: where the time goes while bytes go through peerup, at both ends of the direct path and in the relay.

Each process carries the sampler of `bench/sampling` and says what its Python was at. Where `perf` is there and may be
used, it says beside how much of that was the kernel, the cipher and the interpreter.
"""

from __future__ import annotations

import argparse
import json
import linecache
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import routes
from bench.ours import SERVICE, both, network
from bench.processes import client, cpu, service
from bench.rivals import Ground
from bench.routes import Route
from bench.stage import Place, Stage, stage
from tests.support.cluster import ROOT, wait_for

SAMPLING = Path(__file__).with_name("sampling")
TOP = 12  # lines of each list
WHOLE = 0.99  # of the samples: what is always on the stack says nothing
WARM = 0.5  # seconds before it
CONNECTIONS = 200  # for each second that is asked for
PERF_RATE = 499  # samples a second


def main(words: Sequence[str] | None = None) -> int:
    """Profile the ways that are asked for."""
    parser = argparse.ArgumentParser(prog="make profile", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each transfer; default 4")
    parser.add_argument("--ways", default="down,up", help="of down,up,new (connections); default down,up")
    parser.add_argument("--top", type=int, default=TOP, help="lines of each list")
    options = parser.parse_args(words)
    with stage() as where, tempfile.TemporaryDirectory(prefix="pp-") as name, ExitStack() as stack:
        folder = Path(name)
        ground = _ground(stack, where, folder)
        made = stack.enter_context(network(_sampled(where, folder), folder / "us", [(SERVICE, ground.service)]))
        for route in both(ground, made):
            for way in options.ways.split(","):
                profile(route, way, folder, options)
    return 0


def _ground(stack: ExitStack, where: Stage, folder: Path) -> Ground:
    at_home = stack.enter_context(service(where.home))
    near, beside = (stack.enter_context(client(where.client)) for _ in range(2))
    return Ground(where, folder, at_home, near, beside, near, beside)


def _sampled(where: Stage, folder: Path) -> Stage:
    """The same places; what runs there carries the sampler."""

    def place(end: str) -> Place:
        old: Place = getattr(where, end)
        carried = ["env", f"PEERUP_PROFILE={folder / end}.json", f"PYTHONPATH={SAMPLING}:{ROOT}"]
        return replace(old, prefix=(*old.prefix, *carried))

    return replace(where, client=place("client"), home=place("home"), relay=place("relay"))


def profile(route: Route, way: str, folder: Path, options: argparse.Namespace) -> None:
    """One transfer; prints what each process was at."""
    _go(route, way, WARM)
    pids = {end: pid for end, pid in route.works.items() if end != "client" or route.name == routes.OURS}
    if route.name != routes.OURS:
        pids = {"relay": route.works["relay"]}
    before = {end: cpu([pid]) for end, pid in pids.items()}
    with perf(pids, folder, options.seconds) as libraries:
        for pid in pids.values():
            os.kill(pid, signal.SIGUSR2)
        done, words = _go(route, way, options.seconds)
        for pid in pids.values():
            os.kill(pid, signal.SIGUSR2)
    for end, pid in pids.items():
        print(f"\n== {route.name} {way}, {end}: {words.format((cpu([pid]) - before[end]) / done)}")
        if end in libraries:
            print(f"   {libraries[end]}")
        _show(_taken(folder / f"{end}.json"), options.top)


def _go(route: Route, way: str, seconds: float) -> tuple[float, str]:
    """How much was done, and words for that with a place for the CPU that each unit of it took."""
    if way == "new":
        count = int(seconds * CONNECTIONS)
        seen = route.client.ask("firsts", route.at, count=count)
        return count / 1e3, f"p50 {seen['p50'] / 1e3:.2f} ms, {{:.2f}} ms of CPU each"
    seen = route.client.ask(f"{way}_for", route.at, seconds=seconds)
    return seen["bytes"] / 1e9, f"{seen['bytes'] / 1e6 / seen['seconds']:.0f} MB/s, {{:.2f}} s/GB"


def _taken(file: Path) -> dict[str, Any]:
    wait_for("the samples", file.exists)
    found: dict[str, Any] = json.loads(file.read_text())
    file.unlink()
    return found


def _show(found: dict[str, Any], top: int) -> None:
    samples = max(1, found["samples"])
    print(f"   {samples} samples\n   share  at the line")
    for place, count in found["lines"][:top]:
        file, _, number = place.rpartition(":")
        text = linecache.getline(file, int(number)).strip()
        print(f"  {100 * count / samples:5.1f} %  {'/'.join(file.split('/')[-2:])}:{number}  {text[:70]}")
    for title, list_name in (("in the function itself", "functions"), ("in the function and below it", "with")):
        print(f"   share  {title}")
        telling = [(name, count) for name, count in found[list_name] if count < WHOLE * samples]
        for name, count in telling[:top]:
            print(f"  {100 * count / samples:5.1f} %  {name}")


# -- perf ----------------------------------------------------------------------------------------------------------


@contextmanager
def perf(pids: dict[str, int], folder: Path, seconds: float) -> Iterator[dict[str, str]]:
    """Filled when the block ends: for each end, the shares of the libraries that it was in."""
    found: dict[str, str] = {}
    if shutil.which("perf") is None:
        yield found
        return
    recording = {end: _record(pid, folder / f"{end}.perf", seconds) for end, pid in pids.items()}
    yield found
    for end, process in recording.items():
        process.wait(seconds + 30)
        words = [
            "perf",
            "report",
            "-i",
            str(folder / f"{end}.perf"),
            "--stdio",
            "--sort",
            "dso",
            "--percent-limit",
            "2",
        ]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        rows = [line.split() for line in done.stdout.splitlines() if line.strip() and not line.startswith("#")]
        if shares := [f"{row[1]} {row[0]}" for row in rows if len(row) >= 2 and row[0].endswith("%")]:
            found[end] = "perf: " + ", ".join(shares)


def _record(pid: int, file: Path, seconds: float) -> subprocess.Popen[bytes]:
    words = ["perf", "record", "-q", "-F", str(PERF_RATE), "-p", str(pid), "-o", str(file)]
    return subprocess.Popen([*words, "--", "sleep", str(seconds)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
