"""`make interop`: real foreign implementations against ours, every cell of the matrix both ways.

    run.py [--size MB] [--columns go,js,py] [--document] [--tools]

Prints the matrix with versions, keeps it in `.make/interop/matrix.json`, and exits with 1 when a cell is red. Without
Go or Node their cells are left out, and it is said; with PEERUP_LAB=required (CI) that is a failure. `--document`
puts the matrix into `docs/interop.md`; `--tools` runs nothing and says what would be left out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from tests.interop.asking import Peer
from tests.interop.build import HERE, OUT, build_go, build_js
from tests.interop.nodes import LIMIT_DATA, LIMIT_SECONDS, Ours
from tests.interop.rows import MB, ROWS, Company, Wishes

ROOT = HERE.parent.parent
LISTEN = "/ip4/127.0.0.1/tcp/0"
DOCUMENT = ROOT / "docs/interop.md"
WAYS = ("we dial", "they dial")


@dataclass(frozen=True)
class Column:
    """One foreign implementation."""

    name: str
    title: str
    needs: Sequence[str]
    """The programs without which there is no such column."""
    command: Callable[[], list[str]]
    """Builds what is to be built; how a test peer is started."""
    unlimited: Sequence[str]
    """The words that lift its own limits."""
    wishes: Callable[[int], Wishes]


@dataclass(frozen=True)
class Cell:
    """What one run showed."""

    column: str
    way: str
    row: str
    green: bool
    words: str
    seconds: float


def _go() -> list[str]:
    return [str(build_go()), "peer"]


def _js() -> list[str]:
    return ["node", str(build_js())]


def _py() -> list[str]:
    return [sys.executable, "-W", "ignore", str(HERE / "py/peer.py")]


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _go_title() -> str:
    found = re.search(r"go-libp2p (v\S+)", (HERE / "go/go.mod").read_text())
    assert found is not None
    return f"go-libp2p {found[1]}"


def _js_title() -> str:
    return f"js-libp2p {json.loads((HERE / 'js/package.json').read_text())['dependencies']['libp2p']}"


PY_NOTES = {
    ("1,000 streams", "they dial"): "it opens 256 at most",
    ("limit of time: theirs, ours", "we dial"): "it looks at its clock every 15 s",
}
COLUMNS = (
    Column("go", _go_title(), ("go",), _go, ("--resources", "none"), Wishes),
    Column("js", _js_title(), ("node", "npm"), _js, (), Wishes),
    Column(
        "py",
        f"py-libp2p {version('libp2p')}",
        (),
        _py,
        (),
        lambda size: Wishes(size, streams=250, slack=21.0, notes=PY_NOTES),
    ),
)


# -- running -------------------------------------------------------------------------------------------------------


@contextmanager
def company(column: Column, wishes: Wishes, folder: Path) -> Iterator[Company]:
    """Everybody of the column, started and introduced."""
    command = column.command()
    listening = [*command, *column.unlimited, "--listen", LISTEN]
    limits = ["--limit-data", str(LIMIT_DATA), "--limit-seconds", str(LIMIT_SECONDS)]
    with ExitStack() as stack:

        def start(name: str, words: Sequence[str]) -> Peer:
            return stack.enter_context(Peer(name, words, folder / f"{name.replace(' ', '-')}.log"))

        accepting = start(column.name, listening)
        dialling = start(f"{column.name} dialling", [*command, *column.unlimited])
        limited = start(f"{column.name} limited", [*listening, *limits])
        noise_only = start(f"{column.name} noise", [*command, "--listen", LISTEN, "--security", "noise"])
        theirs = [peer.peer for peer in (accepting, dialling, limited, noise_only)]
        host = start("ours", [sys.executable, str(HERE / "ours.py"), "--allow", ",".join(theirs)])
        ours = stack.enter_context(Ours(folder, theirs))
        ours.start([accepting.address, limited.address])
        yield Company(wishes, accepting, dialling, limited, noise_only, host, ours)


def run_column(column: Column, wishes: Wishes) -> list[Cell]:
    """All cells of the column; when not even the peers start, each of them says why."""
    print(f"\n== {column.title}", flush=True)
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory(prefix="peerup-interop-", ignore_cleanup_errors=True) as folder:
        try:
            with company(column, wishes, Path(folder)) as everybody:
                for row in ROWS:
                    for way, scenario in zip(WAYS, (row.we_dial, row.they_dial), strict=True):
                        cell = show(column, way, row.title, partial(scenario, everybody))
                        cells.append(noted(cell, wishes))
        except Exception as why:
            print(f"  the column ended: {why!r}", flush=True)
            cells += unshown(column, cells, repr(why))
        keep_logs(column, Path(folder), cells)
    return cells


def unshown(column: Column, cells: Sequence[Cell], why: str) -> list[Cell]:
    """The cells that were not reached: red."""
    shown = {(cell.row, cell.way) for cell in cells}
    missing = [(row.title, way) for row in ROWS for way in WAYS if (row.title, way) not in shown]
    return [Cell(column.name, way, title, False, f"not run: {why}", 0.0) for title, way in missing]


def show(column: Column, way: str, title: str, scenario: Callable[[], str]) -> Cell:
    """Run one cell, and print it."""
    began = time.monotonic()
    try:
        green, words = True, scenario()
    except Exception as why:  # whatever it is, the cell says it and the next one is run
        green, words = False, " ".join(f"{type(why).__name__}: {why}".split())[:1000]
    cell = Cell(column.name, way, title, green, words, round(time.monotonic() - began, 2))
    print(f"  {'green' if green else 'RED  '}  {title}, {way}: {words} ({cell.seconds:.1f} s)", flush=True)
    return cell


def noted(cell: Cell, wishes: Wishes) -> Cell:
    """With what is the foreign side's own doing."""
    note = wishes.notes.get((cell.row, cell.way))
    return replace(cell, words=f"{cell.words}; {note}") if note else cell


