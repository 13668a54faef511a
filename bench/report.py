"""What a run has found: the tables and goals as text for a terminal, and the file that is kept."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import ssl
import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.figures import Book, spread
from bench.tables import GOALS, Table, tables
from bench.transfers import Plan

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results"
FORMAT = 1
WORDS = {"goal": "goal met", "bar": "bar met, goal missed", "below": "BELOW THE BAR", "-": "not measured"}


def described(book: Book, plan: Plan, where: str, began: float, loads: list[float]) -> dict[str, Any]:
    """The whole run, as it is kept."""
    return {
        "format": FORMAT,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(began),
        "where": where,
        "machine": machine(),
        "versions": versions(),
        "plan": asdict(plan),
        "load": loads,
        **book.as_json(),
    }


def machine() -> dict[str, Any]:
    """What it ran on."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    return {
        "processor": found.group(1) if found else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "congestion control": congestion.read_text().strip() if congestion.exists() else "",
    }


def versions() -> dict[str, str]:
    """Of all that took part."""
    found = {name: version(name) for name in ("peerup", "trio", "cryptography", "libp2p")}
    found["Python"] = platform.python_version()
    found["OpenSSL of ssh and Python"] = ssl.OPENSSL_VERSION.removeprefix("OpenSSL ")
    found["OpenSSH"] = _first_word(["ssh", "-V"], r"OpenSSH_([^\s,]+)")
    found["Go"] = _first_word(["go", "version"], r"go version go(\S+)")
    modules = ROOT / "tests/interop/go/go.mod"
    used = re.search(r"go-libp2p (v\S+)", modules.read_text()) if modules.exists() else None
    found["go-libp2p"] = used.group(1) if used else ""
    return {name: text for name, text in found.items() if text}


def _first_word(command: list[str], pattern: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    found = re.search(pattern, done.stdout + done.stderr)
    return found.group(1) if found else ""


def keep(run: dict[str, Any], also: Path | None) -> Path:
    """Write it down; where."""
    RESULTS.mkdir(exist_ok=True)
    stamp = re.sub(r"[^0-9]", "", run["made"].partition("+")[0])
    text = json.dumps(run, indent=1, ensure_ascii=False) + "\n"
    places = [RESULTS / f"bench-{stamp}.json", RESULTS / "last.json", *([also] if also else [])]
    for place in places:
        place.write_text(text)
    return places[-1] if also else places[0]


def show(run: dict[str, Any]) -> str:
    """Everything, for a terminal."""
    book = Book.read(run)
    parts = [_head(run), *map(_lined, tables(book)), goals(book)]
    if book.left_out:
        parts.append("\n".join(["left out", *(f"  {name}: {why}" for name, why in book.left_out.items())]))
    return "\n\n".join(parts)


def _head(run: dict[str, Any]) -> str:
    on, plan = run["machine"], run["plan"]
    return (
        f"{on['processor']}, {on['cores']} cores, Linux {on['kernel']}, {on['congestion control']}; {run['where']}\n"
        f"medians of {plan['rounds']} interleaved rounds, one stream {plan['size'] / 1e6:.0f} MB, "
        f"crowds x {plan['crowd_size'] / 1e6:g} MB; MB = 10^6 bytes\n"
        f"load of the machine before {run['load'][0]:.2f}, after {run['load'][1]:.2f}; {run['seconds']} s in all"
    )


def _lined(table: Table) -> str:
    wide = max(len(row) for row, _ in table.rows)
    heads = [max(9, len(column) + 2) for column in table.columns]
    lines = [table.title, " " * wide + "".join(f"{c:>{n}}" for c, n in zip(table.columns, heads, strict=True))]
    for row, values in table.rows:
        cells = "".join(f"{figure(value):>{n}}" for value, n in zip(values, heads, strict=True))
        lines.append(f"{row:<{wide}}{cells}")
    return "\n".join(lines)


def figure(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return ""
    if abs(value) >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def goals(book: Book) -> str:
    """Every goal that has a figure, with its goal, its bar and the verdict."""
    lines = [f"{'':<4}{'goals':<62}{'figure':>12}{'goal':>10}{'bar':>10}"]
    missing = [goal.number for goal in GOALS if goal.figure(book) is None]
    for goal in GOALS:
        value = goal.figure(book)
        if value is None:
            continue
        shown = f"{figure(value)} {goal.unit}".strip()
        marks = f"{goal.sign + ' ' + figure(goal.goal):>10}{goal.sign + ' ' + figure(goal.bar):>10}"
        lines.append(f"{goal.number:<4}{goal.what:<62}{shown:>12}{marks}  {WORDS[goal.verdict(book)]}")
    if missing:
        counted = ", ".join(f"{number} ({missing.count(number)})" for number in dict.fromkeys(missing))
        lines.append(f"not measured: {counted}")
    return "\n".join(lines)


def noise(book: Book) -> float:
    """The largest half spread of the rounds of any speed, in percent."""
    rates = [book.all("b1", row, way) for row in book.rows("b1") for way in ("down", "up")]
    return max((spread(values) for values in rates if values), default=0.0)
