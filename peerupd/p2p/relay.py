"""Hold a reservation on each of our relays, for as long as we run.

    Absent ──asked──▶ Reserving ──granted──▶ Reserved(until) ──lost, expired──▶ Lost(retry_at) ──asked──▶ Reserving
                          └──refused, failed──────────────────────────────────────▲

Theory of operation. One keeper per relay ID, whatever the number of its addresses: all are raced. A reservation is
renewed at two thirds of its life; in between it is looked at no less often than the configured interval, because a
machine that slept has a monotonic clock that did not run and a wall clock that did, and a wall clock that was set has
the opposite: whichever says "due" first is believed. The connection that carries the reservation tells us when it
ends, and a network change wakes us: waiting out a back-off while the cable is back in the wall is what made the
predecessor slow. A relay that is away is asked again every few seconds, never less often: an attempt is cheap, and
whoever waits for this node waits for its relay.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn, TypeAlias

import trio

from peerupd.model.addresses import Multiaddr, RelayAddress
from peerupd.model.errors import ConnectionLost, EnvironmentalError, PeerupError, RefusedError, RemoteError, TimedOut
from peerupd.model.logs import said
from peerupd.model.names import PeerId
from peerupd.model.snapshots import RelayStatus, ReservationChanged
from peerupd.p2p.bulkhead import contained

log = logging.getLogger(__name__)

FIRST_DELAY: Final = 0.5  # seconds; doubled up to the last
LAST_DELAY: Final = 4.0  # seconds between two attempts at a relay that is away: back within 5 s of its return
LAST_DELAY_REFUSED: Final = 15.0  # seconds; a relay that said no will say it again
OVERLAP: Final = 4.0  # seconds without an answer, then a fresh attempt beside: a lost packet is repeated too late
ASK_LIMIT: Final = 3 * OVERLAP  # seconds for one reservation, all attempts together
RENEW_AT: Final = 2 / 3  # of a reservation's life
LOOK_INTERVAL: Final = 120.0  # seconds; the longest time between two looks
MAX_ADDRESSES: Final = 8  # of one relay
AFTER_A_BUG: Final = 15.0  # seconds until a relay whose keeper has failed gets another one
SHORTEST_LIFE: Final = 30.0  # seconds; what a reservation with a nonsensical end is taken for
LONGEST_LIFE: Final = 2 * 3600.0  # seconds; likewise

Clock: TypeAlias = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Granted:
    """What a relay granted."""

    until: float
    """Seconds since the epoch, by the relay's clock."""
    lost: trio.Event
    """Set when the connection that carries the reservation has ended."""


@dataclass(frozen=True, slots=True)
class Absent:
    """Not asked for yet, or not wanted."""

    def __str__(self) -> str:
        return "absent"


@dataclass(frozen=True, slots=True)
class Reserving:
    """The relay is being asked."""

    def __str__(self) -> str:
        return "reserving"


@dataclass(frozen=True, slots=True)
class Reserved:
    """We can be reached through the relay."""

    until: float
    """Seconds since the epoch."""

    def __str__(self) -> str:
        return "reserved"


@dataclass(frozen=True, slots=True)
class Lost:
    """Nobody reaches us through the relay."""

    retry_at: float
    """On trio's clock."""
    why: PeerupError

    def __str__(self) -> str:
        return "lost"


State: TypeAlias = Absent | Reserving | Reserved | Lost
Ask: TypeAlias = Callable[[Sequence[RelayAddress]], Awaitable[Granted]]
Publish: TypeAlias = Callable[[ReservationChanged], None]
Announce: TypeAlias = Callable[[str, Sequence[Multiaddr]], None]


class Backoff:
    """Delays that double, each a little shorter by chance so that nodes do not come back in step."""

    def __init__(self, jitter: Callable[[float, float], float] = random.uniform) -> None:
        self._jitter = jitter
        self._delay = FIRST_DELAY

    def next(self, longest: float = LAST_DELAY) -> float:
        """Seconds to wait now."""
        delay = min(self._delay, longest)
        self._delay = min(2 * self._delay, LAST_DELAY_REFUSED)
        return self._jitter(0.75 * delay, delay)

    def reset(self) -> None:
        """Begin anew."""
        self._delay = FIRST_DELAY


