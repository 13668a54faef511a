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


@pytest.mark.parametrize("content", ["", "nonsense", "9" * 100, "9" * 40, "nan", "1 -5", "1 inf"])
def test_a_spoilt_file_is_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "key.time").write_text(content)
    assert clock(tmp_path, Times())() == BUILT + 1000


def test_without_any_knowledge_the_clock_is_believed(tmp_path: Path) -> None:
    assert clock(tmp_path, Times(), built=0.0).credible


class FakeDisk(Disk):
    """Without a thread: that and a jumping clock do not go together."""

    async def do(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        return work(*args, **kwargs)


async def test_the_last_good_time_moves_on_after_an_hour_connected(tmp_path: Path, autojump_clock: Any) -> None:
    times = Times()
    now = clock(tmp_path, times)
    with trio.move_on_after(PROVEN_AFTER + 1):
        await now.run(lambda: False, FakeDisk())
    with trio.move_on_after(PROVEN_AFTER - 1):
        await now.run(lambda: True, FakeDisk())
    assert not (tmp_path / "key.time").exists()
    with trio.move_on_after(PROVEN_AFTER + 1):
        await now.run(lambda: True, FakeDisk())
    assert (tmp_path / "key.time").read_text() == f"{BUILT + 1000:.0f} 0\n"
    times.wall = 0
    with trio.move_on_after(PROVEN_AFTER + 1):
        await now.run(lambda: True, FakeDisk())
    assert (tmp_path / "key.time").read_text() == f"{BUILT + 1000:.0f} 0\n"


@pytest.mark.parametrize("wall", [0.0, YEAR_2106])
async def test_a_clock_that_breaks_while_we_run_goes_on_from_where_it_was(tmp_path: Path, wall: float) -> None:
    times = Times()
    now = clock(tmp_path, times)
    times.wall, times.running = BUILT + 9000, 8050.0
    assert now() == BUILT + 9000
    times.wall = wall
    times.running += 5
    assert now() == BUILT + 9005


@pytest.mark.parametrize("wall", [0.0, YEAR_2106])
async def test_an_end_that_was_decided_stands_over_a_restart_with_a_clock_that_lies(
    tmp_path: Path, wall: float
) -> None:
    times = Times()
    await clock(tmp_path, times).decide(BUILT + 900, FakeDisk())
    times.wall = wall
    liar = clock(tmp_path, times)
    assert (liar(), liar.credible) == (BUILT + 900, False)
    await liar.decide(BUILT + 5000, FakeDisk())
    assert liar() == BUILT + 900
    times.wall = BUILT + 100  # mended: before that end, but not before what is known
    assert (liar(), liar.credible) == (BUILT + 100, True)


async def test_a_disk_that_fails_is_said_and_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = Clock(tmp_path / "no" / "key", built=BUILT)
    await now.decide(BUILT, FakeDisk())
    assert "cannot keep the last good time" in caplog.text


def test_the_build_date_is_read_from_the_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    from peerupd.model.snapshots import Version

    def built(text: str) -> float:
        monkeypatch.setattr(module.version, "own", lambda: Version("1", "c", text, "3"))
        return module.build_time()

    assert built("2026-11-22T15:17:51Z") == 1795360671.0
    assert built("unknown") == module.WRITTEN
