"""Frozen dataclasses of `snapshots` to JSON values and back; unknown fields are ignored, wrong types are errors."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, TypeVar

from peerupd.model.errors import RequestError
from peerupd.model.names import PeerId

T = TypeVar("T")

MAX_NUMBER: Final = 1 << 53  # beyond it a JSON number is no longer exact (RFC 8259, 6)


def to_json(value: object) -> Any:  # noqa: ANN401 - JSON is what it is
    """The JSON value of a snapshot, list, tuple or scalar; fields that are None are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, PeerId | type):
        named = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: to_json(inner) for name, inner in named if inner is not None}
    if isinstance(value, tuple | list):
        return [to_json(inner) for inner in value]
    if isinstance(value, Mapping):
        return {str(key): to_json(inner) for key, inner in value.items()}
    return str(value) if isinstance(value, PeerId | StrEnum) else value


def from_json(kind: type[T], value: object) -> T:
    """A `kind` from a JSON object; raises `RequestError` that names the field and what was wanted."""
    if not isinstance(value, dict):
        raise RequestError("invalid request body: it wants a JSON object")
    lowered = {str(key).lower(): inner for key, inner in value.items()}
    hints = typing.get_type_hints(kind)
    known: dict[str, Any] = {}
    for f in dataclasses.fields(kind):  # type: ignore[arg-type] # a dataclass by contract
        if f.name in lowered:
            known[f.name] = _as(hints[f.name], lowered[f.name], f.name)
        elif types.NoneType in typing.get_args(hints[f.name]):
            known[f.name] = None
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise RequestError(f"{f.name} is required")
    return kind(**known)


def _as(kind: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        inner = next(arg for arg in typing.get_args(kind) if arg is not type(None))
        return None if value is None else _as(inner, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise RequestError(f"{where}: wanted a list")
        return tuple(_as(typing.get_args(kind)[0], inner, where) for inner in value)
    if origin is Mapping:
        if not isinstance(value, dict):
            raise RequestError(f"{where}: wanted a JSON object")
        return {key: _as(typing.get_args(kind)[1], inner, where) for key, inner in value.items()}
    if kind is PeerId:
        return PeerId.parse(str(_scalar(str, value, where)))
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return from_json(kind, value)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        choices = ", ".join(kind)
        if value not in list(kind):
            raise RequestError(f"{where}: wanted one of {choices}")
        return kind(value)
    return _scalar(kind, value, where)


def _scalar(kind: type, value: object, where: str) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_NUMBER:
        return float(value)
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise RequestError(f"{where}: wanted {_WORDS.get(kind, kind.__name__)}")
    return value


_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
