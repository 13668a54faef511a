"""Whole nodes and a relay in one process, on loopback: the verbs live and on disk, starts and ends."""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from peerupd.control import forwards, health, watching
from peerupd.control.node import Node
from peerupd.control.opening import open_node
from peerupd.features import counting as names
from peerupd.frontends.door import ControlDoor
from peerupd.frontends.socket import Place
from peerupd.model import errors
from peerupd.model.names import PeerId
from peerupd.model.snapshots import (
    AuthAdd,
    AuthRemove,
    AuthValidate,
    Connect,
    Disconnect,
    Done,
    Expose,
    InviteAsk,
    InviteRef,
    Join,
    Nothing,
    PathWish,
    PeersQuery,
    Ping,
    Pipe,
    ProxyStatus,
    RelayAdd,
    RelayRemove,
    Resolve,
    ServiceAdd,
    ServiceRef,
)
from tests.support.fakes import peer_id
from tests.support.nodes import (
    FakeManager,
    RunningNode,
    RunningRelay,
    authorize,
    echo,
    make_node,
    make_relay,
    running_node,
    running_relay,
    taken_port,
    until,
)

AWAY = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id(9)}"
STRANGER = str(peer_id(7))


def allowlist(config: Path) -> str:
    return (config.parent / "authorized_keys").read_text()


@dataclass
class Trio:
    """A relay, a home, and a laptop that has joined."""

    relay: RunningRelay
    home: RunningNode
    laptop: RunningNode


@asynccontextmanager
async def paired(tmp_path: Path) -> AsyncIterator[Trio]:
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(running_relay(make_relay(tmp_path / "relay")))
        home_config, laptop_config = make_node(tmp_path / "home", relay.address), make_node(tmp_path / "laptop")
        await relay.node.authorization.add(open_node(home_config).identity.peer_id)
        home = await stack.enter_async_context(running_node(home_config))
        laptop = await stack.enter_async_context(running_node(laptop_config))
        opened = await home.ask.invite_open(InviteAsk("home"))
        joined = await laptop.ask.join(Join(opened.code, "laptop"))
        assert (joined.name, joined.config_created, joined.notes) == ("home", False, ())
        outcome = await home.ask.invite_wait(InviteRef(opened.id))
        assert (outcome.outcome, outcome.name) == ("joined", "laptop")
        yield Trio(relay, home, laptop)


# -- alone ---------------------------------------------------------------------------------------------------------


async def test_a_node_whose_relay_is_away_is_ready_says_so_and_leaves_nothing_behind(tmp_path: Path) -> None:
    config = make_node(tmp_path / "n", AWAY)
    began = trio.current_time()
    async with running_node(config) as running:
        assert trio.current_time() - began < 1.5
        status = await running.ask.status(Nothing())
        assert (status.services_count, status.relay_addresses, status.config) == (0, (), str(config))
        assert status.listen_addresses[0].startswith("/ip4/127.0.0.1/tcp/")
        await until("a lost relay", lambda: running.node.reports.relays()[0].state == "lost")
        await until("the word of it", lambda: any("reserved on 0 of 1" in told for told in running.manager.told))
        assert (await running.ask.whoami(Nothing())).peer_id == status.peer_id
        assert (await running.ask.version(Nothing())).version == status.version
    assert [told for told in running.manager.told if "STATUS" not in told] == ["READY", "STOPPING"]
    assert sorted(os.listdir(config.parent)) == [
        ".authorized_keys.last-good",
        ".config.last-good.yaml",
        "authorized_keys",
        "config.yaml",
        "identity.key",
    ]
    assert running.said[0].startswith("peerup daemon ")
    assert f"Peer ID: {status.peer_id}\n" in running.said
    assert running.said[-1] == "Daemon stopped."


async def test_a_node_without_a_relay_says_that_it_is_not_paired(tmp_path: Path) -> None:
    async with running_node(make_node(tmp_path / "n")) as running:
        await until("the word of it", lambda: any("not paired" in told for told in running.manager.told))


