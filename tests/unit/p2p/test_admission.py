"""Who may occupy what before and after the handshake, and what each connection is served."""

from __future__ import annotations

import logging

import pytest

from peerupd.model.names import PeerId
from peerupd.model.snapshots import Event, GateDecided
from peerupd.p2p.admission import (
    CIRCUIT_STOP,
    MAX_REFUSED_KNOWN,
    PING,
    REFUSAL_INTERVAL,
    Admission,
)
from peerupd.p2p.connection import Connection
from peerupd.trust.gate import INVITE_PROTOCOL, Admit, Gate, Probation, Refuse
from peerupd.trust.identity import Identity
from tests.support.hosts import NOWHERE, allow

SERVICE = "/peerup/ssh/1.0.0"
KNOWN, UNKNOWN = Identity.generate().peer_id, Identity.generate().peer_id


class FakeConnection:
    """As much of a connection as the gate looks at."""

    def __init__(self, peer: PeerId, *, inbound: bool, relayed: bool = False, admission: object = None) -> None:
        self.peer, self.inbound, self.relayed = peer, inbound, relayed
        self.admission = admission or Admit()

    @property
    def on_probation(self) -> bool:
        return self.inbound and isinstance(self.admission, Probation)


class Door:
    """An admission, its clock, and what it told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.events: list[Event] = []
        self.open: list[Connection] = []
        self.gate = Gate(enabled=True, allowlist=allow(KNOWN), role="node")
        self.admission = Admission(
            self.gate, clock=lambda: self.now, connections=lambda: self.open, publish=self.events.append
        )

    def serves(self, protocol: str, **words: object) -> bool:
        return self.admission.serves(FakeConnection(**words), protocol)  # type: ignore[arg-type]


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.mark.parametrize("protocol", [SERVICE, PING, CIRCUIT_STOP])
def test_an_authorised_peer_is_served_everything_whoever_called(door: Door, protocol: str) -> None:
    assert door.serves(protocol, peer=KNOWN, inbound=True)
    assert door.serves(protocol, peer=KNOWN, inbound=False)


@pytest.mark.parametrize(("protocol", "served"), [(SERVICE, False), (PING, True), (CIRCUIT_STOP, True)])
def test_an_unknown_peer_that_we_called_is_served_only_what_a_relay_needs(
    door: Door, protocol: str, served: bool
) -> None:
    assert door.serves(protocol, peer=UNKNOWN, inbound=False) is served


@pytest.mark.parametrize("protocol", [SERVICE, PING, CIRCUIT_STOP])
def test_a_peer_that_was_removed_is_served_nothing_any_more(door: Door, protocol: str) -> None:
    door.gate.replace(allow())
    assert not door.serves(protocol, peer=KNOWN, inbound=True)


@pytest.mark.parametrize(("protocol", "served"), [(SERVICE, False), (PING, False), (INVITE_PROTOCOL, True)])
def test_on_probation_only_its_protocols_are_served(door: Door, protocol: str, served: bool) -> None:
    door.gate.invite_opened(door.now + 60)
    granted = door.admission.on_arrival(UNKNOWN, NOWHERE, circuit=True)
    assert isinstance(granted, Probation)
    door.gate.invite_closed()
    assert door.serves(protocol, peer=UNKNOWN, inbound=True, relayed=True, admission=granted) is served


def test_a_peer_on_probation_that_is_authorised_meanwhile_is_served_everything(door: Door) -> None:
    granted = Probation(frozenset(), 1, "")
    door.gate.replace(allow(UNKNOWN))
    assert door.serves(SERVICE, peer=UNKNOWN, inbound=True, admission=granted)


def test_at_most_ten_connections_are_on_probation(door: Door) -> None:
    door.gate.invite_opened(door.now + 60)
    granted = door.admission.decide(UNKNOWN, circuit=True)
    door.open += [FakeConnection(UNKNOWN, inbound=True, admission=granted) for _ in range(10)]  # type: ignore[misc]
    assert isinstance(door.admission.decide(UNKNOWN, circuit=True), Refuse)
    assert isinstance(door.admission.decide(KNOWN, circuit=True), Admit)


def test_a_refusal_is_told_once_a_minute_with_the_line_that_would_admit(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            door.admission.on_arrival(UNKNOWN, NOWHERE, circuit=False)
        door.now += REFUSAL_INTERVAL
        door.admission.on_arrival(UNKNOWN, NOWHERE, circuit=False)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert f"peerupctl auth add {UNKNOWN}" in caplog.text
    assert [e for e in door.events if isinstance(e, GateDecided) and e.admitted] == []
    assert len(door.events) == 2


def test_what_is_remembered_of_refused_peers_is_bounded(door: Door) -> None:
    for number in range(MAX_REFUSED_KNOWN + 10):
        peer = PeerId.of_public_key(number.to_bytes(36, "big"))
        door.admission.on_arrival(peer, NOWHERE, circuit=False)
    assert len(door.admission._refused) == MAX_REFUSED_KNOWN


def test_strangers_who_come_under_ever_new_names_do_not_fill_the_log(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for number in range(3 * MAX_REFUSED_KNOWN):
            peer = PeerId.of_public_key(number.to_bytes(36, "big"))
            door.admission.on_arrival(peer, NOWHERE, circuit=False)
        assert len(caplog.records) == MAX_REFUSED_KNOWN + 1
        assert "further ones are not told" in caplog.records[-1].message
        door.now += REFUSAL_INTERVAL
        door.admission.on_arrival(UNKNOWN, NOWHERE, circuit=False)
    assert str(UNKNOWN) in caplog.records[-1].message


def test_an_admission_is_told_to_subscribers(door: Door) -> None:
    assert isinstance(door.admission.on_arrival(KNOWN, NOWHERE, circuit=False), Admit)
    assert door.events == [GateDecided(KNOWN, True, "", str(NOWHERE))]
