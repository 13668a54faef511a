"""Table S: what the programs weigh, how soon they are there, what they cost while nothing happens."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figures import Book
from bench.ours import Network, joined, network, peer_id, pid_of, until_reserved
from bench.processes import LOAD, client, cpu, line, resident, running, service
from bench.progress import leaving_out, say
from bench.stage import Stage, traffic
from tests.support.cluster import Cluster, Machine, end, free_port

ROUNDS = 5
SETTLE = 1.5  # seconds from the last connection to the look at memory
IDLE = {True: 10.0, False: 60.0}  # seconds of watching, quick or not
KEEP_ALIVE = 30.0  # seconds; a shorter look sees no traffic at all, or far too much
GUESTS = {True: 60, False: 200}  # reserved peers
HALF_WAY = 0.025  # seconds: half of the 50 ms of S7
DAY = 86400  # seconds
RELAY_WORDS = "\nresources:\n  max_reservations: 2000\n  max_reservations_per_ip: 2000\n"
HERE = Path(__file__).resolve().parent


def measure(book: Book, stage: Stage, folder: Path, *, quick: bool) -> None:
    """All lines of the table."""
    folder.mkdir()
    with leaving_out(book, "S1 to S6"), service(stage.home) as port:
        services = [("bench", port), ("web", port), ("files", port)]
        with network(stage, folder / "near", services, RELAY_WORDS) as made:
            near(book, made, stage, quick=quick)
    with leaving_out(book, "S3, relay unreachable"):
        unreachable(book, stage, folder / "unreachable")
    with leaving_out(book, "S7"):
        joins(book, stage, folder / "far")


def near(book: Book, made: Network, stage: Stage, *, quick: bool) -> None:
    """The lines of one network, in an order in which each leaves it as the next one wants it."""
    with leaving_out(book, "S1, S3"):
        tablet = joined(made.cluster, made.home, "tablet", stage.far_client)
        tablet.start()
        starts(book, made, tablet)
    with leaving_out(book, "S6"):
        idle(book, made, stage, IDLE[quick])
    with leaving_out(book, "S4"):
        status(book, made.laptop)
    with leaving_out(book, "S5"):
        alone(book, made, stage)
    with leaving_out(book, "S2"):
        guests(book, made, stage, GUESTS[quick])


# -- S1, S3 --------------------------------------------------------------------------------------------------------


def starts(book: Book, made: Network, tablet: Machine) -> None:
    """Start home again and again: how long it takes, and what it weighs when its peers are there."""
    for number in range(ROUNDS):
        say(f"s1 s2 s3, round {number + 1}/{ROUNDS}")
        made.home.stop()
        book.note("s", "exec to ready and control socket", s=started(made.home))
        until_reserved(made.home)
        for peer in (made.laptop, tablet):
            peer.ctl("ping", "home", "-c", "1")
        time.sleep(SETTLE)
        book.note("s", "idle daemon: 1 relay, 2 peers, 3 services", MB=resident(pid_of(made.home)))


def started(machine: Machine) -> float:
    """Seconds from exec to `READY=1` and an answer of the control socket."""
    machine.start()
    assert machine.daemon is not None
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(10)
        door.connect(str(machine.config.parent / "peerup.sock"))
        door.sendall(b"GET /v1/status HTTP/1.1\r\nHost: peerup\r\n\r\n")
        if not door.recv(64).startswith(b"HTTP/1.1 "):
            raise RuntimeError("the control socket has not answered")
    return time.monotonic() - machine.daemon.started


def unreachable(book: Book, stage: Stage, folder: Path) -> None:
    """The same with a relay that never answers."""
    with Cluster(folder) as cluster:
        machine = cluster.machine("lonely", stage.home.prefix)
        stranger = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
        relay = f"/ip4/{stage.nowhere}/tcp/7777/p2p/{stranger}"
        machine.ctl("init", "--non-interactive", "--relay", relay)
        for number in range(ROUNDS):
            say(f"s3, relay unreachable, round {number + 1}/{ROUNDS}")
            book.note("s", "the same, relay unreachable", s=started(machine))
            machine.stop()


# -- S2 ------------------------------------------------------------------------------------------------------------


def guests(book: Book, made: Network, stage: Stage, count: int) -> None:
    """The relay with two peers, and what each further one that holds a slot adds."""
    say(f"s2: {count} reserved peers")
    relay = made.relay
    program = [sys.executable, str(HERE / "guests.py"), relay.multiaddr, str(count)]
    with running(program, stage.far_client) as process:
        ids = json.loads(line(process))
        _let_in(made, ids)
        two = [made.home, made.laptop]
        _wait_reserved(two)
        time.sleep(SETTLE)
        before = resident(pid_of(relay.machine))
        book.note("s", "idle relay: 2 peers", MB=before)
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        held = int(line(process))
        time.sleep(SETTLE)
        each = (resident(pid_of(relay.machine)) - before) * 1000 / held
        book.note("s", "each further reserved peer", KB=each)
        if held < count:
            book.left_out["S2"] = f"only {held} of {count} reservations were granted"


def _let_in(made: Network, ids: list[str]) -> None:
    """Into the relay's allowlist, while it is stopped; only home and laptop come back by themselves."""
    made.relay.stop()
    file = made.relay.config.parent / "relay_authorized_keys"
    file.write_text(file.read_text().rstrip("\n") + "\n" + "".join(f"{peer}\n" for peer in ids))
    for machine in made.cluster.machines:
        if machine.name == "tablet":
            machine.stop()
    made.relay.start()


