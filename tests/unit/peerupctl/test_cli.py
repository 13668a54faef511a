"""The command line: what is typed, asked of the daemon, printed, and said when it goes wrong."""

# ruff: noqa: E501 - a table reads best with a case a line

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from peerupctl import cli
from tests.support.fake_daemon import FakeDaemon, data, error

PEER = "12D3KooWLdJAwPtyQ5RFnr9wGXsQzpf3P2SeqFbYkqbfVehLu4Ns"
STATUS = {
    "peer_id": PEER,
    "version": "0.1.0",
    "uptime_seconds": 3700,
    "connected_peers": 1,
    "listen_addresses": ["/ip4/127.0.0.1/tcp/9"],
    "relay_addresses": [],
    "services_count": 0,
    "relays": [{"peer_id": PEER, "addresses": ["/ip4/203.0.113.1/tcp/7777"], "state": "lost", "why": "refused"}],
    "problems": ["clock is wrong"],
    "unused_addresses": ["/ip4/0.0.0.0/udp/0/quic-v1"],
    "config": "/x/config.yaml",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PEERUP_SOCKET", raising=False)
    monkeypatch.setattr("peerupctl.client.SYSTEM_SOCKET", tmp_path / "none.sock")
    return tmp_path


@pytest.fixture
def daemon(home: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(home / ".config/peerup") as daemon:
        yield daemon


def test_every_command_leads_somewhere():
    import importlib

    for command in cli.COMMANDS:
        module, _, name = command.place.partition(":")
        assert name in importlib.import_module(f"peerupctl.commands.{module}").VERBS


def test_without_words_the_table_is_shown_and_the_status_is_2(capsys):
    assert cli.main([]) == 2
    assert "invite" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["help", "--help", "-h"])
def test_help_shows_the_table(capsys, word):
    assert cli.main([word]) == 0
    assert "usage: peerupctl" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "nearest"),
    [(["ivnite"], "invite"), (["auth", "ad"], "auth add"), (["daemon", "stat"], "daemon start"), (["relay"], "relay add"),
     (["qqq"], "peerupctl help")],
)  # fmt: skip
def test_a_mistyped_command_is_answered_with_the_nearest(capsys, words, nearest):
    assert cli.main(words) == 2
    assert nearest in capsys.readouterr().err


def test_a_wrong_flag_names_the_help(capsys):
    assert cli.main(["peers", "--nonsense"]) == 2
    assert "peerupctl peers --help" in capsys.readouterr().err


def test_the_help_of_a_command_ends_well(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["ping", "--help"])
    assert ended.value.code == 0
    assert "--interval" in capsys.readouterr().out


