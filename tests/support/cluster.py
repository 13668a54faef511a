"""Real processes: a relay and nodes, each with a home folder of its own, started and ended by id.

Standard library only: the demo runs on it too. Readiness is what systemd would see, `READY=1` on a notify socket.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

# generous: a loaded machine of CI must not fail what is right
START_SECONDS = 60.0
STOP_SECONDS = 30.0
FIRST_PORT = 10_000  # of those that tests take
DIE_WITH_US = ["setpriv", "--pdeathsig", "KILL"]  # also when we are killed ourselves
ROOT = Path(__file__).resolve().parent.parent.parent


def wait_for(what: str, holds: Callable[[], Any], seconds: float = 30.0, every: float = 0.05) -> Any:
    """Until `holds()` is true; its value. Raises `TimeoutError` that says what was waited for."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(every)
    return value


class Daemon:
    """One long-running process, and what it said to its service manager."""

    def __init__(self, command: Sequence[str], folder: Path, env: dict[str, str], name: str) -> None:
        self.log = folder / f"{name}.log"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = str(folder / f"{name}.notify")
        if len(address) > 100:  # abstract names know no folders, but neither do they cross network namespaces
            address = f"@peerup-test-{os.getpid()}-{id(self)}"
        Path(address).unlink(missing_ok=True)
        self._notify.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self.said: list[str] = []
        self.started = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*DIE_WITH_US, *command],
                env={**env, "NOTIFY_SOCKET": address},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self, seconds: float = START_SECONDS) -> float:
        """Until `READY=1`; the seconds that it took."""
        deadline = time.monotonic() + seconds
        while not any("READY=1" in said.split("\n") for said in self.said):
            self._notify.settimeout(0.05)
            try:
                self.said.append(self._notify.recv(65536).decode())
            except TimeoutError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(f"not ready (exit status {self.process.returncode}):\n{self.words()}") from None
        return time.monotonic() - self.started

    def hear(self) -> list[str]:
        """All that it has said to the service manager by now."""
        self._notify.settimeout(0)
        try:
            while True:
                self.said.append(self._notify.recv(65536).decode())
        except BlockingIOError:
            return self.said

    def words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-6000:]

    def stop(self, how: int = signal.SIGTERM) -> int:
        """End it, wait for it, insist when it does not; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._notify.close()
        return self.process.returncode


@dataclass
class Machine:
    """A machine of somebody's: a home folder, the command line in it, perhaps a daemon."""

    name: str
    home: Path
    prefix: list[str] = field(default_factory=list)
    daemon: Daemon | None = None
    covered: bool = True
    """Whether coverage is measured where it is asked for: not where memory and time count."""
    before: list[str] = field(default_factory=list)
    """What stands before the daemon's command alone, as `prlimit` does."""

    @property
    def env(self) -> dict[str, str]:
        """A clean environment: nothing of the caller's home or sockets."""
        wanted = ("PATH", "LANG", *(("COVERAGE_PROCESS_START", "COVERAGE_FILE") if self.covered else ()))
        kept = {key: os.environ[key] for key in wanted if key in os.environ}
        return {**kept, "HOME": str(self.home), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}

    @property
    def config(self) -> Path:
        """Where `init` and `join` put the configuration."""
        return self.home / ".config/peerup/config.yaml"

    def command(self, *words: str) -> list[str]:
        """The command line of `peerupctl` on this machine."""
        return [*self.prefix, sys.executable, "-m", "peerupctl", *words]

    def ctl(
        self, *words: str, say: str = "", check: bool = True, seconds: float = 120.0, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `peerupctl`; with `check`, a failure raises with all its words."""
        done = subprocess.run(
            self.command(*words),
            env={**self.env, **env},
            cwd=self.home,
            input=say,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if check and done.returncode:
            log = self.daemon.words() if self.daemon else ""
            raise RuntimeError(
                f"{self.name}: peerupctl {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}\n{log}"
            )
        return done

    def ask(self, *words: str) -> Any:
        """The JSON that `peerupctl ... --json` prints."""
        return json.loads(self.ctl(*words, "--json").stdout)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start `peerupctl` and let it run; the caller ends it."""
        return subprocess.Popen(
            [*DIE_WITH_US, *self.command(*words)],
            env=self.env,
            cwd=self.home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def start(self, *words: str) -> float:
        """Start the daemon; seconds until it was ready."""
        command = [*self.prefix, *self.before, sys.executable, "-m", "peerupd", *words]
        self.daemon = Daemon(command, self.home, self.env, "daemon")
        return self.daemon.wait_ready()

    def stop(self) -> int:
        """End the daemon; its exit status."""
        assert self.daemon is not None
        return self.daemon.stop()


class Cluster:
    """A relay and machines in one folder; leaving the block ends every process that was started in it."""

    def __init__(self, folder: Path, *, before: Sequence[str] = (), covered: bool = True) -> None:
        """`before` and `covered` are for all machines here, see `Machine`."""
        self.folder = folder
        self.before = before
        self.covered = covered
        self.machines: list[Machine] = []
        self._begun: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._begun:
            end(process)
        for machine in self.machines:
            if machine.daemon is not None:
                machine.daemon.stop()

    def machine(self, name: str, prefix: Sequence[str] = ()) -> Machine:
        """A new machine with an empty home."""
        home = self.folder / name
        home.mkdir(mode=0o700)
        made = Machine(name, home, list(prefix), covered=self.covered, before=list(self.before))
        self.machines.append(made)
        return made

    def relay(self, address: str, port: int, prefix: Sequence[str] = (), words: str = "") -> RelayMachine:
        """A relay, set up and started; `words` are added to its configuration."""
        machine = self.machine("relay", prefix)
        made = machine.ask("relay", "setup", "--dir", str(machine.home), "--address", address, "--non-interactive")
        relay = RelayMachine(machine, address, port, Path(made["config"]), made["peer_id"])
        relay.listen_on(port)
        relay.configure(words)
        relay.start()
        return relay

    def begin(self, machine: Machine, *words: str) -> subprocess.Popen[str]:
        """Start a command of `peerupctl` that runs until the block ends."""
        process = machine.begin(*words)
        self._begun.append(process)
        return process


@dataclass
class RelayMachine:
    """The machine that relays."""

    machine: Machine
    address: str
    port: int
    config: Path
    peer_id: str

    @property
    def multiaddr(self) -> str:
        """What nodes are told."""
        kind = "ip6" if ":" in self.address else "ip4"
        return f"/{kind}/{self.address}/tcp/{self.port}/p2p/{self.peer_id}"

    def listen_on(self, port: int) -> None:
        """Put another port into the configuration."""
        text = self.config.read_text()
        self.config.write_text(text.replace("/tcp/7777", f"/tcp/{port}"))

    def configure(self, words: str) -> None:
        """Add words to the configuration."""
        self.config.write_text(self.config.read_text() + words)

    def start(self) -> float:
        """Start it; seconds until it was ready."""
        return self.machine.start("relay", "--config", str(self.config))

    def stop(self) -> int:
        """End it; its exit status."""
        return self.machine.stop()

    def authorize(self, peer_id: str, comment: str = "") -> None:
        """Let a peer use the relay."""
        self.machine.ctl("relay", "authorize", peer_id, *([comment] if comment else []), "--config", str(self.config))


def end(process: subprocess.Popen[Any], how: int = signal.SIGINT) -> int:
    """End a process and close its pipes; its exit status."""
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    return int(process.returncode)


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that nobody has now, and that the kernel gives to nobody who does not ask for it by number."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    chosen_by_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(FIRST_PORT, max(FIRST_PORT + 1000, chosen_by_kernel))
        with socket.socket(family) as probe, suppress(OSError):
            probe.bind((address, port))
            return port
