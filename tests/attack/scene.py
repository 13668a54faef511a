"""Running programs under attack: a node and a relay, each one process with its own log, memory and descriptors."""

from __future__ import annotations

import itertools
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from peerupd.model.names import PeerId
from peerupd.trust.identity import Identity
from peerupd.wire.circuit import HopKind, HopMessage, Status
from peerupd.wire.framing import frame
from tests.attack import raw
from tests.attack.raw import Gone, Muxed, Silent, Tcp
from tests.support.cluster import Daemon, Machine, free_port, wait_for
from tests.support.pair import Pair

MIB = 1 << 20
ROOM = 8 * MIB  # bytes that a process may grow by in one attack
PINGPONG, PING = "/pingpong/1.0.0", "/ipfs/ping/1.0.0"
DEAF_STREAMS = 64  # of the peer that asks and never reads
DEAF_SECONDS = 50  # until it reads
LAST_WORDS = 4000  # characters of a dead daemon's log that are shown


@dataclass
class Target:
    """A process under attack; `friend` is authorised there, and so are `traitor` and `frozen`."""

    name: str
    machine: Machine
    start: Callable[[], object]
    find_port: Callable[[], int]
    peer: PeerId
    friend: Identity
    traitor: Identity
    frozen: Identity
    ping: Callable[[], str]
    """What `peerupctl ping` says at the paired laptop."""
    read: int = 0
    """Bytes of its log that were looked at."""
    port: int = 0

    def __post_init__(self) -> None:
        self.port = self.find_port()

    @property
    def daemon(self) -> Daemon:
        assert self.machine.daemon is not None
        return self.machine.daemon

    def stand_up(self) -> None:
        """Start it again if it died in another test: one death is one failure."""
        if self.daemon.process.poll() is not None:
            self.start()
            self.port = self.find_port()
            wait_for(f"the {self.name} to serve again", lambda: "1 received" in self.ping(), 30)

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.daemon.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def seconds(self) -> float:
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def numbers(self) -> list[str]:
        """Of its open descriptors."""
        return os.listdir(f"/proc/{self.daemon.process.pid}/fd")

    def descriptors(self) -> int:
        return len(self.numbers())

    def call(self, identity: Identity) -> Muxed:
        return raw.connect(self.port, identity, self.peer)

    def assert_lives(self) -> None:
        status = self.daemon.process.poll()
        assert status is None, f"the {self.name} died ({status}):\n{self.daemon.words()[-LAST_WORDS:]}"

    def assert_serves(self) -> None:
        """The paired laptop, over what stands; then somebody else, over a new connection."""
        self.assert_lives()
        words = [self.ping()]
        if "1 received" not in words[0]:
            words.append(self.ping())  # a machine at its limit may have been too slow for the first one
        assert "1 received" in words[-1], words
        self.assert_lets_in()

    def assert_lets_in(self) -> None:
        with self.call(self.friend) as muxed:
            talk = muxed.open(PING, bytes(range(32)))
            assert talk.chosen()
            assert talk.receive() == bytes(range(32))
            if self.name == "relay":
                assert raw.ask_hop(muxed, HopMessage(HopKind.RESERVE))[0] is Status.OK
            else:
                assert muxed.open(PINGPONG, b"ping\n").message_until(b"\n") == b"pong\n"

    def log_since(self) -> str:
        """What was logged since it was asked for last."""
        with self.daemon.log.open("rb") as log:
            log.seek(self.read)
            new = log.read()
        self.read += len(new)
        return new.decode(errors="replace")

    @contextmanager
    def attacked(self, room: int = ROOM) -> Iterator[None]:
        """What follows is survived: the same process serves, has grown by less than `room`, and leaks nothing."""
        self.stand_up()
        self.assert_lets_in()
        self.log_since()
        memory, descriptors, pid = self.memory(), self.descriptors(), self.daemon.process.pid
        try:
            yield
        except BaseException:
            self.assert_lives()  # that it died is the better news
            raise
        self.assert_serves()
        grown = self.memory() - memory
        wait_for("descriptors to be given back", lambda: self.descriptors() <= descriptors + 2)
        print(f"{self.name}: RSS {memory / MIB:.1f} MiB, grown by {grown / MIB:.2f} MiB; pid {pid}")
        assert self.daemon.process.pid == pid
        assert grown < room
        log = self.log_since()
        assert "Traceback" not in log, log[max(0, log.index("Traceback") - 500) :][:LAST_WORDS]


