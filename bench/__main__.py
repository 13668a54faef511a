"""`make bench`: every goal of speed and size, side by side with what others reach, in one run.

As root in network namespaces of its own making, else on loopback. Prints the tables, and each goal with its figure, its
bar and a verdict; keeps everything as JSON in `bench/results/`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench import cold, report, rivals, routes, shipped, sizes
from bench.figures import Book
from bench.ours import SERVICE, both, network, over_go
from bench.processes import client, service
from bench.progress import leaving_out, say
from bench.rivals import Ground
from bench.stage import Stage, stage
from bench.transfers import Plan, Transfers

TABLES = ("b1", "b4", "b5", "b6", "b7", "s", "cold")
RELAY_WORDS = "\nresources:\n  session_data_limit: 64GB\n"
QUICK = Plan(
    size=64_000_000,
    pings=500,
    connections=50,
    crowds=(100, 2000),
    crowd_rounds=1,
    bulk_seconds=0.5,
    head_start=0.1,
    bulk_ways=("up",),
)
QUICK_CIPHERS = ("chacha20", "aes128-gcm")


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is asked for; exit status 0 when it came to an end, whatever the figures are."""
    options = arguments(words)
    plan, began, load = planned(options), time.monotonic(), os.getloadavg()[0]
    book = Book()
    with stage(loopback=options.loopback) as where, tempfile.TemporaryDirectory(prefix="pb-") as folder:
        if set(options.only) - {"s", "cold"}:
            transfers(book, plan, where, Path(folder), options)
        if "s" in options.only:
            sizes.measure(book, where, Path(folder) / "s", quick=options.quick)
        if "cold" in options.only:
            cold.measure(book, Path(folder))
        words_for_place = "client, home and relay in network namespaces" if where.in_namespaces else "all on loopback"
    say("")
    run = report.described(book, plan, words_for_place, time.monotonic() - began, [load, os.getloadavg()[0]])
    kept = report.keep(run, options.keep)
    print(f"{report.show(run)}\n\nkept in {kept}")
    return 0


def transfers(book: Book, plan: Plan, where: Stage, folder: Path, options: argparse.Namespace) -> None:
    """Everything with bytes in it."""
    with ExitStack() as stack:
        ground = _ground(stack, where, folder)
        far = Ground(**{**vars(ground), "service": stack.enter_context(service(where.far_home))})
        made = Transfers(book, plan, [rivals.raw(ground)])
        _rivals(stack, made, ground, far, options)
        say("starting peerup")
        pair = stack.enter_context(network(where, folder / "us", [(SERVICE, ground.service)], RELAY_WORDS))
        made.there += both(ground, pair)
        made.compare()
        deeds = {"b1": made.streams, "b4": made.pings, "b5": made.firsts, "b6": made.crowds, "b7": made.mixed}
        for name, deed in deeds.items():
            if name in options.only:
                deed()


def _ground(stack: ExitStack, where: Stage, folder: Path) -> Ground:
    at_home = stack.enter_context(service(where.home))
    clients = [stack.enter_context(client(place)) for place in [where.client] * 2 + [where.far_client] * 2]
    return Ground(where, folder, at_home, *clients)


def _rivals(stack: ExitStack, made: Transfers, ground: Ground, far: Ground, options: argparse.Namespace) -> None:
    """Those that are here; the others with their reasons."""
    for name in QUICK_CIPHERS if options.quick else routes.CIPHERS:
        with leaving_out(made.book, routes.SSH.format(name)):
            made.there.append(stack.enter_context(rivals.ssh(ground, name)))
    with leaving_out(made.book, routes.STOCK):
        made.stock = stack.enter_context(rivals.stock(ground))
    with leaving_out(made.book, "go-libp2p"):
        program = options.go or rivals.build_go()
        for name, transport, security in (
            (routes.GO_NOISE, "tcp", "noise"),
            (routes.GO_TLS, "tcp", "tls"),
            (routes.GO_QUIC, "quic", ""),
        ):
            made.there.append(stack.enter_context(rivals.go_direct(ground, program, name, transport, security)))
        for name, buffer in ((routes.GO_RELAYED, 2 << 10), (routes.GO_RAISED, 64 << 10)):
            made.there.append(stack.enter_context(rivals.go_relayed(far, program, name, buffer)))
        if options.over_go:
            made.there.append(stack.enter_context(over_go(far, program)))
    if options.go_peerup:
        with leaving_out(made.book, "Go peer-up"):
            made.there += shipped.all_routes(stack, ground, far, options.go_peerup)


def planned(options: argparse.Namespace) -> Plan:
    """How much of everything."""
    plan = QUICK if options.quick else Plan()
    changes = {
        "rounds": options.rounds,
        "size": options.mb and options.mb * 1_000_000,
        "crowds": options.crowds,
        "crowd_size": options.crowd_mb and options.crowd_mb * 1_000_000,
    }
    return replace(plan, **{name: value for name, value in changes.items() if value})


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, two minutes instead of fifteen")
    parser.add_argument(
        "--only", type=_names, default=TABLES, help=f"of {','.join(TABLES)} (b2 and b3 are in b1); default: all"
    )
    parser.add_argument("--rounds", type=int, help=f"default {Plan.rounds}")
    parser.add_argument("--mb", type=int, help="of one stream")
    parser.add_argument("--crowds", type=_numbers, help="connections at once, as 100,500,2000")
    parser.add_argument("--crowd-mb", type=int, help="of each of them; default 1, the goal says 10")
    parser.add_argument("--go", help="the Go peer of the interop tests; default: it is built")
    parser.add_argument("--go-peerup", help="the program of Go peer-up; default: its columns stay empty")
    parser.add_argument("--over-go", action="store_true", help="peerup through the go-libp2p relay, too")
    parser.add_argument("--loopback", action="store_true", help="no namespaces, as for a plain user")
    parser.add_argument("--keep", type=Path, help="write the JSON there, too")
    return parser.parse_args(words)


def _names(text: str) -> tuple[str, ...]:
    names = tuple({"b2": "b1", "b3": "b1"}.get(name, name) for name in text.lower().split(","))
    if unknown := set(names) - set(TABLES):
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}")
    return names


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


if __name__ == "__main__":
    sys.exit(main())
