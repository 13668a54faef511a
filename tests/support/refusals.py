"""What a refusal looks like from outside: one sentence, a documented exit status, and nothing changed."""

from __future__ import annotations

import hashlib

import pytest

from tests.support.cluster import Machine


def refused(machine: Machine, *words: str, status: int, says: str, say: str = "") -> str:
    """The command fails so, in one sentence and perhaps a hint, and no file of the machine changes; its words."""
    before = books(machine)
    done = machine.ctl(*words, say=say, check=False)
    told = [line for line in done.stderr.splitlines() if line.startswith(("peerupctl: ", "peerupd: "))]
    assert (done.returncode, len(told)) == (status, 1), done.stdout + done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert books(machine) == before
    return done.stderr


def start_fails(machine: Machine, *words: str, status: int, says: str) -> str:
    """The daemon does not start, for this reason; its words."""
    before = books(machine)
    with pytest.raises(RuntimeError, match=f"exit status {status}"):
        machine.start(*words)
    said = machine.daemon.words()
    machine.daemon.log.unlink()
    told = [line for line in said.splitlines() if line.startswith("peerupd: ")]
    assert len(told) == 1, said
    assert says in said
    assert "Traceback" not in said
    assert books(machine) == before
    return said


def books(machine: Machine) -> dict[str, tuple[int, str]]:
    """Mode and content of every file of a machine, but for its log."""
    files = [path for path in machine.home.rglob("*") if path.is_file() and path.suffix != ".log"]
    files += [path for path in machine.config.parent.glob("*") if path.is_file()]
    return {str(path): (path.stat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files}
