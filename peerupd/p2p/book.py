"""What peers have told us of themselves: agent, protocols, addresses, and how they see us. Bounded, newest kept.

All of it are claims; nothing here decides about access.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from peerupd.model.addresses import Multiaddr
from peerupd.model.names import PeerId

MAX_PEERS: Final = 1024
MAX_ADDRESSES: Final = 32  # of one peer


@dataclass(frozen=True, slots=True)
class Entry:
    """One peer."""

    agent: str = ""
    protocol_version: str = ""
    protocols: frozenset[str] = frozenset()
    addresses: tuple[Multiaddr, ...] = ()
    """Where it listens, as it says."""
    observed: Multiaddr | None = None
    """As what it saw us last."""
    observed_inbound: bool = False
    """Whether it had called us: then what it saw is where we can be reached."""


UNKNOWN: Final = Entry()


class Book:
    """The newest `MAX_PEERS` peers."""

    def __init__(self, limit: int = MAX_PEERS) -> None:
        self._limit = limit
        self._entries: OrderedDict[PeerId, Entry] = OrderedDict()
        self._readers: list[Callable[[PeerId, Entry], None]] = []

    def watch(self, reader: Callable[[PeerId, Entry], None]) -> None:
        """Tell `reader` what is known, and from now on what is learned."""
        for peer, entry in self._entries.items():
            reader(peer, entry)
        self._readers.append(reader)

    def put(self, peer: PeerId, entry: Entry) -> None:
        """Remember; what was told longest ago goes first."""
        self._entries[peer] = entry
        self._entries.move_to_end(peer)
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)
        for reader in self._readers:
            reader(peer, entry)

    def get(self, peer: PeerId) -> Entry:
        """What is known of `peer`; `UNKNOWN` if nothing is."""
        return self._entries.get(peer, UNKNOWN)

    def peers(self) -> list[PeerId]:
        """All of whom something is known."""
        return list(self._entries)

    def observed(self, *, inbound_only: bool = False) -> list[Multiaddr]:
        """As what peers see us, without doubles."""
        seen = (e.observed for e in self._entries.values() if e.observed and (e.observed_inbound or not inbound_only))
        return list(dict.fromkeys(seen))
