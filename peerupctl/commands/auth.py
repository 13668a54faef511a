"""`auth`: the allowlist."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from peerupctl.call import Call, Verb
from peerupctl.render import short
from peerupd.model.errors import AllowlistInvalid


def add(call: Call) -> int:
    """Takes effect at once."""
    o = call.options
    data = call.ask("auth_add", peer_id=o.peer, comment=o.comment, expires=o.expires)
    return call.show(data, lambda _: [f"Authorized peer: {short(o.peer)}"])


def list_(call: Call) -> int:
    """Every entry with its attributes."""
    return call.show(call.ask("auth_list"), lambda data: _entries(call, data))


def remove(call: Call) -> int:
    """Its connections are closed at once."""
    o = call.options
    return call.show(call.ask("auth_remove", peer_id=o.peer), lambda _: [f"Revoked peer: {short(o.peer)}"])


def validate(call: Call) -> int:
    """Exit status 2 when a line is wrong."""
    data = call.ask("auth_validate", **({"file": call.options.file} if call.options.file else {}))
    problems = data.get("problems", [])
    if call.options.json:
        call.json(data)
    elif not problems:
        call.say(f"Validation passed\n  Valid peer IDs: {data['valid']}\n  File: {data['file']}")
    else:
        call.say("\n  ".join((f"Validation failed with {len(problems)} error(s):", *problems)))
    return AllowlistInvalid.exit_status if problems else 0


def _entries(call: Call, entries: list[dict[str, Any]]) -> Iterator[str]:
    if not entries:
        yield "No authorized peers."
        return
    yield f"Authorized peers ({len(entries)}):"
    yield ""
    for number, entry in enumerate(entries, 1):
        comment = f"  # {entry['comment']}" if entry.get("comment") else ""
        yield f"  {number}. {short(entry['peer_id'])}{comment}"
        yield call.colour("faint", f"     {entry['peer_id']}{_attributes(entry)}")


def _attributes(entry: dict[str, Any]) -> str:
    shown = {"group": "group", "verified": "verified", "expires_at": "expires", "vouched_by": "vouched_by"}
    return "".join(f" [{label}={entry[key]}]" for key, label in shown.items() if entry.get(key))


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("peer", help="the peer ID to let in")
    parser.add_argument("--comment", default="", help="who that is")
    parser.add_argument("--expires", default="", metavar="WHEN", help="RFC 3339, e.g. 2027-01-31T00:00:00Z")


VERBS = {
    "add": Verb(add, _add_arguments),
    "list_": Verb(list_),
    "remove": Verb(remove, lambda parser: parser.add_argument("peer", help="the peer ID to shut out")),
    "validate": Verb(validate, lambda parser: parser.add_argument("file", nargs="?", default="")),
}
