from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from peerupd.model.errors import LimitReached
from peerupd.model.names import PeerId
from peerupd.trust.authorized_keys import Allowlist
from peerupd.trust.gate import (
    INVITE_PROBATION,
    INVITE_PROTOCOL,
    MAX_ON_PROBATION,
    MAX_OPEN,
    VOUCH_PROBATION,
    VOUCH_PROTOCOL,
    Admit,
    Gate,
    Probation,
    Refuse,
)

HOME, LAPTOP, STRANGER, OWN = (PeerId.of_public_key(b"\x08\x01\x12\x20" + bytes([n]) * 32) for n in range(4))
KNOWN = Allowlist().add(HOME).add(LAPTOP, expires="2001-09-09T01:46:40Z")  # at 1,000,000,000
BEFORE, AFTER = 999_999_999.0, 1_000_000_000.0


def node(**changes):
    return Gate(**{"enabled": True, "allowlist": KNOWN, "role": "node", "own": OWN} | changes)


def relay(**changes):
    return node(role="relay", **changes)


@pytest.mark.parametrize("gate", [node(), relay()], ids=["node", "relay"])
@pytest.mark.parametrize("circuit", [False, True])
def test_who_is_in_the_allowlist_is_admitted_and_nobody_else(gate, circuit):
    assert gate.decide(HOME, circuit=circuit, now=BEFORE) == Admit()
    assert gate.authorized(HOME, BEFORE)
    assert gate.decide(STRANGER, circuit=circuit, now=BEFORE) == Refuse("not in authorized_keys")
    assert not gate.authorized(STRANGER, BEFORE)


def test_an_entry_admits_until_it_expires():
    gate = node()

    assert gate.authorized(LAPTOP, BEFORE)
    assert not gate.authorized(LAPTOP, AFTER)
    assert gate.decide(LAPTOP, circuit=False, now=AFTER) == Refuse(
        "expires=2001-09-09T01:46:40Z in authorized_keys (line 2) has passed or cannot be read"
    )


def test_an_expiry_that_cannot_be_read_admits_nobody():
    gate = node(allowlist=Allowlist.parse(f"{HOME}  expires=soon"))

    decision = gate.decide(HOME, circuit=False, now=0.0)

    assert decision == Refuse("expires=soon in authorized_keys (line 1) has passed or cannot be read")


def test_a_new_allowlist_is_in_force_at_once():
    gate = node()

    gate.replace(Allowlist().add(STRANGER))

    assert gate.allowlist.get(STRANGER)
    assert gate.authorized(STRANGER, BEFORE)
    assert not gate.authorized(HOME, BEFORE)


def test_an_empty_allowlist_is_obeyed():
    assert isinstance(node(allowlist=Allowlist()).decide(HOME, circuit=False, now=BEFORE), Refuse)


def test_without_gating_everyone_comes_in_but_our_own_double():
    gate = node(enabled=False)

    assert gate.decide(STRANGER, circuit=False, now=BEFORE) == Admit()
    assert gate.authorized(STRANGER, BEFORE)
    assert gate.decide(OWN, circuit=False, now=BEFORE) == Refuse("it shows our own peer ID")
    assert not gate.authorized(OWN, BEFORE)


def test_our_own_peer_id_is_refused_even_if_it_is_listed():
    gate = node(allowlist=Allowlist().add(OWN))

    assert isinstance(gate.decide(OWN, circuit=True, now=BEFORE), Refuse)


def test_a_gate_that_was_not_told_who_we_are_decides_all_the_same():
    assert Gate(enabled=True, allowlist=KNOWN, role="node").authorized(HOME, BEFORE)


# -- probation -----------------------------------------------------------------------------------------------------


def test_an_open_invite_lets_unknown_peers_try_it_over_a_circuit_only():
    gate = node()
    gate.invite_opened(until=BEFORE + 600)

    decision = gate.decide(STRANGER, circuit=True, now=BEFORE)

    assert isinstance(decision, Probation)
    assert decision.protocols == {INVITE_PROTOCOL}
    assert decision.seconds == INVITE_PROBATION
    assert decision.why == "not in authorized_keys, but an invite code is open"
    assert isinstance(gate.decide(STRANGER, circuit=False, now=BEFORE), Refuse)
    assert not gate.authorized(STRANGER, BEFORE)


def test_a_vouch_lets_unknown_peers_prove_themselves_directly_only():
    gate = relay()
    gate.vouch_opened(until=BEFORE + 600)

    decision = gate.decide(STRANGER, circuit=False, now=BEFORE)

    assert isinstance(decision, Probation)
    assert decision.protocols == {VOUCH_PROTOCOL}
    assert decision.seconds == VOUCH_PROBATION
    assert decision.why == "not in authorized_keys, but an inviter vouches for a peer"
    assert isinstance(gate.decide(STRANGER, circuit=True, now=BEFORE), Refuse)


def test_an_invite_opens_nothing_at_a_relay_and_a_vouch_nothing_at_a_node():
    at_node, at_relay = node(), relay()
    at_node.vouch_opened(until=AFTER + 600)
    at_relay.invite_opened(until=AFTER + 600)

    for circuit in (False, True):
        assert isinstance(at_node.decide(STRANGER, circuit=circuit, now=BEFORE), Refuse)
        assert isinstance(at_relay.decide(STRANGER, circuit=circuit, now=BEFORE), Refuse)


def test_who_is_admitted_anyway_is_not_put_on_probation():
    gate = node()
    gate.invite_opened(until=AFTER + 600)

    assert gate.decide(HOME, circuit=True, now=BEFORE, on_probation=MAX_ON_PROBATION) == Admit()


