"""The end comes in time, whoever hangs."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from peerupd.control import lifetime
from peerupd.control.bus import Bus
from peerupd.model.snapshots import ServicesChanged
from tests.support.nodes import FakeManager


async def test_whoever_hangs_is_cut_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    done: list[str] = []
    monkeypatch.setattr(lifetime, "DRAIN_LIMIT", 0.01)
    monkeypatch.setattr("os._exit", lambda status: (done.append(f"exit {status}"), ended.set()))
    stop = trio.Event()
    with lifetime.insisting(lambda: done.append("removed")) as insist:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(insist, stop)
            stop.set()
        assert await trio.to_thread.run_sync(ended.wait, 5)
    assert done == ["removed", "exit 0"]


async def test_an_end_in_time_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os._exit", lambda status: pytest.fail("cut"))
    stop = trio.Event()
    stop.set()
    with lifetime.insisting() as insist:
        await insist(stop)


async def test_the_status_line_follows_events_and_is_not_repeated(autojump_clock: trio.testing.MockClock) -> None:
    bus, manager, lines = Bus(), FakeManager(), iter(["a", "a", "b", "b", "b"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lifetime.tell_status, bus, lambda: next(lines, "b"), manager)
        await trio.sleep(1)
        bus.publish(ServicesChanged())
        bus.publish(ServicesChanged())
        await trio.sleep(2)
        assert manager.told == ["STATUS a"]
        await trio.sleep(31)
        assert manager.told == ["STATUS a", "STATUS b"]
        nursery.cancel_scope.cancel()
