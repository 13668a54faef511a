"""The main job as its user types it: services, proxies, pipes, pings and lists between a home and a laptop.

One relay, one home and one laptop serve all tests here; each test puts back what it changes.
"""

from __future__ import annotations

import errno
import json
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.cluster import Machine, end, free_port, wait_for
from tests.support.pair import Pair

KIB, MIB = 1 << 10, 1 << 20
STRANGER = "12D3KooWLdJAwPtyQ5RFnr9wGXsQzpf3P2SeqFbYkqbfVehLu4Ns"
PEER_ID = r"12D3KooW[1-9A-HJ-NP-Za-km-z]{44}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair.make(tmp_path_factory.mktemp("main"))
    wait_for("a direct path", lambda: pair.laptop.ctl("ping", "home", "-c", "1") and pair.path() == "DIRECT")
    yield pair
    pair.close()


# -- what is shown -------------------------------------------------------------------------------------------------

NODE_STATUS = {"peer_id", "version", "uptime_seconds", "connected_peers", "relay_addresses", "relays", "problems"}
LOOKS = [
    ("laptop", "status", r"\Apeerup \S+  running for .*^relay \S+  reserved$.*^peers connected: 2$", NODE_STATUS),
    ("laptop", "daemon status", r"\Apeer_id: \S+\nversion: \S+\nuptime: \d+s\nconnected_peers: 2\n", NODE_STATUS),
    ("laptop", "whoami", rf"\A{PEER_ID}\n\Z", {"peer_id"}),
    ("laptop", "version", r"\Apeerup \S+ \(\S+\) built \S+\nPython 3\.", {"version", "commit", "built", "python"}),
    ("laptop", "--version", r"\Apeerup \S+ \(", {"version", "commit", "built", "python"}),
    ("laptop", "peers", r"^12D3KooW\S+\.\.\.  home  +DIRECT  peerup/", {"id", "name", "path", "addresses"}),
    ("laptop", "daemon peers", r"^12D3KooW\S+\.\.\.\tpeerup/\S+\t\d+ addrs$", {"id", "addresses"}),
    (
        "home",
        "service list",
        r"\AServices \(\d\):\n.*^  echo  +->  127\.0\.0\.1:\d+  \(enabled\)$",
        {"name", "enabled"},
    ),
    ("home", "daemon services", r"^echo\t127\.0\.0\.1:\d+\t/peerup/echo/1\.0\.0\tenabled$", {"name", "protocol"}),
    (
        "home",
        "auth list",
        rf"\AAuthorized peers \(1\):\n\n  1\. \S+  # laptop\n     {PEER_ID}\n",
        {"peer_id", "comment"},
    ),
    ("home", "auth validate", r"\AValidation passed\n  Valid peer IDs: 1\n  File: ", {"file", "valid", "problems"}),
    (
        "home",
        "relay list",
        r"^12D3KooW\S+\.\.\.  reserved\n  /ip4/127\.0\.0\.1/tcp/",
        {"peer_id", "state", "addresses"},
    ),
    ("laptop", "resolve home", rf"\Ahome → {PEER_ID} \(source: local_config\)$", {"name", "peer_id", "source"}),
    ("laptop", "proxies", r"\ANo proxies\.\n\Z", set()),
]


@pytest.mark.parametrize(("machine", "words", "text", "keys"), LOOKS, ids=[look[1] for look in LOOKS])
def test_what_is_shown_is_text_for_eyes_and_json_for_programs(pair: Pair, machine, words, text, keys):
    """A JSON list is judged by all its elements together."""
    place: Machine = getattr(pair, machine)
    said = place.ctl(*words.split()).stdout
    assert re.search(text, said, re.MULTILINE | re.DOTALL), said
    data = place.ask(*words.split())
    shown = data if isinstance(data, list) else [data]
    assert keys <= {key for each in shown for key in each}


