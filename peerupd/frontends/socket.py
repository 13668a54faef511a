"""The control socket and its cookie: where they are, who may open them, and how a dead one is told from a live one.

Theory of operation (Go peer-up's lifecycle, without its gaps). A file in the socket's place is tried: if somebody
answers, we are the second daemon and end; else it is left over from a crash and removed. The new socket is bound under
a name of its own with its final mode and only then renamed into place, so nobody ever meets a socket with wider rights
or one that does not answer. The cookie is a fresh random token, written before the first request can be read.
"""

from __future__ import annotations

import os
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from peerupd import files
from peerupd.model.errors import DaemonAlreadyRunning, StorageFailed

SYSTEM_CONFIG: Final = Path("/etc/peerup")
SYSTEM_FOLDER: Final = Path("/run/peerup")
SOCKET_NAME: Final = "peerup.sock"
COOKIE_NAME: Final = ".daemon-cookie"
BACKLOG: Final = 128  # connections waiting for accept
ANSWER_LIMIT: Final = 2.0  # seconds for a live daemon to take a connection
COOKIE_BYTES: Final = 32  # of randomness; twice as many characters


@dataclass(frozen=True, slots=True)
class Place:
    """Where one daemon's door is."""

    socket: Path
    shared: bool
    """For the socket's group too: socket 0660 and cookie 0640, instead of 0600."""

    @property
    def cookie(self) -> Path:
        """The cookie's file, beside the socket."""
        return self.socket.parent / COOKIE_NAME


def place(config: Path, home: Path, given: Path | None = None) -> Place:
    """The door of a daemon that runs by `config`: `given`, or the system's for a config in /etc/peerup, or the user's.

    The user's own place does not depend on `config`, as the documents promise.
    """
    if given is not None:
        return Place(given.absolute(), shared=given.absolute().parent == SYSTEM_FOLDER)
    if config.absolute().parent == SYSTEM_CONFIG:
        return Place(SYSTEM_FOLDER / SOCKET_NAME, shared=True)
    return Place(home / ".config" / "peerup" / SOCKET_NAME, shared=False)


class ControlSocket:
    """A bound, listening control socket with its cookie; `close` removes both."""

    def __init__(self, where: Place, listener: trio.SocketListener, cookie: str) -> None:
        self.place = where
        self.listener = listener
        self.cookie = cookie
        self.group = os.stat(where.socket).st_gid if where.shared else None
        self._inode = os.stat(where.socket).st_ino

    @classmethod
    async def open(cls, where: Place) -> ControlSocket:
        """Bind and listen; raises `DaemonAlreadyRunning` and `StorageFailed`."""
        _make_folder(where)
        await _remove_stale(where.socket)
        cookie = secrets.token_hex(COOKIE_BYTES)
        files.replace(where.cookie, cookie.encode(), mode=0o640 if where.shared else 0o600)
        try:
            return cls(where, _listen(where), cookie)
        except StorageFailed:
            os.unlink(where.cookie)
            raise

    async def answers(self) -> bool:
        """Whether the socket in our place still takes connections."""
        with suppress(OSError):
            if os.stat(self.place.socket).st_ino == self._inode:
                return await _somebody_answers(self.place.socket)
        return False

    def close(self) -> None:
        """Remove socket and cookie, if the socket is still ours."""
        self.listener.socket.close()
        with suppress(OSError):
            if os.stat(self.place.socket).st_ino == self._inode:
                self.place.socket.unlink()
                self.place.cookie.unlink()


async def _remove_stale(path: Path) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StorageFailed(f"{path} is in the way: it is not a socket", hint="move it away, or use --socket PATH")
    if await _somebody_answers(path):
        raise DaemonAlreadyRunning(
            f"daemon already running: socket {path} is already in use",
            hint="stop it with `peerupctl daemon stop`, or give this one its own --socket PATH",
        )
    with suppress(FileNotFoundError):
        os.unlink(path)


async def _somebody_answers(path: Path) -> bool:
    """Whether a connection is taken; one that waits in a full backlog counts: somebody alive is behind it."""
    probe = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with probe, _short(path) as name, trio.move_on_after(ANSWER_LIMIT):
        try:
            await probe.connect(name)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def _listen(where: Place) -> trio.SocketListener:
    """Bind under a name of its own, set the mode, listen, then take the real name."""
    temporary = where.socket.with_name(f".{secrets.token_hex(4)}.sock")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(temporary) as name:
            listening.bind(name)
        os.chmod(temporary, 0o660 if where.shared else 0o600)
        listening.listen(BACKLOG)
        os.rename(temporary, where.socket)
    except OSError as why:
        listening.close()
        with suppress(OSError):
            temporary.unlink()
        raise _no_socket(where, why) from why
    listening.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def _make_folder(where: Place) -> None:
    try:
        where.socket.parent.mkdir(mode=0o755 if where.shared else 0o700, parents=True, exist_ok=True)
    except OSError as why:
        raise _no_socket(where, why) from why


def _no_socket(where: Place, why: OSError) -> StorageFailed:
    return StorageFailed(
        f"cannot make the control socket {where.socket}: {why.strerror}", hint="give another place with --socket PATH"
    )


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for `path` that fits into a socket address (108 bytes, unix(7)), however deep its folder."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
