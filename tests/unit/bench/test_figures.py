"""The arithmetic of the benchmark: medians, ratios and verdicts."""

from __future__ import annotations

import json

import pytest

from bench import routes
from bench.figures import Book, added, judge, loss, middle, ratio, spread
from bench.tables import GOALS, tables


def book() -> Book:
    made = Book()
    for rate in (900.0, 1000.0, 5000.0):
        made.note("b1", routes.OURS, down=rate)
    for rate in (500.0, 400.0, 600.0):
        made.note("b1", routes.GO_TLS, down=rate)
    made.note("b1", routes.GO_NOISE, down=650.0)
    return made


def of(what: str, made: Book) -> tuple[float | None, str]:
    goal = next(goal for goal in GOALS if goal.what == what)
    return goal.figure(made), goal.verdict(made)


def test_the_median_of_all_rounds_counts_not_the_best():
    assert book().middle("b1", routes.OURS, "down") == 1000.0
    assert middle([1.0, 2.0]) == 1.5


def test_what_was_not_measured_has_no_figure_and_no_verdict():
    assert middle([]) is None
    assert ratio(None, 3.0) is None
    assert ratio(3.0, None) is None
    assert ratio(3.0, 0.0) is None
    assert added(1.0, None) is None
    assert of("direct up, of Go over TCP", book()) == (None, "-")


def test_the_faster_of_two_rivals_is_the_one_to_beat():
    assert book().best("b1", (routes.GO_TLS, routes.GO_NOISE), "down") == 650.0
    assert book().best("b1", (routes.GO_TLS, routes.GO_NOISE), "down", most=False) == 500.0
    assert of("direct down, of Go over TCP", book()) == (pytest.approx(1000 / 650), "goal")


def test_the_go_program_itself_stands_before_its_stand_ins():
    made = book()
    made.note("b1", routes.SHIPPED_TCP, down=900.0)
    assert of("direct down, of Go over TCP", made) == (pytest.approx(1000 / 900), "bar")


@pytest.mark.parametrize(
    ("figure", "most", "verdict"),
    [
        (1.3, True, "goal"),
        (1.29, True, "bar"),
        (1.0, True, "bar"),
        (0.99, True, "below"),
        (1.0, False, "goal"),
        (1.3, False, "bar"),
        (1.31, False, "below"),
    ],
)
def test_equal_is_enough(figure: float, most: bool, verdict: str):
    goal, bar = (1.3, 1.0) if most else (1.0, 1.3)
    assert judge(figure, goal, bar, most=most) == verdict


def test_a_crowd_counts_only_when_all_of_it_succeeded_in_every_round():
    made = Book()
    for count, succeeded in ((100, 100), (500, 500), (500, 500), (2000, 2000), (2000, 1999)):
        made.note("b6", f"{routes.OURS}, {count}", succeeded=succeeded, of=count, rate=1.0)
    assert of(f"{routes.OURS}: so many at once, every byte right", made) == (500.0, "bar")


def test_what_bulk_loses_is_counted_by_pairs():
    made = Book()
    for alone, beside in ((100.0, 90.0), (1000.0, 970.0), (10.0, 8.0)):
        made.note("b7", f"{routes.OURS}, down", p50=1.0, p99=2.0, alone=alone, beside=beside)
    figure, verdict = of(f"{routes.OURS}: bulk down lost to it", made)
    assert figure == pytest.approx(10.0)
    assert verdict == "bar"
    assert loss(100.0, 110.0) == pytest.approx(-10.0)


def test_the_spread_of_rounds_is_half_of_their_range():
    assert spread([90.0, 100.0, 120.0]) == 15.0


def test_a_kept_run_says_the_same_when_it_is_read_again():
    again = Book.read(json.loads(json.dumps(book().as_json())))
    assert tables(again) == tables(book())


def test_a_crowd_that_is_smaller_than_the_bar_proves_nothing():
    made = Book()
    made.note("b6", f"{routes.OURS}, 100", succeeded=100, of=100, rate=1.0)
    assert of(f"{routes.OURS}: so many at once, every byte right", made) == (None, "-")
    made.note("b6", f"{routes.OURS}, 100", succeeded=99, of=100, rate=1.0)
    assert of(f"{routes.OURS}: so many at once, every byte right", made) == (0.0, "below")
