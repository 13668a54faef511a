"""Log to the journal in its own protocol, so that priority and fields arrive as such.

Source: systemd.io, JOURNAL_NATIVE_PROTOCOL. One datagram per entry, of lines `NAME=value`; a value with line breaks
follows its name as LF, its size in eight bytes (little-endian), and itself. An entry that the journal does not take is
lost: logging must never stop the daemon.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import struct
from pathlib import Path
from typing import Final

from peerupd.model.logs import EXTRA

JOURNAL_SOCKET: Final = Path("/run/systemd/journal/socket")
MAX_VALUE: Final = 32 * 1024  # bytes of one field; a datagram takes some 200 KiB
MAX_NAME: Final = 64  # characters, by systemd's rule
STDERR: Final = 2

_SIZE: Final = struct.Struct("<Q")
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG: Final = 7


def connected_to_journal(descriptor: int = STDERR) -> bool:
    """Whether this descriptor leads to the journal: `JOURNAL_STREAM` names its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class JournalHandler(logging.Handler):
    """Log records as entries of the journal: MESSAGE, PRIORITY, SYSLOG_IDENTIFIER, and PEERUP_<FIELD> of `said`."""

    def __init__(self, identifier: str = "peerupd", path: Path = JOURNAL_SOCKET) -> None:
        super().__init__()
        self._identifier = identifier
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def emit(self, record: logging.LogRecord) -> None:
        """Sends the record; an entry that cannot be sent is dropped."""
        try:
            entry = self._entry(record)
        except Exception:  # as all handlers of `logging` do: the log call is wrong, and is said on stderr
            self.handleError(record)
            return
        try:
            self._socket.sendto(entry, self._path)  # not connected, so that a restarted journal hears us again
        except OSError:
            return

    def close(self) -> None:
        """Gives the socket back."""
        self._socket.close()
        super().close()

    def _entry(self, record: logging.LogRecord) -> bytes:
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(_priority(record.levelno)),
            "SYSLOG_IDENTIFIER": self._identifier,
        }
        for name, value in getattr(record, EXTRA, {}).items():
            fields[_field_name(name)] = str(value)
        return b"".join(_field(name, value) for name, value in fields.items())


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), _DEBUG)


def _field_name(name: str) -> str:
    return ("PEERUP_" + re.sub(r"[^A-Z0-9_]", "_", name.upper()))[:MAX_NAME]


def _field(name: str, value: str) -> bytes:
    raw = value.encode("utf-8", "backslashreplace")[:MAX_VALUE]
    if b"\n" in raw:
        return name.encode() + b"\n" + _SIZE.pack(len(raw)) + raw + b"\n"
    return name.encode() + b"=" + raw + b"\n"
