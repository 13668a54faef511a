"""How inputs are changed: as plain bytes, as lines of text, as protobuf messages whose lengths stay right,
as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from random import Random
from typing import Any

from tests.fuzz.target import Mutator, Target

INTERESTING = (0, 1, 2, 7, 0x0A, 0x0D, 0x20, 0x22, 0x2D, 0x2F, 0x3A, 0x7F, 0x80, 0xFE, 0xFF)
SIZES = (0, 1, 2, 15, 16, 17, 31, 32, 33, 127, 128, 255, 256, 1023, 1024, 4095, 4096, 4097, 32768, 65535, 65536)
NUMBERS = (*SIZES, 2**18, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63, 2**64 - 1)
MAX_STEPS = 5
LONG = 0.01  # of the inputs are blown up to the target's limit


def mutated(random: Random, target: Target, data: bytes, other: bytes) -> bytes:
    """A new input made of `data`, and perhaps of parts of `other`."""
    if target.mutate is not None and random.random() < 0.5:
        data = target.mutate(random, data, other)
        if random.random() < 0.6:
            return data[: target.max_input]
    steps = 1 + min(int(random.expovariate(1.0)), MAX_STEPS - 1)
    for _ in range(steps):
        if target.tokens and random.random() < 0.3:
            data = _token(random, data, random.choice(target.tokens))
        else:
            data = random.choice(_STEPS)(random, data, other)
    if random.random() < LONG:
        data = _blown_up(random, data, target.max_input)
    return data[: target.max_input]


# -- plain bytes ---------------------------------------------------------------------------------------------------


def _span(random: Random, data: bytes, longest: int = 64) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + 1 + int(random.expovariate(0.12)) % longest)


def _flip(random: Random, data: bytes, _: bytes) -> bytes:
    if not data:
        return b"\0"
    at = random.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << random.randrange(8),)) + data[at + 1 :]


def _set(random: Random, data: bytes, _: bytes) -> bytes:
    if not data:
        return b"\xff"
    at = random.randrange(len(data))
    value = random.choice(INTERESTING) if random.random() < 0.5 else random.randrange(256)
    return data[:at] + bytes((value,)) + data[at + 1 :]


def _nudge(random: Random, data: bytes, _: bytes) -> bytes:
    if not data:
        return b"\1"
    at = random.randrange(len(data))
    return data[:at] + bytes(((data[at] + random.choice((-2, -1, 1, 2))) & 0xFF,)) + data[at + 1 :]


def _insert(random: Random, data: bytes, _: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(1 + random.randrange(8)) + data[at:]


def _delete(random: Random, data: bytes, _: bytes) -> bytes:
    start, end = _span(random, data)
    return data[:start] + data[end:]


def _truncate(random: Random, data: bytes, _: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _again(random: Random, data: bytes, _: bytes) -> bytes:
    start, end = _span(random, data)
    at = random.randrange(len(data) + 1)
    return data[:at] + data[start:end] * random.choice((1, 1, 2, 3, 9)) + data[at:]


def _number(random: Random, data: bytes, _: bytes) -> bytes:
    size = random.choice((1, 2, 2, 4, 4, 8))
    raw = (random.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, random.choice(("big", "little")))
    at = random.randrange(len(data) + 1)
    return data[:at] + raw + data[at + (size if random.random() < 0.8 else 0) :]


def _digits(random: Random, data: bytes, _: bytes) -> bytes:
    digits = [at for at, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if not digits:
        return data
    at = random.choice(digits)
    return data[:at] + str(random.choice(NUMBERS)).encode() + data[at + 1 :]


def _splice(random: Random, data: bytes, other: bytes) -> bytes:
    start, end = _span(random, other, 512)
    at, until = _span(random, data)
    return data[:at] + other[start:end] + data[random.choice((at, until)) :]


def _cross(random: Random, data: bytes, other: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def _lines(random: Random, data: bytes, other: bytes) -> bytes:
    """A line less, twice, elsewhere, deeper, or one of the other."""
    lines, further = data.split(b"\n"), other.split(b"\n")
    at, to = random.randrange(len(lines)), random.randrange(len(lines) + 1)
    match random.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(to, lines[at])
        case 2:
            lines.insert(min(to, len(lines) - 1), lines.pop(at))
        case 3:
            lines[at] = b" " * random.choice((1, 2, 4)) + lines[at]
        case _:
            lines.insert(to, random.choice(further))
    return b"\n".join(lines)


_STEPS: Sequence[Callable[[Random, bytes, bytes], bytes]] = (
    *(_flip, _set, _nudge, _insert, _delete, _truncate, _again, _number, _digits, _splice, _cross, _lines),
    *(_flip, _set, _number),
)


def _token(random: Random, data: bytes, token: bytes) -> bytes:
    at, until = _span(random, data, 16)
    return data[:at] + token + data[random.choice((at, until)) :]


def _blown_up(random: Random, data: bytes, limit: int) -> bytes:
    """A part of it, again and again, up to the limit or a little less."""
    start, end = _span(random, data)
    part = data[start:end] or b"A"
    room = max(0, random.choice((limit, limit, limit // 2, limit // 8)) - len(data))
    return data[:start] + part * (room // len(part)) + data[start:]


# -- protobuf ------------------------------------------------------------------------------------------------------

MAX_VARINT = 10  # bytes
MANY = 16 * 1024  # bytes of one field, written again and again


def protobuf(random: Random, data: bytes, other: bytes) -> bytes:
    """A message with fields less, twice, in another order, of another kind or from elsewhere; lengths stay right."""
    fields = split_fields(data) or [(1, 0, b"\0")]
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(fields)) if fields else 0
        match random.randrange(8):
            case 0 if fields:
                del fields[at]
            case 1 if fields:
                fields += fields[at : at + 1] * min(
                    random.choice((1, 2, 70, 300)), 1 + MANY // (1 + len(fields[at][2]))
                )
            case 2:
                random.shuffle(fields)
            case 3:
                fields.insert(at, random.choice(split_fields(other) or [(2, 2, b"x")]))
            case 4 if fields:
                fields[at] = (random.choice((0, 1, 2, 3, 4, 5, 8, 16, 2**29 - 1, 2**29)), *fields[at][1:])
            case 5 if fields:
                fields[at] = (fields[at][0], *_value(random))
            case _ if fields and fields[at][1] == 2:
                number, kind, value = fields[at]
                inner = protobuf if random.random() < 0.5 else random.choice(_STEPS)
                fields[at] = (number, kind, inner(random, value, other))
    return b"".join(_written(*each) for each in fields)


def _value(random: Random) -> tuple[int, bytes]:
    kind = random.choice((0, 0, 1, 2, 2, 3, 4, 5, 6))
    if kind == 0:
        return kind, _varint(random.choice(NUMBERS)) if random.random() < 0.9 else b"\xff" * 10 + b"\1"
    if kind == 2:
        return kind, random.randbytes(random.choice((0, 1, 2, 32, 34, 36, 200)))
    return kind, random.randbytes({1: 8, 5: 4}.get(kind, 0))


def split_fields(data: bytes) -> list[tuple[int, int, bytes]]:
    """Number, kind and raw value of the fields, as far as they can be told."""
    found, at = [], 0
    while at < len(data):
        tag, at = _read(data, at)
        start = at
        match tag & 7:
            case 0:
                _, at = _read(data, at)
            case 2:
                size, start = _read(data, at)
                at = start + size
            case 1 | 5 as kind:
                at += 8 if kind == 1 else 4
            case _:
                break
        found.append((tag >> 3, tag & 7, data[start:at]))
    return found


def _read(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    for byte in data[at : at + MAX_VARINT]:
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return number, at


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _written(number: int, kind: int, value: bytes) -> bytes:
    return _varint(number << 3 | kind) + (_varint(len(value)) if kind == 2 else b"") + value


# -- JSON ----------------------------------------------------------------------------------------------------------

VALUES = (
    *(None, True, False, 0, 1, -1, 2**53, 2**64, 0.5, 1e308, float("inf"), float("nan"), "", "x", "\ud800", "\u202e"),
    *([], {}, [[]], [None], {"": None}, "9" * 100, "\x00\n\x1b[31m", "any", "relay", "unix:/x", "127.0.0.1:0"),
)
MAX_DEPTH = 50


def json_behind(size: int) -> Mutator:
    """JSON mutations of what follows a head of so many bytes."""

    def mutate(random: Random, data: bytes, other: bytes) -> bytes:
        try:
            values = [json.loads(text[size:]) for text in (data, other)]
        except (ValueError, RecursionError):
            return data
        for _ in range(random.choice((1, 1, 2, 4))):
            values[0] = _changed(random, values[0], values[1], MAX_DEPTH)
        return data[:size] + json.dumps(values[0]).encode()

    return mutate


def _changed(random: Random, value: Any, other: Any, depth: int) -> Any:
    """The value with one thing in it that is different."""
    if depth and value and isinstance(value, dict | list) and random.random() < 0.7:
        at = random.choice(list(value) if isinstance(value, dict) else range(len(value)))
        match random.randrange(6):
            case 0:
                del value[at]
            case 1 if isinstance(value, list):
                value.insert(at, deepcopy(value[at]))
            case 1:
                value[random.choice((at.upper(), at[:1], "x", "data"))] = deepcopy(value[at])
            case _:
                value[at] = _changed(random, value[at], other, depth - 1)
        return value
    match random.randrange(5):
        case 0:
            return deepcopy(other)
        case 1:
            return [deepcopy(value) for _ in range(random.choice((1, 2, 30)))]
        case 2 if isinstance(value, dict):
            return value | deepcopy(other if isinstance(other, dict) else {"x": other})
    return deepcopy(random.choice(VALUES))
