"""peerup as its users have it: a relay, a home and a laptop, set up and paired by the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import routes
from bench.rivals import Ground, go_relay
from bench.routes import Route
from bench.stage import Place, Stage
from tests.support.cluster import Cluster, Machine, RelayMachine, free_port, wait_for

SERVICE = "bench"
RAISED = 64 << 10  # bytes of a relay's buffer
RESERVED_SECONDS = 20.0


@dataclass(frozen=True)
class Network:
    """The machines of somebody."""

    cluster: Cluster
    relay: RelayMachine
    home: Machine
    laptop: Machine

    def proxy(self, path: str, service: str = SERVICE) -> int:
        """A local port of the laptop's daemon."""
        made = self.laptop.ask("connect", "home", service, "127.0.0.1:0", "--path", path)
        return int(made["listen_address"].rpartition(":")[2])

    def route(self, ground: Ground, name: str, path: str) -> Route:
        """From the laptop to the service at home."""
        works = {"client": pid_of(self.laptop), "home": pid_of(self.home)}
        if path == "relay":
            works["relay"] = pid_of(self.relay.machine)
        return ground.route(name, self.proxy(path), works)


@contextmanager
def network(
    stage: Stage, folder: Path, services: Sequence[tuple[str, int]], relay_words: str = ""
) -> Iterator[Network]:
    """All of it, running, the laptop joined by an invite code."""
    with Cluster(folder) as cluster:
        relay = cluster.relay(stage.relay.address, free_port(), stage.relay.prefix, relay_words)
        home = cluster.machine("home", stage.home.prefix)
        home.ctl("init", "--non-interactive", "--relay", relay.multiaddr)
        relay.authorize(peer_id(home), "home")
        for name, port in services:
            home.ctl("service", "add", name, f"127.0.0.1:{port}")
        home.start()
        until_reserved(home)
        laptop = joined(cluster, home, "laptop", stage.client)
        laptop.start()
        until_reserved(laptop)
        yield Network(cluster, relay, home, laptop)


def joined(cluster: Cluster, home: Machine, name: str, place: Place) -> Machine:
    """Another machine that has joined by a code of `home`'s."""
    machine = cluster.machine(name, place.prefix)
    invite = cluster.begin(home, "invite", "--name", "home", "--non-interactive")
    assert invite.stdout is not None
    code = invite.stdout.readline().strip()
    machine.ctl("join", "--name", name, "--non-interactive", say=code + "\n")
    if invite.wait(RESERVED_SECONDS):
        raise RuntimeError(f"{name} has not joined")
    return machine


def until_reserved(machine: Machine) -> None:
    """Until its relay has given it a slot."""
    wait_for("a reservation", lambda: machine.ask("daemon", "status")["relay_addresses"], RESERVED_SECONDS)


def peer_id(machine: Machine) -> str:
    """Who it is."""
    return machine.ctl("whoami").stdout.strip()


def pid_of(machine: Machine) -> int:
    """Its daemon's process."""
    assert machine.daemon is not None
    return machine.daemon.process.pid


def both(ground: Ground, made: Network) -> tuple[Route, Route]:
    """The direct and the relayed way."""
    return made.route(ground, routes.OURS, "direct"), made.route(ground, routes.OURS_RELAYED, "relay")


@contextmanager
def over_go(far: Ground, program: str) -> Iterator[Route]:
    """Two more machines of ours behind walls, and a relay of go-libp2p's between them."""
    stage, folder = far.stage, far.folder / "over-go"
    with go_relay(stage, program, RAISED) as (relay, through), Cluster(folder) as cluster:
        home, laptop = (
            cluster.machine("home", stage.far_home.prefix),
            cluster.machine("laptop", stage.far_client.prefix),
        )
        for machine in (home, laptop):
            machine.ctl("init", "--non-interactive", "--relay", through)
        home.ctl("service", "add", SERVICE, f"127.0.0.1:{far.service}")
        home.ctl("auth", "add", peer_id(laptop))
        laptop.ctl("auth", "add", peer_id(home))
        for machine in (home, laptop):
            machine.start()
            until_reserved(machine)
        made = laptop.ask("connect", peer_id(home), SERVICE, "127.0.0.1:0", "--path", "relay")
        works = {"client": pid_of(laptop), "home": pid_of(home), "relay": relay}
        at = ("127.0.0.1", int(made["listen_address"].rpartition(":")[2]))
        yield Route(routes.OURS_OVER_GO, far.far_client, far.far_second, at, works)
