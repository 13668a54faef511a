"""Our end of circuits: reserve, dial, be dialled, and what is said when it does not work. Real hosts on loopback."""

from __future__ import annotations

import os
import time

import pytest
import trio

from peerupd.model.addresses import Multiaddr, RelayAddress
from peerupd.model.errors import (
    ConnectionLost,
    EnvironmentalError,
    GateRefused,
    PeerupError,
    ProtocolViolation,
    RelayRefused,
    TimedOut,
)
from peerupd.p2p import circuit
from peerupd.p2p.connection import Limit
from peerupd.p2p.delimited import receive_message, send_message
from peerupd.p2p.relay_limits import RelayLimits
from peerupd.p2p.streams import Stream, StreamWasReset
from peerupd.wire.circuit import (
    HOP_PROTOCOL,
    MAX_MESSAGE,
    STOP_PROTOCOL,
    HopKind,
    HopMessage,
    Reservation,
    Status,
    StopKind,
    StopMessage,
    Voucher,
)
from tests.support.relaynet import ECHO, Machine, NodeMachine, RelayMachine, read_all, until

SINK = "/test/sink/1.0.0"


async def trio_of(
    nursery: trio.Nursery, limits: RelayLimits | None = None
) -> tuple[RelayMachine, NodeMachine, NodeMachine]:
    """A relay, and a home and a laptop that know one another."""
    relay = RelayMachine(limits or RelayLimits())
    home, laptop = NodeMachine(relay), NodeMachine(relay)
    relay.allow(home, laptop)
    home.allow(laptop)
    laptop.allow(home)
    await relay.start(nursery)
    with trio.fail_after(30):
        await home.start(nursery)
        await laptop.start(nursery)
    return relay, home, laptop


async def test_a_peer_is_reached_through_the_relay(nursery):
    relay, home, laptop = await trio_of(nursery)
    sent = os.urandom(300_000)
    with trio.fail_after(30):
        connection = await laptop.circuit_to(home)
        assert connection.relayed
        assert connection.limit is None
        assert connection.peer == home.peer
        assert str(connection.remote) == f"{relay.address}/p2p-circuit/p2p/{home.peer}"
        stream = await connection.open_stream([ECHO])
        async with trio.open_nursery() as both:

            async def write() -> None:
                await stream.send_all(sent)
                await stream.send_eof()

            both.start_soon(write)
            assert await read_all(stream) == sent
    back = home.host.connections(laptop.peer)[0]
    assert (back.relayed, back.inbound) == (True, True)
    assert str(back.remote).endswith(f"/p2p/{relay.peer}/p2p-circuit/p2p/{laptop.peer}")


async def test_closing_a_circuit_takes_nothing_back_of_what_was_finished(nursery):
    """Most of it is on its way when we close: an RST would overtake it at the relay."""
    _, home, laptop = await trio_of(nursery)
    arrived: list[bytes] = []
    read = trio.Event()

    async def serve(stream: Stream) -> None:
        await stream.send_eof()
        arrived.append(await read_all(stream))
        read.set()

    home.host.set_stream_handler(SINK, serve)
    with trio.fail_after(30):
        connection = await laptop.circuit_to(home)
        stream = await connection.open_stream([SINK])
        await stream.send_all(bytes(3_000_000))
        await stream.send_eof()
        assert await read_all(stream) == b""
        await connection.close()
        await read.wait()
    assert [len(data) for data in arrived] == [3_000_000]


async def test_the_limit_is_known_at_both_ends(nursery):
    _, home, laptop = await trio_of(nursery, RelayLimits(session_duration=60, session_data_limit=10**6))
    with trio.fail_after(30):
        connection = await laptop.circuit_to(home)
    assert connection.limit == Limit(60, 10**6)
    assert home.host.connections(laptop.peer)[0].limit == Limit(60, 10**6)


async def test_the_data_limit_reaches_the_streams_inside_as_a_broken_connection(nursery):
    _, home, laptop = await trio_of(nursery, RelayLimits(session_data_limit=10**6))
    ends: list[object] = []
    over = trio.Event()

    async def sink(stream: Stream) -> None:
        try:
            ends.append(await read_all(stream))
        except trio.BrokenResourceError as why:
            ends.append(why)
        over.set()

    home.host.set_stream_handler(SINK, sink)
    with trio.fail_after(30):
        connection = await laptop.circuit_to(home)
        stream = await connection.open_stream([SINK])
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(100_000))
        with pytest.raises(trio.BrokenResourceError):
            await read_all(stream)
        await over.wait()
    assert isinstance(ends[0], trio.BrokenResourceError)


