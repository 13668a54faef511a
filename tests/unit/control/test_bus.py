"""Events, published without waiting and heard in order."""

from __future__ import annotations

import trio
import trio.testing

from peerupd.control.bus import MAX_WAITING, Bus
from peerupd.model.snapshots import ServicesChanged


def event(number: int) -> ServicesChanged:
    return ServicesChanged((str(number),))


async def test_everybody_who_listens_hears_everything_in_order() -> None:
    bus = Bus()
    bus.publish(event(0))
    with bus.subscribe() as one, bus.subscribe() as two:
        bus.publish(event(1))
        bus.publish(event(2))
        assert [await one.next(), await one.next()] == [event(1), event(2)]
        async for heard in two:
            assert heard == event(1)
            break


async def test_a_listener_can_wait() -> None:
    bus = Bus()
    with bus.subscribe() as listener:
        async with trio.open_nursery() as nursery:

            async def hear() -> None:
                with trio.fail_after(30):
                    assert await listener.next() == event(1)

            nursery.start_soon(hear)
            await trio.testing.wait_all_tasks_blocked()
            bus.publish(event(1))


async def test_a_slow_listener_loses_the_oldest_and_stops_nobody() -> None:
    bus = Bus()
    with bus.subscribe() as slow:
        for number in range(MAX_WAITING + 3):
            bus.publish(event(number))
        assert (await slow.next(), slow.lost) == (event(3), 3)
        slow.clear()
        bus.publish(event(9))
        assert await slow.next() == event(9)


async def test_who_has_gone_hears_nothing() -> None:
    bus = Bus()
    with bus.subscribe() as gone:
        pass
    bus.publish(event(1))
    assert gone.lost == 0
    with trio.move_on_after(0) as nothing:
        await gone.next()
    assert nothing.cancelled_caught
