"""YAML text to nodes: YAML 1.2 scalars, lines, duplicate keys, and bounds; by the C parser and the one without."""

from __future__ import annotations

import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from peerupd.config import yaml_text
from peerupd.config.yaml_text import MAX_CONFIG_BYTES, MAX_DEPTH, Items, Scalar, Table, plain, read, whole_number
from peerupd.model.errors import ConfigInvalid


@pytest.fixture(params=["CSafeLoader", "SafeLoader"], autouse=True)
def parser(request, monkeypatch):
    monkeypatch.setattr(yaml_text, "_Loader", getattr(yaml, request.param))


def value_of(text: str) -> object:
    return plain(read(f"k: {text}").root)["k"]


def problem_of(text: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        read(text)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize("text", ["on", "off", "yes", "no", "10:22", "0777:1", "1_000", "2001-01-01", "=", "12e", "<<"])
def test_what_only_yaml_1_1_takes_for_something_else_is_text(text):
    assert value_of(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-12", -12),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("-.inf", -math.inf),
        ("9" * 30, float("9" * 30)),
        ('"12"', "12"),
        ("'true'", "true"),
        ("!!str 12", "12"),
        ('"a\\tb"', "a\tb"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    assert value_of(text) == value
    assert type(value_of(text)) is type(value)


def test_not_a_number_is_one():
    assert math.isnan(value_of(".NaN"))


@pytest.mark.parametrize(("text", "number"), [("7", 7), ("0x10", 16), ("'7'", None), ("7.0", None), ("seven", None)])
def test_a_whole_number_is_written_without_quotes(text, number):
    node = read(f"k: {text}").root.entries[0].value
    assert whole_number(node) == number


def test_nodes_remember_where_they_stand():
    text = "# é𝄞\na: 'é𝄞'  # c\nlist:\n- x\n- {y: 1}\n"
    a, items = (entry.value for entry in read(text).root.entries)
    assert (text[a.start : a.end], a.line) == ("'é𝄞'", 2)
    assert isinstance(items, Items)
    assert (items.line, text[items.start], items.flow) == (4, "-", False)
    table = items.items[1]
    assert isinstance(table, Table)
    assert (text[table.start : table.end], table.flow) == ("{y: 1}", True)


def test_nodes_name_themselves():
    root = read("a: b\nc: [d]\ne: ~\n").root
    assert [str(entry.value) for entry in root.entries] == ["'b'", "a list", "nothing"]
    assert str(root) == "a group of keys"


def test_keys_are_text():
    assert plain(read("1: a\ntrue: b\nno: c\n'd': e").root) == {"1": "a", "true": "b", "no": "c", "d": "e"}


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "---\n...\n", "~", "{}"])
def test_an_empty_text_is_an_empty_table(text):
    assert plain(read(text).root) == {}


def test_a_key_given_twice_is_a_problem_with_both_lines():
    document = read("a:\n  b: 1\n  c: 2\n  'b': 3\nd: {e: 1, e: 2}\n")
    assert document.problems == (
        (4, "a.b: wanted each key once, got it again (first in line 2)"),
        (5, "d.e: wanted each key once, got it again (first in line 5)"),
    )


def test_a_tag_is_a_problem():
    assert read("a: [1, !!python/name:os.system x]").problems == (
        (1, "a[1]: wanted a value without a tag, got 'tag:yaml.org,2002:python/name:os.system'"),
    )


def test_aliases_are_refused():
    bomb = "a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    assert problem_of(bomb) == "line 2: wanted the value itself, got the alias *a"


@pytest.mark.parametrize("opener", ["[", "{a: ", "- "])
def test_nesting_is_bounded(opener):
    text = "k:\n  " + opener * (MAX_CONFIG_BYTES // 8)
    assert problem_of(text).endswith(f"wanted at most {MAX_DEPTH} levels of nesting, got more")


@pytest.mark.parametrize("text", ["#" * (MAX_CONFIG_BYTES + 1), "#" + "é" * (MAX_CONFIG_BYTES // 2)])
def test_size_is_bounded_before_parsing(text, monkeypatch):
    monkeypatch.setattr(yaml, "parse", lambda *_args, **_kwargs: pytest.fail("it was parsed"))
    assert problem_of(text) == "line 1: wanted at most 256 KiB, got more"


def test_a_text_of_the_largest_size_is_read():
    assert plain(read("#" * MAX_CONFIG_BYTES).root) == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: b\nc: }", "line 2: wanted YAML, got "),
        ("a: b\n\tc: d", "line 2: wanted YAML, got "),
        ("a: b: c", "line 1: wanted YAML, got mapping values are not allowed"),
        ("a: \x00", "line 1: wanted YAML, got the character "),
        ("a: \ud800", "line 1: wanted "),
        ("a: b\n---\nc: d", "line 2: wanted one document, got a second one"),
        ("- a", "line 1: wanted keys with values, got a list"),
        ("just text", "line 1: wanted keys with values, got 'just text'"),
        ("? [a]\n: b", "line 1: wanted a key, got a list"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text, problem):
    assert problem_of(text).startswith(problem)


def test_a_document_ends_at_its_mark_or_with_the_text():
    assert read("a: b\n...\n# c\n").end == 5
    assert read("a: b\n# c\n").end == len("a: b\n# c\n")


@given(st.text(max_size=300) | st.text("abc:-#[]{}\"'|>&*!%? \n\t~", max_size=300))
def test_any_text_is_read_or_refused(text):
    try:
        document = read(text)
    except ConfigInvalid:
        return
    assert 0 <= document.root.start <= document.end <= len(text)


def scalars(node):
    match node:
        case Scalar():
            yield node
        case Items():
            for item in node.items:
                yield from scalars(item)
        case Table():
            for entry in node.entries:
                yield entry.key
                yield from scalars(entry.value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**50), 2**50)
    | st.text(st.characters(codec="utf-8", exclude_categories=["C"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcd é", max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text("abcd", max_size=5), JSON, max_size=5))
def test_json_is_read_as_json_and_every_scalar_stands_where_it_says(value):
    text = json.dumps(value, ensure_ascii=False, indent=1)
    root = read(text).root
    assert plain(root) == value
    for scalar in scalars(root):
        found = text[scalar.start : scalar.end]
        assert (found if scalar.plain else json.loads(found)) == scalar.text
        assert text.count("\n", 0, scalar.start) + 1 == scalar.line
