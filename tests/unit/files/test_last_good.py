import os
import stat

import pytest

from peerupd import files
from peerupd.model.errors import StorageFailed


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("config.yaml", ".config.last-good.yaml"),
        ("authorized_keys", ".authorized_keys.last-good"),
        ("relay-server.yaml", ".relay-server.last-good.yaml"),
    ],
)
def test_the_copy_has_the_predecessors_name(tmp_path, name, copy):
    assert files.copy_of(tmp_path / name) == tmp_path / copy


def test_a_copy_is_for_its_owner_alone_and_written_only_when_it_is_another(tmp_path):
    path = tmp_path / "config.yaml"
    files.keep_copy(path, b"one")
    copy = files.copy_of(path)
    assert (copy.read_bytes(), stat.S_IMODE(copy.stat().st_mode)) == (b"one", 0o600)
    inode = copy.stat().st_ino
    files.keep_copy(path, b"one")
    assert copy.stat().st_ino == inode
    for data in (b"longer", b"else", b""):
        files.keep_copy(path, data)
        assert copy.read_bytes() == data
    assert not path.exists()


def test_a_copy_that_others_may_read_is_made_anew(tmp_path):
    path = tmp_path / "config.yaml"
    files.keep_copy(path, b"one")
    files.copy_of(path).chmod(0o644)
    files.keep_copy(path, b"one")
    assert stat.S_IMODE(files.copy_of(path).stat().st_mode) == 0o600


def test_a_copy_can_be_dropped_and_nothing_is_dropped_twice(tmp_path):
    path = tmp_path / "config.yaml"
    files.keep_copy(path, b"one")
    files.drop_copy(path)
    files.drop_copy(path)
    assert os.listdir(tmp_path) == []
    files.copy_of(path).mkdir()
    with pytest.raises(StorageFailed):
        files.drop_copy(path)