def test_whose_time_is_over_may_be_invited_again():
    gate = node()
    gate.invite_opened(until=AFTER + 600)

    assert isinstance(gate.decide(LAPTOP, circuit=True, now=AFTER), Probation)


def test_probation_ends_with_what_it_was_given_for():
    gate = node()
    gate.invite_opened(until=BEFORE + 7)

    decision = gate.decide(STRANGER, circuit=True, now=BEFORE)

    assert isinstance(decision, Probation)
    assert decision.seconds == 7
    assert isinstance(gate.decide(STRANGER, circuit=True, now=BEFORE + 7), Refuse)
    assert isinstance(gate.decide(STRANGER, circuit=True, now=BEFORE + 8), Refuse)


@pytest.mark.parametrize(
    ("gate", "opened", "closed", "circuit"),
    [(node(), "invite_opened", "invite_closed", True), (relay(), "vouch_opened", "vouch_closed", False)],
    ids=["node", "relay"],
)
def test_as_long_as_one_is_open_unknown_peers_may_try(gate, opened, closed, circuit):
    getattr(gate, opened)(BEFORE + 600, "a")
    getattr(gate, opened)(BEFORE + 600, "b")

    getattr(gate, closed)("a")
    getattr(gate, closed)("a")
    assert isinstance(gate.decide(STRANGER, circuit=circuit, now=BEFORE), Probation)

    getattr(gate, closed)("b")
    assert isinstance(gate.decide(STRANGER, circuit=circuit, now=BEFORE), Refuse)


def test_only_so_many_peers_are_on_probation_at_once():
    gate = node()
    gate.invite_opened(until=AFTER + 600)

    assert isinstance(gate.decide(STRANGER, circuit=True, now=BEFORE, on_probation=MAX_ON_PROBATION - 1), Probation)
    decision = gate.decide(STRANGER, circuit=True, now=BEFORE, on_probation=MAX_ON_PROBATION)

    assert decision == Refuse("not in authorized_keys, and 10 peers are on probation already")


def test_only_so_many_can_be_open_at_once():
    gate = node()
    for number in range(MAX_OPEN):
        gate.invite_opened(AFTER, number)

    gate.invite_opened(AFTER + 1, 0)  # the same one again is no other one
    with pytest.raises(LimitReached):
        gate.invite_opened(AFTER, "one more")


# -- any sequence of events ----------------------------------------------------------------------------------------

PEERS = (HOME, LAPTOP, STRANGER, OWN)


class GateUnderEvents(RuleBasedStateMachine):
    """Whatever happens in whatever order, only the list in force admits, and probation stays what it is."""

    @initialize(role=st.sampled_from(("node", "relay")))
    def build(self, role):
        self.role = role
        self.now = BEFORE
        self.listed: dict[PeerId, float] = {}
        self.open: dict[tuple[str, int], float] = {}
        self.gate = Gate(enabled=True, allowlist=Allowlist(), role=role, own=OWN)

    @rule(listed=st.dictionaries(st.sampled_from(PEERS), st.integers(-50, 50)))
    def replace_the_allowlist(self, listed):
        self.listed = {peer: int(self.now) + seconds for peer, seconds in listed.items()}
        lines = [f"{peer} expires={rfc3339(until)}" for peer, until in self.listed.items()]
        self.gate.replace(Allowlist.parse("\n".join(lines)))

    @rule(kind=st.sampled_from(("invite", "vouch")), key=st.integers(0, 3), seconds=st.floats(-10, 100))
    def open_one(self, kind, key, seconds):
        self.open[kind, key] = self.now + seconds
        getattr(self.gate, f"{kind}_opened")(self.now + seconds, key)

    @rule(kind=st.sampled_from(("invite", "vouch")), key=st.integers(0, 3))
    def close_one(self, kind, key):
        self.open.pop((kind, key), None)
        getattr(self.gate, f"{kind}_closed")(key)

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds):
        self.now += seconds

    @rule(peer=st.sampled_from(PEERS), circuit=st.booleans(), on_probation=st.integers(0, 20))
    def a_peer_comes(self, peer, circuit, on_probation):
        decision = self.gate.decide(peer, circuit=circuit, now=self.now, on_probation=on_probation)

        match decision:
            case Admit():
                assert peer != OWN
                assert self.listed[peer] > self.now
            case Probation(protocols, seconds, _):
                kind, protocol, longest = {
                    "node": ("invite", INVITE_PROTOCOL, INVITE_PROBATION),
                    "relay": ("vouch", VOUCH_PROTOCOL, VOUCH_PROBATION),
                }[self.role]
                latest = max(until for (of, _), until in self.open.items() if of == kind)
                assert circuit == (self.role == "node")
                assert protocols == {protocol}
                assert 0 < seconds <= longest
                assert self.now + seconds <= latest + 1e-6
                assert on_probation < MAX_ON_PROBATION
                assert peer != OWN
            case Refuse(why):
                assert why

    @invariant()
    def only_the_list_in_force_authorises(self):
        for peer in PEERS:
            expected = peer != OWN and self.listed.get(peer, 0) > self.now
            assert self.gate.authorized(peer, self.now) == expected


def rfc3339(seconds):
    return datetime.fromtimestamp(seconds, UTC).isoformat()


TestGateUnderEvents = GateUnderEvents.TestCase
TestGateUnderEvents.settings = settings(max_examples=50, stateful_step_count=30)
