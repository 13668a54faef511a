import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peerupd.model import snapshots as s
from peerupd.model.codec import MAX_NUMBER, from_json, to_json
from peerupd.model.errors import RequestError
from tests.support.strategies import SNAPSHOT_KINDS, snapshots


@dataclass(frozen=True)
class Sample:
    number: int
    ratio: float = 0.0
    flag: bool = False
    words: tuple[str, ...] = ()
    wish: s.PathWish = s.PathWish.ANY
    relays: tuple[s.RelayStatus, ...] = ()
    inner: s.Resolve | None = None
    named: Mapping[str, int] = field(default_factory=dict)


@pytest.mark.parametrize("kind", SNAPSHOT_KINDS)
@given(data=st.data())
@settings(max_examples=10)
def test_every_snapshot_survives_json(kind, data):
    snapshot = data.draw(snapshots(kind))

    assert from_json(kind, json.loads(json.dumps(to_json(snapshot)))) == snapshot


def test_what_is_none_is_left_out_and_lists_are_lists():
    assert to_json(s.RelayStatus("x", (), "absent")) == {"peer_id": "x", "addresses": [], "state": "absent"}


def test_mappings_and_lists_of_snapshots_are_written_too():
    assert to_json({"a": [s.Done("x")]}) == {"a": [{"status": "x"}]}


def test_names_of_fields_are_found_in_any_case_and_unknown_ones_ignored():
    assert from_json(s.Resolve, {"Name": "home", "colour": "red"}) == s.Resolve("home")


def test_a_whole_number_is_a_number():
    ratio = from_json(Sample, {"number": 1, "ratio": 2}).ratio

    assert ratio == 2.0
    assert isinstance(ratio, float)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ([], "wants a JSON object"),
        ({}, "number is required"),
        ({"number": "1"}, "number: wanted a whole number"),
        ({"number": True}, "number: wanted a whole number"),
        ({"number": 1.5}, "number: wanted a whole number"),
        ({"number": 1, "named": []}, "named: wanted a JSON object"),
        ({"number": 1, "named": {"a": "b"}}, "named: wanted a whole number"),
        ({"number": 1, "ratio": "x"}, "ratio: wanted a number"),
        ({"number": 1, "ratio": float("nan")}, "ratio: wanted a number"),
        ({"number": 1, "ratio": float("inf")}, "ratio: wanted a number"),
        ({"number": 1, "ratio": MAX_NUMBER * 10**400}, "ratio: wanted a number"),
        ({"number": 1, "ratio": True}, "ratio: wanted a number"),
        ({"number": 1, "flag": 1}, "flag: wanted true or false"),
        ({"number": 1, "words": "x"}, "words: wanted a list"),
        ({"number": 1, "words": [1]}, "words: wanted a text"),
        ({"number": 1, "wish": "fast"}, "wish: wanted one of any, direct, relay"),
        ({"number": 1, "wish": ["any"]}, "wish: wanted one of"),
        ({"number": 1, "relays": [{"state": "x"}]}, "peer_id is required"),
        ({"number": 1, "inner": 1}, "wants a JSON object"),
    ],
)
def test_a_wrong_body_is_answered_with_the_field_and_what_was_wanted(body, sentence):
    with pytest.raises(RequestError, match=sentence):
        from_json(Sample, body)


def test_null_is_taken_where_a_field_may_be_absent():
    assert from_json(Sample, {"number": 1, "inner": None}).inner is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(("number", "ratio", "flag", "words", "wish", "relays", "inner"))


@given(st.one_of(JSON, st.dictionaries(FIELDS, JSON)))
def test_any_json_is_a_request_or_a_request_error(body):
    try:
        sample = from_json(Sample, body)
    except RequestError:
        return
    assert from_json(Sample, to_json(sample)) == sample
