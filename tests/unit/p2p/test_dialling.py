"""The race for a peer: who starts when, who wins, what is told of those who lose."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from peerupd.model.addresses import Multiaddr
from peerupd.model.counters import DIALS, Counters
from peerupd.model.errors import GateRefused, ProtocolViolation, RelayRefused, TimedOut, Unreachable, WrongPeer
from peerupd.model.snapshots import PathKind
from peerupd.p2p.dialling import DIAL_LIMIT, MAX_DIALLED, STAGGER, connect, counted, race
from peerupd.trust.identity import Identity

PEER = Identity.generate().peer_id


def at(port: int) -> Multiaddr:
    return Multiaddr.parse(f"/ip4/192.0.2.1/tcp/{port}")


class Runners:
    """Each address has its fate: seconds until it answers, or until it raises."""

    def __init__(self, **fates: tuple[float, Exception | None]) -> None:
        self.fates = {int(name[1:]): fate for name, fate in fates.items()}
        self.started: dict[int, float] = {}
        self.lost: list[int] = []

    async def run(self) -> int:
        began = trio.current_time()

        async def attempt(address: Multiaddr) -> int:
            port = address.port or 0
            self.started[port] = trio.current_time() - began
            seconds, failure = self.fates[port]
            await trio.sleep(seconds)
            if failure is not None:
                raise failure
            return port

        return await race(PEER, [at(port) for port in self.fates], attempt, self.lost.append)


async def test_the_next_one_starts_a_quarter_of_a_second_later(autojump_clock: trio.testing.MockClock) -> None:
    runners = Runners(p1=(5, None), p2=(5, None), p3=(1, None))
    assert await runners.run() == 3
    assert runners.started == {1: 0, 2: pytest.approx(STAGGER), 3: pytest.approx(2 * STAGGER)}


async def test_a_failure_starts_the_next_one_at_once(autojump_clock: trio.testing.MockClock) -> None:
    runners = Runners(p1=(0.01, OSError(111, "Connection refused")), p2=(1, None))
    assert await runners.run() == 2
    assert runners.started[2] == pytest.approx(0.01)


async def test_who_does_not_answer_is_given_up_after_ten_seconds(autojump_clock: trio.testing.MockClock) -> None:
    runners = Runners(p1=(1000, None))
    began = trio.current_time()
    with pytest.raises(Unreachable, match="no answer within 10 s"):
        await runners.run()
    assert trio.current_time() - began == pytest.approx(DIAL_LIMIT)


async def test_a_second_winner_is_handed_back() -> None:
    gate = trio.Event()

    async def attempt(address: Multiaddr) -> int:
        await gate.wait()
        return address.port or 0

    lost: list[int] = []
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            won = await race(PEER, [at(1), at(2)], attempt, lost.append)
            assert {won, *lost} == {1, 2}

        nursery.start_soon(run)
        await trio.sleep(STAGGER * 2)
        gate.set()


async def test_a_winner_that_nobody_waits_for_any_more_is_handed_back() -> None:
    lost: list[int] = []
    with trio.CancelScope() as scope:

        async def attempt(address: Multiaddr) -> int:
            await trio.lowlevel.checkpoint()
            scope.cancel()
            return 1

        await race(PEER, [at(1)], attempt, lost.append)
    assert (scope.cancelled_caught, lost) == (True, [1])


async def test_a_gate_that_refuses_is_the_news(autojump_clock: trio.testing.MockClock) -> None:
    refused = GateRefused("the peer closed the connection", hint="run this")
    with pytest.raises(GateRefused, match=r"tcp/1: .*closed.*tcp/2: Connection refused.*run this"):
        await Runners(p1=(0, refused), p2=(0, OSError(111, "Connection refused"))).run()


async def test_only_wrong_peers_make_a_wrong_peer(autojump_clock: trio.testing.MockClock) -> None:
    wrong = WrongPeer("somebody else")
    with pytest.raises(WrongPeer):
        await Runners(p1=(0, wrong), p2=(0, wrong)).run()
    with pytest.raises(Unreachable, match="somebody else"):
        await Runners(p1=(0, wrong), p2=(0, ProtocolViolation("nonsense"))).run()


async def test_an_error_without_words_is_told_by_its_kind(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(Unreachable, match="BrokenResourceError"):
        await Runners(p1=(0, trio.BrokenResourceError())).run()


async def test_a_bug_ends_one_dial_and_is_logged(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Unreachable, match="ZeroDivisionError"):
        await Runners(p1=(0, ZeroDivisionError())).run()
    assert "a bug ended a dial to" in caplog.text


async def test_few_are_dialled_and_none_twice(autojump_clock: trio.testing.MockClock) -> None:
    tried: list[Multiaddr] = []

    async def attempt(address: Multiaddr) -> None:
        tried.append(address)
        raise OSError(111, "Connection refused")

    crowd = [at(1), at(1).with_peer(PEER), *(at(port) for port in range(1, 100))]
    with pytest.raises(Unreachable):
        await race(PEER, [Multiaddr.parse("/ip4/192.0.2.1/udp/1/quic-v1"), *crowd], attempt, lambda _: None)
    assert tried == [at(port) for port in range(1, MAX_DIALLED + 1)]


async def test_a_name_without_an_address() -> None:
    with pytest.raises(OSError, match=r"."):
        await connect(Multiaddr.parse("/dns4/nobody.invalid/tcp/1"))


async def test_cancelling_a_connect_leaves_no_socket() -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # the queue is full; later ones wait for their first answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with trio.move_on_after(0.05) as scope:
            await connect(Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{full.getsockname()[1]}"))
        assert scope.cancelled_caught


@pytest.mark.parametrize("name", ["a..b", "\N{SNOWMAN}", "a" * 70])
async def test_a_name_that_no_host_can_have_is_a_failure_like_any_other(name: str) -> None:
    with pytest.raises(Unreachable, match="not a host name"):
        await race(PEER, [Multiaddr.parse(f"/dns4/{name}/tcp/9")], connect, lambda _: None)


@pytest.mark.parametrize(
    ("why", "result"),
    [
        (GateRefused("no"), "refused"),
        (RelayRefused("no"), "refused"),
        (WrongPeer("another"), "wrong_peer"),
        (TimedOut("late"), "timeout"),
        (Unreachable("away"), "failure"),
        (ZeroDivisionError("a bug"), "failure"),
    ],
)
def test_a_dial_that_fails_is_counted_by_how(why: Exception, result: str) -> None:
    made = Counters()
    with pytest.raises(type(why)), counted(made, PathKind.DIRECT):
        raise why
    assert made.get(DIALS, path_type="DIRECT", result=result) == made.get(DIALS) == 1


async def test_dials_that_succeed_and_that_are_called_off_are_counted() -> None:
    made = Counters()
    with counted(made, PathKind.RELAYED):
        pass
    with trio.CancelScope() as scope, counted(made, PathKind.DIRECT):
        scope.cancel()
        await trio.sleep_forever()
    assert made.get(DIALS, path_type="RELAYED", result="success") == 1
    assert made.get(DIALS, path_type="DIRECT", result="called_off") == 1
