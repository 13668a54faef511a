"""Readers that stop for longer than a keep-alive waits, and a memory budget much smaller than what is sent to them.

The applications at both ends stop reading, over direct and relayed paths at once: every buffer on the way is full, the
kernels' too. Nothing is reset, nobody dies, memory stays within its bounds, and once they read on every byte arrives.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.support import usage
from tests.support.cluster import DIE_WITH_US, Machine, end, wait_for
from tests.support.pair import Crowd, Pair

MIB = 1 << 20
LIMIT = 16 * MIB  # bytes, the daemons' named memory limit; what is left of it for the network is the least there is
BUDGET = 4 * MIB  # bytes
COUNT, SIZE = 24, 6 * MIB  # connections by each path, half of them each way; bytes
STILL = 2.0  # seconds without a byte
LATE = 2 * MIB  # bytes that may find a little room later
LONG = 50.0  # seconds: a keep-alive's question, its time to answer, and a little
ONE_READ = 512 * 1024  # bytes that a reader may have taken when the budget is reached, per connection
ROOM = 24 * MIB  # bytes a daemon may grow by: its budget, what is on its way out, a chunk for each connection


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    before = ("env", f"PEERUP_MEMORY_MAX={LIMIT}")
    pair = Pair.make(tmp_path_factory.mktemp("stuck"), before=before, covered=False)
    pair.await_path("direct")
    yield pair
    pair.close()


@contextmanager
def stuck(crowd: Crowd, port: int) -> Iterator[subprocess.Popen[str]]:
    """A crowd that has been greeted and does not read."""
    command = [*DIE_WITH_US, *crowd.command("stuck", port, COUNT, SIZE)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"greeted": COUNT}
        yield process
    finally:
        end(process)


def gauge(machine: Machine, name: str) -> int:
    """One of its counters, over all labels."""
    return sum(each["value"] for each in machine.ask("status")["counters"] if each["name"] == name)


def moved(pair: Pair) -> tuple[int, ...]:
    """Bytes that the service's connections have carried by now, on both sides."""
    return tuple(gauge(machine, "peerup_proxy_bytes_total") for machine in (pair.home, pair.laptop))


def stands_still(pair: Pair) -> bool:
    """Whether nothing moves any more, anywhere."""
    before = moved(pair)
    time.sleep(STILL)
    return moved(pair) == before


def read_on(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The crowd's end."""
    seen: dict[str, Any] = json.loads(process.communicate("go on\n", timeout=300)[0].splitlines()[-1])
    return seen


def test_readers_pause_nothing_is_reset_and_all_bytes_come_in_the_end(pair: Pair):
    machines = (pair.home, pair.laptop)
    at_rest = {machine.name: resident(machine) for machine in machines}
    with ExitStack() as undo:
        crowd = undo.enter_context(Crowd(pair))
        crowd.report("hold")
        ports = [undo.enter_context(pair.proxy("crowd", path)) for path in ("direct", "relay")]
        crowds = [undo.enter_context(stuck(crowd, port)) for port in ports]
        wait_for("standstill", lambda: stands_still(pair), 120.0)
        began = time.monotonic()
        stood = moved(pair)
        for machine in machines:
            held, grown = gauge(machine, "peerup_memory_held_bytes"), resident(machine) - at_rest[machine.name]
            print(
                f"\n{machine.name}: {held / MIB:.1f} MiB unread of {BUDGET / MIB:.0f}, grown by {grown / MIB:.1f} MiB"
            )
            assert gauge(machine, "peerup_memory_limit_bytes") == BUDGET
            assert held <= BUDGET + 2 * ONE_READ
            assert grown < ROOM
        time.sleep(max(0.0, began + LONG - time.monotonic()))
        assert sum(moved(pair)) - sum(stood) < LATE
        assert crowd.report("release")["open"] == 2 * COUNT
        ends = [read_on(process) for process in crowds]
        assert [seen["right"] for seen in ends] == [COUNT, COUNT], ends
        wait_for("empty buffers", lambda: all(gauge(m, "peerup_memory_held_bytes") == 0 for m in machines), 30.0)
    assert pair.laptop.ctl("ping", "home", "-c", "1").returncode == 0


def resident(machine: Machine) -> int:
    """Bytes of memory that its daemon holds."""
    assert machine.daemon is not None
    return usage.of(machine.daemon.process.pid).resident
