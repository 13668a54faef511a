"""Arithmetic of the benchmark: what many rounds come to, and what a figure is worth beside its goal and its bar."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["goal", "bar", "below", "-"]
Samples = dict[str, dict[str, dict[str, list[float]]]]


@dataclass
class Book:
    """All that was measured, by table, row and column; a value a round."""

    samples: Samples = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """What could not be measured, and why."""

    def note(self, table: str, row: str, **columns: float) -> None:
        """One round's values."""
        for column, value in columns.items():
            self.samples.setdefault(table, {}).setdefault(row, {}).setdefault(column, []).append(value)

    def rows(self, table: str) -> Iterator[str]:
        """The rows of a table, in the order in which they were measured first."""
        yield from self.samples.get(table, {})

    def has(self, route: str) -> bool:
        """Whether anything was measured on it; rows begin with the route's name."""
        return any(row.startswith(route) for rows in self.samples.values() for row in rows)

    def all(self, table: str, row: str, column: str) -> list[float]:
        """The values of all rounds."""
        return self.samples.get(table, {}).get(row, {}).get(column, [])

    def middle(self, table: str, row: str, column: str) -> float | None:
        """Their median; None when it was not measured."""
        return middle(self.all(table, row, column))

    def best(self, table: str, rows: Sequence[str], column: str, *, most: bool = True) -> float | None:
        """The best median of several rows."""
        there = [value for row in rows if (value := self.middle(table, row, column)) is not None]
        if not there:
            return None
        return max(there) if most else min(there)

    def as_json(self) -> dict[str, Any]:
        """What `read` takes."""
        return {"samples": self.samples, "left_out": self.left_out}

    @classmethod
    def read(cls, data: dict[str, Any]) -> Book:
        """From a kept file."""
        return cls(data["samples"], data["left_out"])


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """How many times theirs."""
    return None if ours is None or not theirs else ours / theirs


def added(*values: float | None) -> float | None:
    """The sum, when all are known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def middle(values: Sequence[float]) -> float | None:
    """The median; None of nothing."""
    return statistics.median(values) if values else None


def loss(alone: float, beside: float) -> float:
    """Percent of `alone` that is lost; below 0 when there is more."""
    return 100.0 * (1.0 - beside / alone)


def judge(figure: float | None, goal: float, bar: float, *, most: bool) -> Verdict:
    """`goal`, `bar` or `below`; `most`: more is better. Equal is enough. `-`: not measured."""
    if figure is None:
        return "-"
    if most:
        return "goal" if figure >= goal else "bar" if figure >= bar else "below"
    return "goal" if figure <= goal else "bar" if figure <= bar else "below"


def spread(values: Sequence[float]) -> float:
    """Half of the distance between the largest and the smallest, in percent of the median."""
    middle = statistics.median(values)
    return 50.0 * (max(values) - min(values)) / middle if middle else 0.0
