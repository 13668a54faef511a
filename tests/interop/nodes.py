"""Our side as users have it: a relay, a relay with limits, a home with services and a laptop, as real daemons.

The laptop is asked as a test peer is: it opens a proxy by `peerupctl connect`, and a TCP client talks through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from tests.interop.sockets import CLIENTS, Services, be_client, many
from tests.support.cluster import Cluster, Machine, RelayMachine, free_port, wait_for

RESERVED_SECONDS = 30.0
CALLER_SECONDS = 10.0  # for a connection that is seen by who made it to be seen by home
LIMIT_DATA = 4 << 20  # bytes each way
LIMIT_SECONDS = 5  # of a circuit
LIMITS = f"\nresources:\n  session_data_limit: {LIMIT_DATA}\n  session_duration: {LIMIT_SECONDS}s\n"


class Ours:
    """The four, while the `with` block lasts. `theirs`: who may use our relays, reach home and be called by us."""

    def __init__(self, folder: Path, theirs: Sequence[str]) -> None:
        self._plain, self._limited = Cluster(folder / "ours"), Cluster(folder / "limited")
        self._theirs = theirs
        self._undo = ExitStack()
        self.services = Services()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self._plain)
            undo.enter_context(self._limited)
            self.relay = self._plain.relay("127.0.0.1", free_port())
            self.limited = self._limited.relay("127.0.0.1", free_port(), words=LIMITS)
            self.home, self.laptop = (self._machine(name) for name in ("home", "laptop"))
            self._introduce()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _machine(self, name: str) -> Machine:
        machine = self._plain.machine(name)
        machine.ctl("init", "--non-interactive", "--relay", self.relay.multiaddr)
        return machine

    def _introduce(self) -> None:
        self.home_id, self.laptop_id = (identity(machine) for machine in (self.home, self.laptop))
        for relay in (self.relay, self.limited):
            authorize(relay.config.parent, relay_allowlist(relay), self.home_id, self.laptop_id, *self._theirs)
        authorize(self.home.config.parent, "authorized_keys", self.laptop_id, *self._theirs)
        authorize(self.laptop.config.parent, "authorized_keys", self.home_id, *self._theirs)

    def start(self, relays: Sequence[str]) -> None:
        """Home offers its services and is behind all relays; the laptop knows our relay only."""
        for service, port in self.services.ports.items():
            self.home.ctl("service", "add", service, f"127.0.0.1:{port}")
        self.home.ctl("relay", "add", self.limited.multiaddr, *relays)
        for machine in (self.home, self.laptop):
            machine.start()
        await_reservations(self.home)

    @property
    def home_address(self) -> str:
        """Where home is reached directly, with its ID."""
        listening: list[str] = self.home.ask("daemon", "status")["listen_addresses"]
        port = next(address.split("/")[4] for address in listening if address.startswith("/ip4/"))
        return f"/ip4/127.0.0.1/tcp/{port}/p2p/{self.home_id}"

    def use_relay(self, address: str) -> None:
        """The laptop's only relay from now on; a foreign peer, too, is called at the address that a relay has."""
        known = [each for relay in self.laptop.ask("daemon", "status")["relays"] for each in relay["addresses"]]
        if address not in known:
            self.laptop.ctl("relay", "add", address)
        for other in known:
            if other != address:
                self.laptop.ctl("relay", "remove", other)
        await_reservations(self.laptop)


class Laptop:
    """The laptop, asked as a peer is; `path` is how it is to reach whom it calls."""

    name = "our daemon"

    def __init__(self, machine: Machine, path: str) -> None:
        self._machine, self._path = machine, path

    def ask(self, do: str, *, peer: str, seconds: float = 0.0, **words: Any) -> dict[str, Any]:
        """What a client of that name saw through a proxy."""
        service = CLIENTS[do][0] if do in CLIENTS else "echo"
        with self._proxy(peer, service) as port:
            return many(port, **words) if do == "many" else be_client(do, port, **words)

    @contextmanager
    def _proxy(self, peer: str, service: str) -> Iterator[int]:
        made = self._machine.ask("connect", peer, service, "127.0.0.1:0", "--path", self._path)
        try:
            yield int(made["listen_address"].rpartition(":")[2])
        finally:
            self._machine.ctl("disconnect", made["id"])


class Home:
    """Home, asked for what its services noted, and called at the address that fits."""

    name = "our daemon"

    def __init__(self, ours: Ours, address: str) -> None:
        self._machine, self._services = ours.home, ours.services
        self.peer, self.address = ours.home_id, address

    def await_caller(self, peer: str) -> None:
        """Until home sees the peer come by the way that the address names, and by no other."""
        way = (
            self.address.removesuffix(f"/p2p/{self.peer}") if "/p2p-circuit" in self.address else "/ip4/127.0.0.1/tcp/"
        )

        def came() -> bool:
            seen = [each["addresses"] for each in self._machine.ask("peers", "--all") if each["id"] == peer]
            first = seen[0][0] if seen and seen[0] else ""  # that of the best connection
            return first.startswith(way) and ("/p2p-circuit" in first) is ("/p2p-circuit" in way)

        wait_for(f"a connection of {peer} over {way}", came, CALLER_SECONDS, every=0.1)

    def ask(self, do: str, **_: Any) -> dict[str, Any]:
        """How the streams of `watch` and `early` ended."""
        assert do == "ends"
        taken, self._services.ends[:] = list(self._services.ends), []
        return {"ends": taken}


def identity(machine: Machine) -> str:
    """Its peer ID."""
    return machine.ctl("whoami").stdout.strip()


def authorize(folder: Path, name: str, *peers: str) -> None:
    """Let these in."""
    with (folder / name).open("a") as file:
        file.writelines(f"{peer}\n" for peer in peers)


def relay_allowlist(relay: RelayMachine) -> str:
    """The name of the file, as the configuration has it."""
    lines = relay.config.read_text().splitlines()
    return next(line.split('"')[1] for line in lines if "authorized_keys_file:" in line)


def await_reservations(machine: Machine) -> None:
    """Until all relays of the configuration have given their slots."""

    def all_reserved() -> bool:
        relays = machine.ask("daemon", "status")["relays"]
        return all(relay["state"] == "reserved" for relay in relays)

    wait_for(f"the reservations of {machine.name}", all_reserved, RESERVED_SECONDS, every=0.1)
