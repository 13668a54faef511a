"""The allowlist file: parse, add, remove; comments, order and unknown attributes are kept.

One entry per line (wire spec 4.4), as peer-up writes it:

    12D3KooW...  expires=2026-12-31T00:00:00Z  verified=sha256:1a3f881b  # laptop

Theory of operation. `Allowlist` is a frozen picture of a text; a change is made in the text, line by line, and the
result is parsed anew. A bad line is reported and disables nothing else. In doubt a line gives less, never more: an
`expires` that cannot be read has passed; of several lines for one peer the one that expires first counts; removing a
peer removes every line that begins with its ID, also one that is no good.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

from peerupd import files
from peerupd.model.errors import AlreadyExists, InvalidPeerId, LimitReached, RequestError, UnknownPeer
from peerupd.model.names import PeerId, printable

MAX_FILE: Final = 1024 * 1024  # bytes
MAX_ENTRIES: Final = 10_000
MAX_PROBLEMS: Final = 100  # told one by one; the rest is counted
MAX_COMMENT: Final = 200  # characters
MAX_VALUE: Final = 512  # characters of an attribute that we write
OPEN_TO_OTHERS: Final = 0o027  # 0600 and 0640 are fine

EXPIRED: Final = 0.0  # seconds since the epoch: the moment of an `expires` that cannot be read

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_VALUE: Final = re.compile(r"[^\s#]+")
_ORDER: Final = {"expires": 0, "verified": 1}  # as peer-up writes them; the others follow as they stood


@dataclass(frozen=True, slots=True)
class Entry:
    """One peer that may come in."""

    peer: PeerId
    attributes: Mapping[str, str]
    """`expires`, `verified`, `group`, `hmac_proof`, `vouched_by`, `keep`, and any that we do not know."""
    comment: str = ""
    line: int = 0
    """Its number in the file, from 1."""
    expires_at: float | None = None
    """Seconds since the epoch; None: never; `EXPIRED`: what is written cannot be read."""

    def expired(self, now: float) -> bool:
        """Whether its time is over; `now` in seconds since the epoch."""
        return self.expires_at is not None and now >= self.expires_at


@dataclass(frozen=True, slots=True)
class Allowlist:
    """A picture of the file: its text, what is in it, and what is wrong with it."""

    text: str = ""
    entries: tuple[Entry, ...] = ()
    problems: tuple[str, ...] = ()
    """One sentence each, beginning with `line N: `."""
    _strictest: Mapping[PeerId, Entry] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Allowlist:
        """What is in `text`; never raises."""
        reader = _Reader()
        for number, line in enumerate(_lines(text), 1):
            if not reader.read(number, line):
                break
        return cls(text, tuple(reader.entries), reader.told(), MappingProxyType(reader.strictest))

    def get(self, peer: PeerId) -> Entry | None:
        """The entry that counts for this peer: of several, the one that expires first."""
        return self._strictest.get(peer)

    def expires_at(self, entry: Entry) -> float | None:
        """When this entry ends, in seconds since the epoch; None: never."""
        return entry.expires_at

    def add(self, peer: PeerId, comment: str = "", **attributes: str) -> Allowlist:
        """With a line for `peer` at the end.

        Raises `AlreadyExists`, `RequestError` for attributes that cannot be written, `LimitReached`.
        """
        if (there := self.get(peer)) is not None:
            raise AlreadyExists(f"peer already authorized: {peer.short}", hint=f"see line {there.line}")
        if len(self.entries) >= MAX_ENTRIES:
            raise LimitReached(f"the allowlist has {MAX_ENTRIES} entries", hint="remove some first")
        end = "" if self.text.endswith("\n") or not self.text else "\n"
        return _bounded(f"{self.text}{end}{_written(peer, _checked(attributes), comment)}\n")

    def remove(self, peer: PeerId) -> Allowlist:
        """Without any line that begins with this peer's ID; raises `UnknownPeer`."""
        kept = [line for line in _lines(self.text) if _peer_of(line) != peer]
        if len(kept) == len(_lines(self.text)):
            raise _unknown(peer)
        return Allowlist.parse("\n".join(kept))

    def at_most(self, before: Allowlist) -> Allowlist:
        """Without what it gives beyond `before`: further peers, or the same ones for longer."""

        def gives_more(peer: PeerId | None) -> bool:
            if peer is None:
                return False
            entry, old = self.get(peer), before.get(peer)
            return entry is None or old is None or _end(old) < _end(entry)

        return Allowlist.parse("\n".join(line for line in _lines(self.text) if not gives_more(_peer_of(line))))

    def set_attributes(self, peer: PeerId, **attributes: str | None) -> Allowlist:
        """With these attributes on every line of `peer`; None takes one off. Comment and other attributes stay.

        Raises `UnknownPeer`, `RequestError` for attributes that cannot be written, `LimitReached`.
        """
        if self.get(peer) is None:
            raise _unknown(peer)
        added = _checked({name: value for name, value in attributes.items() if value is not None})
        lines = _lines(self.text)
        for entry in self.entries:
            if entry.peer == peer:
                kept = {name: value for name, value in entry.attributes.items() if name not in attributes}
                lines[entry.line - 1] = _written(peer, kept | added, entry.comment)
        return _bounded("\n".join(lines))


