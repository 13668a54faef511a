"""Go peer-up itself, for those who have its program: a relay, and pairs of nodes that offer one transport only.

Its files are written as its documents describe them; `daemon connect` opens the proxy.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import routes
from bench.processes import running
from bench.rivals import Ground
from bench.routes import Route
from bench.stage import Place
from tests.support.cluster import free_port, wait_for

START_SECONDS = 40.0  # it sleeps for five before it answers
SERVICE = "bench"
NODE = """version: 1
identity:
  key_file: "identity.key"
network:
  listen_addresses:
    - "{listen}"
  force_private_reachability: {private}
relay:
  addresses:
    - "{relay}"
  reservation_interval: "2m"
discovery:
  rendezvous: "peerup-default-network"
  bootstrap_peers: []
security:
  authorized_keys_file: "authorized_keys"
  enable_connection_gating: true
protocols:
  ping_pong:
    enabled: true
    id: "/pingpong/1.0.0"
services:
  {service}:
    enabled: true
    local_address: "127.0.0.1:{port}"
names:
  {other}: "{peer}"
"""
RELAY = """version: 1
identity:
  key_file: "relay.key"
network:
  listen_addresses:
    - "{listen}"
security:
  authorized_keys_file: "relay_authorized_keys"
  enable_connection_gating: false
resources:
  session_data_limit: "64GB"
  session_duration: "1h"
"""


@dataclass(frozen=True)
class Node:
    """One machine with its home folder."""

    program: str
    home: Path
    place: Place

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.home / ".config/peerup"

    def run(self, *words: str) -> str:
        """One command."""
        command = [*self.place.prefix, self.program, *words]
        env = {"HOME": str(self.home), "PATH": os.environ["PATH"], "NO_COLOR": "1"}
        done = subprocess.run(command, env=env, cwd=self.home, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()

    def works(self, *words: str) -> bool:
        """Whether one succeeds."""
        try:
            self.run(*words)
        except subprocess.CalledProcessError:
            return False
        return True


def all_routes(stack: ExitStack, near: Ground, far: Ground, program: str) -> Iterator[Route]:
    """Over TCP, over QUIC, and relayed over TCP."""
    program = str(Path(program).resolve())
    relay, address = stack.enter_context(_relay(near, program))
    stage = near.stage
    kinds: list[tuple[str, Ground, str, Place, Place, bool]] = [
        (routes.SHIPPED_TCP, near, "tcp/{}", stage.home, stage.client, False),
        (routes.SHIPPED_QUIC, near, "udp/{}/quic-v1", stage.home, stage.client, False),
        (routes.SHIPPED_RELAYED, far, "tcp/{}", stage.far_home, stage.far_client, True),
    ]
    for name, ground, transport, home, client, relayed in kinds:
        pair = _pair(ground, program, name, transport, address, (home, client))
        port, works = stack.enter_context(pair)
        people = (far.far_client, far.far_second) if relayed else (near.client, near.second)
        yield Route(name, *people, ("127.0.0.1", port), {**works, "relay": relay} if relayed else works)


@contextmanager
def _relay(ground: Ground, program: str) -> Iterator[tuple[int, str]]:
    place, folder, port = ground.stage.relay, ground.folder / "go-relay", free_port()
    folder.mkdir()
    _private(folder / "relay-server.yaml", RELAY.format(listen=f"/ip4/{place.address}/tcp/{port}"))
    _private(folder / "relay_authorized_keys", "")
    node = Node(program, folder, place)
    words = ["--config", str(folder / "relay-server.yaml")]
    with _daemon(node, "relay", "serve", *words) as pid:
        said = wait_for("the Go relay's key", lambda: node.works("relay", "info", *words) and _info(node, words))
        yield pid, f"/ip4/{place.address}/tcp/{port}/p2p/{said}"


def _info(node: Node, words: list[str]) -> str:
    """The relay's peer ID."""
    lines = node.run("relay", "info", *words).splitlines()
    return next(line.split()[-1] for line in lines if line.startswith("Peer ID"))


@contextmanager
def _pair(
    ground: Ground, program: str, name: str, transport: str, relay: str, places: tuple[Place, Place]
) -> Iterator[tuple[int, dict[str, int]]]:
    folder = ground.folder / name.replace(" ", "").replace(",", "-")
    home, client = (Node(program, folder / side, place) for side, place in zip(("h", "c"), places, strict=True))
    for node, other in ((home, "client"), (client, "home")):
        node.folder.mkdir(parents=True, mode=0o700)
        _write(node, ground, transport, relay, other, peer="")
    ids = {node.home.name: node.run("whoami").split()[-1] for node in (home, client)}
    _write(home, ground, transport, relay, "client", ids["c"])
    _write(client, ground, transport, relay, "home", ids["h"])
    with _daemon(home, "daemon") as serving, _daemon(client, "daemon") as asking:
        for node in (home, client):
            wait_for(f"{name}'s daemon", functools.partial(node.works, "daemon", "status"), START_SECONDS, 0.2)
        port = free_port()
        words = ["daemon", "connect", "--peer", "home", "--service", SERVICE, "--listen", f"127.0.0.1:{port}"]
        wait_for(f"{name}'s proxy", lambda: client.works(*words), START_SECONDS, 1.0)
        yield port, {"client": asking, "home": serving}


def _write(node: Node, ground: Ground, transport: str, relay: str, other: str, peer: str) -> None:
    text = NODE.format(
        listen=f"/ip4/{node.place.address}/{transport.format(free_port())}",
        private="true" if node.place in (ground.stage.far_home, ground.stage.far_client) else "false",
        relay=relay,
        service=SERVICE,
        port=ground.service,
        other=other,
        peer=peer or relay.rpartition("/")[2],
    )
    _private(node.folder / "config.yaml", text)
    _private(node.folder / "authorized_keys", f"{peer}\n" if peer else "")


def _private(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o600)


@contextmanager
def _daemon(node: Node, *words: str) -> Iterator[int]:
    environment = ["env", f"HOME={node.home}", "NO_COLOR=1", f"--chdir={node.home}", node.program]
    with running([*environment, *words], node.place, errors=node.home / "errors") as process:
        yield process.pid