async def test_a_second_daemon_with_the_same_identity_is_refused(tmp_path: Path) -> None:
    config = make_node(tmp_path / "n")
    async with running_node(config):
        second = Node(open_node(config))
        with pytest.raises(errors.DaemonAlreadyRunning, match=f"process {os.getpid()}"):
            await second.run(ControlDoor(Place(tmp_path / "other", shared=False)), FakeManager())
        assert not (tmp_path / "other").exists()


async def test_a_second_daemon_at_the_same_socket_is_refused(tmp_path: Path) -> None:
    first, second = make_node(tmp_path / "a"), make_node(tmp_path / "b")
    async with running_node(first):
        with pytest.raises(errors.DaemonAlreadyRunning, match="already in use"):
            await Node(open_node(second)).run(ControlDoor(Place(first.parent / "s", shared=False)), FakeManager())
        assert not (second.parent / "identity.key.lock").exists()


async def test_a_taken_port_keeps_the_daemon_from_starting_and_leaves_nothing(tmp_path: Path) -> None:
    config = make_node(tmp_path / "n")
    async with taken_port() as taken:
        port = taken.partition(":")[2]
        config.write_text(config.read_text().replace("127.0.0.1/tcp/0", f"127.0.0.1/tcp/{port}"))
        with pytest.RaisesGroup(errors.AddressInUse, flatten_subgroups=True):
            await Node(open_node(config)).run(ControlDoor(Place(config.parent / "s", shared=False)), FakeManager())
    assert sorted(os.listdir(config.parent)) == ["authorized_keys", "config.yaml", "identity.key"]


async def test_sigterm_ends_it_and_sighup_reads_the_files_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_node(tmp_path / "n")
    async with running_node(config) as running:
        config.write_text(config.read_text().replace("names: {}", f'names:\n  bob: "{STRANGER}"'))
        os.kill(os.getpid(), signal.SIGHUP)
        await until("the new name", lambda: running.node.names.name_of(PeerId.parse(STRANGER)) == "bob")
        config.write_text("nonsense: [")
        os.kill(os.getpid(), signal.SIGHUP)
        await until("the refusal", lambda: "keeping what is in force" in caplog.text)
        assert (await running.ask.resolve(Resolve("bob"))).peer_id == STRANGER
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        await running.node.stop.wait()
    assert [line for line in running.said if line.startswith("Received")] == ["Received terminated, shutting down..."]


async def test_shutdown_ends_it_and_asking_twice_is_fine(tmp_path: Path) -> None:
    async with running_node(make_node(tmp_path / "n")) as running:
        assert await running.ask.shutdown(Nothing()) == Done("shutting down")
        await running.ask.shutdown(Nothing())


async def test_the_watchdog_beats_while_the_checks_pass(tmp_path: Path) -> None:
    async with running_node(make_node(tmp_path / "n"), interval=0.06) as running:
        await until("three beats", lambda: running.manager.beats >= 3)
        (tmp_path / "n" / "s").unlink()
        door = ControlDoor(Place(tmp_path / "n" / "s", shared=False))
        assert await health.failing(running.node.checks(door)) == ["control socket"]


async def test_a_bad_line_of_the_allowlist_is_shown_as_a_problem(tmp_path: Path) -> None:
    config = make_node(tmp_path / "n")
    (config.parent / "authorized_keys").write_text(f"rubbish\n{STRANGER}\n")
    async with running_node(config) as running:
        status = await running.ask.status(Nothing())
        assert len(status.problems) == 1
        assert "line 1" in status.problems[0]
        await until("the word of it", lambda: any("DEGRADED" in told for told in running.manager.told))
        assert len(await running.ask.auth_list(Nothing())) == 1


async def test_without_a_gate_all_is_said_and_auth_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = make_node(tmp_path / "n")
    text = config.read_text().replace("gating: true", "gating: false").replace('"authorized_keys"', "")
    config.write_text(text.replace("  authorized_keys_file: \n", "").replace("enabled: true", "enabled: false"))
    async with running_node(config) as running:
        assert "WARNING: Connection gating is DISABLED - any peer can connect!\n" in running.said
        assert "Ping-pong protocol disabled in config" in running.said
        with pytest.raises(errors.RequestError, match="gating is not enabled"):
            await running.ask.auth_add(AuthAdd(STRANGER))
        with pytest.raises(errors.NotFound, match="no allowlist is configured"):
            await running.ask.auth_validate(AuthValidate())
        assert await running.ask.auth_list(Nothing()) == ()
        await running.node.authorization.ensure(PeerId.parse(STRANGER))
        assert await running.node.authorization.reload() == ()
    assert "DISABLED" in caplog.text


