"""The relays of this node: `relay.addresses` of the configuration, and the keepers that live by it."""

from __future__ import annotations

from peerupd.config.edits import Append, Drop
from peerupd.control.configuration import Configuration
from peerupd.model.addresses import RelayAddress, relay_input
from peerupd.model.errors import InvalidAddress, NotFound, RequestError
from peerupd.model.names import PeerId
from peerupd.model.snapshots import RelayAdd, RelayRemove, RelaysChanged

ADDRESSES = ("relay", "addresses")


async def add(configuration: Configuration, ask: RelayAdd) -> RelaysChanged:
    """Use these relays too, live and in the file; raises `InvalidAddress`, `InvalidPeerId`, `StorageFailed`."""
    if not ask.addresses:
        raise RequestError("addresses is required", hint="give at least one relay address")
    known = [str(relay) for relay in configuration.settings.relays]
    wanted = list(dict.fromkeys(str(typed(text, ask.peer_id)) for text in ask.addresses))
    added = tuple(text for text in wanted if text not in known)
    if added:
        await configuration.edit(*(Append(ADDRESSES, text) for text in added))
    return RelaysChanged(added=added, already=tuple(text for text in wanted if text in known))


async def remove(configuration: Configuration, ask: RelayRemove) -> RelaysChanged:
    """Use this relay no more; raises `NotFound`, and `RequestError` for the last one without `force`."""
    known = [str(relay) for relay in configuration.settings.relays]
    address = ask.address.strip()
    if address not in known:
        raise NotFound(f"relay not configured: {address}", hint="`peerupctl relay list` shows the addresses")
    if len(known) == 1 and not ask.force:
        raise RequestError(
            "this is the last relay: without it nobody can reach this node from outside", hint="to do it, add --force"
        )
    await configuration.edit(Drop(ADDRESSES, address))
    return RelaysChanged(removed=(address,))


def typed(text: str, peer_id: str) -> RelayAddress:
    """A relay as a person types it, its peer ID in the text or beside it; raises `InvalidAddress`, `InvalidPeerId`."""
    address = relay_input(text)
    named = PeerId.parse(peer_id) if peer_id else None
    peer = address.peer or named
    if peer is None:
        raise InvalidAddress(f"{text} does not say who the relay is", hint="add --peer-id 12D3KooW...")
    if named is not None and named != peer:
        raise InvalidAddress(f"{text} names another relay than {peer_id}")
    return RelayAddress(address.without_peer(), peer)
