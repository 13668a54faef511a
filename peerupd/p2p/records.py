"""py-libp2p's view of what we know: its peerstore, filled from our book, and our key in its shape.

Imported only when somebody asks (Kademlia, or a service written for py-libp2p): it costs memory, see `p2p.lean`.
"""

from __future__ import annotations

from peerupd.model.addresses import Multiaddr
from peerupd.model.names import PeerId
from peerupd.p2p import lean
from peerupd.p2p.book import Book, Entry
from peerupd.trust.identity import Identity

lean.prepare()

from libp2p.crypto.ed25519 import Ed25519PublicKey  # noqa: E402 - after the packages stand bare
from libp2p.crypto.keys import KeyType, PrivateKey, PublicKey  # noqa: E402 - likewise
from libp2p.peer.id import ID  # noqa: E402 - likewise
from libp2p.peer.peerstore import PERMANENT_ADDR_TTL, PeerStore  # noqa: E402 - likewise
from multiaddr import Multiaddr as TheirMultiaddr  # noqa: E402 - likewise


class HiddenKey(PrivateKey):  # type: ignore[misc] # libp2p is skipped by mypy, see pyproject.toml
    """Our private key: it signs, and does not show itself."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def get_type(self) -> KeyType:
        """Ed25519."""
        return KeyType.Ed25519

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`."""
        return self._identity.sign(data)

    def get_public_key(self) -> PublicKey:
        """Our public key."""
        return Ed25519PublicKey.from_bytes(self._identity.public_key.data)

    def to_bytes(self) -> bytes:
        """Refused: raises `NotImplementedError`."""
        raise NotImplementedError("the private key stays where it is")


def private_key(identity: Identity) -> PrivateKey:
    """Our key in py-libp2p's shape."""
    return HiddenKey(identity)


def peerstore(book: Book) -> PeerStore:
    """A new peerstore that holds what the book says, and follows it."""
    store = PeerStore()

    def follow(peer: PeerId, entry: Entry) -> None:
        store.add_addrs(their_id(peer), [their_address(a) for a in entry.addresses], PERMANENT_ADDR_TTL)
        store.set_protocols(their_id(peer), sorted(entry.protocols))

    book.watch(follow)
    return store


def their_id(peer: PeerId) -> ID:
    """The peer ID as py-libp2p has it."""
    return ID(peer.to_bytes())


def their_address(address: Multiaddr) -> TheirMultiaddr:
    """The address as the `multiaddr` package has it."""
    return TheirMultiaddr(address.to_bytes())