async def test_the_gate_of_the_far_end_decides_on_circuits_too(nursery):
    relay, home, laptop = await trio_of(nursery)
    home.gate.replace(home.gate.allowlist.remove(laptop.peer))
    with trio.fail_after(30), pytest.raises(GateRefused) as caught:
        await laptop.circuit_to(home)
    assert f"auth add {laptop.peer}" in caught.value.hint
    assert home.host.connections(laptop.peer) == []
    with trio.fail_after(30):
        await until(lambda: not relay.server.circuits)


async def test_a_no_is_told_in_words(nursery):
    _, _, laptop = await trio_of(nursery)
    nobody = Machine(None, "node")
    with trio.fail_after(30), pytest.raises(RelayRefused, match="the peer is not connected to this relay right now"):
        await laptop.circuit_to(nobody)


async def test_somebody_else_at_the_far_end_is_not_the_peer(nursery):
    """A relay that connects us to another peer than we asked for gains nothing."""
    relay, home, laptop = await trio_of(nursery)
    other = NodeMachine(relay, gated=False)
    relay.allow(other)
    with trio.fail_after(30):
        await other.start(nursery)
    relay.server._way_to = lambda _target: relay.host.connections(other.peer)[0]  # type: ignore[method-assign] # a lie
    with trio.fail_after(30), pytest.raises(PeerupError, match=str(other.peer)):
        await laptop.circuit_to(home)


async def test_a_relay_that_is_not_ours_may_bring_no_circuits(nursery):
    relay, home, laptop = await trio_of(nursery)
    home.circuits.forget(relay.peer)
    with trio.fail_after(30), pytest.raises(RelayRefused, match="could not reach the peer"):
        await laptop.circuit_to(home)


async def test_a_peer_may_not_bring_circuits_over_a_circuit(nursery):
    _, home, laptop = await trio_of(nursery)
    laptop.circuits._remember(home.peer)
    home.circuits._remember(laptop.peer)
    with trio.fail_after(30):
        connection = await laptop.circuit_to(home)
        stream = await connection.open_stream([STOP_PROTOCOL])
        await send_message(stream, StopMessage(StopKind.CONNECT, peer=laptop.peer).encode())
        answer = StopMessage.decode(await receive_message(stream, MAX_MESSAGE))
    assert answer.status is Status.PERMISSION_DENIED


async def test_only_so_many_relays_are_remembered():
    node, relay = NodeMachine(), Machine(None, "relay")
    node.circuits._remember(relay.peer)
    for _ in range(circuit.MAX_ASKED):
        node.circuits._remember(Machine(None, "relay").peer)
    assert len(node.circuits._asked) == circuit.MAX_ASKED
    assert relay.peer not in node.circuits._asked


async def test_a_restarted_relay_has_our_reservation_within_five_seconds(nursery):
    relay, home, laptop = await trio_of(nursery)
    port = relay.address.address.port
    with trio.fail_after(30):
        await relay.stop()
        await until(lambda: not home.host.connections(relay.peer))
    await trio.sleep(0.5)
    again = RelayMachine(identity=relay.identity, port=port or 0)
    again.allow(home, laptop)
    await again.start(nursery)
    with trio.fail_after(30):
        await until(lambda: set(again.server.reservations) == {home.peer, laptop.peer})
        await home.until_reserved()
        assert (await laptop.circuit_to(home)).relayed


# -- relays that misbehave -------------------------------------------------------------------------------------------


class OddRelay:
    """A relay that answers as the test says."""

    def __init__(self) -> None:
        self.machine = Machine(None, "relay", gated=False)
        self.node = NodeMachine()
        self.answers: list[HopMessage | None] = []
        self.machine.host.set_stream_handler(HOP_PROTOCOL, self._serve)

    async def start(self, nursery: trio.Nursery) -> OddRelay:
        await nursery.start(self.machine.run, [Multiaddr.parse("/ip4/127.0.0.1/tcp/0")])
        await self.node.start(nursery)
        return self

    @property
    def address(self) -> RelayAddress:
        return RelayAddress(self.machine.host.listen_addresses()[0].without_peer(), self.machine.peer)

    async def _serve(self, stream: Stream) -> None:
        await receive_message(stream, MAX_MESSAGE)
        answer = self.answers.pop(0)
        if answer is None:
            await trio.sleep_forever()
        else:
            await send_message(stream, answer.encode())


