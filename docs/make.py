"""Make the reference pages from the code that they describe: `docs/make.py`, or with `--check` say what is outdated.

configuration.md   from the settings' field docs (`peerupd/config/schema.py`)
commands.md        from the table of commands and their arguments (`peerupctl`)
control-api.md     from the verbs, their requests and reports, and the routes
errors.md          from the errors' docstrings
counters.md        from the table of counters (`peerupd/model/counters.py`)
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import sys
import typing
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

from peerupctl import cli
from peerupctl.call import Verb
from peerupd.config import schema
from peerupd.control.operations import VERBS, Operations
from peerupd.frontends.routes import ROUTES
from peerupd.model import counters, errors, snapshots

HERE = Path(__file__).resolve().parent
MADE = "<!-- made by docs/make.py; edit the code that it reads -->\n"


def main(words: list[str]) -> int:
    """Write the pages; with `--check`, exit status 1 when one is outdated."""
    stale = []
    for name, text in pages().items():
        path = HERE / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in words:
                path.write_text(text)
    for name in stale:
        print(f"docs/{name}: {'outdated, run: make docs' if '--check' in words else 'made'}")
    return int(bool(stale) and "--check" in words)


def pages() -> dict[str, str]:
    """Every page, by file name."""
    made = {
        "configuration.md": configuration(),
        "commands.md": commands(),
        "control-api.md": control_api(),
        "errors.md": error_page(),
        "counters.md": counter_page(),
    }
    return {name: MADE + "\n".join(lines).rstrip() + "\n" for name, lines in made.items()}


# -- configuration -------------------------------------------------------------------------------------------------


def configuration() -> Iterator[str]:
    """The settings, a table a class."""
    yield "# Configuration"
    yield ""
    yield "YAML 1.2 scalars; unknown keys are named with the nearest known one; all problems are told at once. Samples:"
    yield "`etc/peerup/config.yaml`, `etc/peerup/relay.yaml`. A change by command keeps comments and order."
    for kind, title in (
        (schema.NodeSettings, "A node: `config.yaml`"),
        (schema.ServiceSettings, "A service: `services.<name>`"),
        (schema.ProxySettings, "A proxy: one of `proxies:`"),
        (schema.RelaySettings, "A relay server: `relay-server.yaml`, `relay.yaml`"),
        (schema.RateSettings, "`rates:`, of a node and of a relay server"),
        (schema.TelemetrySettings, "`telemetry:` (read and kept; served later)"),
    ):
        yield from ("", f"## {title}", "", "| setting | meaning |", "|---|---|")
        yield from (f"| {name} | {doc} |" for name, doc in field_docs(kind) if doc)


def field_docs(kind: type) -> Iterator[tuple[str, str]]:
    """Each field of a dataclass and the doc string under it, on one line."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    for statement, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            doc = str(after.value.value) if told else ""  # type: ignore[union-attr] # told says what it is
            yield statement.target.id, " ".join(doc.split())


# -- commands ------------------------------------------------------------------------------------------------------


def commands() -> Iterator[str]:
    """Every command with its arguments, as `--help` has them."""
    yield "# Commands of `peerupctl`"
    yield ""
    yield (cli.__doc__ or "").split("\n\n")[1].replace("\n", " ")
    yield ""
    yield "Each knows `--help`, `--json`, `--config FILE` and `--socket PATH`. `peerup` is the same program."
    for command in cli.COMMANDS:
        yield from ("", f"## {command.words}", "", f"{command.summary[0].upper()}{command.summary[1:]}.")
        yield from arguments(verb_of(command))


def verb_of(command: cli.Command) -> Verb:
    """What a line of the table leads to."""
    module, _, name = command.place.partition(":")
    found: Verb = importlib.import_module(f"peerupctl.commands.{module}").VERBS[name]
    return found


