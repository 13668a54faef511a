"""Every verb, once: what can be asked of a node, by whom, and what is answered.

Requests and reports are frozen values of `peerupd.model.snapshots`. There is no HTTP here: the doors make requests of
whatever they hear and show reports in whatever form is wanted; the table `VERBS` tells them what there is. What is not
in it cannot be called.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import trio

from peerupd.control import relay_list
from peerupd.control.authorization import Authorization, expiry
from peerupd.control.configuration import Configuration
from peerupd.control.forwards import Forwards
from peerupd.control.names import Names
from peerupd.control.offers import Offers
from peerupd.control.pairings import Pairings
from peerupd.control.reports import Reports
from peerupd.control.verbs import Access, Verb, table, verb
from peerupd.control.withdrawals import Withdrawals
from peerupd.features.probe import Probe
from peerupd.features.proxy import Proxies
from peerupd.features.pump import End
from peerupd.model import version
from peerupd.model.errors import RequestError
from peerupd.model.names import PeerId
from peerupd.model.snapshots import (
    AuthAdd,
    AuthEntry,
    AuthRemove,
    AuthReport,
    AuthValidate,
    Connect,
    Disconnect,
    Done,
    Expose,
    InviteAsk,
    InviteOpened,
    InviteOutcome,
    InviteRef,
    Join,
    Joined,
    NodeStatus,
    Nothing,
    PeersQuery,
    PeerStatus,
    Ping,
    PingReport,
    Pipe,
    ProxyStatus,
    RelayAdd,
    RelayRemove,
    RelaysChanged,
    RelayStatus,
    Resolve,
    Resolved,
    ServiceAdd,
    ServiceRef,
    ServiceStatus,
    Version,
    Whoami,
)

OBSERVE, OPERATE, ADMINISTER = Access.OBSERVE, Access.OPERATE, Access.ADMINISTER

Announce = Callable[[ProxyStatus], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Parts:
    """Who does the work, introduced by the assembler."""

    own: PeerId
    configuration: Configuration
    names: Names
    reports: Reports
    offers: Offers
    authorization: Authorization
    forwards: Forwards
    proxies: Proxies
    probe: Probe
    pairings: Pairings
    withdrawals: Withdrawals
    stop: trio.Event


class Operations:
    """The verbs of a node."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    # -- what there is ---------------------------------------------------------------------------------------------

    @verb(OBSERVE)
    async def status(self, ask: Nothing) -> NodeStatus:
        """How the node is: who it is, for how long it runs (seconds), where it listens, its relays, what to mend."""
        return self._parts.reports.status()

    @verb(OBSERVE)
    async def version(self, ask: Nothing) -> Version:
        """The version, commit and build date of the running program, and its Python."""
        return version.own()

    @verb(OBSERVE)
    async def whoami(self, ask: Nothing) -> Whoami:
        """The node's peer ID."""
        return Whoami(str(self._parts.own))

    @verb(OBSERVE)
    async def peers(self, ask: PeersQuery) -> tuple[PeerStatus, ...]:
        """Connected peers, those that are not peerup's only with `all`."""
        return self._parts.reports.peers(everyone=ask.all)

    # -- services --------------------------------------------------------------------------------------------------

    @verb(OBSERVE)
    async def services(self, ask: Nothing) -> tuple[ServiceStatus, ...]:
        """The services of this node, by name."""
        return self._parts.offers.list()

    @verb(OPERATE)
    async def service_add(self, ask: ServiceAdd) -> ServiceStatus:
        """Offer a service, live and in the configuration; a warning says when nothing answers at its address.

        Raises `InvalidName`, `InvalidAddress`, `AlreadyExists`, `UnknownPeer`, `StorageFailed`.
        """
        return await self._parts.offers.add(ask)

    @verb(OPERATE)
    async def service_remove(self, ask: ServiceRef) -> Done:
        """Offer a service no more, live and in the configuration; its streams end. Raises `UnknownService`."""
        await self._parts.offers.remove(ask.name)
        return Done("removed")

    @verb(OPERATE)
    async def service_enable(self, ask: ServiceRef) -> Done:
        """Take new streams of a configured service again, live and in the configuration. Raises `UnknownService`."""
        return Done("enabled" if await self._parts.offers.switch(ask.name, enabled=True) else "already enabled")

    @verb(OPERATE)
    async def service_disable(self, ask: ServiceRef) -> Done:
        """Take no new streams, live and in the configuration; running ones go on. Raises `UnknownService`."""
        return Done("disabled" if await self._parts.offers.switch(ask.name, enabled=False) else "already disabled")

    @verb(OPERATE)
    async def expose(self, ask: Expose) -> Done:
        """Offer a service until the daemon ends, or with `persist` in the configuration too. As `service_add`."""
        if ask.persist:
            await self._parts.offers.add(ServiceAdd(ask.name, ask.local_address))
        else:
            self._parts.offers.expose(ask.name, ask.local_address)
        return Done("exposed")

    @verb(OPERATE)
    async def unexpose(self, ask: ServiceRef) -> Done:
        """Offer a service no more until the daemon ends; the configuration stays. Raises `UnknownService`."""
        self._parts.offers.unexpose(ask.name)
        return Done("unexposed")

    # -- who may come in -------------------------------------------------------------------------------------------

    @verb(OBSERVE)
    async def auth_list(self, ask: Nothing) -> tuple[AuthEntry, ...]:
        """The allowlist in force; empty without a gate."""
        return self._parts.authorization.list()

    @verb(ADMINISTER)
    async def auth_add(self, ask: AuthAdd) -> Done:
        """Let a peer in, at once. Raises `InvalidPeerId`, `AlreadyExists`, `RequestError`, `StorageFailed`."""
        peer = _peer(ask.peer_id)
        await self._parts.authorization.add(peer, ask.comment, **expiry(ask.expires))
        return Done("added")

    @verb(ADMINISTER)
    async def auth_remove(self, ask: AuthRemove) -> Done:
        """Shut a peer out: its connections are closed at once, and a relay at which we vouched for it forgets it.

        The peer may be given by its name. Raises `UnknownPeer`, `StorageFailed`.
        """
        peer = self._parts.names.resolve(ask.peer_id)
        await self._parts.authorization.remove(peer)
        self._parts.withdrawals.ask(peer)
        return Done("removed")

    @verb(ADMINISTER)
    async def auth_validate(self, ask: AuthValidate) -> AuthReport:
        """What is wrong with the allowlist's file, or with another one. Raises `NotFound`, `InsecurePermissions`."""
        return await self._parts.authorization.validate(ask.file)

    @verb(ADMINISTER)
    async def invite_open(self, ask: InviteAsk) -> InviteOpened:
        """Open an invite code for `ttl_seconds`, to be joined once. Raises `NoRelay`, `LimitReached`, `InvalidName`."""
        return await self._parts.pairings.open(ask)

    @verb(ADMINISTER, held=True)
    async def invite_wait(self, ask: InviteRef) -> InviteOutcome:
        """Wait until an invite is over, and how it ended; to go away does not end it. Raises `UnknownInvite`."""
        return await self._parts.pairings.wait(ask.id)

    @verb(ADMINISTER)
    async def invite_cancel(self, ask: InviteRef) -> InviteOutcome:
        """End an invite; one that is over already keeps its outcome. Raises `UnknownInvite`."""
        return await self._parts.pairings.cancel(ask.id)

    @verb(ADMINISTER, held=True)
    async def join(self, ask: Join) -> Joined:
        """Join by an invite code: afterwards both nodes know each other, live and on disk.

        Raises `InvalidCode`, `Unreachable`, `PairingMismatch`, `InviteRefused`, `GateRefused`, `StorageFailed`.
        """
        return await self._parts.pairings.join(ask)

    # -- other peers -----------------------------------------------------------------------------------------------

    @verb(OBSERVE, held=True)
    async def ping(self, ask: Ping) -> PingReport:
        """Ping a peer over its best path, or over the path that `path` insists on.

        `count` pings (0 or less: 4), `interval_ms` milliseconds apart (0 or less: 1000). Raises `UnknownPeer`,
        `Unreachable`, `RequestError`.
        """
        peer = self._parts.names.resolve(ask.peer)
        return await self._parts.probe.ping(peer, count=ask.count, interval_ms=ask.interval_ms, wish=ask.path)

    @verb(OBSERVE)
    async def resolve(self, ask: Resolve) -> Resolved:
        """What peer a name stands for. Raises `UnknownPeer`."""
        if not ask.name:
            raise RequestError("name is required")
        return self._parts.names.explain(ask.name)

    @verb(OPERATE)
    async def connect(self, ask: Connect) -> ProxyStatus:
        """Bring a peer's service to a local address until the daemon ends, or with `persist` at each start.

        Without `persist` the peer must be reachable now. Raises `UnknownPeer`, `Unreachable`, `InvalidName`,
        `InvalidAddress`, `AddressInUse`, `LimitReached`, `StorageFailed`.
        """
        _check_target(ask)
        return await self._parts.forwards.open(ask)

    @verb(OPERATE)
    async def disconnect(self, ask: Disconnect) -> Done:
        """End a proxy and its connections; a configured one is taken out of the file. Raises `UnknownProxy`."""
        await self._parts.forwards.close(ask.id)
        return Done("disconnected")

    @verb(OBSERVE)
    async def proxies(self, ask: Nothing) -> tuple[ProxyStatus, ...]:
        """The proxies of this node, oldest first."""
        return self._parts.forwards.list()

    @verb(OPERATE, held=True)
    async def proxy(self, ask: Connect, announce: Announce) -> Done:
        """A proxy in the foreground: `announce` hears where it listens, and it ends with the caller. As `connect`."""
        _check_target(ask)
        status = await self._parts.forwards.open(Connect(ask.peer, ask.service, ask.listen, ask.path))
        try:
            await announce(status)
            await self._parts.forwards.ended(status.id)
        finally:
            self._parts.forwards.end(status.id)
        return Done("disconnected")

    @verb(OPERATE, held=True)
    async def pipe(self, ask: Pipe, near: End) -> Done:
        """Carry `near` to a peer's service until both directions have ended.

        Over HTTP it wants `Upgrade: peerup-pipe`. After `101` both directions come in chunks: four bytes of size,
        big-endian, at most 1 MiB, then the content; size 0 is the clean end of that direction. The connection's end
        without it is a cut, for either side.

        Raises `UnknownPeer`, `InvalidName`, `Unreachable`, `ProtocolUnsupported`, `StreamReset` for a torn end.
        """
        peer = self._parts.names.resolve(ask.peer)
        await self._parts.proxies.pipe(peer, ask.service, near, wish=ask.path)
        return Done("ended")

    # -- relays ----------------------------------------------------------------------------------------------------

    @verb(OBSERVE)
    async def relays(self, ask: Nothing) -> tuple[RelayStatus, ...]:
        """The relays of this node and what it holds at each; times in seconds."""
        return self._parts.reports.relays()

    @verb(ADMINISTER)
    async def relay_add(self, ask: RelayAdd) -> RelaysChanged:
        """Use further relays, live and in the configuration. Raises `InvalidAddress`, `StorageFailed`."""
        return await relay_list.add(self._parts.configuration, ask)

    @verb(ADMINISTER)
    async def relay_remove(self, ask: RelayRemove) -> RelaysChanged:
        """Use a relay address no more; the last one only with `force`. Raises `NotFound`, `RequestError`."""
        return await relay_list.remove(self._parts.configuration, ask)

    @verb(ADMINISTER)
    async def shutdown(self, ask: Nothing) -> Done:
        """End the daemon, calmly; asking twice is the same as asking once."""
        self._parts.stop.set()
        return Done("shutting down")


VERBS: Final[Mapping[str, Verb]] = table(Operations)
"""Every verb of a running node, by name."""


def _peer(text: str) -> PeerId:
    if not text:
        raise RequestError("peer_id is required")
    return PeerId.parse(text)


def _check_target(ask: Connect) -> None:
    if not (ask.peer and ask.service and ask.listen):
        raise RequestError("peer, service, and listen are required")
