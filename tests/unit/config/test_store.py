"""The configuration file: found, read, changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from peerupd import files
from peerupd.config import store
from peerupd.config.edits import Append, Drop, Put, Remove
from peerupd.config.store import ConfigFile, find_config, find_relay_config
from peerupd.config.templates import node_template, relay_template
from peerupd.model.errors import (
    ConfigInvalid,
    ConfigNotFound,
    Conflict,
    InsecurePermissions,
    RequestError,
    StorageFailed,
)
from peerupd.model.names import PeerId

HOME = "12D3KooWPrmh163sTHW3mYQm7YsLsSR2wr71fPp4g6yjuGv3sGQt"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A working directory, a home and a system, all empty."""
    monkeypatch.setattr(store, "SYSTEM_CONFIG", tmp_path / "etc" / "config.yaml")
    monkeypatch.setattr(store, "SYSTEM_RELAY_CONFIG", tmp_path / "etc" / "relay.yaml")
    for folder in ("cwd", "home/.config/peerup", "etc"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    files.create(path, node_template().encode(), mode=0o644)
    return ConfigFile(path)


def found(places: Path, *, is_root: bool = False, home: bool = True) -> Path:
    return find_config(None, cwd=places / "cwd", home=places / "home" if home else None, is_root=is_root)


# -- where ---------------------------------------------------------------------------------------------------------


def test_the_first_config_that_exists_is_taken(places):
    here, home, system = (
        places / "cwd/peerup.yaml",
        places / "home/.config/peerup/config.yaml",
        places / "etc/config.yaml",
    )
    for path in (system, home, here):
        path.touch()
        assert found(places) == path


def test_root_takes_no_config_from_the_working_directory(places):
    (places / "cwd/peerup.yaml").touch()
    (places / "etc/config.yaml").touch()
    assert found(places, is_root=True) == places / "etc/config.yaml"


@pytest.mark.parametrize(("mode", "taken"), [(0o700, "cwd/relay-server.yaml"), (0o777, "etc/relay.yaml")])
def test_root_takes_a_relays_config_from_the_working_directory_where_only_root_can_write(places, mode, taken):
    (places / "cwd/relay-server.yaml").touch(mode=0o600)
    (places / "etc/relay.yaml").touch()
    (places / "cwd").chmod(mode)
    assert find_relay_config(None, cwd=places / "cwd", is_root=True) == places / taken
    assert find_relay_config(None, cwd=places / "cwd", is_root=False) == places / "cwd/relay-server.yaml"


def test_a_user_without_a_home_has_no_config_there(places):
    (places / "home/.config/peerup/config.yaml").touch()
    with pytest.raises(ConfigNotFound):
        found(places, home=False)


def test_the_explicit_config_must_exist(places):
    (places / "etc/config.yaml").touch()
    explicit = places / "mine.yaml"
    with pytest.raises(ConfigNotFound, match=f"^config file not found: {explicit}$"):
        find_config(explicit, cwd=places, home=None, is_root=False)
    explicit.touch()
    assert find_config(explicit, cwd=places, home=None, is_root=True) == explicit


def test_where_no_config_is_the_places_are_named_and_the_command_that_makes_one(places):
    with pytest.raises(ConfigNotFound) as caught:
        found(places)
    here, home, system = (
        places / "cwd/peerup.yaml",
        places / "home/.config/peerup/config.yaml",
        places / "etc/config.yaml",
    )
    assert str(caught.value) == (f"no config file found (searched: {here}, {home}, {system}); make one: peerupctl init")
    with pytest.raises(ConfigNotFound, match="make one: peerupctl relay setup"):
        find_relay_config(None, cwd=places, is_root=True)


# -- reading -------------------------------------------------------------------------------------------------------


def test_settings_are_relative_to_the_file(config):
    parsed = config.load_node(strict=True)
    assert parsed.settings.identity_key_file == config.path.parent / "identity.key"
    assert parsed.warnings == ()


def test_a_relay_config_is_read_as_one(tmp_path):
    path = tmp_path / "relay.yaml"
    files.create(path, relay_template().encode(), mode=0o600)
    assert ConfigFile(path).load_relay(strict=True).settings.identity_key_file == tmp_path / "relay_node.key"


def test_a_config_that_is_gone_is_not_found(tmp_path):
    with pytest.raises(ConfigNotFound, match="config file not found"):
        ConfigFile(tmp_path / "config.yaml").load_node()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o444])
def test_a_config_may_be_read_by_all(config, mode):
    config.path.chmod(mode)
    config.load_node()


@pytest.mark.parametrize("mode", [0o660, 0o602, 0o666])
def test_a_config_that_others_may_write_is_refused_with_the_chmod_to_run(config, mode):
    config.path.chmod(mode)
    for attempt in (config.load_node, config.load_relay, lambda: config.edit(Put(("log_level",), "debug"))):
        with pytest.raises(InsecurePermissions, match=r"chmod 6[04][04] "):
            attempt()


