"""Commands whose answers take their time: invite and join, proxy and pipe, and `peerupd once` behind them."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from peerupctl import cli, client
from peerupd.model.errors import EnvironmentalError, UnknownPeer
from tests.support.fake_daemon import FakeDaemon, data, error

PEER = "12D3KooWLdJAwPtyQ5RFnr9wGXsQzpf3P2SeqFbYkqbfVehLu4Ns"
OPENED = {"id": "i1", "code": "AAAA-BBBB", "expires_at": 1.0, "relay": "/ip4/1.2.3.4/tcp/1", "qr": ["##"]}
JOINED = {
    "peer_id": PEER,
    "name": "home",
    "own_peer_id": "me",
    "relay": "r",
    "config": "/c",
    "config_created": True,
    "authorized_keys": "/a",
    "notes": ["note"],
}


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PEERUP_SOCKET", raising=False)
    monkeypatch.delenv("PEERUP_INVITE_CODE", raising=False)
    monkeypatch.setattr("peerupctl.client.SYSTEM_SOCKET", tmp_path / "none.sock")
    with FakeDaemon(tmp_path / ".config/peerup") as daemon:
        yield daemon


@pytest.fixture
def once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No daemon; `peerupd once` is a script that says what it is told to, and keeps its request."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PEERUP_SOCKET", raising=False)
    monkeypatch.setattr("peerupctl.client.SYSTEM_SOCKET", tmp_path / "none.sock")

    def says(*lines: object, status: int = 0) -> Path:
        script = tmp_path / "once.py"
        asked = tmp_path / "asked.json"
        text = "".join(json.dumps(line) + "\n" for line in lines)
        keep = f"open({str(asked)!r}, 'w').write(sys.stdin.readline())"
        script.write_text(f"import sys\n{keep}\nsys.stdout.write({text!r})\nsys.exit({status})\n")

        def command(self: object, verb: str, *more: str) -> list[str]:
            return [sys.executable, str(script), verb, *more]

        monkeypatch.setattr("peerupctl.client.Once.command", command)
        return asked

    return says


def test_an_invite_shows_code_and_qr_then_waits(daemon, capsys):
    daemon.answers["POST /v1/invite"] = data(OPENED)
    daemon.answers["GET /v1/invite/i1"] = data({"id": "i1", "outcome": "joined", "peer_id": PEER, "name": "laptop"})
    assert cli.main(["invite", "--name", "home", "--ttl", "5m"]) == 0
    out = capsys.readouterr().out
    assert "=== Invite Code (expires in 5m0s) ===" in out
    assert "##" in out
    assert 'Peer "laptop" joined and authorized!' in out
    assert daemon.asked[0] == ("POST /v1/invite", {"name": "home", "ttl_seconds": 300.0})


def test_headless_stdout_holds_only_the_code(daemon, capsys):
    daemon.answers["POST /v1/invite"] = data(OPENED)
    daemon.answers["GET /v1/invite/i1"] = data({"id": "i1", "outcome": "expired", "notes": ["why"]})
    assert cli.main(["invite", "--non-interactive"]) == 1
    said = capsys.readouterr()
    assert said.out == "AAAA-BBBB\n"
    assert "Invite expired" in said.err
    assert "why" in said.err


@pytest.mark.parametrize("flag", ["--headless", "--json"])
def test_headless_json_holds_the_code_and_then_the_outcome(daemon, capsys, flag):
    daemon.answers["POST /v1/invite"] = data(OPENED | {"notes": ["the relay is old"]})
    daemon.answers["GET /v1/invite/i1"] = data({"id": "i1", "outcome": "joined", "peer_id": PEER})
    assert cli.main(["invite", flag]) == 0
    said = capsys.readouterr()
    assert "note: the relay is old" in said.err
    opened, _, outcome = said.out.partition("}\n")
    assert json.loads(opened + "}")["code"] == "AAAA-BBBB"
    assert json.loads(outcome)["outcome"] == "joined"


def test_an_invite_whose_wait_fails_is_cancelled(daemon, capsys):
    daemon.answers["POST /v1/invite"] = data(OPENED)
    daemon.answers["GET /v1/invite/i1"] = error(503, "environment", "ending")
    daemon.answers["DELETE /v1/invite/i1"] = data({"id": "i1", "outcome": "cancelled"})
    assert cli.main(["invite"]) == 5
    assert daemon.asked[-1][0] == "DELETE /v1/invite/i1"


def test_an_invite_without_a_daemon_is_served_by_once(once, capsys):
    asked = once({"progress": "reserving"}, {"data": OPENED}, {"data": {"id": "i1", "outcome": "burned"}})
    assert cli.main(["invite"]) == 1
    said = capsys.readouterr()
    assert "three wrong guesses" in said.out
    assert "reserving" in said.err
    assert json.loads(asked.read_text())["ttl_seconds"] == 600.0


@pytest.mark.parametrize("source", ["argument", "environment", "stdin"])
def test_the_code_comes_from_argument_environment_or_stdin(daemon, capsys, monkeypatch, source):
    daemon.answers["POST /v1/join"] = data(JOINED)
    words = ["join", "--non-interactive", "--name", "laptop"]
    if source == "argument":
        words += ["AAAA", "BBBB"]
    elif source == "environment":
        monkeypatch.setenv("PEERUP_INVITE_CODE", "AAAABBBB")
    else:
        monkeypatch.setattr("sys.stdin", io.StringIO("AAAABBBB\n"))
    assert cli.main(words) == 0
    assert daemon.asked == [("POST /v1/join", {"code": "AAAABBBB", "name": "laptop", "allow_legacy": False})]
    assert capsys.readouterr().out == ""


def test_a_join_without_a_code_says_how_to_give_one(daemon, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert cli.main(["join"]) == 2
    assert cli.main(["join", "--from-env"]) == 2
    assert "PEERUP_INVITE_CODE" in capsys.readouterr().err


def test_a_join_tells_what_it_made(once, capsys):
    once({"progress": "Connecting to relay..."}, {"data": JOINED})
    assert cli.main(["join", "AAAA-BBBB", "--allow-legacy"]) == 0
    out = capsys.readouterr().out
    for text in (
        "Connecting to relay...",
        "Created new config: /c",
        'Peer "home" authorized',
        "Try: peerup ping home",
        "note",
    ):
        assert text in out


def test_a_join_as_json_prints_only_that(once, capsys):
    once({"data": {**JOINED, "name": ""}})
    assert cli.main(["join", "AAAA-BBBB", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["peer_id"] == PEER
    once({"data": {**JOINED, "name": "", "config_created": False}})
    assert cli.main(["join", "AAAA-BBBB"]) == 0
    assert "Using config" in capsys.readouterr().out


def test_once_raises_the_error_that_was_answered(once):
    once({"error": "no peer", "code": "unknown-peer", "hint": ""}, status=2)
    with pytest.raises(UnknownPeer):
        client.Once(None).ask("resolve", {})


def test_once_that_ends_badly_without_a_word_is_an_error(once):
    once(status=3)
    with pytest.raises(EnvironmentalError, match="status 3"):
        client.Once(None).ask("resolve", {})


def test_once_that_goes_on_is_ended_when_nobody_listens(once):
    lines = client.Once(None)
    once({"data": {"id": "proxy-1"}})
    talk = lines.lines("proxy", {})
    assert next(talk)["data"]["id"] == "proxy-1"
    talk.close()


def test_the_command_of_once_carries_the_config_and_no_request():
    assert client.Once("/x.yaml").command("join")[1:] == ["-m", "peerupd", "once", "--config", "/x.yaml", "join"]


def test_a_foreground_proxy_lives_as_long_as_its_answer(daemon, capsys):
    def held(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        line = (
            json.dumps({"data": {"id": "proxy-1", "listen_address": "127.0.0.1:2222", "warning": "w"}}).encode() + b"\n"
        )
        connection.sendall(f"{len(line):x}\r\n".encode() + line + b"\r\n0\r\n\r\n")

    daemon.answers["POST /v1/proxy"] = held
    assert cli.main(["proxy", "home", "ssh", "2222"]) == 5
    said = capsys.readouterr()
    assert "TCP proxy listening on 127.0.0.1:2222" in said.out
    assert "the daemon ended the proxy" in said.err
    assert cli.main(["proxy", "home", "ssh", "2222", "--json"]) == 5


def test_a_foreground_proxy_ends_calmly_when_interrupted(once, monkeypatch, capsys):
    once({"progress": "Connecting..."}, {"data": {"id": "proxy-1", "listen_address": "127.0.0.1:2222"}})

    def interrupted(call, line):
        raise KeyboardInterrupt

    monkeypatch.setattr("peerupctl.commands.proxy._say_proxy", interrupted)
    assert cli.main(["proxy", "home", "ssh", "127.0.0.1:2222"]) == 0
    assert "Shutting down" in capsys.readouterr().err


def test_a_proxy_without_a_daemon_shows_progress(once, capsys):
    once({"progress": "Connecting..."}, {"data": {"id": "proxy-1", "listen_address": "127.0.0.1:2222"}})
    assert cli.main(["proxy", "home", "ssh", "2222"]) == 5
    assert "Connecting..." in capsys.readouterr().err


def chunk(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


END = chunk(b"")


def upload(connection: socket.socket) -> bytes:
    """What the caller sends, as it stands on the wire, up to its clean end or the socket's."""
    got = b""
    while not got.endswith(END) and (more := connection.recv(65536)):
        got += more
    return got


