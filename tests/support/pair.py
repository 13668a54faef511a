"""A home and a laptop that know one another, a relay between them, services at home, and clients at the laptop."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from tests.support.cluster import DIE_WITH_US, Cluster, Machine, RelayMachine, end, free_port, wait_for

TRAFFIC = Path(__file__).with_name("traffic.py")
CROWD = Path(__file__).with_name("crowd.py")
MIDDLEBOX = Path(__file__).with_name("middlebox.py")


class Pair:
    """The three machines and what runs on them."""

    def __init__(self, cluster: Cluster, relay: RelayMachine, home: Machine, laptop: Machine) -> None:
        self.cluster, self.relay, self.home, self.laptop = cluster, relay, home, laptop
        self._services: subprocess.Popen[str] | None = None
        self._undo = ExitStack()

    @classmethod
    def make(
        cls,
        folder: Path,
        hosts: Sequence[Any] = (),
        *,
        relay_words: str = "",
        before: Sequence[str] = (),
        covered: bool = True,
        pieces: int = 0,
    ) -> Pair:
        """Set up, pair and start everything; `hosts` are lab hosts for relay, home and laptop, else loopback.

        `before` and `covered`: see `Machine`. With `pieces`, a middlebox before the relay passes on so many bytes at a
        time.
        """
        prefixes = [host.prefix for host in hosts] or [[], [], []]
        address, port = (hosts[0].address, 7777) if hosts else ("127.0.0.1", free_port())
        cluster = Cluster(folder, before=before, covered=covered)
        with ExitStack() as undo:
            undo.enter_context(cluster)
            relay = cluster.relay(address, port, prefixes[0], relay_words)
            if pieces:
                relay = replace(relay, port=undo.enter_context(middlebox(port, pieces)))
            home, laptop = cluster.machine("home", prefixes[1]), cluster.machine("laptop", prefixes[2])
            pair = cls(cluster, relay, home, laptop)
            undo.callback(pair._end_services)
            pair._start()
            pair._undo = undo.pop_all()
        return pair

    def _start(self) -> None:
        ports = self._serve()
        self.home.ctl("init", "--non-interactive", "--relay", self.relay.multiaddr)
        self.relay.authorize(self.home.ctl("whoami").stdout.strip(), "home")
        for name, port in ports.items():
            self.home.ctl("service", "add", name, f"127.0.0.1:{port}")
        self.home.start()
        self.await_reservation(self.home)
        join(self.cluster, self.home, self.laptop)
        self.laptop.start()
        self.await_reservation(self.laptop)

    def _serve(self) -> dict[str, int]:
        command = [*DIE_WITH_US, *self.home.prefix, sys.executable, str(TRAFFIC), "serve"]
        self._services = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._services.stdout is not None
        ports: dict[str, int] = json.loads(self._services.stdout.readline())
        return ports

    def ends(self) -> list[str]:
        """How the source's connections ended for the service."""
        assert self._services is not None
        assert self._services.stdin is not None
        assert self._services.stdout is not None
        self._services.stdin.write("ends\n")
        self._services.stdin.flush()
        answer: list[str] = json.loads(self._services.stdout.readline())
        return answer

    def close(self) -> None:
        """End every process that was started here."""
        self._undo.close()

    def _end_services(self) -> None:
        if self._services is not None:
            end(self._services)

    @staticmethod
    def await_reservation(machine: Machine, seconds: float = 60.0) -> None:
        """Until the relay has given its slot."""
        wait_for(f"{machine.name}'s reservation", lambda: machine.ask("daemon", "status")["relay_addresses"], seconds)

    def await_path(self, path: str, seconds: float = 60.0) -> None:
        """Until home answers by this path; a home that was restarted has other addresses than it had."""
        ping = ("ping", "home", "-c", "1")
        wait_for("home's answer", lambda: self.laptop.ctl(*ping, check=False).returncode == 0, seconds)
        if path == "direct":
            wait_for("a direct path", lambda: self.path() == "DIRECT", seconds)

    def path(self) -> str:
        """How laptop and home are connected now: `DIRECT`, `RELAYED` or nothing."""
        home = self.home.ctl("whoami").stdout.strip()
        return next((peer.get("path", "") for peer in self.laptop.ask("peers") if peer["id"] == home), "")

    @contextmanager
    def proxy(self, service: str, path: str = "any") -> Iterator[int]:
        """A proxy of the laptop's daemon to a service at home; its port."""
        made = self.laptop.ask("connect", "home", service, "127.0.0.1:0", "--path", path)
        try:
            yield int(made["listen_address"].rpartition(":")[2])
        finally:
            self.laptop.ctl("disconnect", made["id"])

    def client_command(self, *words: object) -> list[str]:
        """The command line of a client at the laptop."""
        return [*self.laptop.prefix, sys.executable, str(TRAFFIC), *map(str, words)]

    def client(self, *words: object, seconds: float = 120.0) -> dict[str, Any]:
        """Run a client at the laptop; what it saw."""
        done = subprocess.run(self.client_command(*words), capture_output=True, text=True, timeout=seconds, check=True)
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen


@contextmanager
def middlebox(port: int, size: int) -> Iterator[int]:
    """A box before a port of loopback that passes on `size` bytes at a time; its own port."""
    command = [*DIE_WITH_US, sys.executable, str(MIDDLEBOX), "127.0.0.1", str(port), str(size)]
    box = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert box.stdout is not None
        yield int(box.stdout.readline())
    finally:
        end(box)


class Crowd:
    """A service for crowds at home, and the crowds at the laptop (`tests.support.crowd`)."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        command = [*DIE_WITH_US, *pair.home.prefix, sys.executable, str(CROWD), "serve"]
        self._service = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port: int = self._said()["port"]
        pair.home.ctl("service", "add", "crowd", f"127.0.0.1:{self.port}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end(self._service)

    def _said(self) -> Any:
        assert self._service.stdout is not None
        return json.loads(self._service.stdout.readline())

    def report(self, word: str = "report") -> dict[str, Any]:
        """How many connections the service has, had at most at once, and how they ended.

        From the word `hold` on it reads no content until `release`.
        """
        assert self._service.stdin is not None
        self._service.stdin.write(f"{word}\n")
        self._service.stdin.flush()
        report: dict[str, Any] = self._said()
        return report

    def command(self, how: str, port: int, count: int, size: int) -> list[str]:
        """The command line of a crowd at the laptop."""
        words = (how, port, count, size)
        return [*self._pair.laptop.prefix, sys.executable, str(CROWD), *map(str, words)]

    def run(self, how: str, port: int, count: int, size: int, *, seconds: float = 600.0) -> dict[str, Any]:
        """A crowd at the laptop; what it saw."""
        command = self.command(how, port, count, size)
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen


def join(cluster: Cluster, home: Machine, laptop: Machine) -> None:
    """Invite at home, join at the laptop."""
    invite = cluster.begin(home, "invite", "--name", "home", "--non-interactive")
    assert invite.stdout is not None
    code = invite.stdout.readline().strip()
    laptop.ctl("join", "--name", "laptop", "--non-interactive", say=code + "\n")
    assert invite.wait(60) == 0
