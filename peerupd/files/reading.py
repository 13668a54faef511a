"""Read small files that matter: bounded, regular ones only, and refused where others may look in."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import Final

from peerupd.files.faults import reading
from peerupd.model.errors import InsecurePermissions, NotFound, RequestError, StorageFailed

PRIVATE: Final = 0o077  # what group and others must not have on a secret
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # a FIFO in its place must not hold us up


def read_bytes(path: Path, limit: int, *, forbidden: int = 0) -> bytes:
    """At most `limit` bytes; with `forbidden`, only if none of these permission bits is set.

    Raises `NotFound`, `StorageFailed`, `InsecurePermissions`, and `RequestError` for what is too large.
    """
    with reading(path), open(path, "rb", buffering=0, opener=_open) as file:
        mode = os.fstat(file.fileno()).st_mode  # of what was opened, not of what stands there by now
        if not stat.S_ISREG(mode):
            raise StorageFailed(f"cannot read {path}: not a regular file")
        _refuse(path, mode, forbidden)
        data = _read_at_most(file.fileno(), limit + 1)
    if len(data) > limit:
        raise RequestError(f"{path} is too large: at most {limit} bytes are read")
    return data


def read_text(path: Path, limit: int) -> str:
    """The UTF-8 text of at most `limit` bytes; raises as `read_bytes` does, and `RequestError` if it is not UTF-8."""
    data = read_bytes(path, limit)
    try:
        return data.decode()
    except UnicodeDecodeError as why:
        raise RequestError(f"{path} is not UTF-8 text (byte {why.start})") from None


def read_secret(path: Path, limit: int) -> bytes:
    """The bytes of a file that only its owner may touch; raises as `read_bytes` does."""
    return read_bytes(path, limit, forbidden=PRIVATE)


def check_mode(path: Path, forbidden: int) -> None:
    """Raises `InsecurePermissions` if one of these permission bits is set; its hint is the `chmod` to run."""
    with reading(path):
        mode = path.stat().st_mode
    _refuse(path, mode, forbidden)


def mode_of(path: Path, *, otherwise: int) -> int:
    """The permission bits of the file, or `otherwise` where there is none: for those who write it anew."""
    try:
        with reading(path):
            return stat.S_IMODE(path.stat().st_mode)
    except NotFound:
        return otherwise


def _read_at_most(descriptor: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (chunk := os.read(descriptor, size - len(data))):
        data += chunk
    return bytes(data)


def _open(path: str, _flags: int) -> int:
    return os.open(path, _FLAGS)


def _refuse(path: Path, mode: int, forbidden: int) -> None:
    if not mode & forbidden:
        return
    wanted = stat.S_IMODE(mode) & 0o666 & ~forbidden
    raise InsecurePermissions(
        f"{path} has insecure permissions {stat.S_IMODE(mode):04o} (expected {wanted:04o})",
        hint=f"fix with: chmod {wanted:o} {shlex.quote(str(path))}",
    )