async def test_the_allowlist_changed_by_hand_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watching, "INTERVAL", 0.02)
    config = make_node(tmp_path / "n")
    caplog.set_level(logging.INFO)
    file = config.parent / "authorized_keys"
    async with running_node(config) as running:
        await trio.sleep(0.05)
        file.write_text(f"{STRANGER} # bob\nrubbish\n")
        await until("the new entry", lambda: len(running.node.authorization.list()) == 1)
        await until("its problem", lambda: "allowlist: line 2" in caplog.text)
        file.chmod(0o666)
        file.write_text("")
        await until("the refusal", lambda: "keeping the one in force" in caplog.text)
        assert len(running.node.authorization.list()) == 1


# -- services ------------------------------------------------------------------------------------------------------


async def test_services_change_live_and_on_disk(tmp_path: Path) -> None:
    config = make_node(tmp_path / "n")
    async with running_node(config) as running:
        ask = running.ask
        added = await ask.service_add(ServiceAdd("web", "127.0.0.1:1", "http", (STRANGER,)))
        assert (added.name, added.protocol, added.local_address) == ("web", "http", "127.0.0.1:1")
        assert added.warning is not None
        assert [service.name for service in await ask.services(Nothing())] == ["web"]
        assert open_node(config).settings.services["web"].allowed_peers == (PeerId.parse(STRANGER),)
        with pytest.raises(errors.AlreadyExists):
            await ask.service_add(ServiceAdd("web", "127.0.0.1:2"))
        assert await ask.service_disable(ServiceRef("web")) == Done("disabled")
        assert await ask.service_disable(ServiceRef("web")) == Done("already disabled")
        assert not open_node(config).settings.services["web"].enabled
        assert await ask.service_enable(ServiceRef("web")) == Done("enabled")
        assert await ask.service_enable(ServiceRef("web")) == Done("already enabled")
        assert await ask.service_remove(ServiceRef("web")) == Done("removed")
        assert open_node(config).settings.services == {}
        with pytest.raises(errors.UnknownService):
            await ask.service_remove(ServiceRef("web"))
        with pytest.raises(errors.UnknownService):
            await ask.service_enable(ServiceRef("web"))


@pytest.mark.parametrize(
    ("ask", "trouble"),
    [
        (ServiceAdd("", "a:1"), "are required"),
        (ServiceAdd("ping", "a:1"), "reserved"),
        (ServiceAdd("UP", "a:1"), "invalid service name"),
        (ServiceAdd("web", "nonsense"), "cannot read the address"),
        (ServiceAdd("web", "a:1", allowed_peers=("nobody",)), "name not found"),
    ],
)
async def test_a_service_that_cannot_be_changes_nothing(tmp_path: Path, ask: ServiceAdd, trouble: str) -> None:
    config = make_node(tmp_path / "n")
    before = config.read_text()
    async with running_node(config) as running:
        with pytest.raises(errors.RequestError, match=trouble):
            await running.ask.service_add(ask)
        assert await running.ask.services(Nothing()) == ()
    assert config.read_text() == before


async def test_an_exposed_service_is_not_written_down_unless_that_is_wished(tmp_path: Path) -> None:
    config = make_node(tmp_path / "n")
    before = config.read_text()
    async with running_node(config) as running:
        ask = running.ask
        assert await ask.expose(Expose("tmp", "127.0.0.1:1")) == Done("exposed")
        assert config.read_text() == before
        with pytest.raises(errors.AlreadyExists):
            await ask.expose(Expose("tmp", "127.0.0.1:1"))
        assert await ask.unexpose(ServiceRef("tmp")) == Done("unexposed")
        with pytest.raises(errors.UnknownService):
            await ask.unexpose(ServiceRef("tmp"))
        await ask.expose(Expose("tmp", "127.0.0.1:1"))
        await ask.service_remove(ServiceRef("tmp"))
        await ask.expose(Expose("web", "127.0.0.1:1", persist=True))
        assert "web" in open_node(config).settings.services
        await ask.unexpose(ServiceRef("web"))
        assert await ask.services(Nothing()) == ()
        assert "web" in open_node(config).settings.services
        assert await ask.service_enable(ServiceRef("web")) == Done("enabled")
        assert [service.name for service in await ask.services(Nothing())] == ["web"]
        assert (await ask.status(Nothing())).services_count == 1
    async with running_node(config) as again:
        assert "Exposing service: web -> 127.0.0.1:1" in again.said


