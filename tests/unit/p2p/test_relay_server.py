"""The relay: who gets what, how circuits end, and that they know nothing of one another. Real hosts on loopback."""

from __future__ import annotations

import logging
import os
import time

import pytest
import trio

from peerupd.model.counters import CIRCUIT_BYTES, CIRCUITS, CIRCUITS_ACTIVE, RESERVATIONS, RESERVATIONS_ACTIVE
from peerupd.model.errors import ProtocolUnsupported
from peerupd.p2p import relay_server, telling
from peerupd.p2p.delimited import receive_message, send_message
from peerupd.p2p.relay_limits import RelayLimits
from peerupd.p2p.relay_state import Kept
from peerupd.p2p.streams import Stream, StreamWasReset
from peerupd.wire.circuit import (
    HOP_PROTOCOL,
    MAX_MESSAGE,
    STOP_PROTOCOL,
    HopKind,
    HopMessage,
    Status,
    StopKind,
    StopMessage,
    Voucher,
)
from tests.support.relaynet import ECHO, Machine, NodeMachine, RelayMachine, echo, read_all, until


@pytest.fixture
def net(nursery: trio.Nursery) -> Net:
    return Net(nursery)


class Net:
    """A relay, and nodes that are in its allowlist."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery

    async def relay(self, limits: RelayLimits | None = None, **kwargs) -> RelayMachine:
        return await RelayMachine(limits or RelayLimits(), **kwargs).start(self.nursery)

    async def node(self, relay: RelayMachine, *, known: bool = True, reserve: bool = True) -> NodeMachine:
        node = NodeMachine(relay, gated=False)
        if known:
            relay.allow(node)
        return await node.start(self.nursery, reserve=reserve and known)


async def hop(node: NodeMachine, request: HopMessage) -> tuple[Stream, HopMessage]:
    """What the relay answers to `request`."""
    assert node.relay is not None
    connection = await node.host.connect(node.relay.peer, [node.relay.address.address])
    stream = await connection.open_stream([HOP_PROTOCOL])
    await send_message(stream, request.encode())
    return stream, HopMessage.decode(await receive_message(stream, MAX_MESSAGE))


async def raw(node: NodeMachine, target: Machine) -> Stream:
    """A circuit's bytes, bare."""
    stream, answer = await hop(node, HopMessage(HopKind.CONNECT, peer=target.peer))
    assert answer.status is Status.OK
    return stream


def stops_with(node: NodeMachine, serve) -> None:
    """Let the node take circuits as bare bytes, handled by `serve`."""

    async def stop(stream: Stream) -> None:
        await receive_message(stream, MAX_MESSAGE)
        await send_message(stream, StopMessage(StopKind.STATUS, status=Status.OK).encode())
        await serve(stream)

    node.host.set_stream_handler(STOP_PROTOCOL, stop)


# -- reservations --------------------------------------------------------------------------------------------------


async def test_a_guest_gets_a_reservation_with_a_signed_voucher_and_our_addresses(net):
    relay = await net.relay(RelayLimits(reservation_ttl=100))
    home = await net.node(relay, reserve=False)
    with trio.fail_after(30):
        _, answer = await hop(home, HopMessage(HopKind.RESERVE))
        await home.until_reserved()
    assert answer.status is Status.OK
    assert answer.limit is None
    reservation = answer.reservation
    assert reservation is not None
    assert reservation.expire == pytest.approx(time.time() + 100, abs=3)
    assert [str(address) for address in reservation.addresses] == [str(relay.address)]
    voucher = Voucher.open(reservation.voucher)
    assert (voucher.relay, voucher.peer, voucher.expiration) == (relay.peer, home.peer, reservation.expire)
    assert relay.server.reservations == (home.peer,)


async def test_the_reservation_ends_with_the_last_connection(net):
    relay = await net.relay()
    home = await net.node(relay)
    with trio.fail_after(30):
        await home.stop()
        await until(lambda: not relay.server.reservations)


async def test_only_the_connection_with_the_reservation_is_worth_keeping(net):
    relay = await net.relay(RelayLimits(reservation_ttl=0.5))
    home = await net.node(relay)
    with trio.fail_after(30):
        held = relay.host.connections(home.peer)[0]
        assert held.keep
        second = await home.host.swarm.dial([relay.address.address], relay.peer)
        await home.circuits._reserve_over(second)
        await until(lambda: [c.keep for c in relay.host.connections(home.peer)] == [True, False])
        home.relays.set([])
        await trio.sleep(1)
        await net.node(relay)
        assert not any(c.keep for c in relay.host.connections(home.peer))


