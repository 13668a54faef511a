"""Who goes at once, who waits, and in which order."""

import trio
from trio.testing import wait_all_tasks_blocked

from peerupd.features import lanes
from peerupd.features.lanes import CROWDED_STREAMS, PEER_STREAMS, Lane, Lanes


class Travellers:
    def __init__(self, nursery, crowded=True):
        self.nursery = nursery
        self.crowded = crowded
        self.lane = Lane(lambda: CROWDED_STREAMS if self.crowded else PEER_STREAMS)
        self.inside = []
        self.leave = {}
        self.scopes = {}

    async def enter(self, *numbers):
        for number in numbers:
            self.nursery.start_soon(self._travel, number)
            await wait_all_tasks_blocked()

    async def _travel(self, number):
        self.leave[number] = trio.Event()
        with trio.CancelScope() as self.scopes[number]:
            async with self.lane.place():
                self.inside.append(number)
                await self.leave[number].wait()


async def test_all_go_at_once_towards_peers_that_are_not_crowded(nursery):
    travellers = Travellers(nursery, crowded=False)
    for number in range(500):
        nursery.start_soon(travellers._travel, number)
    await wait_all_tasks_blocked()
    assert len(travellers.inside) == travellers.lane.running == 500
    nursery.cancel_scope.cancel()


async def test_towards_crowded_peers_the_rest_waits_in_the_order_it_came(nursery):
    travellers = Travellers(nursery)
    await travellers.enter(*range(CROWDED_STREAMS + 3))
    assert travellers.inside == list(range(CROWDED_STREAMS))
    for number in (7, 5):
        travellers.leave[number].set()
        await wait_all_tasks_blocked()
    assert travellers.inside[CROWDED_STREAMS:] == [CROWDED_STREAMS, CROWDED_STREAMS + 1]
    nursery.cancel_scope.cancel()


async def test_all_move_up_when_the_peer_turns_out_not_to_be_crowded(nursery):
    travellers = Travellers(nursery)
    await travellers.enter(*range(CROWDED_STREAMS + 3))
    travellers.crowded = False
    travellers.lane.move_up()
    await wait_all_tasks_blocked()
    assert travellers.lane.running == CROWDED_STREAMS + 3
    nursery.cancel_scope.cancel()


async def test_one_that_gives_up_leaves_its_place_to_the_next(nursery):
    travellers = Travellers(nursery)
    await travellers.enter(*range(CROWDED_STREAMS + 2))
    travellers.scopes[CROWDED_STREAMS].cancel()
    await wait_all_tasks_blocked()
    travellers.leave[0].set()
    await wait_all_tasks_blocked()
    assert travellers.inside[-1] == CROWDED_STREAMS + 1
    nursery.cancel_scope.cancel()


async def test_one_that_gives_up_just_as_it_may_go_loses_no_place(nursery):
    travellers = Travellers(nursery)
    await travellers.enter(*range(CROWDED_STREAMS + 2))
    travellers.leave[0].set()
    travellers.scopes[CROWDED_STREAMS].cancel()
    await wait_all_tasks_blocked()
    assert travellers.inside[-1] == CROWDED_STREAMS + 1
    assert travellers.lane.running == CROWDED_STREAMS
    for number in (*range(1, CROWDED_STREAMS), CROWDED_STREAMS + 1):
        travellers.leave[number].set()
    await wait_all_tasks_blocked()
    assert travellers.lane.idle


async def test_the_turn_and_the_cancellation_may_come_together(nursery):
    travellers = Travellers(nursery)
    await travellers.enter(*range(CROWDED_STREAMS + 1))
    travellers.lane.running -= 1
    travellers.lane.move_up()
    travellers.scopes[CROWDED_STREAMS].cancel()
    await wait_all_tasks_blocked()
    assert travellers.lane.running in (CROWDED_STREAMS - 1, CROWDED_STREAMS)
    nursery.cancel_scope.cancel()


class Crossing:
    """Travellers to several services of one peer."""

    def __init__(self, nursery):
        self.nursery = nursery
        self.lanes = Lanes(lambda peer: peer == "crowded")
        self.inside = []
        self.leave = trio.Event()

    async def _travel(self, peer, service):
        async with self.lanes.place(peer, service):
            self.inside.append((peer, service))
            await self.leave.wait()

    async def enter(self, count, peer, service):
        for _ in range(count):
            self.nursery.start_soon(self._travel, peer, service)
        await wait_all_tasks_blocked()


async def test_all_services_of_a_peer_share_its_streams(nursery, monkeypatch):
    monkeypatch.setattr(lanes, "PEER_STREAMS", 5)
    crossing = Crossing(nursery)
    await crossing.enter(3, "peer", "web")
    await crossing.enter(3, "peer", "ssh")
    await crossing.enter(3, "other", "web")
    assert len(crossing.inside) == 5 + 3
    crossing.leave.set()
    await wait_all_tasks_blocked()
    assert len(crossing.inside) == 9
    assert not crossing.lanes._lanes


async def test_a_crowded_service_takes_no_places_from_the_others(nursery, monkeypatch):
    monkeypatch.setattr(lanes, "CROWDED_STREAMS", 2)
    monkeypatch.setattr(lanes, "PEER_STREAMS", 5)
    crossing = Crossing(nursery)
    await crossing.enter(9, "crowded", "web")
    await crossing.enter(2, "crowded", "ssh")
    assert crossing.inside == [("crowded", "web")] * 2 + [("crowded", "ssh")] * 2
    crossing.lanes.move_up("crowded", "web")
    crossing.lanes.move_up("unknown", "web")
    crossing.leave.set()
    await wait_all_tasks_blocked()
    assert len(crossing.inside) == 11