class AllowlistFile:
    """The allowlist on disk. Callers see to it that only one of them changes it at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Allowlist:
        """What is in the file.

        Raises `NotFound`, `InsecurePermissions`, `StorageFailed`, and `RequestError` for more than `MAX_FILE` bytes.
        """
        data = files.read_bytes(self.path, MAX_FILE, forbidden=OPEN_TO_OTHERS)
        return Allowlist.parse(data.decode("utf-8", "surrogateescape"))  # one bad byte must not lock everybody out

    def save(self, allowlist: Allowlist) -> None:
        """Replaces the file whole; its mode stays, a new one gets 0600; raises `StorageFailed`."""
        mode = files.mode_of(self.path, otherwise=0o600)
        files.replace(self.path, allowlist.text.encode("utf-8", "surrogateescape"), mode=mode)

    def keep(self, allowlist: Allowlist) -> None:
        """The last good copy holds this allowlist from now on; raises `StorageFailed`."""
        files.keep_copy(self.path, allowlist.text.encode("utf-8", "surrogateescape"))

    def drop_copy(self) -> None:
        """No last good copy any more; raises `StorageFailed`."""
        files.drop_copy(self.path)


class _Reader:
    """Takes lines, collects entries and problems."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.strictest: dict[PeerId, Entry] = {}
        self._problems: list[str] = []
        self._untold = 0

    def read(self, number: int, line: str) -> bool:
        """Takes one line; False when there may be no more."""
        body, _, comment = line.partition("#")
        words = body.split()
        if not words:
            return True
        if len(self.entries) == MAX_ENTRIES:
            self._problem(number, f"more than {MAX_ENTRIES} entries, ignoring this and what follows")
            return False
        try:
            self._entry(number, words, _clean(comment))
        except RequestError as why:
            self._problem(number, why.message)
        return True

    def told(self) -> tuple[str, ...]:
        """The problems, as many as a person may want to read."""
        rest = (f"and {self._untold} more lines with problems",) if self._untold else ()
        return (*self._problems, *rest)

    def _entry(self, number: int, words: list[str], comment: str) -> None:
        peer = PeerId.parse(words[0])
        attributes = self._attributes(number, words[1:])
        entry = Entry(peer, MappingProxyType(attributes), comment, number, self._ends(number, attributes))
        self.entries.append(entry)
        before = self.strictest.setdefault(peer, entry)
        if before is not entry:
            self._problem(number, f"{peer.short} is on line {before.line} too; the line that expires first counts")
        if _end(entry) < _end(before):
            self.strictest[peer] = entry

    def _attributes(self, number: int, words: list[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for word in words:
            name, equals, value = word.partition("=")
            name = "expires" if name.lower() == "expires" else name  # a slip must not make it eternal
            if name in found:
                raise RequestError(f"{printable(name, 40)} is there twice, ignoring the line")
            if equals or name == "expires":
                found[name] = value
            else:
                self._problem(number, f"{printable(word, 40)!r} is not key=value, ignoring")
        return found

    def _ends(self, number: int, attributes: Mapping[str, str]) -> float | None:
        if (text := attributes.get("expires")) is None:
            return None
        try:
            return parse_moment(text)
        except RequestError as why:
            self._problem(number, f"{why.message}, taken as expired")
            return EXPIRED

    def _problem(self, number: int, what: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(f"line {number}: {what}")
        else:
            self._untold += 1


def parse_moment(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 date and time with its zone, of the years 1 to 9999; `RequestError`."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        pass
    raise RequestError(f"cannot read expires={printable(text, 40)!r}", hint="a moment looks like 2026-12-31T00:00:00Z")


def _lines(text: str) -> list[str]:
    """The lines, by LF alone: a comment must not become a line by a character that only some programs break at."""
    return text.split("\n")


def _peer_of(line: str) -> PeerId | None:
    words = line.partition("#")[0].split(maxsplit=1)
    try:
        return PeerId.parse(words[0]) if words else None
    except InvalidPeerId:
        return None


def _end(entry: Entry) -> float:
    return float("inf") if entry.expires_at is None else entry.expires_at


def _clean(comment: str) -> str:
    return "".join(c for c in comment if c.isprintable()).strip()[:MAX_COMMENT]


def _checked(attributes: Mapping[str, str]) -> dict[str, str]:
    for name, value in attributes.items():
        fits = len(value) <= MAX_VALUE and value.isprintable() and _VALUE.fullmatch(value)
        if not _NAME.fullmatch(name) or not fits:
            raise RequestError(
                f"cannot write the attribute {printable(name, 40)}={printable(value, 40)!r}",
                hint="neither spaces nor '#' can be written",
            )
    if "expires" in attributes:
        parse_moment(attributes["expires"])
    return dict(attributes)


def _written(peer: PeerId, attributes: Mapping[str, str], comment: str) -> str:
    ordered = sorted(attributes.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER)))
    words = [str(peer), *(f"{name}={value}" for name, value in ordered)]
    comment = _clean(comment)
    return "  ".join([*words, f"# {comment}"] if comment else words)


def _bounded(text: str) -> Allowlist:
    if len(text.encode("utf-8", "surrogateescape")) > MAX_FILE:
        raise LimitReached(f"the allowlist would have more than {MAX_FILE} bytes", hint="remove some entries first")
    return Allowlist.parse(text)


def _unknown(peer: PeerId) -> UnknownPeer:
    return UnknownPeer(f"peer not found: {peer.short}", hint="it is not in authorized_keys")
