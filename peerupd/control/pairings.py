"""Pairing as verbs: the two rooms that do it, introduced to the files, the gate and the relays of this node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from peerupd.config.edits import Append, Put
from peerupd.control.authorization import Authorization
from peerupd.control.bus import Bus
from peerupd.control.configuration import Configuration
from peerupd.control.relay_list import ADDRESSES
from peerupd.features.inviting import Inviting
from peerupd.features.joining import Joining
from peerupd.features.streams import ByteStream
from peerupd.model.addresses import RelayAddress
from peerupd.model.errors import Unreachable
from peerupd.model.names import PeerId
from peerupd.model.snapshots import InviteAsk, InviteOpened, InviteOutcome, Join, Joined
from peerupd.p2p.circuit import Circuits
from peerupd.p2p.host import Host
from peerupd.p2p.relay import Relays
from peerupd.p2p.vouch import Vouching

RESERVATION_PATIENCE: Final = 10.0  # seconds that `open` waits for a relay to hold a slot for us

Progress = Callable[[str], None]


class Pairings:
    """Invites and joining, by the verbs' words."""

    def __init__(
        self,
        inviting: Inviting,
        joining: Joining,
        books: Books,
        relays: Relays,
        bus: Bus,
    ) -> None:
        self._inviting = inviting
        self._joining = joining
        self._books = books
        self._relays = relays
        self._bus = bus
        self.progress: Progress = lambda _: None
        """Told each step of joining in words."""
        self.config_created = False
        """Whether the configuration was made for this joining."""

    async def open(self, ask: InviteAsk) -> InviteOpened:
        """A code, once a relay holds a slot for us; raises as `Inviting.open`."""
        await self._await_reservation()
        return await self._inviting.open(ask)

    async def wait(self, invite: str) -> InviteOutcome:
        """How it ended, awaited; raises `UnknownInvite`."""
        return await self._inviting.wait(invite)

    async def cancel(self, invite: str) -> InviteOutcome:
        """End it now, unless it is over; raises `UnknownInvite`."""
        self._inviting.cancel(invite)
        return await self._inviting.wait(invite)

    async def join(self, ask: Join) -> Joined:
        """Join by a code; raises as `Joining.join`."""
        pairing = await self._joining.join(ask.code, ask.name, allow_legacy=ask.allow_legacy, progress=self.progress)
        own_network = self._books.configuration.settings.network
        differs = f"the inviter is in the network {pairing.network!r}, this node is in {own_network!r}"
        return Joined(
            peer_id=str(pairing.peer),
            name=pairing.name,
            own_peer_id=str(self._books.own),
            relay=str(pairing.relay),
            config=str(self._books.configuration.file.path),
            config_created=self.config_created,
            authorized_keys=str(self._books.configuration.settings.authorized_keys_file or ""),
            notes=(differs,) if pairing.network != own_network else (),
        )

    async def _await_reservation(self) -> None:
        with trio.move_on_after(RESERVATION_PATIENCE), self._bus.subscribe() as events:
            while self._relays.statuses() and not holding(self._relays):
                await events.next()


def holding(relays: Relays) -> list[RelayAddress]:
    """The addresses of the relays that hold a slot for us, best first."""
    reserved = {status.peer_id for status in relays.statuses() if status.state == "reserved"}
    return [address for group in relays.best_first() for address in group if str(address.peer) in reserved]


@dataclass(frozen=True, slots=True)
class Books:
    """Who writes down what pairing brings: the allowlist, `names:` and `relay.addresses`."""

    own: PeerId
    authorization: Authorization
    configuration: Configuration

    async def admit(self, peer: PeerId, comment: str, /) -> None:
        """Let the peer in."""
        await self.authorization.ensure(peer, comment)

    def names(self) -> Mapping[str, PeerId]:
        """The names in force."""
        return self.configuration.settings.names

    async def put(self, name: str, peer: PeerId, /) -> None:
        """One more name."""
        await self.configuration.edit(Put(("names", name), str(peer)))

    async def add(self, relay: RelayAddress, /) -> None:
        """One more relay address, unless it is there."""
        await self.configuration.edit(Append(ADDRESSES, str(relay)))


@dataclass(frozen=True, slots=True)
class Ways:
    """How the pairing rooms reach relays: p2p wants all addresses of a relay, they know its peer ID."""

    host: Host
    circuits: Circuits
    vouching: Vouching
    configuration: Configuration
    met: dict[PeerId, RelayAddress]
    """Relays of codes, which the configuration may not have yet."""

    async def reach(self, relay: RelayAddress, /) -> None:
        """Be connected to the relay of a code."""
        self.met[relay.peer] = relay
        await self.host.connect(relay.peer, [relay.address])

    async def open_through(self, relay: RelayAddress, peer: PeerId, protocols: Sequence[str], /) -> ByteStream:
        """A stream to `peer` over a new circuit."""
        connection = await self.circuits.dial([relay], peer)
        return await connection.open_stream(protocols)

    async def open(self, relay: PeerId, key: bytes, seconds: float, /) -> None:
        """Vouch."""
        await self.vouching.open(self._addresses(relay), key, seconds)

    async def close(self, relay: PeerId, key: bytes, /) -> None:
        """Vouch no more."""
        await self.vouching.close(self._addresses(relay), key)

    async def keep(self, relay: PeerId, peer: PeerId, name: str, /) -> None:
        """Have the relay keep a joiner."""
        await self.vouching.keep(self._addresses(relay), peer, name)

    async def prove(self, relay: PeerId, key: bytes, /) -> PeerId:
        """Show that we hold a code."""
        return await self.vouching.prove(self._addresses(relay), key)

    async def withdraw(self, peer: PeerId) -> None:
        """Have every relay of ours forget a peer; raises what the first one that failed raised."""
        relays = {relay.peer for relay in self.configuration.settings.relays if relay.usable}
        await each(relays, lambda relay: self.vouching.withdraw(self._addresses(relay), peer))

    def _addresses(self, relay: PeerId) -> list[RelayAddress]:
        configured = [known for known in self.configuration.settings.relays if known.peer == relay and known.usable]
        found = configured or [self.met[relay]] if relay in self.met or configured else []
        if not found:
            raise Unreachable(f"no address of relay {relay} is known")
        return found


async def each(relays: set[PeerId], tell: Callable[[PeerId], Awaitable[object]]) -> None:
    """Tell every relay, also after a failure; raises the first failure."""
    troubles: list[Exception] = []
    for relay in relays:
        try:
            await tell(relay)
        except Exception as why:  # what it is decides the caller, once all have been told
            troubles.append(why)
    if troubles:
        raise troubles[0]