async def test_the_access_list_of_a_service_is_said_at_the_start(tmp_path: Path) -> None:
    config = make_node(tmp_path / "n")
    service = f'services:\n  a: {{enabled: true, local_address: "b:1", allowed_peers: ["{STRANGER}"]}}\n'
    config.write_text(config.read_text().replace("services: {}\n", service))
    async with running_node(config) as running:
        assert "  ACL: 1 allowed peers" in running.said


# -- the allowlist -------------------------------------------------------------------------------------------------


async def test_auth_changes_live_and_on_disk(tmp_path: Path) -> None:
    config = make_node(tmp_path / "n", AWAY)
    async with running_node(config) as running:
        ask = running.ask
        assert await ask.auth_add(AuthAdd(STRANGER, "bob", "2099-01-01T00:00:00Z")) == Done("added")
        entry = (await ask.auth_list(Nothing()))[0]
        assert (entry.peer_id, entry.comment, entry.expires_at) == (STRANGER, "bob", "2099-01-01T00:00:00Z")
        assert "expires=2099" in allowlist(config)
        with pytest.raises(errors.AlreadyExists):
            await ask.auth_add(AuthAdd(STRANGER))
        with pytest.raises(errors.RequestError, match="2026-12-31"):
            await ask.auth_add(AuthAdd(str(peer_id(8)), expires="tomorrow"))
        with pytest.raises(errors.RequestError, match="peer_id is required"):
            await ask.auth_add(AuthAdd(""))
        assert (await ask.auth_validate(AuthValidate())).valid == 1
        other = tmp_path / "other"
        other.write_text("x\n")
        other.chmod(0o600)
        report = await ask.auth_validate(AuthValidate(str(other)))
        assert (report.file, report.valid, len(report.problems)) == (str(other), 0, 1)
        assert await ask.auth_remove(AuthRemove(STRANGER)) == Done("removed")
        with pytest.raises(errors.UnknownPeer):
            await ask.auth_remove(AuthRemove(STRANGER))
    assert STRANGER not in allowlist(config)


async def test_an_allowlist_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_node(tmp_path / "n")
    async with running_node(config) as running:

        def full(*_: object) -> None:
            raise errors.StorageFailed("disk full")

        monkeypatch.setattr("peerupd.trust.authorized_keys.AllowlistFile.save", full)
        with pytest.raises(errors.StorageFailed):
            await running.ask.auth_add(AuthAdd(STRANGER))
        assert await running.ask.auth_list(Nothing()) == ()


async def test_ensure_replaces_an_entry_with_an_end_and_leaves_one_without(tmp_path: Path) -> None:
    config = make_node(tmp_path / "n")
    async with running_node(config) as running:
        peer = PeerId.parse(STRANGER)
        authorization = running.node.authorization
        await authorization.add(peer, expires="2020-01-01T00:00:00Z")
        await authorization.ensure(peer, "bob")
        assert authorization.list()[0].expires_at is None
        await authorization.ensure(peer, "other")
        assert authorization.list()[0].comment == "bob"
        (config.parent / "authorized_keys").unlink()
        await authorization.ensure(peer, "again")
        assert authorization.list()[0].comment == "bob"
        assert "bob" in allowlist(config)


# -- relays --------------------------------------------------------------------------------------------------------


