"""The lean import where py-libp2p is missing; what it does where it is there: tests/contract/test_abc_shape.py."""

from __future__ import annotations

import sys

import pytest

from peerupd.model.errors import EnvironmentalError
from peerupd.p2p import lean


def test_without_the_package_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "libp2p", raising=False)
    monkeypatch.setattr(lean, "find_spec", lambda _name: None)
    with pytest.raises(EnvironmentalError, match="not installed; make setup"):
        lean.prepare()
    assert "libp2p" not in sys.modules