def arguments(verb: Verb) -> Iterator[str]:
    """The arguments of one command, a list."""
    parser = ArgumentParser(add_help=False)
    verb.arguments(parser)
    if parser._actions:
        yield ""
    for action in parser._actions:
        words = ", ".join(action.option_strings) or action.metavar or action.dest.upper()
        choices = f" ({', '.join(map(str, action.choices))})" if action.choices else ""
        yield f"* `{words}`{choices}{': ' + action.help if action.help else ''}"


# -- control API ---------------------------------------------------------------------------------------------------


def control_api() -> Iterator[str]:
    """Every verb with its routes, request and report."""
    yield "# The control API"
    yield ""
    yield "HTTP/1.1 over the daemon's Unix socket, `Authorization: Bearer <cookie>` on every request (the cookie is"
    yield '`.daemon-cookie` beside the socket). Success is `{"data": ...}`, an error `{"error", "code", "hint"}`; see'
    yield "[errors.md](errors.md). `?format=text` or `Accept: text/plain` gives text for status, services, peers, auth,"
    yield "ping, resolve, proxies, relays, whoami and version. Access classes: *observe* < *operate* < *administer*."
    for verb in VERBS.values():
        yield from ("", f"## {verb.name} ({verb.access.name.lower()})", "")
        yield from (f"`{route.method} {route.path}`  " for route in ROUTES if route.verb == verb.name)
        yield from ("", verb.doc, "")
        yield from fields("request", verb.request)
        yield from fields("report", report_of(verb.name))


def report_of(verb: str) -> type | None:
    """The dataclass that a verb answers with, or of which it answers several."""
    kind = typing.get_type_hints(getattr(Operations, verb)).get("return")
    inner = typing.get_args(kind)[0] if typing.get_args(kind) else kind
    return inner if isinstance(inner, type) and dataclasses.is_dataclass(inner) else None


def fields(title: str, kind: type | None) -> Iterator[str]:
    """A dataclass of `snapshots` as a list."""
    if kind is None or kind is snapshots.Nothing:
        return
    yield f"{title} `{kind.__name__}`:"
    yield ""
    types = {f.name: str(f.type) for f in dataclasses.fields(kind)}
    yield from (f"* `{name}`: {types[name]}{'. ' + doc if doc else ''}" for name, doc in field_docs(kind))
    yield ""


# -- errors --------------------------------------------------------------------------------------------------------


def error_page() -> Iterator[str]:
    """Every error by family, with its code and exit status."""
    yield "# Errors"
    yield ""
    yield "The exit status of `peerupctl` and the HTTP status follow the family; `code` never changes once released."
    for family in errors.PeerupError.__subclasses__():
        yield from ("", f"## {family.__name__}: exit status {family.exit_status}", "", inspect.getdoc(family) or "", "")
        yield from ("| code | when |", "|---|---|")
        yield from (f"| `{kind.code}` | {' '.join((inspect.getdoc(kind) or '').split())} |" for kind in below(family))


def below(kind: type[errors.PeerupError]) -> Iterator[type[errors.PeerupError]]:
    """All that descend from an error and are the model's."""
    for inner in kind.__subclasses__():
        if inner.__module__ == errors.__name__:
            yield inner
            yield from below(inner)


# -- counters ------------------------------------------------------------------------------------------------------


def counter_page() -> Iterator[str]:
    """Every counter and gauge with its labels."""
    yield "# Counters"
    yield ""
    yield "Counted from the daemon's start on, each thing once. `peerupctl status` shows them in short, and with"
    yield "`--json` all that were ever counted, under `counters`. A name that ends in `_total` only grows; the others"
    yield f"are what stands or is held now. Beyond {counters.MAX_VALUES} different values of a label, what comes is"
    yield f"counted as `{counters.OTHER}`."
    yield from ("", "| name | labels | what |", "|---|---|---|")
    for name, (told, labels) in counters.NAMES.items():
        yield f"| `{name}` | {', '.join(f'`{label}`' for label in labels)} | {told} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
