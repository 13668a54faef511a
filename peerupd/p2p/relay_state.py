"""What of a relay outlives its restart, as a text: who holds a reservation, until when, and from where.

    peerup relay reservations 1
    12D3KooW... 1763838300 203.0.113.7
    12D3KooW... 1763838310 2001:db8:1:2::/64

Times are those of the wall clock, as in the vouchers that the peers hold. A line that cannot be read costs itself; a
text of another version gives nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from peerupd.model.addresses import counted_as
from peerupd.model.errors import RequestError
from peerupd.model.names import PeerId, printable

HEADER: Final = "peerup relay reservations 1"
MAX_TEXT: Final = 16 << 20  # bytes
MAX_LINE: Final = 200  # characters
MAX_SHOWN: Final = 40  # characters of what cannot be read
NOWHERE: Final = "-"
END_OF_TIME: Final = 1 << 40  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class Kept:
    """One peer's reservation."""

    peer: PeerId
    until: int
    """Seconds since the epoch."""
    place: str | None
    """Where it came from, as `counted_as` has it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a text gave."""

    kept: tuple[Kept, ...] = ()
    """Whose ends first stands first; each peer once."""
    trouble: str = ""
    """What could not be read; empty: nothing."""


def to_text(reservations: Iterable[Kept]) -> bytes:
    """These, as many as there is room for."""
    text = bytearray(f"{HEADER}\n".encode())
    for kept in reservations:
        line = f"{kept.peer} {kept.until} {kept.place or NOWHERE}\n".encode()
        if len(text) + len(line) > MAX_TEXT:
            break
        text += line
    return bytes(text)


def from_text(data: bytes) -> Found:
    """What is in a text; never raises."""
    header, *lines = data.decode(errors="replace").splitlines() or [""]
    if header != HEADER:
        return Found(trouble=f"wanted {HEADER!r} in its first line, got {printable(header[:MAX_SHOWN], MAX_SHOWN)!r}")
    found: dict[PeerId, Kept] = {}
    bad = 0
    for line in lines:
        try:
            kept = _read(line)
        except (ValueError, RequestError):
            bad += 1
        else:
            found[kept.peer] = kept
    trouble = f"{bad} of its lines cannot be read" if bad else ""
    return Found(tuple(sorted(found.values(), key=lambda kept: kept.until)), trouble)


def _read(line: str) -> Kept:
    """One line; raises `ValueError` or `RequestError`."""
    if len(line) > MAX_LINE:
        raise ValueError(len(line))
    peer, until, place = line.split()
    if not until.isdecimal() or not until.isascii() or int(until) > END_OF_TIME:
        raise ValueError(until)
    return Kept(PeerId.parse(peer), int(until), None if place == NOWHERE else _place(place))


def _place(text: str) -> str:
    """A place in the one form in which places are compared; raises `ValueError`."""
    return counted_as(ipaddress.ip_network(text, strict=False).network_address)
