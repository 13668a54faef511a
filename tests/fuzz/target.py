"""What a fuzz target is, and what targets share: choices read off the input, and portions of it.

A target takes bytes and returns, or raises one of its `declared` errors. Anything else that comes out is a finding; so
are an assertion that fails, and a bound on time or memory that is passed (`tests.fuzz.bounds`). Where bytes alone would
not get deep the input is a little program: `Choices` reads numbers, picks and pieces off it, so that every mutation of
the bytes is a mutation of what is done.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Any, TypeAlias, TypeVar

from peerupd.model.errors import PeerupError, ProtocolViolation

T = TypeVar("T")

Mutator: TypeAlias = Callable[[Random, bytes, bytes], bytes]
"""Makes a new input of one; the third is another input of the corpus."""

MAX_INPUT = 8 * 1024  # bytes, unless a target wants more


@dataclass(frozen=True)
class Target:
    """One decoder, or one machine in one role."""

    name: str
    run: Callable[[bytes], object]
    """What it returns counts as accepted if it is not False."""
    seeds: Callable[[], Iterable[bytes]]
    declared: tuple[type[PeerupError], ...] = (ProtocolViolation,)
    tokens: tuple[bytes, ...] = ()
    """Words of its language."""
    mutate: Mutator | None = None
    """Knows the structure; takes turns with the mutations of plain bytes."""
    share: float = 1.0
    """Of the inputs, beside the other targets': less for slow ones."""
    max_input: int = MAX_INPUT
    memory: int = 400
    """Bytes that may be in use at the peak for each byte of input, beside `bounds.MEMORY`."""


@dataclass
class Choices:
    """Numbers, picks and pieces read off an input; zeros once it is used up."""

    data: bytes
    at: int = field(default=0)

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def byte(self) -> int:
        """0 to 255."""
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def number(self, size: int) -> int:
        """Of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def pick(self, options: Sequence[T]) -> T:
        """One of these."""
        return options[self.byte() % len(options)]

    def take(self, size: int) -> bytes:
        """So many bytes, fewer at the end."""
        start, self.at = self.at, self.at + size
        return self.data[start : self.at]

    def piece(self) -> bytes:
        """Some bytes, as many as the next one says."""
        return self.take(self.byte())

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(max(0, len(self.data) - self.at))


def portions(data: bytes, salt: int = 0) -> list[bytes]:
    """`data` cut into a few pieces, always the same ones for the same data; short data now and then byte by byte."""
    random = Random(zlib.crc32(data) + salt)
    if len(data) <= 64 and random.random() < 0.2:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(1, 5)))
    return [data[a:b] for a, b in pairwise([0, *cuts, len(data)])]


@dataclass(frozen=True)
class Outcome:
    """What a machine said to some bytes: its events up to the error that ended it, if any."""

    events: list[Any]
    error: PeerupError | None = None


def fed(receive: Callable[[bytes], Iterable[Any]], pieces: Iterable[bytes]) -> Outcome:
    """What `receive` said to the pieces, one after the other."""
    events: list[Any] = []
    for piece in pieces:
        try:
            events.extend(receive(piece))
        except PeerupError as why:
            return Outcome(events, why)
    return Outcome(events)


def same_however_cut(
    data: bytes,
    machine: Callable[[], Callable[[bytes], Iterable[Any]]],
    merged: Callable[[list[Any]], list[Any]] = list,
) -> Outcome:
    """What a new `machine` says to `data` at once, having seen that it says the same to its portions.

    Raises the error that both ended with: of the same kind; its words, and what had been said before, may differ.
    """
    whole, cut = fed(machine(), [data]), fed(machine(), portions(data))
    assert type(cut.error) is type(whole.error), f"in portions: {cut.error!r}, at once: {whole.error!r}"
    if whole.error is not None:
        raise whole.error
    ours, theirs = merged(whole.events), merged(cut.events)
    assert ours == theirs, f"in portions: {theirs}, at once: {ours}"
    return whole
