"""Write a file so that a reader, a crash or a full disk sees the old one or the new one, never a part.

Theory of operation. The new content goes to a temporary file in the same folder, which has its final mode and owner
before its first byte, and is on the disk (fsync) before it gets its name: by rename(2), which replaces, or by link(2),
which refuses to. Then the folder itself is synced, so that the name survives a power cut. Whatever fails before the
name is given leaves the old file as it was, and the temporary one is removed.

As root we keep the owner of a file that we replace, and give a new one to the owner of its folder: `peerupctl` as root
must not leave the daemon's user without its own files. A symbolic link is followed only if it is ours or belongs to
the owner of what it points to: else the daemon's user could point root at any file.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from peerupd.files.faults import words, writing
from peerupd.model.errors import AlreadyExists, StorageFailed

Owner: TypeAlias = tuple[int, int]  # uid, gid

_TEMPORARY: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def replace(path: Path, data: bytes, *, mode: int) -> None:
    """`path` now holds `data` with this mode, whether it was there or not; raises `StorageFailed`.

    A symbolic link stays, and what it points to is replaced.
    """
    with writing(path):
        target = _followed(path)
        _put(target, data, mode, _rename)


def create(path: Path, data: bytes, *, mode: int) -> None:
    """A new file; raises `AlreadyExists` (also for a dangling link) and `StorageFailed`."""
    with writing(path):
        try:
            _put(path, data, mode, _link)
        except FileExistsError:
            raise AlreadyExists(f"{path} exists already", hint="it is left as it is") from None


def make_folder(path: Path) -> None:
    """A folder for its owner alone (0700), and its parents, where they are missing; raises `StorageFailed`."""
    with writing(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _followed(path: Path) -> Path:
    """Where `path` leads if it is a symbolic link that may be followed; else itself."""
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    owner = target.stat().st_uid if target.exists() else target.parent.stat().st_uid
    if path.lstat().st_uid not in (os.geteuid(), owner):
        raise StorageFailed(f"cannot write {path}: a symbolic link of another user is not followed")
    return target


def _put(target: Path, data: bytes, mode: int, give_name: Callable[[str, str, int], None]) -> None:
    folder = os.open(target.parent, _FOLDER)
    temporary = f".peerup-{secrets.token_hex(8)}.tmp"
    try:
        _write(temporary, folder, data, mode, _owner(target, folder))
        give_name(temporary, target.name, folder)
        _sync_folder(target, folder)
    finally:
        with suppress(OSError):  # after a rename it is gone already
            os.unlink(temporary, dir_fd=folder)
        os.close(folder)


def _write(name: str, folder: int, data: bytes, mode: int, owner: Owner) -> None:
    descriptor = os.open(name, _TEMPORARY, 0o600, dir_fd=folder)
    try:
        _give_to(descriptor, owner)
        os.fchmod(descriptor, mode)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _owner(target: Path, folder: int) -> Owner:
    """Whose the new file shall be."""
    try:
        there = os.stat(target.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        there = os.fstat(folder)
    if os.geteuid() == 0:
        return there.st_uid, there.st_gid
    return -1, there.st_gid if stat.S_ISREG(there.st_mode) else -1


def _give_to(descriptor: int, owner: Owner) -> None:
    if os.geteuid() == 0:
        os.fchown(descriptor, *owner)
        return
    with suppress(PermissionError):  # a group that we are not in cannot be kept
        os.fchown(descriptor, *owner)


def _rename(temporary: str, name: str, folder: int) -> None:
    os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def _link(temporary: str, name: str, folder: int) -> None:
    os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def _sync_folder(target: Path, folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as why:
        message = f"{target} is written, but its folder could not be synced: {words(why)}"
        raise StorageFailed(message, hint="a power cut may bring the old file back") from why
