"""Bytes that come in the smallest pieces: over the way to the relay, and over the local sockets of both sides."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.cluster import wait_for
from tests.support.pair import Crowd, Pair, middlebox

KIB = 1 << 10


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Also the relay's handshakes, reservations, and the pairing itself have gone byte by byte."""
    pair = Pair.make(tmp_path_factory.mktemp("segments"), pieces=1)
    yield pair
    pair.close()


def test_connections_through_a_relay_come_whole(pair: Pair):
    with Crowd(pair) as crowd, pair.proxy("crowd", "relay") as port:
        assert crowd.run("at-once", port, 6, 24 * KIB)["right"] == 6
    pair.home.ctl("service", "remove", "crowd")
    assert "path=[RELAYED]" in pair.laptop.ctl("ping", "home", "-c", "1", "--path", "relay").stdout


@pytest.mark.parametrize("path", ["relay", "direct"])
def test_local_sockets_that_give_and_take_single_bytes(pair: Pair, path: str):
    with Crowd(pair) as crowd:
        pair.home.ctl("service", "remove", "crowd")
        with middlebox(crowd.port, 1) as service:
            pair.home.ctl("service", "add", "crowd", f"127.0.0.1:{service}")
            with pair.proxy("crowd", path) as port, middlebox(port, 1) as door:
                assert crowd.run("at-once", door, 10, 24 * KIB)["right"] == 10
                assert resets_pass(door)
        pair.home.ctl("service", "remove", "crowd")
        wait_for("the ends", lambda: not crowd.report()["open"])


def resets_pass(port: int) -> bool:
    """Whether junk for the service, which cuts the connection then, ends here as a reset."""
    with closing(socket.create_connection(("127.0.0.1", port), 60)) as connection:
        connection.sendall(bytes(8))
        assert connection.recv(1) == b"!"
        connection.sendall(b"what?")
        try:
            while connection.recv(1):
                pass
        except ConnectionResetError:
            return True
    return False
