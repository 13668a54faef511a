import os

import pytest

from peerupd import files
from peerupd.model.errors import InsecurePermissions, NotFound, RequestError, StorageFailed


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "a file"
    made.write_bytes(b"caf\xc3\xa9")
    made.chmod(0o600)
    return made


def test_text_and_bytes_are_read_up_to_a_limit(path):
    assert files.read_text(path, 5) == "café"
    assert files.read_bytes(path, 5) == b"caf\xc3\xa9"
    with pytest.raises(RequestError, match="too large: at most 4 bytes"):
        files.read_bytes(path, 4)


def test_an_empty_file_is_no_trouble(path):
    path.write_bytes(b"")

    assert files.read_text(path, 0) == ""


def test_what_the_kernel_gives_in_portions_is_read_whole(path, monkeypatch):
    real = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: real(descriptor, min(size, 2)))

    assert files.read_text(path, 5) == "café"


def test_text_that_is_not_utf8_is_refused_with_the_place(path):
    path.write_bytes(b"abc\xff")

    with pytest.raises(RequestError, match=r"not UTF-8 text \(byte 3\)"):
        files.read_text(path, 10)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=r"nothing\.here does not exist"):
        files.read_text(tmp_path / "nothing.here", 10)
    with pytest.raises(NotFound):
        files.check_mode(tmp_path / "nothing.here", 0o077)


def test_only_a_regular_file_is_read_and_a_pipe_does_not_hold_us_up(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(StorageFailed, match="not a regular file"):
        files.read_text(tmp_path / "pipe", 10)
    with pytest.raises(StorageFailed, match="is a directory"):
        files.read_text(tmp_path, 10)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_that_no_file_can_have_is_the_askers_fault(tmp_path, name):
    with pytest.raises(RequestError, match="not the path of a file"):
        files.read_text(tmp_path / name, 10)
    with pytest.raises(RequestError, match="not the path of a file"):
        files.replace(tmp_path / name, b"", mode=0o600)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o601, 0o620, 0o666])
def test_a_secret_that_others_may_touch_is_refused_with_the_chmod_to_run(path, mode):
    path.chmod(mode)

    with pytest.raises(InsecurePermissions) as caught:
        files.read_secret(path, 10)

    assert str(caught.value).endswith(
        f"has insecure permissions {mode:04o} (expected 0600); fix with: chmod 600 '{path}'"
    )


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_secret_of_its_owner_alone_is_read(path, mode):
    path.chmod(mode)

    assert files.read_secret(path, 10) == b"caf\xc3\xa9"


def test_the_mode_can_be_checked_by_itself(path):
    files.check_mode(path, 0o027)
    path.chmod(0o644)

    with pytest.raises(InsecurePermissions, match=r"expected 0640\); fix with: chmod 640"):
        files.check_mode(path, 0o027)


def test_the_mode_of_a_file_or_the_one_for_a_new_one(path, tmp_path):
    path.chmod(0o640)

    assert files.mode_of(path, otherwise=0o600) == 0o640
    assert files.mode_of(tmp_path / "new", otherwise=0o600) == 0o600