async def test_no_step_of_the_clock_ends_a_reservation_and_the_voucher_says_the_time_of_the_wall(net):
    wall = time.time()
    relay = await net.relay(clock=lambda: wall)
    home, laptop = await net.node(relay), await net.node(relay)
    for step in (400 * 86_400.0, -800 * 86_400.0):
        wall += step
        assert set(relay.server.reservations) == {home.peer, laptop.peer}
        with trio.fail_after(20):
            (await laptop.circuit_to(home)).abort("seen")
            _, answer = await hop(home, HopMessage(HopKind.RESERVE))
        assert answer.reservation is not None
        assert answer.reservation.expire == pytest.approx(wall + 3600, abs=60)


async def test_a_reservation_outlives_a_restart_and_its_peer_finds_it_when_it_is_back(net):
    relay = await net.relay(RelayLimits(max_reservations=2))
    home, laptop = await net.node(relay), await net.node(relay)
    vouched = {kept.peer: kept.until for kept in relay.server.kept()}
    kept = relay.server.kept()
    with trio.fail_after(20):
        home.relays.set([])
        await relay.stop()
    again = RelayMachine(RelayLimits(max_reservations=2), identity=relay.identity)
    again.allow(home, laptop)
    again.server.restore(kept)
    await again.start(net.nursery)
    home.relay = laptop.relay = again
    with trio.fail_after(20):
        assert set(again.server.reservations) == {home.peer, laptop.peer}
        late = await net.node(again, reserve=False)
        _, answer = await hop(late, HopMessage(HopKind.RESERVE))
        assert answer.status is Status.RESERVATION_REFUSED  # both slots are taken
        _, answer = await hop(laptop, HopMessage(HopKind.CONNECT, peer=home.peer))
        assert answer.status is Status.NO_RESERVATION  # it is not back yet
        await home.host.connect(again.peer, [again.address.address])
        await laptop.circuit_to(home)  # without having asked anew
        assert {kept.peer: kept.until for kept in again.server.kept()} == pytest.approx(vouched, abs=1.1)
        await home.stop()
        await until(lambda: home.peer not in again.server.reservations)


async def test_a_reservation_of_before_is_lost_with_the_entry_and_by_not_coming_back(net, monkeypatch):
    monkeypatch.setattr(relay_server, "RETURN_LIMIT", 0.1)
    home, laptop, gone = Machine(None, "node"), Machine(None, "node"), Machine(None, "node")
    relay = RelayMachine()
    relay.allow(home, laptop)
    later = int(time.time()) + 500
    relay.server.restore([Kept(machine.peer, later, "127.0.0.1") for machine in (home, laptop, gone)])
    assert set(relay.server.reservations) == {home.peer, laptop.peer}
    await relay.start(net.nursery)
    await until(lambda: not relay.server.reservations)


async def test_a_network_that_has_its_share_gets_no_more(net):
    relay = await net.relay(RelayLimits(max_reservations_per_asn=1))
    relay.server.count_networks(lambda ip: 64500 if ip.is_loopback else None)
    await net.node(relay)
    late = await net.node(relay, reserve=False)
    with trio.fail_after(20):
        _, answer = await hop(late, HopMessage(HopKind.RESERVE))
    assert answer.status is Status.RESERVATION_REFUSED


async def test_a_stranger_cannot_fill_the_log(net, caplog):
    caplog.set_level(logging.INFO)
    relay = await net.relay(gated=False)
    stranger = await net.node(relay)
    nobody = Machine(None, "node")
    with trio.fail_after(60):
        for _ in range(100):
            _, answer = await hop(stranger, HopMessage(HopKind.CONNECT, peer=nobody.peer))
            assert answer.status is Status.NO_RESERVATION
    told = [line for line in caplog.records if getattr(line, "peerup", {}).get("event") == "relay.denied"]
    assert 0 < len(told) <= telling.AT_ONCE + 6


