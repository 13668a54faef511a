"""What peerup is measured against: raw TCP, `ssh -L`, two stock py-libp2p hosts, proxies and a relay on go-libp2p.

Each is a block in which its route is there. What is not on this machine raises `Failed` with the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import routes
from bench.processes import Client, line, running
from bench.progress import Failed
from bench.routes import Route
from bench.stage import Place, Stage
from tests.support.cluster import free_port, wait_for

ROOT = Path(__file__).resolve().parent.parent
PROTOCOL = "/bench/1.0.0"


@dataclass(frozen=True)
class Ground:
    """What all of them stand on."""

    stage: Stage
    folder: Path
    service: int
    """The service's port at home, and at the far home."""
    client: Client
    second: Client
    far_client: Client
    far_second: Client

    def route(self, name: str, port: int, works: Mapping[str, int] | None = None, *, at: str = "127.0.0.1") -> Route:
        """One that begins at the client."""
        return Route(name, self.client, self.second, (at, port), works or {})


def raw(ground: Ground) -> Route:
    """Straight to the service."""
    return ground.route(routes.RAW, ground.service, at=ground.stage.home.address)


# -- ssh -----------------------------------------------------------------------------------------------------------


@contextmanager
def sshd(ground: Ground) -> Iterator[tuple[int, int]]:
    """An sshd of our own at home; its port and process."""
    server = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if server is None or shutil.which("ssh") is None:
        raise Failed("no ssh client and server on this machine")
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ground.folder / name)]
        subprocess.run(words, check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    home, port = ground.stage.home, free_port()
    settings = {
        "Port": port,
        "ListenAddress": home.address,
        "HostKey": ground.folder / "host",
        "AuthorizedKeysFile": ground.folder / "user.pub",
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
        "Ciphers": ",".join(routes.CIPHERS.values()),
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    with running([server, "-D", "-e", "-f", "/dev/null", *options], home) as process:
        yield port, process.pid


@contextmanager
def ssh(ground: Ground, name: str) -> Iterator[Route]:
    """`ssh -L` with one cipher, and an sshd for it."""
    place, local = ground.stage.client, free_port()
    words = ["ssh", "-F", "none", "-N", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    words += ["-o", "ExitOnForwardFailure=yes", "-c", routes.CIPHERS[name]]
    words += ["-L", f"127.0.0.1:{local}:127.0.0.1:{ground.service}", ground.stage.home.address]
    folder = ground.folder / f"ssh-{name}"
    folder.mkdir()
    inner = Ground(**{**vars(ground), "folder": folder})
    with sshd(inner) as (port, server):
        words += ["-i", str(folder / "user"), "-p", str(port)]
        wait_for("sshd", lambda: answers(ground.stage.client, ground.stage.home.address, port))
        with running(words, place) as process:
            wait_for("ssh -L", lambda: answers(place, "127.0.0.1", local))
            yield ground.route(routes.SSH.format(name), local, {"client": process.pid, "home": server})


def answers(place: Place, address: str, port: int) -> bool:
    """Whether somebody listens."""
    program = f"import socket; socket.create_connection(({address!r}, {port}), 1).close()"
    words = [*place.prefix, sys.executable, "-S", "-c", program]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


# -- stock py-libp2p -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stock:
    """Two hosts with one connection; it is no proxy, so it has words of its own."""

    fetching: subprocess.Popen[str]
    works: dict[str, int]

    def transfer(self, way: str, size: int) -> float:
        """Seconds that `size` bytes took `down` or `up`."""
        assert self.fetching.stdin is not None
        self.fetching.stdin.write(f"{way} {size}\n")
        self.fetching.stdin.flush()
        return float(line(self.fetching))


@contextmanager
def stock(ground: Ground) -> Iterator[Stock]:
    """Both hosts."""
    program, home, client = str(ROOT / "bench/stock.py"), ground.stage.home, ground.stage.client
    with running([sys.executable, program, "serve", home.address], home) as serving:
        address = line(serving)
        with running([sys.executable, program, "fetch", address], client) as fetching:
            line(fetching)
            yield Stock(fetching, {"client": fetching.pid, "home": serving.pid})


# -- go-libp2p -----------------------------------------------------------------------------------------------------


def build_go() -> str:
    """The Go peer of the interop tests; raises `Failed`."""
    builder = ROOT / "tests/interop/build.py"
    if not builder.exists() or shutil.which("go") is None:
        raise Failed("no Go on this machine")
    done = subprocess.run([sys.executable, str(builder), "go"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"the Go peer cannot be built: {done.stderr.strip()[-200:]}")
    return done.stdout.strip().splitlines()[-1]


@contextmanager
def go_direct(ground: Ground, program: str, name: str, transport: str, security: str) -> Iterator[Route]:
    """A proxy and a server, connected directly."""
    kind = ["--transport", transport, *(["--security", security] if transport == "tcp" else [])]
    stage = ground.stage
    with ExitStack() as stack:
        words = ["--listen", multiaddr(stage.home, transport), *_service(ground), *kind]
        serving, address = _go(stack, [program, "serve", *words], stage.home)
        port = free_port()
        words = ["--listen", f"127.0.0.1:{port}", "--protocol", PROTOCOL, "--peer", address, *kind]
        proxy, _ = _go(stack, [program, "proxy", *words], stage.client)
        yield ground.route(name, port, {"client": proxy, "home": serving})


@contextmanager
def go_relay(stage: Stage, program: str, buffer: int) -> Iterator[tuple[int, str]]:
    """A relay without limits; its process and address."""
    with ExitStack() as stack:
        words = ["--listen", multiaddr(stage.relay), "--buffer", str(buffer)]
        yield _go(stack, [program, "relay", *words], stage.relay)


@contextmanager
def go_relayed(ground: Ground, program: str, name: str, buffer: int) -> Iterator[Route]:
    """A proxy and a server behind walls, and a relay that copies through a buffer of that size."""
    stage = ground.stage
    with ExitStack() as stack:
        relay, through = stack.enter_context(go_relay(stage, program, buffer))
        words = ["--listen", multiaddr(stage.far_home), "--reserve", through, *_service(ground)]
        serving, address = _go(stack, [program, "serve", *words], stage.far_home)
        port, peer = free_port(), address.rpartition("/p2p/")[2]
        words = ["--listen", f"127.0.0.1:{port}", "--protocol", PROTOCOL, "--peer", f"/p2p/{peer}", "--via", through]
        proxy, _ = _go(stack, [program, "proxy", *words], stage.far_client)
        works = {"client": proxy, "home": serving, "relay": relay}
        yield Route(name, ground.far_client, ground.far_second, ("127.0.0.1", port), works)


def multiaddr(place: Place, transport: str = "tcp") -> str:
    """A free port there."""
    end = f"tcp/{free_port()}" if transport == "tcp" else f"udp/{free_port()}/quic-v1"
    return f"/ip4/{place.address}/{end}"


def _service(ground: Ground) -> list[str]:
    return ["--protocol", PROTOCOL, "--to", f"127.0.0.1:{ground.service}"]


def _go(stack: ExitStack, words: list[str], place: Place) -> tuple[int, str]:
    process = stack.enter_context(running(words, place))
    ready: dict[str, Any] = json.loads(line(process))["ready"]
    address = next((found for found in ready["addresses"] if found.startswith("/ip4/")), "")
    if address and "/p2p/" not in address:
        address = f"{address}/p2p/{ready['peer_id']}"
    return process.pid, address or f"/p2p/{ready['peer_id']}"