def piped(daemon: FakeDaemon, talk, *, say: bytes | None = b"", ahead: bytes = b"") -> tuple[int, bytes]:
    """Run `pipe` with `say` on stdin (None: it does not end); its status and what came on stdout."""

    def switched(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: peerup-pipe\r\n\r\n" + ahead)
        talk(connection)

    daemon.answers["POST /v1/pipe"] = switched
    daemon.answers["GET /v1/version"] = data({})
    (reading, writing), (shown, showing) = os.pipe(), os.pipe()
    if say is not None:
        os.write(writing, say)
        os.close(writing)
    stdin, stdout = sys.stdin, sys.stdout
    sys.stdin, sys.stdout = os.fdopen(reading), os.fdopen(showing, "w")
    try:
        status = cli.main(["pipe", "home", "ssh"])
        sys.stdout.close()
        with os.fdopen(shown, "rb") as seen:
            return status, seen.read()
    finally:
        if say is None:
            os.close(writing)
        sys.stdin.close()
        sys.stdin, sys.stdout = stdin, stdout


@pytest.mark.parametrize("ahead", [b"", chunk(b"hello ")[:2], chunk(b"hello ")[:7], chunk(b"hello ") + b"\0"])
def test_a_pipe_carries_both_ways_with_half_close(daemon, ahead):
    sent = []

    def talk(connection: socket.socket) -> None:
        sent.append(upload(connection))
        connection.sendall((chunk(b"hello ") + chunk(b"WORLD") + END)[len(ahead) :])

    assert piped(daemon, talk, say=b"world", ahead=ahead) == (0, b"hello WORLD")
    assert sent == [chunk(b"world") + END]


def test_the_other_side_may_end_first(daemon):
    sent = []

    def talk(connection: socket.socket) -> None:
        connection.sendall(chunk(b"bye") + END)
        sent.append(upload(connection))

    assert piped(daemon, talk, say=b"still talking") == (0, b"bye")
    assert sent == [chunk(b"still talking") + END]


@pytest.mark.parametrize(
    ("cut", "came"),
    [(b"", b""), (b"\0\0", b""), (chunk(b"half of it")[:-3], b"half of"), (chunk(b"all") + b"\0\0\0", b"all")],
)
def test_a_pipe_that_is_cut_is_no_clean_end(daemon, capsys, cut, came):
    assert piped(daemon, lambda connection: (upload(connection), connection.sendall(cut))) == (4, came)
    assert "the stream was reset" in capsys.readouterr().err


def test_a_pipe_that_is_cut_while_we_still_send_is_no_clean_end(daemon):
    status, seen = piped(daemon, lambda connection: connection.sendall(chunk(b"bye") + END), say=None)
    assert (status, seen) == (4, b"bye")


def test_a_daemon_that_vanishes_is_another_matter(daemon, capsys):
    def talk(connection: socket.socket) -> None:
        upload(connection)
        daemon.vanish()

    assert piped(daemon, talk) == (5, b"")
    assert "the daemon went away" in capsys.readouterr().err


def test_a_pipe_that_is_refused_raises_what_was_answered(daemon, capsys):
    daemon.answers["POST /v1/pipe"] = error(404, "unknown-peer", "no such peer")
    assert cli.main(["pipe", "home", "ssh"]) == 2


def test_a_pipe_without_a_daemon_becomes_once(once, monkeypatch):
    ran = []

    def execv(program, words):
        ran.append((program, words))
        raise SystemExit(0)

    monkeypatch.setattr("os.execv", execv)
    once()
    with pytest.raises(SystemExit):
        cli.main(["pipe", "home", "ssh"])
    assert json.loads(ran[0][1][-1]) == {"peer": "home", "service": "ssh", "path": "any"}


@pytest.mark.parametrize(
    ("words", "started"),
    [
        (["daemon", "--log-level", "debug"], ["-m", "peerupd", "--foreground", "--log-level", "debug"]),
        (["daemon", "start", "--config", "/c"], ["-m", "peerupd", "--foreground", "--config", "/c"]),
        (["relay", "serve", "--config", "/r"], ["-m", "peerupd", "relay", "--config", "/r"]),
        (["relay", "serve"], ["-m", "peerupd", "relay"]),
    ],
)
def test_the_daemons_are_started_in_our_place(monkeypatch, words, started):
    ran = []

    def execv(program, words):
        ran.append(words[1:])
        raise SystemExit(0)

    monkeypatch.setattr("os.execv", execv)
    with pytest.raises(SystemExit):
        cli.main(words)
    assert ran == [started]


# -- setup ---------------------------------------------------------------------------------------------------------

MADE = {"config": "/c", "identity": "/i", "authorized_keys": "/a", "peer_id": PEER, "qr": ["##"]}


def test_init_asks_for_the_relay_and_who_it_is(once, monkeypatch, capsys):
    asked = once({"data": MADE})
    monkeypatch.setattr("sys.stdin", io.StringIO(f"203.0.113.1\n{PEER}\n"))
    assert cli.main(["init"]) == 0
    assert "##" in capsys.readouterr().out
    assert json.loads(asked.read_text()) == {
        "relay": "203.0.113.1",
        "relay_peer_id": PEER,
        "network": "",
        "directory": "",
    }


def test_init_asks_once_when_the_relay_says_who_it_is(once, monkeypatch, capsys):
    asked = once({"data": MADE})
    monkeypatch.setattr("sys.stdin", io.StringIO(f"/ip4/203.0.113.1/tcp/7777/p2p/{PEER}\n"))
    assert cli.main(["init"]) == 0
    assert json.loads(asked.read_text())["relay_peer_id"] == ""


@pytest.mark.parametrize("words", [["init", "--non-interactive"], ["relay", "setup", "--non-interactive"]])
def test_files_are_made_without_asking_a_daemon_that_runs(daemon, monkeypatch, capsys, words):
    answer = json.dumps({"data": {**MADE, "multiaddrs": []}})
    command = [sys.executable, "-c", f"import sys; sys.stdin.readline(); print({answer!r})"]
    monkeypatch.setattr("peerupctl.client.Once.command", lambda self, verb: command)
    assert cli.main(words) == 0
    assert PEER in capsys.readouterr().out
    assert daemon.asked == []


def test_init_refuses_a_host_name_before_it_writes(once, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("relay.example\n"))
    assert cli.main(["init"]) == 2
    assert "IP address" in capsys.readouterr().err


def test_init_without_an_answer_names_the_way_without_a_terminal(once, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert cli.main(["init"]) == 2
    assert "--non-interactive" in capsys.readouterr().err


def test_init_asks_nothing_when_told_so(once, capsys):
    once({"data": MADE})
    assert cli.main(["init", "--non-interactive"]) == 0
    assert "##" not in capsys.readouterr().out


def test_a_relays_setup_prints_what_nodes_want(once, capsys):
    once({"data": {**MADE, "multiaddrs": ["/ip4/203.0.113.1/tcp/7777"], "snapshot": "/s"}})
    assert cli.main(["relay", "setup"]) == 0
    out = capsys.readouterr().out
    assert "/ip4/203.0.113.1/tcp/7777" in out
    assert "Kept before:     /s" in out
    once({"data": {**MADE, "multiaddrs": []}})
    assert cli.main(["relay", "setup", "--non-interactive"]) == 0
    assert "no public address" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "answer", "shown"),
    [
        (
            ["info"],
            {"peer_id": PEER, "gating": True, "authorized_peers": 2, "multiaddrs": ["/m"], "qr": ["##"]},
            "enabled",
        ),
        (["info"], {"peer_id": PEER, "gating": False, "authorized_peers": 2, "multiaddrs": []}, "DISABLED"),
        (["authorize", PEER, "my", "laptop"], {"status": "added"}, "Authorized: 12D3"),
        (["deauthorize", PEER], {"status": "removed"}, "Deauthorized: 12D3"),
        (["list-peers"], [{"peer_id": PEER, "comment": "laptop"}], "Total: 1 peer(s)"),
        (["list-peers"], [], "(none)"),
    ],
)
def test_a_relays_files_are_kept_by_once(once, capsys, words, answer, shown):
    once({"data": answer})
    assert cli.main(["relay", *words]) == 0
    assert shown in capsys.readouterr().out


def test_status_of_the_files_says_that_nothing_runs(once, capsys):
    once({"data": {"version": "1", "peer_id": PEER, "config": "/c", "services": ["ssh -> localhost:22"], "names": []}})
    assert cli.main(["status"]) == 0
    out = capsys.readouterr().out
    assert "not running" in out
    assert "ssh -> localhost:22" in out
    assert "no relay: not paired yet" in out
