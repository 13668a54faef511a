"""The front door: arguments, logging, the right assembler, the exit status.

Exit status: 0 ended calmly; 2 what was asked or configured cannot be; 3 refused; 4 the other side's fault; 5 the world
is in the way; 70 a bug. Each role imports its own rooms, when it is known that it is this one.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from peerupd.linux import openssl

with openssl.left_out():
    import trio

    from peerupd.config.store import find_config, find_relay_config
    from peerupd.control import logs
    from peerupd.control.opening import open_node, open_relay
    from peerupd.control.verbs import expected_in
    from peerupd.linux.descriptors import raise_limit
    from peerupd.linux.systemd import Notifier
    from peerupd.model import version
    from peerupd.model.addresses import Endpoint
    from peerupd.model.codec import to_json
    from peerupd.model.errors import PeerupError

BUG: Final = 70  # EX_SOFTWARE of sysexits.h


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    except Exception as why:
        expected = expected_in(why)
        if expected is not None:
            return _complain(expected)
        traceback.print_exc()
        return BUG
    return status


def _node(options: argparse.Namespace) -> int:
    from peerupd.control.node import Node
    from peerupd.frontends.door import ControlDoor
    from peerupd.frontends.socket import place

    home = Path.home()
    config = find_config(options.config, cwd=Path.cwd(), home=home, is_root=os.geteuid() == 0, or_copy=True)
    opened = open_node(config, or_copy=True)
    logs.configure(options.log_level or opened.settings.log_level)
    door = ControlDoor(place(opened.file.path, home, options.socket))
    _run(lambda: Node(opened).run(door, Notifier(), _say(options)))
    return 0


def _relay(options: argparse.Namespace) -> int:
    from peerupd.control.relay_node import RelayNode

    config = find_relay_config(options.config, cwd=Path.cwd(), is_root=os.geteuid() == 0, or_copy=True)
    opened = open_relay(config, or_copy=True)
    logs.configure(options.log_level or opened.settings.log_level)
    _run(lambda: RelayNode(opened).run(_healthz, Notifier(), _say(options)))
    return 0


async def _healthz(
    where: Endpoint, figures: Callable[[], Mapping[str, str | int]], *, task_status: trio.TaskStatus[Endpoint]
) -> None:
    from peerupd.frontends import healthz  # late: most relays answer nobody there

    await healthz.serve(where, figures, task_status=task_status)


def _once(options: argparse.Namespace) -> int:
    from peerupd.control import once

    logs.configure(options.log_level or "warning")
    return once.run(options.verb, options.request, options.config)


def _version(options: argparse.Namespace) -> int:
    own = version.own()
    if options.json:
        print(json.dumps(to_json(own), indent=2))
    else:
        print(f"peerup {own.version} ({own.commit}) built {own.built}\nPython {own.python}")
    return 0


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run to the end; what was imported and read so far is never garbage. Each connection takes a descriptor."""
    gc.freeze()
    raise_limit()
    trio.run(work)


def _say(options: argparse.Namespace) -> Callable[[str], None]:
    """Lines for a person at a terminal; silent under a service manager."""
    if not (options.foreground or sys.stdout.isatty()):
        return lambda line: None
    return lambda line: print(line, flush=True)


def _complain(why: PeerupError) -> int:
    sys.stdout.flush()
    print(f"peerupd: {why.message}", file=sys.stderr)
    if why.hint:
        print(f"  hint: {why.hint}", file=sys.stderr)
    return why.exit_status


def _parser() -> argparse.ArgumentParser:
    """The command line; the options may stand before or behind the role."""
    parser = argparse.ArgumentParser(prog="peerupd", description="The peerup daemon.", parents=[_common()])
    parser.set_defaults(run=_node, config=None, socket=None, log_level=None, foreground=False)
    roles = parser.add_subparsers(metavar="ROLE", help="without one: a node")
    relay = roles.add_parser("relay", help="a relay server", parents=[_common()])
    relay.set_defaults(run=_relay)
    single = roles.add_parser("once", help="one verb without a daemon", parents=[_common()])
    single.add_argument("verb")
    single.add_argument("--request", metavar="JSON", help="instead of a line on stdin")
    single.set_defaults(run=_once)
    shown = roles.add_parser("version", help="version, commit, build date and Python", parents=[_common()])
    shown.add_argument("--json", action="store_true")
    shown.set_defaults(run=_version)
    return parser


def _common() -> argparse.ArgumentParser:
    """Options of every role; those that are not given leave what an earlier parser found."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    common.add_argument("--config", type=Path, metavar="FILE", help="the configuration")
    common.add_argument("--socket", type=Path, metavar="PATH", help="the control socket's place")
    common.add_argument("--log-level", choices=logs.LEVELS, help="instead of the configuration's")
    common.add_argument("--foreground", action="store_true", help="print start-up lines also without a terminal")
    return common
