"""`peerupd once`: verbs on files, and with a network for as long as the verb lives."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from peerupd.control import lock, once
from peerupd.control.once import Once
from peerupd.control.opening import open_node
from peerupd.model import errors
from peerupd.model.snapshots import InviteAsk, InviteRef
from tests.support.fakes import peer_id
from tests.support.nodes import authorize, echo, make_node, make_relay, running_node, running_relay, until

STRANGER = str(peer_id(7))
AWAY = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id(9)}"


async def do(verb: str, config: Path | None, **request: Any) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    with trio.fail_after(20):
        await Once(verb, request, config, lines.append).do()
    return lines


async def data(verb: str, config: Path | None, **request: Any) -> Any:
    return (await do(verb, config, **request))[-1]["data"]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "house"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return home


# -- files ---------------------------------------------------------------------------------------------------------


async def test_init_makes_a_node_once(own_home: Path, tmp_path: Path) -> None:
    made = await data("init", None, relay="127.0.0.1:7000", relay_peer_id=STRANGER, network="lab")
    assert made["config"] == str(own_home / ".config/peerup/config.yaml")
    settings = open_node(Path(made["config"])).settings
    assert [str(relay) for relay in settings.relays] == [f"/ip4/127.0.0.1/tcp/7000/p2p/{STRANGER}"]
    assert (settings.network, settings.gating) == ("lab", True)
    assert made["qr"]
    with pytest.raises(errors.AlreadyExists, match="left as it is"):
        await data("init", None)
    other = await data("init", None, directory=str(tmp_path / "other"))
    assert other["peer_id"] != made["peer_id"]
    assert (await data("whoami", None))["peer_id"] == made["peer_id"]


@pytest.mark.parametrize(
    "request_",
    [{"relay": "relay.example"}, {"relay": "1.2.3.4"}, {"relay": "1.2.3.4", "relay_peer_id": "x"}, {"network": "A B"}],
)
async def test_an_init_that_cannot_be_makes_nothing(own_home: Path, request_: dict[str, str]) -> None:
    with pytest.raises(errors.RequestError):
        await do("init", None, **request_)
    assert os.listdir(own_home) == []


async def test_file_verbs_change_the_files(tmp_path: Path) -> None:
    config = make_node(tmp_path / "n")
    assert await data("auth_add", config, peer_id=STRANGER, comment="bob") == {"status": "added"}
    assert [entry["comment"] for entry in await data("auth_list", config)] == ["bob"]
    assert (await data("service_add", config, name="web", local_address="127.0.0.1:1"))["warning"]
    assert [service["name"] for service in await data("services", config)] == ["web"]
    assert (await data("relay_add", config, addresses=[AWAY]))["added"] == [AWAY]
    assert (await data("relays", config))[0]["state"] == "absent"
    status = await data("status", config)
    assert status["authorized"] == [f"{STRANGER}  # bob"]
    assert status["services"] == ["web -> 127.0.0.1:1 (enabled)"]
    assert "uptime_seconds" not in status
    assert not (config.parent / "identity.key.lock").exists()


async def test_status_shows_names_and_entries_without_a_comment(tmp_path: Path) -> None:
    config = make_node(tmp_path / "n")
    config.write_text(config.read_text().replace("names: {}", f'names:\n  bob: "{STRANGER}"'))
    await do("auth_add", config, peer_id=STRANGER)
    status = await data("status", config)
    assert (status["names"], status["authorized"]) == ([f"bob: {STRANGER}"], [STRANGER])


async def test_auth_remove_tells_the_relay_if_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "WITHDRAW_LIMIT", 0.5)
    config = make_node(tmp_path / "n", AWAY)
    await do("auth_add", config, peer_id=STRANGER)
    assert await data("auth_remove", config, peer_id=STRANGER) == {"status": "removed"}
    lonely = make_node(tmp_path / "m")
    await do("auth_add", lonely, peer_id=STRANGER)
    assert await data("auth_remove", lonely, peer_id=STRANGER) == {"status": "removed"}


async def test_beside_a_daemon_only_looking_is_allowed(tmp_path: Path) -> None:
    config = make_node(tmp_path / "n")
    with lock.held(config.parent / "identity.key"):
        await data("whoami", config)
        for verb in ("auth_add", "ping", "service_add"):
            with pytest.raises(errors.DaemonAlreadyRunning):
                await do(verb, config, peer_id=STRANGER, peer=STRANGER, name="a", local_address="b:1")


async def test_verbs_that_want_a_daemon_and_unknown_ones_say_so(tmp_path: Path) -> None:
    config = make_node(tmp_path / "n")
    with pytest.raises(errors.DaemonNotRunning, match="connect wants a running daemon"):
        await do("connect", config)
    with pytest.raises(errors.RequestError, match="unknown verb 'nonsense'"):
        await do("nonsense", config)
    with pytest.raises(errors.ConfigNotFound):
        await do("whoami", None)


# -- relay servers -------------------------------------------------------------------------------------------------


async def test_relay_setup_keeps_what_is_there_and_replaces_it_only_when_told(tmp_path: Path) -> None:
    first = await data("relay_setup", None, directory=str(tmp_path / "r"), address="203.0.113.5")
    assert first["multiaddrs"] == [f"/ip4/203.0.113.5/tcp/7777/p2p/{first['peer_id']}"]
    assert (first["config"], "snapshot" in first) == (str(tmp_path / "r" / "relay.yaml"), False)
    again = await data("relay_setup", None, directory=str(tmp_path / "r"), address="[2001:db8::1]:99")
    assert again["multiaddrs"] == [f"/ip6/2001:db8::1/tcp/99/p2p/{first['peer_id']}"]
    fresh = await data("relay_setup", None, directory=str(tmp_path / "r"), fresh=True)
    assert fresh["peer_id"] != first["peer_id"]
    assert sorted(os.listdir(fresh["snapshot"])) == ["relay.yaml", "relay_authorized_keys", "relay_node.key"]
    assert "snapshot" not in await data("relay_setup", None, directory=str(tmp_path / "empty"), fresh=True)


async def test_relay_setup_without_a_folder_makes_what_the_relay_looks_for_here(own_home: Path) -> None:
    made = await data("relay_setup", None, address="/dns4/relay.example/tcp/443")
    assert made["config"] == str(own_home / "relay-server.yaml")
    assert made["multiaddrs"] == [f"/dns4/relay.example/tcp/443/p2p/{made['peer_id']}"]
    assert (await data("relay_setup", None, directory=str(own_home)))["config"] == made["config"]


async def test_relay_setup_finds_public_addresses_of_the_families_it_listens_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ipaddress

    found = [ipaddress.ip_address(text) for text in ("127.0.0.1", "10.0.0.1", "8.8.8.8", "2001:4860:4860::8888")]
    monkeypatch.setattr("peerupd.linux.links.addresses", lambda: found)
    made = await data("relay_setup", None, directory=str(tmp_path / "r"))
    assert [address.split("/p2p/")[0] for address in made["multiaddrs"]] == [
        "/ip4/8.8.8.8/tcp/7777",
        "/ip6/2001:4860:4860::8888/tcp/7777",
    ]
    assert made["qr"]


async def test_a_relays_allowlist_is_changed_by_its_files(tmp_path: Path) -> None:
    config = make_relay(tmp_path / "r")
    assert await data("relay_authorize", config, peer_id=STRANGER, comment="bob") == {"status": "added"}
    assert [entry["comment"] for entry in await data("relay_peers", config)] == ["bob"]
    info = await data("relay_info", config)
    assert (info["gating"], info["authorized_peers"]) == (True, 1)
    assert await data("relay_deauthorize", config, peer_id=STRANGER) == {"status": "removed"}
    with pytest.raises(errors.UnknownPeer):
        await do("relay_deauthorize", config, peer_id=STRANGER)


# -- network -------------------------------------------------------------------------------------------------------


async def test_a_fresh_machine_joins_pings_pipes_and_invites_without_a_daemon(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with echo() as address, running_relay(make_relay(tmp_path / "relay")) as relay:
        home = make_node(tmp_path / "home", relay.address)
        authorize(tmp_path / "relay" / "relay_authorized_keys", home.parent / "identity.key")
        await relay.node.reload()
        async with running_node(home) as running:
            opened = await running.ask.invite_open(InviteAsk("home"))
            lines = await do("join", None, code=opened.code, name="laptop")
            assert next(line["progress"] for line in lines[:-1]).startswith("Created new config: ")
            joined = lines[-1]["data"]
            assert (joined["config_created"], joined["name"]) == (True, "home")
            assert joined["config"] == str(own_home / ".config/peerup/config.yaml")
            assert (await running.ask.invite_wait(InviteRef(opened.id))).outcome == "joined"
            pinged = await data("ping", None, peer="home", count=1)
            assert pinged["stats"]["received"] == 1
            await running.ask.expose(_expose("echo", address))
            await _pipes(monkeypatch)
            await _proxies()
            again = await running.ask.invite_open(InviteAsk("home"))
            rejoined = await do("join", Path(joined["config"]), code=again.code)
            assert rejoined[-1]["data"]["config_created"] is False
        async with trio.open_nursery() as nursery:
            lines = []
            nursery.start_soon(Once("invite", {"ttl_seconds": 1}, Path(joined["config"]), lines.append).do)
    assert [min(line["data"]) for line in lines] == ["code", "id"]
    assert lines[-1]["data"]["outcome"] == "expired"


def _expose(name: str, address: str) -> Any:
    from peerupd.model.snapshots import Expose

    return Expose(name, address)


async def _pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    inward, outward = os.pipe(), os.pipe()
    os.write(inward[1], b"ab")
    os.close(inward[1])
    from peerupd.features.ends import PipeEnd

    monkeypatch.setattr(once, "PipeEnd", lambda *_: PipeEnd(inward[0], outward[1]))
    assert await do("pipe", None, peer="home", service="echo") == []
    assert os.read(outward[0], 100) == b"abab"
    os.close(outward[0])


async def _proxies() -> None:
    lines: list[dict[str, Any]] = []
    request = {"peer": "home", "service": "echo", "listen": "127.0.0.1:0"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Once("proxy", request, None, lines.append).do)
        await until("the proxy", lambda: lines)
        with trio.fail_after(10):
            host, _, port = lines[0]["data"]["listen_address"].partition(":")
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(b"x")
                assert await stream.receive_some() == b"xx"
        nursery.cancel_scope.cancel()


async def test_a_code_with_a_slip_makes_nothing(own_home: Path) -> None:
    with pytest.raises(errors.InvalidCode):
        await do("join", None, code="AAAA-BBBB")
    assert os.listdir(own_home) == []


# -- the process ---------------------------------------------------------------------------------------------------


def test_the_request_is_a_line_on_stdin_or_an_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_node(tmp_path / "n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"name": "nobody"}\nmore')))
    assert once.run("resolve", None, config) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "unknown-peer"
    assert once.run("resolve", json.dumps({"name": STRANGER}), config) == 0
    assert json.loads(capsys.readouterr().out)["data"]["source"] == "peer_id"
    assert once.run("whoami", "", config) == 0
    for bad in ("[]", "{", "[" * 100_000):
        assert once.run("whoami", bad, config) == 2


def test_an_error_of_pipe_is_text_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert once.run("pipe", '{"peer": "nobody", "service": "x"}', make_node(tmp_path / "n")) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "name not found: nobody" in captured.err


def test_a_bug_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "from_json", lambda *_: 1 / 0)
    with pytest.RaisesGroup(ZeroDivisionError):
        once.run("init", "{}", None)


def test_a_signal_ends_the_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    async def forever(self: Once) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()

    monkeypatch.setattr(Once, "do", forever)
    assert once.run("invite", "{}", None) == 0
