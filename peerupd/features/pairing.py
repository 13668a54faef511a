"""What the two sides of pairing share: what they write down, and under which name they call each other.

The sides themselves are `inviting` and `joining`; the dialogue between them is `wire.pairing`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final, Protocol

from peerupd.model.addresses import RelayAddress
from peerupd.model.errors import InvalidPeerId
from peerupd.model.names import MAX_PEER_NAME, PeerId, sanitised_name
from peerupd.wire.pairing import PROTOCOL

__all__ = ["PROTOCOL", "AllowlistKeeper", "NamesKeeper", "RelaysKeeper", "dated", "give_name"]

MAX_NAMESAKES: Final = 100  # peers that may wish for the same name


class AllowlistKeeper(Protocol):
    """Who writes the allowlist."""

    async def admit(self, peer: PeerId, comment: str, /) -> None:
        """Write `peer` down and tell the gate; one that is there already stays as it is. Raises `StorageFailed`."""


class NamesKeeper(Protocol):
    """Who writes the `names:` of the configuration."""

    def names(self) -> Mapping[str, PeerId]:
        """The names in force."""

    async def put(self, name: str, peer: PeerId, /) -> None:
        """Write one more down and put it in force; raises `StorageFailed`."""


class RelaysKeeper(Protocol):
    """Who writes the relays of the configuration."""

    async def add(self, relay: RelayAddress, /) -> None:
        """Write it down if it is missing and use it from now on; raises `StorageFailed`."""


async def give_name(keeper: NamesKeeper, wished: str, peer: PeerId) -> str:
    """Call `peer` as it wishes, with `-2`, `-3` ... if another has that name; the name, empty if it has none.

    A name never passes for a peer ID or an option of a command. Raises `StorageFailed`.
    """
    name = _usable(wished)
    taken = keeper.names()
    free = next((each for each in _variants(name) if taken.get(each, peer) == peer), "") if name else ""
    if free and free not in taken:
        await keeper.put(free, peer)
    return free


def dated(verb: str, now: float) -> str:
    """The comment for a peer without a name: `joined-2026-01-31`."""
    return f"{verb}-{time.strftime('%Y-%m-%d', time.gmtime(now))}"


def _usable(wished: str) -> str:
    name = sanitised_name(wished).strip("-.")
    try:
        PeerId.parse(name)
    except InvalidPeerId:
        return name
    return ""


def _variants(name: str) -> list[str]:
    tails = ["", *(f"-{number}" for number in range(2, MAX_NAMESAKES + 1))]
    return [name[: MAX_PEER_NAME - len(tail)] + tail for tail in tails]
