"""Which branches the inputs have reached: exactly, by `coverage`, for a sample; and roughly, to keep what is new."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from coverage import Coverage

ROOT = Path(__file__).resolve().parent.parent.parent
MEASURED = ROOT / "peerupd/wire"
OURS = (str(ROOT / "peerupd"), str(ROOT / "peerupctl"))


class Meter:
    """What `coverage` sees of `wire/` in one process, switched on and off."""

    def __init__(self, folder: Path) -> None:
        self._coverage = Coverage(
            config_file=str(ROOT / "pyproject.toml"),
            data_file=str(folder / "data"),
            data_suffix=str(os.getpid()),
            source=[str(MEASURED)],
        )

    @contextmanager
    def on(self) -> Iterator[None]:
        """Count what runs inside."""
        self._coverage.start()
        try:
            yield
        finally:
            self._coverage.stop()

    def save(self) -> None:
        """Write down what was counted so far."""
        self._coverage.save()


@dataclass(frozen=True)
class Branches:
    """What was reached of one module."""

    module: str
    reached: int
    of: int
    missed: tuple[str, ...]
    """Lines, as `from->to`."""


def read(folder: Path) -> list[Branches]:
    """What all processes have reached, by module."""
    whole = Coverage(config_file=str(ROOT / "pyproject.toml"), data_file=str(folder / "data"), source=[str(MEASURED)])
    whole.combine([str(file) for file in folder.glob("data.*")])
    found = []
    for file in sorted(MEASURED.glob("*.py")):
        analysis = whole._analyze(str(file))  # the reports give no missing branches of a single file as data
        missing = analysis.missing_branch_arcs()
        of = sum(total for total, _ in analysis.branch_stats().values())
        missed = tuple(f"{line}->{to}" for line, tos in sorted(missing.items()) for to in tos)
        found.append(Branches(file.stem, of - len(missed), of, missed))
    return found


Arc = tuple[CodeType, int, int]


class Trail:
    """The arcs of our own code that inputs have taken so far, by Python's own tracing: slow, for a sample."""

    def __init__(self) -> None:
        self._known: set[Arc] = set()
        self._ours: dict[CodeType, bool] = {}

    def is_new(self, run: Callable[[], object]) -> bool:
        """Whether `run` takes a way that was not known."""
        before = len(self._known)
        earlier = sys.gettrace()
        sys.settrace(self._called)
        try:
            run()
        finally:
            sys.settrace(earlier)
        return len(self._known) > before

    def _called(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        code = frame.f_code
        ours = self._ours.get(code)
        if ours is None:
            ours = self._ours[code] = code.co_filename.startswith(OURS)
        return self._traced(code) if ours else None

    def _traced(self, code: CodeType) -> Any:
        known, last = self._known, 0

        def local(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal last
            if event == "line":
                known.add((code, last, frame.f_lineno))
                last = frame.f_lineno
            return local

        return local
