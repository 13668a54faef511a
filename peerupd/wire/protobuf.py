"""The protobuf encoding, as far as libp2p's messages use it: varints and length-delimited fields, bounded both ways.

There is no schema language here: a message is its numbered fields, and each protocol room says which it reads. Fields
of the other two sizes (fixed32, fixed64) are checked and skipped, groups are refused; where a singular field comes
twice the last one counts, as in every protobuf parser (protobuf.dev, encoding).
"""

from __future__ import annotations

import builtins
from typing import Final, TypeAlias, TypeVar

from peerupd.model.errors import ProtocolViolation

Buffer: TypeAlias = bytes | bytearray | memoryview
T = TypeVar("T", int, bytes)

MAX_FIELDS: Final = 4096  # fields of one message
MAX_FIELD_NUMBER: Final = 2**29 - 1
MAX_VARINT_BYTES: Final = 10  # 64 bits, seven at a time

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED: Final = {_FIXED64: 8, _FIXED32: 4}  # bytes


def varint(number: int) -> bytes:
    """`number` (0 to 2**64 - 1) as an unsigned varint."""
    if not 0 <= number < 2**64:
        raise ValueError(f"a varint holds 0 to 2**64 - 1, not {number}")
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: Buffer, at: int) -> tuple[int, int]:
    """The varint at `at`, and where the rest begins; raises `ProtocolViolation`."""
    number = 0
    for index in range(MAX_VARINT_BYTES):
        if at + index >= len(data):
            raise ProtocolViolation("protobuf message cut short in a number")
        byte = data[at + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            break
    else:
        raise ProtocolViolation(f"protobuf number longer than {MAX_VARINT_BYTES} bytes")
    if number >= 2**64:
        raise ProtocolViolation("protobuf number above 64 bits")
    return number, at + index + 1


def field(number: int, value: int | bytes | str) -> bytes:
    """One encoded field: whole numbers as varint, bytes and text length-delimited."""
    if isinstance(value, int):
        return varint(number << 3 | _VARINT) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | _BYTES) + varint(len(raw)) + raw


def decode(data: Buffer, *, limit: int = MAX_FIELDS) -> list[tuple[int, int | bytes]]:
    """The `(field, value)` pairs of a message in their order; raises `ProtocolViolation`, also above `limit` fields."""
    view = memoryview(data)
    found: list[tuple[int, int | bytes]] = []
    at = count = 0
    while at < len(view):
        count += 1
        if count > limit:
            raise ProtocolViolation(f"protobuf message with more than {limit} fields")
        number, value, at = _field(view, at)
        if value is not None:
            found.append((number, value))
    return found


def _field(view: memoryview, at: int) -> tuple[int, int | bytes | None, int]:
    """Number and value (None: to be skipped) of the field at `at`, and where the next one begins."""
    tag, at = read_varint(view, at)
    number, kind = tag >> 3, tag & 7
    if not 0 < number <= MAX_FIELD_NUMBER:
        raise ProtocolViolation(f"protobuf field number {number} is not allowed")
    if kind == _VARINT:
        value, at = read_varint(view, at)
        return number, value, at
    if kind == _BYTES:
        size, at = read_varint(view, at)
    elif kind in _FIXED:
        size = _FIXED[kind]
    else:
        raise ProtocolViolation(f"protobuf field {number} of unknown type {kind}")
    if size > len(view) - at:
        raise ProtocolViolation(f"protobuf field {number} cut short")
    return number, bytes(view[at : at + size]) if kind == _BYTES else None, at + size


class Message:
    """A decoded message, asked field by field; every question raises `ProtocolViolation` if the type is another."""

    def __init__(self, data: Buffer, *, limit: builtins.int = MAX_FIELDS) -> None:
        self._fields = decode(data, limit=limit)

    def has(self, number: builtins.int) -> bool:
        """Whether the field is there at all."""
        return any(known == number for known, _ in self._fields)

    def bytes(
        self, number: builtins.int, default: builtins.bytes = b"", *, limit: builtins.int | None = None
    ) -> builtins.bytes:
        """A bytes field, or `default`; at most `limit` bytes."""
        found = self.all_bytes(number)
        return _bounded(number, found[-1], limit) if found else default

    def int(self, number: builtins.int, default: builtins.int = 0) -> builtins.int:
        """A varint field (unsigned, 64 bits), or `default`."""
        found = self._all(number, builtins.int)
        return found[-1] if found else default

    def text(self, number: builtins.int, default: str = "", *, limit: builtins.int | None = None) -> str:
        """A text field, or `default`; at most `limit` bytes of UTF-8."""
        found = self.all_bytes(number)
        return _text(number, _bounded(number, found[-1], limit)) if found else default

    def all_bytes(self, number: builtins.int, *, limit_count: builtins.int = MAX_FIELDS) -> list[builtins.bytes]:
        """Every value of a repeated bytes field, in order; at most `limit_count`."""
        return _few(number, self._all(number, builtins.bytes), limit_count)

    def all_text(
        self, number: builtins.int, *, limit_count: builtins.int = MAX_FIELDS, limit: builtins.int | None = None
    ) -> list[str]:
        """Every value of a repeated text field, in order; at most `limit_count`, of at most `limit` bytes each."""
        found = self.all_bytes(number, limit_count=limit_count)
        return [_text(number, _bounded(number, value, limit)) for value in found]

    def _all(self, number: builtins.int, kind: type[T]) -> list[T]:
        found = [value for known, value in self._fields if known == number]
        typed = [value for value in found if isinstance(value, kind)]
        if len(typed) != len(found):
            raise ProtocolViolation(f"protobuf field {number}: wanted {_WORDS[kind]}")
        return typed


_WORDS: Final[dict[type, str]] = {int: "a number", bytes: "bytes"}


def _few(number: int, found: list[bytes], limit: int) -> list[bytes]:
    if len(found) > limit:
        raise ProtocolViolation(f"protobuf field {number} comes {len(found)} times, at most {limit} are allowed")
    return found


def _bounded(number: int, value: bytes, limit: int | None) -> bytes:
    if limit is not None and len(value) > limit:
        raise ProtocolViolation(f"protobuf field {number} has {len(value)} bytes, at most {limit} are allowed")
    return value


def _text(number: int, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ProtocolViolation(f"protobuf field {number} is not UTF-8") from None
