"""`auth remove` at home cuts what the laptop is just downloading, directly and through the relay, within a second.

The download ends as a reset on both sides, never as a clean end; afterwards the laptop gets nothing more, and the relay
that let it through for home's sake lets it through no more.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.cluster import wait_for
from tests.support.pair import Pair

LIMIT = 1.0  # seconds from the command to the cut
HUGE = 1 << 40  # bytes: it does not end by itself
UNDER_WAY = 4 << 20  # bytes


class Download:
    """A client of the laptop's that reads until it is cut off."""

    def __init__(self, port: int) -> None:
        self.got = 0
        self.end = ""
        self.ended_at = 0.0
        self._socket = socket.create_connection(("127.0.0.1", port), 60)
        self._socket.sendall(f"{HUGE} 7\n".encode())
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        wait_for("the download to be under way", lambda: self.got > UNDER_WAY or self.end)
        assert not self.end

    def _read(self) -> None:
        with self._socket:
            try:
                while data := self._socket.recv(1 << 18):
                    self.got += len(data)
                self.end = "eof"
            except OSError as why:
                self.end = "reset" if isinstance(why, ConnectionResetError) else repr(why)
            self.ended_at = time.monotonic()

    def wait(self) -> None:
        self._thread.join(15)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair.make(tmp_path_factory.mktemp("revocation"))
    yield pair
    pair.close()


@pytest.fixture
def laptop(pair: Pair) -> str:
    """The laptop's peer ID; home and relay know it, also if a test before has removed it."""
    peer = pair.laptop.ctl("whoami").stdout.strip()
    if peer not in {entry["peer_id"] for entry in pair.home.ask("auth", "list")}:
        pair.home.ctl("auth", "add", peer, "--comment", "laptop")
    if not at_relay(pair, peer):
        pair.relay.authorize(peer, "laptop")
        pair.await_reservation(pair.laptop)
    return peer


def at_relay(pair: Pair, peer: str) -> str:
    """The relay's line about a peer."""
    lines = (pair.relay.config.parent / "relay_authorized_keys").read_text().splitlines()
    return next((line for line in lines if peer in line), "")


@pytest.mark.parametrize("path", ["direct", "relay"])
def test_auth_remove_cuts_a_running_download_within_a_second(pair: Pair, laptop: str, path: str):
    resets, vouched = pair.ends().count("reset"), "vouched_by=" in at_relay(pair, laptop)
    with pair.proxy("source", path) as port:
        download = Download(port)
        began = time.monotonic()
        pair.home.ctl("auth", "remove", laptop)
        download.wait()
        seconds = download.ended_at - began
        print(f"\n{path}: cut {1000 * seconds:.0f} ms after the command began, {download.got >> 20} MiB had come")
        assert download.end == "reset"
        assert seconds < LIMIT
        wait_for("the service's end", lambda: pair.ends().count("reset") > resets)
    assert_nothing_more(pair)
    assert vouched == (path == "direct"), "the first test removes what pairing has brought"
    if vouched:
        wait_for("home to withdraw its vouching", lambda: not at_relay(pair, laptop))


def test_a_line_taken_out_of_the_file_cuts_too(pair: Pair, laptop: str):
    """By hand, with an editor; the daemon looks once a second."""
    with pair.proxy("source", "direct") as port:
        download = Download(port)
        keys = pair.home.config.parent / "authorized_keys"
        keys.write_text("".join(line for line in keys.read_text().splitlines(True) if laptop not in line))
        began = time.monotonic()
        download.wait()
        print(f"\nby hand: cut {1000 * (download.ended_at - began):.0f} ms after the file was written")
        assert download.end == "reset"
        assert download.ended_at - began < 2 + LIMIT
    assert_nothing_more(pair)


def assert_nothing_more(pair: Pair) -> None:
    done = pair.laptop.ctl("ping", "home", "-c", "1", check=False)
    assert done.returncode != 0
    assert "rtt=" not in done.stdout
