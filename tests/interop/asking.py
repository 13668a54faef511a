"""A test peer in a process of its own: asked by JSON lines on its stdin, answering on its stdout.

Go, JavaScript and Python peers and our own understand the same questions (`go/peer.go` has the list). Each answer has
a deadline; a peer that misses one is not believed later.
"""

from __future__ import annotations

import json
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.cluster import DIE_WITH_US, end

START_SECONDS = 60.0  # an import of py-libp2p on a busy machine takes several
ANSWER_SECONDS = 60.0


class Failed(Exception):
    """What was to be shown was not."""


class Peer:
    """The process, while the `with` block lasts."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name, self.log = name, log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [*DIE_WITH_US, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        self._pending = b""
        self._asked = 0
        self.peer, self.addresses = "", [""]

    def __enter__(self) -> Self:
        hello = self._next(time.monotonic() + START_SECONDS)["ready"]
        self.peer, self.addresses = hello["peer_id"], hello["addresses"]
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)

    @property
    def address(self) -> str:
        """Where it listens, with its ID."""
        return self.addresses[0]

    def ask(self, do: str, *, seconds: float = ANSWER_SECONDS, **words: Any) -> dict[str, Any]:
        """What it answers; raises `Failed` with what it raised, or when it takes too long."""
        self._asked += 1
        self._say({"id": self._asked, "do": do, **words})
        deadline = time.monotonic() + seconds
        while (answer := self._next(deadline))["id"] != self._asked:
            pass  # the answer to a question that was given up
        if "raised" in answer:
            raise Failed(f"{self.name}: {do}: {answer['raised']}")
        said: dict[str, Any] = answer["said"]
        return said

    def _say(self, question: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self._last_words()) from None

    def _next(self, deadline: float) -> dict[str, Any]:
        pipe = self._process.stdout
        assert pipe is not None
        while b"\n" not in self._pending:
            if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise Failed(f"{self.name} gave no answer in time")
            if not (more := pipe.read1(65536)):  # type: ignore[attr-defined] # a pipe of Popen is buffered
                raise Failed(self._last_words())
            self._pending += more
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        return f"{self.name} ended: {self.log.read_text(errors='replace')[-500:]}"
