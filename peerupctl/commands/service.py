"""`service`, `expose`: what this node offers."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from peerupctl.call import Call, Verb
from peerupctl.render import table


def add(call: Call) -> int:
    """Live and in the config; warns when nothing answers at the address."""
    o = call.options
    request = {"name": o.name, "local_address": o.address, "protocol": o.protocol, "allowed_peers": o.allow}
    return call.show(call.ask("service_add", **request), lambda data: _added(call, data))


def _added(call: Call, data: dict[str, Any]) -> Iterator[str]:
    yield f"Added service: {data['name']} -> {data['local_address']}"
    if data.get("warning"):
        call.note(f"warning: {data['warning']}")


def list_(call: Call) -> int:
    """Name, address, state, protocol."""
    return call.show(call.ask("services"), _listed)


def _listed(services: list[dict[str, Any]]) -> list[str]:
    if not services:
        return ["No services configured."]
    rows = [(s["name"], "->", s["local_address"], f"({'enabled' if s['enabled'] else 'disabled'})") for s in services]
    return [f"Services ({len(services)}):", *table(rows, "  ")]


def _named(verb: str, said: str) -> Verb:
    def run(call: Call) -> int:
        return call.show(call.ask(verb, name=call.options.name), lambda _: [f"{said} service: {call.options.name}"])

    return Verb(run, lambda parser: parser.add_argument("name", help="the service's name"))


def expose(call: Call) -> int:
    """Until the daemon ends, unless --persist."""
    o = call.options
    call.the_daemon()
    data = call.ask("expose", name=o.name, local_address=o.address, persist=o.persist)
    return call.show(data, lambda _: [f"Exposed service: {o.name} -> {o.address}"])


def unexpose(call: Call) -> int:
    """Running connections of the service end."""
    call.the_daemon()
    return call.show(
        call.ask("unexpose", name=call.options.name), lambda _: [f"Unexposed service: {call.options.name}"]
    )


def _place(parser: ArgumentParser) -> None:
    parser.add_argument("name", help="1-63 lowercase letters, digits or hyphens")
    parser.add_argument("address", help="localhost:22, 192.168.1.5:80, unix:/run/x.sock")


def _add_arguments(parser: ArgumentParser) -> None:
    _place(parser)
    parser.add_argument("--protocol", default="", help="a note for people; the wire does not care")
    parser.add_argument("--allow", action="append", default=[], metavar="PEER", help="only this peer (may be repeated)")


def _expose_arguments(parser: ArgumentParser) -> None:
    _place(parser)
    parser.add_argument("--persist", action="store_true", help="write it to the config too")


VERBS = {
    "add": Verb(add, _add_arguments),
    "list_": Verb(list_),
    "remove": _named("service_remove", "Removed"),
    "enable": _named("service_enable", "Enabled"),
    "disable": _named("service_disable", "Disabled"),
    "expose": Verb(expose, _expose_arguments),
    "unexpose": Verb(unexpose, lambda parser: parser.add_argument("name")),
}
