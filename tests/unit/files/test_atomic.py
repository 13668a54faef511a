import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peerupd import files
from peerupd.model.errors import AlreadyExists, StorageFailed

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes files of other users")


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def names_in(folder):
    return sorted(os.listdir(folder))


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    return path


@given(data=st.binary(max_size=3000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_a_file_holds_exactly_what_was_put_there(tmp_path, data):
    files.replace(tmp_path / "file", data, mode=0o600)

    assert (tmp_path / "file").read_bytes() == data
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_the_mode_is_the_one_asked_for_whatever_the_umask(old, mode, umask):
    before = os.umask(umask)
    try:
        files.replace(old, b"new", mode=mode)
        files.create(old.with_name("other"), b"new", mode=mode)
    finally:
        os.umask(before)

    assert mode_of(old) == mode_of(old.with_name("other")) == mode


def test_a_reader_keeps_the_old_file_whole(old):
    with old.open("rb") as reader:
        files.replace(old, b"new and longer", mode=0o600)

        assert reader.read() == b"old"


def test_a_file_written_in_portions_is_whole(old, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:2]))

    files.replace(old, b"longer than two", mode=0o600)

    assert old.read_bytes() == b"longer than two"


def test_the_content_is_on_the_disk_before_it_gets_its_name_and_the_name_after(old, monkeypatch):
    done = []
    for name in ("fsync", "rename"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _real=real, _name=name, **k: (done.append(_name), _real(*a, **k)))

    files.replace(old, b"new", mode=0o600)

    assert done == ["fsync", "rename", "fsync"]


def failing(number, *, after=0):
    left = [after]

    def fail(*args, **kwargs):
        if left[0]:
            left[0] -= 1
            return len(args[1]) if len(args) > 1 else None
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "fchmod", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
def test_whatever_fails_the_old_file_stays_whole_and_nothing_is_left_behind(old, monkeypatch, call, number):
    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing(number))
        with pytest.raises(StorageFailed) as caught:
            files.replace(old, b"new", mode=0o600)

    words = os.strerror(number)
    assert caught.value.message == f"cannot write {old}: {words[0].lower()}{words[1:]}; nothing was changed"
    assert old.read_bytes() == b"old"
    assert mode_of(old) == 0o640
    assert names_in(old.parent) == ["file"]


def test_a_full_disk_says_what_to_do(old, monkeypatch):
    monkeypatch.setattr(os, "write", failing(errno.ENOSPC))

    with pytest.raises(StorageFailed, match="no space left on device; nothing was changed; make room and try again"):
        files.replace(old, b"new", mode=0o600)


