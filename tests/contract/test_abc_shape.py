"""Our host has the shape of libp2p's own interfaces where Kademlia and our services call it: names, parameters, async.

Not all 234 abstract methods: those listed here, and no stubs of the others. The libp2p side runs in a process of its
own, with the lean import, which is thereby tested too.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from typing import Any

import pytest

from peerupd.p2p.host import Host
from peerupd.p2p.streams import Stream

HOST = (
    "get_id",
    "get_private_key",
    "get_addrs",
    "get_connected_peers",
    "get_peerstore",
    "new_stream",
    "set_stream_handler",
    "remove_stream_handler",
)
STREAM = ("get_protocol", "set_protocol", "read", "write", "close", "get_remote_address")
PEERSTORE = ("addrs", "add_addrs", "peer_ids", "get_protocols", "get_peer_record", "consume_peer_record")

FAR_SIDE = """
import inspect, json, sys
from peerupd.p2p import lean
lean.prepare()
import libp2p
from libp2p.abc import IHost, INetStream
from libp2p.peer.peerstore import PeerStore

def shape(of, name):
    method = getattr(of, name)
    return {"parameters": list(inspect.signature(method).parameters), "async": inspect.iscoroutinefunction(method)}

host, stream, store = json.loads(sys.stdin.read())
world = [name for name in ("aioquic", "zeroconf", "dns") if name in sys.modules]
print(json.dumps({
    "host": {name: shape(IHost, name) for name in host},
    "stream": {name: shape(INetStream, name) for name in stream},
    "peerstore": [hasattr(PeerStore, name) for name in store],
    "lean": [hasattr(libp2p, "new_host"), len(sys.modules), world],
}))
"""


def ask(program: str, words: object) -> Any:
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        input=json.dumps(words),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(answer.stdout)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return ask(FAR_SIDE, [HOST, STREAM, PEERSTORE])


def shape(of: type, name: str) -> dict[str, object]:
    method = getattr(of, name)
    required = [
        parameter.name
        for parameter in inspect.signature(method).parameters.values()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    return {"parameters": required, "async": inspect.iscoroutinefunction(method)}


@pytest.mark.parametrize("name", HOST)
def test_the_host_is_called_as_libp2p_calls_its_own(theirs: Any, name: str) -> None:
    assert shape(Host, name) == theirs["host"][name]


@pytest.mark.parametrize("name", STREAM)
def test_a_stream_is_called_as_libp2p_calls_its_own(theirs: Any, name: str) -> None:
    assert shape(Stream, name) == theirs["stream"][name]


def test_the_peerstore_has_what_kademlia_asks_of_it(theirs: Any) -> None:
    assert all(theirs["peerstore"])


def test_ping_is_called_as_libp2ps_ping_service() -> None:
    """It is not part of `IHost`: Kademlia reaches it through the host's ping service."""
    assert shape(Host, "ping") == {"parameters": ["self", "peer_id", "ping_amt"], "async": True}


def test_the_lean_import_leaves_the_world_outside(theirs: Any) -> None:
    front_door_was_run, modules, world = theirs["lean"]
    assert not front_door_was_run
    assert modules < 800
    assert world == []


KEY_AND_STORE = """
import json, sys
from peerupd.model.addresses import Multiaddr
from peerupd.p2p import lean, records
from peerupd.p2p.book import Book, Entry
from peerupd.trust.identity import Identity
from libp2p.peer.envelope import consume_envelope, seal_record
from libp2p.peer.peer_record import PeerRecord

identity, other = Identity.generate(), Identity.generate()
key, book = records.private_key(identity), Book()
store = records.peerstore(book)
book.put(other.peer_id, Entry(protocols=frozenset({"/x"}), addresses=(Multiaddr.parse("/ip4/192.0.2.1/tcp/1"),)))
their_id = records.their_id(other.peer_id)
envelope, record = consume_envelope(
    seal_record(PeerRecord(records.their_id(identity.peer_id), []), key).marshal_envelope(), "libp2p-peer-record"
)
try:
    key.to_bytes()
    shown = True
except NotImplementedError:
    shown = False
print(json.dumps({
    "addresses": [str(a) for a in store.addrs(their_id)],
    "protocols": store.get_protocols(their_id),
    "signed_by_us": record.peer_id.to_string() == str(identity.peer_id),
    "type": key.get_type().name,
    "verifies": key.get_public_key().verify(b"x", key.sign(b"x")),
    "shown": shown,
    "same": str(their_id) == str(other.peer_id),
}))
"""


def test_key_and_peerstore_in_their_form() -> None:
    assert ask(KEY_AND_STORE, None) == {
        "addresses": ["/ip4/192.0.2.1/tcp/1"],
        "protocols": ["/x"],
        "signed_by_us": True,
        "type": "Ed25519",
        "verifies": True,
        "shown": False,
        "same": True,
    }


REAL_FIRST = """
import json, sys
import libp2p
from peerupd.p2p import records
from peerupd.p2p.book import Book
store = records.peerstore(Book())
print(json.dumps([sys.modules["libp2p"] is libp2p, hasattr(libp2p, "new_host"), store.peer_ids()]))
"""


@pytest.mark.slow
def test_where_the_real_package_is_loaded_it_is_used() -> None:
    assert ask(REAL_FIRST, None) == [True, True, []]
