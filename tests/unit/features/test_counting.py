"""What connections to services carried is counted once, also while they run."""

import pytest

from peerupd.features.counting import SERVED, USED, Traffic
from peerupd.model.counters import PROXY_ACTIVE, PROXY_BYTES, PROXY_CONNECTIONS, PROXY_REFUSED, Counters


@pytest.fixture
def counters():
    return Counters()


def carried(counters, side=SERVED):
    return tuple(counters.get(PROXY_BYTES, direction=way, service="web", side=side) for way in ("tx", "rx"))


def test_a_connection_is_counted_while_it_runs_and_when_it_has_ended(counters):
    traffic = Traffic(counters, SERVED)
    with traffic.connection("web") as tally:
        tally.add_sent(3)
        tally.add_received(4)
        assert counters.get(PROXY_ACTIVE, service="web", side=SERVED) == 1
        assert carried(counters) == (0, 0)
    assert counters.get(PROXY_ACTIVE, service="web", side=SERVED) == 0
    assert counters.get(PROXY_CONNECTIONS, service="web", side=SERVED) == 1
    assert carried(counters) == (3, 4)


def test_bytes_under_way_are_counted_when_asked_and_never_twice(counters):
    traffic = Traffic(counters, USED)
    with traffic.connection("web") as one, traffic.connection("web") as other:
        one.add_sent(3)
        traffic.settle()
        traffic.settle()
        assert carried(counters, USED) == (3, 0)
        one.add_sent(1)
        other.add_received(5)
        traffic.settle()
        assert carried(counters, USED) == (4, 5)
        one.add_received(1)
    traffic.settle()
    assert carried(counters, USED) == (4, 6)


def test_a_connection_that_fails_is_counted_too(counters):
    traffic = Traffic(counters, USED)
    with pytest.raises(ValueError, match="torn"), traffic.connection("web") as tally:
        tally.add_sent(9)
        raise ValueError("torn")
    assert carried(counters, USED) == (9, 0)
    assert counters.get(PROXY_ACTIVE) == 0


def test_refusals_are_counted_by_their_reason(counters):
    Traffic(counters, SERVED).refused("web", "down")
    assert counters.get(PROXY_REFUSED, reason="down", service="web", side=SERVED) == 1
    Traffic(None, SERVED).refused("web", "down")
    assert counters.get(PROXY_REFUSED) == 1
