"""How log lines look and where they go: key=value on stderr, or the journal with priority and fields.

    time=2026-02-20T12:00:00.000+01:00 level=INFO event=path.changed msg="path to 12D3KooW...: ..." peer=12D3KooW...

The words are for people and may change; the event's name and the fields' names do not (`peerupd.model.logs`).
"""

from __future__ import annotations

import json
import logging
import re
import time
from datetime import datetime
from typing import Final

from peerupd.linux.journal import JournalHandler, connected_to_journal
from peerupd.model.logs import EXTRA

SHORTAGE_INTERVAL: Final = 60.0  # seconds between two lines about a door that cannot accept for want of descriptors
LEVELS: Final = ("debug", "info", "warning", "error")
_PLAIN: Final = re.compile(r"[^\s\"=\\]+")


class KeyValue(logging.Formatter):
    """One line a record; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, EXTRA, {}))
        event = fields.pop("event", None)
        moment = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        pairs = {"time": moment, "level": record.levelname, "event": event, "msg": record.getMessage(), **fields}
        line = " ".join(f"{name}={_quoted(value)}" for name, value in pairs.items() if value is not None)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class Seldom(logging.Filter):
    """One line a minute, without a traceback: trio tells ten times a second that a listener has no descriptors left."""

    def __init__(self) -> None:
        super().__init__()
        self._told = -SHORTAGE_INTERVAL

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is told."""
        record.exc_info = None
        if time.monotonic() - self._told < SHORTAGE_INTERVAL:
            return False
        self._told = time.monotonic()
        return True


_seldom: Final = Seldom()


def configure(level: str) -> None:
    """Send the program's log to the journal if that is where stderr goes, else to stderr."""
    root = logging.getLogger()
    root.handlers[:] = [_handler()]
    root.setLevel(level.upper())
    logging.getLogger("trio.serve_listeners").addFilter(_seldom)


def _handler() -> logging.Handler:
    if connected_to_journal():
        return JournalHandler()
    handler = logging.StreamHandler()
    handler.setFormatter(KeyValue())
    return handler


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
