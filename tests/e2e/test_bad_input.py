"""Bad input gets one clear sentence and a documented exit status (`peerupctl.cli`), and changes nothing."""

from __future__ import annotations

import base64
import dataclasses
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from peerupd.model.addresses import RelayAddress
from peerupd.model.names import PeerId
from peerupd.wire import invite as codes
from tests.support.cluster import Cluster, Machine, RelayMachine, end, free_port, wait_for
from tests.support.pair import Pair
from tests.support.refusals import books, refused, start_fails

STRANGER = "12D3KooWLdJAwPtyQ5RFnr9wGXsQzpf3P2SeqFbYkqbfVehLu4Ns"
S3_BAR = 1.5  # seconds; what a Go node takes with its relay unreachable is 15
CANNOT_BE, REFUSED, THEIR_FAULT, IN_THE_WAY = 2, 3, 4, 5


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair.make(tmp_path_factory.mktemp("bad"))
    yield pair
    pair.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Machine]:
    """A machine of its own, set up without a relay, listening on loopback only."""
    with Cluster(tmp_path / "machines") as cluster:
        machine = cluster.machine("alone")
        machine.ctl("init", "--non-interactive")
        yield machine


# -- codes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("", "no invite code"),
        ("hello world!", "not an invite code"),
        ("AEAK-VWKJ-YBIP-VML7", "too short"),
        ("AEAKVWKJ" * 20, "damaged or not complete"),
    ],
    ids=["none", "words", "short", "damaged"],
)
def test_a_code_that_cannot_be_read_makes_no_files(pair: Pair, code, says):
    fresh = pair.cluster.machine(f"fresh-{len(pair.cluster.machines)}")
    refused(fresh, "join", "--non-interactive", say=code + "\n", status=CANNOT_BE, says=says)
    assert list(fresh.home.iterdir()) == []


def test_a_code_of_the_older_dialect_is_named_as_such(pair: Pair):
    relay, inviter = pair.relay, pair.home.ctl("whoami").stdout.strip()
    code = legacy_code(relay, inviter)
    said = refused(pair.laptop, "join", "--non-interactive", code, status=CANNOT_BE, says="older peer-up")
    assert "--allow-legacy" in said


def test_one_wrong_code_tells_the_joiner_and_does_no_harm(pair: Pair):
    with invited(pair.home) as (invite, code):
        said = refused(pair.laptop, "join", "--non-interactive", wrong(code), status=THEIR_FAULT, says="code")
        print(said)
        assert pair.laptop.ctl("join", "--non-interactive", "--name", "laptop", code).returncode == 0
        assert invite.wait(60) == 0


def test_three_wrong_guesses_burn_the_code(pair: Pair):
    """Guessed by somebody whom the relay knows; and he keeps what he has there."""
    before = books(pair.home)
    with invited(pair.home) as (invite, code):
        for _ in range(3):
            refused(pair.laptop, "join", "--non-interactive", wrong(code), status=THEIR_FAULT, says="code")
        assert "three wrong guesses" in invite.communicate(timeout=60)[1]
        assert invite.returncode == 1
        refused(pair.laptop, "join", "--non-interactive", code, status=REFUSED, says="code")
    assert books(pair.home) == before
    assert pair.laptop.ask("daemon", "status")["relay_addresses"]


def test_a_stranger_without_the_right_code_does_not_even_get_to_guess(pair: Pair):
    before = books(pair.home)
    stranger = initialised(pair, "stranger")
    with invited(pair.home) as (invite, code):
        for _ in range(4):
            refused(stranger, "join", "--non-interactive", wrong(code), status=REFUSED, says="code")
        assert invite.poll() is None
    assert books(pair.home) == before


def test_an_expired_code_is_refused_to_friends_and_strangers(pair: Pair):
    before = books(pair.home)
    with invited(pair.home, "--ttl", "1s") as (invite, code):
        assert invite.wait(60) == 1
    for joiner in (pair.laptop, initialised(pair, "expired")):
        said = refused(joiner, "join", "--non-interactive", code, status=REFUSED, says="code")
        assert "A code ends with its first success or its time" in said
    assert books(pair.home) == before


