"""YAML text to nodes that remember where they stand, for reading settings and for editing in place.

Theory of operation. The parser of PyYAML (the C one where it is built) gives events; they are composed here, not by
PyYAML, because a composer of our own can refuse what a configuration never needs before it costs anything: deep
nesting, aliases ("billion laughs"), tags. Scalars stay text until somebody knows what is wanted of them, so `10:22`,
`on` and `1e3` are text wherever text is wanted; `plain` gives them the types of the YAML 1.2 core schema.

What cannot be read at all raises `ConfigInvalid`; what can be read but not meant (a key given twice) is a problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import yaml

from peerupd.model.errors import ConfigInvalid
from peerupd.model.names import printable

MAX_CONFIG_BYTES: Final = 256 * 1024  # the parser without C takes half a second per megabyte
MAX_DEPTH: Final = 32  # levels of nesting; our schema has five
MAX_SHOWN: Final = 60  # characters of a value in a problem

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"

Finding: TypeAlias = tuple[int, str]
"""A line of the text, and what is said about it."""

_Event: TypeAlias = Any  # the stubs of PyYAML leave out what an event carries
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT_TAGS: Final = (None, "tag:yaml.org,2002:str")
_NULL: Final = re.compile(r"null|Null|NULL|~|")
_TRUE: Final = re.compile(r"true|True|TRUE")
_FALSE: Final = re.compile(r"false|False|FALSE")
_INT: Final = re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,18}|0x[0-9a-fA-F]{1,16}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value, as text. `start` and `end` are positions in the text, `line` counts from 1."""

    text: str
    plain: bool
    """Written without quotes: may be a number, a truth or nothing."""
    block: bool
    """Written as `|` or `>`."""
    start: int
    end: int
    line: int

    @property
    def is_null(self) -> bool:
        """Whether it is nothing: `~`, `null` or not there."""
        return self.plain and _NULL.fullmatch(self.text) is not None

    def __str__(self) -> str:
        return "nothing" if self.is_null else repr(printable(self.text, MAX_SHOWN))