async def test_relays_change_live_and_on_disk(tmp_path: Path) -> None:
    config = make_node(tmp_path / "n")
    async with running_node(config) as running:
        ask = running.ask
        changed = await ask.relay_add(RelayAdd(("127.0.0.1:1", AWAY), str(peer_id(9))))
        assert (changed.added, changed.already) == ((AWAY,), ())
        assert (await ask.relay_add(RelayAdd((AWAY,)))).already == (AWAY,)
        assert [relay.addresses for relay in await ask.relays(Nothing())] == [(AWAY,)]
        with pytest.raises(errors.InvalidAddress, match="does not say who"):
            await ask.relay_add(RelayAdd(("127.0.0.1",)))
        with pytest.raises(errors.InvalidAddress, match="another relay"):
            await ask.relay_add(RelayAdd((AWAY,), STRANGER))
        with pytest.raises(errors.RequestError, match="addresses is required"):
            await ask.relay_add(RelayAdd(()))
        with pytest.raises(errors.NotFound):
            await ask.relay_remove(RelayRemove("/ip4/1.2.3.4/tcp/5"))
        with pytest.raises(errors.RequestError, match="the last relay"):
            await ask.relay_remove(RelayRemove(AWAY))
        assert (await ask.relay_remove(RelayRemove(AWAY, force=True))).removed == (AWAY,)
        assert await ask.relays(Nothing()) == ()
    assert open_node(config).settings.relays == ()


# -- paired --------------------------------------------------------------------------------------------------------


async def test_pairing_writes_both_sides_and_the_relay_and_a_service_is_reached(tmp_path: Path) -> None:
    async with echo() as address, paired(tmp_path) as here:
        home, laptop = here.home.ask, here.laptop.ask
        await home.service_add(ServiceAdd("echo", address))
        assert "home" in (tmp_path / "laptop" / "config.yaml").read_text()
        assert "vouched_by=" in (tmp_path / "relay" / "relay_authorized_keys").read_text()
        assert (await laptop.resolve(Resolve("home"))).source == "local_config"
        report = await laptop.ping(Ping("home", count=1, path=PathWish.RELAY))
        assert [result.path for result in report.results] == ["RELAYED"]
        proxy = await laptop.connect(Connect("home", "echo", "127.0.0.1:0"))
        assert await say_through(proxy.listen_address, b"hello") == b"hellohello"
        seen = {peer.name: peer for peer in await home.peers(PeersQuery())}
        assert seen["laptop"].path in ("DIRECT", "RELAYED")
        assert (seen["laptop"].agent_version or "").startswith("peerup/")
        assert len(await home.peers(PeersQuery(all=True))) == 2
        assert any(line.startswith("Relay address: ") for line in here.home.said)
        assert (await home.status(Nothing())).relay_addresses


async def test_a_relay_that_is_removed_loses_us_at_once(tmp_path: Path) -> None:
    async with paired(tmp_path) as here:
        relay, home = here.home.node.configuration.settings.relays[0], here.home.node.host
        assert home.connections(relay.peer)
        await here.home.ask.relay_remove(RelayRemove(str(relay), force=True))
        await until("the farewell", lambda: not home.connections(relay.peer))
        with pytest.raises(errors.EnvironmentalError):  # the circuit breaks, or there is none any more
            await here.laptop.ask.ping(Ping("home", count=1, path=PathWish.RELAY))


async def say_through(listen: str, words: bytes) -> bytes:
    host, _, port = listen.partition(":")
    with trio.fail_after(10):
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(words)
            await stream.send_eof()
            return b"".join([bytes(data) async for data in stream])


async def test_a_removed_peer_is_cut_at_once_and_forgotten_by_the_relay(tmp_path: Path) -> None:
    async with paired(tmp_path) as here:
        laptop = (await here.laptop.ask.whoami(Nothing())).peer_id
        await here.laptop.ask.ping(Ping("home", count=1))
        await here.home.ask.auth_remove(AuthRemove("laptop"))
        with trio.fail_after(10):
            while here.home.node.host.connections(PeerId.parse(laptop)):
                await trio.lowlevel.checkpoint()
        relays = here.relay.node.authorization
        await until("the relay forgets", lambda: laptop not in [entry.peer_id for entry in relays.list()])


