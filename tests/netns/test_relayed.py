"""Relay, home and laptop on a little internet: what is relayed is really relayed, and becomes direct when it can.

Home and laptop reach only the relay; a wall is between them until a test lowers it.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.cluster import wait_for
from tests.support.netns import Lab
from tests.support.pair import Pair

pytestmark = pytest.mark.lab

MIB = 1 << 20
BACK_WITHIN = 5.0  # seconds, the goal after a relay's restart


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def pair(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    hosts = [
        lab.host("relay", "203.0.113.10/24"),
        lab.host("home", "203.0.113.20/24", walled=True),
        lab.host("laptop", "203.0.113.30/24", walled=True),
    ]
    pair = Pair.make(tmp_path_factory.mktemp("lab"), hosts)
    yield pair
    pair.close()


@pytest.mark.parametrize("way", ["download", "upload"])
def test_64_mib_come_whole_through_the_relay(pair: Pair, way: str):
    with pair.proxy("source" if way == "download" else "sink") as port:
        seen = pair.client(way, port, 64 * MIB)
    print(f"relayed {way}: {seen['mb_per_s']} MB/s")
    assert seen["right"]
    assert pair.path() == "RELAYED"


def test_200_connections_of_1_mib_at_once_through_the_relay(pair: Pair):
    with pair.proxy("echo") as port:
        seen = pair.client("many", port, 200, MIB)
    assert (seen["right"], seen["of"]) == (200, 200)


def test_a_shell_like_session_through_the_relay(pair: Pair):
    with pair.proxy("echo") as port:
        seen = pair.client("interactive", port, 300)
    print(f"relayed 1-byte round trip: {seen['p50_ms']:.2f} ms")
    assert seen["right"]


def test_every_ping_says_relayed(pair: Pair):
    said = pair.laptop.ctl("ping", "home", "-c", "3", "--interval", "10ms").stdout
    assert said.count("path=[RELAYED]") == 3


def test_a_direct_path_is_not_to_be_had_behind_the_wall(pair: Pair):
    done = pair.laptop.ctl("ping", "home", "-c", "1", "--path", "direct", check=False)
    assert done.returncode == 5
    assert "without --path direct a relay is used too" in done.stderr


def test_a_relay_that_returns_has_the_reservation_back_within_five_seconds(pair: Pair):
    pair.relay.stop()
    wait_for("the loss", lambda: pair.home.ask("daemon", "status")["relays"][0]["state"] != "reserved")
    pair.relay.start()
    began = time.monotonic()
    for machine in (pair.home, pair.laptop):
        pair.await_reservation(machine, 3 * BACK_WITHIN)
    print(f"both reserved again after {time.monotonic() - began:.1f} s (goal {BACK_WITHIN:g} s)")


def test_new_connections_become_direct_and_the_open_one_loses_no_byte(lab: Lab, pair: Pair):
    """The last of the module: it takes the wall down."""
    with pair.proxy("source") as port:
        slow = subprocess.Popen(
            pair.client_command("download", port, 32 * MIB, "--slow"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            talk = iter(slow.stdout.readline, "")  # type: ignore[union-attr] # piped
            assert json.loads(next(talk))["got"] < 2 * MIB
            assert pair.path() == "RELAYED"
            lab.lower_walls()
            wait_for("the direct path", lambda: pair.path() == "DIRECT", 60)
            assert pair.client("download", port, 8 * MIB)["right"]
            assert "path=[DIRECT]" in pair.laptop.ctl("ping", "home", "-c", "1").stdout
            seen = {}
            for line in (json.loads(line) for line in _answered(slow, talk)):
                seen = line
            assert (seen["right"], seen["end"], seen["bytes"]) == (True, "eof", 32 * MIB)
        finally:
            slow.kill()
            slow.communicate()


def _answered(process: subprocess.Popen[str], lines: Iterator[str]) -> Iterator[str]:
    """Each line; a go-ahead after each."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    for line in lines:
        yield line
        if process.poll() is None and '"right"' not in line:
            process.stdin.write("\n")
            process.stdin.flush()
