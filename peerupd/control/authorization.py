"""Who may come in: the allowlist on disk and the gate in force, changed together.

A change is written first and put in force then, under one lock; if it cannot be written nothing changes. A removed
peer's connections are closed before the answer is given.

The last good copy never gives more than the file: it loses a peer before the file does and gets one after, so that no
start from it, wherever a kill came between, brings a removed peer back. A file that is gone or cannot be read changes
nothing: the list in force stays, and a change of it makes the missing file anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from peerupd import files
from peerupd.control.disk import Disk
from peerupd.control.good_file import GoodFile
from peerupd.model.errors import NotFound, PeerupError, RequestError, StorageFailed
from peerupd.model.logs import said
from peerupd.model.names import PeerId, printable
from peerupd.model.snapshots import AuthEntry, AuthReport
from peerupd.trust.authorized_keys import Allowlist, AllowlistFile, Entry, parse_moment
from peerupd.trust.gate import Gate

log = logging.getLogger(__name__)


class Authorization:
    """The allowlist, live and on disk; `changed` is called when another list, or trouble with the file, is there."""

    def __init__(
        self, gate: Gate, file: AllowlistFile | None, changed: Callable[[], None], disk: Disk, trouble: str = ""
    ) -> None:
        self._gate = gate
        self._file = file
        self._changed = changed
        self._disk = disk
        self._good: GoodFile[Allowlist] | None = None
        if file is not None:
            self._good = GoodFile(file.path, file.load, partial(_keep_or_drop, file), disk, trouble)

    def problems(self) -> tuple[str, ...]:
        """What a person should mend in the file."""
        if self._good is None:
            return ()
        lines = (f"{self._good.path}: {problem}" for problem in self._gate.allowlist.problems)
        return (*self._good.problems(), *lines)

    def list(self) -> tuple[AuthEntry, ...]:
        """Every entry in force; none without a gate."""
        return tuple(_shown(entry) for entry in self._gate.allowlist.entries) if self._gate.enabled else ()

    async def add(self, peer: PeerId, comment: str = "", **attributes: str) -> None:
        """Let `peer` in; raises `AlreadyExists`, `RequestError`, `StorageFailed`."""
        self._check_gated()
        await self._change(lambda before: before.add(peer, comment, **attributes))
        log.info("peer %s is authorized", peer, extra=said("auth.added", peer=str(peer)))

    async def ensure(self, peer: PeerId, comment: str = "", **attributes: str) -> None:
        """Let `peer` in for good if it is not; an entry with an end is replaced, no allowlist wants none. As `add`."""
        if self._file is None:
            return

        def change(before: Allowlist) -> Allowlist:
            entry = before.get(peer)
            if entry is not None and entry.expires_at is None:
                return before
            return (before if entry is None else before.remove(peer)).add(peer, comment, **attributes)

        await self._change(change)
        log.info("peer %s is authorized", peer, extra=said("auth.added", peer=str(peer)))

    async def remove(self, peer: PeerId, *, only_if: Callable[[Entry], bool] = lambda entry: True) -> bool:
        """Shut `peer` out, at once; False: `only_if` says no. Raises `UnknownPeer`, `StorageFailed`."""
        self._check_gated()
        removed = False

        def change(before: Allowlist) -> Allowlist:
            nonlocal removed
            entry = before.get(peer)
            removed = entry is None or only_if(entry)  # without an entry, `remove` says what is wrong
            return before.remove(peer) if removed else before

        await self._change(change)
        if removed:
            log.info("peer %s is no longer authorized", peer, extra=said("auth.removed", peer=str(peer)))
        return removed

    async def reload(self) -> tuple[str, ...]:
        """Put in force what is in the file now; returns its problems. Raises what reading raises: the old one stays."""
        if self._good is None or not self._gate.enabled:
            return ()
        async with self._disk.changing:
            try:
                allowlist = await self._good.read()
            except PeerupError:
                self._changed()
                raise
            self._put_in_force(allowlist)
        return allowlist.problems

    async def keep(self) -> None:
        """The list in force, as it was read at the start, is the last good one."""
        if self._good is None or not self._gate.enabled:
            return
        async with self._disk.changing:
            if not self._good.trouble:
                await self._good.keep(self._gate.allowlist)

    async def renew_copy(self) -> None:
        """Before anybody is admitted: a copy of before must not outlive what was taken out of the file meanwhile."""
        if self._good is not None and await self._disk.do(files.copy_of(self._good.path).exists):
            await self.keep()

    async def reload_or_tell(self) -> None:
        """The same when nobody waits for an answer: trouble is logged."""
        try:
            problems = await self.reload()
        except PeerupError as why:
            log.error("cannot read the allowlist anew: %s, keeping the one in force", why, extra=said("reload.failed"))
            return
        log.info("the allowlist was read anew", extra=said("reload.done"))
        for problem in problems:
            log.warning("allowlist: %s, ignoring", problem, extra=said("auth.problem", problem=problem))

    async def validate(self, file: str = "") -> AuthReport:
        """What is wrong with a file (empty: ours); raises `NotFound`, `InsecurePermissions`, `StorageFailed`."""
        path = Path(file) if file else self._path()
        allowlist = await self._disk.do(AllowlistFile(path).load)
        return AuthReport(str(path), len(allowlist.entries), allowlist.problems)

    def _path(self) -> Path:
        if self._file is None:
            raise NotFound("no allowlist is configured", hint="set security.authorized_keys_file")
        return self._file.path

    def _check_gated(self) -> None:
        if self._file is None or not self._gate.enabled:
            raise RequestError(
                "connection gating is not enabled",
                hint="set security.enable_connection_gating and security.authorized_keys_file",
            )

    async def _change(self, change: Callable[[Allowlist], Allowlist]) -> None:
        assert self._file is not None
        assert self._good is not None
        async with self._disk.changing:
            before = await self._disk.do(self._load)
            after = change(before)
            missing = before is self._gate.allowlist
            if missing or after is not before:
                await self._disk.do(_write, self._file, before, after)
            self._good.trouble = ""
            self._put_in_force(after)
            await self._good.keep(after)

    def _load(self) -> Allowlist:
        """What is in the file, or in force if there is none."""
        assert self._file is not None
        try:
            return self._file.load()
        except NotFound:
            return self._gate.allowlist

    def _put_in_force(self, allowlist: Allowlist) -> None:
        self._gate.replace(allowlist)
        self._changed()


def _write(file: AllowlistFile, before: Allowlist, after: Allowlist) -> None:
    """First the copy loses what `after` has no more, then the file is written; what it gains comes to the copy last."""
    file.keep(after.at_most(before))
    file.save(after)


def _keep_or_drop(file: AllowlistFile, allowlist: Allowlist) -> None:
    """No copy is better than one that might hold a removed peer."""
    try:
        file.keep(allowlist)
    except StorageFailed:
        file.drop_copy()
        raise


def expiry(text: str) -> dict[str, str]:
    """The attribute for an `expires` as a caller gave it (RFC 3339; empty: none); raises `RequestError`."""
    if not text:
        return {}
    parse_moment(text)
    return {"expires": text}


def _shown(entry: Entry) -> AuthEntry:
    attributes = entry.attributes
    return AuthEntry(
        peer_id=str(entry.peer),
        comment=entry.comment or None,
        verified=_attribute(attributes.get("verified")),
        expires_at=_moment(entry.expires_at),
        group=_attribute(attributes.get("group")),
        vouched_by=_attribute(attributes.get("vouched_by")),
    )


def _attribute(text: str | None) -> str | None:
    return printable(text) if text else None


def _moment(seconds: float | None) -> str | None:
    """RFC 3339, as Go prints it in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