async def test_proxies_live_and_persisted(tmp_path: Path) -> None:
    async with paired(tmp_path) as here:
        ask = here.laptop.ask
        first = await ask.connect(Connect("home", "web", "127.0.0.1:0"))
        kept = await ask.connect(Connect("home", "web", "127.0.0.1:0", PathWish.RELAY, persist=True))
        assert [proxy.id for proxy in await ask.proxies(Nothing())] == [first.id, kept.id]
        written = open_node(tmp_path / "laptop" / "config.yaml").settings.proxies
        assert [(str(proxy.listen), proxy.path) for proxy in written] == [(kept.listen_address, PathWish.RELAY)]
        assert await ask.disconnect(Disconnect(first.id)) == Done("disconnected")
        with pytest.raises(errors.UnknownProxy):
            await ask.disconnect(Disconnect(first.id))
        with pytest.raises(errors.RequestError, match="are required"):
            await ask.connect(Connect("home", "", "127.0.0.1:0"))
        with pytest.raises(errors.UnknownPeer):
            await ask.connect(Connect("eve", "web", "127.0.0.1:0"))
        with pytest.raises(errors.Unreachable):
            await ask.connect(Connect(STRANGER, "web", "127.0.0.1:0"))
        with pytest.raises(errors.AddressInUse):
            await ask.connect(Connect("home", "web", kept.listen_address))
    async with running_node(tmp_path / "laptop" / "config.yaml") as again:
        await until("the proxy", lambda: again.node.forwards.list())
        proxy = again.node.forwards.list()[0]
        assert (proxy.listen_address, proxy.persist) == (kept.listen_address, True)
        await again.ask.disconnect(Disconnect(proxy.id))
        assert again.node.forwards.list() == ()
    assert open_node(tmp_path / "laptop" / "config.yaml").settings.proxies == ()


async def test_a_proxy_that_cannot_be_written_down_is_not_left_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_node(make_node(tmp_path / "n")) as running:

        def full(*_: object) -> None:
            raise errors.StorageFailed("disk full")

        monkeypatch.setattr("peerupd.config.store.ConfigFile.edit", full)
        with pytest.raises(errors.StorageFailed):
            await running.ask.connect(Connect(STRANGER, "web", "127.0.0.1:0", persist=True))
        assert await running.ask.proxies(Nothing()) == ()


async def test_a_configured_proxy_whose_port_is_taken_is_a_problem_until_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwards, "RETRY", 0.05)
    config = make_node(tmp_path / "n")
    async with AsyncExitStack() as stack:
        taken = await stack.enter_async_context(taken_port())
        wanted = f'proxies:\n  - {{peer: "{STRANGER}", service: "web", listen: "{taken}"}}\n'
        config.write_text(config.read_text().replace("proxies: []\n", wanted))
        running = await stack.enter_async_context(running_node(config))
        await until("the problem", lambda: running.node.reports.problems())
        assert taken in running.node.reports.problems()[0]
        await trio.sleep(0.1)
        config.write_text(config.read_text().replace(wanted, "proxies: []\n"))
        await running.node.configuration.reload()
        assert running.node.reports.problems() == ()


async def test_a_foreground_proxy_ends_with_its_caller_or_when_somebody_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwards, "ENDED_LOOK", 0.01)
    async with paired(tmp_path) as here:
        running = here.laptop
        begun: list[ProxyStatus] = []

        async def announce(status: ProxyStatus) -> None:
            begun.append(status)

        ask = Connect("home", "web", "127.0.0.1:0", persist=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.ask.proxy, ask, announce)
            await until("the first one", lambda: len(begun) == 1)
            nursery.cancel_scope.cancel()
        assert await running.ask.proxies(Nothing()) == ()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.ask.proxy, ask, announce)
            await until("the second one", lambda: len(begun) == 2)
            await running.ask.disconnect(Disconnect(begun[1].id))
        with pytest.raises(errors.RequestError, match="are required"):
            await running.ask.proxy(Connect("", "web", "x"), announce)


async def test_pipe_carries_an_end_to_a_service(tmp_path: Path) -> None:
    async with echo() as address, paired(tmp_path) as here:
        await here.home.ask.expose(Expose("echo", address))
        near = _Words(b"abc")
        assert await here.laptop.ask.pipe(Pipe("home", "echo"), near) == Done("ended")
        assert near.heard == b"abcabc"
        with pytest.raises(errors.ProtocolUnsupported):
            await here.laptop.ask.pipe(Pipe("home", "nothing"), _Words(b""))


