"""The goals of speed and size with their bars, each as the arithmetic that makes its figure; and the tables behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import routes
from bench.figures import Book, Verdict, added, judge, loss, middle, ratio

Figure = Callable[[Book], float | None]
WAYS = ("down", "up")
CROWD_BAR = 500  # connections at once


@dataclass(frozen=True)
class Goal:
    """One line."""

    number: str
    what: str
    unit: str
    goal: float
    bar: float
    figure: Figure
    most: bool = False
    """More is better."""

    @property
    def sign(self) -> str:
        """Of goal and bar."""
        return "≥" if self.most else "≤"

    def verdict(self, book: Book) -> Verdict:
        """What the figure is worth."""
        return judge(self.figure(book), self.goal, self.bar, most=self.most)


@dataclass(frozen=True)
class Table:
    """What was measured, in rows; `None` where there is nothing."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float | None]]]


# -- the goals -----------------------------------------------------------------------------------------------------


def rivals_over_tcp(book: Book) -> Sequence[str]:
    """Who stands for Go peer-up over TCP: itself where its program was given, else the faster of two proxies."""
    return (routes.SHIPPED_TCP,) if book.has(routes.SHIPPED_TCP) else (routes.GO_NOISE, routes.GO_TLS)


def _quic(book: Book) -> Sequence[str]:
    return (routes.SHIPPED_QUIC,) if book.has(routes.SHIPPED_QUIC) else (routes.GO_QUIC,)


def _relayed(book: Book) -> Sequence[str]:
    return (routes.SHIPPED_RELAYED,) if book.has(routes.SHIPPED_RELAYED) else (routes.GO_RELAYED,)


def _faster(row: str, rows: Callable[[Book], Sequence[str]], way: str) -> Figure:
    return lambda book: ratio(book.middle("b1", row, way), book.best("b1", rows(book), way))


def _slower(table: str, row: str, rows: Callable[[Book], Sequence[str]], column: str, end: str = "") -> Figure:
    def figure(book: Book) -> float | None:
        theirs = [name + end for name in rows(book)]
        return ratio(book.middle(table, row + end, column), book.best(table, theirs, column, most=False))

    return figure


def _value(table: str, row: str, column: str, scale: float = 1.0) -> Figure:
    def figure(book: Book) -> float | None:
        middle = book.middle(table, row, column)
        return None if middle is None else middle * scale

    return figure


def _ends(way: str) -> Figure:
    return lambda book: added(*(book.middle("b1", routes.OURS, f"cpu {end} {way}") for end in ("client", "home")))


def _whole_crowds(route: str) -> Figure:
    """The largest number of connections of which all succeeded in all rounds."""

    def figure(book: Book) -> float | None:
        measured = [row for row in book.rows("b6") if row.startswith(f"{route}, ")]
        whole = [
            int(row.rpartition(", ")[2])
            for row in measured
            if min(book.all("b6", row, "succeeded")) == min(book.all("b6", row, "of"))
        ]
        tried = max((int(row.rpartition(", ")[2]) for row in measured), default=0)
        if tried < CROWD_BAR and tried in whole:
            return None  # too few were tried to say anything
        return float(max(whole, default=0)) if measured else None

    return figure


def _lost(row: str) -> Figure:
    """By pairs, since each bulk with pings was measured right after one without."""

    def figure(book: Book) -> float | None:
        pairs = zip(book.all("b7", row, "alone"), book.all("b7", row, "beside"), strict=True)
        return middle([loss(alone, beside) for alone, beside in pairs])

    return figure


def _bytes() -> list[Goal]:
    goals = []
    for way in WAYS:
        against: list[tuple[str, float, float, Callable[[Book], Sequence[str]]]] = [
            ("Go over TCP", 1.3, 1.0, rivals_over_tcp),
            ("Go over QUIC (as shipped)", 3.5, 2.5, _quic),
            ("stock py-libp2p", 3.5, 2.5, lambda _: (routes.STOCK,)),
            ("the best ssh -L", 1.2, 1.0, lambda _: routes.ALL_SSH),
        ]
        for name, goal, bar, rows in against:
            goals.append(
                Goal("B1", f"direct {way}, of {name}", "×", goal, bar, _faster(routes.OURS, rows, way), most=True)
            )
    for way in WAYS:
        relayed: list[tuple[str, float, float, Callable[[Book], Sequence[str]]]] = [
            ("Go relayed (as shipped)", 3.3, 2.5, _relayed),
            ("Go with its relay's buffer raised", 1.6, 1.2, lambda _: (routes.GO_RAISED,)),
        ]
        for name, goal, bar, rows in relayed:
            figure = _faster(routes.OURS_RELAYED, rows, way)
            goals.append(Goal("B2", f"relayed {way}, of {name}", "×", goal, bar, figure, most=True))
    for way in WAYS:
        goals.append(Goal("B3", f"CPU of both ends, direct {way}", "s/GB", 1.5, 2.0, _ends(way)))
        relay = _value("b1", routes.OURS_RELAYED, f"cpu relay {way}")
        goals.append(Goal("B3", f"CPU of the relay, {way}", "s/GB", 1.2, 1.8, relay))
    return goals


