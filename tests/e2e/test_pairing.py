"""Two machines come to know one another: with and without daemons, however the code is carried, over any relay."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.cluster import Cluster, Machine, RelayMachine, free_port, wait_for

CODE = re.compile(r"[A-Z2-7]{4}(-[A-Z2-7]{1,4}){20,}")
RELAY_ID = "12D3KooWLdJAwPtyQ5RFnr9wGXsQzpf3P2SeqFbYkqbfVehLu4Ns"


class Town:
    """A relay, and machines that are new to each other."""

    def __init__(self, cluster: Cluster, address: str = "127.0.0.1") -> None:
        self.cluster = cluster
        self.relay: RelayMachine = cluster.relay(address, free_port(address))

    def home(self, name: str, *, running: bool = True) -> Machine:
        """A machine that may use the relay."""
        home = self.cluster.machine(name)
        made = home.ask("init", "--non-interactive", "--relay", self.relay.multiaddr)
        self.relay.authorize(made["peer_id"], name)
        if running:
            home.start()
        return home

    def laptop(self, name: str, *, running: bool = False) -> Machine:
        """A fresh machine; with a daemon, one that knows no relay and nobody."""
        laptop = self.cluster.machine(name)
        if running:
            laptop.ctl("init", "--non-interactive")
            laptop.start()
        return laptop

    def invite(self, home: Machine, *words: str) -> tuple[subprocess.Popen[str], str]:
        """A waiting invite and its code."""
        invite = self.cluster.begin(home, "invite", "--non-interactive", *words)
        return invite, invite.stdout.readline().strip()


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with Cluster(tmp_path_factory.mktemp("town")) as cluster:
        yield Town(cluster)


@pytest.fixture(scope="module")
def home(town: Town) -> Machine:
    """One inviter for the tests that look at one side."""
    return town.home("home")


# -- both sides ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("home_runs", "laptop_runs", "carried"),
    [
        (True, True, "argument"),
        (True, False, "words"),
        (False, True, "environment"),
        (False, False, "environment only"),
    ],
    ids=["two daemons", "the inviter's daemon", "the joiner's daemon", "no daemon"],
)
def test_afterwards_each_knows_and_reaches_the_other(town: Town, home_runs, laptop_runs, carried):
    sides = f"{home_runs:d}{laptop_runs:d}"
    home = town.home(f"home-{sides}", running=home_runs)
    laptop = town.laptop(f"laptop-{sides}", running=laptop_runs)
    with ExitStack() as undo:
        invite, code = town.invite(home, "--name", "home")
        assert CODE.fullmatch(code)
        joined = join(laptop, code, carried)
        assert joined.stdout == ""
        assert "=== Joined successfully! ===" in joined.stderr
        assert invite.communicate(timeout=60)[0] == ""
        assert invite.returncode == 0
        each_has_the_other_on_disk(town, home, laptop)
        for machine in (home, laptop):
            if machine.daemon is None:
                machine.start()
            undo.callback(machine.stop)
        reaches(laptop, "home")
        reaches(home, "laptop")


def test_over_a_relay_that_has_only_ipv6(tmp_path_factory: pytest.TempPathFactory):
    """The seed's codes cannot say such a relay: this code is of a version of our own."""
    with Cluster(tmp_path_factory.mktemp("six")) as cluster:
        town = Town(cluster, "::1")
        assert town.relay.multiaddr.startswith("/ip6/::1/tcp/")
        home, laptop = town.home("home"), town.laptop("laptop")
        invite, code = town.invite(home, "--name", "home")
        assert code[1] in "MNOP"  # base32 of a first byte of 3
        join(laptop, code, "argument")
        assert invite.wait(60) == 0
        each_has_the_other_on_disk(town, home, laptop)
        reaches(laptop, "home")


def test_a_second_peer_that_wants_a_taken_name_gets_one_beside_it(town: Town, home: Machine):
    for wanted, given in (("tablet", "tablet"), ("tablet", "tablet-2")):
        invite, code = town.invite(home)
        join(town.laptop(f"{given}-machine"), code, "argument", name=wanted)
        assert invite.wait(60) == 0
        assert home.ask("resolve", given)["name"] == given


def test_names_from_the_other_side_are_sanitised(town: Town, home: Machine):
    laptop = town.laptop("rogue")
    invite, code = town.invite(home, "--name", "ho\033[31mme\n<&>\u202e")
    join(laptop, code, "argument", name="../\033]0;owned\007 'x'; rm -rf")
    assert invite.wait(60) == 0
    for machine in (home, laptop):
        for file in ("config.yaml", "authorized_keys"):
            text = machine.config.with_name(file).read_text()
            assert all(letter.isprintable() or letter == "\n" for letter in text)
            assert "\u202e" not in text
        assert machine.ctl("auth", "list").stdout.replace("\n", "").isprintable()


# -- the invite ----------------------------------------------------------------------------------------------------