def test_ones_own_code_is_for_the_other_machine(pair: Pair):
    with invited(pair.home) as (_, code):
        refused(pair.home, "join", "--non-interactive", code, status=CANNOT_BE, says="your own invite code")


# -- names and services --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["ping", "nobody", "-c", "1"],
        ["resolve", "nobody"],
        ["pipe", "nobody", "echo"],
        ["proxy", "nobody", "echo", "0"],
        ["connect", "nobody", "echo", "0"],
        ["connect", "nobody", "echo", "0", "--persist"],
        ["auth", "remove", "nobody"],
        ["service", "add", "x", "localhost:1", "--allow", "nobody"],
    ],
    ids=" ".join,
)
def test_a_peer_that_nobody_knows(pair: Pair, words):
    said = refused(pair.laptop, *words, status=CANNOT_BE, says='cannot resolve "nobody"')
    assert "known names: home" in said


def test_a_peer_that_is_known_and_away(pair: Pair):
    said = refused(
        pair.laptop, "ping", STRANGER, "-c", "1", status=IN_THE_WAY, says=f"peer {STRANGER} cannot be reached"
    )
    assert "see that the other node runs" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["service", "add", "Bad_Name", "localhost:1"], "invalid service name 'Bad_Name'"),
        (["service", "add", "ping", "localhost:1"], "reserved"),
        (["service", "add", "x", "no-port"], "cannot read the address 'no-port'"),
        (["service", "add", "x", "unix:relative"], "cannot read the address"),
        (["service", "add", "echo", "localhost:1"], "already registered: echo"),
        (["service", "remove", "nope"], "service not found: nope"),
        (["service", "disable", "nope"], "service not found: nope"),
        (["unexpose", "nope"], "service not found: nope"),
        (["expose", "echo", "localhost:1"], "already registered: echo"),
        (["connect", "laptop", "Bad_Name", "0"], "invalid service name"),
        (["connect", "laptop", "echo", "70000"], "0 to 65535"),
        (["disconnect", "proxy-999"], "proxy not found"),
        (["auth", "add", "junk"], "not a peer ID: 'junk'"),
        (["auth", "add", STRANGER, "--expires", "tomorrow"], "expires='tomorrow'"),
        (["auth", "remove", STRANGER], "peer not found"),
        (["relay", "add", "relay.example"], "cannot read the address 'relay.example'"),
        (["relay", "add", "203.0.113.1"], "does not say who the relay is"),
        (["relay", "remove", "/ip4/203.0.113.1/tcp/1"], "relay not configured"),
        (["invite", "--ttl", "0s"], "cannot live for 0 s"),
        (["invite", "--ttl", "soon"], "wanted a duration"),
        (["init", "--non-interactive"], "exists already"),
        (["ping"], "required: peer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_request_that_cannot_be(pair: Pair, words, says):
    refused(pair.home, *words, status=CANNOT_BE, says=says)


def test_the_last_relay_goes_only_by_force(pair: Pair):
    said = refused(pair.laptop, "relay", "remove", pair.relay.multiaddr, status=CANNOT_BE, says="the last relay")
    assert "--force" in said


def test_a_service_that_is_down_resets_its_clients(pair: Pair):
    pair.home.ctl("service", "add", "down", f"127.0.0.1:{free_port()}")
    with pair.proxy("down") as port:
        assert ends_in_a_reset(port)
    for _ in range(3):
        done = pair.laptop.ctl("pipe", "home", "down", check=False)
        assert (done.returncode in (THEIR_FAULT, IN_THE_WAY), done.stdout) == (True, ""), done.stderr
    pair.home.ctl("service", "remove", "down")


def test_a_service_that_the_peer_does_not_have(pair: Pair):
    said = refused(pair.laptop, "pipe", "home", "nope", status=THEIR_FAULT, says="does not speak /peerup/nope/1.0.0")
    assert said.count("\n") <= 2
    with pair.proxy("nope") as port:
        assert ends_in_a_reset(port)


# -- what is taken already -----------------------------------------------------------------------------------------


def test_a_port_that_a_proxy_cannot_have(pair: Pair):
    with listener() as port:
        for words in (["connect", "home", "echo", str(port)], ["connect", "home", "echo", str(port), "--persist"]):
            refused(pair.laptop, *words, status=IN_THE_WAY, says=f"cannot listen on 127.0.0.1:{port}")
        refused(pair.laptop, "proxy", "home", "echo", str(port), status=IN_THE_WAY, says="the address is in use")


def test_a_listen_address_that_is_taken(alone: Machine):
    with listener() as port:
        change(alone, '"/ip4/0.0.0.0/tcp/0"', f'"/ip4/127.0.0.1/tcp/{port}"')
        start_fails(alone, status=IN_THE_WAY, says=f"/ip4/127.0.0.1/tcp/{port}")


def test_a_relays_port_that_is_taken(pair: Pair, tmp_path: Path):
    with Cluster(tmp_path / "machines") as cluster:
        machine = cluster.machine("second")
        made = machine.ask("relay", "setup", "--dir", str(machine.home), "--address", "127.0.0.1", "--non-interactive")
        config = Path(made["config"])
        config.write_text(config.read_text().replace("/tcp/7777", f"/tcp/{pair.relay.port}"))
        start_fails(machine, "relay", "--config", str(config), status=IN_THE_WAY, says=f"tcp/{pair.relay.port}")


def test_a_file_where_the_control_socket_wants_to_be(alone: Machine):
    alone.config.with_name("peerup.sock").write_text("mine\n")
    start_fails(alone, status=IN_THE_WAY, says="it is not a socket")


@pytest.mark.parametrize("words", [["daemon"], ["daemon", "start", "--socket", "other.sock"]], ids=" ".join)
def test_a_second_daemon_is_refused_and_the_first_does_not_care(pair: Pair, words):
    said = refused(pair.laptop, *words, status=CANNOT_BE, says="daemon already running")
    assert str(pair.laptop.daemon.process.pid) in said
    assert pair.laptop.ctl("daemon", "status").returncode == 0


def test_what_wants_a_daemon_says_so(alone: Machine):
    for words in (
        "peers",
        "daemon status",
        "daemon stop",
        "connect a b 1",
        "disconnect proxy-1",
        "expose a localhost:1",
    ):
        said = refused(alone, *words.split(), status=IN_THE_WAY, says="no daemon answers")
        assert "peerupctl daemon" in said


# -- the relay is away ---------------------------------------------------------------------------------------------


def test_a_relay_that_cannot_be_reached_holds_nobody_up(tmp_path: Path):
    """One port is closed, one address swallows everything."""
    with Cluster(tmp_path / "machines") as cluster:
        machine = cluster.machine("lonely")
        machine.ctl("init", "--non-interactive", "--relay", f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/{STRANGER}")
        machine.ctl("relay", "add", f"/ip4/198.51.100.1/tcp/7777/p2p/{STRANGER}")
        took = machine.start()
        print(f"ready after {took:.2f} s with the relay unreachable")
        assert took < 3 * S3_BAR
        seen = machine.ask("status")
        assert [relay["state"] for relay in seen["relays"]] in (["reserving"], ["lost"])
        assert any("reserved on 0 of 1 relays" in said for said in wait_for("a status", lambda: statuses(machine)))


def test_an_invite_needs_a_relay(alone: Machine):
    said = refused(alone, "invite", status=IN_THE_WAY, says="needs a relay that holds a slot")
    assert "peerupctl relay add" in said


def test_joining_over_a_relay_that_is_gone(pair: Pair):
    with invited(pair.home) as (_, code):
        gone = RelayAddress.parse(f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/{pair.relay.peer_id}")
        lost = codes.encode(dataclasses.replace(codes.decode(code), relay=gone))
        machine = initialised(pair, "lost")
        refused(
            machine, "join", "--non-interactive", lost, status=IN_THE_WAY, says="cannot reach the relay of the code"
        )


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_key_that_cannot_be_read(alone: Machine):
    key = alone.config.with_name("identity.key")
    for junk in (b"", key.read_bytes()[:-1]):
        key.write_bytes(junk)
        key.chmod(0o600)
        start_fails(alone, status=CANNOT_BE, says=f"cannot use the key file {key}")
        refused(alone, "whoami", status=CANNOT_BE, says=f"cannot use the key file {key}")


@pytest.mark.parametrize(
    ("file", "mode"), [("identity.key", 0o644), ("authorized_keys", 0o644), ("config.yaml", 0o666)], ids=str
)
def test_a_file_that_is_open_to_others(alone: Machine, file, mode):
    path = alone.config.with_name(file)
    path.chmod(mode)
    said = start_fails(alone, status=CANNOT_BE, says=f"{path} has insecure permissions 0{mode:o}")
    assert re.search(rf"chmod \d+ {path}", said)


def test_an_allowlist_that_is_missing_is_not_taken_for_an_empty_one(alone: Machine):
    path = alone.config.with_name("authorized_keys")
    path.unlink()
    start_fails(alone, status=CANNOT_BE, says=f"the allowlist {path} does not exist")


def test_all_problems_of_a_config_are_told_at_once_with_their_lines(alone: Machine):
    change(alone, "force_private_reachability: false", "force_private_reachability: perhaps")
    change(alone, 'reservation_interval: "2m"', "reservation_interval: soon")
    change(alone, "services: {}", "services:\n  Bad_Name: {local_address: nowhere}")
    change(alone, '"/ip4/0.0.0.0/tcp/0"', '"/ip4/300.0.0.1/tcp/0"')
    said = start_fails(alone, status=CANNOT_BE, says=str(alone.config))
    told = re.findall(r"^  line (\d+): (\S+)", said, re.MULTILINE)
    assert len(told) >= 4, said
    assert [int(line) for line, _ in told] == sorted(int(line) for line, _ in told)
    refused(alone, "status", status=CANNOT_BE, says=str(alone.config))


def test_an_unknown_key_is_a_warning_that_names_the_nearest_one(alone: Machine):
    alone.config.write_text(
        alone.config.read_text().replace("force_private_reachability", "force_private_reachibility")
    )
    alone.start()
    assert re.search(r"line \d+: .*force_private_reachibility.*force_private_reachability", alone.daemon.words())
    assert any("force_private_reachibility" in problem for problem in alone.ask("status")["problems"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "none", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.lab
@pytest.mark.parametrize("running", [True, False], ids=["daemon", "files"])
def test_a_full_disk_changes_nothing(small_disk: Path, tmp_path: Path, running):
    with Cluster(tmp_path / "machines") as cluster:
        machine = cluster.machine("crowded")
        (machine.home / ".config").mkdir()
        machine.config.parent.symlink_to(small_disk)
        machine.ctl("init", "--non-interactive")
        if running:
            machine.start()
        with (small_disk / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError, match="No space left"):
            while True:
                ballast.write(b"x" * 4096)
        words = ["service", "add", "ssh", "localhost:22"]
        refused(machine, *words, status=IN_THE_WAY, says="no space left on device")
        refused(machine, "auth", "add", STRANGER, status=IN_THE_WAY, says="no space left on device")
        refused(
            machine,
            "relay",
            "add",
            f"/ip4/203.0.113.1/tcp/1/p2p/{STRANGER}",
            status=IN_THE_WAY,
            says="no space left on device",
        )
        assert machine.ask("service", "list") == []
        assert machine.ask("auth", "list") == []
        (small_disk / "ballast").unlink()
        assert machine.ctl(*words).returncode == 0


# -- junk ----------------------------------------------------------------------------------------------------------

JUNK = {
    "random": os.urandom(4096),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 50,
    "tls": bytes.fromhex("16030100f8010000f40303") + bytes(240),
    "lengths": b"\xff" * 65536,
    "zeros": bytes(1 << 20),
    "half a hello": b"\x13/multistream/1.0.0\n\x13/multi",
    "bad utf-8": b"\x13/multistream/1.0.0\n\x05\xff\xfe\xfd\xfc\n",
    "nothing": b"",
}


@pytest.mark.parametrize("junk", JUNK)
def test_junk_on_every_listening_socket_harms_nobody(pair: Pair, junk):
    with pair.proxy("echo") as port:
        for place in [*tcp_places(pair), ("127.0.0.1", port), *(str(socket_of(m)) for m in (pair.home, pair.laptop))]:
            throw(JUNK[junk], place)
        assert pair.client("interactive", port, 3)["right"]
    assert pair.laptop.ctl("ping", "home", "-c", "1").returncode == 0
    for machine in (pair.relay.machine, pair.home, pair.laptop):
        assert machine.daemon.process.poll() is None
        assert "Traceback" not in machine.daemon.log.read_text()


# -- helpers -------------------------------------------------------------------------------------------------------


def change(machine: Machine, old: str, new: str) -> None:
    """One edit of the configuration by hand."""
    text = machine.config.read_text()
    assert old in text
    machine.config.write_text(text.replace(old, new, 1))


def statuses(machine: Machine) -> list[str]:
    """The status lines that the service manager has heard."""
    return [said for said in machine.daemon.hear() if said.startswith("STATUS=")]


def initialised(pair: Pair, name: str) -> Machine:
    """A machine with files and without friends."""
    machine = pair.cluster.machine(name)
    machine.ctl("init", "--non-interactive")
    return machine


@contextmanager
def invited(home: Machine, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A waiting invite, and its code; it ends with the block."""
    invite = subprocess.Popen(
        home.command("invite", "--non-interactive", *words),
        env=home.env,
        cwd=home.home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield invite, invite.stdout.readline().strip()
    finally:
        end(invite)


def wrong(code: str) -> str:
    """The same code with another secret."""
    return codes.encode(dataclasses.replace(codes.decode(code), token=b"mistaken"))


def legacy_code(relay: RelayMachine, inviter: str) -> str:
    """As the text dialect of older peer-up writes it: no network, not even its length."""
    relay_id, inviter_id = PeerId.parse(relay.peer_id).multihash, PeerId.parse(inviter).multihash
    place = socket.inet_aton(relay.address) + relay.port.to_bytes(2, "big")
    data = b"\x01" + b"8 bytes!" + place + bytes((len(relay_id),)) + relay_id + inviter_id
    return base64.b32encode(data).decode().rstrip("=")


def tcp_places(pair: Pair) -> list[tuple[str, int]]:
    """Where relay, home and laptop listen."""
    listening = [
        address for machine in (pair.home, pair.laptop) for address in machine.ask("status")["listen_addresses"]
    ]
    ports = {int(address.split("/")[4]) for address in listening if address.startswith("/ip4/127.0.0.1/tcp/")}
    return [("127.0.0.1", port) for port in (pair.relay.port, *sorted(ports))]


def socket_of(machine: Machine) -> Path:
    """Its control socket."""
    return machine.config.with_name("peerup.sock")


def throw(junk: bytes, place: tuple[str, int] | str) -> None:
    """Send junk there, and hang up without waiting for an answer."""
    family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(60)
        connection.connect(place)
        try:
            connection.sendall(junk)
        except (ConnectionResetError, BrokenPipeError):
            return  # it had heard enough


@contextmanager
def listener() -> Iterator[int]:
    """A port that somebody else has."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        yield taken.getsockname()[1]


def ends_in_a_reset(port: int) -> bool:
    """Whether a connection there is reset before it brings anything."""
    try:
        with socket.create_connection(("127.0.0.1", port), 40) as connection:
            connection.recv(1)
    except ConnectionResetError:
        return True
    return False
