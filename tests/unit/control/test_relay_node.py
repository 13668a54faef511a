"""A whole relay server in this process."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
import trio

from peerupd.control import health, reservation_file
from peerupd.control.opening import open_relay
from peerupd.control.relay_node import limits, rates
from peerupd.model import errors
from peerupd.model.counters import CIRCUIT_BYTES, CIRCUITS_ACTIVE, MEMORY_LIMIT, RESERVATIONS_ACTIVE
from peerupd.p2p import networks
from peerupd.p2p.delimited import receive_message, send_message
from peerupd.p2p.rates import Rates
from peerupd.p2p.relay_state import Kept
from peerupd.wire.circuit import HOP_PROTOCOL, MAX_MESSAGE, HopKind, HopMessage, Status
from tests.support.fakes import peer_id
from tests.support.nodes import make_relay, running_relay, until
from tests.support.relaynet import Machine

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
    assert found.max_reservations_per_asn == 32


def test_the_rates_are_those_of_the_configuration(tmp_path: Path) -> None:
    config = make_relay(tmp_path / "r")
    text = config.read_text() + "resources: {max_circuits: 3}\n"
    config.write_text(text)
    assert limits(open_relay(config).settings).max_circuits == 3
    config.write_text(
        text + "rates: {circuits_per_peer: 5, bytes_per_second: 1MB, connection_burst: 2, connection_interval: 1s}\n"
    )
    settings = open_relay(config).settings
    assert (limits(settings).max_circuits, limits(settings).bytes_per_second) == (5, 1 << 20)
    assert rates(settings.rates) == Rates(2, 1.0, 2000)


async def test_what_it_holds_and_carried_can_be_read(tmp_path: Path) -> None:
    async with running_relay(make_relay(tmp_path / "r")) as running:
        running.node.server._gate.enabled = False
        running.node.server.restore([Kept(INVITER, int(time.time()) + 900, None)])
        found = {count.name: count.value for count in running.node.gauges.read()}
    assert (found[RESERVATIONS_ACTIVE], found[CIRCUITS_ACTIVE], found[CIRCUIT_BYTES]) == (1, 0, 0)
    assert found[MEMORY_LIMIT] > 0


# -- over a restart ------------------------------------------------------------------------------------------------


def keeping(folder: Path) -> Path:
    """A relay that keeps its reservations; its configuration."""
    config = make_relay(folder)
    config.write_text(config.read_text() + "resources: {keep_reservations: true}\n")
    (folder / "relay_authorized_keys").write_text(f"{INVITER}\n{JOINER}\n")
    return config


def file_of(config: Path) -> Path:
    return config.parent / "relay_node.key.reservations"


async def test_reservations_outlive_a_restart_when_that_is_asked_for(tmp_path: Path) -> None:
    config = keeping(tmp_path / "r")
    async with running_relay(config) as running:
        running.node.server.restore([Kept(INVITER, int(time.time()) + 900, "203.0.113.7")])
    assert file_of(config).stat().st_mode & 0o777 == 0o600
    assert str(INVITER) in file_of(config).read_text()
    async with running_relay(config) as running:
        assert running.node.server.reservations == (INVITER,)
        assert running.node.problems() == ()
        (kept,) = running.node.server.kept()
        assert (kept.place, kept.until) == ("203.0.113.7", pytest.approx(time.time() + 900, abs=30))


async def test_goodbyes_at_the_end_do_not_cost_the_reservations(tmp_path: Path, nursery: trio.Nursery) -> None:
    config = keeping(tmp_path / "r")
    async with running_relay(config) as running:
        relay = running.node.host
        home = Machine(None, "node")
        running.node.opened.gate.replace(running.node.opened.gate.allowlist.add(home.peer))
        await nursery.start(home.run)
        connection = await home.host.connect(relay.peer_id, relay.listen_addresses())
        stream = await connection.open_stream([HOP_PROTOCOL])
        await send_message(stream, HopMessage(HopKind.RESERVE).encode())
        assert HopMessage.decode(await receive_message(stream, MAX_MESSAGE)).status is Status.OK
    assert str(home.peer) in file_of(config).read_text()


async def test_a_change_is_written_a_little_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservation_file, "GATHER", 0.01)
    monkeypatch.setattr(reservation_file, "PAUSE", 0.01)
    config = keeping(tmp_path / "r")
    async with running_relay(config) as running:
        server = running.node.server
        server.restore([Kept(INVITER, int(time.time()) + 900, None)])
        server.on_reservations()
        await until("it is written", lambda: file_of(config).exists() and str(INVITER) in file_of(config).read_text())
        server._end(INVITER)
        await until("it is written again", lambda: str(INVITER) not in file_of(config).read_text())


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"\0garbage", 0o600, "in its first line"),
        (b"peerup relay reservations 1\nwhat?\n", 0o600, "1 of its lines cannot be read"),
        (b"peerup relay reservations 1\n", 0o644, "insecure permissions"),
    ],
)
async def test_a_bad_file_of_reservations_costs_them_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, mode: int, words: str
) -> None:
    config = keeping(tmp_path / "r")
    file_of(config).write_bytes(content)
    file_of(config).chmod(mode)
    async with running_relay(config) as running:
        assert running.node.server.reservations == ()
    assert any(words in line and line.endswith(", ignoring") for line in caplog.messages)


async def test_a_disk_that_takes_no_reservations_is_a_problem_until_it_does(tmp_path: Path) -> None:
    config = keeping(tmp_path / "r")
    async with running_relay(config) as running:
        kept = running.node.reservations
        assert kept is not None
        kept.path = tmp_path / "no" / "such"
        await kept._write()
        assert any("would not outlive a restart" in problem for problem in running.node.problems())
        kept.path = file_of(config)
        await kept._write()
        assert running.node.problems() == ()


# -- networks ------------------------------------------------------------------------------------------------------


def with_table(folder: Path, table: str | None) -> Path:
    config = make_relay(folder)
    config.write_text(config.read_text() + "resources: {asn_table: asn.txt}\n")
    if table is not None:
        (folder / "asn.txt").write_text(table)
    return config


async def test_a_table_of_networks_is_read_and_read_again_when_it_has_changed(tmp_path: Path) -> None:
    config = with_table(tmp_path / "r", "203.0.113.0/24 64500\n")
    async with running_relay(config) as running:
        server = running.node.server
        server._gate.enabled = False
        server.restore([Kept(INVITER, int(time.time()) + 900, "203.0.113.7")])

        def network() -> int | None:
            return server._reservations.all(0)[INVITER].network

        await until("it is read", lambda: network() == 64500)
        await running.node.reload()
        (tmp_path / "r" / "asn.txt").write_text("203.0.113.0/24 AS64501\nwhat?\n")
        await running.node.reload()
        assert network() == 64501
        assert any("asn.txt: line 2: wanted a network" in problem for problem in running.node.problems())


@pytest.mark.parametrize("table", [None, "x" * 100])
async def test_a_table_that_cannot_be_read_is_a_problem_and_no_reason_not_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str | None
) -> None:
    monkeypatch.setattr(networks, "MAX_FILE", 50)
    async with running_relay(with_table(tmp_path / "r", table)) as running:
        await until("it is told", lambda: bool(running.node.problems()))
        assert running.node.problems()[0].startswith("asn_table: ")