def _wait_reserved(machines: list[Machine]) -> None:
    for machine in machines:
        if machine.daemon is None or machine.daemon.process.poll() is not None:
            machine.start()
        until_reserved(machine)


# -- S4, S5, S6 ----------------------------------------------------------------------------------------------------


def status(book: Book, machine: Machine) -> None:
    """`peerupctl status`, the whole process."""
    for number in range(4 * ROUNDS):
        say(f"s4, round {number + 1}/{4 * ROUNDS}")
        wall, burnt = timed(machine, "status")
        book.note("s", "peerupctl status", ms=wall * 1e3)
        book.note("s", "peerupctl status, CPU", ms=burnt * 1e3)


def timed(machine: Machine, *words: str) -> tuple[float, float]:
    """Seconds by the clock and of CPU that a command took."""
    began = time.perf_counter()
    process = subprocess.Popen(
        machine.command(*words), env=machine.env, cwd=machine.home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    complaint = process.stderr.read().decode()
    _, state, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(state)
    process.stderr.close()
    if process.returncode:
        raise RuntimeError(f"peerupctl {' '.join(words)}: {complaint}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


def alone(book: Book, made: Network, stage: Stage) -> None:
    """Without a daemon: a ping, and a proxy to its first byte."""
    made.laptop.stop()
    with client(stage.client) as asking:
        for number in range(ROUNDS):
            say(f"s5, round {number + 1}/{ROUNDS}")
            book.note("s", "ping without a daemon", s=timed(made.laptop, "ping", "home", "-c", "1")[0])
            port, began = free_port(), time.perf_counter()
            proxy = made.laptop.begin("proxy", "home", "bench", str(port))
            try:
                line(proxy)
                asking.ask("firsts", ("127.0.0.1", port), count=1)
                book.note("s", "proxy without a daemon, to first byte", s=time.perf_counter() - began)
            finally:
                end(proxy)


def idle(book: Book, made: Network, stage: Stage, seconds: float) -> None:
    """What a daemon costs while its peers are connected and nobody wants anything."""
    pid, relay = pid_of(made.home), made.relay
    say(f"s6: watching an idle daemon for {seconds:.0f} s")
    burnt, carried = cpu([pid]), traffic(stage.home, relay.address, relay.port)
    time.sleep(seconds)
    book.note("s", "idle CPU", **{"%": 100 * (cpu([pid]) - burnt) / seconds})
    after = traffic(stage.home, relay.address, relay.port)
    if not stage.in_namespaces or seconds < KEEP_ALIVE:
        book.left_out["S6 traffic"] = "it needs namespaces, and more than a few seconds: a full run as root"
        return
    book.note("s", "idle traffic per relay, a day", MB=(after - carried) / 1e6 / seconds * DAY)


# -- S7 ------------------------------------------------------------------------------------------------------------


def joins(book: Book, stage: Stage, folder: Path) -> None:
    """`join` through a relay that is 50 ms away from either side, to the end of both commands."""
    with Cluster(folder) as cluster:
        relay = cluster.relay(stage.relay.address, free_port(), stage.relay.prefix)
        with far_away(stage, relay.port) as port:
            home = cluster.machine("home", stage.home.prefix)
            relay_address = relay.multiaddr.replace(f"/tcp/{relay.port}/", f"/tcp/{port}/")
            home.ctl("init", "--non-interactive", "--relay", relay_address)
            relay.authorize(peer_id(home), "home")
            home.start()
            until_reserved(home)
            for number in range(ROUNDS):
                say(f"s7, round {number + 1}/{ROUNDS}")
                seconds = _join(cluster, home, cluster.machine(f"laptop{number}", stage.client.prefix))
                book.note("s", "join to both sides done, relayed, 50 ms", s=seconds)


def _join(cluster: Cluster, home: Machine, joiner: Machine) -> float:
    invite = cluster.begin(home, "invite", "--name", "home", "--non-interactive")
    code = line(invite)
    began = time.perf_counter()
    joiner.ctl("join", "--name", joiner.name, "--non-interactive", say=code + "\n")
    if invite.wait(20):
        raise RuntimeError(f"{joiner.name} has not joined")
    return time.perf_counter() - began


@contextmanager
def far_away(stage: Stage, port: int) -> Iterator[int]:
    """A port in front of the relay's from which it is 50 ms there and back."""
    program = [sys.executable, str(LOAD.with_name("far.py")), stage.relay.address, str(port), str(HALF_WAY)]
    with running(program, stage.relay) as process:
        yield int(line(process))
