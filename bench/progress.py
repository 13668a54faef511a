"""What is being measured, one line on a terminal and nothing elsewhere; and what cannot be is left out, not died of."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.figures import Book

BEGAN = time.monotonic()


class Failed(Exception):
    """It cannot be measured here, or did not come to an end; the words say why."""


def say(text: str) -> None:
    """Each replaces the one before."""
    if sys.stderr.isatty():
        stamp = f"[{time.monotonic() - BEGAN:4.0f} s] " if text else ""
        print(f"\r{stamp + text:<78}\r", end="", file=sys.stderr, flush=True)


@contextmanager
def leaving_out(book: Book, name: str) -> Iterator[None]:
    """Whatever fails in this block is left out, and said."""
    say(name)
    try:
        yield
    except (Failed, RuntimeError, OSError, subprocess.SubprocessError) as why:
        book.left_out[name] = " ".join(str(why).split())[:300]