def test_peerup_is_the_same_program(pair: Pair):
    peerup = Path(sys.executable).with_name("peerup")
    done = subprocess.run([peerup, "daemon", "status"], env=pair.home.env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("peer_id: ")


def test_help_lists_every_command_and_a_mistyped_one_is_met_with_the_nearest(pair: Pair):
    assert "  relay deauthorize " in pair.laptop.ctl("help").stdout
    done = pair.laptop.ctl("servce", "list", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean: service list" in done.stderr


# -- pings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["relay", "direct"])
def test_a_ping_says_which_path_it_took(pair: Pair, path):
    said = pair.laptop.ctl("ping", "home", "-c", "2", "--interval", "10ms", "--path", path).stdout
    label = {"relay": "RELAYED", "direct": "DIRECT"}[path]
    assert said.startswith("PING home (12D3KooW")
    assert len(re.findall(rf"^seq=[12] rtt=\d+\.\dms path=\[{label}\]$", said, re.MULTILINE)) == 2
    assert "2 sent, 2 received, 0% loss, rtt min/avg/max = " in said


def test_pings_as_json_are_a_line_each_and_then_the_statistics(pair: Pair):
    lines = pair.laptop.ctl("ping", "home", "-c", "2", "--interval", "10ms", "--json").stdout.splitlines()
    *pings, stats = map(json.loads, lines)
    assert [ping["seq"] for ping in pings] == [1, 2]
    assert (stats["sent"], stats["received"], stats["loss_pct"]) == (2, 2, 0.0)


def test_the_daemons_ping_pings_four_times(pair: Pair):
    said = pair.laptop.ctl("daemon", "ping", "home", "--interval", "10").stdout
    assert "4 sent, 4 received" in said


def test_ping_goes_on_until_it_is_interrupted_and_then_sums_up(pair: Pair):
    ping = pair.cluster.begin(pair.laptop, "ping", "home", "--interval", "20ms")
    said = [ping.stdout.readline() for _ in range(6)]
    assert said[5].startswith("seq=5 ")
    ping.send_signal(signal.SIGINT)
    rest, _ = ping.communicate(timeout=60)
    assert " received, 0% loss" in rest
    assert ping.returncode == 0


def test_ping_goes_on_while_the_peer_is_away(pair: Pair):
    ping = pair.cluster.begin(pair.laptop, "ping", "home", "--interval", "50ms")
    lines = iter(ping.stdout.readline, "")
    assert any("rtt=" in line for line in lines)
    pair.home.stop()
    assert any(" error=" in line for line in lines)
    pair.home.start()
    assert any("rtt=" in line for line in lines)
    assert end(ping) == 0
    pair.await_reservation(pair.home)
    wait_for("a direct path", lambda: pair.laptop.ctl("ping", "home", "-c", "1") and pair.path() == "DIRECT")


# -- services ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["relay", "direct"])
def test_bytes_arrive_whole_both_ways_and_each_way_ends_by_itself(pair: Pair, path):
    with pair.proxy("source", path) as port:
        seen = pair.client("download", port, 8 * MIB)
        assert (seen["right"], seen["end"]) == (True, "eof")
    with pair.proxy("sink", path) as port:  # it answers after the end of what it reads
        assert pair.client("upload", port, 8 * MIB)["right"]
    with pair.proxy("echo", path) as port:
        assert pair.client("interactive", port, 50)["right"]


@pytest.mark.parametrize("path", ["relay", "direct"])
def test_300_connections_at_once(pair: Pair, path):
    with pair.proxy("echo", path) as port:
        seen = pair.client("many", port, 300, 64 * KIB)
    print(f"300 connections, --path {path}: {seen['seconds']} s")
    assert (seen["right"], seen["of"]) == (300, 300)


def test_a_service_is_added_closed_opened_and_removed_while_the_daemon_runs(pair: Pair):
    with echo_server() as port, pair.proxy("another") as door:
        added = pair.home.ask("service", "add", "another", f"127.0.0.1:{port}", "--protocol", "a note")
        assert (added["name"], added["enabled"], added["protocol"]) == ("another", True, "a note")
        assert "warning" not in added
        assert said_back(door) == b"hello"
        with socket.create_connection(("127.0.0.1", door), 60) as running:
            running.sendall(b"1")
            assert running.recv(1) == b"1"
            assert pair.home.ctl("service", "disable", "another").stdout == "Disabled service: another\n"
            assert said_back(door) == "reset"
            running.sendall(b"2")
            assert running.recv(1) == b"2"
            assert pair.home.ctl("service", "enable", "another").stdout == "Enabled service: another\n"
            assert said_back(door) == b"hello"
            assert pair.home.ctl("service", "remove", "another").stdout == "Removed service: another\n"
            with pytest.raises(ConnectionResetError):
                assert running.recv(1), "a removed service's connection must not end cleanly"
        assert said_back(door) == "reset"


def test_a_service_that_nobody_serves_is_added_with_a_warning(pair: Pair):
    done = pair.home.ctl("service", "add", "silent", f"127.0.0.1:{free_port()}")
    assert done.stdout.startswith("Added service: silent -> 127.0.0.1:")
    assert done.stderr.startswith("warning: nothing answers at 127.0.0.1:")
    pair.home.ctl("service", "remove", "silent")


def test_a_service_on_a_unix_socket_behind_a_proxy_on_a_unix_socket(pair: Pair):
    there, here = pair.home.home / "service.sock", pair.laptop.home / "proxy.sock"
    with echo_server(there):
        pair.home.ctl("service", "add", "local", f"unix:{there}")
        made = pair.laptop.ask("connect", "home", "local", f"unix:{here}")
        assert made["listen_address"] == f"unix:{here}"
        assert said_back(here) == b"hello"
        pair.laptop.ctl("disconnect", made["id"])
        wait_for("the socket to go", lambda: not here.exists())
        pair.home.ctl("service", "remove", "local")


def test_a_service_for_one_peer_is_closed_to_others(pair: Pair):
    with echo_server() as port, pair.proxy("private") as door:
        pair.home.ctl("service", "add", "private", f"127.0.0.1:{port}", "--allow", STRANGER)
        assert said_back(door) == "reset"
        pair.home.ctl("service", "remove", "private")
        pair.home.ctl("service", "add", "private", f"127.0.0.1:{port}", "--allow", STRANGER, "--allow", "laptop")
        shown = next(each for each in pair.home.ask("service", "list") if each["name"] == "private")
        assert shown["allowed_peers"] == [STRANGER, pair.laptop.ctl("whoami").stdout.strip()]
        assert said_back(door) == b"hello"
        pair.home.ctl("service", "remove", "private")


def test_an_exposed_service_lives_in_the_daemon_only(pair: Pair):
    before = pair.home.config.read_bytes()
    with echo_server() as port, pair.proxy("shown") as door:
        said = pair.home.ctl("expose", "shown", f"127.0.0.1:{port}").stdout
        assert said == f"Exposed service: shown -> 127.0.0.1:{port}\n"
        assert said_back(door) == b"hello"
        assert pair.home.ctl("unexpose", "shown").stdout == "Unexposed service: shown\n"
        assert said_back(door) == "reset"
    assert pair.home.config.read_bytes() == before


# -- proxies and pipes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [[], ["--json"]], ids=["text", "json"])
def test_a_proxy_in_the_foreground_ends_with_its_command(pair: Pair, how):
    proxy = pair.cluster.begin(pair.laptop, "proxy", "home", "echo", "0", *how)
    line = proxy.stdout.readline()
    address = json.loads(line)["listen_address"] if how else line.removeprefix("TCP proxy listening on ").strip()
    port = int(address.rpartition(":")[2])
    assert said_back(port) == b"hello"
    assert pair.laptop.ask("proxies")[0]["listen_address"] == f"127.0.0.1:{port}"
    assert end(proxy) == 0
    wait_for("the proxy's end", lambda: not pair.laptop.ask("proxies"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_proxy_of_the_daemon_is_listed_with_its_connections_until_it_is_ended(pair: Pair):
    port = free_port()
    said = pair.laptop.ctl("connect", "home", "echo", str(port)).stdout
    name = re.fullmatch(rf"Proxy created: (proxy-\d+) -> home:echo \(listen: 127\.0\.0\.1:{port}\)\n", said)
    assert name, said
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        assert pair.laptop.ctl("proxies").stdout.split() == [
            *(name[1], f"127.0.0.1:{port}", "->", "home:echo", "any", "1", "open")
        ]
        assert pair.laptop.ctl("disconnect", name[1]).stdout == "Proxy disconnected.\n"
        with pytest.raises(ConnectionResetError):
            assert connection.recv(1), "an ended proxy's connection must not end cleanly"
    assert pair.laptop.ask("proxies") == []


def test_the_seeds_spelling_of_connect_and_disconnect(pair: Pair):
    listen = f"127.0.0.1:{free_port()}"
    said = pair.laptop.ctl("daemon", "connect", "--peer", "home", "--service", "echo", "--listen", listen).stdout
    name = re.search(r"proxy-\d+", said)
    assert name, said
    assert said_back(int(listen.rpartition(":")[2])) == b"hello"
    assert pair.laptop.ctl("daemon", "disconnect", name[0]).stdout == "Proxy disconnected.\n"


@pytest.mark.parametrize("running", [True, False], ids=["daemon", "alone"])
def test_a_pipe_is_the_service_on_stdin_and_stdout(pair: Pair, running):
    """As ssh's ProxyCommand uses it; without a daemon it makes a host of its own."""
    content = bytes(range(256)) * 4096
    if not running:
        pair.laptop.stop()
    done = subprocess.run(
        pair.laptop.command("pipe", "home", "echo"),
        env=pair.laptop.env,
        input=content,
        capture_output=True,
        timeout=60,
        check=False,
    )
    if not running:
        pair.laptop.start()
        pair.await_reservation(pair.laptop)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == content


@pytest.mark.parametrize("path", ["relay", "direct"])
def test_a_service_that_cuts_its_connection_is_never_taken_for_one_that_has_ended(pair: Pair, path):
    with pair.proxy("cutter", path) as port:
        assert said_back(port, b"a line\n") == "reset"


def test_persistent_proxies_come_back_after_a_restart(pair: Pair):
    port = free_port()
    made = pair.laptop.ask("connect", "home", "echo", str(port), "--persist")
    assert f'listen: "127.0.0.1:{port}"' in pair.laptop.config.read_text()
    assert said_back(port) == b"hello"
    assert pair.laptop.stop() == 0
    pair.laptop.start()
    standing = wait_for("the proxy", lambda: pair.laptop.ask("proxies"))
    assert [(each["listen_address"], each["persist"]) for each in standing] == [(made["listen_address"], True)]
    assert said_back(port) == b"hello"
    pair.laptop.ctl("disconnect", standing[0]["id"])
    assert str(port) not in pair.laptop.config.read_text()
    pair.await_reservation(pair.laptop)


# -- relays, the allowlist, the file -------------------------------------------------------------------------------


def test_several_addresses_of_a_relay_are_one_relay_and_one_reservation(pair: Pair):
    second = f"/ip6/::1/tcp/{pair.relay.port}/p2p/{pair.relay.peer_id}"
    assert pair.laptop.ctl("relay", "add", second).stdout == f"Added relay: {second}\n"
    assert pair.laptop.ctl("relay", "add", second).stdout == f"Already configured: {second}\n"
    (relay,) = pair.laptop.ask("relay", "list")
    assert relay["addresses"] == [pair.relay.multiaddr, second]
    pair.await_reservation(pair.laptop)
    assert pair.laptop.ctl("relay", "remove", second).stdout == f"Removed relay: {second}\n"
    pair.await_reservation(pair.laptop)


def test_an_entry_of_the_allowlist_is_added_with_an_end_shown_and_removed(pair: Pair):
    words = ("--comment", "a friend", "--expires", "2099-01-31T00:00:00Z")
    assert pair.home.ctl("auth", "add", STRANGER, *words).stdout == f"Authorized peer: {STRANGER[:16]}...\n"
    shown = pair.home.ask("auth", "list")[-1]
    assert (shown["peer_id"], shown["comment"]) == (STRANGER, "a friend")
    assert shown["expires_at"] == "2099-01-31T00:00:00Z"
    assert pair.home.ctl("auth", "remove", STRANGER).stdout == f"Revoked peer: {STRANGER[:16]}...\n"
    assert STRANGER not in pair.home.config.with_name("authorized_keys").read_text()


def test_the_relays_owner_sees_and_changes_who_may_use_it(pair: Pair):
    place = ("--config", str(pair.relay.config))
    pair.relay.authorize(STRANGER, "a friend")
    said = pair.relay.machine.ctl("relay", "list-peers", *place).stdout
    assert f"  {STRANGER}  # a friend\nTotal: 3 peer(s)\n" in said
    vouched = pair.relay.machine.ask("relay", "list-peers", *place)[1]
    assert vouched["vouched_by"] == pair.home.ctl("whoami").stdout.strip()
    assert pair.relay.machine.ask("relay", "info", *place)["peer_id"] == pair.relay.peer_id
    said = pair.relay.machine.ctl("relay", "deauthorize", STRANGER, *place).stdout
    assert said == f"Deauthorized: {STRANGER[:16]}...\n"


def test_edits_by_command_keep_every_comment_and_the_order(pair: Pair):
    before = pair.home.config.read_text()
    pair.home.config.write_text(before.replace("services:\n", "services:  # mine\n  # the first\n", 1))
    marked = comments(pair.home.config)
    assert len(marked) > 20
    pair.home.ctl("service", "add", "extra", "127.0.0.1:9")
    pair.home.ctl("service", "disable", "extra")
    second = f"/ip6/::1/tcp/{pair.relay.port}/p2p/{pair.relay.peer_id}"
    pair.home.ctl("relay", "add", second)
    assert 'extra:\n    enabled: false\n    local_address: "127.0.0.1:9"\n' in pair.home.config.read_text()
    assert comments(pair.home.config) == marked
    pair.home.ctl("relay", "remove", second)
    pair.home.ctl("service", "remove", "extra")
    assert comments(pair.home.config) == marked
    assert pair.home.config.read_text().replace("services:  # mine\n  # the first\n", "services:\n", 1) == before
    pair.await_reservation(pair.home)


# -- helpers -------------------------------------------------------------------------------------------------------


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


class _TcpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def echo_server(path: Path | None = None) -> Iterator[int]:
    """Sends back what comes, over TCP (its port is given) or at a Unix socket."""
    server = _UnixServer(str(path), _Echo) if path else _TcpServer(("127.0.0.1", 0), _Echo)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield 0 if path else server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def said_back(place: int | Path, words: bytes = b"hello") -> bytes | str:
    """What comes back from there until the end; `reset` if it ends so."""
    family = socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(40)
        answer = b""
        try:
            connection.connect(str(place) if isinstance(place, Path) else ("127.0.0.1", place))
            connection.sendall(words)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                answer += data
        except (ConnectionResetError, BrokenPipeError):
            return "reset"
        except OSError as why:
            if why.errno != errno.ENOTCONN:  # it was reset before our end could be told
                raise
            return "reset"
    return answer


def comments(config: Path) -> list[str]:
    """The comments of a file, in order."""
    return [line[line.index("#") :] for line in config.read_text().splitlines() if "#" in line]
