"""What the files alone can tell or change, without a daemon: a node's status, a relay's allowlist."""

from __future__ import annotations

from pathlib import Path

from peerupd.config.schema import NodeSettings
from peerupd.control.authorization import Authorization, expiry
from peerupd.control.disk import Disk
from peerupd.control.founding import relay_info
from peerupd.control.opening import Opened, open_relay
from peerupd.control.verbs import Access, table, verb
from peerupd.model import version
from peerupd.model.names import PeerId, printable
from peerupd.model.snapshots import AuthAdd, AuthEntry, AuthRemove, Done, FilesStatus, Nothing, RelayInfo, RelayStatus


def files_status(opened: Opened[NodeSettings], relays: tuple[RelayStatus, ...]) -> FilesStatus:
    """How the node is, by its files."""
    settings = opened.settings
    return FilesStatus(
        version=version.VERSION,
        peer_id=str(opened.identity.peer_id),
        config=str(opened.file.path),
        relays=relays,
        authorized=tuple(
            f"{entry.peer}  # {entry.comment}" if entry.comment else str(entry.peer)
            for entry in opened.gate.allowlist.entries
        ),
        services=tuple(
            f"{name} -> {service.local_address} ({'enabled' if service.enabled else 'disabled'})"
            for name, service in sorted(settings.services.items())
        ),
        names=tuple(f"{printable(name)}: {peer}" for name, peer in sorted(settings.names.items())),
        unused_addresses=settings.unused_addresses,
        problems=(*opened.parsed.warnings, *opened.gate.allowlist.problems),
    )


class RelayOffline:
    """The verbs of a relay server: it has no control socket, but watches its files."""

    def __init__(self, config: Path) -> None:
        self._config = config

    @verb(Access.OBSERVE)
    async def relay_info(self, ask: Nothing) -> RelayInfo:
        """Who the relay is, and the addresses to give to nodes. Raises what reading its files raises."""
        opened = open_relay(self._config)
        return relay_info(opened.settings, opened.identity.peer_id)

    @verb(Access.OBSERVE)
    async def relay_peers(self, ask: Nothing) -> tuple[AuthEntry, ...]:
        """The relay's allowlist."""
        return self._authorization().list()

    @verb(Access.ADMINISTER)
    async def relay_authorize(self, ask: AuthAdd) -> Done:
        """Let a peer use the relay. Raises `InvalidPeerId`, `AlreadyExists`, `StorageFailed`."""
        await self._authorization().add(PeerId.parse(ask.peer_id), ask.comment, **expiry(ask.expires))
        return Done("added")

    @verb(Access.ADMINISTER)
    async def relay_deauthorize(self, ask: AuthRemove) -> Done:
        """Let a peer use the relay no longer. Raises `InvalidPeerId`, `UnknownPeer`, `StorageFailed`."""
        await self._authorization().remove(PeerId.parse(ask.peer_id))
        return Done("removed")

    def _authorization(self) -> Authorization:
        opened = open_relay(self._config)
        return Authorization(opened.gate, opened.allowlist, lambda: None, Disk())


RELAY_VERBS = table(RelayOffline)
