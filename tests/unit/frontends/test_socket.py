"""The control socket: its place, its rights, and how a dead one is told from a live one."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from peerupd.frontends import socket as door
from peerupd.frontends.socket import ControlSocket, Place, place
from peerupd.model.errors import DaemonAlreadyRunning, StorageFailed

HOME = Path("/home/ann")


def mode(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_the_users_socket_does_not_depend_on_the_configuration() -> None:
    for config in ("/home/ann/peerup.yaml", "/srv/x/config.yaml", "/etc/peerup/networks/a/config.yaml"):
        where = place(Path(config), HOME)
        assert where == Place(HOME / ".config/peerup/peerup.sock", shared=False)
        assert where.cookie == HOME / ".config/peerup/.daemon-cookie"


def test_the_systems_socket_is_shared_with_its_group() -> None:
    assert place(Path("/etc/peerup/config.yaml"), HOME) == Place(Path("/run/peerup/peerup.sock"), shared=True)
    assert place(Path("/x.yaml"), HOME, Path("/run/peerup/peerup.sock")).shared


def test_a_given_place_wins() -> None:
    assert place(Path("/etc/peerup/config.yaml"), HOME, Path("/tmp/s")) == Place(Path("/tmp/s"), shared=False)


@pytest.mark.parametrize(("shared", "socket_mode", "cookie_mode"), [(False, 0o600, 0o600), (True, 0o660, 0o640)])
async def test_socket_and_cookie_have_their_modes_whatever_the_umask(
    tmp_path: Path, shared: bool, socket_mode: int, cookie_mode: int
) -> None:
    before = os.umask(0)
    try:
        control = await ControlSocket.open(Place(tmp_path / "new" / "s", shared=shared))
    finally:
        os.umask(before)
    assert mode(control.place.socket) == socket_mode
    assert mode(control.place.cookie) == cookie_mode
    assert mode(tmp_path / "new") == (0o755 if shared else 0o700)
    assert control.group == (os.stat(control.place.socket).st_gid if shared else None)
    assert len(control.place.cookie.read_text()) == len(control.cookie) == 64
    control.close()
    assert list((tmp_path / "new").iterdir()) == []


async def test_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    where = Place(tmp_path / "s", shared=False)
    first = await ControlSocket.open(where)
    with pytest.raises(DaemonAlreadyRunning, match="already in use"):
        await ControlSocket.open(where)
    assert where.cookie.read_text() == first.cookie
    assert await first.answers()
    first.close()


async def test_a_socket_whose_backlog_is_full_counts_as_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "BACKLOG", 0)
    where = Place(tmp_path / "s", shared=False)
    first = await ControlSocket.open(where)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for each in waiting:
        each.setblocking(False)
        try:
            each.connect(str(where.socket))
        except BlockingIOError:
            break
    with pytest.raises(DaemonAlreadyRunning):
        await ControlSocket.open(where)
    for each in waiting:
        each.close()
    first.close()


async def test_a_stale_socket_is_replaced_and_the_cookie_is_a_new_one(tmp_path: Path) -> None:
    where = Place(tmp_path / "s", shared=False)
    first = await ControlSocket.open(where)
    first.listener.socket.close()  # a crash: nobody listens, the file stays
    assert not await first.answers()
    second = await ControlSocket.open(where)
    assert second.cookie != first.cookie
    first.close()  # what is no longer ours is not removed
    assert where.socket.exists()
    second.close()


async def test_something_else_in_the_sockets_place_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(StorageFailed, match="not a socket"):
        await ControlSocket.open(Place(tmp_path / "s", shared=False))
    assert (tmp_path / "s").read_text() == "precious"


async def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="cannot make the control socket"):
        await ControlSocket.open(Place(tmp_path / "file" / "s", shared=False))


async def test_a_socket_that_cannot_be_bound_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "chmod", full)
    with pytest.raises(StorageFailed, match="No space left"):
        await ControlSocket.open(Place(tmp_path / "s", shared=False))
    assert os.listdir(tmp_path) == []


async def test_a_deep_folder_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["deep" * 10] * 4)
    control = await ControlSocket.open(Place(folder / "peerup.sock", shared=False))
    assert len(str(control.place.socket)) > 108
    assert await control.answers()
    control.close()


async def test_a_socket_that_somebody_removed_does_not_answer(tmp_path: Path) -> None:
    control = await ControlSocket.open(Place(tmp_path / "s", shared=False))
    control.place.socket.unlink()
    assert not await control.answers()
    control.close()
    await trio.lowlevel.checkpoint()
