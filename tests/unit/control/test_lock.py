"""One process per identity."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from peerupd.control import lock
from peerupd.model.errors import DaemonAlreadyRunning, StorageFailed


def test_who_holds_the_lock_is_named_and_nothing_is_left_behind(tmp_path: Path) -> None:
    key = tmp_path / "identity.key"
    with lock.held(key):
        assert (tmp_path / "identity.key.lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(DaemonAlreadyRunning, match=f"process {os.getpid()} "), lock.held(key):
            pass
    assert os.listdir(tmp_path) == []
    with lock.held(key):
        pass


def test_a_process_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    key = tmp_path / "identity.key"
    program = (
        f"from peerupd.control import lock; import os, pathlib\nwith lock.held(pathlib.Path({str(key)!r})): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    assert (tmp_path / "identity.key.lock").exists()
    with lock.held(key):
        pass


def test_a_lock_file_that_went_away_while_we_waited_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, True])
    stands = lock._stands
    monkeypatch.setattr(lock, "_stands", lambda path, fd: next(answers) and stands(path, fd))
    with lock.held(tmp_path / "key"):
        assert next(answers, None) is None
    monkeypatch.undo()
    assert not lock._stands(tmp_path / "nothing", 0)


def test_an_empty_lock_file_names_nobody(tmp_path: Path) -> None:
    key = tmp_path / "key"
    with lock.held(key):
        (tmp_path / "key.lock").write_text("")
        with pytest.raises(DaemonAlreadyRunning, match="process unknown"), lock.held(key):
            pass


def test_a_full_disk_keeps_nobody_from_holding_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    key = tmp_path / "key"
    with monkeypatch.context() as patch:
        patch.setattr("peerupd.control.lock.os.write", full)
        with lock.held(key), pytest.raises(DaemonAlreadyRunning, match="process unknown"), lock.held(key):
            pass
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="cannot lock the identity"), lock.held(tmp_path / "no" / "key"):
        pass
