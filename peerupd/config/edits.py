"""Change a YAML text and leave everything else in it as it was: comments, order, quotes, line ends.

Theory of operation. A change is a wish about the plain data ("`names.home` is this"). The text is parsed for where its
nodes stand, the one place is rewritten, and the new text is parsed again: only if its plain data are exactly the old
ones with the wish applied is it handed out. So the rewriting below may be simple; where a text is laid out in a way it
does not know, the answer is `Conflict` ("edit it by hand"), never a damaged file.

Texts are written in double quotes with escapes: a hostile name stays a name. New tables and lists are written in block
style, also in place of `{}` and `[]`, except inside braces and brackets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from peerupd.config.rendering import INDENT, Block, block_lines, inline, is_block
from peerupd.config.yaml_text import Document, Entry, Items, Node, Plain, Scalar, Table, in_order, plain, read
from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import ConfigInvalid, Conflict, InvalidAddress, InvalidPeerId
from peerupd.model.names import PeerId, printable

Value: TypeAlias = "str | int | float | bool | Sequence[Value] | Mapping[str, Value] | None"
KeyPath: TypeAlias = tuple[str, ...]

_Span: TypeAlias = tuple[int, int]
_Splice: TypeAlias = tuple[int, int, str]
_BOM: Final = "\ufeff"


@dataclass(frozen=True, slots=True)
class Put:
    """The key at `path` has this value; tables on the way are made."""

    path: KeyPath
    value: Value


@dataclass(frozen=True, slots=True)
class Remove:
    """There is no key at `path`."""

    path: KeyPath


@dataclass(frozen=True, slots=True)
class Append:
    """The list at `path` has this item: at its end, if it was not there. The list and tables on the way are made."""

    path: KeyPath
    value: Value


@dataclass(frozen=True, slots=True)
class Drop:
    """The list at `path` has no such item. As for `Append`, addresses and peer IDs are compared by what they mean."""

    path: KeyPath
    value: Value


Change: TypeAlias = Put | Remove | Append | Drop


class _UnknownLayout(Exception):
    """The text says it in a way that the rewriting here does not know."""


def edited(text: str, *changes: Change) -> str:
    """`text` with the changes made, in this order; the same text where there is nothing to change.

    Raises `ConfigInvalid` if it cannot be read, `Conflict` if it is laid out in a way that a person must edit.
    """
    body = text.removeprefix(_BOM)
    head = text[: len(text) - len(body)]
    for change in changes:
        before, body = body, _changed(body, change)
        while isinstance(change, Drop) and body != before:  # each round takes out one
            before, body = body, _changed(body, change)
    return head + body


def _changed(text: str, change: Change) -> str:
    document = read(text)
    if document.problems:
        raise ConfigInvalid("the configuration must be mended first:", problems=in_order(document.problems))
    try:
        wished = _wished(document.root, change)
        if _image(wished) == _image(plain(document.root)):
            return text
        after = _Text(text, document).apply(change)
        if _image(plain(read(after).root)) == _image(wished):
            return after
    except (ConfigInvalid, _UnknownLayout):
        pass
    where = printable(".".join(change.path))
    raise Conflict(f"cannot change {where} in this text without harm", hint=f"edit {where} by hand")


# -- the wish, on plain data ---------------------------------------------------------------------------------------


def _wished(root: Table, change: Change) -> Plain:
    """The plain data with the change made; of a `Drop`, one item."""
    data = {entry.key.text: plain(entry.value) for entry in root.entries}
    *way, key = change.path
    parent = _reached(data, way, make=isinstance(change, Put | Append))
    match change:
        case Put():
            parent[key] = _as_plain(change.value)
        case Remove():
            parent.pop(key, None)
        case Append():
            items = _listed(parent.get(key))
            parent[key] = items if _place(items, change.value) is not None else [*items, _as_plain(change.value)]
        case _:
            items = _listed(parent.get(key))
            if (at := _place(items, change.value)) is not None:
                parent[key] = items[:at] + items[at + 1 :]
    return data


def _reached(data: dict[str, Plain], way: list[str], *, make: bool) -> dict[str, Plain]:
    """The table at the end of `way`; one of nowhere if it is not there and not to be made."""
    for key in way:
        inner = data.get(key)
        if inner is None:
            inner = {}
            if make:
                data[key] = inner
        if not isinstance(inner, dict):
            raise _UnknownLayout
        data = inner
    return data


def _listed(value: Plain) -> list[Plain]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _UnknownLayout
    return value


def _place(items: Sequence[Plain], value: Value) -> int | None:
    wanted = _image(_meaning(_as_plain(value)))
    return next((at for at, item in enumerate(items) if _image(_meaning(item)) == wanted), None)


def _meaning(value: Plain) -> Plain:
    """The one spelling of an address or peer ID; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return str(Multiaddr.parse(value) if value.startswith("/") else PeerId.parse(value))
    except (InvalidAddress, InvalidPeerId):
        return value


