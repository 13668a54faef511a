"""Counters: exact, closed in their names, bounded in their labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model import counters
from peerupd.model.codec import to_json
from peerupd.model.counters import NAMES, Count, Counters


def test_what_was_never_counted_is_zero() -> None:
    assert Counters().get(counters.DECISIONS, decision="deny") == 0
    assert Counters().snapshot() == ()


def test_counts_add_up_by_their_labels() -> None:
    made = Counters()
    made.count(counters.PROXY_BYTES, 10, service="ssh", direction="rx", side="served")
    made.count(counters.PROXY_BYTES, 5, service="ssh", direction="rx", side="served")
    made.count(counters.PROXY_BYTES, 7, service="web", direction="tx", side="served")
    assert made.get(counters.PROXY_BYTES, service="ssh", direction="rx", side="served") == 15
    assert made.get(counters.PROXY_BYTES, service="web", direction="rx", side="served") == 0


def test_labels_that_are_not_named_are_summed_up() -> None:
    made = Counters()
    made.count(counters.DIALS, path_type="DIRECT", result="success")
    made.count(counters.DIALS, 2, path_type="RELAYED", result="success")
    made.count(counters.DIALS, 4, path_type="RELAYED", result="failure")
    assert made.get(counters.DIALS) == 7
    assert made.get(counters.DIALS, result="success") == 3
    assert made.get(counters.DIALS, path_type="RELAYED") == 6


def test_a_gauge_goes_down_and_can_be_put() -> None:
    made = Counters()
    made.count(counters.CIRCUITS_ACTIVE)
    made.count(counters.CIRCUITS_ACTIVE)
    made.count(counters.CIRCUITS_ACTIVE, -1)
    assert made.get(counters.CIRCUITS_ACTIVE) == 1
    made.put(counters.CIRCUITS_ACTIVE, 9)
    assert made.get(counters.CIRCUITS_ACTIVE) == 9


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("peerup_nonsense_total", {}),
        (counters.DECISIONS, {}),
        (counters.DECISIONS, {"decison": "allow"}),
        (counters.DECISIONS, {"decision": "allow", "peer": "x"}),
        (counters.CIRCUITS_ACTIVE, {"peer": "x"}),
    ],
)
def test_an_unknown_name_or_label_is_a_bug_that_is_told(name: str, labels: dict[str, str]) -> None:
    made = Counters()
    with pytest.raises(KeyError):
        made.count(name, **labels)
    with pytest.raises(KeyError):
        made.put(name, 1, **labels)
    assert made.snapshot() == ()


@pytest.mark.parametrize(("name", "labels"), [("peerup_nonsense_total", {}), (counters.DECISIONS, {"peer": "x"})])
def test_nor_can_one_be_asked_for(name: str, labels: dict[str, str]) -> None:
    with pytest.raises(KeyError):
        Counters().get(name, **labels)


def test_labels_are_bounded_and_nothing_is_lost() -> None:
    made = Counters()
    for number in range(counters.MAX_VALUES + 50):
        made.count(counters.CONNECTIONS_REFUSED, reason=f"reason {number}")
    assert len(made.snapshot()) == counters.MAX_VALUES + 1
    assert made.get(counters.CONNECTIONS_REFUSED, reason=counters.OTHER) == 50
    assert made.get(counters.CONNECTIONS_REFUSED) == counters.MAX_VALUES + 50


def test_one_label_that_is_full_leaves_the_others_alone() -> None:
    made = Counters()
    for number in range(counters.MAX_VALUES + 1):
        made.count(counters.PROXY_CONNECTIONS, service=f"s{number}", side="used")
    made.count(counters.PROXY_CONNECTIONS, service="late", side="served")
    assert made.get(counters.PROXY_CONNECTIONS, service=counters.OTHER, side="served") == 1


def test_a_snapshot_is_in_order_and_becomes_json() -> None:
    made = Counters()
    made.count(counters.MEMORY_HELD, 3)
    made.count(counters.DECISIONS, decision="deny")
    made.count(counters.DECISIONS, 2, decision="allow")
    assert made.snapshot() == (
        Count(counters.DECISIONS, {"decision": "allow"}, 2),
        Count(counters.DECISIONS, {"decision": "deny"}, 1),
        Count(counters.MEMORY_HELD, {}, 3),
    )
    assert to_json(made.snapshot())[0] == {"name": counters.DECISIONS, "labels": {"decision": "allow"}, "value": 2}


def test_a_copy_has_the_same_counts_and_goes_its_own_way() -> None:
    made = Counters()
    made.count(counters.CONNECTIONS_REFUSED, reason="gate")
    copied = made.copy()
    copied.count(counters.CONNECTIONS_REFUSED, reason="gate")
    copied.count(counters.CONNECTIONS_REFUSED, reason="limit")
    assert made.get(counters.CONNECTIONS_REFUSED) == 1
    assert copied.get(counters.CONNECTIONS_REFUSED) == 3


def test_every_name_follows_the_conventions_of_metrics() -> None:
    for name, (told, labels) in NAMES.items():
        assert name.startswith("peerup_")
        assert told.endswith(".")
        assert len(set(labels)) == len(labels)


@given(st.lists(st.tuples(st.sampled_from(["rx", "tx"]), st.integers(0, 1 << 40))))
def test_the_sum_of_all_is_the_sum_of_what_was_counted(counted: list[tuple[str, int]]) -> None:
    made = Counters()
    for direction, size in counted:
        made.count(counters.CONNECTION_BYTES, size, direction=direction, path_type="DIRECT")
    assert made.get(counters.CONNECTION_BYTES) == sum(size for _, size in counted)
    assert sum(each.value for each in made.snapshot()) == made.get(counters.CONNECTION_BYTES)
