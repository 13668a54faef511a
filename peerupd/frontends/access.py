"""Who may call what: by the credentials that the kernel attaches to a Unix socket's other end, not by what it says.

Root and the daemon's own user hold every right; members of the group of a group-readable socket observe and operate;
everyone else is refused. Groups come from the socket (`SO_PEERGROUPS`), so no group database is asked. Processes, not
people: whoever got hold of the cookie under another user is refused all the same.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import trio

from peerupd.control.verbs import Access

SO_PEERGROUPS: Final = 59  # asm-generic/socket.h; Python has no name for it
GROUPS_BUFFER: Final = 1024  # bytes, the most that Python asks for: 256 groups
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


Connected: TypeAlias = socket.socket | trio.socket.SocketType


@dataclass(frozen=True, slots=True)
class Caller:
    """The process at the other end, as it was when it connected."""

    pid: int
    uid: int
    groups: frozenset[int]


@dataclass(frozen=True, slots=True)
class Rights:
    """Who holds which access class at one door."""

    group: int | None = None
    """The group whose members observe and operate; None: nobody's."""
    owner: int = field(default_factory=os.geteuid)

    def of(self, caller: Caller) -> Access | None:
        """The highest class that `caller` holds; None: it is refused everything."""
        if caller.uid in (0, self.owner):
            return Access.ADMINISTER
        if self.group is not None and self.group in caller.groups:
            return Access.OPERATE
        return None


def caller_of(connection: Connected) -> Caller:
    """Who is at the other end of a connected Unix socket (unix(7), `SO_PEERCRED`)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Caller(pid, uid, frozenset((gid, *_supplementary(connection))))


def _supplementary(connection: Connected) -> list[int]:
    """The further groups of the other end; none where the kernel does not tell."""
    groups = array.array("I")
    try:
        groups.frombytes(connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_BUFFER))
    except OSError:
        return []
    return groups.tolist()