async def test_what_happens_is_counted(net):
    relay = await net.relay(RelayLimits(max_circuits=1, max_reservations=2))
    home, laptop = await net.node(relay), await net.node(relay)
    stops_with(home, echo)
    with trio.fail_after(20):
        late = await net.node(relay, reserve=False)
        await hop(late, HopMessage(HopKind.RESERVE))
        await hop(home, HopMessage(HopKind.RESERVE))
        stream = await raw(laptop, home)
        _, refused = await hop(laptop, HopMessage(HopKind.CONNECT, peer=home.peer))
        await hop(laptop, HopMessage(HopKind.CONNECT, peer=late.peer))
        relay.server.settle()
        get = relay.counters.get
        assert (get(RESERVATIONS_ACTIVE), get(CIRCUITS_ACTIVE), get(CIRCUIT_BYTES)) == (2, 1, 0)
        await stream.send_all(bytes(1000))
        await stream.send_eof()
        assert await read_all(stream) == bytes(1000)
        await until(lambda: not relay.server.circuits)
    relay.server.settle()
    assert refused.status is Status.RESOURCE_LIMIT_EXCEEDED
    assert (get(CIRCUITS_ACTIVE), get(CIRCUIT_BYTES)) == (0, 2000)
    results = {count.labels["result"]: count.value for count in relay.counters.snapshot() if count.name == CIRCUITS}
    assert results == {"opened": 1, "resource_limit_exceeded": 1, "no_reservation": 1}
    assert get(RESERVATIONS, result="granted") == 2
    assert get(RESERVATIONS, result="renewed") >= 1
    assert get(RESERVATIONS, result="reservation_refused") >= 1


async def test_reservations_have_a_bound_in_all(net):
    relay = await net.relay(RelayLimits(max_reservations=1))
    await net.node(relay)
    late = await net.node(relay, reserve=False)
    with trio.fail_after(30):
        _, answer = await hop(late, HopMessage(HopKind.RESERVE))
    assert answer.status is Status.RESERVATION_REFUSED


async def test_a_stranger_does_not_even_get_in(net):
    relay = await net.relay()
    stranger = await net.node(relay, known=False)
    with trio.fail_after(30), pytest.raises(Exception, match=r"closed|lost|reach"):
        await hop(stranger, HopMessage(HopKind.RESERVE))


async def test_a_peer_whose_entry_was_removed_gets_nothing_on_a_connection_that_stands(net):
    relay = await net.relay()
    home = await net.node(relay)
    relay.gate.replace(relay.gate.allowlist.remove(home.peer))
    with trio.fail_after(30), pytest.raises(ProtocolUnsupported):
        await hop(home, HopMessage(HopKind.RESERVE))


async def test_a_request_over_a_circuit_is_denied(net):
    """No circuits in circuits, even if the relay is itself somebody's callee."""
    relay = await net.relay()
    inner = await net.relay()
    home, laptop = await net.node(relay), await net.node(relay)
    inner.allow(laptop, home)
    home.host.set_stream_handler(HOP_PROTOCOL, inner.server._serve)
    with trio.fail_after(30):
        connection = await laptop.circuit_to(home)
        stream = await connection.open_stream([HOP_PROTOCOL])
        await send_message(stream, HopMessage(HopKind.RESERVE).encode())
        answer = HopMessage.decode(await receive_message(stream, MAX_MESSAGE))
    assert answer.status is Status.PERMISSION_DENIED


async def test_what_makes_no_sense_is_told_so(net):
    relay = await net.relay()
    home = await net.node(relay)
    with trio.fail_after(30):
        _, answer = await hop(home, HopMessage(HopKind.STATUS, status=Status.OK))
        assert answer.status is Status.UNEXPECTED_MESSAGE
        connection = home.host.connections(relay.peer)[0]
        stream = await connection.open_stream([HOP_PROTOCOL])
        await send_message(stream, b"\xff\xff\xff")
        answer = HopMessage.decode(await receive_message(stream, MAX_MESSAGE))
        assert answer.status is Status.MALFORMED_MESSAGE


async def test_a_relay_that_has_ended_offers_nothing(net):
    relay = RelayMachine()
    home = NodeMachine(relay)
    relay.allow(home)
    await net.nursery.start(relay.run, [relay.listen])
    relay.host.remove_stream_handler(HOP_PROTOCOL)
    await home.start(net.nursery, reserve=False)
    with trio.fail_after(30), pytest.raises(ProtocolUnsupported):
        await home.circuits.reserve([relay.address])


# -- circuits ------------------------------------------------------------------------------------------------------


async def test_whoever_has_no_reservation_cannot_be_called(net):
    relay = await net.relay()
    laptop = await net.node(relay)
    other = Machine(None, "node")
    with trio.fail_after(30):
        _, answer = await hop(laptop, HopMessage(HopKind.CONNECT, peer=other.peer))
    assert answer.status is Status.NO_RESERVATION


