"""The page of figures has its form; its figures are nobody's business here."""

from __future__ import annotations

from bench import routes
from bench.figures import Book
from bench.page import BEGIN, END, PAGE, README, page, placed, summary
from bench.report import described
from bench.tables import GOALS
from bench.transfers import Plan


def run() -> dict:
    book = Book()
    for name in (routes.RAW, routes.GO_TLS, routes.OURS):
        book.note("b1", name, down=1234.5, up=66.6, **{"cpu client down": 0.5, "cpu home down": 0.75})
        book.note("b4", name, p50=123.4, p99=200.0)
    book.left_out["Go peer-up"] = "not here"
    return described(book, Plan(), "nowhere", 1.0, [0.0, 0.0])


def test_the_page_has_every_goal_the_machine_the_versions_and_how_to_repeat_it():
    made = page(run())
    for goal in GOALS:
        assert f"| {goal.number} | {goal.what} |" in made
    for words in ("## The machine", "cryptography", "make bench", "## How to read it", "## Left out", "Go peer-up"):
        assert words in made


def test_the_table_of_the_readme_shows_only_what_was_measured():
    lines = summary(run()).splitlines()
    assert "| **peerup, direct** | 1234 | 66.6 | 1.25 | 123 |" in lines
    assert not any("relayed" in line for line in lines[:6])


def test_only_what_is_between_the_markers_is_replaced():
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert placed(placed(text, "new"), "newer") == f"before\n{BEGIN}\nnewer\n{END}\nafter\n"


def test_the_page_and_the_table_that_are_kept_have_that_form():
    kept = PAGE.read_text()
    assert all(f"| {goal.number} | {goal.what} |" in kept for goal in GOALS)
    assert placed(README.read_text(), "x") != README.read_text()
