"""Local connections never take the last descriptors."""

import resource

import pytest

from peerupd.features.places import LEAST, MOST, RESERVED, places


@pytest.mark.parametrize(
    ("soft", "found"),
    [
        (64, int(64 * LEAST)),
        (1024, 1024 - RESERVED),
        (4096, 4096 - RESERVED),
        (1_048_576, MOST),
        (resource.RLIM_INFINITY, MOST),
    ],
)
def test_what_is_reserved_stays_free(monkeypatch, soft, found):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, soft))
    assert places().value == found
