"""`make test`: the unit floor under coverage with its bars, then real processes and the lab; a summary at the end.

As a plain user the lab is skipped, and it is said so; with PEERUP_LAB=required (CI) a skipped test is a failure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".make/coverage"
BARS = {"model": 100.0, "wire": 100.0, "config": 100.0, "trust": 100.0, "linux": 80.0}
BAR = 90.0  # percent of branches, elsewhere

# under coverage: everything in one process; real processes and namespaces are timed by the clock of users
PARTS = (
    ("unit, contract, fuzz, house", ["tests/unit", "tests/contract", "tests/fuzz", "tests/house"], True),
    ("attacks", ["tests/attack"], True),
    ("real processes", ["tests/e2e"], True),
    ("network namespaces", ["tests/netns"], False),
)


OLD = ["tests/unit/wire", "tests/unit/trust", "tests/unit/p2p", "tests/e2e/test_main_job.py"]


def main(words: list[str]) -> int:
    """Exit status 0 when all passed and every room is above its bar."""
    if words == ["old"]:
        return old()
    os.chdir(ROOT)
    DATA.mkdir(parents=True, exist_ok=True)
    for stale in DATA.glob("data*"):
        stale.unlink()
    began = time.monotonic()
    results = [(name, *part(name, paths, covered)) for name, paths, covered in PARTS]
    below = coverage()
    print()
    for name, status, seconds in results:
        print(f"  {'passed' if status == 0 else 'FAILED'}  {name} ({seconds:.0f} s)")
    print(f"  {'passed' if not below else 'FAILED'}  branch coverage {'; '.join(below)}")
    if os.geteuid() != 0:
        print("  skipped: the network-namespace lab (it needs root)")
    without = subprocess.run([sys.executable, "tests/interop/run.py", "--tools"], check=False).returncode
    print(f"  {time.monotonic() - began:.0f} s in all")
    return int(bool(below or without) or any(status for _, status, _ in results))


def old() -> int:
    """What depends on cryptography, on the version that stands first in the path."""
    from importlib.metadata import version

    print(f"== cryptography {version('cryptography')}", flush=True)
    os.chdir(ROOT)
    # its own deprecations are not ours to fail on
    words = ["-q", "-W", "ignore::DeprecationWarning", "-p", "no:cacheprovider", *OLD]
    return subprocess.run([sys.executable, "-m", "pytest", *words], check=False).returncode


def part(name: str, paths: list[str], covered: bool) -> tuple[int, float]:
    """Run one part; its exit status and seconds."""
    print(f"\n== {name}", flush=True)
    began = time.monotonic()
    env = dict(os.environ, PYTHONHASHSEED="0")
    command = [sys.executable, "-m", "pytest", "-q", *[path for path in paths if Path(path).is_dir()]]
    if covered:
        env |= {"COVERAGE_FILE": str(DATA / "data"), "COVERAGE_PROCESS_START": str(ROOT / "pyproject.toml")}
        command[1:3] = ["-m", "coverage", "run", "-m", "pytest"]
    status = subprocess.run(command, env=env, check=False).returncode
    return status, time.monotonic() - began


def coverage() -> list[str]:
    """The rooms below their bars; prints a line a room."""
    env = dict(os.environ, COVERAGE_FILE=str(DATA / "data"))
    run = [sys.executable, "-m", "coverage"]
    subprocess.run([*run, "combine", "--quiet"], env=env, check=False)
    subprocess.run([*run, "json", "--quiet", "-o", str(DATA / "coverage.json")], env=env, check=False)
    rooms: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for file, found in json.loads((DATA / "coverage.json").read_text())["files"].items():
        room = file.split("/")[1] if file.startswith("peerupd/") and file.count("/") > 1 else file.split("/")[0]
        summary = found["summary"]
        rooms[room][0] += summary["covered_lines"] + summary["covered_branches"]
        rooms[room][1] += summary["num_statements"] + summary["num_branches"]
    print("\n== coverage (lines and branches)")
    below = []
    for room, (covered, of) in sorted(rooms.items()):
        percent, bar = 100.0 * covered / of if of else 100.0, BARS.get(room, BAR)
        print(f"  {room:<12}{percent:6.1f} %  (bar {bar:g} %)")
        if percent < bar:
            below.append(f"{room} {percent:.1f} % < {bar:g} %")
    return below


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
