"""From files to what a node starts with."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from peerupd.control import opening
from peerupd.control.opening import bindable, open_node
from peerupd.model import errors
from peerupd.model.addresses import Multiaddr
from tests.support.nodes import make_node


def test_a_missing_identity_is_made_and_an_unreadable_one_is_left_alone(tmp_path: Path) -> None:
    config = make_node(tmp_path)
    key = tmp_path / "identity.key"
    key.unlink()
    made = open_node(config).identity.peer_id
    assert open_node(config).identity.peer_id == made
    key.write_bytes(b"spoilt")
    with pytest.raises(errors.InvalidKeyFile):
        open_node(config)
    assert key.read_bytes() == b"spoilt"


def test_a_missing_allowlist_is_refused_with_the_way_to_make_one(tmp_path: Path) -> None:
    config = make_node(tmp_path)
    (tmp_path / "authorized_keys").unlink()
    with pytest.raises(errors.NotFound, match="does not exist, and connection gating is on") as why:
        open_node(config)
    assert "install -m 600 /dev/null" in why.value.hint


def test_an_allowlist_that_others_can_read_is_refused_with_the_chmod(tmp_path: Path) -> None:
    config = make_node(tmp_path)
    (tmp_path / "authorized_keys").chmod(0o644)
    with pytest.raises(errors.InsecurePermissions, match="0644") as why:
        open_node(config)
    assert "chmod" in why.value.hint


def test_without_ipv6_in_the_kernel_its_addresses_are_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    addresses = [Multiaddr.parse("/ip4/0.0.0.0/tcp/0"), Multiaddr.parse("/ip6/::/tcp/0")]

    def none(*_: object) -> None:
        raise OSError("Address family not supported by protocol")

    monkeypatch.setattr(opening.socket, "socket", none)
    assert bindable(addresses) == (addresses[0],)
    assert "no IPv6" in caplog.text
    monkeypatch.undo()
    if socket.has_ipv6:
        assert bindable(addresses) == tuple(addresses)