async def test_status_tells_what_was_counted_on_both_sides_of_a_service(tmp_path: Path) -> None:
    async with echo() as address, paired(tmp_path) as here:
        await here.home.ask.expose(Expose("echo", address))
        await here.laptop.ask.pipe(Pipe("home", "echo"), _Words(b"abc"))
        with trio.fail_after(60):
            for node, side in ((here.home, names.SERVED), (here.laptop, names.USED)):
                while sorted(await counted(node, "peerup_proxy_bytes_total", service="echo", side=side)) != [3, 6]:  # noqa: ASYNC110
                    await trio.sleep(0.01)  # the far side may still be counting
                assert await counted(node, "peerup_proxy_connections_total", service="echo", side=side) == [1]
        assert sum(await counted(here.laptop, "peerup_path_dial_total", result="success")) >= 1
        assert sum(await counted(here.home, "peerup_auth_decisions_total", decision="allow")) >= 1
        assert await counted(here.home, "peerup_memory_limit_bytes") == [here.home.node.memory.budget]


async def counted(running: RunningNode, name: str, **labels: str) -> list[int]:
    """The values that have this name and these labels."""
    status = await running.ask.status(Nothing())
    return [each.value for each in status.counters if each.name == name and labels.items() <= each.labels.items()]


async def test_a_pipe_to_a_service_that_breaks_is_not_taken_for_finished(tmp_path: Path) -> None:
    async def slam(stream: trio.SocketStream) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()

    async with paired(tmp_path) as here, trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, slam, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        await here.home.ask.expose(Expose("broken", f"127.0.0.1:{port}"))
        with pytest.raises(errors.StreamReset, match="was cut"):
            await here.laptop.ask.pipe(Pipe("home", "broken"), _Words(b"abc"))
        nursery.cancel_scope.cancel()


class _Words:
    """An end that says its words and hears what comes."""

    def __init__(self, words: bytes) -> None:
        self._words = words
        self.heard = b""

    async def receive_some(self, max_bytes: int | None = None, /) -> bytes:
        await trio.lowlevel.checkpoint()
        words, self._words = self._words, b""
        return words

    async def send_all(self, data: bytes | bytearray | memoryview, /) -> None:
        await trio.lowlevel.checkpoint()
        self.heard += bytes(data)

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    def reset(self) -> None: ...


# -- verbs that fail as they should --------------------------------------------------------------------------------


async def test_an_invite_without_a_relay_is_refused_and_one_can_be_cancelled(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        lonely = await stack.enter_async_context(running_node(make_node(tmp_path / "lonely")))
        with pytest.raises(errors.NoRelay):
            await lonely.ask.invite_open(InviteAsk())
        with pytest.raises(errors.UnknownInvite):
            await lonely.ask.invite_wait(InviteRef("invite-9"))
        relay = await stack.enter_async_context(running_relay(make_relay(tmp_path / "relay")))
        config = make_node(tmp_path / "home", relay.address)
        authorize(tmp_path / "relay" / "relay_authorized_keys", config.parent / "identity.key")
        await relay.node.reload()
        home = await stack.enter_async_context(running_node(config))
        opened = await home.ask.invite_open(InviteAsk())
        assert (await home.ask.invite_cancel(InviteRef(opened.id))).outcome == "cancelled"
        with pytest.raises((errors.RemoteError, errors.RefusedError, errors.EnvironmentalError)):
            await lonely.ask.join(Join(opened.code))


async def test_asking_after_nobody_is_a_clear_error(tmp_path: Path) -> None:
    async with running_node(make_node(tmp_path / "n")) as running:
        with pytest.raises(errors.UnknownPeer, match="name not found: nobody"):
            await running.ask.ping(Ping("nobody"))
        with pytest.raises(errors.RequestError, match="name is required"):
            await running.ask.resolve(Resolve(""))
        with pytest.raises(errors.Unreachable):
            await running.ask.ping(Ping(STRANGER))
        with pytest.raises(errors.InvalidCode):
            await running.ask.join(Join("nonsense"))
        assert (await running.ask.resolve(Resolve(STRANGER))).source == "peer_id"