def granted(voucher: bytes = b"", *, life: int = 100) -> HopMessage:
    return HopMessage(HopKind.STATUS, status=Status.OK, reservation=Reservation(int(time.time()) + life, (), voucher))


async def test_a_relay_without_vouchers_is_fine(nursery, caplog):
    odd = await OddRelay().start(nursery)
    odd.answers = [granted()]
    with trio.fail_after(30):
        held = await odd.node.circuits.reserve([odd.address])
    assert held.until == pytest.approx(time.time() + 100, abs=5)
    assert not [record for record in caplog.records if "voucher" in record.getMessage()]


async def test_a_bad_voucher_is_told_and_ignored(nursery, caplog):
    odd = await OddRelay().start(nursery)
    signer = odd.machine.identity
    other = Voucher(relay=signer.peer_id, peer=signer.peer_id, expiration=1).seal(signer.public_key, signer.sign)
    odd.answers = [granted(b"junk"), granted(other)]
    with trio.fail_after(30):
        await odd.node.circuits.reserve([odd.address])
        await odd.node.circuits.reserve([odd.address])
    words = [record.getMessage() for record in caplog.records if "voucher" in record.getMessage()]
    assert "cannot be read" in words[0]
    assert "for somebody else" in words[1]


async def test_a_relay_whose_clock_is_wrong_is_told_and_used(nursery, caplog):
    odd = await OddRelay().start(nursery)
    odd.answers = [granted(life=-5000)]
    with trio.fail_after(30):
        await odd.node.circuits.reserve([odd.address])
    assert "its clock and ours do not agree" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        HopMessage(HopKind.STATUS, status=Status.OK),
        HopMessage(HopKind.RESERVE),
    ],
)
async def test_an_answer_that_makes_no_sense_is_a_violation(nursery, answer):
    odd = await OddRelay().start(nursery)
    odd.answers = [answer]
    with trio.fail_after(30), pytest.raises(ProtocolViolation):
        await odd.node.circuits.reserve([odd.address])


async def test_silence_on_a_fresh_connection_is_a_timeout(nursery, monkeypatch):
    monkeypatch.setattr(circuit, "RESERVE_LIMIT", 0.2)
    odd = await OddRelay().start(nursery)
    odd.answers = [None]
    with trio.fail_after(30), pytest.raises(TimedOut):
        await odd.node.circuits.reserve([odd.address])


async def test_a_connection_that_does_not_answer_is_replaced(nursery, monkeypatch):
    monkeypatch.setattr(circuit, "STALE", 0.2)
    odd = await OddRelay().start(nursery)
    odd.answers = [granted(), None, granted()]
    with trio.fail_after(30):
        first = await odd.node.circuits.reserve([odd.address])
        second = await odd.node.circuits.reserve([odd.address])
        await first.lost.wait()
    assert not second.lost.is_set()


@pytest.mark.parametrize("request_", [b"junk", StopMessage(StopKind.STATUS, status=Status.OK).encode()])
async def test_a_relay_that_asks_for_nonsense_ends_that_stream_only(nursery, request_):
    odd = await OddRelay().start(nursery)
    odd.answers = [granted()]
    with trio.fail_after(30):
        held = await odd.node.circuits.reserve([odd.address])
        connection = odd.machine.host.connections(odd.node.peer)[0]
        stream = await connection.open_stream([STOP_PROTOCOL])
        await send_message(stream, request_)
        with pytest.raises((StreamWasReset, EnvironmentalError)):
            while await stream.receive_some():
                pass
            raise EnvironmentalError("a clean end is no acceptance either")
    assert not held.lost.is_set()


async def test_a_circuit_that_breaks_during_its_handshake_is_a_lost_connection(nursery, monkeypatch):
    _, home, laptop = await trio_of(nursery)

    async def broken(*_: object, **__: object) -> None:
        raise trio.BrokenResourceError("the wire was cut")

    monkeypatch.setattr(laptop.host.swarm, "upgrade_outbound", broken)
    with trio.fail_after(30), pytest.raises(ConnectionLost, match="the wire was cut"):
        await laptop.circuit_to(home)