def test_version_asks_nobody(home, capsys):
    assert cli.main(["version", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"version", "commit", "built", "python"}
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("peerup ")


def test_no_heavy_module_is_imported_for_a_verb_that_asks_the_daemon(daemon):
    import subprocess

    daemon.answers["GET /v1/status"] = data(STATUS)
    code = (
        "import sys; from peerupctl import cli; cli.main(['status']);"
        "sys.exit(any(m.split('.')[0] in ('trio', 'libp2p', 'yaml', 'cryptography') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


# -- what is asked and shown ---------------------------------------------------------------------------------------

ENTRY = {"peer_id": PEER, "comment": "laptop", "expires_at": "2030-01-01T00:00:00Z"}
PROXY = {"id": "proxy-1", "listen_address": "0.0.0.0:2222", "peer": PEER, "service": "ssh", "path": "any", "connections": 2,
         "warning": "open to all"}  # fmt: skip
SERVICE = {"name": "ssh", "protocol": "/peerup/ssh/1.0.0", "local_address": "localhost:22", "enabled": True}
PONG = {"results": [{"seq": 1, "peer_id": PEER, "rtt_ms": 1.25, "path": "DIRECT", "error": ""}], "stats": {}}
LOST = {"results": [{"seq": 1, "peer_id": PEER, "rtt_ms": 0.0, "path": "", "error": "gone"}], "stats": {}}

CASES = [
    (["status"], "GET /v1/status", STATUS, None, ["running for 1h 1m", "DEGRADED: clock is wrong", "lost (refused)", "quic-v1"]),
    (["whoami"], "GET /v1/whoami", {"peer_id": PEER}, None, [PEER]),
    (["auth", "list"], "GET /v1/auth", [ENTRY], None, ["Authorized peers (1):", "# laptop", "[expires=2030"]),
    (["auth", "list"], "GET /v1/auth", [], None, ["No authorized peers."]),
    (["auth", "add", PEER, "--comment", "x"], "POST /v1/auth", {"status": "added"},
     {"peer_id": PEER, "comment": "x", "expires": ""}, ["Authorized peer: 12D3KooWLdJAwPty..."]),
    (["auth", "remove", PEER], f"DELETE /v1/auth/{PEER}", {"status": "removed"}, {}, ["Revoked peer"]),
    (["service", "add", "ssh", "localhost:22"], "POST /v1/services", {**SERVICE, "warning": "nothing answers"},
     {"name": "ssh", "local_address": "localhost:22", "protocol": "", "allowed_peers": []}, ["Added service: ssh -> localhost:22"]),
    (["service", "list"], "GET /v1/services", [SERVICE], None, ["Services (1):", "ssh  ->  localhost:22  (enabled)"]),
    (["service", "list"], "GET /v1/services", [], None, ["No services configured."]),
    (["service", "disable", "ssh"], "POST /v1/services/ssh/disable", {"status": "x"}, {}, ["Disabled service: ssh"]),
    (["expose", "web", "localhost:80"], "POST /v1/expose", {"status": "exposed"},
     {"name": "web", "local_address": "localhost:80", "persist": False}, ["Exposed service: web"]),
    (["unexpose", "web"], "DELETE /v1/expose/web", {"status": "unexposed"}, {}, ["Unexposed service: web"]),
    (["peers"], "GET /v1/peers?all=false", [{"id": PEER, "addresses": [], "path": "DIRECT"}], None, ["DIRECT", "unknown"]),
    (["peers", "--all"], "GET /v1/peers?all=true", [], None, ["No peers connected."]),
    (["resolve", "home"], "POST /v1/resolve", {"name": "home", "peer_id": PEER, "source": "local_config"},
     {"name": "home"}, [f"home → {PEER} (source: local_config)"]),
    (["connect", "home", "ssh", "2222", "--persist"], "POST /v1/connect", PROXY,
     {"peer": "home", "service": "ssh", "listen": "127.0.0.1:2222", "path": "any", "persist": True}, ["Proxy created: proxy-1"]),
    (["daemon", "connect", "--peer", "home", "--service", "ssh", "--listen", "127.0.0.1:2222"], "POST /v1/connect", PROXY,
     {"peer": "home", "service": "ssh", "listen": "127.0.0.1:2222", "path": "any", "persist": False}, ["Proxy created: proxy-1"]),
    (["disconnect", "proxy-1"], "DELETE /v1/connect/proxy-1", {"status": "x"}, {}, ["Proxy disconnected."]),
    (["proxies"], "GET /v1/proxies", [PROXY], None, ["proxy-1", "2 open"]),
    (["proxies"], "GET /v1/proxies", [], None, ["No proxies."]),
    (["relay", "list"], "GET /v1/relays", STATUS["relays"], None, ["lost (refused)", "/ip4/203.0.113.1/tcp/7777"]),
    (["relay", "list"], "GET /v1/relays", [], None, ["No relays configured."]),
    (["relay", "add", "203.0.113.1", "--peer-id", PEER], "POST /v1/relays", {"added": ["a"], "already": ["b"], "removed": []},
     {"addresses": ["203.0.113.1"], "peer_id": PEER}, ["Added relay: a", "Already configured: b"]),
    (["relay", "remove", "x", "--force"], "DELETE /v1/relays", {"added": [], "already": [], "removed": ["x"]},
     {"address": "x", "force": True}, ["Removed relay: x"]),
    (["ping", "home", "-c", "2", "--interval", "1ms"], "POST /v1/ping", PONG,
     {"peer": "home", "interval_ms": 1, "path": "any", "count": 1}, ["seq=2 rtt=1.2ms path=[DIRECT]", "2 sent, 2 received, 0% loss"]),
    (["daemon", "ping", "home", "-c", "1"], "POST /v1/ping", PONG, {"peer": "home", "interval_ms": 1000, "path": "any", "count": 1},
     ["PING home (12D3KooWLdJAwPty...):"]),
    (["daemon", "stop"], "POST /v1/shutdown", {"status": "shutting down"}, {}, ["Shutdown requested."]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "place", "answer", "asked", "shown"), CASES, ids=[" ".join(case[0][:3]) for case in CASES]
)
def test_a_command_asks_and_shows(daemon, capsys, words, place, answer, asked, shown):
    daemon.answers[place] = data(answer)
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in shown), out
    assert daemon.asked[-1] == (place, asked)
    assert "Authorization: Bearer c0ffee" in daemon.headers


@pytest.mark.parametrize("words", [["status"], ["peers", "--all"], ["daemon", "status"], ["auth", "list"]])
def test_json_is_the_data_without_its_envelope(daemon, capsys, words):
    for place in ("GET /v1/status", "GET /v1/peers?all=true", "GET /v1/auth"):
        daemon.answers[place] = data([{"id": "ü"}])
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"id": "ü"}]


def test_the_daemons_own_text_is_shown_as_it_is(daemon, capsys):
    daemon.answers["GET /v1/services"] = (200, b"ssh\tlocalhost:22\n", "")
    daemon.answers["GET /v1/peers?all=true"] = (200, b"x\n", "")
    assert cli.main(["daemon", "services"]) == 0
    assert cli.main(["daemon", "peers", "--all"]) == 0
    assert capsys.readouterr().out == "ssh\tlocalhost:22\nx\n"
    assert "Accept: text/plain" in daemon.headers


