"""`make demo`, as it is run by somebody who has just cloned this: right, and gone without a trace."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 20.0  # of a second run, on a quiet machine
NOISE = 3.0  # how much slower a busy one may be


def test_the_demo_transfers_both_ways_and_leaves_nothing(tmp_path: Path):
    """HOME and TMPDIR are empty folders before and after; its processes have homes in its folder."""
    folders = {name: tmp_path / name.lower() for name in ("HOME", "TMPDIR")}
    for folder in folders.values():
        folder.mkdir()
    kept = {
        name: os.environ[name] for name in ("PATH", "COVERAGE_PROCESS_START", "COVERAGE_FILE") if name in os.environ
    }
    env = {**kept, **{name: str(folder) for name, folder in folders.items()}}
    before, elsewhere = top_level(ROOT), of_ours(Path("/tmp"))
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "tests/demo.py"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    took = time.monotonic() - began
    print(done.stdout, f"{took:.1f} s in all", sep="\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert took <= SECONDS * NOISE
    for path, label in (("relay", "RELAYED"), ("direct", "DIRECT")):
        line = rf"^\[ *\d+\.\d\d s\] 64 MiB, --path {path}: \d+ MB/s, SHA-256 equal; .* path=\[{label}\]$"
        assert re.search(line, done.stdout, re.MULTILINE)
    assert all(re.match(r"\[ *\d+\.\d\d s\] ", line) for line in done.stdout.splitlines())
    assert [path for folder in folders.values() for path in folder.iterdir()] == []
    assert top_level(ROOT) - before <= {".make"}
    assert of_ours(Path("/tmp")) == elsewhere
    assert not (ROOT / ".make/demo").exists()
    assert living_in(ROOT / ".make/demo") == []


def top_level(folder: Path) -> set[str]:
    """What stands in a folder."""
    return {path.name for path in folder.iterdir()}


def of_ours(folder: Path) -> set[str]:
    """What stands there and could be a demo's."""
    return {name for name in top_level(folder) if "peerup" in name or "demo" in name}


def living_in(folder: Path) -> list[int]:
    """The processes whose home is there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"HOME={folder}/".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue  # it ended just now, or is not ours to look at
    return found
