"""A start never fails for a bad file of which there is a good copy; and no copy brings a removed peer back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from peerupd import files
from peerupd.control import watching
from peerupd.control.node import Node
from peerupd.control.opening import Opened, open_node, open_relay
from peerupd.frontends.door import ControlDoor
from peerupd.frontends.socket import Place
from peerupd.model import errors
from peerupd.model.names import PeerId
from peerupd.model.snapshots import AuthAdd, AuthRemove, Nothing
from peerupd.trust.authorized_keys import AllowlistFile
from tests.support.fakes import peer_id
from tests.support.nodes import FakeManager, RunningNode, make_node, make_relay, running_node, running_relay, until

BOB, EVE = str(peer_id(7)), str(peer_id(8))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return make_node(tmp_path / "n")


def keys(config) -> Path:
    return config.parent / "authorized_keys"


def copy(config) -> str:
    """The last good copy of the allowlist."""
    return files.copy_of(keys(config)).read_text()


async def good_start(config, *peers: str) -> None:
    """Start once, have these peers authorized, end."""
    async with running_node(config) as running:
        for peer in peers:
            await running.ask.auth_add(AuthAdd(peer))


async def degraded(running: RunningNode, word: str) -> None:
    """The trouble is in the status, in the service manager's line."""
    assert any(word in problem for problem in (await running.ask.status(Nothing())).problems)
    await until("the line", lambda: any(told.startswith("STATUS DEGRADED: ") for told in running.manager.told))


async def mended(running: RunningNode) -> None:
    await until("the end of the trouble", lambda: not running.node.reports.problems())
    await until("the line", lambda: "DEGRADED" not in running.manager.told[-1])


SPOIL: dict[str, Callable[[Path], object]] = {
    "nonsense": lambda file: file.write_text("a: b: ["),
    "two problems": lambda file: file.write_text("version: 1\nnetwork:\n  listen_addresses: [x]\n"),
    "gone": lambda file: file.unlink(),
    "no file": lambda file: (file.unlink(), file.mkdir()),
    "not text": lambda file: file.write_bytes(b"\xff\xfe"),
    "others may write": lambda file: file.chmod(0o666),
}


