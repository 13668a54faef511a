"""README's commands, typed as they stand there, on three machines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Machine, end, wait_for

README = Path(__file__).resolve().parent.parent.parent / "README.md"
BLOCK = re.compile(r"<!-- run: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)


class Person:
    """Somebody who reads the page and types it, a machine at a time."""

    def __init__(self, cluster: Cluster) -> None:
        self.machines = {name: cluster.machine(name) for name in ("relay", "home", "laptop")}
        self.known: dict[str, str] = {}
        self.begun: list[subprocess.Popen[str]] = []

    def type(self, place: str, line: str) -> None:
        machine = self.machines[place]
        if line.endswith("&"):
            self._begin(machine, line.rstrip(" &"))
        elif "invite" in line:
            self._invite(machine, line)
        else:
            done = subprocess.run(
                self._bash(line), env=self._env(machine), cwd=machine.home, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, f"{place}$ {line}\n{done.stdout}{done.stderr}"
            self._learn(line, done.stdout)

    def close(self) -> None:
        for process in self.begun:
            end(process)

    def _begin(self, machine: Machine, line: str) -> None:
        with (machine.home / "words.log").open("a") as log:
            process = subprocess.Popen(
                self._bash(f"exec {line}"),
                env=self._env(machine),
                cwd=machine.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
            )
        self.begun.append(process)
        if "daemon" in line:
            wait_for("the daemon", lambda: machine.ctl("daemon", "status", check=False).returncode == 0, 60)
        else:
            wait_for("the relay", lambda: "event=relay.ready" in (machine.home / "words.log").read_text(), 60)

    def _invite(self, machine: Machine, line: str) -> None:
        process = subprocess.Popen(
            self._bash(f"exec {line}"),
            env=self._env(machine),
            cwd=machine.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.begun.append(process)
        assert process.stdout is not None
        code = next(found for line in process.stdout if (found := re.search(r"peerup join (\S+)", line)))
        self.known["CODE"] = code.group(1)

    def _learn(self, line: str, out: str) -> None:
        if "relay setup" in line:
            self.known["RELAY"] = re.findall(r"^  (/ip4/\S+)$", out, re.MULTILINE)[0]
        if "whoami" in line:
            self.known["HOME_ID"] = out.strip()

    def _env(self, machine: Machine) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**machine.env, **self.known, "PATH": path}

    @staticmethod
    def _bash(line: str) -> list[str]:
        return ["bash", "-c", line]


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    with Cluster(tmp_path / "machines") as cluster:
        person = Person(cluster)
        yield person
        person.close()


def test_pairing_in_60_seconds_as_the_page_says(person: Person):
    lines = [
        (place, line.partition("  #")[0].strip())
        for place, block in BLOCK.findall(README.read_text())
        for line in block.splitlines()
    ]
    assert {place for place, _ in lines} == {"relay", "home", "laptop"}
    for place, line in lines:
        person.type(place, line)


def test_every_shell_block_of_the_page_is_run():
    text = README.read_text()
    assert len(re.findall(r"```sh\n", text)) == len(BLOCK.findall(text))


def test_the_two_commands_are_there():
    for target in re.findall(r"^\$ make (\w+)", README.read_text(), re.MULTILINE):
        subprocess.run(["make", "-n", target], cwd=README.parent, capture_output=True, check=True)
