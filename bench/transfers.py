"""Tables B1 to B7: bytes through each route, in turns, so that a busy moment hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from bench import routes
from bench.figures import Book
from bench.processes import cpu
from bench.progress import Failed, say
from bench.rivals import Stock
from bench.routes import Route

COMPARED = 16_000_000  # bytes each way, before anything is timed
LONGEST_ROUND = 4.0  # seconds of one transfer: slow routes carry less
SETTLE = 0.05  # seconds between two measurements
SSH_CROWD = 100  # connections; more take minutes through one ssh
WAYS = ("down", "up")


@dataclass
class Plan:
    """How much, how often."""

    rounds: int = 5
    size: int = 400_000_000
    """Bytes of one stream."""
    pings: int = 2000
    connections: int = 200
    """One after the other, for the first byte."""
    crowds: Sequence[int] = (100, 500, 2000)
    crowd_size: int = 1_000_000
    """Bytes of each connection of a crowd."""
    crowd_rounds: int = 5
    bulk_seconds: float = 1.2
    """Of bulk with and without pings beside."""
    head_start: float = 0.25
    """Seconds of bulk before the first ping, and after the last."""
    bulk_ways: Sequence[str] = WAYS


@dataclass
class Transfers:
    """All tables over the routes that are there."""

    book: Book
    plan: Plan
    there: list[Route]
    stock: Stock | None = None
    rates: dict[str, float] = field(default_factory=dict)
    """Bytes per second, as they were when the bytes were compared."""

    def compare(self) -> None:
        """Every byte, once each way; a route that does not carry them is left out."""
        for route in list(self.there):
            say(f"comparing bytes: {route.name}")
            try:
                took = [route.client.ask(way, route.at, size=COMPARED, compare=True)["seconds"] for way in WAYS]
                self.rates[route.name] = COMPARED / min(took)
            except Failed as why:
                self.leave_out(route, f"bytes were not carried: {why}")

    def leave_out(self, route: Route, why: str) -> None:
        """From here on."""
        self.there.remove(route)
        self.book.left_out[route.name] = why

    def turns(
        self, table: str, deed: Callable[[Route], None], *, rounds: int = 0, among: Callable[[Route], bool] = bool
    ) -> None:
        """Each route in its turn, so often; one that fails is left out from then on."""
        rounds = rounds or self.plan.rounds
        for number in range(rounds):
            for route in [route for route in self.there if among(route)]:
                say(f"{table}, round {number + 1}/{rounds}: {route.name}")
                time.sleep(SETTLE)
                try:
                    deed(route)
                except Failed as why:
                    self.leave_out(route, f"{table}: {why}")

    # -- B1, B2, B3 ------------------------------------------------------------------------------------------------

    def streams(self) -> None:
        """One stream, down and up, with the CPU of each process."""
        for number in range(self.plan.rounds):
            self.turns(f"b1 ({number + 1})", self._stream, rounds=1)
            self._stock()

    def _stream(self, route: Route) -> None:
        for way in WAYS:
            self._one_way(route, way)

    def _one_way(self, route: Route, way: str) -> None:
        size = int(min(self.plan.size, LONGEST_ROUND * self.rates[route.name]))
        before = route.spent()
        seen = route.client.ask(way, route.at, size=size)
        after = route.spent()
        self.book.note("b1", route.name, **{way: size / 1e6 / seen["seconds"]})
        for end in before:
            self.book.note("b1", route.name, **{f"cpu {end} {way}": (after[end] - before[end]) / (size / 1e9)})

    def _stock(self) -> None:
        if self.stock is None:
            return
        say(f"b1: {routes.STOCK}")
        size = min(self.plan.size, 128_000_000) // 65536 * 65536
        for way in WAYS:
            before = {end: cpu([pid]) for end, pid in self.stock.works.items()}
            self.book.note("b1", routes.STOCK, **{way: size / 1e6 / self.stock.transfer(way, size)})
            for end, pid in self.stock.works.items():
                spent = (cpu([pid]) - before[end]) / (size / 1e9)
                self.book.note("b1", routes.STOCK, **{f"cpu {end} {way}": spent})

    # -- B4, B5 ----------------------------------------------------------------------------------------------------

    def pings(self) -> None:
        """One byte there and back on an idle path."""

        def deed(route: Route) -> None:
            seen = route.client.ask("pings", route.at, count=self.plan.pings)
            self.book.note("b4", route.name, p50=seen["p50"], p99=seen["p99"])

        self.turns("b4", deed)

    def firsts(self) -> None:
        """A new connection to its first byte, the path being there."""

        def deed(route: Route) -> None:
            seen = route.client.ask("firsts", route.at, count=self.plan.connections)
            self.book.note("b5", route.name, p50=seen["p50"], p99=seen["p99"])

        self.turns("b5", deed)

    # -- B6, B7 ----------------------------------------------------------------------------------------------------

    def crowds(self) -> None:
        """Many connections at once."""
        for count in self.plan.crowds:
            deed = partial(self._crowd, count)
            among = in_crowds if count <= SSH_CROWD else in_large_crowds
            self.turns(f"b6, {count} at once", deed, rounds=self.plan.crowd_rounds, among=among)

    def _crowd(self, count: int, route: Route) -> None:
        row = f"{route.name}, {count}"
        seen = route.client.ask("many", route.at, count=count, size=self.plan.crowd_size)
        rate = seen["bytes"] / 1e6 / seen["seconds"]
        self.book.note("b6", row, succeeded=seen["succeeded"], of=count, rate=rate)

    def mixed(self) -> None:
        """One bulk stream with one ping-pong beside it, both on the one connection of two peers."""

        def deed(route: Route) -> None:
            for way in self.plan.bulk_ways:
                self._mixed(route, way)

        self.turns("b7", deed, among=in_mixed)

    def _mixed(self, route: Route, way: str) -> None:
        seconds = self.plan.bulk_seconds
        alone = route.client.ask(f"{way}_for", route.at, seconds=seconds)
        time.sleep(SETTLE)
        route.client.begin(f"{way}_for", route.at, seconds=seconds)
        time.sleep(self.plan.head_start)
        try:
            seen = route.second.ask("pings", route.at, seconds=seconds - 2 * self.plan.head_start)
        finally:
            beside = route.client.seen()
        rates = [each["bytes"] / 1e6 / each["seconds"] for each in (alone, beside)]
        self.book.note("b7", f"{route.name}, {way}", p50=seen["p50"], p99=seen["p99"], alone=rates[0], beside=rates[1])


def in_crowds(route: Route) -> bool:
    """Crowds go where a comparison says something: not through every cipher and every variant."""
    return route.name in {
        routes.RAW,
        routes.SSH.format("aes128-gcm"),
        routes.GO_TLS,
        routes.GO_RELAYED,
        routes.OURS,
        routes.OURS_RELAYED,
        routes.SHIPPED_TCP,
        routes.SHIPPED_RELAYED,
    }


def in_large_crowds(route: Route) -> bool:
    """Without those that would take minutes."""
    return in_crowds(route) and route.name not in routes.ALL_SSH


def in_mixed(route: Route) -> bool:
    """Likewise; on raw TCP the two would have connections of their own."""
    more = {routes.GO_NOISE, routes.GO_RAISED}
    return route.name != routes.RAW and (in_crowds(route) or route.name in more)
