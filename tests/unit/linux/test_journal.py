import logging
import os
import socket
import struct
import sys

import pytest

from peerupd.linux.journal import MAX_VALUE, JournalHandler, connected_to_journal
from peerupd.model.logs import said


@pytest.fixture
def journal(tmp_path):
    """The journal's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "socket"))
        bound.settimeout(5)
        yield bound


@pytest.fixture
def log(tmp_path):
    handler = JournalHandler("peerup-test", tmp_path / "socket")
    logger = logging.Logger("peerupd.test", logging.DEBUG)
    logger.addHandler(handler)
    yield logger
    handler.close()


def entry(journal):
    """The fields of the next datagram, read as the journal does."""
    data, fields = journal.recv(1 << 20), {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", data)
            value, end, data = data[8 : 8 + size], data[8 + size : 9 + size], data[9 + size :]
            assert end == b"\n"
        fields[name.decode()] = value.decode()
    return fields


def test_a_record_arrives_with_its_fields(journal, log):
    log.info("%s is up", "home", extra=said("path.changed", peer="12D3", hops=2, after="DIRECT"))

    assert entry(journal) == {
        "MESSAGE": "home is up",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "peerup-test",
        "PEERUP_EVENT": "path.changed",
        "PEERUP_PEER": "12D3",
        "PEERUP_HOPS": "2",
        "PEERUP_AFTER": "DIRECT",
    }


@pytest.mark.parametrize(
    ("level", "priority"),
    [("critical", "2"), ("error", "3"), ("warning", "4"), ("info", "6"), ("debug", "7")],
)
def test_levels_are_priorities(journal, log, level, priority):
    getattr(log, level)("x")

    assert entry(journal)["PRIORITY"] == priority


def test_lines_stay_in_their_field(journal, log):
    log.error("one\nPRIORITY=0\n", extra=said("x", why="two\nthree"))

    assert entry(journal)["MESSAGE"] == "one\nPRIORITY=0\n"


def test_a_traceback_is_part_of_the_message(journal, log):
    try:
        raise ValueError("trouble")
    except ValueError:
        log.exception("it broke")

    message = entry(journal)["MESSAGE"]
    assert message.startswith("it broke\nTraceback")
    assert message.endswith("ValueError: trouble")


def test_names_of_fields_are_made_fit_and_values_bounded(journal, log):
    log.info("x" * (2 * MAX_VALUE), extra=said("e", **{"näme x" + "y" * 100: "\ud800"}))

    fields = entry(journal)
    assert len(fields["MESSAGE"]) == MAX_VALUE
    assert fields[("PEERUP_N_ME_X" + "Y" * 100)[:64]] == "\\ud800"


def test_an_absent_journal_is_no_trouble_and_one_that_returns_hears_us(tmp_path, log):
    log.info("lost")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "socket"))
        bound.settimeout(5)
        log.info("heard")

        assert entry(bound)["MESSAGE"] == "heard"


def test_a_journal_that_does_not_read_does_not_stop_us(journal, log):
    for number in range(2000):
        log.info("x" * 1000 + str(number))

    assert entry(journal)["MESSAGE"].endswith("x0")


def test_a_wrong_log_call_is_said_on_stderr_and_not_raised(journal, log, capsys):
    log.info("%d", "not a number")

    assert "Logging error" in capsys.readouterr().err


def test_stderr_that_leads_to_the_journal_is_recognised(monkeypatch, tmp_path):
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")

        assert connected_to_journal(stream.fileno())
        assert not connected_to_journal(sys.__stdin__.fileno())

        monkeypatch.delenv("JOURNAL_STREAM")
        assert not connected_to_journal(stream.fileno())


def test_a_closed_stderr_leads_nowhere(monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")

    assert not connected_to_journal(1_000_000)