def _answers() -> list[Goal]:
    relayed = (routes.GO_RELAYED, routes.GO_RAISED)
    goals = []
    for column in ("p50", "p99"):
        direct = _slower("b4", routes.OURS, rivals_over_tcp, column)
        goals.append(Goal("B4", f"1 byte there and back, direct {column}, of Go over TCP", "×", 1.3, 1.8, direct))
        over = _slower("b4", routes.OURS_RELAYED, lambda _: relayed, column)
        goals.append(Goal("B4", f"the same relayed {column}, of Go relayed", "×", 1.3, 1.8, over))
    goals.append(Goal("B5", "new connection to first byte, direct p50", "ms", 1.0, 2.0, _first(routes.OURS)))
    goals.append(Goal("B5", "new connection to first byte, relayed p50", "ms", 1.5, 3.0, _first(routes.OURS_RELAYED)))
    for name in (routes.OURS, routes.OURS_RELAYED):
        words = f"{name}: so many at once, every byte right"
        goals.append(Goal("B6", words, "", 2000, CROWD_BAR, _whole_crowds(name), most=True))
    for way in WAYS:
        beside: list[tuple[str, str, Callable[[Book], Sequence[str]], float]] = [
            (routes.OURS, "Go over TCP", rivals_over_tcp, 5.0),
            (routes.OURS_RELAYED, "Go relayed", lambda _: relayed, 20.0),
        ]
        for row, name, rows, lost in beside:
            figure = _slower("b7", row, rows, "p50", f", {way}")
            goals.append(Goal("B7", f"{row}: p50 beside bulk {way}, of {name}", "×", 1.0, 2.0, figure))
            words = f"{row}: bulk {way} lost to it"
            goals.append(Goal("B7", words, "%", lost, 2 * lost, _lost(f"{row}, {way}")))
    return goals


def _first(row: str) -> Figure:
    return _value("b5", row, "p50", 1e-3)


def _sizes() -> list[Goal]:
    def line(number: str, row: str, column: str, goal: float, bar: float, words: str = "") -> Goal:
        return Goal(number, words or row, column, goal, bar, _value("s", row, column))

    return [
        line("S1", "idle daemon: 1 relay, 2 peers, 3 services", "MB", 44, 50),
        line("S2", "idle relay: 2 peers", "MB", 42, 48),
        line("S2", "each further reserved peer", "KB", 60, 120),
        line("S3", "exec to ready and control socket", "s", 0.8, 1.5),
        line("S3", "the same, relay unreachable", "s", 0.8, 1.5),
        line("S4", "peerupctl status", "ms", 120, 150),
        line("S4", "peerupctl status, CPU", "ms", 120, 150),
        line("S5", "ping without a daemon", "s", 1.5, 3.0),
        line("S5", "proxy without a daemon, to first byte", "s", 1.5, 3.0),
        line("S6", "idle CPU", "%", 0.1, 0.3),
        line("S6", "idle traffic per relay, a day", "MB", 1.0, 3.0),
        line("S7", "join to both sides done, relayed, 50 ms", "s", 1.0, 2.0),
    ]


GOALS = (*_bytes(), *_answers(), *_sizes())


# -- the tables ----------------------------------------------------------------------------------------------------


def tables(book: Book) -> list[Table]:
    """All that have rows."""
    made = [
        _table(book, "b1", "B1 B2 B3: one stream", _STREAM),
        _table(book, "b4", "B4: 1 byte there and back, idle, µs", {"p50": "p50", "p99": "p99"}),
        _table(book, "b5", "B5: new connection to first byte, warm, µs", {"p50": "p50", "p99": "p99"}),
        _crowds(book),
        _mixed(book),
        _table(book, "cold", "the cold paths, µs", {"median": "median"}),
    ]
    return [table for table in made if table.rows]


_STREAM = {"down": "down MB/s", "up": "up MB/s"} | {
    f"cpu {end} {way}": f"{end} {way} s/GB" for way in WAYS for end in routes.ENDS
}


def _table(book: Book, name: str, title: str, columns: dict[str, str]) -> Table:
    rows = [(row, [book.middle(name, row, column) for column in columns]) for row in book.rows(name)]
    return Table(title, tuple(columns.values()), rows)


def _crowds(book: Book) -> Table:
    rows = [
        (row, [min(book.all("b6", row, "succeeded")), book.middle("b6", row, "rate")])
        for row in sorted(book.rows("b6"), key=lambda row: int(row.rpartition(", ")[2]))
    ]
    return Table("B6: connections at once through one pair of peers", ("right, at least", "MB/s"), rows)


def _mixed(book: Book) -> Table:
    columns = ("p50", "p99", "alone", "beside")
    rows: list[tuple[str, list[float | None]]] = []
    for row in book.rows("b7"):
        values = [book.middle("b7", row, column) for column in columns]
        rows.append((row, [*values, _lost(row)(book)]))
    title = "B7: 1 byte there and back beside one bulk stream, µs"
    return Table(title, ("p50", "p99", "bulk alone MB/s", "beside MB/s", "lost %"), rows)
