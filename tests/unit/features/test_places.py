"""Local connections never take the last descriptors."""

import resource

import pytest
import trio
import trio.testing

from peerupd.features.places import LEAST, MOST, RESERVED, places, take


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


async def test_a_place_that_is_free_is_had_without_a_checkpoint():
    with trio.testing.assert_no_checkpoints():
        assert await take(trio.Semaphore(1))


async def test_a_place_is_waited_for_as_long_as_one_says(autojump_clock):
    assert not await take(trio.Semaphore(0), 5)
    assert trio.current_time() == 5
