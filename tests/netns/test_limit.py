"""A relay's limit ends a transfer as a reset on both sides, never as a clean end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster import wait_for
from tests.support.netns import Lab
from tests.support.pair import Pair

pytestmark = pytest.mark.lab

MIB = 1 << 20


@pytest.fixture
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Lab() as lab:
        hosts = [
            lab.host("relay", "203.0.113.10/24"),
            lab.host("home", "203.0.113.20/24", walled=True),
            lab.host("laptop", "203.0.113.30/24", walled=True),
        ]
        pair = Pair.make(tmp_path_factory.mktemp("lab"), hosts, relay_words="\nresources:\n  session_data_limit: 4MB\n")
        yield pair
        pair.close()


def test_a_transfer_over_the_data_limit_is_reset_on_both_sides(pair: Pair):
    with pair.proxy("source") as port:
        seen = pair.client("download", port, 32 * MIB)
        assert (seen["end"], seen["right"]) == ("reset", False)
        assert seen["bytes"] < 5 * MIB
        wait_for("the service's end", lambda: "reset" in pair.ends())


def test_short_transfers_go_on_for_ever_because_a_fresh_circuit_comes_before_the_limit(pair: Pair):
    """A new circuit is opened at four fifths of the limit: what is begun then has a fifth of it left."""
    with pair.proxy("source") as port:
        assert [pair.client("download", port, MIB // 2)["right"] for _ in range(16)] == [True] * 16
