"""The house keeps its shape: what may stand at the top level, and how big a room may grow."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOP_LEVEL = {
    "peerupd", "peerupctl", "packaging", "units", "etc", "tests", "pyproject.toml", "README.md",
    ".ci", ".gitignore", "Makefile", "LICENSE", "CHANGELOG.md", "docs", "bench",
}  # fmt: skip
MAX_LINES = 500


def tracked() -> list[str]:
    """What git tracks, or would."""
    words = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others", "--exclude-standard"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_top_level_holds_only_what_the_plan_lists():
    tops = {file.split("/")[0] for file in tracked()}
    strangers = {top for top in tops - TOP_LEVEL if not top.endswith(".lock") and not top.startswith("requirements-")}
    assert not strangers


def test_no_module_outgrows_its_room_without_a_reason():
    grown = []
    for file in tracked():
        if file.startswith(("peerupd/", "peerupctl/")) and file.endswith(".py") and (ROOT / file).exists():
            text = (ROOT / file).read_text()
            if (
                text.count("\n") > MAX_LINES
                and "lines" not in (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
            ):
                grown.append(file)
    assert not grown


def test_every_room_begins_with_its_sentence():
    silent = [
        file
        for file in tracked()
        if file.startswith(("peerupd/", "peerupctl/")) and file.endswith(".py") and (ROOT / file).exists()
        if not ast.get_docstring(ast.parse((ROOT / file).read_text()))
    ]
    assert not silent


def test_nothing_speaks_of_files_outside_the_project():
    here = Path(__file__).name
    needle = "../" + "shared"
    guilty = [
        f
        for f in tracked()
        if not f.endswith(here) and (ROOT / f).is_file() and needle in (ROOT / f).read_text(errors="replace")
    ]
    assert not guilty
