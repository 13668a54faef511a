"""What a peer that is not in authorized_keys gets, at every stage and by every protocol: nothing.

One test is one cell of the table; its name is `<who and where> - <protocol> - <what it gets>`. Four answers exist:

    nothing   no byte after the Noise handshake, which alone tells who calls; no multiplexer ever exists
    a muxer   the handshake goes on, because one protocol is open to this stage
    na        the protocol is refused on its stream, as if it were not there
    SERVED    the exceptions: the invite over a circuit and the vouching at the relay, while a code is open

Hosts, gate, handlers and relays are the real ones; the stranger is made of bytes and waits for no permission.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import pytest

from peerupd.model.errors import ProtocolUnsupported
from peerupd.model.names import PeerId
from peerupd.p2p.relay_limits import VOUCHED_DATA
from peerupd.trust.gate import MAX_ON_PROBATION
from peerupd.trust.identity import Identity
from peerupd.wire import circuit, identify, invite, pairing, vouch
from peerupd.wire.circuit import HopKind, HopMessage, Status, StopKind, StopMessage
from peerupd.wire.framing import frame
from tests.attack import raw
from tests.attack.hosts import KAD, PING, PINGPONG, PROTOCOLS, SERVICE, Net, open_from, port_of
from tests.attack.raw import Gone, Muxed
from tests.support.relaynet import until

MULTISTREAM = "multistream, before yamux"


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Net.running() as net:
        yield net


# -- the stages ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Caller:
    """Somebody at the door, with the key and, where one is open, the code."""

    net: Net
    identity: Identity
    code: invite.Invite | None

    @property
    def peer(self) -> PeerId:
        return self.identity.peer_id

    def node(self) -> Muxed:
        return raw.connect(port_of(self.net.node.host), self.identity, self.net.node.peer, raw.somewhere())

    def relay(self) -> Muxed:
        return raw.connect(port_of(self.net.relay.host), self.identity, self.net.relay.peer, raw.somewhere())

    def through(self, relay: Muxed) -> Muxed:
        return Muxed(raw.secure(raw.circuit(relay, self.net.node.peer), self.identity, self.net.node.peer))

    def through_the_open_relay(self) -> Muxed:
        return self.through(raw.connect(port_of(self.net.open_relay.host), self.identity, None, raw.somewhere()))

    def vouched(self) -> Muxed:
        assert self.code is not None
        relay = self.relay()
        assert self.prove(relay, vouch.admission_key(self.code.token)) == vouch.Ok(self.net.node.peer)
        return relay

    def prove(self, relay: Muxed, key: bytes) -> vouch.Answer:
        return ask_vouch(relay, vouch.Prove(vouch.proof(key, self.peer)))

    def through_the_gated_relay(self) -> Muxed:
        self.net.call(self._put, self.net.relay)
        return self.through(self.relay())

    def once_known(self) -> Muxed:
        self.net.call(self._put, self.net.node)
        self.net.call(self._drop, self.net.node)
        return self.node()

    def expired(self) -> Muxed:
        self.net.call(lambda: self._put(self.net.node, expires="2020-01-01T00:00:00Z"))
        return self.node()

    def double(self) -> Muxed:
        return raw.connect(port_of(self.net.node.host), self.net.node.identity, self.net.node.peer, raw.somewhere())

    def friend(self) -> Muxed:
        self.net.call(self._put, self.net.node)
        return self.node()

    def _put(self, machine, **attributes: str) -> None:
        machine.gate.replace(machine.gate.allowlist.add(self.peer, **attributes))

    def _drop(self, machine) -> None:
        machine.gate.replace(machine.gate.allowlist.remove(self.peer))
        machine.host.regate()


def ask_vouch(relay: Muxed, request: vouch.Request) -> vouch.Answer:
    talk = relay.open(vouch.PROTOCOL, frame(request.encode()))
    assert talk.chosen()
    return vouch.decode_answer(talk.message())


@dataclass(frozen=True)
class Stage:
    """Who calls whom, how; and what it is served: where that is nothing, not even a multiplexer is had."""

    name: str
    enter: Callable[[Caller], Muxed]
    code: bool = False
    serves: frozenset[str] = frozenset()

    def gets(self, protocol: str) -> str:
        if not self.serves:
            return "nothing"
        if protocol == MULTISTREAM:
            return "a muxer"
        return "SERVED" if protocol in self.serves else "na"


INVITE, VOUCH, HOP = frozenset({pairing.PROTOCOL}), frozenset({vouch.PROTOCOL}), frozenset({circuit.HOP_PROTOCOL})
STAGES = (
    Stage("the node, directly", Caller.node),
    Stage("the node, directly, code open", Caller.node, code=True),
    Stage("the relay, directly", Caller.relay),
    Stage("the relay, directly, code open", Caller.relay, code=True, serves=VOUCH),
    Stage("the node, through an open relay", Caller.through_the_open_relay),
    Stage("the node, through an open relay, code open", Caller.through_the_open_relay, code=True, serves=INVITE),
    Stage("the node, by a guest of the relay", Caller.through_the_gated_relay),
    Stage("the node, by a guest of the relay, code open", Caller.through_the_gated_relay, code=True, serves=INVITE),
    Stage("the relay, with a code", Caller.vouched, code=True, serves=HOP),
    Stage("the node, with a code", lambda caller: caller.through(caller.vouched()), code=True, serves=INVITE),
    Stage("the node, by a peer removed since", Caller.once_known),
    Stage("the node, by a peer whose time is over", Caller.expired),
    Stage("the node, by somebody with its own key, code open", Caller.double, code=True),
)
CELLS = [(stage, protocol) for stage in STAGES for protocol in (MULTISTREAM, *PROTOCOLS)]
NAMES = [f"{stage.name} - {protocol} - {stage.gets(protocol)}" for stage, protocol in CELLS]


def payload(protocol: str, caller: Caller) -> bytes:
    """A request that would do something."""
    evil = identify.Identify("evil/1", "evil/1", caller.identity.public_key, (), None, (KAD,), b"")
    stop = StopMessage(StopKind.CONNECT, peer=caller.peer)
    return {
        identify.PUSH_PROTOCOL: frame(evil.encode()),
        PING: bytes(32),
        **dict.fromkeys(PINGPONG, b"ping\n"),
        SERVICE: b"hello",
        circuit.HOP_PROTOCOL: frame(HopMessage(HopKind.RESERVE).encode()),
        circuit.STOP_PROTOCOL: frame(stop.encode()),
        pairing.PROTOCOL: pairing.Joiner(bytes(8), "evil").start(),
        vouch.PROTOCOL: frame(vouch.Open(bytes(32), 60).encode()),
    }.get(protocol, b"\x00")


def visit(caller: Caller, stage: Stage, protocol: str) -> str:
    """Call, ask for the protocol without waiting for anything; what came of it."""
    with stage.enter(caller) as muxed:
        talk = muxed.open(protocol if protocol in PROTOCOLS else "", payload(protocol, caller))
        try:
            while protocol == MULTISTREAM and not muxed.agreed:
                muxed.pump()
            return "a muxer" if protocol == MULTISTREAM else "SERVED" if talk.chosen() else "na"
        except Gone as gone:
            if gone.how == talk.ended == "reset":
                return "na"  # the stream only: what came after the proposal made no sense to multistream
            assert muxed.heard == 0
            return "nothing"
        finally:
            assert muxed.offered == [], "the host opened a stream to a stranger"


@pytest.fixture
def stranger(net: Net, stage: Stage) -> Iterator[Caller]:
    """A peer that nobody knows."""
    with ExitStack() as undo:
        code = undo.enter_context(net.code() if stage.code else nullcontext())
        yield from standing_by(Caller(net, Identity.generate(), code))


@pytest.fixture
def holder(net: Net) -> Iterator[Caller]:
    """A peer that nobody knows, and that holds an open code."""
    with net.code() as code:
        yield from standing_by(Caller(net, Identity.generate(), code))


def standing_by(caller: Caller) -> Iterator[Caller]:
    caller.net.touched.clear()
    yield caller
    caller.net.calm()


SEEN: dict[tuple[str, str], str] = {}


@pytest.mark.parametrize(
    ("stage", "protocol"),
    CELLS,
    ids=[f"{stage.name} - {protocol} - {stage.gets(protocol)}" for stage, protocol in CELLS],
)
def test_a_stranger_at(stranger: Caller, stage: Stage, protocol: str):
    got = SEEN[protocol, stage.name] = visit(stranger, stage, protocol)
    assert got == stage.gets(protocol)
    net = stranger.net
    assert not net.touched
    assert net.node.host.agent_of(stranger.peer) == net.relay.host.agent_of(stranger.peer) == ""
    assert stranger.peer not in net.reservations()
    assert stranger.peer not in net.node.host.get_connected_peers() or stage.serves


def test_print_the_table(capsys: pytest.CaptureFixture[str]):
    """What was seen above, for a person; nothing when only a part was run."""
    if len(SEEN) < len(CELLS):
        return
    with capsys.disabled():
        print("\n\nWhat a stranger got (. nothing at all, M a multiplexer, na no such protocol, YES served)\n")
        for number, stage in enumerate(STAGES, 1):
            print(f"  {number:2} {stage.name}")
        print(f"\n  {'':34}" + "".join(f"{number:4}" for number in range(1, len(STAGES) + 1)))
        short = {"nothing": ".", "a muxer": "M", "na": "na", "SERVED": "YES"}
        for protocol in (MULTISTREAM, *PROTOCOLS):
            cells = (short.get(SEEN.get((protocol, stage.name), ""), "?") for stage in STAGES)
            print(f"  {protocol:34}" + "".join(f"{cell:>4}" for cell in cells))


# -- the table is not empty by accident ----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_friend_is_served(holder: Caller, protocol: str):
    with holder.friend() as muxed:
        assert muxed.open(protocol, payload(protocol, holder)).chosen()


CALLED = (identify.PROTOCOL, identify.PUSH_PROTOCOL, PING, circuit.STOP_PROTOCOL)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_relay_that_the_node_called_gets_what_a_relay_needs_and_no_more(net: Net, protocol: str):
    """It is no stranger, we chose it; but it is not in authorized_keys either."""
    if protocol in CALLED:
        assert net.call(open_from, net.open_relay.host, net.node.peer, [protocol])
    else:
        with pytest.raises(ProtocolUnsupported):
            net.call(open_from, net.open_relay.host, net.node.peer, [protocol])


# -- inside the exceptions -----------------------------------------------------------------------------------------


def test_a_stranger_may_prove_itself_at_the_relay_and_ask_nothing_else(holder: Caller):
    asked = (
        vouch.Open(bytes(32), 60),
        vouch.Close(bytes(32)),
        vouch.Keep(holder.peer, ""),
        vouch.Withdraw(holder.net.node.peer),
    )
    with holder.relay() as relay:
        assert [ask_vouch(relay, each) for each in asked] == [vouch.No(vouch.Reason.NOT_ALLOWED)] * len(asked)


def test_the_proof_of_another_is_no_proof_and_the_third_wrong_one_ends_the_connection(holder: Caller):
    key = vouch.admission_key(holder.code.token)
    stolen = vouch.Prove(vouch.proof(key, Identity.generate().peer_id))
    with holder.relay() as relay:
        answers = [ask_vouch(relay, stolen) for _ in range(3)]
        assert answers == [vouch.No(vouch.Reason.NO_SUCH_CODE)] * 3
        relay.until_closed()


def test_with_a_code_the_relay_joins_to_the_inviter_only(holder: Caller):
    net = holder.net
    with holder.vouched() as relay:
        asked = [HopMessage(HopKind.RESERVE), HopMessage(HopKind.CONNECT, peer=net.other.peer)]
        asked.append(HopMessage(HopKind.CONNECT, peer=net.relay.peer))
        asked.append(HopMessage(HopKind.CONNECT, peer=holder.peer))
        assert [raw.ask_hop(relay, each)[0] for each in asked] == [Status.PERMISSION_DENIED] * 4
        assert raw.ask_hop(relay, HopMessage(HopKind.CONNECT, peer=net.node.peer))[0] is Status.OK
    assert holder.peer not in net.reservations()


def test_with_a_code_a_circuit_carries_64_kib_and_ends_in_a_reset(holder: Caller):
    (slot,) = holder.net.node.host.connections(holder.net.relay.peer)
    before = slot.received
    with holder.vouched() as relay:
        through = raw.circuit(relay, holder.net.node.peer)
        secured = raw.secure(through, holder.identity)
        secured.send(raw.HEADER)
        with pytest.raises(Gone) as end:
            for _ in range(4):
                secured.send(frame(b"/none\n" * 100) * (VOUCHED_DATA // 2 // 601))
            while True:
                through.receive()
        assert end.value.how == "reset"
    assert slot.received - before <= VOUCHED_DATA + 512  # and what asked for the circuit


def test_who_proved_itself_gets_no_circuit_once_the_code_is_closed(net: Net):
    with net.code() as code:
        joiner = Caller(net, Identity.generate(), code)
        relay = joiner.vouched()
    with relay:
        status, _ = raw.ask_hop(relay, HopMessage(HopKind.CONNECT, peer=net.node.peer))
        assert status is Status.PERMISSION_DENIED
    net.calm()


def test_ten_are_on_probation_and_the_eleventh_gets_nothing(holder: Caller):
    with ExitStack() as undo:
        for _ in range(MAX_ON_PROBATION):
            held = undo.enter_context(Caller(holder.net, Identity.generate(), None).relay())
            assert held.open(vouch.PROTOCOL).chosen()
        assert visit(holder, STAGES[3], vouch.PROTOCOL) == "nothing"


def test_three_wrong_guesses_end_the_code_and_the_door_is_shut(holder: Caller):
    for _ in range(3):
        caller = Caller(holder.net, Identity.generate(), None)
        with caller.through_the_open_relay() as muxed:
            guess(muxed, bytes(8))
    assert visit(holder, Stage("burned", Caller.through_the_open_relay), pairing.PROTOCOL) == "nothing"
    holder.net.call(until, holder.net._relay_is_shut)
    assert visit(holder, Stage("burned", Caller.relay), vouch.PROTOCOL) == "nothing"


def test_junk_in_the_dialogue_is_no_guess(holder: Caller):
    for junk in (b"", b"\x00", b"\xff" * 5000, b"GET / HTTP/1.1\r\n\r\n", b"\x01" + bytes(32), b"\x01" + bytes(31)):
        with holder.through_the_open_relay() as muxed:
            talk = muxed.open(pairing.PROTOCOL, junk)
            talk.finish()
            assert talk.chosen()
            assert talk.rest()[0] == 0
        holder.net.calm()
    with holder.through_the_open_relay() as muxed:
        assert muxed.open(pairing.PROTOCOL).chosen()


def guess(muxed: Muxed, token: bytes) -> None:
    """The dialogue with a wrong code, to its bitter end."""
    joiner = pairing.Joiner(token, "guess")
    talk = muxed.open(pairing.PROTOCOL, joiner.start())
    assert talk.chosen()
    for event in joiner.receive(talk.receive()):
        assert isinstance(event, pairing.DataToSend)
        talk.send(event.data)
    assert talk.rest() == (0, "reset")
