"""`relay`: the relays that a node uses, and a relay of one's own."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from peerupctl.call import Call, Verb
from peerupctl.client import Json, Once
from peerupctl.render import short
from peerupd.model.addresses import relay_input
from peerupd.model.errors import InvalidAddress


def add(call: Call) -> int:
    """Live and in the config; `IP:PORT` needs --peer-id."""
    o = call.options
    for text in o.address:
        if relay_input(text).peer is None and not o.peer_id:
            raise InvalidAddress(f"{text} does not say who the relay is", hint="add --peer-id 12D3KooW...")
    data = call.ask("relay_add", addresses=o.address, peer_id=o.peer_id)
    return call.show(data, _changed)


def _changed(data: dict[str, Any]) -> Iterator[str]:
    yield from (f"Added relay: {address}" for address in data["added"])
    yield from (f"Already configured: {address}" for address in data["already"])
    yield from (f"Removed relay: {address}" for address in data["removed"])


def list_(call: Call) -> int:
    """With the state of each reservation, when a daemon runs."""
    return call.show(call.ask("relays"), lambda data: _listed(call, data))


def _listed(call: Call, relays: list[dict[str, Any]]) -> Iterator[str]:
    if not relays:
        yield "No relays configured."
    for relay in relays:
        yield call.relay_line(relay)
        yield from (f"  {address}" for address in relay["addresses"])


def remove(call: Call) -> int:
    """The last one only with --force: it may be the way home."""
    o = call.options
    return call.show(call.ask("relay_remove", address=o.address, force=o.force), _changed)


def setup(call: Call) -> int:
    """Config, key and empty allowlist of a relay; prints the addresses that nodes want."""
    o = call.options
    data = _relay_once(call, "relay_setup", directory=o.dir, fresh=o.fresh, address=o.address)
    return call.show(data, lambda data: _set_up(data, with_qr=not o.non_interactive))


def _set_up(data: dict[str, Any], *, with_qr: bool) -> Iterator[str]:
    yield f"Config:          {data['config']}"
    yield f"Identity:        {data['identity']}"
    yield f"Authorized keys: {data['authorized_keys']}"
    if data.get("snapshot"):
        yield f"Kept before:     {data['snapshot']}"
    yield f"Peer ID:         {data['peer_id']}"
    yield ""
    yield from _addresses(data, "name it: peerupctl relay setup --address IP")
    if data["multiaddrs"] and with_qr:
        yield ""
        yield from data.get("qr", [])
    yield ""
    yield f"Next: peerupctl relay serve --config {data['config']}"


def serve(call: Call) -> int:
    """Becomes the relay server."""
    config = ["--config", call.options.config] if call.options.config else []
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "peerupd", "relay", *config])  # noqa: S606 - no shell wanted


def info(call: Call) -> int:
    """Who the relay is, and what to give to nodes."""
    return call.show(_relay_once(call, "relay_info"), _info)


def _info(data: dict[str, Any]) -> Iterator[str]:
    yield f"Peer ID: {data['peer_id']}"
    yield f"Connection gating: {'enabled' if data['gating'] else 'DISABLED'}"
    yield f"Authorized peers: {data['authorized_peers']}"
    yield ""
    yield from _addresses(data, "give to nodes: /ip4/<its public IP>/tcp/7777/p2p/<peer ID>")
    yield from ("", *data.get("qr", []))


def _addresses(data: dict[str, Any], hint: str) -> Iterator[str]:
    yield "Multiaddrs:"
    yield from (f"  {address}" for address in data["multiaddrs"])
    if not data["multiaddrs"]:
        yield f"  no public address found on this machine; {hint}"


def authorize(call: Call) -> int:
    """A running relay takes it up within two seconds."""
    o = call.options
    comment = o.comment or " ".join(o.words)
    data = _relay_once(call, "relay_authorize", peer_id=o.peer, comment=comment)
    return call.show(data, lambda _: [f"Authorized: {short(o.peer)}"])


def deauthorize(call: Call) -> int:
    """A running relay closes its connections within two seconds."""
    peer = call.options.peer
    return call.show(_relay_once(call, "relay_deauthorize", peer_id=peer), lambda _: [f"Deauthorized: {short(peer)}"])


def list_peers(call: Call) -> int:
    """The relay's allowlist."""
    return call.show(_relay_once(call, "relay_peers"), _peers)


def _peers(entries: list[dict[str, Any]]) -> Iterator[str]:
    for entry in entries:
        yield f"  {entry['peer_id']}" + (f"  # {entry['comment']}" if entry.get("comment") else "")
    yield f"Total: {len(entries)} peer(s)" if entries else "  (none)"


def _relay_once(call: Call, verb: str, **request: Json) -> Json:
    """A relay has no control socket: its files are edited, and it watches them."""
    return Once(call.options.config).ask(verb, request)


def _authorize_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("peer", help="the peer ID to let in")
    parser.add_argument("words", nargs="*", metavar="comment", help="who that is")
    parser.add_argument("--comment", default="", help="who that is")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("address", nargs="+", help="multiaddr, IP, IP:PORT or [v6]:PORT")
    parser.add_argument("--peer-id", default="", metavar="ID", help="who the relay is")


def _remove_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("address", help="the multiaddr, as `relay list` shows it")
    parser.add_argument("-f", "--force", action="store_true", help="also the last one")


def _setup_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dir", default="", metavar="DIR", help="where; default: this folder")
    parser.add_argument("--fresh", action="store_true", help="replace what is there, after a snapshot of it")
    parser.add_argument("--address", default="", metavar="IP", help="the address that nodes shall use")
    parser.add_argument("--non-interactive", action="store_true", help="no QR code")


VERBS = {
    "add": Verb(add, _add_arguments),
    "list_": Verb(list_),
    "remove": Verb(remove, _remove_arguments),
    "setup": Verb(setup, _setup_arguments),
    "serve": Verb(serve),
    "info": Verb(info),
    "authorize": Verb(authorize, _authorize_arguments),
    "deauthorize": Verb(deauthorize, lambda parser: parser.add_argument("peer", help="the peer ID to shut out")),
    "list_peers": Verb(list_peers),
}