def test_an_invite_on_a_terminal_shows_code_picture_and_command(town: Town, home: Machine):
    invite = town.cluster.begin(home, "invite", "--ttl", "5m")
    said = "".join(iter(invite.stdout.readline, "Waiting for peer to join...\n"))
    code = CODE.search(said)
    assert code, said
    assert "=== Invite Code (expires in 5m0s) ===" in said
    assert f"peerup join {code[0]}\n" in said
    assert sum("█" in line for line in said.splitlines()) > 20
    invite.send_signal(signal.SIGINT)
    invite.communicate(timeout=60)


def test_an_invite_for_a_program_is_json_the_code_first_and_then_the_outcome(home: Machine):
    said = home.ctl("invite", "--json", "--ttl", "1s", check=False)
    opened, _, outcome = said.stdout.partition("}\n")
    assert json.loads(opened + "}").keys() == {"code", "expires_at", "id", "relay"}
    assert json.loads(outcome)["outcome"] == "expired"
    assert said.returncode == 1


@pytest.mark.parametrize("running", [True, False], ids=["daemon", "alone"])
def test_an_interrupted_invite_is_over(town: Town, running):
    home = town.home(f"hasty-{running:d}", running=running)
    invite, code = town.invite(home)
    assert CODE.fullmatch(code)
    invite.send_signal(signal.SIGINT)
    invite.communicate(timeout=60)
    assert invite.returncode == 130
    if running:
        home.stop()
    late = town.laptop(f"late-{running:d}")
    done = late.ctl("join", "--non-interactive", code, check=False)
    assert done.returncode in (3, 5)
    assert late.ask("auth", "list") == []


# -- init ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (f"203.0.113.5\n{RELAY_ID}\n", "/ip4/203.0.113.5/tcp/7777"),
        (f"[2001:db8::5]:99\n{RELAY_ID}\n", "/ip6/2001:db8::5/tcp/99"),
        (f"/dns4/relay.example/tcp/443/p2p/{RELAY_ID}\n", "/dns4/relay.example/tcp/443"),
    ],
    ids=["ip", "v6 and port", "dns4"],
)
def test_the_wizard_asks_for_a_relay_and_shows_who_this_is(town: Town, typed, found):
    machine = town.laptop(f"wizard-{len(town.cluster.machines)}")
    said = machine.ctl("init", say=typed).stdout
    own = machine.ctl("whoami").stdout.strip()
    assert f"Peer ID:         {own}\n" in said
    assert sum("█" in line for line in said.splitlines()) > 10
    relays = [address for relay in machine.ask("relay", "list") for address in relay["addresses"]]
    assert relays == [f"{found}/p2p/{RELAY_ID}"]
    mode = {path.name: path.stat().st_mode & 0o777 for path in machine.config.parent.iterdir()}
    assert mode == {"config.yaml": 0o600, "identity.key": 0o600, "authorized_keys": 0o600}


def test_status_without_a_daemon_tells_what_the_files_say(town: Town):
    machine = town.cluster.machine("resting")
    machine.ctl("init", "--non-interactive", "--relay", town.relay.multiaddr)
    machine.ctl("service", "add", "ssh", "localhost:22")
    machine.ctl("auth", "add", RELAY_ID, "--comment", "a friend")
    said = machine.ctl("status").stdout
    assert re.match(r"peerup \S+  not running\n", said)
    assert f"  {RELAY_ID}  # a friend\n" in said
    assert "  ssh -> localhost:22 (enabled)\n" in said
    data = machine.ask("status")
    assert "uptime_seconds" not in data
    assert data["relays"][0]["addresses"] == [town.relay.multiaddr]


# -- helpers -------------------------------------------------------------------------------------------------------


def join(laptop: Machine, code: str, carried: str, name: str = "laptop") -> subprocess.CompletedProcess[str]:
    """Join without a terminal, the code carried in one of its ways."""
    words = ["join", "--non-interactive", "--name", name]
    match carried:
        case "argument":
            return laptop.ctl(*words, code)
        case "words":
            return laptop.ctl(*words, *code.lower().split("-"))
        case "environment":
            return laptop.ctl(*words, PEERUP_INVITE_CODE=code)
        case _:
            return laptop.ctl(*words, "--from-env", PEERUP_INVITE_CODE=code)


def each_has_the_other_on_disk(town: Town, home: Machine, laptop: Machine) -> None:
    """In the allowlist and under a name; the code's relay is in the joiner's config."""
    ids = {machine.name: machine.ctl("whoami").stdout.strip() for machine in (home, laptop)}
    for machine, other, name in ((home, laptop, "laptop"), (laptop, home, "home")):
        entries = machine.config.with_name("authorized_keys").read_text()
        assert re.search(rf"^{ids[other.name]}\s+# {name}$", entries, re.MULTILINE)
        assert f'  {name}: "{ids[other.name]}"\n' in machine.config.read_text()
    assert f'    - "{town.relay.multiaddr}"\n' in laptop.config.read_text()


def reaches(machine: Machine, peer: str) -> None:
    """Until `peer` answers pings."""
    wait_for(f"{peer}'s answer", lambda: machine.ctl("ping", peer, "-c", "1", check=False).returncode == 0, 60)
