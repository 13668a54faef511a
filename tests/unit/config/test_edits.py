"""Edits of a YAML text: what was asked for, and nothing else."""

from __future__ import annotations

import dataclasses
from copy import deepcopy
from textwrap import dedent

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from peerupd.config import yaml_text
from peerupd.config.edits import Append, Change, Drop, Put, Remove, edited
from peerupd.config.rendering import key_text, quoted
from peerupd.config.templates import node_template
from peerupd.config.yaml_text import Items, Node, Scalar, Table, plain, read
from peerupd.model.errors import ConfigInvalid, Conflict
from tests.support.strategies import YAML_KEYS, yaml_texts, yaml_values

HOME = "12D3KooWPrmh163sTHW3mYQm7YsLsSR2wr71fPp4g6yjuGv3sGQt"
LAPTOP = "12D3KooWNq8c1fNjXwhRoWxSXT419bumWQFoTbowCwHEa96RJRg6"


def text(block: str) -> str:
    return dedent(block).lstrip("\n")


CASES: dict[str, tuple[str, Change, str]] = {
    "an empty table becomes a block and keeps its comment": (
        """
        names: {}         # Map friendly names to peer IDs
        #  home: "12D3KooW..."
        last: 1
        """,
        Put(("names", "home"), HOME),
        f"""
        names:         # Map friendly names to peer IDs
          home: "{HOME}"
        #  home: "12D3KooW..."
        last: 1
        """,
    ),
    "an empty table without a comment leaves no blank": (
        "names: {}\nlast: 1\n",
        Put(("names", "home"), "x"),
        'names:\n  home: "x"\nlast: 1\n',
    ),
    "an empty list becomes a block": (
        """
        relay:
          addresses: []  # none yet
          reservation_interval: "2m"
        """,
        Append(("relay", "addresses"), "/ip4/1.2.3.4/tcp/5"),
        """
        relay:
          addresses:  # none yet
            - "/ip4/1.2.3.4/tcp/5"
          reservation_interval: "2m"
        """,
    ),
    "a key without a value is filled": (
        """
        services:  # mine
        #  ssh:
        names: {}
        """,
        Put(("services", "ssh"), {"enabled": True, "local_address": "localhost:22", "tags": ["a", "b"]}),
        """
        services:  # mine
          ssh:
            enabled: true
            local_address: "localhost:22"
            tags:
              - "a"
              - "b"
        #  ssh:
        names: {}
        """,
    ),
    "a nothing that is written is filled": (
        "services: ~\n",
        Put(("services", "a", "b"), None),
        "services:\n  a:\n    b: null\n",
    ),
    "an item goes below the last one, where the others stand": (
        """
        relay:
          addresses:
          - "/ip4/1.2.3.4/tcp/5"  # first

          # end of the list
        names: {}
        """,
        Append(("relay", "addresses"), "/ip4/1.2.3.4/tcp/6"),
        """
        relay:
          addresses:
          - "/ip4/1.2.3.4/tcp/5"  # first
          - "/ip4/1.2.3.4/tcp/6"

          # end of the list
        names: {}
        """,
    ),
    "a table in a list is written below its dash": (
        "proxies:\n    - peer: a\n      listen: 1\n",
        Append(("proxies",), {"peer": "b", "listen": 2, "more": [["x"], {}]}),
        """
        proxies:
            - peer: a
              listen: 1
            - peer: "b"
              listen: 2
              more:
                - - "x"
                - {}
        """,
    ),
    "absent tables are appended at the end, behind the last comment": (
        """
        version: 1

        # telemetry:
        #   audit:
        """,
        Put(("names", "home"), "x"),
        """
        version: 1

        # telemetry:
        #   audit:
        names:
          home: "x"
        """,
    ),
    "an absent list is appended": ("a: 1\n", Append(("b", "c"), "x"), 'a: 1\nb:\n  c:\n    - "x"\n'),
    "a text without a line end gets one": ("a: 1", Put(("b",), 2), "a: 1\nb: 2\n"),
    "lines end as the others do": ("a: 1\r\nb: {}\r\n", Put(("b", "c"), 2), "a: 1\r\nb:\r\n  c: 2\r\n"),
    "a text over lines stays whole": (
        "a:\n  b: |\n    x\n\n# c\nd: 1\n",
        Put(("a", "e"), 1),
        "a:\n  b: |\n    x\n\n  e: 1\n# c\nd: 1\n",
    ),
    "a byte order mark stays": ("\ufeffa: {}\n", Put(("a", "b"), 1), "\ufeffa:\n  b: 1\n"),
    "an empty text is filled": ("", Put(("a", "b"), 1), "a:\n  b: 1\n"),
    "a text of comments only is filled": ("# hello\n", Append(("a",), 1), "# hello\na:\n  - 1\n"),
    "empty braces alone are filled": ("{}", Put(("a",), 1), "\na: 1\n"),
    "the mark of the document's end stays behind": ("a: 1\n...\n# c\n", Put(("b",), 2), "a: 1\nb: 2\n...\n# c\n"),
    "a value on its line is replaced and its comment stays": (
        "services:\n  ssh:\n    enabled: true  # for now\n    local_address: 'a:1'\n",
        Put(("services", "ssh", "enabled"), False),
        "services:\n  ssh:\n    enabled: false  # for now\n    local_address: 'a:1'\n",
    ),
    "a value over several lines is replaced": ("a: 'x\n  y'  # c\nb: 1\n", Put(("a",), 2), "a: 2  # c\nb: 1\n"),
    "a list on one line is replaced by a block": ("a: [1, 2]  # c\n", Put(("a",), [3]), "a:  # c\n  - 3\n"),
    "a block is replaced by a block": (
        "a:  # c\n  - 1\n  # d\n  - 2\nb: 1\n",
        Put(("a",), ["x"]),
        'a:  # c\n  - "x"\nb: 1\n',
    ),
    "a block is replaced by a value": ("a:  # c\n  x: 1\nb: 1\n", Put(("a",), 5), "a: 5  # c\nb: 1\n"),
    "a key is taken out with its line, comments around it stay": (
        "names:\n  # mine\n  home: x  # h\n  # yours\n  laptop: y\n",
        Remove(("names", "home")),
        "names:\n  # mine\n  # yours\n  laptop: y\n",
    ),
    "a table is taken out with what is in it": (
        "services:\n  ssh:\n    enabled: true\n    tags:\n    - a\n\n  web: {}\n",
        Remove(("services", "ssh")),
        "services:\n\n  web: {}\n",
    ),
    "the last key leaves an empty table": (
        "names:  # all of them\n  # mine\n  home: x\nlast: 1\n",
        Remove(("names", "home")),
        "names: {}  # all of them\n  # mine\nlast: 1\n",
    ),
    "the only key of a text leaves nothing": ("# c\na: 1\n# d\n", Remove(("a",)), "# c\n# d\n"),
    "the last item leaves an empty list": (
        "relay:\n  addresses:\n    - x  # c\n  interval: 1\n",
        Drop(("relay", "addresses"), "x"),
        "relay:\n  addresses: []\n  interval: 1\n",
    ),
    "an item is taken out with its line": (
        "a:\n- x # 1\n# 2\n- y: 1\n  z: 2\n-   w # 3\n",
        Drop(("a",), {"z": 2, "y": 1}),
        "a:\n- x # 1\n# 2\n-   w # 3\n",
    ),
    "an item is taken out as often as it is there": ("a: [1, 2, 1, 1]\n", Drop(("a",), 1), "a: [2]\n"),
    "an address is known in its other spelling": (
        f"a:\n- /ip4/1.2.3.4/tcp/5/ipfs/{HOME}/\n- b\n",
        Drop(("a",), f"/ip4/1.2.3.4/tcp/5/p2p/{HOME}"),
        "a:\n- b\n",
    ),
    "into braces goes an entry with a comma": (
        "a: {b: 1}  # c\n",
        Put(("a", "d"), {"e": [1]}),
        "a: {b: 1, d: {e: [1]}}  # c\n",
    ),
    "into braces over lines too": (
        "a: {\n  b: 1, # one\n  c: 2 # two\n}\n",
        Put(("a", "d"), "x"),
        'a: {\n  b: 1, # one\n  c: 2, d: "x" # two\n}\n',
    ),
    "within braces an empty list is filled in place": (
        "a: {b: [], c: 1}\n",
        Append(("a", "b"), 1),
        "a: {b: [1], c: 1}\n",
    ),
    "within braces nothing is filled in place": (
        "a: {b: ~, c: 1}\n",
        Put(("a", "b", "d"), 1),
        "a: {b: {d: 1}, c: 1}\n",
    ),
    "into brackets goes an item with a comma": ("a: [x]\n", Append(("a",), "y"), 'a: [x, "y"]\n'),
    "out of braces goes the first entry": ("a: {b: 1, c: 2}\n", Remove(("a", "b")), "a: {c: 2}\n"),
    "out of braces goes the last entry": ("a: {b: 1, c: 2}\n", Remove(("a", "c")), "a: {b: 1}\n"),
    "out of braces goes the only entry": ("a: {b: 1}\n", Remove(("a", "b")), "a: {}\n"),
    "out of the outermost braces too": ("{b: 1}\n", Remove(("b",)), "{}\n"),
    "out of braces over lines goes no comment": (
        "a: {\n  b: 1, # one\n  c: 2, # two\n  d: 3 # three\n}\n",
        Remove(("a", "c")),
        "a: {\n  b: 1, # one\n   # two\n  d: 3 # three\n}\n",
    ),
    "nor with the last entry": (
        "a: {\n  b: 1, # one\n  c: 2 # two\n}\n",
        Remove(("a", "c")),
        "a: {\n  b: 1, # one\n   # two\n}\n",
    ),
    "json stays json": ('{"a": {"b": "c"}}', Put(("a", "d"), True), '{"a": {"b": "c", d: true}}'),
}


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def _parser(request, monkeypatch):
    monkeypatch.setattr(yaml_text, "_Loader", getattr(yaml, request.param))