def test_lost_pings_are_counted_and_the_status_is_1(daemon, capsys):
    daemon.answers["POST /v1/ping"] = data(LOST)
    assert cli.main(["ping", "home", "-c", "1"]) == 1
    assert "seq=1 error=gone" in (out := capsys.readouterr().out)
    assert "100% loss" in out
    assert cli.main(["ping", "home", "-c", "1", "--json"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["lost"] == 1


@pytest.mark.parametrize(("code", "status", "summed_up"), [("unreachable", 0, True), ("daemon-not-running", 5, False)])
def test_a_peer_that_has_answered_may_be_away_for_a_while_but_the_daemon_may_not(
    daemon, capsys, code, status, summed_up
):
    def answer(connection: socket.socket, said: tuple[int, bytes, str]) -> None:
        status, body, _ = said
        connection.sendall(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    def once(connection: socket.socket) -> None:
        daemon.answers["POST /v1/ping"] = error(503, code, "nobody there")
        answer(connection, data(PONG))

    daemon.answers["POST /v1/ping"] = once
    assert cli.main(["ping", "home", "-c", "2", "--interval", "1ms"]) == status
    out = capsys.readouterr().out
    assert ("seq=2 error=nobody there" in out) is summed_up
    assert ("50% loss" in out) is summed_up


def test_a_valid_allowlist_passes_and_a_broken_one_is_status_2(daemon, capsys):
    daemon.answers["GET /v1/auth/validate"] = data({"file": "f", "valid": 2, "problems": []})
    assert cli.main(["auth", "validate"]) == 0
    assert "Valid peer IDs: 2" in capsys.readouterr().out
    daemon.answers["GET /v1/auth/validate"] = data({"file": "f", "valid": 1, "problems": ["line 3: no"]})
    assert cli.main(["auth", "validate"]) == 2
    assert cli.main(["auth", "validate", "--json"]) == 2
    assert "line 3: no" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["ping", "home", "--interval", "soon"], "--interval"),
        (["invite", "--ttl", "1d"], "--ttl"),
        (["proxy", "home", "ssh", "ssh"], "local port"),
        (["connect", "home", "ssh", "99999"], "local port"),
        (["relay", "add", "203.0.113.1"], "--peer-id"),
        (["relay", "add", "relay.example"], "IP address"),
    ],
)
def test_bad_words_are_refused_before_anybody_is_asked(daemon, capsys, words, wanted):
    assert cli.main(words) == 2
    assert wanted in capsys.readouterr().err
    assert not daemon.asked


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (error(404, "unknown-peer", "no peer 'x'", "names are in the config"), 2),
        (error(401, "unauthenticated", "no"), 3),
        (error(502, "protocol-violation", "junk"), 4),
        (error(502, "unreachable", "no path"), 5),
        (error(500, "of-a-newer-version", "what"), 70),
        ((500, b"not json", ""), 5),
    ],
)
def test_an_error_of_the_daemon_sets_the_status_by_its_family(daemon, capsys, answer, status):
    daemon.answers["POST /v1/resolve"] = answer
    assert cli.main(["resolve", "x"]) == status
    said = capsys.readouterr().err
    assert said.startswith("peerupctl: ")
    assert ("hint: names are" in said) == (status == 2)


@pytest.mark.parametrize(
    "words", [["peers"], ["proxies"], ["daemon", "status"], ["expose", "a", "localhost:1"], ["connect", "a", "b", "1"]]
)
def test_verbs_of_the_daemon_say_that_none_runs(home, capsys, words):
    assert cli.main(words) == 5
    assert "no daemon answers" in capsys.readouterr().err


def test_a_named_socket_that_does_not_answer_is_an_error(home, capsys):
    assert cli.main(["status", "--socket", str(home / "x.sock")]) == 5
    assert "daemon not running" in capsys.readouterr().err


def test_a_named_socket_is_used(tmp_path, home, capsys, monkeypatch):
    with FakeDaemon(tmp_path / "elsewhere", {"GET /v1/whoami": data({"peer_id": "me"})}) as daemon:
        monkeypatch.setenv("PEERUP_SOCKET", str(daemon.path))
        assert cli.main(["whoami"]) == 0
    assert capsys.readouterr().out == "me\n"


def test_a_socket_without_a_cookie_says_so(daemon, capsys):
    (daemon.folder / ".daemon-cookie").unlink()
    assert cli.main(["peers"]) == 5
    assert "cookie" in capsys.readouterr().err


def test_a_daemon_that_hangs_up_is_reported(daemon, capsys):
    daemon.answers["GET /v1/peers?all=false"] = lambda connection: connection.close()
    assert cli.main(["peers"]) == 5
    assert "hung up" in capsys.readouterr().err


def test_a_daemon_of_another_config_is_not_asked(daemon, home, monkeypatch, capsys):
    daemon.answers["GET /v1/status"] = data(STATUS)
    monkeypatch.setattr("peerupctl.client.Once.ask", lambda self, verb, request: {"peer_id": f"once:{self.config}"})
    assert cli.main(["whoami", "--config", "/other.yaml"]) == 0
    assert capsys.readouterr().out == "once:/other.yaml\n"


def test_an_interrupt_is_130(daemon, monkeypatch):
    monkeypatch.setattr("peerupctl.call.Call.parse", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli.main(["peers"]) == 130
