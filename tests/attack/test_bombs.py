"""Too much of what is allowed, by a peer that is authorised: storms, floods, bombs, circuits; also peers that sleep."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import ProtocolUnsupported
from peerupd.trust.identity import Identity
from peerupd.wire import identify
from peerupd.wire.circuit import HOP_PROTOCOL, STOP_PROTOCOL, HopKind, HopMessage, Status, StopKind, StopMessage
from peerupd.wire.framing import frame
from tests.attack import raw
from tests.attack.raw import HEADER, Gone, Muxed, Tcp
from tests.attack.scene import PING, Scene, Target
from tests.attack.test_processes import HEAD

FAR = Identity.generate()
SYN, RST, ACK = 1, 8, 2
STORM = 20_000  # streams opened and reset
PAIRS = 250  # of them in one record
PINGS = 50_000
DROPPED = 45.0  # seconds after which a frozen peer is gone
HANDSHAKE = 10.0  # seconds for a handshake
LATE = 3.0  # times as long, and a loaded machine is no excuse any more


def agreed(muxed: Muxed) -> Muxed:
    while not muxed.agreed:
        muxed.pump()
    return muxed


def milliseconds_of_a_ping(target: Target, muxed: Muxed) -> float:
    began = time.monotonic()
    assert muxed.open(PING, bytes(32)).chosen()
    return (time.monotonic() - began) * 1000


# -- storms and floods -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("proposal", [b"", HEADER + frame(f"{PING}\n".encode())], ids=["silent", "with a proposal"])
def test_a_storm_of_resets(target: Target, proposal: bytes) -> None:
    """What a friend notices of it is printed."""
    numbers = iter(range(1, 2 * STORM, 2))
    with target.attacked(), target.call(target.traitor) as muxed, target.call(target.friend) as friend:
        agreed(muxed)
        worst = 0.0
        with suppress(Gone):
            for _ in range(STORM // PAIRS):
                storm = b""
                for _ in range(PAIRS):
                    number = next(numbers)
                    storm += HEAD.pack(0, 1, SYN, number, 0)
                    storm += HEAD.pack(0, 0, 0, number, len(proposal)) + proposal if proposal else b""
                    storm += HEAD.pack(0, 1, RST, number, 0)
                muxed.secured.send(storm)
                muxed.secured.receive()
                worst = max(worst, milliseconds_of_a_ping(target, friend))
        print(f"{target.name}: the slowest of a friend's streams in a storm of resets took {worst:.0f} ms")


@pytest.mark.parametrize("reads", [True, False], ids=["which are read", "which nobody reads"])
def test_a_flood_of_yamux_pings(target: Target, reads: bool) -> None:
    with target.attacked(), target.call(target.traitor) as muxed, target.call(target.friend) as friend:
        agreed(muxed)
        line = muxed.secured.line
        assert isinstance(line, Tcp)
        line.socket.settimeout(10 if reads else 1)
        with suppress(Gone, raw.Silent):
            for start in range(0, PINGS, 1000):
                muxed.secured.send(b"".join(HEAD.pack(0, 2, SYN, 0, start + each) for each in range(1000)))
                if reads:
                    muxed.secured.receive()
        assert friend.open(PING, bytes(32)).chosen()


def test_a_flood_of_pings_on_one_stream(target: Target) -> None:
    with target.attacked(), target.call(target.traitor) as muxed:
        talk = muxed.open(PING)
        assert talk.chosen()
        for _ in range(20):
            talk.send(bytes(32 * 1000))
            got = 0
            while got < 32 * 1000:
                got += len(talk.receive())


def test_frames_of_nothing(target: Target) -> None:
    """Empty data and windows that do not grow: each costs its reader something and its sender nothing."""
    with target.attacked(), target.call(target.traitor) as muxed, target.call(target.friend) as friend:
        agreed(muxed)
        muxed.secured.send(HEAD.pack(0, 1, SYN, 1, 0))
        for _ in range(50):
            muxed.secured.send((HEAD.pack(0, 0, 0, 1, 0) + HEAD.pack(0, 1, ACK, 1, 0)) * 1000)
            assert friend.open(PING, bytes(32)).chosen()


# -- bombs of identify -----------------------------------------------------------------------------------------------


def told(**words: object) -> bytes:
    given = {
        "protocol_version": "x",
        "agent_version": "y",
        "public_key": None,
        "listen_addrs": (),
        "observed_addr": None,
        "protocols": (),
        "signed_record": b"",
    }
    return frame(identify.Identify(**(given | words)).encode())  # type: ignore[arg-type] # by name


def addresses(count: int) -> tuple[Multiaddr, ...]:
    return tuple(
        Multiaddr.parse(f"/ip4/10.{n >> 16}.{n >> 8 & 255}.{n & 255}/tcp/{1 + n % 65000}") for n in range(count)
    )


BOMBS = {
    "as many addresses as fit": told(listen_addrs=addresses(5000)),
    "10,000 addresses": told(listen_addrs=addresses(10_000)),
    "10,000 addresses in many messages": b"".join(told(listen_addrs=addresses(500)) for _ in range(20)),
    "10,000 names": told(protocols=tuple(f"/{n}" for n in range(10_000))),
    "a name without end": told(protocols=("/" + "x" * 60_000,)),
    "an agent without end": told(agent_version="x" * 60_000),
    "a record without end": told(signed_record=bytes(60_000)),
    "messages without end": frame(b"") * 60_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_by_identify_push(target: Target, bomb: str) -> None:
    with target.attacked(), target.call(target.traitor) as muxed:
        for _ in range(12):
            talk = muxed.open(identify.PUSH_PROTOCOL)
            with suppress(Gone):
                talk.send(BOMBS[bomb])
                talk.finish()
            talk.rest()
        assert muxed.open(PING, bytes(32)).chosen()


def test_what_10000_addresses_leave_is_a_few(scene: Scene) -> None:
    with scene.node.attacked(), scene.node.call(scene.node.traitor) as muxed:
        talk = muxed.open(identify.PUSH_PROTOCOL, b"")
        talk.send(BOMBS["as many addresses as fit"])
        talk.finish()
        talk.rest()
        peers = scene.pair.home.ask("peers")
        assert len(str(peers)) < 20_000


def test_pushes_without_end(target: Target) -> None:
    with target.attacked(), target.call(target.traitor) as muxed:
        for _ in range(10):
            talks = [muxed.open(identify.PUSH_PROTOCOL, told(agent_version=f"{n}")) for n in range(200)]
            for talk in talks:
                talk.finish()
            for talk in talks:
                talk.rest()
        assert muxed.open(PING, bytes(32)).chosen()


def test_names_without_end(target: Target) -> None:
    with target.attacked(), target.call(target.traitor) as muxed:
        for number in range(1000):
            talk = muxed.open(f"/peerup/{number}{'x' * 900}/1.0.0")
            assert not talk.chosen()
            talk.reset()


# -- the relay -------------------------------------------------------------------------------------------------------


def test_a_flood_of_reservations_is_one_reservation(scene: Scene) -> None:
    with scene.relay.attacked(), scene.relay.call(scene.relay.traitor) as muxed:
        request = frame(HopMessage(HopKind.RESERVE).encode())
        for _ in range(10):
            talks = [muxed.open(HOP_PROTOCOL, request) for _ in range(100)]
            for talk in talks:
                assert talk.chosen()
                assert HopMessage.decode(talk.message()).status is Status.OK
                talk.reset()


@pytest.mark.parametrize("whom", ["nobody", "the relay", "itself"])
def test_a_flood_of_circuits_that_lead_nowhere(scene: Scene, whom: str) -> None:
    relay = scene.relay
    peer = {"nobody": FAR.peer_id, "the relay": relay.peer, "itself": relay.traitor.peer_id}[whom]
    with relay.attacked(), relay.call(relay.traitor) as muxed:
        assert raw.ask_hop(muxed, HopMessage(HopKind.RESERVE))[0] is Status.OK
        request = frame(HopMessage(HopKind.CONNECT, peer=peer).encode())
        for _ in range(5):
            talks = [muxed.open(HOP_PROTOCOL, request) for _ in range(100)]
            for talk in talks:
                assert talk.chosen()
                assert HopMessage.decode(talk.message()).status is not Status.OK
                talk.reset()


def test_a_flood_of_circuits_to_somebody_else(scene: Scene) -> None:
    """Silent ones: the other end keeps as many as it does of half-open connections, and who speaks gets through."""
    home, relay = scene.node, scene.relay
    with home.attacked(), relay.attacked(), relay.call(relay.traitor) as muxed:
        request = frame(HopMessage(HopKind.CONNECT, peer=home.peer).encode())
        got = []
        for _ in range(8):
            talks = [muxed.open(HOP_PROTOCOL, request) for _ in range(100)]
            for talk in talks:
                assert talk.chosen()
                with suppress(Gone):
                    got.append(HopMessage.decode(talk.message()).status)
        print(f"of 800 circuits {got.count(Status.OK)} were let through")
        with relay.call(relay.friend) as friend:
            inner = Muxed(raw.secure(raw.circuit(friend, home.peer), home.friend, home.peer))
            assert inner.open(PING, bytes(32)).chosen()


def test_a_circuit_to_oneself_carries_only_ones_own_bytes(scene: Scene) -> None:
    """Somebody who accepts what he asked for himself: the relay carries it, or says no, and lives."""
    relay = scene.relay
    with relay.attacked(), relay.call(relay.traitor) as one, relay.call(relay.traitor) as two:
        offered: list[raw.Talk] = []
        one.welcome = two.welcome = offered.append
        assert raw.ask_hop(one, HopMessage(HopKind.RESERVE))[0] is Status.OK
        talk = two.open(HOP_PROTOCOL, frame(HopMessage(HopKind.CONNECT, peer=relay.traitor.peer_id).encode()))
        assert talk.chosen()
        one.secured.line.socket.settimeout(0.5)  # type: ignore[attr-defined] # it is a Tcp
        with suppress(raw.Silent):
            while True:
                one.pump()
        for stop in offered:
            answer = frame(StopMessage(StopKind.STATUS, status=Status.OK).encode())
            with suppress(Gone):
                stop.muxed.yamux.send(stop.number, HEADER + frame(f"{STOP_PROTOCOL}\n".encode()) + answer)
                stop.muxed.flush()
        two.secured.line.socket.settimeout(1)  # type: ignore[attr-defined] # it is a Tcp
        with suppress(Gone, raw.Silent):
            talk.message()
        relay.assert_lets_in()


def test_no_circuits_in_circuits(scene: Scene) -> None:
    home, relay = scene.node, scene.relay
    with home.attacked(), relay.attacked(), relay.call(relay.traitor) as muxed:
        inner = Muxed(raw.secure(raw.circuit(muxed, home.peer), home.traitor, home.peer))
        with pytest.raises((ProtocolUnsupported, Gone)):
            raw.ask_hop(inner, HopMessage(HopKind.CONNECT, peer=FAR.peer_id))
        stop = inner.open(STOP_PROTOCOL, frame(StopMessage(StopKind.CONNECT, peer=FAR.peer_id).encode()))
        assert stop.chosen()
        with suppress(Gone):
            assert StopMessage.decode(stop.message()).status is Status.PERMISSION_DENIED
        assert inner.open(PING, bytes(32)).chosen()


# -- peers that do nothing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "goal"), [("frozen", DROPPED), ("never reads", DROPPED), ("slow handshake", HANDSHAKE)]
)
def test_patience_has_an_end(scene: Scene, target: Target, what: str, goal: float) -> None:
    """It began with the first test that attacks, and is only looked at here."""
    took = scene.patience[what, target.name].result()
    print(f"{target.name}, {what}: dropped after {took:.1f} s, the goal is {goal:.0f} s")
    assert took < goal * LATE
    target.assert_serves()