async def test_guests_are_told_of_no_limit_and_strangers_of_theirs(net):
    for gated, told in ((True, None), (False, (600, 64 * 1024 * 1024))):
        relay = await net.relay(gated=gated)
        home, laptop = await net.node(relay), await net.node(relay)
        stops_with(home, echo)
        with trio.fail_after(30):
            _, answer = await hop(laptop, HopMessage(HopKind.CONNECT, peer=home.peer))
        assert answer.status is Status.OK
        assert (answer.limit and (answer.limit.duration, answer.limit.data)) == told


async def test_a_peer_has_so_many_circuits_and_no_more(net):
    relay = await net.relay(RelayLimits(max_circuits=2))
    home, laptop = await net.node(relay), await net.node(relay)
    stops_with(home, echo)
    with trio.fail_after(30):
        first = await raw(laptop, home)
        await raw(laptop, home)
        _, answer = await hop(laptop, HopMessage(HopKind.CONNECT, peer=home.peer))
        assert answer.status is Status.RESOURCE_LIMIT_EXCEEDED
        assert relay.server.circuits == 2
        await first.send_eof()
        assert await read_all(first) == b""
        await until(lambda: relay.server.circuits < 2)
        await raw(laptop, home)


async def test_half_close_goes_through_both_ways(net):
    relay = await net.relay()
    home, laptop = await net.node(relay), await net.node(relay)
    heard = trio.Event()

    async def answer_after_the_question(stream: Stream) -> None:
        question = await read_all(stream)
        heard.set()
        await stream.send_all(question[::-1])
        await stream.send_eof()

    stops_with(home, answer_after_the_question)
    with trio.fail_after(30):
        stream = await raw(laptop, home)
        await stream.send_all(b"stressed")
        await stream.send_eof()
        await heard.wait()
        assert await read_all(stream) == b"desserts"


async def test_the_other_side_may_end_first(net):
    relay = await net.relay()
    home, laptop = await net.node(relay), await net.node(relay)
    got: list[bytes] = []

    async def end_then_listen(stream: Stream) -> None:
        await stream.send_all(b"bye")
        await stream.send_eof()
        got.append(await read_all(stream))

    stops_with(home, end_then_listen)
    with trio.fail_after(30):
        stream = await raw(laptop, home)
        assert await read_all(stream) == b"bye"
        await stream.send_all(b"still here")
        await stream.send_eof()
        await until(lambda: got and not relay.server.circuits)
    assert got == [b"still here"]


@pytest.mark.parametrize("caller_resets", [True, False])
async def test_a_reset_on_one_side_is_a_reset_on_the_other(net, caller_resets):
    relay = await net.relay()
    home, laptop = await net.node(relay), await net.node(relay)
    outcome: list[object] = []
    reset_there, over = trio.Event(), trio.Event()

    async def serve(stream: Stream) -> None:
        if not caller_resets:
            await reset_there.wait()
            stream.reset()
            return
        try:
            outcome.append(await read_all(stream))
        except StreamWasReset as why:
            outcome.append(why)
        over.set()

    stops_with(home, serve)
    with trio.fail_after(30):
        stream = await raw(laptop, home)
        if caller_resets:
            stream.reset()
            await over.wait()
            assert isinstance(outcome[0], StreamWasReset)
        else:
            reset_there.set()
            with pytest.raises(StreamWasReset):
                await read_all(stream)


async def test_a_side_that_goes_away_resets_the_other(net):
    relay = await net.relay()
    home, laptop = await net.node(relay), await net.node(relay)
    stops_with(home, echo)
    with trio.fail_after(30):
        stream = await raw(laptop, home)
        await home.stop()
        with pytest.raises(StreamWasReset):
            await read_all(stream)
        await until(lambda: not relay.server.circuits)


@pytest.mark.parametrize("from_caller", [True, False])
async def test_the_data_limit_ends_as_a_reset_on_both_sides(net, from_caller):
    relay = await net.relay(RelayLimits(session_data_limit=100_000))
    home, laptop = await net.node(relay), await net.node(relay)
    ends: list[str] = []
    over = trio.Event()

    async def talk(stream: Stream, *, much: bool) -> None:
        got = 0
        try:
            if much:
                while True:
                    await stream.send_all(bytes(10_000))
            while data := await stream.receive_some():
                got += len(data)
            ends.append("clean end")
        except StreamWasReset:
            assert got <= 100_000
            ends.append("reset")
        if len(ends) == 2:
            over.set()

    async def serve(stream: Stream) -> None:
        await talk(stream, much=not from_caller)

    stops_with(home, serve)
    with trio.fail_after(30):
        stream, answer = await hop(laptop, HopMessage(HopKind.CONNECT, peer=home.peer))
        assert answer.limit is not None
        assert answer.limit.data == 100_000
        await talk(stream, much=from_caller)
        await over.wait()
    assert ends == ["reset", "reset"]


