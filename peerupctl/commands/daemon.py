"""`daemon`: start it, ask it, end it."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import NoReturn

from peerupctl.call import Call, Verb


def start(call: Call) -> NoReturn:
    """Becomes the daemon."""
    o = call.options
    given = {"--config": o.config, "--socket": o.socket, "--log-level": o.log_level}
    words = [word for flag, value in given.items() if value for word in (flag, value)]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "peerupd", "--foreground", *words])  # noqa: S606 - no shell wanted


def _reported(verb: str) -> Verb:
    """The daemon's own text of `verb`, or its data with --json."""

    def run(call: Call) -> int:
        daemon = call.the_daemon()
        request = {"all": True} if getattr(call.options, "all", False) else {}
        if call.options.json:
            call.json(daemon.ask(verb, request))
        else:
            sys.stdout.write(daemon.text(verb, request))
        return 0

    def arguments(parser: ArgumentParser) -> None:
        if verb == "peers":
            parser.add_argument("--all", action="store_true", help="other agents too")

    return Verb(run, arguments)


def stop(call: Call) -> int:
    """It drains first."""
    return call.show(call.the_daemon().ask("shutdown", {}), lambda _: ["Shutdown requested."])


def _start_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"))


VERBS = {
    "start": Verb(start, _start_arguments),
    "stop": Verb(stop),
    "status": _reported("status"),
    "services": _reported("services"),
    "peers": _reported("peers"),
}