@pytest.mark.parametrize("way", SPOIL)
async def test_a_bad_config_is_replaced_by_its_copy_until_it_is_mended(
    config, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    await good_start(config, BOB)
    good = config.read_text()
    peer = open_node(config).identity.peer_id
    SPOIL[way](config)
    untouched = {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(config.parent)}
    async with running_node(config) as running:
        assert running.node.host.peer_id == peer
        await degraded(running, "config.yaml")
        assert "start.degraded" in [getattr(record, "peerup", {}).get("event") for record in caplog.records]
        assert [entry.peer_id for entry in await running.ask.auth_list(Nothing())] == [BOB]
        now = {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(config.parent)}
        assert {name: now[name] for name in untouched} == untouched
        assert files.copy_of(config).read_text() == good
        if config.is_dir():
            config.rmdir()
        config.write_text(good.replace("names: {}", f'names:\n  bob: "{BOB}"'))
        config.chmod(0o600)
        os.kill(os.getpid(), signal.SIGHUP)
        await mended(running)
        assert running.node.names.name_of(PeerId.parse(BOB)) == "bob"
        assert files.copy_of(config).read_text() == config.read_text()


@pytest.mark.parametrize("way", ["gone", "no file", "others may read"])
async def test_an_allowlist_that_cannot_be_read_is_replaced_by_its_copy_until_it_is_mended(
    config, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "INTERVAL", 0.02)
    await good_start(config, BOB)
    file = keys(config)
    {**SPOIL, "others may read": lambda file: file.chmod(0o644)}[way](file)
    async with running_node(config) as running:
        await degraded(running, "authorized_keys")
        assert running.node.opened.gate.authorized(PeerId.parse(BOB), 0)
        if way == "no file":
            file.rmdir()
        if way != "others may read":
            file.touch(mode=0o600)
            file.write_text(f"{EVE}\n")
        file.chmod(0o600)
        await mended(running)
        assert copy(config) == file.read_text()


async def test_without_a_copy_the_start_is_refused_as_ever(config) -> None:
    with pytest.raises(errors.NotFound, match="does not exist"):
        keys(config).unlink()
        open_node(config, or_copy=True)
    config.write_text("nonsense: [")
    with pytest.raises(errors.ConfigInvalid):
        open_node(config, or_copy=True)


async def test_a_copy_that_is_bad_too_is_no_copy(config) -> None:
    await good_start(config)
    files.copy_of(config).write_text("nonsense: [")
    config.write_text("version: {")
    with pytest.raises(errors.ConfigInvalid, match=f"^{re.escape(str(config))}: "):
        open_node(config, or_copy=True)


async def test_verbs_without_a_daemon_take_no_copy(config) -> None:
    await good_start(config)
    keys(config).unlink()
    with pytest.raises(errors.NotFound, match="does not exist"):
        open_node(config)


async def test_an_empty_allowlist_is_obeyed_and_so_is_its_copy(config) -> None:
    await good_start(config, BOB)
    keys(config).write_text("")
    async with running_node(config) as running:
        assert await running.ask.auth_list(Nothing()) == ()
        assert (await running.ask.status(Nothing())).problems == ()
    keys(config).unlink()
    assert entries(open_node(config, or_copy=True)) == []


def entries(opened: Opened[Any]) -> list[str]:
    return [str(entry.peer) for entry in opened.gate.allowlist.entries]


async def test_a_file_mended_between_reading_and_watching_is_noticed(config) -> None:
    await good_start(config, BOB)
    keys(config).unlink()
    opened = open_node(config, or_copy=True)
    keys(config).touch(mode=0o600)
    async with trio.open_nursery() as nursery:
        noticed = trio.Event()

        async def then() -> None:
            noticed.set()

        nursery.start_soon(watching.changes, keys(config), opened.allowlist_stamp, then)
        with trio.fail_after(30):
            await noticed.wait()
        nursery.cancel_scope.cancel()


# -- revocation outlives everything --------------------------------------------------------------------------------


async def test_a_removed_peer_is_gone_from_the_copy_in_the_same_step(config) -> None:
    async with running_node(config) as running:
        await running.ask.auth_add(AuthAdd(BOB))
        await running.ask.auth_add(AuthAdd(EVE))
        assert EVE in copy(config)
        await running.ask.auth_remove(AuthRemove(EVE))
        assert copy(config) == keys(config).read_text()
        assert EVE not in copy(config)


async def test_a_peer_taken_out_by_hand_while_we_run_is_gone_from_the_copy(
    config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "INTERVAL", 0.02)
    await good_start(config, BOB, EVE)
    async with running_node(config) as running:
        await trio.sleep(0.05)
        keys(config).write_text(f"{BOB}\n")
        await until("the removal", lambda: len(running.node.authorization.list()) == 1)
        await until("the copy's", lambda: copy(config) == f"{BOB}\n")


async def test_a_peer_taken_out_while_nothing_ran_is_gone_also_when_the_start_then_fails(config) -> None:
    await good_start(config, BOB, EVE)
    keys(config).write_text(f"{BOB}\n")
    config.write_text(config.read_text().replace("127.0.0.1/tcp/0", "192.0.2.1/tcp/1"))
    with pytest.RaisesGroup(errors.PeerupError, flatten_subgroups=True):
        node = Node(open_node(config, or_copy=True))
        await node.run(ControlDoor(Place(config.parent / "s", shared=False)), FakeManager())
    assert copy(config) == f"{BOB}\n"


KILLED = """
import os, sys
from pathlib import Path
from peerupd.control import once
from peerupd.trust.authorized_keys import AllowlistFile
write, left = AllowlistFile.{write}, [{left}]
def last(*words):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), 9)
    write(*words)
AllowlistFile.{write} = last
sys.exit(once.run("{verb}", '{{"peer_id": "{peer}"}}', Path("{config}")))
"""


@pytest.mark.parametrize(("write", "left"), [("keep", 0), ("save", 0), ("keep", 1)])
@pytest.mark.parametrize("verb", ["auth_remove", "auth_add"])
async def test_a_kill_between_the_writes_never_leaves_a_copy_that_gives_more_than_the_file(
    config, verb: str, write: str, left: int
) -> None:
    peer = EVE if verb == "auth_remove" else str(peer_id(9))
    await good_start(config, BOB, EVE)
    script = KILLED.format(write=write, left=left, verb=verb, peer=peer, config=config)
    killed = await trio.to_thread.run_sync(
        lambda: subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=30)
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    in_file = set(entries(open_node(config)))
    keys(config).unlink()
    assert set(entries(open_node(config, or_copy=True))) <= in_file


async def test_a_copy_that_cannot_be_renewed_is_dropped(
    config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await good_start(config, BOB, EVE)
    async with running_node(config) as running:

        def full(*_: object) -> None:
            raise errors.StorageFailed("disk full")

        monkeypatch.setattr(AllowlistFile, "keep", full)
        keys(config).write_text(f"{BOB}\n")
        await running.node.authorization.reload()
        assert not files.copy_of(keys(config)).exists()
        assert "cannot keep the last good copy: disk full" in caplog.text
        with pytest.raises(errors.StorageFailed):
            await running.ask.auth_remove(AuthRemove(BOB))
        assert BOB in keys(config).read_text()


async def test_what_others_could_read_is_not_changed_before_a_person_has_looked(config) -> None:
    """Their additions, or removals, would be lost unseen."""
    async with running_node(config) as running:
        keys(config).chmod(0o644)
        with pytest.raises(errors.InsecurePermissions):
            await running.ask.auth_add(AuthAdd(BOB))


# -- while we run --------------------------------------------------------------------------------------------------


async def test_an_allowlist_that_vanishes_locks_nobody_out_and_a_change_makes_it_anew(
    config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "INTERVAL", 0.02)
    async with running_node(config) as running:
        await running.ask.auth_add(AuthAdd(BOB))
        await trio.sleep(0.1)
        keys(config).unlink()
        await until("the problem", lambda: running.node.reports.problems())
        await degraded(running, "does not exist")
        assert len(running.node.authorization.list()) == 1
        await running.ask.auth_add(AuthAdd(EVE))
        assert [entry.peer_id for entry in await running.ask.auth_list(Nothing())] == [BOB, EVE]
        assert keys(config).read_text() == copy(config)
        assert BOB in copy(config)
        await mended(running)


async def test_a_file_that_is_gone_for_a_moment_is_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    seen: list[int] = []

    async def then() -> None:
        seen.append(int(trio.current_time() - began))

    file = tmp_path / "f"
    file.touch()
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        nursery.start_soon(watching.changes, file, watching.stamp(file), then)
        await trio.sleep(0.5)
        file.unlink()
        await trio.sleep(watching.GONE_FOR - 1)
        file.touch()
        await trio.sleep(1)
        assert len(seen) == 1
        file.chmod(0o644)
        await trio.sleep(1)
        assert len(seen) == 2
        file.unlink()
        await trio.sleep(10)
        assert len(seen) == 3
        nursery.cancel_scope.cancel()


async def test_one_bad_file_does_not_keep_the_other_from_being_read_anew(config) -> None:
    async with running_node(config) as running:
        keys(config).unlink()
        config.write_text(config.read_text().replace("names: {}", f'names:\n  bob: "{BOB}"'))
        with pytest.raises(errors.NotFound):
            await running.node.reload()
        assert running.node.names.name_of(PeerId.parse(BOB)) == "bob"
        config.write_text("nonsense: [")
        with pytest.raises(errors.ConfigInvalid):
            await running.node.reload()
        assert len(running.node.reports.problems()) == 2
        assert "\n" not in running.node.reports.in_a_line()


# -- relays --------------------------------------------------------------------------------------------------------


async def test_a_relay_starts_on_its_copies_says_so_and_is_mended(tmp_path: Path) -> None:
    config = make_relay(tmp_path / "r")
    async with running_relay(config) as running:
        await running.node.authorization.add(PeerId.parse(BOB))
    good, allowlist = config.read_text(), tmp_path / "r" / "relay_authorized_keys"
    config.write_text("nonsense: [")
    allowlist.unlink()
    with pytest.raises(errors.ConfigInvalid):
        open_relay(config)
    async with running_relay(config) as running:
        await until("the line", lambda: any(told.startswith("STATUS DEGRADED") for told in running.manager.told))
        assert [entry.peer_id for entry in running.node.authorization.list()] == [BOB]
        assert len(running.node.problems()) == 2
        with pytest.raises(errors.ConfigInvalid):
            await running.node.reload()
        config.write_text(good + "\n# mended\n")
        allowlist.touch(mode=0o600)
        await running.node.reload()
        assert running.node.problems() == ()
        assert running.node.authorization.list() == ()
        assert files.copy_of(config).read_text() == config.read_text()
        assert "restart" not in running.manager.told[-1]
        config.write_text(good + "resources:\n  max_reservations: 3\n")
        await running.node.reload()
        await until("the hint", lambda: "restart to use the changed" in running.manager.told[-1])


async def test_a_fresh_relay_keeps_no_copy_of_what_was_given_up(tmp_path: Path) -> None:
    from peerupd.control.founding import relay_setup
    from peerupd.model.snapshots import RelaySetup

    config = make_relay(tmp_path / "r")
    async with running_relay(config) as running:
        await running.node.authorization.add(PeerId.parse(BOB))
    relay_setup(RelaySetup(directory=str(tmp_path / "r"), address="127.0.0.1", fresh=True))
    assert not list((tmp_path / "r").glob(".*"))


def test_a_node_whose_config_is_gone_starts_as_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peerupd import main

    config = make_node(tmp_path)
    trio.run(good_start, config)
    config.unlink()
    started: list[Any] = []
    monkeypatch.setattr(main, "_run", started.append)
    monkeypatch.setattr(main.logs, "configure", lambda level: None)
    assert main.main(["--config", str(config)]) == 0
    assert len(started) == 1
    assert main.main(["--config", str(tmp_path / "never.yaml")]) == 2