def test_problems_are_told_with_the_path(config):
    config.path.write_text("identity: {}\nsecurity: {}\nlog_level: loud\n")
    with pytest.raises(ConfigInvalid) as caught:
        config.load_node()
    assert caught.value.message.startswith(
        f"{config.path}: the configuration has 3 problems:\n  line 1: identity.key_file"
    )
    assert len(caught.value.problems) == 3
    with pytest.raises(ConfigInvalid, match=f"^{config.path}: "):
        config.load_relay()


def test_a_config_of_a_newer_version_is_told_with_path_and_advice(config):
    config.path.write_text("version: 3\n")
    with pytest.raises(ConfigInvalid) as caught:
        config.load_node()
    assert str(caught.value) == (
        f"{config.path}: config version too new: version 3 is newer than supported version 1; please upgrade peerup"
    )


@pytest.mark.parametrize("content", [b"#" * 300_000, b"\xff\xfe"])
def test_a_file_that_is_no_text_of_ours_is_refused(config, content):
    config.path.write_bytes(content)
    with pytest.raises(RequestError, match=str(config.path)):
        config.load_node()


# -- changing ------------------------------------------------------------------------------------------------------


def test_an_edit_keeps_comments_and_mode_and_is_in_force(config):
    config.path.chmod(0o640)
    before = config.path.read_text()
    config.edit(
        Put(("names", "home"), HOME),
        Append(("relay", "addresses"), f"/ip4/203.0.113.50/tcp/7777/p2p/{HOME}"),
        Put(("services", "ssh"), {"enabled": True, "local_address": "localhost:22"}),
        Append(("proxies",), {"peer": "home", "service": "ssh", "listen": "127.0.0.1:2222"}),
    )
    settings = config.load_node(strict=True).settings
    assert settings.names == {"home": PeerId.parse(HOME)}
    assert (len(settings.relays), settings.services["ssh"].enabled, settings.proxies[0].peer) == (1, True, "home")
    after = config.path.read_text()
    assert [line for line in before.splitlines() if "#" in line] == [line for line in after.splitlines() if "#" in line]
    assert stat.S_IMODE(config.path.stat().st_mode) == 0o640

    config.edit(
        Remove(("names", "home")),
        Drop(("relay", "addresses"), f"/ip4/203.0.113.50/tcp/7777/p2p/{HOME}"),
        Remove(("services", "ssh")),
        Drop(("proxies",), settings.proxies[0].written),
    )
    assert config.path.read_text() == before


def test_an_edit_that_changes_nothing_does_not_touch_the_file(config):
    before = config.path.stat().st_ino
    config.edit(Put(("version",), 1), Remove(("names", "nobody")))
    assert config.path.stat().st_ino == before


def test_an_edit_that_would_make_it_invalid_changes_nothing(config):
    before = config.path.read_bytes()
    with pytest.raises(ConfigInvalid, match=r"services\.ssh\.local_address: wanted"):
        config.edit(Put(("names", "home"), HOME), Put(("services", "ssh"), {"local_address": "nowhere"}))
    assert config.path.read_bytes() == before


def test_a_layout_that_is_not_known_is_told_with_the_path(config):
    config.path.write_text(config.path.read_text().replace("names: {}", "names: |\n  x"))
    before = config.path.read_bytes()
    with pytest.raises(Conflict) as caught:
        config.edit(Put(("names", "home"), HOME))
    assert str(caught.value).startswith(f"{config.path}: cannot change names.home")
    assert str(caught.value).endswith("; edit names.home by hand")
    assert config.path.read_bytes() == before


def test_a_disk_that_is_full_leaves_the_file_whole(config, monkeypatch):
    before = config.path.read_bytes()

    def full(*_args: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageFailed):
        config.edit(Put(("names", "home"), HOME))
    monkeypatch.undo()
    assert config.path.read_bytes() == before
    assert list(config.path.parent.iterdir()) == [config.path]


# -- the last good copy --------------------------------------------------------------------------------------------


def test_what_was_read_is_kept_as_the_last_good_copy_byte_for_byte(config):
    config.path.write_text("# höme\n" + config.path.read_text())
    config.keep(config.load_node())
    assert files.copy_of(config.path).read_bytes() == config.path.read_bytes()
    assert ConfigFile(files.copy_of(config.path)).load_node() == config.load_node()


def test_a_config_that_is_gone_is_found_by_its_copy_only_where_that_is_wanted_and_no_other_one_exists(places):
    home = places / "home/.config/peerup/config.yaml"
    files.keep_copy(home, b"")
    with pytest.raises(ConfigNotFound):
        found(places)
    wanted = {"cwd": places / "cwd", "home": places / "home", "is_root": False, "or_copy": True}
    assert find_config(None, **wanted) == home
    assert find_config(home, **wanted) == home
    with pytest.raises(ConfigNotFound, match="config file not found"):
        find_config(places / "never.yaml", **wanted)
    (places / "etc/config.yaml").touch()
    assert find_config(None, **wanted) == places / "etc/config.yaml"
    relay = places / "etc/relay.yaml"
    files.keep_copy(relay, b"")
    assert find_relay_config(None, cwd=places, is_root=True, or_copy=True) == relay
