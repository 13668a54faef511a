"""How a connection ended is told as it was, to both applications: a clean end as one, everything else as a reset.

Two transfers are under way whenever something breaks: one that the laptop's application stopped reading, and one whose
sender is silent. No matter what breaks, neither may look finished to anybody.
"""

from __future__ import annotations

import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from tests.support.cluster import wait_for
from tests.support.pair import Pair

MIB = 1 << 20
SECONDS = 60.0
LIMIT = 4 * MIB  # bytes of a circuit, in the test of it


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair.make(tmp_path_factory.mktemp("truth"))
    yield pair
    pair.close()


class UnderWay:
    """A download that has begun and is not read on, an upload that has begun and rests; `before`: ends known by now."""

    def __init__(self, pair: Pair, undo: ExitStack, path: str) -> None:
        self._pair = pair
        self._before = len(pair.ends())
        pair.await_path(path)
        self.down, self.up = (
            undo.enter_context(closing(open_to(self._door(name, path)))) for name in ("source", "sink")
        )
        self.down.sendall(b"%d 7\n" % (64 * MIB))
        self.up.sendall(bytes(MIB))
        assert self.down.recv(1)

    def _door(self, service: str, path: str) -> int:
        """A proxy, which ends with the laptop's daemon."""
        made = self._pair.laptop.ask("connect", "home", service, "127.0.0.1:0", "--path", path)
        return int(made["listen_address"].rpartition(":")[2])

    def ends_here(self) -> list[str]:
        """How the laptop's applications see the ends."""
        return [how_it_ends(self.down), how_it_ends(self.up)]

    def ends_there(self) -> list[str]:
        """How the services at home see the ends."""
        return wait_for("the services' ends", lambda: (e := self._pair.ends()[self._before :]) and len(e) > 1 and e, 60)


def open_to(port: int) -> socket.socket:
    """A connection of an application."""
    return socket.create_connection(("127.0.0.1", port), SECONDS)


def how_it_ends(connection: socket.socket) -> str:
    """Read to the end."""
    try:
        while connection.recv(1 << 18):
            pass
    except ConnectionResetError:
        return "reset"
    return "eof"


def reset(connection: socket.socket) -> None:
    """As an application that is killed, or gives up."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def kill(pair: Pair, name: str) -> Callable[[], None]:
    """One of the daemons, at once; what is returned starts it again."""
    machine = {"relay": pair.relay.machine, "home": pair.home, "laptop": pair.laptop}[name]
    machine.daemon.stop(signal.SIGKILL)

    def again() -> None:
        pair.relay.start() if name == "relay" else machine.start()
        for each in (pair.home, pair.laptop):
            pair.await_reservation(each, 60.0)

    return again


@pytest.mark.parametrize(
    ("killed", "path"),
    [("relay", "relay"), ("home", "relay"), ("home", "direct"), ("laptop", "relay"), ("laptop", "direct")],
)
def test_who_is_killed_ends_nothing_cleanly(pair: Pair, killed: str, path: str):
    """Not even for the applications on the machine of the one that is killed."""
    with ExitStack() as undo:
        under_way = UnderWay(pair, undo, path)
        again = kill(pair, killed)
        try:
            assert under_way.ends_here() == ["reset", "reset"]
            assert under_way.ends_there() == ["reset", "reset"]
        finally:
            again()


@pytest.mark.parametrize("path", ["relay", "direct"])
def test_a_reset_at_the_laptop_reaches_the_service_as_a_reset(pair: Pair, path: str):
    with ExitStack() as undo:
        under_way = UnderWay(pair, undo, path)
        reset(under_way.down)
        reset(under_way.up)
        assert under_way.ends_there() == ["reset", "reset"]


@pytest.mark.parametrize("path", ["relay", "direct"])
def test_a_reset_by_the_service_reaches_the_laptop_as_a_reset(pair: Pair, path: str):
    with pair.proxy("cutter", path) as port, closing(open_to(port)) as connection:
        connection.sendall(b"tell me\n")
        connection.sendall(b"!")
        assert how_it_ends(connection) == "reset"


@pytest.mark.parametrize("path", ["relay", "direct"])
def test_a_clean_end_stays_clean_and_one_half_leaves_the_other_open(pair: Pair, path: str):
    with pair.proxy("echo", path) as port, closing(open_to(port)) as connection:
        connection.sendall(b"before")
        assert connection.recv(6, socket.MSG_WAITALL) == b"before"
        connection.sendall(b"the last word")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(13, socket.MSG_WAITALL) == b"the last word"
        assert how_it_ends(connection) == "eof"


def test_a_circuit_that_is_used_up_ends_in_resets(tmp_path):
    pair = Pair.make(tmp_path / "limit", relay_words=f"\nresources:\n  session_data_limit: {LIMIT >> 20}MB\n")
    try:
        with pair.proxy("source", "relay") as port:
            seen = pair.client("download", port, 32 * MIB)
            assert (seen["end"], seen["right"]) == ("reset", False)
            assert seen["bytes"] <= LIMIT + MIB
            wait_for("the service's end", lambda: "reset" in pair.ends(), SECONDS)
        with pair.proxy("sink", "relay") as port, closing(open_to(port)) as connection:
            before = len(pair.ends())
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                while True:
                    connection.sendall(bytes(MIB))
            wait_for("the service's end", lambda: pair.ends()[before:], SECONDS)
            assert pair.ends()[before:] == ["reset"]
    finally:
        pair.close()
