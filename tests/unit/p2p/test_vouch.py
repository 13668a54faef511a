"""A joiner that the relay does not know: let through to its inviter, and no further. Real hosts on loopback."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from peerupd.model.errors import LimitReached, PeerupError, RelayRefused, StorageFailed
from peerupd.model.names import PeerId
from peerupd.p2p import relay_limits, vouch, vouch_server
from peerupd.p2p.delimited import receive_message, send_message
from peerupd.p2p.streams import Stream, StreamWasReset
from peerupd.trust.gate import Admit, Probation
from peerupd.wire.circuit import HOP_PROTOCOL, HopKind, HopMessage, Status
from peerupd.wire.circuit import MAX_MESSAGE as MAX_HOP
from peerupd.wire.vouch import KEY_SIZE, MAX_MESSAGE, PROTOCOL, No, Ok, Prove, Reason, decode_answer, proof
from tests.support.relaynet import ECHO, NodeMachine, RelayMachine, echo, until

KEY = b"k" * KEY_SIZE
OTHER_KEY = b"o" * KEY_SIZE
INVITE = "/peerup/invite/1.0.0"


class Net:
    """A gated relay that knows an inviter and a bystander, and a joiner that it does not know."""

    def __init__(self) -> None:
        self.relay = RelayMachine()
        self.inviter, self.bystander, self.joiner = (NodeMachine(self.relay) for _ in range(3))
        self.relay.allow(self.inviter, self.bystander)
        self.inviter.host.set_stream_handler(INVITE, echo)

    async def start(self, nursery: trio.Nursery) -> Net:
        await self.relay.start(nursery)
        with trio.fail_after(30):
            await self.inviter.start(nursery)
            await self.bystander.start(nursery)
        await nursery.start(self.joiner.run)
        return self

    @property
    def at(self) -> Sequence:
        return [self.relay.address]

    async def opened(self, seconds: float = 600) -> None:
        await self.inviter.vouching.open(self.at, KEY, seconds)
        self.inviter.gate.invite_opened(until=4e9)

    def joiner_at_relay(self):
        return self.relay.host.connections(self.joiner.peer)[0]


@pytest.fixture
async def net(nursery: trio.Nursery) -> Net:
    return await Net().start(nursery)


async def test_without_a_vouch_the_joiner_does_not_get_in(net):
    with trio.fail_after(30), pytest.raises(PeerupError):
        await net.joiner.vouching.prove(net.at, KEY)
    assert net.relay.host.connections(net.joiner.peer) == []


async def test_a_vouched_joiner_reaches_its_inviter(net):
    with trio.fail_after(30):
        await net.opened()
        assert await net.joiner.vouching.prove(net.at, KEY) == net.inviter.peer
        connection = await net.joiner.circuit_to(net.inviter)
        stream = await connection.open_stream([INVITE])
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
    assert connection.limit == relay_limits.VOUCHED


async def test_and_nobody_else(net):
    with trio.fail_after(30):
        await net.opened()
        await net.joiner.vouching.prove(net.at, KEY)
        with pytest.raises(RelayRefused, match="does not let us"):
            await net.joiner.circuit_to(net.bystander)


async def test_and_gets_no_reservation(net):
    with trio.fail_after(30):
        await net.opened()
        await net.joiner.vouching.prove(net.at, KEY)
        with pytest.raises(RelayRefused, match="does not let us"):
            await net.joiner.circuits.reserve(net.at)
    assert set(net.relay.server.reservations) == {net.inviter.peer, net.bystander.peer}


async def test_before_it_has_proved_itself_it_may_not_call_at_all(net):
    with trio.fail_after(30):
        await net.opened()
        with pytest.raises(PeerupError):
            await net.joiner.circuit_to(net.inviter)


async def test_a_joiner_gets_little_data_through(net):
    with trio.fail_after(30):
        await net.opened()
        await net.joiner.vouching.prove(net.at, KEY)
        connection = await net.joiner.circuit_to(net.inviter)
        stream = await connection.open_stream([INVITE])
        with pytest.raises(trio.BrokenResourceError):
            for _ in range(100):
                await stream.send_all(bytes(4096))
                await stream.receive_some()


async def test_its_time_is_over_after_a_minute_at_most(net, monkeypatch):
    monkeypatch.setattr(vouch_server, "CALL_SECONDS", 0.3)
    with trio.fail_after(30):
        await net.opened()
        await net.joiner.vouching.prove(net.at, KEY)
        await net.joiner_at_relay().closed.wait()


async def test_a_wrong_proof_is_a_no_and_three_end_the_connection(net):
    with trio.fail_after(30):
        await net.opened()
        await net.joiner.host.connect(net.relay.peer, [net.relay.address.address])
        at_relay = net.joiner_at_relay()
        for _ in range(vouch_server.MAX_TRIES):
            assert not at_relay.closed.is_set()
            with pytest.raises(RelayRefused, match="no open code fits"):
                await net.joiner.vouching.prove(net.at, OTHER_KEY)
        await at_relay.closed.wait()
    assert net.relay.server.vouching._failures == {}


async def test_wrong_proofs_of_an_authorised_peer_cost_it_nothing(net):
    with trio.fail_after(30):
        await net.opened()
        for _ in range(vouch_server.MAX_TRIES + 1):
            assert await ask(net.bystander, net, Prove(proof(OTHER_KEY, net.bystander.peer)).encode()) == (
                No(Reason.NO_SUCH_CODE)
            )
        assert not any(each.closed.is_set() for each in net.relay.host.connections(net.bystander.peer))
        assert net.relay.host.connections(net.bystander.peer)
    assert net.relay.server.vouching._failures == {}


async def test_anothers_proof_is_worth_nothing(net):
    with trio.fail_after(30):
        await net.opened()
        answer = await ask(net.joiner, net, Prove(proof(KEY, net.bystander.peer)).encode())
    assert answer == No(Reason.NO_SUCH_CODE)


async def test_every_proof_is_compared_with_every_open_code(net, monkeypatch):
    compared: list[bytes] = []

    def proves(given: bytes, key: bytes, peer: PeerId) -> bool:
        compared.append(key)
        return given == proof(key, peer)

    monkeypatch.setattr(vouch_server, "proves", proves)
    with trio.fail_after(30):
        await net.opened()
        await net.bystander.vouching.open(net.at, OTHER_KEY, 100)
        assert await net.joiner.vouching.prove(net.at, KEY) == net.inviter.peer
    assert compared == [KEY, OTHER_KEY]


async def test_a_closed_code_admits_nobody_and_ends_what_it_allowed(net):
    with trio.fail_after(30):
        await net.opened()
        await net.joiner.vouching.prove(net.at, KEY)
        await net.bystander.vouching.close(net.at, KEY)
        assert net.relay.server.vouching._open
        await net.inviter.vouching.close(net.at, KEY)
        await net.inviter.vouching.close(net.at, KEY)
        with pytest.raises(RelayRefused):
            await net.joiner.circuit_to(net.inviter)
        await net.joiner.host.close_peer(net.relay.peer)
        with pytest.raises(PeerupError):
            await net.joiner.vouching.prove(net.at, KEY)


async def test_a_code_ends_with_its_time(net):
    with trio.fail_after(30):
        await net.opened(seconds=1)
        await net.joiner.host.connect(net.relay.peer, [net.relay.address.address])
        await until(lambda: net.relay.host.connections(net.joiner.peer))
        await trio.sleep(1.1)
        answer = await ask(net.bystander, net, Prove(proof(KEY, net.bystander.peer)).encode())
    assert answer == No(Reason.NO_SUCH_CODE)
    assert net.relay.server.vouching._open == []


async def test_codes_have_a_bound_per_inviter_and_in_all(net, monkeypatch):
    with trio.fail_after(30):
        for number in range(vouch_server.MAX_OPEN_PER_PEER):
            await net.inviter.vouching.open(net.at, bytes((number,)) * KEY_SIZE, 100)
        await net.inviter.vouching.open(net.at, bytes(KEY_SIZE), 100)  # again
        with pytest.raises(LimitReached, match="too many codes are open"):
            await net.opened()
        monkeypatch.setattr(vouch_server, "MAX_OPEN", vouch_server.MAX_OPEN_PER_PEER)
        with pytest.raises(LimitReached):
            await net.bystander.vouching.open(net.at, OTHER_KEY, 100)


async def test_a_kept_joiner_is_a_guest_from_then_on(net):
    with trio.fail_after(30):
        await net.opened()
        await net.joiner.vouching.prove(net.at, KEY)
        at_relay = net.joiner_at_relay()
        assert isinstance(at_relay.admission, Probation)
        await net.inviter.vouching.close(net.at, KEY)
        await net.inviter.vouching.keep(net.at, net.joiner.peer, "laptop")
        assert net.relay.kept == [(net.inviter.peer, net.joiner.peer, "laptop")]
        assert isinstance(at_relay.admission, Admit)
        await net.joiner.circuits.reserve(net.at)
        await net.inviter.vouching.keep(net.at, net.joiner.peer, "laptop")  # again: fine
        assert len(net.relay.kept) == 1


async def test_only_the_inviter_of_its_code_keeps_a_joiner(net):
    with trio.fail_after(30):
        await net.opened()
        with pytest.raises(RelayRefused):
            await net.inviter.vouching.keep(net.at, net.joiner.peer, "early")
        await net.joiner.vouching.prove(net.at, KEY)
        with pytest.raises(RelayRefused):
            await net.bystander.vouching.keep(net.at, net.joiner.peer, "mine")
    assert net.relay.kept == []


async def test_what_was_proved_is_forgotten_in_time(net, monkeypatch):
    with trio.fail_after(30):
        await net.opened()
        await net.joiner.vouching.prove(net.at, KEY)
        monkeypatch.setattr(vouch_server, "PROVED_FOR", -1.0)
        with pytest.raises(RelayRefused):
            await net.inviter.vouching.keep(net.at, net.joiner.peer, "late")


async def test_an_inviter_withdraws_its_own_joiners_only(net):
    with trio.fail_after(30):
        await net.opened()
        await net.joiner.vouching.prove(net.at, KEY)
        await net.inviter.vouching.keep(net.at, net.joiner.peer, "laptop")
        with pytest.raises(RelayRefused):
            await net.bystander.vouching.withdraw(net.at, net.joiner.peer)
        with pytest.raises(RelayRefused):
            await net.inviter.vouching.withdraw(net.at, net.bystander.peer)
        await net.inviter.vouching.withdraw(net.at, net.joiner.peer)
        assert net.relay.gate.allowlist.get(net.joiner.peer) is None
        await net.inviter.vouching.withdraw(net.at, net.joiner.peer)  # again: fine


async def test_a_full_disk_is_told(net, caplog):
    async def fail(*_: object) -> None:
        raise StorageFailed("no space left on device")

    with trio.fail_after(30):
        await net.opened()
        await net.joiner.vouching.prove(net.at, KEY)
        net.relay.server.vouching._keep_joiner = fail
        with pytest.raises(RelayRefused, match="could not write"):
            await net.inviter.vouching.keep(net.at, net.joiner.peer, "laptop")
        net.relay.allow(net.joiner, vouched_by=str(net.inviter.peer))
        net.relay.server.vouching._withdraw_joiner = fail
        with pytest.raises(RelayRefused, match="could not write"):
            await net.inviter.vouching.withdraw(net.at, net.joiner.peer)
    assert "no space left" in caplog.text


@pytest.mark.parametrize("deed", ["open", "close", "keep", "withdraw"])
async def test_a_peer_on_probation_may_only_prove(net, deed):
    words = {"open": (KEY, 100), "close": (KEY,), "keep": (net.joiner.peer, "me"), "withdraw": (net.inviter.peer,)}
    with trio.fail_after(30):
        await net.opened()
        with pytest.raises(RelayRefused, match="does not let us"):
            await getattr(net.joiner.vouching, deed)(net.at, *words[deed])


async def test_a_known_peer_may_prove_and_stays_what_it_is(net):
    with trio.fail_after(30):
        await net.opened()
        assert await net.bystander.vouching.prove(net.at, KEY) == net.inviter.peer
    assert isinstance(net.relay.host.connections(net.bystander.peer)[0].admission, Admit)


@pytest.mark.parametrize("junk", [b"", b"\x08\x63", b"\xff" * 100])
async def test_junk_is_answered_with_a_no(net, junk):
    with trio.fail_after(30):
        assert await ask(net.inviter, net, junk) == No(Reason.MALFORMED)


async def test_silence_ends(net, monkeypatch):
    monkeypatch.setattr(vouch_server, "REQUEST_LIMIT", 0.1)
    stream = await net.inviter.host.connections(net.relay.peer)[0].open_stream([PROTOCOL])
    with trio.fail_after(30), pytest.raises(StreamWasReset):
        while await stream.receive_some():
            pass
        raise StreamWasReset("a clean end")


async def test_nothing_else_is_served_to_a_joiner(net):
    with trio.fail_after(30):
        await net.opened()
        connection = await net.joiner.host.connect(net.relay.peer, [net.relay.address.address])
        for protocol in (ECHO, HOP_PROTOCOL, "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"):
            with pytest.raises(PeerupError):
                await connection.open_stream([protocol])


async def test_a_relay_that_ends_forgets_its_vouches(net):
    with trio.fail_after(30):
        await net.opened()
        await net.relay.stop()
    assert net.relay.server.vouching._open == []


# -- our side, against a relay that is odd ------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [Ok(), None])
async def test_an_odd_answer_is_told(net, answer, monkeypatch):
    monkeypatch.setattr(vouch, "ANSWER_LIMIT", 0.2)

    async def serve(stream: Stream) -> None:
        await receive_message(stream, MAX_MESSAGE)
        if answer is None:
            await trio.sleep_forever()
        await send_message(stream, answer.encode())

    net.relay.host.set_stream_handler(PROTOCOL, serve)
    with trio.fail_after(30), pytest.raises(PeerupError, match=r"without naming|no answer"):
        await net.bystander.vouching.prove(net.at, KEY)


async def ask(node: NodeMachine, net: Net, request: bytes):
    connection = await node.host.connect(net.relay.peer, [net.relay.address.address])
    async with await connection.open_stream([PROTOCOL]) as stream:
        await send_message(stream, request)
        return decode_answer(await receive_message(stream, MAX_MESSAGE))


async def test_hop_is_answered_with_permission_denied_when_the_vouch_is_over(net):
    with trio.fail_after(30):
        await net.opened()
        await net.joiner.vouching.prove(net.at, KEY)
        net.relay.server.vouching._proved.clear()
        connection = net.joiner.host.connections(net.relay.peer)[0]
        stream = await connection.open_stream([HOP_PROTOCOL])
        await send_message(stream, HopMessage(HopKind.CONNECT, peer=net.inviter.peer).encode())
        answer = HopMessage.decode(await receive_message(stream, MAX_HOP))
    assert answer.status is Status.PERMISSION_DENIED


async def test_only_so_many_joiners_are_remembered(net, monkeypatch):
    monkeypatch.setattr(vouch_server, "MAX_PROVED", 1)
    with trio.fail_after(30):
        await net.opened()
        await net.bystander.vouching.prove(net.at, KEY)
        await net.joiner.vouching.prove(net.at, KEY)
    assert list(net.relay.server.vouching._proved) == [net.joiner.peer]


async def test_another_inviter_cannot_take_back_what_a_joiner_has_proved(net):
    with trio.fail_after(30):
        await net.opened()
        await net.joiner.vouching.prove(net.at, KEY)
        await net.bystander.vouching.withdraw(net.at, net.joiner.peer)
        await net.inviter.vouching.keep(net.at, net.joiner.peer, "laptop")
    assert [joiner for _, joiner, _ in net.relay.kept] == [net.joiner.peer]


async def test_the_codes_of_a_removed_inviter_are_over(net):
    with trio.fail_after(30):
        await net.opened()
        net.relay.gate.replace(net.relay.gate.allowlist.remove(net.inviter.peer))
        net.relay.host.regate()
        with pytest.raises(RelayRefused, match="no open code fits"):
            await net.joiner.vouching.prove(net.at, KEY)
        await net.joiner_at_relay().close()
        with pytest.raises(PeerupError):  # nor is a stranger heard any more
            await net.joiner.vouching.prove(net.at, KEY)
        assert net.relay.host.connections(net.joiner.peer) == []
