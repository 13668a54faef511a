"""`init`, `whoami`, `version`: before anything runs."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from peerupctl.call import Call, Verb
from peerupctl.client import Once
from peerupd.model.addresses import relay_input
from peerupd.model.errors import RequestError


def init(call: Call) -> int:
    """Ask for a relay (unless told), then write config, identity and allowlist."""
    o = call.options
    relay, peer = o.relay, o.relay_peer_id
    if not o.relay and not o.non_interactive:
        relay, peer = _ask_relay(call)
    request = {"relay": relay, "relay_peer_id": peer, "network": o.network, "directory": o.dir}
    data = Once(o.config).ask("init", request)  # a daemon that runs is another node, or this one and in the way
    return call.show(data, lambda data: _initialised(data, with_qr=not o.non_interactive))


def _ask_relay(call: Call) -> tuple[str, str]:
    """The wizard: the relay as a person types it, and who it is."""
    call.note("A relay forwards between your machines; it sees only ciphertext.")
    call.note("Relay (IP, IP:PORT, [v6]:PORT or multiaddr; empty: none yet)")
    relay = _answer()
    if not relay or relay_input(relay).peer is not None:
        return relay, ""
    call.note("The relay's peer ID (12D3KooW...)")
    return relay, _answer()


def _answer() -> str:
    sys.stderr.write("> ")
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise RequestError("the answer is missing", hint="without a terminal: init --non-interactive --relay ADDR")
    return line.strip()


def _initialised(data: dict[str, Any], *, with_qr: bool) -> Iterator[str]:
    yield f"Config:          {data['config']}"
    yield f"Identity:        {data['identity']}"
    yield f"Authorized keys: {data['authorized_keys']}"
    yield f"Peer ID:         {data['peer_id']}"
    if with_qr:
        yield ""
        yield from data.get("qr", [])
    yield ""
    yield "Next: peerupctl daemon, then peerupctl invite here or peerupctl join CODE."


def _init_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--relay", default="", metavar="ADDR", help="IP, IP:PORT, [v6]:PORT or multiaddr")
    parser.add_argument(
        "--relay-peer-id", "--peer-id", default="", metavar="ID", help="if ADDR does not end in /p2p/ID"
    )
    parser.add_argument("--network", default="", metavar="NAME", help="a private network's name")
    parser.add_argument("--dir", default="", metavar="DIR", help="where; default ~/.config/peerup (root: /etc/peerup)")
    parser.add_argument("--non-interactive", action="store_true", help="ask nothing")


def whoami(call: Call) -> int:
    """The peer ID, alone on its line."""
    return call.show(call.ask("whoami"), lambda data: [data["peer_id"]])


def version(call: Call) -> int:
    """The program's own, without asking anybody."""
    from peerupd.model.codec import to_json
    from peerupd.model.version import own

    data = to_json(own())
    if call.options.json:
        call.say(json.dumps(data, indent=2))
    else:
        call.say(f"peerup {data['version']} ({data['commit']}) built {data['built']}")
        call.say(f"Python {data['python']}")
    return 0


VERBS = {"init": Verb(init, _init_arguments), "whoami": Verb(whoami), "version": Verb(version)}
