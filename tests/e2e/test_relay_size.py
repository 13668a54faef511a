"""What a relay may take (S2): memory at rest, for each further peer with a slot, and with circuits that are busy.

A real relay, and peers made of plain sockets in this process. Memory is asserted as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from peerupd.trust.identity import Identity
from tests.attack.raw import Talk
from tests.support.cluster import Cluster, free_port
from tests.support.figures import Tell, line, resident
from tests.support.guests import Guest, joined

GOAL_REST, BAR_REST = 42.0, 48.0  # MB, with two peers
GOAL_PEER, BAR_PEER = 60.0, 120.0  # KB
PEERS = 500
BUSY = 200  # circuits
BLOCK = bytes(16 << 10)
ROUNDS = 8


class Scene:
    """A relay with guests."""

    def __init__(self, cluster: Cluster, closing: ExitStack) -> None:
        self._closing = closing
        self._strangers = [Identity.generate() for _ in range(PEERS)]
        self.relay = cluster.relay("127.0.0.1", free_port(), words=f"resources: {{max_reservations: {PEERS}}}\n")
        self._allow()
        self.guests: list[Guest] = []

    def fill(self, count: int) -> None:
        """Until so many guests hold a slot."""
        while len(self.guests) < count:
            guest = Guest(self._strangers.pop(), self.relay.port)
            self._closing.callback(guest.muxed.close)
            guest.reserve()
            self.guests.append(guest)

    def taken(self) -> float:
        """Memory of the relay, MB."""
        daemon = self.relay.machine.daemon
        assert daemon is not None
        return resident(daemon.process.pid)

    def _allow(self) -> None:
        """The allowlist is replaced, and the relay has read it."""
        keys = "".join(f"{identity.peer_id}\n" for identity in self._strangers)
        path = self.relay.config.with_name("relay_authorized_keys")
        path.write_text(keys)
        self.relay.stop()
        self.relay.start()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with Cluster(tmp_path_factory.mktemp("size") / "c", covered=False) as cluster, ExitStack() as closing:
        yield Scene(cluster, closing)


def test_a_relay_with_two_peers_and_each_further_one_take_little_memory(scene: Scene, tell: Tell) -> None:
    scene.fill(2)
    rest = scene.taken()
    scene.fill(PEERS)
    each = 1000 * (scene.taken() - rest) / (PEERS - 2)
    tell(line("S2", "relay: RSS at rest, 2 peers with a slot", rest, "MB", GOAL_REST, BAR_REST))
    tell(line("S2", f"relay: each further one, to {PEERS}", each, "KB", GOAL_PEER, BAR_PEER))
    assert rest <= BAR_REST
    assert each <= BAR_PEER


def test_with_many_busy_circuits_it_takes_no_more_than_its_peers_may(scene: Scene, tell: Tell) -> None:
    scene.fill(PEERS)
    circuits = [joined(*pair) for pair in zip(scene.guests[:BUSY], scene.guests[BUSY:], strict=False)]
    most = 0.0
    for _ in range(ROUNDS):
        for near, _ in circuits:
            near.send(BLOCK)
        most = max(most, scene.taken())
        for _, far in circuits:
            _take(far, len(BLOCK))
    goal, bar = (rest + PEERS * each / 1000 for rest, each in ((GOAL_REST, GOAL_PEER), (BAR_REST, BAR_PEER)))
    tell(line("S2", f"relay: {PEERS} peers with a slot, {BUSY} busy circuits", most, "MB", goal, bar))
    assert most <= bar


def _take(talk: Talk, size: int) -> None:
    while size > 0:
        size -= len(talk.receive())
    assert size == 0
