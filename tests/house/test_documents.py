"""One source for each document: made pages are up to date, and the two ends of the socket know the same routes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from peerupctl import client
from peerupd.control.operations import VERBS
from peerupd.frontends.routes import ROUTES

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_reference_pages_are_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "docs/make.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_line_and_the_daemon_know_the_same_routes():
    theirs = {(route.method, route.path): route.verb for route in ROUTES}
    for verb, place in client.ROUTES.items():
        assert theirs[place] == verb


def test_every_verb_is_within_reach_of_the_command_line():
    assert set(client.ROUTES) == set(VERBS)
