"""Crowds through one pair of peers: thousands of connections at once, and thousands one after the other.

Every byte is compared (`tests.support.crowd`). The daemons begin with the limits of a service manager: 1,024
descriptors, more for the asking. They run without coverage: memory is measured.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support import usage
from tests.support.cluster import end, wait_for
from tests.support.pair import Crowd, Pair
from tests.support.usage import Usage

MIB = 1 << 20
AT_ONCE, SIZE = 2_000, 1_000_000
IN_TURN = {"direct": 10_000, "relay": 10_000 if os.environ.get("FULL") else 2_500}
WARM_UP, SMALL = 1_000, 4_096
PER_CONNECTION = 256 * 1024  # bytes of memory, of each end, at the worst moment
GROWTH = 2 * MIB  # bytes, by thousands of connections that have ended
SERVICE_MANAGER = ("prlimit", "--nofile=1024:", "--")
FEW = ("prlimit", "--nofile=160:160", "--")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair.make(tmp_path_factory.mktemp("crowds"), before=SERVICE_MANAGER, covered=False)
    yield pair
    pair.close()


@pytest.fixture(scope="module")
def crowd(pair: Pair) -> Iterator[Crowd]:
    with Crowd(pair) as crowd:
        yield crowd


def of_all(pair: Pair) -> dict[str, Usage]:
    """What each of the three daemons holds."""
    machines = {"relay": pair.relay.machine, "home": pair.home, "laptop": pair.laptop}
    return {name: usage.of(machine.daemon.process.pid) for name, machine in machines.items()}


def shown(what: str, found: dict[str, Usage]) -> None:
    """For the reader of the log."""
    for name, each in found.items():
        print(f"  {what}, {name}: {each}")


def carried(machine, side: str) -> dict[str, int]:
    """Bytes of the crowd's service, by direction, as `status` counts them."""
    counters = machine.ask("status")["counters"]
    found = [each for each in counters if each["name"] == "peerup_proxy_bytes_total"]
    wanted = [each for each in found if (each["labels"]["service"], each["labels"]["side"]) == ("crowd", side)]
    return {each["labels"]["direction"]: each["value"] for each in wanted}


# -- one after the other: first, before the crowds have made room for themselves -------------------------------------


@pytest.mark.parametrize("path", ["direct", "relay"])
def test_thousands_of_connections_one_after_the_other_leave_nothing_behind(pair: Pair, crowd: Crowd, path: str):
    count = IN_TURN[path]
    with pair.proxy("crowd", path) as port:
        assert crowd.run("in-turn", port, WARM_UP, SMALL)["right"] == WARM_UP
        before = of_all(pair)
        seen = crowd.run("in-turn", port, count, SMALL)
        after = of_all(pair)
    print(f"\n{count} in turn, {path}: first byte after {seen['p50_ms']} ms")
    shown("before", before)
    shown("after", after)
    assert seen["right"] == count, seen
    for name, held in after.items():
        assert held.resident < before[name].resident + GROWTH, name
        assert held.descriptors <= before[name].descriptors + 1, name  # one answer of `status` may be under way
        assert held.threads <= before[name].threads + 1, name  # the one for the disk comes and goes


# -- at once -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["direct", "relay"])
def test_2000_connections_of_1_mb_at_once(pair: Pair, crowd: Crowd, path: str):
    """None carries its megabyte before all have been greeted by the service."""
    before, counted = of_all(pair), carried(pair.laptop, "used")
    with pair.proxy("crowd", path) as port:
        seen = crowd.run("at-once", port, AT_ONCE, SIZE)
    print(
        f"\n{AT_ONCE} × {SIZE} bytes at once, {path}: all greeted after {seen['greeted_after']} s, {seen['seconds']} s"
    )
    after = of_all(pair)
    shown("after", after)
    assert seen["right"] == AT_ONCE, seen
    assert crowd.report()["peak"] >= AT_ONCE
    wait_for("their ends", lambda: not crowd.report()["open"])
    for name in ("home", "laptop"):
        assert after[name].peak - before[name].resident < AT_ONCE * PER_CONNECTION, name
        assert after[name].descriptors <= before[name].descriptors + 1, name
    now = carried(pair.laptop, "used")
    assert all(now[way] - counted.get(way, 0) >= AT_ONCE // 2 * SIZE for way in ("rx", "tx"))
    assert "Traceback" not in pair.home.daemon.words() + pair.laptop.daemon.words()


def test_more_than_a_peer_takes_at_once_wait_for_their_turn(pair: Pair, crowd: Crowd):
    with pair.proxy("crowd") as port:
        seen = crowd.run("freely", port, 3_000, SMALL)
    assert seen["right"] == 3_000, seen


def test_when_the_descriptors_run_out_accepting_and_dialling_pause_and_nothing_is_lost(pair: Pair, crowd: Crowd):
    """For real: the limits of both daemons are lowered while they run, and put back when they have noticed."""
    pair.await_path("direct")
    left = {pair.home.daemon.process.pid: 5, pair.laptop.daemon.process.pid: 20}
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in left}
    with pair.proxy("crowd", "direct") as port, ExitStack() as undo:
        for pid, (soft, hard) in limits.items():
            undo.callback(resource.prlimit, pid, resource.RLIMIT_NOFILE, (soft, hard))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (usage.of(pid).descriptors + left[pid], hard))
        process = subprocess.Popen(crowd.command("at-once", port, 200, SMALL), stdout=subprocess.PIPE, text=True)
        undo.callback(end, process)
        wait_for("the lack", lambda: "event=proxy.accept_failed" in pair.laptop.daemon.words(), 60.0)
        for pid, limit in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
        seen = json.loads(process.communicate(timeout=120)[0])
    assert seen["right"] == 200, seen


def test_with_few_descriptors_the_rest_wait_and_nothing_is_lost(tmp_path):
    pair = Pair.make(tmp_path / "few", before=FEW, covered=False)
    try:
        with Crowd(pair) as crowd, pair.proxy("crowd") as port:
            seen = crowd.run("freely", port, 600, 64 * 1024)
            assert seen["right"] == 600, seen
            assert pair.laptop.ctl("ping", "home", "-c", "1").returncode == 0
    finally:
        pair.close()
