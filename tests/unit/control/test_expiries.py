"""The ends of authorizations: at their moment, by a clock that may lie, and told a week ahead."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from peerupd.control.clock import Clock
from peerupd.control.disk import Disk
from peerupd.control.expiries import LONGEST_NAP, MAX_SHOWN, WARN_AHEAD, Expiries
from peerupd.model.names import PeerId
from peerupd.model.snapshots import AuthAdd, Nothing
from peerupd.trust.authorized_keys import Allowlist
from peerupd.trust.gate import Gate
from tests.support.fakes import peer_id
from tests.support.nodes import authorize, make_node, running_node, until

BUILT = 1_700_000_000.0
YEAR_2106 = 4_294_967_295.0
BOB, EVE = peer_id(7), peer_id(8)


class FakeDisk(Disk):
    """Without a thread: that and a jumping clock do not go together."""

    async def do(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        return work(*args, **kwargs)


def ending(peer: PeerId, end: float) -> str:
    return f"{peer} expires={datetime.fromtimestamp(end, UTC).isoformat()} # {peer.short}\n"


class House:
    """A gate, a wall clock to set, and what was cut when."""

    def __init__(self, folder: Path, text: str, wall: float = BUILT + 1000) -> None:
        self.offset = wall - trio.current_time()
        running = trio.current_time
        self.clock = Clock(folder / "key", wall=self.wall, running=running, built=BUILT)
        self.gate = Gate(enabled=True, allowlist=Allowlist.parse(text), role="node")
        self.expiries = Expiries(self.gate, self.clock, self.regate, FakeDisk())
        self.cuts: list[tuple[float, bool]] = []

    def wall(self) -> float:
        return trio.current_time() + self.offset

    def set_clock(self, wall: float) -> None:
        self.offset = wall - trio.current_time()

    def bob(self) -> bool:
        return self.gate.authorized(BOB, self.clock())

    def regate(self) -> None:
        """As the host's: whoever is not authorized now is cut now."""
        if not self.bob():
            self.cuts.append((self.wall(), self.bob()))


async def for_a_while(house: House, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await house.expiries.run()


@pytest.mark.parametrize("left", [0.5, 29.9, 100, 3600.25])
async def test_at_its_end_a_peer_is_cut_within_a_second(tmp_path: Path, autojump_clock: Any, left: float) -> None:
    house = House(tmp_path, ending(BOB, BUILT + 1000 + left))
    await for_a_while(house, left - 0.1)
    assert (house.cuts, house.bob()) == ([], True)
    await for_a_while(house, 1.1)
    assert 0 <= house.cuts[0][0] - (BUILT + 1000 + left) < 1


async def test_another_allowlist_counts_at_once(tmp_path: Path, autojump_clock: Any) -> None:
    house = House(tmp_path, f"{BOB}\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.expiries.run)
        await trio.sleep(1)
        house.gate.replace(Allowlist.parse(ending(BOB, house.wall() + 5)))
        house.expiries.changed()
        await trio.sleep(6)
        nursery.cancel_scope.cancel()
    assert house.cuts


async def test_a_clock_that_is_set_is_noticed_soon(tmp_path: Path, autojump_clock: Any) -> None:
    house = House(tmp_path, ending(BOB, BUILT + 86_400))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.expiries.run)
        await trio.sleep(1)
        house.set_clock(BUILT + 86_401)
        await trio.sleep(LONGEST_NAP)
        nursery.cancel_scope.cancel()
    assert house.cuts


@pytest.mark.parametrize("wall", [0.0, YEAR_2106])
async def test_a_clock_that_lies_revokes_nobody_and_revives_nobody(
    tmp_path: Path, autojump_clock: Any, wall: float
) -> None:
    text = ending(BOB, BUILT + 5000) + ending(EVE, BUILT + 900)

    def decisions(house: House) -> tuple[bool, bool]:
        return house.bob(), house.gate.authorized(EVE, house.clock())

    house = House(tmp_path, text)
    await for_a_while(house, 1)
    assert decisions(house) == (True, False)
    house.set_clock(wall)
    await for_a_while(house, 100)
    assert decisions(house) == (True, False)
    for _ in range(2):  # restarts with the clock that lies
        house = House(tmp_path, text, wall)
        await for_a_while(house, 100)
        assert (decisions(house), house.cuts) == ((True, False), [])
    house = House(tmp_path, text, BUILT + 5001)
    await for_a_while(house, 1)
    assert decisions(house) == (False, False)


async def test_who_is_over_in_the_end_stays_over_when_the_clock_then_breaks(
    tmp_path: Path, autojump_clock: Any
) -> None:
    text = ending(BOB, BUILT + 5000)
    await for_a_while(House(tmp_path, text), 4001)
    house = House(tmp_path, text, 0.0)
    assert not house.bob()


async def test_a_week_ahead_it_is_told_once_and_shown(
    tmp_path: Path, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    end = BUILT + 1000 + WARN_AHEAD + 60
    house = House(tmp_path, f"{ending(BOB, end)}{EVE}\n")
    await for_a_while(house, 50)
    assert (caplog.records, house.expiries.notices()) == ([], ())
    await for_a_while(house, 100)
    told = f"the authorization of {BOB.short} ({BOB.short}) ends at 2023-11-21T22:31:00Z"
    assert [record.message for record in caplog.records] == [told]
    assert house.expiries.notices() == (told,)
    await for_a_while(house, WARN_AHEAD)
    assert len(caplog.records) == 1
    assert house.expiries.notices() == ()


async def test_not_more_notices_are_shown_than_a_person_reads(tmp_path: Path) -> None:
    house = House(tmp_path, "".join(ending(peer_id(at), BUILT + 2000) for at in range(1, MAX_SHOWN + 5)))
    assert len(house.expiries.notices()) == MAX_SHOWN


async def test_a_live_connection_is_cut_at_the_end_of_its_authorization(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    home_config, laptop_config = make_node(tmp_path / "home"), make_node(tmp_path / "laptop")
    authorize(tmp_path / "laptop" / "authorized_keys", tmp_path / "home" / "identity.key")
    async with running_node(home_config) as home, running_node(laptop_config) as laptop:
        end = datetime.now(UTC).timestamp() + 2.0
        moment = datetime.fromtimestamp(end, UTC).isoformat()
        peer = laptop.node.host.peer_id
        await home.ask.auth_add(AuthAdd(str(peer), "laptop", moment))
        await until("the warning", lambda: f"the authorization of {peer.short} (laptop) ends at" in caplog.text)
        assert "ends at" in (await home.ask.status(Nothing())).problems[0]
        assert "DEGRADED" not in home.node.reports.in_a_line()
        await laptop.node.host.connect(home.node.host.peer_id, home.node.host.listen_addresses())
        await until("the connection", lambda: home.node.host.connections(peer))
        await until("the cut", lambda: not home.node.host.connections(peer))
        assert 0 <= datetime.now(UTC).timestamp() - end < 1
        await until("the other side's", lambda: not laptop.node.host.connections())
        assert (await home.ask.status(Nothing())).problems == ()
