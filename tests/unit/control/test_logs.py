"""Log lines: key=value, with a stable event name."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator

import pytest

from peerupd.control import logs
from peerupd.linux.journal import JournalHandler
from peerupd.model.logs import said


@pytest.fixture(autouse=True)
def same_root_afterwards() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def line(message: str, *args: object, **extra: object) -> str:
    record = logging.LogRecord("x", logging.INFO, "f", 1, message, args, extra.pop("exc_info", None))  # type: ignore[arg-type]
    record.__dict__.update(extra)
    return logs.KeyValue().format(record)


def test_words_event_and_fields() -> None:
    text = line("path to %s: lost", "ann", **said("path.changed", peer="12D3", rtt=1.5, why='a "b" = c\n'))
    assert text.startswith("time=20")
    assert text.partition(" ")[2] == (
        'level=INFO event=path.changed msg="path to ann: lost" peer=12D3 rtt=1.5 why="a \\"b\\" = c\\n"'
    )


def test_a_plain_record_has_no_event_and_one_line() -> None:
    assert line("two\nlines").partition(" ")[2] == 'level=INFO msg="two\\nlines"'


def test_a_traceback_follows_on_its_own_lines() -> None:
    try:
        raise ValueError("x")
    except ValueError:
        text = line("bug", exc_info=sys.exc_info())
    assert text.splitlines()[1] == "Traceback (most recent call last):"


def test_the_level_is_set_and_stderr_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    logs.configure("warning")
    root = logging.getLogger()
    assert root.level == logging.WARNING
    assert isinstance(root.handlers[0].formatter, logs.KeyValue)


def test_when_stderr_is_the_journal_its_own_protocol_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    logs.configure("info")
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, JournalHandler)
    handler.close()


def test_a_door_without_descriptors_is_told_of_once_a_minute_and_without_a_traceback() -> None:
    seldom = logs.Seldom()
    records = [
        logging.makeLogRecord({"msg": "accept returned EMFILE", "exc_info": (OSError, None, None)}) for _ in "abc"
    ]
    assert [seldom.filter(record) for record in records] == [True, False, False]
    assert not records[0].exc_info
