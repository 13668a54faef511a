"""What peers cause is told, but not as often as they cause it."""

from __future__ import annotations

import logging

import pytest

from peerupd.p2p import telling
from peerupd.p2p.telling import Teller


def test_a_flood_of_one_event_costs_few_lines_and_says_what_was_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    tell = Teller(logging.getLogger("test"), clock=lambda: now)
    for number in range(10_000):
        tell.info("relay.denied", "no, for the %dth time", number, peer="x")
    assert len(caplog.records) == telling.AT_ONCE
    tell.info("relay.reserved", "but this is another event")
    assert len(caplog.records) == telling.AT_ONCE + 1
    now = telling.INTERVAL
    tell.info("relay.denied", "no, at %s", "last", peer="x")
    tell.info("relay.denied", "no, at %s", "last", peer="x")
    left_out = 10_000 - telling.AT_ONCE
    assert caplog.messages[-1] == f"no, at last ({left_out} more like it were not told)"
    assert caplog.records[-1].peerup == {"event": "relay.denied", "peer": "x"}


def test_a_day_of_it_stays_small(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    tell = Teller(logging.getLogger("test"), clock=lambda: now)
    for second in range(86_400):
        now = float(second)
        tell.info("circuit.opened", "circuit")
    assert len(caplog.records) <= telling.AT_ONCE + 86_400 / telling.INTERVAL