@dataclass
class Keeper:
    """The reservation on one relay."""

    relay: PeerId
    addresses: tuple[RelayAddress, ...]
    ask: Ask
    publish: Publish
    interval: float = LOOK_INTERVAL
    clock: Clock = time.time
    backoff: Backoff = field(default_factory=Backoff)
    state: State = field(default_factory=Absent, init=False)
    _awake: trio.Event = field(default_factory=trio.Event, init=False)
    _said: str = field(default="", init=False)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Reserve, watch, reserve again; ends only by cancellation."""
        task_status.started()
        while True:
            granted = await self._reserve()
            await (self._watch(granted) if granted is not None else self._rest())

    def wake(self) -> None:
        """Look, or ask, at once: the network has changed."""
        self.backoff.reset()
        self._awake.set()

    def readdress(self, addresses: tuple[RelayAddress, ...]) -> None:
        """The relay is (also, or only) at these addresses now; what is held is held."""
        if addresses != self.addresses:
            self.addresses = addresses
            if not isinstance(self.state, Reserved):
                self.wake()

    def leave(self) -> None:
        """The relay is not wanted any more."""
        if not isinstance(self.state, Absent):
            self._become(Absent())

    def status(self) -> RelayStatus:
        """A picture for people."""
        held = self.state if isinstance(self.state, Reserved) else None
        lost = self.state if isinstance(self.state, Lost) else None
        return RelayStatus(
            peer_id=str(self.relay),
            addresses=tuple(str(address) for address in self.addresses),
            state=str(self.state),
            reserved_until=held.until if held else None,
            retry_in_seconds=max(0.0, lost.retry_at - trio.current_time()) if lost else None,
            why=str(lost.why) if lost else None,
        )

    def circuit_addresses(self) -> list[Multiaddr]:
        """Where we can be reached through this relay now."""
        if not isinstance(self.state, Reserved):
            return []
        return [Multiaddr((*a.address.with_peer(a.peer).parts, ("p2p-circuit", ""))) for a in self.addresses]

    async def _reserve(self) -> Granted | None:
        """Ask until there is an answer; a renewal leaves us `Reserved` meanwhile."""
        if not isinstance(self.state, Reserved):
            self._become(Reserving())
        self._awake = trio.Event()
        try:
            granted = await self._ask_overlapping()
        except (RefusedError, RemoteError, EnvironmentalError) as why:
            self._lose(why)
            return None
        self.backoff.reset()
        self._become(Reserved(until=granted.until))
        return granted

    async def _ask_overlapping(self) -> Granted:
        """The first answer; while none comes, further attempts beside the first. Raises what went wrong."""
        outcome: list[Granted | PeerupError] = []
        begun = 0
        with trio.move_on_after(ASK_LIMIT):
            async with trio.open_nursery() as attempts:

                async def attempt(number: int) -> None:
                    try:
                        outcome.append(await self.ask(self.addresses))
                    except (RefusedError, RemoteError, EnvironmentalError) as why:
                        if number < begun:
                            return  # a younger attempt may still have its answer
                        outcome.append(why)
                    attempts.cancel_scope.cancel()

                while True:
                    begun += 1
                    attempts.start_soon(attempt, begun)
                    await trio.sleep(OVERLAP)
        match outcome:
            case [Granted() as granted, *_]:
                return granted
            case [PeerupError() as why, *_]:
                raise why
        raise TimedOut(f"relay {self.relay.short} gave no answer in {ASK_LIMIT:g} s")

    async def _watch(self, granted: Granted) -> None:
        """Until the reservation is lost, due for renewal, or someone woke us."""
        life = min(max(granted.until - self.clock(), SHORTEST_LIFE), LONGEST_LIFE) * RENEW_AT
        due, due_on_the_wall = trio.current_time() + life, self.clock() + life
        while not self._awake.is_set():
            left = min(due - trio.current_time(), due_on_the_wall - self.clock(), self.interval)
            if left <= 0:
                return
            await _either(granted.lost, self._awake, left)
            if granted.lost.is_set():
                self._lose(ConnectionLost("the connection to it is gone"))
                return await self._rest()

    async def _rest(self) -> None:
        """Until the next attempt is due, or someone woke us."""
        assert isinstance(self.state, Lost)
        with trio.move_on_at(self.state.retry_at):
            await self._awake.wait()

    def _lose(self, why: PeerupError) -> None:
        match why:
            case RefusedError():
                delay = self.backoff.next(LAST_DELAY_REFUSED)
            case TimedOut():
                delay = FIRST_DELAY  # the latest attempt is old enough already
            case _:
                delay = self.backoff.next()
        self._become(Lost(retry_at=trio.current_time() + delay, why=why))

    def _become(self, state: State) -> None:
        before, self.state = self.state, state
        words = f"{before} -> {state}" + (f" ({state.why}), retrying" if isinstance(state, Lost) else "")
        noteworthy = isinstance(state, Lost | Absent) or not isinstance(before, type(state) | Lost | Absent)
        level = logging.INFO if noteworthy and words != self._said else logging.DEBUG
        self._said = words if noteworthy else self._said
        change = said("reservation.changed", relay=str(self.relay), before=str(before), after=str(state))
        log.log(level, "relay %s: %s", self.relay.short, words, extra=change)
        self.publish(ReservationChanged(self.relay, self.status()))


class Relays:
    """A keeper for each relay, as the configuration has them now."""

    def __init__(
        self,
        ask: Ask,
        publish: Publish,
        *,
        announce: Announce | None = None,
        interval: float = LOOK_INTERVAL,
        clock: Clock = time.time,
    ) -> None:
        """`announce` is told, by relay, at which addresses we can be reached through it; an empty list: no longer."""
        self._ask = ask
        self._publish = publish
        self._announce = announce
        self._interval = interval
        self._clock = clock
        self._keepers: dict[PeerId, Keeper] = {}
        self._running: dict[PeerId, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep all reservations; ends only by cancellation."""
        async with trio.open_nursery() as self._nursery:
            for keeper in self._keepers.values():
                self._start(keeper)
            task_status.started()
            await trio.sleep_forever()

    def set(self, relays: Sequence[RelayAddress]) -> None:
        """These are the relays from now on; several addresses of one relay ID are one relay.

        Addresses of a transport that is not there are left out; a relay with no other is held as absent.
        """
        wanted = _by_peer(relays)
        for peer, keeper in list(self._keepers.items()):
            if bool(wanted.get(peer)) is not bool(keeper.addresses) or peer not in wanted:
                self._drop(peer)
        for peer, addresses in wanted.items():
            if (known := self._keepers.get(peer)) is not None:
                known.readdress(addresses)
            else:
                self._keepers[peer] = Keeper(peer, addresses, self._ask, self._changed, self._interval, self._clock)
                self._start(self._keepers[peer])
        self._keepers = {peer: self._keepers[peer] for peer in wanted}

    def wake(self) -> None:
        """The network has changed: look at every reservation, ask again where there is none."""
        for keeper in self._keepers.values():
            keeper.wake()

    def knows(self, peer: PeerId) -> bool:
        """Whether this is a relay of ours."""
        return peer in self._keepers

    def statuses(self) -> list[RelayStatus]:
        """One picture per relay, in the order of the configuration."""
        return [keeper.status() for keeper in self._keepers.values()]

    def best_first(self) -> list[tuple[RelayAddress, ...]]:
        """The addresses of each relay; those that hold our reservation, thus answer, before the others."""
        keepers = sorted(self._keepers.values(), key=lambda keeper: not isinstance(keeper.state, Reserved))
        return [keeper.addresses for keeper in keepers]

    def circuit_addresses(self) -> list[Multiaddr]:
        """Where we can be reached through the relays that hold our reservation: `.../p2p/<relay>/p2p-circuit`."""
        return [address for keeper in self._keepers.values() for address in keeper.circuit_addresses()]

    def _changed(self, change: ReservationChanged) -> None:
        keeper = self._keepers.get(change.relay)
        if self._announce is not None:
            self._announce(str(change.relay), keeper.circuit_addresses() if keeper else [])
        self._publish(change)

    def _start(self, keeper: Keeper) -> None:
        if self._nursery is None or not keeper.addresses:
            return
        scope = self._running[keeper.relay] = trio.CancelScope()
        self._nursery.start_soon(self._keep, keeper, scope)

    async def _keep(self, keeper: Keeper, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                await contained(f"the reservation at relay {keeper.relay.short}", keeper.run)
                await trio.sleep(AFTER_A_BUG)

    def _drop(self, peer: PeerId) -> None:
        if (scope := self._running.pop(peer, None)) is not None:
            scope.cancel()
        self._keepers.pop(peer).leave()


def _by_peer(relays: Sequence[RelayAddress]) -> dict[PeerId, tuple[RelayAddress, ...]]:
    found: dict[PeerId, tuple[RelayAddress, ...]] = {}
    for relay in relays:
        known = found.setdefault(relay.peer, ())
        if relay.usable and relay not in known:
            found[relay.peer] = (*known, relay)[:MAX_ADDRESSES]
    return found


async def _either(one: trio.Event, other: trio.Event, limit: float) -> None:
    """Until one of the events is set, or `limit` seconds have passed."""
    with trio.move_on_after(limit):
        async with trio.open_nursery() as nursery:

            async def wait(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait, one)
            nursery.start_soon(wait, other)