@pytest.mark.usefixtures("_parser")
@pytest.mark.parametrize(("before", "change", "after"), CASES.values(), ids=CASES)
def test_in_the_text(before, change, after):
    assert edited(text(before) if before.startswith("\n") else before, change) == (
        text(after) if after.startswith("\n    ") else after
    )


@pytest.mark.parametrize(
    "change",
    [
        Put(("a", "b"), 1),
        Put(("t",), True),
        Remove(("a", "z")),
        Remove(("z", "z")),
        Drop(("l",), "z"),
        Drop(("z", "z"), 1),
        Append(("l",), HOME),
        Append(("l",), {"y": [2]}),
    ],
)
def test_what_is_so_already_changes_nothing(change):
    before = f"a:   {{ 'b':   1 }}\nt: true\nl: ['{HOME}', {{y: [2]}}]"
    assert edited(before, change) == before


def test_one_is_not_true():
    assert edited("a: 1\n", Put(("a",), 1.5)) == "a: 1.5\n"
    assert edited("a: true\n", Put(("a",), 1)) == "a: 1\n"
    assert edited("a: '1'\n", Put(("a",), 1)) == "a: 1\n"


def test_changes_are_made_in_their_order():
    after = edited("a: 1\n", Put(("b", "c"), 1), Append(("b", "d"), "x"), Remove(("b", "c")), Remove(("a",)))
    assert after == 'b:\n  d:\n    - "x"\n'


