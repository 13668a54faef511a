"""Whose network an address is in: a table of networks and their numbers (ASN), as a relay's owner may give one.

    # a comment
    203.0.113.0/24   AS64500
    2001:db8::/32    64501

Theory of operation. The networks, which may lie in one another, are flattened into spans in the order of addresses, so
that a look is one bisection: twelve bytes a span for IPv6 (its upper 64 bits; who has a /64 has it whole), eight for
IPv4. To read the table of the whole internet takes seconds and some ten megabytes stay: never on the event loop.
"""

from __future__ import annotations

import io
import socket
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from peerupd import files
from peerupd.model.addresses import IpAddress
from peerupd.model.errors import RequestError
from peerupd.model.names import printable

MAX_FILE: Final = 64 << 20  # bytes
MAX_NETWORKS: Final = 2_000_000
MAX_NUMBER: Final = (1 << 32) - 1
MAX_SHOWN: Final = 40  # characters of a line that cannot be read
UPPER_BITS: Final = 64  # of an IPv6 address
EXAMPLE: Final = "203.0.113.0/24 AS64500"


class Spans:
    """The flattened networks of one IP version."""

    def __init__(self, packed: Iterable[int], bits: int) -> None:
        self._starts = array("I" if bits == 32 else "Q")
        self._numbers = array("I")
        self._flatten(packed, bits)

    def __len__(self) -> int:
        return len(self._starts)

    def number_at(self, address: int) -> int:
        """The number of the smallest network around the address; 0: none."""
        at = bisect_right(self._starts, address) - 1
        return self._numbers[at] if at >= 0 else 0

    def _flatten(self, packed: Iterable[int], bits: int) -> None:
        around: list[tuple[int, int]] = []  # end and number of the networks that we are in
        for net in sorted(packed):
            start, length, number = net >> 40, net >> 32 & 0xFF, net & MAX_NUMBER
            self._leave(around, start)
            self._begin(start, number)
            around.append((start + (1 << bits - length), number))
        self._leave(around, (1 << bits) - 1)

    def _leave(self, around: list[tuple[int, int]], until: int) -> None:
        while around and around[-1][0] <= until:
            end, _ = around.pop()
            self._begin(end, around[-1][1] if around else 0)

    def _begin(self, start: int, number: int) -> None:
        if self._starts and self._starts[-1] == start:
            self._numbers[-1] = number
        elif not self._numbers or self._numbers[-1] != number:
            self._starts.append(start)
            self._numbers.append(number)


@dataclass(frozen=True, slots=True)
class Networks:
    """A table that was read."""

    v4: Spans
    v6: Spans
    trouble: str = ""
    """What could not be read of it; empty: nothing."""

    def number_of(self, ip: IpAddress) -> int | None:
        """The number of the network that this address is in, if it is known."""
        if ip.version == 4:
            return self.v4.number_at(int(ip)) or None
        if ip.ipv4_mapped is not None:
            return self.v4.number_at(int(ip.ipv4_mapped)) or None
        return self.v6.number_at(int(ip) >> 128 - UPPER_BITS) or None


def load(path: Path) -> Networks:
    """The table in a file; raises `NotFound`, `StorageFailed`, and `RequestError` for one that is too large."""
    return parse(files.read_bytes(path, MAX_FILE))


def parse(data: bytes) -> Networks:
    """The table in these bytes; lines that cannot be read are left out. Raises `RequestError` for too many."""
    v4: list[int] = []
    v6: list[int] = []
    trouble, bad = "", 0
    for at, line in enumerate(io.BytesIO(data), 1):
        try:
            _read(line, v4, v6)
        except (ValueError, OSError):
            shown = printable(line.decode(errors="replace").strip(), MAX_SHOWN)
            trouble = trouble or f"line {at}: wanted a network and its number, like {EXAMPLE}, got {shown!r}"
            bad += 1
    if len(v4) + len(v6) > MAX_NETWORKS:
        raise RequestError(f"the table has too many networks: at most {MAX_NETWORKS} are read")
    return Networks(Spans(v4, 32), Spans(v6, UPPER_BITS), trouble + (f", and {bad - 1} more like it" * (bad > 1)))


def _read(line: bytes, v4: list[int], v6: list[int]) -> None:
    """One line into the list of its version; raises `ValueError` or `OSError`."""
    words = line.partition(b"#")[0].partition(b";")[0].split()
    if not words:
        return
    network, number = words
    text, _, length = network.decode().partition("/")
    asn = int(number.upper().removeprefix(b"AS"))
    if not 0 <= asn <= MAX_NUMBER:
        raise ValueError(asn)
    if ":" in text:
        v6.append(_packed(socket.inet_pton(socket.AF_INET6, text)[:8], min(int(length), UPPER_BITS), UPPER_BITS, asn))
    else:
        v4.append(_packed(socket.inet_pton(socket.AF_INET, text), int(length), 32, asn))


def _packed(address: bytes, length: int, bits: int, number: int) -> int:
    """Sorts by where the network begins, the larger one first."""
    if not 0 <= length <= bits:
        raise ValueError(length)
    rest = bits - length
    return int.from_bytes(address) >> rest << rest + 40 | length << 32 | number
