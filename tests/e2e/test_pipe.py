"""`peerupctl pipe` with real processes: a cut never looks like a clean end, neither here nor at the far service."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.cluster import end, wait_for
from tests.support.pair import Pair
from tests.support.traffic import content, digest

SIZE = 32 << 20  # bytes
UNDER_WAY = 4 << 20  # bytes


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair.make(tmp_path_factory.mktemp("pipe"))
    yield pair
    pair.close()


@pytest.fixture
def pipe(pair: Pair) -> Iterator[Pipe]:
    pipe = Pipe(pair)
    yield pipe
    pipe.close()


class Pipe:
    """One `peerupctl pipe` at the laptop, and its two ends."""

    def __init__(self, pair: Pair) -> None:
        self._laptop = pair.laptop
        self._process: subprocess.Popen[bytes] | None = None

    def open(self, service: str) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            self._laptop.command("pipe", "home", service),
            env=self._laptop.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        return self._process

    def close(self) -> None:
        if self._process is not None:
            end(self._process)


def test_an_upload_ends_by_half_close_and_its_answer_still_comes(pipe: Pipe):
    process = pipe.open("sink")
    began = time.monotonic()
    for block in content(SIZE, 3):
        process.stdin.write(block)
    process.stdin.close()
    assert process.stdout.read().decode() == digest(SIZE, 3)
    assert process.wait(60) == 0
    print(f"\nup: {SIZE / 1e6 / (time.monotonic() - began):.0f} MB/s")


def test_a_download_comes_whole_while_our_own_direction_has_ended(pipe: Pipe):
    process = pipe.open("source")
    began = time.monotonic()
    process.stdin.write(f"{SIZE} 7\n".encode())
    process.stdin.close()
    whole = hashlib.sha256()
    while data := process.stdout.read(1 << 18):
        whole.update(data)
    assert whole.hexdigest() == digest(SIZE, 7)
    assert process.wait(60) == 0
    print(f"\ndown: {SIZE / 1e6 / (time.monotonic() - began):.0f} MB/s")


def test_both_ways_at_once(pipe: Pipe):
    process = pipe.open("echo")
    whole = hashlib.sha256()

    def read() -> None:
        while data := process.stdout.read(1 << 18):
            whole.update(data)

    reader = threading.Thread(target=read)
    reader.start()
    for block in content(SIZE, 5):
        process.stdin.write(block)
    process.stdin.close()
    reader.join(60)
    assert whole.hexdigest() == digest(SIZE, 5)
    assert process.wait(60) == 0


def test_a_service_that_is_cut_off_ends_the_pipe_with_status_4(pipe: Pipe):
    process = pipe.open("cutter")
    process.stdin.write(b"say something\n")
    process.stdin.flush()
    assert process.stdout.read(14) == b"half of an ans"
    process.stdin.write(b"!")
    process.stdin.flush()
    assert process.stdout.read() == b""
    assert process.wait(60) == 4
    assert b"reset" in process.stderr.read()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_pipe_that_is_killed_resets_the_far_service(pair: Pair, pipe: Pipe, how: int):
    seen = len(pair.ends())
    process = pipe.open("sink")
    for block in content(UNDER_WAY, 1):
        process.stdin.write(block)
    process.stdin.flush()
    os.kill(process.pid, how)
    process.wait(60)
    wait_for("the service's end", lambda: len(pair.ends()) > seen)
    assert pair.ends()[seen:] == ["reset"]


def test_a_daemon_that_is_killed_ends_the_pipe_with_status_5(pair: Pair, pipe: Pipe):
    """The last test of this module: the laptop has no daemon after it."""
    process = pipe.open("echo")
    process.stdin.write(b"hello")
    process.stdin.flush()
    assert process.stdout.read(5) == b"hello"
    pair.laptop.daemon.stop(signal.SIGKILL)
    assert process.stdout.read() == b""
    assert process.wait(60) == 5
    assert b"the daemon went away" in process.stderr.read()