def keep_logs(column: Column, folder: Path, cells: Sequence[Cell]) -> None:
    """What the processes of a red column said."""
    kept = OUT / "logs" / column.name
    shutil.rmtree(kept, ignore_errors=True)
    if all(cell.green for cell in cells):
        return
    kept.mkdir(parents=True)
    for log in folder.rglob("*.log"):
        shutil.copy(log, kept / f"{log.parent.name}-{log.name}")
    print(f"  what everybody said: {kept.relative_to(ROOT)}", flush=True)


# -- telling -------------------------------------------------------------------------------------------------------


def matrix(cells: Sequence[Cell], columns: Sequence[Column]) -> list[str]:
    """The matrix in Markdown."""
    found = {(cell.row, cell.column, cell.way): cell for cell in cells}
    heads = [f"{column.title}, {way}" for column in columns for way in WAYS]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for row in ROWS:
        shown = [found[row.title, column.name, way] for column in columns for way in WAYS]
        texts = [cell.words if cell.green else f"**red**: {cell.words}".replace("|", "/") for cell in shown]
        lines.append(f"| {row.title} | {' | '.join(texts)} |")
    return lines


def versions() -> str:
    """What was run."""
    tools = [_said("go", "version").split()[2]] if shutil.which("go") else []
    tools += [f"Node {_said('node', '--version')}"] if shutil.which("node") else []
    return ", ".join([*tools, f"Python {sys.version.split()[0]}"])


def document(lines: Sequence[str]) -> None:
    """Put the matrix into the page, between its marks."""
    text = DOCUMENT.read_text()
    begin, end = "<!-- matrix -->\n", "<!-- end -->\n"
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    DOCUMENT.write_text(before + begin + "\n".join(lines) + "\n" + end + after)


def main(words: Sequence[str]) -> int:
    """Exit status 0 when every cell is green, or left out where that is allowed."""
    parser = argparse.ArgumentParser(description="the interoperability matrix")
    parser.add_argument("--size", type=int, default=200, help="MB of the large transfers")
    parser.add_argument("--columns", default=",".join(column.name for column in COLUMNS))
    parser.add_argument("--document", action="store_true", help="put the matrix into docs/interop.md")
    parser.add_argument("--tools", action="store_true", help="only say what would be left out")
    options = parser.parse_args(words)
    began = time.monotonic()
    OUT.mkdir(parents=True, exist_ok=True)
    wanted = [column for column in COLUMNS if column.name in options.columns.split(",")]
    columns = [column for column in wanted if all(map(shutil.which, column.needs))]
    left_out = [column.title for column in wanted if column not in columns]
    if options.tools:
        return tell_left_out(left_out)
    cells = [cell for column in columns for cell in run_column(column, column.wishes(options.size * MB))]
    seconds = time.monotonic() - began
    lines = [*matrix(cells, columns), "", f"With {versions()}; {seconds:.0f} s in all."]
    print("\n" + "\n".join(lines))
    kept = {"versions": versions(), "seconds": seconds, "left_out": left_out, "cells": [asdict(c) for c in cells]}
    (OUT / "matrix.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    if options.document:
        document(lines)
    return verdict(cells, left_out)


def verdict(cells: Sequence[Cell], left_out: Sequence[str]) -> int:
    """Say what is red and what was left out; the exit status."""
    red = [cell for cell in cells if not cell.green]
    print(f"\n{len(cells) - len(red)} of {len(cells)} cells are green")
    for cell in red:
        print(f"  RED  {cell.column}, {cell.way}: {cell.row}: {cell.words}")
    return int(bool(red)) or tell_left_out(left_out)


def tell_left_out(titles: Sequence[str]) -> int:
    """Say what is left out; the exit status, which is 1 where it is required."""
    for title in titles:
        print(f"  left out, for want of its tools: the interop cells of {title}")
    return int(bool(titles) and os.environ.get("PEERUP_LAB") == "required")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
