"""The code can be read back from the characters: light is drawn, dark is left out."""

import os
import subprocess
import sys

import pytest
import segno

from peerupd.features import qr


@pytest.mark.parametrize("text", ["12D3KooWQ", "AEBA-GBAF-" * 15])
def test_the_lines_show_the_modules_of_the_code(text):
    modules = [list(row) for row in segno.make(text, error="m", micro=False, boost_error=False).matrix_iter(border=4)]
    seen = []
    for line in qr.lines(text):
        seen.append([0 if c in "█▀" else 1 for c in line])
        seen.append([0 if c in "█▄" else 1 for c in line])
    assert seen[: len(modules)] == modules
    assert len(seen) == len(modules) + 1  # their number is odd: nothing is drawn below the last row
    assert set(seen[-1]) == {1}


def test_the_quiet_zone_is_light():
    lines = qr.lines("x")
    assert set(lines[0]) == {"█"}
    assert {line[:4] for line in lines[:-1]} == {"████"}


def test_the_error_level_is_medium_even_where_more_would_fit():
    assert len(qr.lines("A")[0]) == 21 + 8


def test_a_code_costs_no_http_and_no_tls():
    program = """
import sys
from peerupd.features import qr
qr.lines("x")
print([name for name in ("http", "email", "ssl", "xml") if name in sys.modules])
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # it imports xml
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=env)
    assert done.stdout.strip() == "[]"