def _as_plain(value: Value) -> Plain:
    if isinstance(value, Mapping):
        return {key: _as_plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_as_plain(inner) for inner in value]
    return value


def _image(value: Plain) -> str:
    """For comparing: unlike `==`, it tells `true` from `1`."""
    return json.dumps(value, sort_keys=True)


# -- the rewriting, on the text ------------------------------------------------------------------------------------


class _Text:
    """One text and where its nodes stand; `apply` gives the text with one change made."""

    def __init__(self, text: str, document: Document) -> None:
        self._text = text
        self._root = document.root
        self._end = document.end
        self._newline = "\r\n" if "\r\n" in text else "\n"

    def apply(self, change: Change) -> str:
        """The new text; raises `_UnknownLayout`."""
        entries, rest = self._walk(change.path)
        match change:
            case Put():
                splices = self._put(entries, rest, _as_plain(change.value))
            case Append():
                splices = self._append(entries, rest, _as_plain(change.value))
            case Remove():
                splices = self._remove(entries)
            case _:
                splices = self._drop(entries, change.value)
        text = self._text
        for start, end, new in sorted(splices, reverse=True):
            text = text[:start] + new + text[end:]
        return text

    def _walk(self, path: KeyPath) -> tuple[list[Entry], KeyPath]:
        """The entries on the way that are there, and the keys that are not."""
        entries: list[Entry] = []
        node: Node = self._root
        for at, key in enumerate(path):
            entry = node.find(key) if isinstance(node, Table) else None
            if entry is None:
                return entries, path[at:]
            entries.append(entry)
            node = entry.value
        return entries, ()

    def _put(self, entries: list[Entry], rest: KeyPath, value: Plain) -> list[_Splice]:
        if not rest:
            return self._replace(entries, value)
        new: dict[str, Plain] = {rest[-1]: value}
        for key in reversed(rest[:-1]):
            new = {key: new}
        parent = entries[-1].value if entries else self._root
        if isinstance(parent, Table) and parent.entries:
            return self._insert(parent, new)
        if entries:
            return self._replace(entries, new)
        return [(parent.start, parent.end, ""), self._lines(self._end, block_lines(new, 0))]

    def _append(self, entries: list[Entry], rest: KeyPath, value: Plain) -> list[_Splice]:
        here = entries[-1].value if entries else self._root
        if rest or not isinstance(here, Items) or not here.items:
            return self._put(entries, rest, [value])
        if here.flow:
            return [self._beside(here.items[-1], inline(value))]
        return [self._lines(self._line_after(_end(here)), block_lines([value], self._column(here.start)))]

    def _insert(self, parent: Table, new: dict[str, Plain]) -> list[_Splice]:
        """A new entry at the end of a table; at the end of all if it is the root."""
        if parent.flow:
            return [self._beside(parent.entries[-1].value, inline(new)[1:-1])]
        at = self._end if parent is self._root else self._line_after(_end(parent))
        return [self._lines(at, block_lines(new, self._column(parent.entries[0].key.start)))]

    def _replace(self, entries: list[Entry], value: Plain) -> list[_Splice]:
        old = entries[-1].value
        if isinstance(old, Scalar) and old.block:
            raise _UnknownLayout
        tables = [self._root, *(entry.value for entry in entries[:-1])]
        if isinstance(old, Scalar) or old.flow:
            in_flow = any(not isinstance(table, Scalar) and table.flow for table in tables)
            return self._replace_inline(entries[-1], value, in_flow)
        return self._replace_block(entries[-1], old, value)

    def _replace_inline(self, entry: Entry, value: Plain, in_flow: bool) -> list[_Splice]:
        """In place of a value on the line of its key."""
        old = entry.value
        if in_flow or not is_block(value):
            return [(old.start, old.end, inline(value) if old.start < old.end else f" {inline(value)}")]
        start = len(self._text[: old.start].rstrip(" "))
        return [(start, old.end, ""), self._lines(self._line_after(old.end), self._below(entry, value))]

    def _replace_block(self, entry: Entry, old: Items | Table, value: Plain) -> list[_Splice]:
        """In place of a value on lines of its own."""
        start, after = self._line_of(old.start), self._line_after(_end(old))
        if is_block(value):
            return [(start, after, self._lines(start, self._below(entry, value))[2])]
        colon = self._text.index(":", entry.key.end) + 1
        return [(colon, colon, f" {inline(value)}"), (start, after, "")]

    def _remove(self, entries: list[Entry]) -> list[_Splice]:
        parent = entries[-2].value if len(entries) > 1 else self._root
        assert isinstance(parent, Table)
        if len(parent.entries) == 1 and len(entries) > 1:
            return self._replace(entries[:-1], {})
        spans = [(entry.key.start, _end(entry.value)) for entry in parent.entries]
        return [self._cut(spans, parent.entries.index(entries[-1]), parent.flow)]

    def _drop(self, entries: list[Entry], value: Value) -> list[_Splice]:
        here = entries[-1].value
        assert isinstance(here, Items)
        at = _place([plain(item) for item in here.items], value)
        assert at is not None
        if len(here.items) == 1:
            return self._replace(entries, [])
        spans = [(item.start if here.flow else self._dash(item), _end(item)) for item in here.items]
        return [self._cut(spans, at, here.flow)]

    def _cut(self, spans: list[_Span], at: int, flow: bool) -> _Splice:
        """Take out one of several entries: whole lines, or with one comma."""
        start, end = spans[at]
        if not flow:
            return self._line_of(start), self._line_after(end), ""
        if at + 1 < len(spans):
            following = spans[at + 1][0]
            comma = self._text.index(",", end, following) + 1
            return start, comma if "\n" in self._text[comma:following] else following, ""
        if at and "\n" not in self._text[spans[at - 1][1] : start]:
            start = spans[at - 1][1]
        return start, end, ""

    # -- places

    def _beside(self, last: Node, new: str) -> _Splice:
        at = _end(last)
        return at, at, f", {new}"

    def _lines(self, at: int, lines: list[str]) -> _Splice:
        """Whole lines at the beginning of a line, or at the end of a text without a line end."""
        glued = at > 0 and self._text[at - 1] != "\n"
        return at, at, self._newline * glued + "".join(line + self._newline for line in lines)

    def _below(self, entry: Entry, value: Block) -> list[str]:
        return block_lines(value, self._column(entry.key.start) + INDENT)

    def _line_of(self, at: int) -> int:
        return self._text.rfind("\n", 0, at) + 1

    def _line_after(self, at: int) -> int:
        if at and self._text[at - 1] == "\n":  # a block scalar ends with its line
            return at
        return self._text.find("\n", at) + 1 or len(self._text)

    def _column(self, at: int) -> int:
        return at - self._line_of(at)

    def _dash(self, item: Node) -> int:
        return self._text.rindex("-", 0, item.start)


def _end(node: Node) -> int:
    """Where the node's own text ends; the parser says of a block where the next thing begins."""
    match node:
        case Table(flow=False, entries=[*_, last]):
            return _end(last.value)
        case Items(flow=False, items=[*_, item]):
            return _end(item)
    return node.end
