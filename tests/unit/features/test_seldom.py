"""One line per interval."""

from peerupd.features import seldom
from peerupd.features.seldom import Seldom


def test_the_same_trouble_is_told_once_per_interval():
    now = 0.0
    told = Seldom(60, clock=lambda: now)
    assert told.due("a")
    now = 59.0
    assert not told.due("a")
    assert told.due("b")
    now = 60.0
    assert told.due("a")


def test_what_is_remembered_is_bounded():
    told = Seldom(60, clock=lambda: 0.0)
    for number in range(seldom.MAX_KEYS + 1):
        assert told.due(number)
    assert len(told._told) == seldom.MAX_KEYS
    assert told.due(0)  # forgotten, as the oldest
