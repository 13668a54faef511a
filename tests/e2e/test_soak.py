"""A minute of churn, ten with FULL=1: connections, transfers, resets, a relay that restarts; nothing may grow.

Each round leaves the daemons at rest, and they are looked at then. What grows does so with the rounds: the slope of
memory over the second half is what counts, for what is loaded late and kept is loaded by then.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from statistics import linear_regression, median

import pytest

from tests.support import usage
from tests.support.cluster import wait_for
from tests.support.pair import Crowd, Pair
from tests.support.usage import Usage

KIB, MIB = 1 << 10, 1 << 20
SECONDS = 600.0 if os.environ.get("FULL") else 60.0
LEAST_ROUNDS = 6
GROWTH = (1 if os.environ.get("FULL") else 3) * MIB  # bytes over the second half, by the slope; rounds vary by one
SPARE = 2  # descriptors that may be in use for a moment at rest
LINGER_ZERO = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair.make(tmp_path_factory.mktemp("soak"), covered=False)
    yield pair
    pair.close()


def churn(pair: Pair, crowd: Crowd, number: int) -> None:
    """One round, by both paths; every third with another relay process."""
    for path in ("relay", "direct"):
        pair.await_path(path, 60.0)
        with pair.proxy("crowd", path) as port:
            for how, count, size in (("at-once", 100, 40 * KIB), ("in-turn", 60, KIB), ("freely", 10, MIB)):
                seen = crowd.run(how, port, count, size)
                assert seen["right"] == count, (path, how, seen)
            for _ in range(20):
                tear(port)
    if number % 3 == 2:
        restart_the_relay(pair)


def tear(port: int) -> None:
    """A connection that its application gives up in the middle of a word."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(b"half")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)


def restart_the_relay(pair: Pair) -> None:
    """In the middle of a transfer."""
    with pair.proxy("crowd", "relay") as port, socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(bytes(8))
        assert connection.recv(1) == b"!"
        pair.relay.stop()
        pair.relay.start()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    for machine in (pair.home, pair.laptop):
        pair.await_reservation(machine, 60.0)


def at_rest(pair: Pair, crowd: Crowd) -> dict[str, Usage]:
    """What the two daemons hold when nothing is open any more; the least of a few looks."""
    wait_for("the ends", lambda: not crowd.report()["open"], 60.0)
    wait_for("no streams", lambda: not streams(pair), 60.0)
    machines = {"home": pair.home, "laptop": pair.laptop}
    return {name: usage.of(machine.daemon.process.pid) for name, machine in machines.items()}


def streams(pair: Pair) -> int:
    """Connections of services that are open at home or at the laptop."""
    counters = [each for machine in (pair.home, pair.laptop) for each in machine.ask("status")["counters"]]
    return sum(each["value"] for each in counters if each["name"] == "peerup_proxy_active_connections")


def test_churn_leaves_nothing_behind(pair: Pair):
    looks: list[tuple[float, dict[str, Usage]]] = []
    began = time.monotonic()
    with Crowd(pair) as crowd:
        while time.monotonic() - began < SECONDS or len(looks) < LEAST_ROUNDS:
            churn(pair, crowd, len(looks))
            looks.append((time.monotonic() - began, at_rest(pair, crowd)))
    later = looks[len(looks) // 2 :]
    for name in ("home", "laptop"):
        slope = linear_regression([at for at, _ in later], [found[name].resident for _, found in later]).slope
        grown = slope * (later[-1][0] - later[0][0])
        first, last = looks[0][1][name], looks[-1][1][name]
        print(f"\n{name}, {len(looks)} rounds: {first} → {last}; {grown / KIB:.0f} KiB by the slope of the second half")
        print("  MB:", *(f"{found[name].resident / 1e6:.1f}" for _, found in looks))
        assert grown < GROWTH
        descriptors = [found[name].descriptors for _, found in looks]
        assert max(descriptors) - min(descriptors) <= SPARE
        assert median(descriptors[len(looks) // 2 :]) <= median(descriptors[: len(looks) // 2])
        assert max(found[name].threads for _, found in looks) <= 3
    for machine in (pair.home, pair.laptop, pair.relay.machine):
        assert "Traceback" not in machine.daemon.log.read_text()
