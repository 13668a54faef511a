"""The unit's memory limit, found in either version of control groups, and what of it the network gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from peerupd.linux import memory
from peerupd.linux.memory import MIB, budget


def tree(root: Path, cgroup: str, **files: str) -> Path:
    """A root folder with `/proc/self/cgroup` and files below `/sys/fs/cgroup`, `__` for a slash."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


UNIT = "0::/system.slice/peerup.service\n"
V1 = "9:name=systemd:/\n4:cpu,memory:/system.slice/peerup.service\n0::/\n"


def test_the_units_limit_in_version_2(tmp_path: Path) -> None:
    limit = str(512 * MIB)
    root = tree(tmp_path, UNIT, **{"system.slice__peerup.service__memory.max": limit})
    found = budget({}, root)
    assert found.budget == int(0.6 * 512 * MIB)
    assert "512 MiB" in found.why
    assert "memory.max" in found.why


def test_a_slice_above_with_less_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        UNIT,
        **{
            "system.slice__peerup.service__memory.max": "max",
            "system.slice__memory.max": str(1024 * MIB),
            "system.slice__memory.high": str(500 * MIB),
        },
    )
    assert budget({}, root).budget == 300 * MIB


def test_the_units_limit_in_version_1(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        V1,
        **{
            "memory__system.slice__peerup.service__memory.limit_in_bytes": str(1000 * MIB),
            "memory__memory.limit_in_bytes": "9223372036854771712",
        },
    )
    assert budget({}, root).budget == 600 * MIB


def test_in_a_container_the_own_group_is_the_root_of_the_mount(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/docker/abc\n", **{"memory.max": str(200 * MIB)})
    assert budget({}, root).budget == 120 * MIB
    outside = tree(tmp_path / "outside", "0::/../../other\n", **{"memory.max": str(200 * MIB)})
    assert budget({}, outside).budget == 120 * MIB


@pytest.mark.parametrize("cgroup", ["", "nonsense\n", "1:cpu:/\n", UNIT, V1])
def test_without_a_limit_the_default_holds(tmp_path: Path, cgroup: str) -> None:
    found = budget({}, tree(tmp_path, cgroup))
    assert memory.LEAST <= found.budget <= memory.UNLIMITED_BUDGET
    assert "no limit" in found.why


def test_where_proc_is_not_readable_the_default_holds(tmp_path: Path) -> None:
    assert "no limit" in budget({}, tmp_path).why


@pytest.mark.parametrize(
    ("ram", "expected"),
    [(64 * MIB, 8 * MIB), (128 * MIB, 16 * MIB), (1024 * MIB, 128 * MIB), (64 * 1024 * MIB, 256 * MIB)],
)
def test_a_small_machine_without_a_limit_keeps_most_of_its_memory(ram: int, expected: int) -> None:
    assert memory.unlimited(ram) == expected


@pytest.mark.parametrize(
    ("limit", "expected"), [(512, 307), (256, 153), (160, 96), (128, 64), (80, 16), (64, 4), (16, 4)]
)
def test_a_small_limit_leaves_room_for_the_program_itself(limit: int, expected: int) -> None:
    assert memory.share_of(limit * MIB) // MIB == expected


@pytest.mark.parametrize(("said", "mebibytes"), [("268435456", 256), ("256M", 256), ("1G", 1024), ("1048576K", 1024)])
def test_the_environment_can_set_the_limit(tmp_path: Path, said: str, mebibytes: int) -> None:
    found = budget({"PEERUP_MEMORY_MAX": said}, tree(tmp_path, UNIT))
    assert found.budget == memory.share_of(mebibytes * MIB)
    assert "PEERUP_MEMORY_MAX" in found.why


def test_the_least_limit_counts_whoever_sets_it(tmp_path: Path) -> None:
    root = tree(tmp_path, UNIT, **{"memory.max": str(200 * MIB)})
    assert budget({"PEERUP_MEMORY_MAX": "1G"}, root).budget == 120 * MIB
    assert budget({"PEERUP_MEMORY_MAX": "100M"}, root).budget == 36 * MIB


@pytest.mark.parametrize("said", ["much", "-1", "1.5G", "12 M", "M", "1MM", "1T", "²", "0", "9" * 5000])
def test_a_size_that_is_none_is_told_and_keeps_nothing_from_starting(
    tmp_path: Path, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert "no limit" in budget({"PEERUP_MEMORY_MAX": said}, tmp_path).why
    assert "PEERUP_MEMORY_MAX" in caplog.text


def test_this_machine_has_an_answer() -> None:
    assert budget({}).budget >= memory.LEAST
