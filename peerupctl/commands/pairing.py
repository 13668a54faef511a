"""`invite`, `join`: two machines come to know each other.

Headless, stdout carries only what a script wants: the code's line (flushed before the wait), or JSON; all else goes to
stderr.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from typing import Any

from peerupctl.call import Call, Verb
from peerupctl.client import Daemon, Once
from peerupctl.render import lasting, short
from peerupd.model.duration import format_duration, parse_duration
from peerupd.model.errors import RequestError


def invite(call: Call) -> int:
    """Exit status 0 when somebody joined, 1 when nobody did."""
    o = call.options
    o.headless = o.headless or o.json
    quiet = o.non_interactive or o.headless
    tell = call.note if quiet else call.say
    tell("Waiting for relay reservation...")
    outcome: dict[str, Any] = {}
    for kind, data in _invite_steps(call):
        if kind == "opened":
            _show_code(call, data, quiet)
            for note in data.get("notes", []):
                call.note(f"note: {note}")
        elif kind == "outcome":
            outcome = data
        else:
            call.note(data)
    if o.headless:
        call.json(outcome)
    for line in _outcome(outcome):
        tell(line)
    return 0 if outcome.get("outcome") == "joined" else 1


def _invite_steps(call: Call) -> Iterator[tuple[str, Any]]:
    """`("opened", …)`, then `("outcome", …)`; an interrupt cancels the invite."""
    request = {"name": call.options.name, "ttl_seconds": call.options.ttl}
    if call.daemon is None:
        yield from _steps_once(Once(call.options.config), request)
    else:
        yield from _steps_daemon(call.daemon, request)


def _steps_daemon(daemon: Daemon, request: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    opened = daemon.ask("invite_open", request)
    try:
        yield "opened", opened
        yield "outcome", daemon.ask("invite_wait", {"id": opened["id"]})
    except BaseException:
        daemon.ask("invite_cancel", {"id": opened["id"]})
        raise


def _steps_once(once: Once, request: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for line in once.lines("invite", request):
        if "progress" in line:
            yield "progress", line["progress"]
        elif "code" in line["data"]:
            yield "opened", line["data"]
        else:
            yield "outcome", line["data"]


def _show_code(call: Call, opened: dict[str, Any], quiet: bool) -> None:
    o = call.options
    if o.headless:
        call.json({key: opened[key] for key in ("code", "expires_at", "id", "relay")})
    elif quiet:
        call.say(opened["code"])
        call.note(f"Waiting for peer to join (expires in {lasting(o.ttl)})...")
    else:
        call.say(f"\n=== Invite Code (expires in {format_duration(o.ttl)}) ===\n\n{opened['code']}\n")
        for line in opened.get("qr", []):
            call.say(line)
        call.say(f"\nOr on that device, run:  peerup join {opened['code']}\n\nWaiting for peer to join...")
    for note in opened.get("notes", []):
        call.note(f"note: {note}")


def _outcome(outcome: dict[str, Any]) -> Iterator[str]:
    who = f'Peer "{outcome["name"]}"' if outcome.get("name") else f"Peer {short(outcome.get('peer_id') or '')}"
    yield {
        "joined": f"{who} joined and authorized!",
        "expired": "Invite expired. No peer joined.",
        "burned": "Invite ended: three wrong guesses. Make a new one; somebody tried codes.",
        "cancelled": "Cancelled.",
    }.get(outcome.get("outcome", ""), "The invite ended without a word.")
    yield from outcome.get("notes", [])


def join(call: Call) -> int:
    """By the code in the arguments, else in `PEERUP_INVITE_CODE`, else on stdin."""
    o = call.options
    quiet = o.non_interactive or o.from_env
    tell = call.note if quiet or o.json else call.say
    code = _code(call, quiet)
    tell("=== peer-up join ===")
    data = _join(call, {"code": code, "name": o.name, "allow_legacy": o.allow_legacy}, tell)
    if o.json:
        call.json(data)
        return 0
    for line in _joined(data):
        tell(line)
    if not quiet and data["name"]:
        call.say(f"\nTry: peerup ping {data['name']}")
    return 0


def _join(call: Call, request: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    if call.daemon is not None:
        tell("Connecting...")
        answer: dict[str, Any] = call.daemon.ask("join", request)
        return answer
    data: dict[str, Any] = {}
    for line in Once(call.options.config).lines("join", request):
        if "progress" in line:
            tell(line["progress"])
        data = line.get("data", data)
    return data


def _joined(data: dict[str, Any]) -> Iterator[str]:
    yield f"{'Created new config' if data['config_created'] else 'Using config'}: {data['config']}"
    yield f"Your Peer ID: {data['own_peer_id']}"
    yield "=== Joined successfully! ==="
    if data["name"]:
        yield f'Peer "{data["name"]}" authorized and added to names.'
    else:
        yield f"Peer {short(data['peer_id'])} authorized."
    yield f"Authorized keys: {data['authorized_keys']}"
    yield from data.get("notes", [])


def _code(call: Call, quiet: bool) -> str:
    o = call.options
    code = "".join(o.code) if not o.from_env else ""
    code = code or os.environ.get("PEERUP_INVITE_CODE", "")
    if not code and not o.from_env and (quiet or not sys.stdin.isatty()):
        code = sys.stdin.readline().strip()
    if not code:
        raise RequestError("no invite code", hint="peerupctl join CODE, or PEERUP_INVITE_CODE, or on stdin")
    return code


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as why:
        raise RequestError(f"--ttl: wanted {why}, got {text!r}") from None


def _invite_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--name", default="", help="what the other machine shall call this one")
    parser.add_argument("--ttl", type=_seconds, default=600.0, help="how long the code lives; default 10m")
    parser.add_argument("--non-interactive", action="store_true", help="only the code on stdout")
    parser.add_argument("--headless", action="store_true", help="JSON on stdout: the code, then the outcome")


def _join_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("code", nargs="*", help="the invite code; dashes and blanks do not matter")
    parser.add_argument("--name", default="", help="what the other machine shall call this one")
    parser.add_argument("--non-interactive", action="store_true", help="ask nothing, stdout stays empty")
    parser.add_argument("--from-env", action="store_true", help="only from PEERUP_INVITE_CODE")
    parser.add_argument("--allow-legacy", action="store_true", help="accept codes of peer-up's older text dialect")


VERBS = {"invite": Verb(invite, _invite_arguments), "join": Verb(join, _join_arguments)}
