"""The watchdog's beat."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from peerupd.control import health
from peerupd.control.health import Check
from peerupd.model.addresses import Multiaddr


class Answers:
    def __init__(self) -> None:
        self.good = True
        self.beats: list[float] = []

    async def passes(self) -> bool:
        return self.good

    def beat(self) -> None:
        self.beats.append(trio.current_time())


async def test_it_beats_while_all_is_well_and_stops_when_a_check_fails(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answers = Answers()
    began = trio.current_time()
    with trio.move_on_after(31):
        await health.watch([Check("a", answers.passes)], answers.beat, 30)
    assert [moment - began for moment in answers.beats] == [10, 20, 30]
    answers.good = False
    with trio.move_on_after(31):
        await health.watch([Check("a", answers.passes)], answers.beat, None)
    assert len(answers.beats) == 3
    assert "health check failed: a, no watchdog beat" in caplog.text


async def test_a_loop_that_did_not_turn_gives_no_beat(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def late(deadline: float) -> None:
        await trio.sleep(deadline - trio.current_time() + 6)

    monkeypatch.setattr("trio.sleep_until", late)
    answers = Answers()
    with trio.move_on_after(25):
        await health.watch([], answers.beat, None)
    assert answers.beats == []
    assert "event loop (6.0 s late)" in caplog.text


async def test_a_check_that_does_not_end_fails(autojump_clock: Any) -> None:
    async def forever() -> bool:
        await trio.sleep_forever()
        raise AssertionError

    assert await health.failing([Check("slow", forever), Check("good", Answers().passes)]) == ["slow"]


async def test_a_listener_is_asked_on_loopback_when_it_is_everywhere() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    assert await health.accepts(Multiaddr.parse(f"/ip4/0.0.0.0/tcp/{port}"))
    assert await health.accepts(Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{port}"))
    await listeners[0].aclose()
    assert not await health.accepts(Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{port}"))
    assert not await health.accepts(Multiaddr.parse("/p2p-circuit"))
