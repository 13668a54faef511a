import platform
import sys
import types

import pytest

from peerupd.model import version


@pytest.fixture
def no_stamp(monkeypatch):
    monkeypatch.setitem(sys.modules, "peerupd.model.stamp", None)


def test_a_tree_that_was_never_set_up_says_so(no_stamp):
    own = version.own()

    assert (own.commit, own.built) == ("unknown", "unknown")
    assert own.python == platform.python_version()


def test_a_stamped_tree_says_where_it_comes_from(monkeypatch):
    stamp = types.SimpleNamespace(COMMIT="abc", BUILT="2026-01-01")
    monkeypatch.setitem(sys.modules, "peerupd.model.stamp", stamp)

    assert (version.own().commit, version.own().built) == ("abc", "2026-01-01")


def test_this_tree_says_what_it_is():
    assert version.own().version == version.VERSION