async def test_data_up_to_the_limit_in_each_direction_passes(net):
    relay = await net.relay(RelayLimits(session_data_limit=100_000))
    home, laptop = await net.node(relay), await net.node(relay)
    stops_with(home, echo)
    sent = os.urandom(100_000)
    with trio.fail_after(30):
        stream = await raw(laptop, home)
        await stream.send_all(sent)
        await stream.send_eof()
        assert await read_all(stream) == sent


async def test_the_time_limit_ends_as_a_reset(net):
    relay = await net.relay(RelayLimits(session_duration=0.3))
    home, laptop = await net.node(relay), await net.node(relay)
    stops_with(home, echo)
    with trio.fail_after(30):
        stream = await raw(laptop, home)
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"x"
        with pytest.raises(StreamWasReset):
            await read_all(stream)


async def test_twenty_circuits_at_once_keep_their_bytes_apart(net):
    relay = await net.relay()
    home, laptop = await net.node(relay), await net.node(relay)
    stops_with(home, echo)
    right: list[bool] = []

    async def one() -> None:
        stream = await raw(laptop, home)
        sent = os.urandom(200_000)

        async def write() -> None:
            await stream.send_all(sent)
            await stream.send_eof()

        async with trio.open_nursery() as both:
            both.start_soon(write)
            right.append(await read_all(stream) == sent)

    with trio.fail_after(20):
        async with trio.open_nursery() as many:
            for _ in range(20):
                many.start_soon(one)
        assert right == [True] * 20
        await until(lambda: not relay.server.circuits)


async def test_a_slow_circuit_does_not_hold_up_another(net):
    relay = await net.relay()
    home, laptop = await net.node(relay), await net.node(relay)

    async def serve(stream: Stream) -> None:
        if await stream.receive_some(1) == b"s":
            await trio.sleep_forever()
        await echo(stream)

    stops_with(home, serve)
    with trio.fail_after(10):
        slow, quick = await raw(laptop, home), await raw(laptop, home)
        await slow.send_all(b"s")
        with trio.move_on_after(0.5):
            while True:
                await slow.send_all(bytes(100_000))
        await quick.send_all(b"qhello")
        assert await quick.receive_some() == b"hello"


async def test_a_callee_that_says_no_or_nothing_is_a_failed_connection(net, monkeypatch):
    monkeypatch.setattr(relay_server, "STOP_LIMIT", 0.2)
    relay = await net.relay()
    home, laptop = await net.node(relay), await net.node(relay)

    async def refuse(stream: Stream) -> None:
        await send_message(stream, StopMessage(StopKind.STATUS, status=Status.PERMISSION_DENIED).encode())

    async def hang(_stream: Stream) -> None:
        await trio.sleep_forever()

    async def fail(stream: Stream) -> None:
        stream.reset()

    for handler in (refuse, hang, fail):
        home.host.set_stream_handler(STOP_PROTOCOL, handler)
        with trio.fail_after(30):
            _, answer = await hop(laptop, HopMessage(HopKind.CONNECT, peer=home.peer))
        assert answer.status is Status.CONNECTION_FAILED
    assert relay.server.circuits == 0


async def test_somebody_who_says_nothing_is_cut_off(net, monkeypatch):
    monkeypatch.setattr(relay_server, "REQUEST_LIMIT", 0.2)
    relay = await net.relay()
    home = await net.node(relay)
    stream = await home.host.connections(relay.peer)[0].open_stream([HOP_PROTOCOL])
    with trio.fail_after(30), pytest.raises(StreamWasReset):
        await read_all(stream)


async def test_somebody_who_ends_without_a_word_gets_none(net):
    relay = await net.relay()
    home = await net.node(relay)
    with trio.fail_after(30), pytest.raises(StreamWasReset):
        stream = await home.host.connections(relay.peer)[0].open_stream([HOP_PROTOCOL])
        await stream.send_eof()
        await read_all(stream)


async def test_the_echo_service_is_not_the_relays(net):
    relay = await net.relay()
    home = await net.node(relay)
    with trio.fail_after(30), pytest.raises(ProtocolUnsupported):
        await home.host.connections(relay.peer)[0].open_stream([ECHO])
