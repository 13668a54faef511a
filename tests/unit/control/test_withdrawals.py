"""Relays are told that a peer is no longer welcome, until they have heard it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from peerupd.control import pairings, withdrawals
from peerupd.control.withdrawals import Withdrawals
from peerupd.model.errors import Unreachable
from peerupd.model.names import PeerId
from tests.support.fakes import peer_id

ANN, BOB = peer_id(1), peer_id(2)


class Relay:
    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.told: list[tuple[float, PeerId]] = []

    async def __call__(self, peer: PeerId) -> None:
        self.told.append((trio.current_time(), peer))
        if self.failures:
            self.failures -= 1
            raise Unreachable("away")


async def test_it_is_tried_again_until_it_is_heard(autojump_clock: Any) -> None:
    relay = Relay(failures=5)
    waiting = Withdrawals(relay)
    began = trio.current_time()
    waiting.ask(ANN)
    with trio.move_on_after(10_000):
        await waiting.run()
    assert [moment - began for moment, _ in relay.told] == [0, 30, 150, 750, 1350, 1950]


async def test_another_one_is_told_at_once(autojump_clock: Any) -> None:
    relay = Relay(failures=0)
    waiting = Withdrawals(relay)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiting.run)
        await trio.sleep(5)
        waiting.ask(BOB)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert [peer for _, peer in relay.told] == [BOB]


async def test_what_was_not_told_at_the_end_is_said(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    waiting = Withdrawals(Relay(failures=99))
    waiting.ask(ANN)
    with trio.move_on_after(1):
        await waiting.run()
    assert f"may still admit {ANN}" in caplog.text


async def test_who_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdrawals, "MAX_WAITING", 1)
    relay = Relay(failures=0)
    waiting = Withdrawals(relay)
    waiting.ask(ANN)
    waiting.ask(BOB)
    await waiting.settle()
    assert [peer for _, peer in relay.told] == [BOB]


async def test_every_relay_is_told_also_after_a_failure() -> None:
    told: list[PeerId] = []

    async def tell(relay: PeerId) -> None:
        told.append(relay)
        raise Unreachable(str(len(told)))

    with pytest.raises(Unreachable, match="1"):
        await pairings.each({ANN, BOB}, tell)
    assert set(told) == {ANN, BOB}


@pytest.mark.parametrize("failures", [0, 1])
async def test_who_loses_the_place_while_the_relays_are_told_harms_nobody(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(withdrawals, "MAX_WAITING", 1)
    relay = Relay(failures)

    async def tell_and_ask_again(peer: PeerId) -> None:
        if peer == ANN:
            waiting.ask(BOB)
        await relay(peer)

    waiting = Withdrawals(tell_and_ask_again)
    waiting.ask(ANN)
    await waiting.settle()
    await waiting.settle()
    assert [peer for _, peer in relay.told] == [ANN, BOB]
