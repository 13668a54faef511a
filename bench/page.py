"""Makes `docs/performance.md`, and the table in README, from the JSON of one run.

    .venv/bin/python -m bench.page [FILE]     default: the last run, bench/results/last.json

Figures come from the file only; nothing is measured here, and no figure is written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import routes
from bench.figures import Book, added
from bench.report import RESULTS, ROOT, WORDS, figure, noise
from bench.tables import GOALS, Table, tables

PAGE = ROOT / "docs/performance.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- speed: made by bench/page.py -->", "<!-- /speed -->"
ONE_STREAM = ("path of one stream", "down MB/s", "up MB/s", "CPU s/GB", "1 byte there and back, µs")

REPEAT = """```sh
make bench                                  # as root: network namespaces; as a plain user: loopback
make bench ARGS="--quick"                   # small sizes, two minutes; the full run takes up to fifteen
make bench ARGS="--only b1,b4 --rounds 9"   # some tables, more rounds
make bench ARGS="--crowd-mb 10"             # B6 as the goal has it; needs patience
make bench ARGS="--go-peerup /path/peerup"  # with the Go program itself beside
make profile                                # where the time goes, line by line
.venv/bin/python -m bench.page              # this page and README's table, from the last run
```"""

READING = """\
* Client, both daemons, the relay, the service and the load generator share the cores of one machine. So a speed
  here is what is left when all of them work at once; between two machines it is another one. What carries over are
  the **ratios within one run** and the **CPU seconds per GB** of each process.
* Every round measures all paths in turns, so that a busy moment hits all alike; each figure is the median of its
  rounds. Identical runs differ by a tenth or more: a ratio that close to its goal has neither met nor missed it.
* Before anything is timed, 16 MB go each way on each path and every byte is compared; crowds (B6) compare every byte.
* `go-libp2p` is a minimal proxy and relay on it (`tests/interop/go`); over TCP it stands in for the Go program peer-up,
  with TLS and with Noise, and the faster of the two counts. *As shipped* means over QUIC, and relayed with a buffer of
  2 KiB. *Stock py-libp2p* carries the stream itself, without a proxy on either side.
* Slow paths carry less than the size above: what they manage in four seconds."""


def main(words: Sequence[str]) -> int:
    """Write both."""
    source = Path(words[0]) if words else RESULTS / "last.json"
    run: dict[str, Any] = json.loads(source.read_text())
    PAGE.write_text(page(run))
    README.write_text(placed(README.read_text(), summary(run)))
    print(f"{PAGE.relative_to(ROOT)} and README.md, from {source}")
    return 0


def page(run: dict[str, Any]) -> str:
    """The whole page."""
    book = Book.read(run)
    parts = ["# Performance", _origin(run), "## The machine", _machine(run), "## How to repeat it", REPEAT]
    parts += ["## How to read it", f"{READING}\n{_noise(run, book)}", "## Goals", _goals(book), "## Tables"]
    for table in tables(book):
        parts += [f"### {table.title}", _table(table)]
    if book.left_out:
        parts += ["## Left out", "\n".join(f"* {name}: {why}" for name, why in book.left_out.items())]
    return "\n\n".join(parts) + "\n"


def _origin(run: dict[str, Any]) -> str:
    return (
        f"Made by `bench/page.py` from one run of `make bench` on {run['made'][:10]}. "
        "MB and GB are 10^6 and 10^9 bytes.\nDo not edit: repeat the run instead."
    )


def _machine(run: dict[str, Any]) -> str:
    plan, on = run["plan"], run["machine"]
    said = {
        "processor": f"{on['processor']}, {on['cores']} cores",
        "kernel": f"Linux {on['kernel']}, TCP congestion control {on['congestion control']}",
        "where": run["where"],
        "rounds": f"{plan['rounds']}, interleaved; one stream of {plan['size'] / 1e6:.0f} MB",
        "load of the machine": f"{run['load'][0]:.2f} before, {run['load'][1]:.2f} after",
        "versions": ", ".join(f"{name} {text}" for name, text in run["versions"].items()),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in said.items())])


def _noise(run: dict[str, Any], book: Book) -> str:
    busy = " The machine was busy with other things too." if run["load"][0] > 1 else ""
    return f"* In this run the rounds of one path were up to ± {noise(book):.0f} % from their median (B1).{busy}"


def _goals(book: Book) -> str:
    lines = ["| | what | figure | goal | bar | |", "|---|---|--:|--:|--:|---|"]
    for goal in GOALS:
        value = goal.figure(book)
        shown = "" if value is None else f"{figure(value)} {goal.unit}".strip()
        marks = f"{goal.sign} {figure(goal.goal)} | {goal.sign} {figure(goal.bar)}"
        lines.append(f"| {goal.number} | {goal.what} | {shown} | {marks} | {WORDS[goal.verdict(book)]} |")
    return "\n".join(lines)


def _table(table: Table) -> str:
    lines = [f"| | {' | '.join(table.columns)} |", "|---|" + "--:|" * len(table.columns)]
    lines += [f"| {name} | {' | '.join(map(figure, values))} |" for name, values in table.rows]
    return "\n".join(lines)


# -- README --------------------------------------------------------------------------------------------------------


def summary(run: dict[str, Any]) -> str:
    """One table."""
    book, on = Book.read(run), run["machine"]
    lines = [f"| {' | '.join(ONE_STREAM)} |", "|---|--:|--:|--:|--:|"]
    lines += [f"| {name} | {' | '.join(map(figure, values))} |" for name, values in _compared(book)]
    rounds = f"medians of {run['plan']['rounds']} interleaved rounds, which lie up to ± {noise(book):.0f} % apart"
    words = f"""\
Measured by `make bench` on {run["made"][:10]}: {on["processor"]}, {on["cores"]} cores that all programs,
the service and the client share; {rounds}.
Read the ratios, and the CPU (all processes together, down): they carry over to other machines, speeds do not.
All goals, also those that are missed, and how to repeat it: [docs/performance.md](docs/performance.md)."""
    return "\n".join([*lines, "", words])


def _compared(book: Book) -> list[tuple[str, list[float | None]]]:
    ssh = _fastest(book, routes.ALL_SSH)
    go = _fastest(book, routes.GO_TCP)
    rows = [
        (routes.RAW, routes.RAW),
        (f"`ssh -L` ({ssh.rpartition(', ')[2]})", ssh),
        (routes.STOCK, routes.STOCK),
        (go, go),
        (f"**{routes.OURS}**", routes.OURS),
        (routes.GO_RELAYED, routes.GO_RELAYED),
        (routes.GO_RAISED, routes.GO_RAISED),
        (f"**{routes.OURS_RELAYED}**", routes.OURS_RELAYED),
    ]
    return [(name, _row(book, row)) for name, row in rows if book.middle("b1", row, "down") is not None]


def _fastest(book: Book, rows: Sequence[str]) -> str:
    return max(rows, key=lambda row: book.middle("b1", row, "down") or 0.0)


def _row(book: Book, row: str) -> list[float | None]:
    spent = [book.middle("b1", row, f"cpu {end} down") for end in routes.ENDS]
    known = [value for value in spent if value is not None]
    return [
        book.middle("b1", row, "down"),
        book.middle("b1", row, "up"),
        added(*known) if known else None,
        book.middle("b4", row, "p50"),
    ]


def placed(text: str, made: str) -> str:
    """`text` with this between its markers."""
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"README.md has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
