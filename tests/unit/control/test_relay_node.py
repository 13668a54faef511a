"""A whole relay server in this process."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import trio

from peerupd.control import health
from peerupd.control.opening import open_relay
from peerupd.control.relay_node import limits
from peerupd.model import errors
from peerupd.wire.circuit import HOP_PROTOCOL
from tests.support.fakes import peer_id
from tests.support.nodes import make_relay, running_relay, until

INVITER, JOINER = peer_id(5), peer_id(6)


async def test_a_relay_is_ready_says_how_it_is_and_leaves_nothing_behind(tmp_path: Path) -> None:
    config = make_relay(tmp_path / "r")
    async with running_relay(config, interval=0.06) as running:
        assert "Private relay running." in running.said
        assert f"Peer ID: {running.node.host.peer_id}" in running.said
        await until("two beats", lambda: running.manager.beats >= 2)
        assert running.manager.told[:2] == ["READY", "STATUS 0 peers connected, 0 reservations, 0 circuits"]
    assert running.manager.told[-1] == "STOPPING"
    assert running.said[-1] == "Relay stopped."
    assert sorted(os.listdir(config.parent)) == [
        ".relay.last-good.yaml",
        ".relay_authorized_keys.last-good",
        "relay.yaml",
        "relay_authorized_keys",
        "relay_node.key",
    ]


async def test_two_relays_with_one_identity_are_refused(tmp_path: Path) -> None:
    config = make_relay(tmp_path / "r")
    async with running_relay(config):
        with pytest.RaisesGroup(errors.DaemonAlreadyRunning, flatten_subgroups=True):
            async with running_relay(config):
                pass


async def test_without_the_hop_handler_the_watchdog_is_not_fed(tmp_path: Path) -> None:
    async with running_relay(make_relay(tmp_path / "r")) as running:
        assert await health.failing(running.node.checks()) == []
        assert HOP_PROTOCOL in running.node.host._serving.protocols
        running.node._serving = False
        assert await health.failing(running.node.checks()) == ["hop handler"]


async def test_healthz_is_served_when_it_is_enabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_relay(tmp_path / "r")
    config.write_text(config.read_text() + 'health:\n  enabled: true\n  listen_address: "127.0.0.1:0"\n')
    asked: list[int] = []
    listen = trio.open_tcp_listeners

    async def remember(port: int, *, host: str) -> object:
        listeners = await listen(port, host=host)
        asked.append(listeners[0].socket.getsockname()[1])
        return listeners

    monkeypatch.setattr(trio, "open_tcp_listeners", remember)
    async with running_relay(config), await trio.open_tcp_stream("127.0.0.1", asked[0]) as stream:
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b"".join([bytes(data) async for data in stream])
    figures = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert figures == {"connected_peers": 0, "status": "ok", "uptime_seconds": 0}


async def test_a_kept_joiner_can_be_withdrawn_by_its_inviter_only(tmp_path: Path) -> None:
    config = make_relay(tmp_path / "r")
    async with running_relay(config) as running:
        await running.node._keep(INVITER, JOINER, "laptop")
        entry = running.node.authorization.list()[0]
        assert (entry.peer_id, entry.comment, entry.vouched_by) == (str(JOINER), "laptop", str(INVITER))
        await running.node._withdraw(peer_id(7), JOINER)
        assert len(running.node.authorization.list()) == 1
        await running.node._withdraw(INVITER, JOINER)
        assert running.node.authorization.list() == ()
        with pytest.raises(errors.UnknownPeer):
            await running.node._withdraw(INVITER, JOINER)


async def test_a_relay_without_a_gate_says_so(tmp_path: Path) -> None:
    config = make_relay(tmp_path / "r")
    config.write_text(re.sub("gating: true", "gating: false", config.read_text()))
    async with running_relay(config) as running:
        assert any("DISABLED" in line for line in running.said)
        await running.node.reload()


def test_the_limits_are_those_of_the_configuration(tmp_path: Path) -> None:
    config = make_relay(tmp_path / "r")
    config.write_text(config.read_text() + 'resources:\n  max_reservations: 3\n  session_data_limit: "1MB"\n')
    found = limits(open_relay(config).settings)
    assert (found.max_reservations, found.session_data_limit, found.session_duration) == (3, 1 << 20, None)