@pytest.mark.parametrize(
    ("before", "change"),
    [
        ("a: 5\n", Put(("a", "b"), 1)),
        ("a: [x]\n", Put(("a", "b"), 1)),
        ("a: x\n", Append(("a",), 1)),
        ("a: {b: 1}\n", Drop(("a",), 1)),
        ("a: |\n  x\n", Put(("a",), 1)),
        ("? a\n: b\n? c\n: d\n", Put(("e", "f"), 1)),
        ("a: &x\n  b: 1\n  c: 1\n", Put(("a",), 1)),
        ("{a}", Put(("a",), 1)),
        ("a: {}\n", Put(("a",), "\ud800")),
    ],
)
def test_a_layout_that_is_not_known_is_left_to_a_person(before, change):
    with pytest.raises(Conflict) as caught:
        edited(before, change)
    assert str(caught.value).endswith(f"; edit {'.'.join(change.path)} by hand")


def test_a_text_that_must_be_mended_is_not_edited():
    with pytest.raises(ConfigInvalid) as caught:
        edited("a: 1\na: 2\n", Put(("b",), 1))
    assert caught.value.problems == ("line 2: a: wanted each key once, got it again (first in line 1)",)


NASTY = [
    'x"\nsecurity:\n  enable_connection_gating: false',
    "x: y",
    "x # y",
    "{",
    "\\",
    "\x00\x07\x1b[31m",
    "\u2028\u202e\ufeff\U000e0001",
    "é𝄞",
    "",
    " x ",
    "- a",
    "*a",
    "&a",
    "!!python/name:os.system",
    "'",
    "%YAML 1.1",
    "null",
    "<<",
]


@pytest.mark.parametrize("nasty", NASTY)
def test_a_hostile_text_stays_a_text(nasty):
    before = node_template()
    after = edited(
        before, Put(("names", nasty), nasty), Append(("relay", "addresses"), nasty), Put(("log_level",), nasty)
    )
    old, new = plain(read(before).root), plain(read(after).root)
    assert isinstance(old, dict)
    assert isinstance(new, dict)
    assert new == old | {
        "names": {nasty: nasty},
        "relay": {"addresses": [nasty], "reservation_interval": "2m"},
        "log_level": nasty,
    }


@given(st.text(st.characters(codec="utf-8")))
def test_quoted_text_is_read_back_by_us_and_by_the_library(given_text):
    line = f"{key_text(given_text)}: {quoted(given_text)}\n"
    assert plain(read(line).root) == {given_text: given_text}
    assert yaml.safe_load(line) == {given_text: given_text}
    assert line.count("\n") == 1


