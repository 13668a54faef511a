"""Plain values as YAML text that any YAML parser reads back as exactly these values."""

from __future__ import annotations

import re
from itertools import chain
from typing import Final, TypeAlias, TypeGuard

from peerupd.config.yaml_text import Plain

Block: TypeAlias = "dict[str, Plain] | list[Plain]"

INDENT: Final = 2  # spaces

_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_LOOKS_TYPED: Final = frozenset({"null", "true", "false", "y", "n", "yes", "no", "on", "off"})


def is_block(value: Plain) -> TypeGuard[Block]:
    """Whether it takes lines of its own: a table or list that is not empty."""
    return isinstance(value, dict | list) and bool(value)


def block_lines(value: Block, indent: int) -> list[str]:
    """A table or list that is not empty, as lines without their ends."""
    pad = " " * indent
    if isinstance(value, dict):
        entries = (_entry(f"{pad}{key_text(key)}:", inner, indent) for key, inner in value.items())
        return list(chain.from_iterable(entries))
    return list(chain.from_iterable(_item(pad, inner, indent) for inner in value))


def inline(value: Plain) -> str:
    """Any value on one line."""
    match value:
        case dict():
            return "{" + ", ".join(f"{key_text(key)}: {inline(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(inline(inner) for inner in value) + "]"
        case str():
            return quoted(value)
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
    return str(value)


def key_text(key: str) -> str:
    """A key, without quotes where every parser takes it for text."""
    return key if _PLAIN_KEY.fullmatch(key) and key.lower() not in _LOOKS_TYPED else quoted(key)


def quoted(text: str) -> str:
    """A text in double quotes; what does not print is escaped."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _entry(start: str, inner: Plain, indent: int) -> list[str]:
    if is_block(inner):
        return [start, *block_lines(inner, indent + INDENT)]
    return [f"{start} {inline(inner)}"]


def _item(pad: str, inner: Plain, indent: int) -> list[str]:
    if is_block(inner):
        first, *rest = block_lines(inner, indent + INDENT)
        return [f"{pad}- {first.lstrip(' ')}", *rest]
    return [f"{pad}- {inline(inner)}"]


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
