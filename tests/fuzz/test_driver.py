"""The driver finds what is planted, makes it small, and says how to see it again."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT = 300  # seconds for one run


def fuzz(*words: str) -> subprocess.CompletedProcess[str]:
    """One run; its own measuring of branches is not disturbed by ours."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-m", "tests.fuzz", "--targets", "tests.fuzz.planted", "--processes", "1", *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=LIMIT)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEERUP_FUZZ_FOLDER", str(tmp_path))


def test_a_run_without_findings_is_clean():
    done = fuzz("--inputs", "600", "--seed", "1", "--target", "fine")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fuzz: clean" in done.stdout
    assert re.search(r"fine +600 ", done.stdout)


@pytest.mark.parametrize(
    ("target", "kind"), [("undeclared", "KeyError"), ("endless", "Endless"), ("bomb", "MemoryError")]
)
def test_a_fault_is_found_made_small_and_told_with_the_command_that_repeats_it(target: str, kind: str):
    done = fuzz("--inputs", "3000", "--seed", "1", "--target", target)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"FINDING in {target}: {kind}" in done.stdout
    assert r"input: b'\xff'" in done.stdout
    command = re.search(r"again: (.*)", done.stdout)
    assert command is not None
    again = fuzz(*shlex.split(command[1])[3:])
    assert again.returncode == 1
    assert kind in again.stdout


def test_an_input_that_ends_the_process_is_found_too():
    done = fuzz("--inputs", "3000", "--seed", "1", "--target", "deadly")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FINDING in deadly: the process died" in done.stdout
    assert r"\xff" in done.stdout


def test_the_same_seed_makes_the_same_inputs():
    tables = [fuzz("--inputs", "2000", "--seed", "7", "--target", "fine").stdout for _ in range(2)]
    rows = [re.search(r"fine +[\d,]+ +[\d,]+ +[\d,]+", table) for table in tables]
    assert rows[0] is not None
    assert rows[1] is not None
    assert rows[0][0] == rows[1][0]