@dataclass(frozen=True, slots=True)
class Items:
    """A list; `flow` when written in brackets."""

    items: tuple[Node, ...]
    flow: bool
    start: int
    end: int
    line: int

    def __str__(self) -> str:
        return "a list"


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key: value` of a table."""

    key: Scalar
    value: Node


@dataclass(frozen=True, slots=True)
class Table:
    """Keys with values, in the order of the text; `flow` when written in braces."""

    entries: tuple[Entry, ...]
    flow: bool
    start: int
    end: int
    line: int

    def find(self, key: str) -> Entry | None:
        """The entry of this key."""
        return next((entry for entry in self.entries if entry.key.text == key), None)

    def __str__(self) -> str:
        return "a group of keys"


Node: TypeAlias = Scalar | Items | Table


@dataclass(frozen=True, slots=True)
class Document:
    """What a text says, and what is wrong with it although it can be read."""

    root: Table
    problems: tuple[Finding, ...]
    end: int
    """Where the document ends: the end of the text, or its `...`."""


def read(text: str) -> Document:
    """The one document in `text`; raises `ConfigInvalid` when it is too large, not YAML, or not a table of keys."""
    if len(text) > MAX_CONFIG_BYTES or len(text.encode("utf-8", "replace")) > MAX_CONFIG_BYTES:
        raise _unreadable(1, f"wanted at most {MAX_CONFIG_BYTES // 1024} KiB, got more")
    try:
        return _Composer(text).document()
    except yaml.MarkedYAMLError as why:
        line = why.problem_mark.line + 1 if why.problem_mark else 1
        raise _unreadable(line, f"wanted YAML, got {why.problem}") from why
    except yaml.reader.ReaderError as why:
        raise _unreadable(1, f"wanted YAML, got the character {why.character!r}") from why
    except UnicodeEncodeError as why:
        raise _unreadable(1, "wanted UTF-8, got half of a surrogate pair") from why


def plain(node: Node) -> Plain:
    """The value of a node by the YAML 1.2 core schema; keys are always text."""
    match node:
        case Items():
            return [plain(item) for item in node.items]
        case Table():
            return {entry.key.text: plain(entry.value) for entry in node.entries}
        case _:
            return _typed(node.text) if node.plain else node.text


def whole_number(scalar: Scalar) -> int | None:
    """The integer that is written here; None for everything else."""
    if not scalar.plain or not _INT.fullmatch(scalar.text):
        return None
    return int(scalar.text, {"0o": 8, "0x": 16}.get(scalar.text[:2], 10))


def in_order(findings: Iterable[Finding]) -> tuple[str, ...]:
    """Findings as texts, by line."""
    return tuple(f"line {line}: {words}" for line, words in sorted(findings, key=lambda found: found[0]))


def _typed(text: str) -> str | int | float | bool | None:
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text)
    return float(text.replace(".", "")) if _INFINITE.fullmatch(text) else text


def _unreadable(line: int, problem: str) -> ConfigInvalid:
    return ConfigInvalid("the configuration cannot be read", problems=(f"line {line}: {problem}",))


class _Composer:
    """Events of one text to nodes."""

    def __init__(self, text: str) -> None:
        self._size = len(text)
        self._events: Iterator[_Event] = yaml.parse(text, Loader=_Loader)
        self._problems: list[Finding] = []

    def document(self) -> Document:
        """The only document; an empty text is an empty table."""
        next(self._events)  # the stream's start
        started = next(self._events)
        if isinstance(started, yaml.StreamEndEvent):
            return Document(Table((), False, self._size, self._size, 1), (), self._size)
        root = self._node(next(self._events), "", 0)
        ended = next(self._events)
        another = next(self._events)
        if not isinstance(another, yaml.StreamEndEvent):
            raise _unreadable(another.start_mark.line + 1, "wanted one document, got a second one")
        end = ended.start_mark.index if ended.explicit else self._size
        return Document(self._table(root, end), tuple(self._problems), end)

    def _table(self, root: Node, end: int) -> Table:
        if isinstance(root, Scalar) and root.is_null:
            return Table((), False, end, end, root.line)
        if not isinstance(root, Table):
            raise _unreadable(root.line, f"wanted keys with values, got {root}")
        return root

    def _node(self, event: _Event, path: str, depth: int) -> Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise _unreadable(line, f"wanted the value itself, got the alias *{event.anchor}")
        if depth > MAX_DEPTH:
            raise _unreadable(line, f"wanted at most {MAX_DEPTH} levels of nesting, got more")
        if event.tag not in _TEXT_TAGS:
            self._problems.append((line, f"{path}: wanted a value without a tag, got {printable(event.tag)!r}"))
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._items(event, path, depth)
        return self._entries(event, path, depth)

    def _items(self, started: _Event, path: str, depth: int) -> Items:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, f"{path}[{len(items)}]", depth + 1))
        end: _Event = event
        mark = started.start_mark
        return Items(tuple(items), bool(started.flow_style), mark.index, end.end_mark.index, mark.line + 1)

    def _entries(self, started: _Event, path: str, depth: int) -> Table:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, path, depth + 1)
            if not isinstance(key, Scalar):
                raise _unreadable(key.line, f"wanted a key, got {key}")
            where = f"{path}.{printable(key.text)}" if path else printable(key.text)
            value = self._node(next(self._events), where, depth + 1)
            first = entries.setdefault(key.text, entry := Entry(key, value))
            if first is not entry:
                again = f"{where}: wanted each key once, got it again (first in line {first.key.line})"
                self._problems.append((key.line, again))
        end: _Event = event
        mark = started.start_mark
        ordered = tuple(entries.values())
        return Table(ordered, bool(started.flow_style), mark.index, end.end_mark.index, mark.line + 1)


def _scalar(event: _Event) -> Scalar:
    start, end = event.start_mark, event.end_mark
    return Scalar(
        text=event.value,
        plain=event.implicit[0],
        block=event.style in ("|", ">"),
        start=start.index,
        end=end.index,
        line=start.line + 1,
    )
