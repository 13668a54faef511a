import os
import socket

import pytest

from peerupd.linux.systemd import MAX_STATUS, Notifier


@pytest.fixture(autouse=True)
def no_service_manager(monkeypatch):
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["a file", "abstract"])
def manager(request, tmp_path, monkeypatch):
    """The service manager's end."""
    name = str(tmp_path / "notify") if request.param == "a file" else f"\0peerup-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(name)
        bound.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        yield bound


@pytest.fixture
def notifier(manager):
    made = Notifier()
    yield made
    made.close()


def heard(manager):
    return manager.recv(4096).decode()


def test_the_service_manager_hears_each_state(manager, notifier):
    notifier.ready()
    notifier.watchdog()
    notifier.stopping()

    assert [heard(manager) for _ in range(3)] == ["READY=1", "WATCHDOG=1", "STOPPING=1"]


def test_the_status_is_one_line_of_utf8(manager, notifier):
    notifier.status("2 peers · 1 → relay\nREADY=1" + "x" * 1000)

    status = heard(manager)
    assert status.startswith("STATUS=2 peers · 1 → relay\N{REPLACEMENT CHARACTER}READY=1xxx")
    assert "\n" not in status
    assert len(status) == len("STATUS=") + MAX_STATUS


def test_after_the_end_nothing_is_said(manager, notifier):
    notifier.close()
    notifier.close()
    notifier.ready()

    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(10)


def test_a_service_manager_that_does_not_read_does_not_stop_us(manager, notifier):
    notifier._sdnotify.socket.settimeout(0.001)
    for _ in range(600):  # net.unix.max_dgram_qlen is 512 at most
        notifier.status("x" * 300)


def test_without_a_service_manager_everything_is_silent():
    notifier = Notifier()

    notifier.ready()
    notifier.status("all is well")
    notifier.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # sdnotify leaves its socket
def test_a_socket_that_is_not_there_is_no_trouble(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))

    Notifier().ready()


def test_a_beat_is_due_twice_in_the_time_that_the_unit_allows(monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert Notifier().interval == 15.0

    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert Notifier().interval == 15.0


@pytest.mark.parametrize(
    ("allowed", "watched"), [("", None), ("0", None), ("-5", None), ("soon", None), ("30000000", "1")]
)
def test_no_beat_is_due_where_nobody_watches_this_process(monkeypatch, allowed, watched):
    monkeypatch.setenv("WATCHDOG_USEC", allowed)
    if watched:
        monkeypatch.setenv("WATCHDOG_PID", watched)

    assert Notifier().interval is None