def test_an_interrupt_leaves_nothing_behind(old, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.replace(old, b"new", mode=0o600)

    assert old.read_bytes() == b"old"
    assert names_in(old.parent) == ["file"]


def test_a_folder_that_cannot_be_synced_is_said_as_it_is(old, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(errno.EIO, after=1))

    with pytest.raises(StorageFailed, match="is written, but its folder could not be synced: input/output error"):
        files.replace(old, b"new", mode=0o600)

    assert old.read_bytes() == b"new"


def test_a_missing_folder_is_said_with_the_path(tmp_path):
    for write in (files.replace, files.create):
        with pytest.raises(StorageFailed, match="no/file: no such file or directory"):
            write(tmp_path / "no" / "file", b"", mode=0o600)


@pytest.mark.lab
def test_a_really_full_disk_leaves_the_old_file_whole(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "peerup-test", tmp_path], check=True)
    try:
        files.create(tmp_path / "file", b"old", mode=0o600)
        with pytest.raises(StorageFailed, match="no space left on device; nothing was changed"):
            files.replace(tmp_path / "file", bytes(1 << 20), mode=0o600)
        assert (tmp_path / "file").read_bytes() == b"old"
        assert names_in(tmp_path) == ["file"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# -- create --------------------------------------------------------------------------------------------------------


def test_a_new_file_is_created_once(tmp_path):
    files.create(tmp_path / "file", b"first", mode=0o600)

    with pytest.raises(AlreadyExists, match="exists already; it is left as it is"):
        files.create(tmp_path / "file", b"second", mode=0o600)

    assert (tmp_path / "file").read_bytes() == b"first"
    assert mode_of(tmp_path / "file") == 0o600
    assert names_in(tmp_path) == ["file"]


def test_a_dangling_link_is_something_that_exists(tmp_path):
    (tmp_path / "file").symlink_to("nowhere")

    with pytest.raises(AlreadyExists):
        files.create(tmp_path / "file", b"", mode=0o600)


def test_a_folder_is_made_for_its_owner_alone(tmp_path):
    files.make_folder(tmp_path / "a" / "b")
    files.make_folder(tmp_path / "a" / "b")

    assert mode_of(tmp_path / "a" / "b") == 0o700


def test_a_folder_in_a_files_place_cannot_be_made(old):
    with pytest.raises(StorageFailed, match="file exists"):
        files.make_folder(old)


# -- symbolic links ------------------------------------------------------------------------------------------------


def test_a_symbolic_link_stays_and_what_it_points_to_is_replaced(old, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to("../file")

    files.replace(link, b"new", mode=0o600)

    assert link.is_symlink()
    assert old.read_bytes() == b"new"
    assert names_in(link.parent) == ["link"]


def test_a_dangling_link_is_filled(tmp_path):
    (tmp_path / "link").symlink_to("target")

    files.replace(tmp_path / "link", b"new", mode=0o600)

    assert (tmp_path / "target").read_bytes() == b"new"


def test_another_users_link_to_a_file_of_ours_is_not_followed(old, tmp_path, monkeypatch):
    link = tmp_path / "link"
    link.symlink_to("file")
    mode, inode, device, links, _uid, *rest = os.lstat(link)
    monkeypatch.setattr(Path, "lstat", lambda _: os.stat_result((mode, inode, device, links, os.geteuid() + 1, *rest)))

    with pytest.raises(StorageFailed, match="a symbolic link of another user is not followed"):
        files.replace(link, b"new", mode=0o600)

    assert old.read_bytes() == b"old"


@as_root
def test_another_users_link_to_a_file_of_his_own_is_followed(old, tmp_path):
    link = tmp_path / "link"
    link.symlink_to("file")
    os.lchown(link, NOBODY, NOBODY)
    os.chown(old, NOBODY, NOBODY)

    files.replace(link, b"new", mode=0o600)

    assert old.read_bytes() == b"new"
    assert (old.stat().st_uid, old.stat().st_gid) == (NOBODY, NOBODY)


# -- owners --------------------------------------------------------------------------------------------------------


@as_root
def test_root_keeps_the_owner_of_what_it_replaces(old):
    os.chown(old, NOBODY, 12345)

    files.replace(old, b"new", mode=0o640)

    assert (old.stat().st_uid, old.stat().st_gid, mode_of(old)) == (NOBODY, 12345, 0o640)


@as_root
def test_root_gives_a_new_file_to_the_owner_of_its_folder(tmp_path):
    os.chown(tmp_path, NOBODY, 12345)

    files.create(tmp_path / "file", b"", mode=0o600)

    status = (tmp_path / "file").stat()
    assert (status.st_uid, status.st_gid) == (NOBODY, 12345)


def test_who_gets_the_file_is_decided_by_who_writes_it(old, monkeypatch):
    given_to = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _, *owner: given_to.append(owner))

    files.replace(old, b"new", mode=0o640)
    files.create(old.with_name("new"), b"new", mode=0o640)

    folder = old.parent.stat()
    assert given_to == [(old.stat().st_uid, old.stat().st_gid), (folder.st_uid, folder.st_gid)]


def test_a_plain_user_keeps_the_group_where_it_may(old, monkeypatch):
    given_to = []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "fchown", lambda _, *owner: given_to.append(owner))

    files.replace(old, b"new", mode=0o640)
    files.create(old.with_name("new"), b"new", mode=0o640)

    assert given_to == [(-1, old.stat().st_gid), (-1, -1)]


def test_a_group_that_cannot_be_kept_is_no_reason_to_fail(old, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "fchown", failing(errno.EPERM))

    files.replace(old, b"new", mode=0o640)

    assert old.read_bytes() == b"new"


def test_an_error_without_a_number_is_told_in_its_own_words(old, monkeypatch):
    def fail(*_):
        raise OSError("Strange trouble")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(StorageFailed, match="strange trouble; nothing was changed"):
        files.replace(old, b"new", mode=0o640)