@dataclass
class Scene:
    """Everything that runs."""

    pair: Pair
    node: Target
    relay: Target
    health: int
    patience: dict[tuple[str, str], Patience] = field(default_factory=dict)
    """What takes long goes on beside everything else: by its name and the target's."""

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[Scene]:
        """Set up, paired, and known to friend and traitor; at the end both processes are still there, and stop."""
        health = free_port()
        words = f"\nhealth:\n  enabled: true\n  listen_address: 127.0.0.1:{health}\n"
        pair = Pair.make(folder, relay_words=words)
        try:
            scene = cls._of(pair, health)
        except BaseException:
            pair.close()
            raise
        try:
            scene._be_patient()
            yield scene
            assert [pair.home.stop(), pair.relay.stop()] == [0, 0]
        finally:
            for patience in scene.patience.values():
                patience.end()
            pair.close()

    def _be_patient(self) -> None:
        for target in (self.node, self.relay):
            frozen = target.call(target.frozen)
            while not frozen.agreed:
                frozen.pump()
            deaf = target.call(target.frozen)
            assert isinstance(deaf.secured.line, Tcp)
            deaf.secured.line.socket.settimeout(1)
            with suppress(Silent):
                for _ in range(DEAF_STREAMS):
                    talk = deaf.open(PING)
                    for _ in range(4):
                        deaf.yamux.send(talk.number, bytes(60_000))
                    deaf.flush()
            slow = Tcp(target.port, raw.somewhere())
            for name, line, act in (
                ("frozen", frozen.secured.line, _nothing),
                ("never reads", deaf.secured.line, Wake(deaf.secured.line)),
                ("slow handshake", slow, Drip(slow)),
            ):
                assert isinstance(line, Tcp)
                self.patience[name, target.name] = Patience(line.socket, act)

    @classmethod
    def _of(cls, pair: Pair, health: int) -> Scene:
        friend, traitor, frozen = (Identity.generate() for _ in range(3))
        for peer in (friend.peer_id, traitor.peer_id, frozen.peer_id):
            pair.home.ctl("auth", "add", str(peer))
            pair.relay.authorize(str(peer))

        def target(
            name: str, under: Machine, start: Callable[[], object], port: Callable[[], int], path: str
        ) -> Target:
            def ping() -> str:
                done = pair.laptop.ctl("ping", "home", "-c", "1", "--path", path, check=False)
                return done.stdout + done.stderr

            peer = PeerId.parse(pair.relay.peer_id if name == "relay" else pair.home.ask("daemon", "status")["peer_id"])
            return Target(name, under, start, port, peer, friend, traitor, frozen, ping)

        node = target("node", pair.home, pair.home.start, lambda: _port(pair.home), "direct")
        relay = target("relay", pair.relay.machine, pair.relay.start, lambda: pair.relay.port, "relay")
        wait_for("the relay to see its allowlist", lambda: all(_is_let_in(relay, who) for who in (friend, frozen)))
        return cls(pair, node, relay, health)


def _port(machine: Machine) -> int:
    """Where a node listens on loopback."""
    told = machine.ask("daemon", "status")["listen_addresses"]
    return next(int(address.split("/")[4]) for address in told if address.startswith("/ip4/127.0.0.1/tcp/"))


def _is_let_in(target: Target, identity: Identity) -> bool:
    with target.call(identity) as muxed:
        try:
            return muxed.open(PING).chosen()
        except Gone:
            return False


def _nothing() -> None:
    pass


class Drip:
    """One more byte of a handshake, each time."""

    def __init__(self, line: Tcp) -> None:
        self._line = line
        self._rest = iter(raw.HEADER + frame(b"/noise\n"))

    def __call__(self) -> None:
        with suppress(Gone, Silent):
            self._line.send(bytes(itertools.islice(self._rest, 1)))


class Wake:
    """Read at last: until then what the other side sent before its end keeps the end back."""

    def __init__(self, line: Tcp) -> None:
        self._line = line
        self._sleeps = DEAF_SECONDS

    def __call__(self) -> None:
        self._sleeps -= 1
        with suppress(OSError):
            while self._sleeps < 0 and self._line.socket.recv(1 << 20, socket.MSG_DONTWAIT):
                pass


@dataclass
class Patience:
    """Something that takes its time, beside other tests: `act` says something every second, until the end comes."""

    sock: socket.socket
    act: Callable[[], None] = lambda: None
    seconds: float = 120.0
    took: float | None = None
    _over: bool = False
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        poll, began = select.poll(), time.monotonic()
        poll.register(self.sock, select.POLLRDHUP)  # not reading: what was not read stays where it is
        while time.monotonic() - began < self.seconds and not self._over:
            if poll.poll(1000):
                self.took = time.monotonic() - began
                return
            self.act()

    def result(self) -> float:
        """Seconds until the other side had enough."""
        self._thread.join(self.seconds + 5)
        assert self.took is not None, f"the other side was still there after {self.seconds:g} s"
        return self.took

    def end(self) -> None:
        """Wait no longer."""
        self._over = True
        self._thread.join()
        self.sock.close()
