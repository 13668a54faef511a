"""An attacker and an authorised peer behind one address (settled: rates): the peer gets in, and quickly."""

from __future__ import annotations

import time

import pytest

from peerupd.trust.identity import Identity
from tests.attack import raw
from tests.attack.raw import Gone, Muxed, Tcp
from tests.attack.scene import PING, Target
from tests.attack.storm import CONNECTIONS, KINDS, storm

NAT = "127.77.0.1"
GOAL = 1.0  # seconds to be let in beside an attacker
FAILS = 3 * GOAL
TRIES = 5
WITH_KEYS = 100  # connections a second that send a key, as a peer does: as many as the line lets go


def let_in(target: Target) -> float | None:
    """Seconds until a new connection of the friend serves it; None: it was turned away."""
    began = time.monotonic()
    try:
        with raw.connect(target.port, target.friend, target.peer, NAT) as muxed:
            return time.monotonic() - began if muxed.open(PING, bytes(32)).chosen() else None
    except Gone:
        return None


@pytest.mark.parametrize("kind", KINDS)
def test_beside_an_attacker_behind_the_same_address_a_peer_gets_in(target: Target, kind: str) -> None:
    with target.attacked():
        assert let_in(target) is not None  # it was there before
        with storm(kind, target.port, NAT, WITH_KEYS if kind in ("half shaken", "refused") else CONNECTIONS):
            times = [took for _ in range(TRIES) if (took := let_in(target)) is not None]
    print(f"{target.name}, {kind}: let in {len(times)} of {TRIES} times, in {[round(took, 2) for took in times]} s")
    assert times
    assert min(times) < FAILS


def test_where_nobody_was_authorised_an_attacker_is_sent_away_before_anything_is_said(target: Target) -> None:
    address = raw.somewhere()
    with target.attacked():
        ends = []
        for _ in range(40):
            try:
                with Tcp(target.port, address) as line:
                    Muxed(raw.secure(line, Identity.generate())).until_closed()
                ends.append("refused")
            except Gone as gone:
                ends.append(gone.how)
        assert ends[:16] == ["refused"] * 16
        assert ends.count("reset") > 20
        with Tcp(target.port, raw.somewhere()) as line:  # next door nobody suffers
            line.send(raw.HEADER)
            assert line.receive() == raw.HEADER
