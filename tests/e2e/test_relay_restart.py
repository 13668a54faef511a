"""A relay that keeps its reservations: it is ended or killed, and started again, and they are there. Real processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from peerupd.trust.identity import Identity
from peerupd.wire.circuit import Status
from tests.support.cluster import Cluster, RelayMachine, free_port, wait_for
from tests.support.guests import Guest, joined

KEEP = "resources: {keep_reservations: true, max_reservations: 2}\n"


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayMachine]:
    with Cluster(tmp_path / "c") as cluster:
        yield cluster.relay("127.0.0.1", free_port(), words=KEEP)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_who_had_a_slot_has_it_after_a_restart(relay: RelayMachine, how: signal.Signals) -> None:
    home, gone, late = (Identity.generate() for _ in range(3))
    relay.config.with_name("relay_authorized_keys").write_text(
        "".join(f"{each.peer_id}\n" for each in (home, gone, late))
    )
    relay.stop()
    relay.start()
    with ExitStack() as closing:

        def guest(identity: Identity) -> Guest:
            made = Guest(identity, relay.port)
            closing.callback(made.muxed.close)
            return made

        for identity in (home, gone):
            guest(identity).reserve()
        kept = relay.config.with_name("relay_node.key.reservations")
        if how is signal.SIGKILL:
            wait_for("both to be written", lambda: kept.exists() and len(kept.read_text().splitlines()) == 3, 60)
        assert relay.machine.daemon is not None
        relay.machine.daemon.stop(how)
        assert kept.stat().st_mode & 0o777 == 0o600
        relay.start()
        newcomer = guest(late)
        assert newcomer.wish() is Status.RESERVATION_REFUSED, "both slots are taken"
        callee = guest(home)  # it is back, and asks for nothing
        near, far = joined(newcomer, callee)
        near.send(b"hello")
        assert far.receive() == b"hello"
        assert callee.wish() is Status.OK
