"""What a door answers: the JSON envelope as the predecessor's, and the HTTP status of an error by its family."""

from __future__ import annotations

import json
from typing import Any, Final

from peerupd.model import errors
from peerupd.model.codec import to_json
from peerupd.model.errors import PeerupError

_STATUS: Final[tuple[tuple[type[PeerupError], int], ...]] = (
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.RequestError, 400),
    (errors.Unauthenticated, 401),
    (errors.RefusedError, 403),
    (errors.RemoteError, 502),
    (errors.Unreachable, 502),
    (errors.NoRelay, 502),
    (errors.TimedOut, 504),
    (errors.StorageFailed, 500),
    (errors.EnvironmentalError, 503),
)
"""The first that fits."""

_ESCAPED: Final = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def status_of(why: PeerupError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in _STATUS if isinstance(why, kind)), 500)


def success(report: object) -> bytes:
    """`{"data": ...}` and a newline."""
    return line({"data": to_json(report)})


def failure(why: PeerupError) -> bytes:
    """`{"error": ..., "code": ..., "hint": ...}` and a newline."""
    return line({"error": why.message, "code": why.code, "hint": why.hint})


def line(value: object) -> bytes:
    """One line of JSON as Go writes it: `<`, `>` and `&` escaped, whole floats without a point."""
    text = json.dumps(_whole(value), ensure_ascii=False, separators=(",", ":"))
    return text.translate(_ESCAPED).encode("utf-8", "replace") + b"\n"


def _whole(value: Any) -> Any:  # noqa: ANN401 - JSON is what it is
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list) else value