# -- any change of any text ----------------------------------------------------------------------------------------

PATHS = st.lists(st.sampled_from([*YAML_KEYS, "new"]), min_size=1, max_size=3).map(tuple)
CHANGES = st.one_of(
    st.builds(Put, PATHS, yaml_values()),
    st.builds(Remove, PATHS),
    st.builds(Append, PATHS, yaml_values()),
    st.builds(Drop, PATHS, yaml_values()),
)


@st.composite
def texts_and_changes(draw) -> tuple[str, Change]:
    """A change of a text, mostly one that meets something there."""
    given_text = draw(yaml_texts())
    found = list(_places(read(given_text).root, ()))
    change = draw(CHANGES)
    if found and draw(st.booleans()):
        path, node = draw(st.sampled_from(found))
        items = plain(node) if isinstance(node, Items) else None
        if isinstance(change, Drop) and isinstance(items, list) and items:
            return given_text, Drop(path, draw(st.sampled_from(items)))
        deeper = draw(st.sampled_from([(), ("new",), ("new", "newer")]))
        return given_text, dataclasses.replace(change, path=path + deeper)
    return given_text, change


def _places(node: Node, path: tuple[str, ...]):
    if isinstance(node, Table):
        for entry in node.entries:
            yield (*path, entry.key.text), entry.value
            yield from _places(entry.value, (*path, entry.key.text))


def wished(data, change: Change):
    """The same wish, written as simply as can be; None: it cannot be."""
    data = parent = deepcopy(data)
    *way, key = change.path
    for name in way:
        if parent.get(name) is None:
            if isinstance(change, Remove | Drop):
                return data
            parent[name] = {}
        parent = parent[name]
        if not isinstance(parent, dict):
            return None
    if isinstance(change, Put):
        parent[key] = change.value
    elif isinstance(change, Remove):
        parent.pop(key, None)
    else:
        there = parent.get(key)
        if there is not None and not isinstance(there, list):
            return None
        kept = [item for item in there or [] if repr(item) != repr(change.value)]
        if isinstance(change, Append) and len(kept) == len(there or []):
            parent[key] = [*kept, change.value]
        elif isinstance(change, Drop) and len(kept) < len(there or []):
            parent[key] = kept
    return data


def touched(root: Table, change: Change) -> set[int]:
    """The lines that a change may touch: of the deepest thing on its way that it changes, or of its place."""
    node: Node = root
    lines: set[int] = set()
    for at, key in enumerate(change.path):
        entry = node.find(key) if isinstance(node, Table) else None
        if entry is None:
            break
        replaced = at == len(change.path) - 1 and not isinstance(change, Append)
        small = not isinstance(entry.value, Items | Table) or entry.value.flow or not children(entry.value)
        only = isinstance(change, Remove) and len(children(entry.value)) == 1
        if not (replaced and lines):  # with the only key of a table, the table's own line changes
            lines = {entry.key.line, entry.value.line} if small else set()
        if replaced or only:
            lines |= set(range(entry.key.line, last_line(entry.value) + 1))
        node = entry.value
    return lines


def children(node: Node) -> tuple[object, ...]:
    return node.entries if isinstance(node, Table) else node.items if isinstance(node, Items) else ()


def last_line(node: Node) -> int:
    match node:
        case Table():
            return max([node.line, *(last_line(entry.value) for entry in node.entries)])
        case Items():
            return max([node.line, *map(last_line, node.items)])
    assert isinstance(node, Scalar)
    return node.line


def is_subsequence(some: list[str], of: list[str]) -> bool:
    rest = iter(of)
    return all(any(line == other for other in rest) for line in some)


@given(texts_and_changes())
def test_any_change_does_what_was_wished_and_leaves_all_other_lines(case):
    before, change = case
    document = read(before)
    wish = wished(plain(document.root), change)
    try:
        after = edited(before, change)
    except Conflict:
        assert wish is None
        return
    assert repr_of(plain(read(after).root)) == repr_of(wish)
    kept = [
        line for number, line in enumerate(lines_of(before), start=1) if number not in touched(document.root, change)
    ]
    assert is_subsequence(kept, lines_of(after))


def lines_of(some: str) -> list[str]:
    """With their ends; the last one may lack it."""
    end = "\r\n" if "\r\n" in some else "\n"
    return (some + end * (not some.endswith("\n")) if some else "").splitlines(keepends=True)


def repr_of(value: object) -> str:
    """For comparing: tells `True` from `1`, and not the order of keys."""
    if isinstance(value, dict):
        return repr(sorted((key, repr_of(inner)) for key, inner in value.items()))
    return repr([repr_of(inner) for inner in value]) if isinstance(value, list) else repr(value)
