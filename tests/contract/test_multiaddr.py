"""Our multiaddrs and peer IDs against the `multiaddr` package and py-libp2p, which uses it."""

from __future__ import annotations

from collections.abc import Iterator

import multiaddr
import pytest
from hypothesis import given

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import InvalidAddress
from peerupd.model.names import PeerId
from tests.support.libp2p_side import Libp2pSide
from tests.support.strategies import multiaddrs, peer_ids


@pytest.fixture(scope="module")
def theirs() -> Iterator[Libp2pSide]:
    with Libp2pSide() as side:
        yield side


@given(multiaddrs())
def test_text_and_bytes_are_those_of_the_multiaddr_package(address):
    theirs = multiaddr.Multiaddr(str(address))

    assert theirs.to_bytes() == address.to_bytes()
    assert Multiaddr.parse(str(multiaddr.Multiaddr(address.to_bytes()))) == address
    assert Multiaddr.from_bytes(theirs.to_bytes()) == address


@pytest.mark.parametrize(
    "text",
    [
        "/ip4",
        "/ip4/1.2.3",
        "/ip4/01.2.3.4",
        "/ip4/1.2.3.4/tcp/65536",
        "/ip4/1.2.3.4/tcp/-1",
        "/ip6/1.2.3.4",
        "/ip6/::g",
        "/p2p/nobody",
        "/nothing/1",
    ],
)
def test_what_the_multiaddr_package_refuses_is_refused(text):
    with pytest.raises(ValueError):
        multiaddr.Multiaddr(text).to_bytes()
    with pytest.raises(InvalidAddress):
        Multiaddr.parse(text)


@given(peer=peer_ids())
def test_a_peer_id_has_the_same_bytes_and_texts(theirs, peer):
    texts = theirs.ask("peer_id_text", data=peer.to_bytes().hex())

    assert str(peer) == texts["base58"]
    assert bytes.fromhex(theirs.ask("peer_id", text=str(peer))) == peer.to_bytes()
    assert PeerId.parse(texts["base58"]) == PeerId.parse(texts["cid"]) == PeerId.from_bytes(peer.to_bytes()) == peer
