"""`peers`: who is connected."""

from __future__ import annotations

from typing import Any

from peerupctl.call import Call, Verb
from peerupctl.render import short, table


def peers(call: Call) -> int:
    """peerup and relay-server peers; all with --all."""
    data = call.the_daemon().ask("peers", {"all": call.options.all})
    return call.show(data, _lines)


def _lines(peers: list[dict[str, Any]]) -> list[str]:
    if not peers:
        return ["No peers connected."]
    return table(
        (short(peer["id"]), peer.get("name", "-"), peer.get("path", "-"), peer.get("agent_version", "unknown"))
        for peer in peers
    )


VERBS = {
    "peers": Verb(peers, lambda parser: parser.add_argument("--all", action="store_true", help="other agents too"))
}
