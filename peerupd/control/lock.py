"""One process per identity: a lock file beside the key, held (flock(2)) for as long as the process lives.

Two processes with one identity would get each other's circuits from the relay. The lock is the kernel's, so a crash
leaves nothing to clean up; the file holds the process ID for the error message only, and is removed at the end.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from peerupd.model.errors import DaemonAlreadyRunning, StorageFailed

SUFFIX: Final = ".lock"
MAX_PID_TEXT: Final = 20  # bytes


@contextmanager
def held(identity: Path) -> Iterator[None]:
    """Hold the lock of the key file `identity`; raises `DaemonAlreadyRunning`, `StorageFailed`."""
    path = identity.with_name(identity.name + SUFFIX)
    descriptor = _acquire(path)
    try:
        with suppress(OSError):  # the lock holds on a full disk too, only nobody can read who holds it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """The locked descriptor of the file that stands at `path`: one that was removed meanwhile does not count."""
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _stands(path, descriptor):
                return descriptor
        except BlockingIOError:
            pid = os.pread(descriptor, MAX_PID_TEXT, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise DaemonAlreadyRunning(
                f"daemon already running: process {pid} uses the identity beside {path}",
                hint="ask it with peerupctl, or end it; two processes with one identity get in each other's way",
            ) from None
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as why:
        raise StorageFailed(
            f"cannot lock the identity: {path}: {why.strerror}", hint="run it as the owner of the identity"
        ) from why


def _stands(path: Path, descriptor: int) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
