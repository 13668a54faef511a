"""Pictures of the running node: status, peers, relays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import trio

from peerupd.control.configuration import Configuration
from peerupd.control.gauges import Gauges
from peerupd.control.lifetime import degraded
from peerupd.control.names import Names
from peerupd.features.registry import Registry
from peerupd.model import version
from peerupd.model.names import PeerId, printable
from peerupd.model.snapshots import NodeStatus, PathKind, PeerStatus, RelayStatus
from peerupd.p2p.host import Host
from peerupd.p2p.relay import Relays

OURS: Final = ("peerup/", "relay-server/")
MAX_AGENT: Final = 100  # characters of a peer's agent string that are shown

Problems = Callable[[], Iterable[str]]


class Reports:
    """What the verbs that only look answer."""

    def __init__(
        self,
        host: Host,
        relays: Relays,
        registry: Registry,
        names: Names,
        configuration: Configuration,
        gauges: Gauges,
    ) -> None:
        self._host = host
        self._relays = relays
        self._registry = registry
        self._names = names
        self._configuration = configuration
        self._gauges = gauges
        self._started = trio.current_time()
        self._problems: list[Problems] = []
        self._notices: list[Problems] = []

    def also(self, problems: Problems) -> None:
        """Ask `problems` too what a person should mend."""
        self._problems.append(problems)

    def note(self, notices: Problems) -> None:
        """Ask `notices` too what a person should know; that does not make the node degraded."""
        self._notices.append(notices)

    def status(self) -> NodeStatus:
        """How the node is."""
        settings = self._configuration.settings
        return NodeStatus(
            peer_id=str(self._host.peer_id),
            version=version.VERSION,
            uptime_seconds=int(trio.current_time() - self._started),
            connected_peers=len({connection.peer for connection in self._host.connections()}),
            listen_addresses=_texts(self._host.listen_addresses()),
            relay_addresses=_texts(self._relays.circuit_addresses()),
            services_count=sum(service.enabled for service in self._registry.list()),
            relays=self.relays(),
            unused_addresses=settings.unused_addresses,
            problems=(*self.problems(), *_all(self._notices)),
            config=str(self._configuration.file.path),
            counters=self._gauges.read(),
        )

    def problems(self) -> tuple[str, ...]:
        """What a person should mend."""
        return _all(self._problems)

    def relays(self) -> tuple[RelayStatus, ...]:
        """One picture per relay."""
        return tuple(self._relays.statuses())

    def peers(self, *, everyone: bool) -> tuple[PeerStatus, ...]:
        """Connected peers, by peer ID; those with a foreign agent only with `everyone`."""
        connected = sorted({connection.peer for connection in self._host.connections()}, key=str)
        return tuple(self._peer(peer) for peer in connected if everyone or self._is_ours(peer))

    def in_a_line(self) -> str:
        """The state in few words, for the service manager."""
        words = [self._relays_in_words(), f"{len(self.peers(everyone=True))} peers connected"]
        return degraded(self.problems()) + ", ".join(words)

    def _relays_in_words(self) -> str:
        statuses: Sequence[RelayStatus] = self.relays()
        if not statuses:
            return "not paired: peerupctl init | join"
        reserved = sum(status.state == "reserved" for status in statuses)
        return f"reserved on {reserved} of {len(statuses)} relays"

    def _is_ours(self, peer: PeerId) -> bool:
        return self._host.agent_of(peer).startswith(OURS)

    def _peer(self, peer: PeerId) -> PeerStatus:
        connections = self._host.connections(peer)
        relayed = all(connection.relayed for connection in connections)
        addresses = [connection.remote for connection in connections] + self._host.addresses_of(peer)
        return PeerStatus(
            id=str(peer),
            addresses=tuple(dict.fromkeys(_texts(addresses))),
            agent_version=printable(self._host.agent_of(peer), MAX_AGENT) or None,
            name=self._names.name_of(peer),
            path=str(PathKind.RELAYED if relayed else PathKind.DIRECT),
        )


def _all(asked: Iterable[Problems]) -> tuple[str, ...]:
    return tuple(text for texts in asked for text in texts())


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)
