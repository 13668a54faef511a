"""One call of a command: its arguments, where its answers come from, and where its words go."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from peerupctl import client
from peerupctl.client import Json
from peerupctl.render import short
from peerupd.model.errors import DaemonNotRunning, RequestError

if TYPE_CHECKING:
    from peerupctl.cli import Command


@dataclass(frozen=True, slots=True)
class Verb:
    """How a command reads its arguments, and what it does."""

    run: Callable[[Call], int]
    arguments: Callable[[ArgumentParser], object] = lambda parser: None


class Answers(Protocol):
    """Who answers verbs: the daemon, or `peerupd once` without one."""

    def ask(self, verb: str, request: dict[str, Any]) -> Json:
        """The answer's data; raises the error that was answered."""
        ...


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RequestError(message, hint=f"{self.prog} --help")


@dataclass
class Call:
    """The arguments of one call, and its two ways to an answer."""

    options: Namespace

    @classmethod
    def parse(cls, command: Command, verb: Verb, words: Sequence[str]) -> Call:
        """Read `words`; raises `RequestError` for words that the command does not know."""
        parser = _Parser(prog=f"peerupctl {command.words}", description=command.summary + ".", allow_abbrev=False)
        verb.arguments(parser)
        common = parser.add_argument_group("every command")
        common.add_argument("--json", action="store_true", help="machine-readable output")
        common.add_argument("--config", metavar="FILE", help="the node's configuration")
        common.add_argument("--socket", metavar="PATH", help="the daemon's control socket")
        return cls(parser.parse_intermixed_args(words) if _intermixed(parser) else parser.parse_args(words))

    @cached_property
    def daemon(self) -> client.Daemon | None:
        """The running daemon, if one answers."""
        return client.find(self.options.socket, self.options.config)

    def the_daemon(self) -> client.Daemon:
        """The running daemon; raises `DaemonNotRunning`."""
        if self.daemon is None:
            raise DaemonNotRunning("no daemon answers", hint="start it: peerupctl daemon, or systemctl start peerupd")
        return self.daemon

    def answers(self) -> Answers:
        """The daemon, or else a process that does one verb and ends."""
        return self.daemon or client.Once(self.options.config)

    def ask(self, verb: str, **request: Json) -> Json:
        """One question to whoever answers."""
        return self.answers().ask(verb, request)

    # -- output ----------------------------------------------------------------------------------------------------

    def show(self, data: Json, lines: Callable[[Json], Iterator[str] | Sequence[str]]) -> int:
        """Print `data`: as it is with `--json`, else the lines made of it."""
        if self.options.json:
            self.json(data)
        else:
            for line in lines(data):
                self.say(line)
        return 0

    def json(self, data: Json) -> None:
        """Print `data` as JSON, two spaces deep, without the envelope."""
        self.say(json.dumps(data, indent=2, ensure_ascii=False))

    def say(self, text: str = "") -> None:
        """A line on stdout, flushed."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """A line on stderr."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def relay_line(self, relay: dict[str, Any]) -> str:
        """A relay and how its reservation stands."""
        kind = {"reserved": "good", "lost": "bad"}.get(relay["state"], "faint")
        why = f" ({relay['why']})" if relay.get("why") else ""
        return f"{short(relay['peer_id'])}  {self.colour(kind, relay['state'])}{why}"

    def colour(self, kind: str, text: str) -> str:
        """`text` in colour, on a terminal that wants it."""
        if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
            return text
        return f"\033[{_COLOURS[kind]}m{text}\033[0m"


_COLOURS = {"good": 32, "bad": 31, "warn": 33, "faint": 2}


def _intermixed(parser: ArgumentParser) -> bool:
    """argparse refuses to mix flags into positionals of these kinds."""
    return not any(action.nargs in ("...", "A...") for action in parser._actions)
