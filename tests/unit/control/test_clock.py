"""A clock that is believed only as far as it can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from peerupd.control import clock as module
from peerupd.control.clock import LONGEST_LEAP, PROVEN_AFTER, Clock
from peerupd.control.disk import Disk

BUILT = 1_700_000_000.0
YEAR_2106 = 4_294_967_295.0


class Times:
    def __init__(self) -> None:
        self.wall = BUILT + 1000
        self.running = 50.0


def clock(tmp_path: Path, times: Times, built: float = BUILT) -> Clock:
    return Clock(tmp_path / "key", wall=lambda: times.wall, running=lambda: times.running, built=built)


def test_an_honest_clock_is_believed(tmp_path: Path) -> None:
    now = clock(tmp_path, Times())
    assert (now(), now.credible, now.problems()) == (BUILT + 1000, True, ())


@pytest.mark.parametrize("wall", [0.0, BUILT - 1, BUILT + LONGEST_LEAP + 1, YEAR_2106])
def test_a_lying_clock_goes_on_from_what_is_known_to_have_passed(tmp_path: Path, wall: float) -> None:
    times = Times()
    now = clock(tmp_path, times)
    times.wall = wall
    assert now() == BUILT
    times.running += 60
    assert now() == BUILT + 60
    assert len(now.problems()) == 1


def test_the_last_good_time_outlives_the_process(tmp_path: Path) -> None:
    times = Times()
    (tmp_path / "key.time").write_text(f"{BUILT + 500:.0f}\n")
    times.wall = BUILT + 400
    assert clock(tmp_path, times)() == BUILT + 500


@pytest.mark.parametrize("content", ["", "nonsense", "9" * 100])
def test_a_spoilt_file_is_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "key.time").write_text(content)
    assert clock(tmp_path, Times())() == BUILT + 1000


def test_without_any_knowledge_the_clock_is_believed(tmp_path: Path) -> None:
    assert clock(tmp_path, Times(), built=0.0).credible


async def test_an_hour_connected_makes_the_time_good(tmp_path: Path, autojump_clock: Any) -> None:
    times = Times()
    now = clock(tmp_path, times)
    with trio.move_on_after(PROVEN_AFTER + 1):
        await now.run(lambda: False, Disk())
    assert not (tmp_path / "key.time").exists()
    await now._advance(Disk().do)
    assert float((tmp_path / "key.time").read_text()) == times.wall
    times.wall = 0
    with trio.move_on_after(PROVEN_AFTER + 1):
        await now.run(lambda: True, Disk())
    assert float((tmp_path / "key.time").read_text()) == BUILT + 1000


async def test_an_hour_later_it_is_written(tmp_path: Path, autojump_clock: Any) -> None:
    now = clock(tmp_path, Times())
    advanced: list[object] = []

    async def advance(do: object) -> None:
        advanced.append(do)

    now._advance = advance  # type: ignore[method-assign] # a thread and a jumping clock do not go together
    with trio.move_on_after(PROVEN_AFTER + 1):
        await now.run(lambda: True, Disk())
    assert len(advanced) == 1


async def test_a_disk_that_fails_is_said_and_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = Clock(tmp_path / "no" / "key", built=BUILT)
    await now._advance(Disk().do)
    assert "cannot keep the last good time" in caplog.text


def test_the_build_date_is_read_from_the_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    from peerupd.model.snapshots import Version

    def built(text: str) -> float:
        monkeypatch.setattr(module.version, "own", lambda: Version("1", "c", text, "3"))
        return module.build_time()

    assert built("2026-11-22T15:17:51Z") == 1795360671.0
    assert built("unknown") == 0.0
