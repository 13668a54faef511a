"""Read typed values out of a table of nodes, and remember everything that is wrong on the way.

Theory of operation. A `Section` is asked for each key that the schema knows, by kind; what cannot be read is noted as
`line N: key: wanted X, got Y` and the default is handed out, so that one pass finds all problems. Whoever leaves the
section (`with`) has asked for all it knows: what is left over is unknown, and is named with the nearest known key.

Three weights: a *problem* makes the text invalid. A *slip* (an unknown key, a bad name) is ignored with a warning at a
start, because a typo must not cost the way home, and is a problem where one asked for strictness. A *notice* is a
warning always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from peerupd.config.yaml_text import Entry, Finding, Items, Node, Scalar, Table, whole_number
from peerupd.model.errors import RequestError
from peerupd.model.names import printable

T = TypeVar("T")
D = TypeVar("D")

MAX_KEY_SHOWN: Final = 60  # characters of an unknown key in a warning

# Go's YAML library, whose files we read, takes these too where a truth is wanted; elsewhere they are text (YAML 1.2).
_TRUE: Final = frozenset({"true", "True", "TRUE", "y", "Y", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSE: Final = frozenset({"false", "False", "FALSE", "n", "N", "no", "No", "NO", "off", "Off", "OFF"})


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What a text must be, in words, and how to read it: `read` raises `ValueError` or `RequestError`."""

    wanted: str
    read: Callable[[str], T]


@dataclass(slots=True)
class Findings:
    """What was found while reading one text."""

    strict: bool = False
    problems: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def problem(self, line: int, key: str, words: str) -> None:
        """The text is invalid."""
        self.problems.append((line, f"{key}: {words}"))

    def slip(self, line: int, key: str, words: str) -> None:
        """A mistake that can be ignored, unless strictness was asked for."""
        if self.strict:
            self.problem(line, key, words)
        else:
            self.notice(line, key, f"{words}, ignoring")

    def notice(self, line: int, key: str, words: str) -> None:
        """Something that a person should know."""
        self.warnings.append((line, f"{key}: {words}"))


class Section:
    """One table of the text, asked key by key; used as a context manager that names the unknown keys at its end."""

    def __init__(self, findings: Findings, table: Table, name: str = "") -> None:
        self.findings = findings
        self._table = table
        self._name = name
        self._asked: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None) -> None:
        for entry in self._table.entries:
            if entry.key.text not in self._asked:
                self._unknown(entry.key)

    @property
    def line(self) -> int:
        """Where the table begins."""
        return self._table.line

    def has(self, key: str) -> bool:
        """Whether the key is there, with a value."""
        return self.find(key) is not None

    def where(self, key: str) -> str:
        """The whole path of a key, as problems name it."""
        shown = printable(key, MAX_KEY_SHOWN)
        return f"{self._name}.{shown}" if self._name else shown

    def entries(self) -> Iterator[Entry]:
        """All entries, for tables whose keys are names; each counts as asked for."""
        for entry in self._table.entries:
            self._asked.add(entry.key.text)
            yield entry

    def value(self, key: str, kind: Kind[T], default: D) -> T | D:
        """What `kind` reads; the default where it is absent or bad (that is noted)."""
        entry = self.find(key)
        read = None if entry is None else self.read(entry.value, self.where(key), kind)
        return default if read is None else read

    def required(self, key: str, kind: Kind[T]) -> T | None:
        """What `kind` reads; None where it is absent or bad (that is noted)."""
        entry = self.find(key)
        if entry is not None:
            return self.read(entry.value, self.where(key), kind)
        self.problem(key, f"wanted {kind.wanted}, got nothing")
        return None

    def read(self, node: Node, where: str, kind: Kind[T]) -> T | None:
        """One value by its kind; None where it is bad (that is noted)."""
        try:
            if isinstance(node, Scalar) and not node.is_null:
                return kind.read(node.text)
        except (ValueError, RequestError):
            pass
        self.findings.problem(node.line, where, f"wanted {kind.wanted}, got {node}")
        return None

    def flag(self, key: str, default: bool) -> bool:
        """`true` or `false`."""
        entry = self.find(key)
        if entry is None:
            return default
        node = entry.value
        if isinstance(node, Scalar) and node.plain and node.text in _TRUE | _FALSE:
            return node.text in _TRUE
        self.findings.problem(node.line, self.where(key), f"wanted true or false, got {node}")
        return default

    def number(self, key: str, default: int, *, lowest: int = 0, highest: int) -> int:
        """A whole number between these two."""
        entry = self.find(key)
        if entry is None:
            return default
        node = entry.value
        number = whole_number(node) if isinstance(node, Scalar) else None
        if number is not None and lowest <= number <= highest:
            return number
        wanted = f"wanted a whole number from {lowest} to {highest}, got {node}"
        self.findings.problem(node.line, self.where(key), wanted)
        return default

    def listing(self, key: str, kind: Kind[T]) -> tuple[T, ...] | None:
        """The items of a list by their kind, bad ones left out (that is noted); None if the list is absent."""
        if not self.has(key):
            return None
        found = (self.read(node, where, kind) for where, node in self.nodes(key))
        return tuple(item for item in found if item is not None)

    def nodes(self, key: str) -> tuple[tuple[str, Node], ...]:
        """The items of a list with the path of each; none if it is absent or no list (that is noted)."""
        entry = self.find(key)
        if entry is None:
            return ()
        if not isinstance(entry.value, Items):
            self.findings.problem(entry.value.line, self.where(key), f"wanted a list, got {entry.value}")
            return ()
        return tuple((f"{self.where(key)}[{at}]", node) for at, node in enumerate(entry.value.items))

    def section(self, key: str) -> Section:
        """The table under a key; an empty one where it is absent or no table (that is noted)."""
        entry = self.find(key)
        if entry is None:
            return Section(self.findings, Table((), True, 0, 0, self.line), self.where(key))
        return self.inner(entry.value, self.where(key))

    def inner(self, node: Node, where: str) -> Section:
        """This node as a table; an empty one where it is none (that is noted)."""
        if isinstance(node, Table):
            return Section(self.findings, node, where)
        empty = Table((), True, 0, 0, node.line)
        if isinstance(node, Scalar) and node.is_null:
            return Section(self.findings, empty, where)
        self.findings.problem(node.line, where, f"wanted a group of keys, got {node}")
        return Section(Findings(), empty, where)  # what it lacks is not worth a word any more

    def find(self, key: str) -> Entry | None:
        """The entry of a key that the schema knows; None also where its value is nothing."""
        self._asked.add(key)
        entry = self._table.find(key)
        return None if entry is None or (isinstance(entry.value, Scalar) and entry.value.is_null) else entry

    def problem(self, key: str, words: str) -> None:
        """Something is wrong with a key of this section."""
        entry = self.find(key)
        self.findings.problem(entry.key.line if entry else self.line, self.where(key), words)

    def _unknown(self, key: Scalar) -> None:
        import difflib  # late: most files have no unknown key

        near = difflib.get_close_matches(key.text, sorted(self._asked), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        self.findings.slip(key.line, self.where(key.text), f"unknown key{hint}")
