"""The table of commands: what can be typed, where each is done, and how a mistyped word is answered.

Exit status: 0 done; 1 asked and answered no (a ping without answers, an invite that nobody took); 2 the request cannot
be; 3 refused; 4 the other side's fault; 5 the world is in the way; 70 a bug; 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from peerupd.model.errors import PeerupError, RequestError


@dataclass(frozen=True, slots=True)
class Command:
    """One line of the table: its words, the module under `peerupctl.commands` and the name there, what it does."""

    words: str
    place: str
    summary: str


COMMANDS = (
    Command("init", "setup:init", "make config, identity and allowlist"),
    Command("whoami", "setup:whoami", "show this node's peer ID"),
    Command("version", "setup:version", "show version, commit, build date and Python"),
    Command("status", "status:status", "what runs and what is configured"),
    Command("invite", "pairing:invite", "make an invite code and wait for the other machine"),
    Command("join", "pairing:join", "join by an invite code"),
    Command("auth add", "auth:add", "let a peer in"),
    Command("auth list", "auth:list_", "who may come in"),
    Command("auth remove", "auth:remove", "shut a peer out, at once"),
    Command("auth validate", "auth:validate", "check the allowlist file"),
    Command("service add", "service:add", "offer a service to authorised peers"),
    Command("service list", "service:list_", "what this node offers"),
    Command("service remove", "service:remove", "stop offering a service"),
    Command("service enable", "service:enable", "offer a configured service again"),
    Command("service disable", "service:disable", "keep a service configured, but closed"),
    Command("expose", "service:expose", "offer a service until the daemon ends"),
    Command("unexpose", "service:unexpose", "take an exposed service back"),
    Command("peers", "peers:peers", "who is connected, and by what path"),
    Command("ping", "probe:ping", "round trips to a peer, with the path of each"),
    Command("resolve", "probe:resolve", "what peer a name stands for"),
    Command("proxy", "proxy:proxy", "bring a peer's service to a local port, until interrupted"),
    Command("pipe", "proxy:pipe", "a peer's service on stdin and stdout (ssh's ProxyCommand)"),
    Command("connect", "proxy:connect", "bring a peer's service to a local port, in the daemon"),
    Command("disconnect", "proxy:disconnect", "end a proxy of the daemon"),
    Command("proxies", "proxy:proxies", "the daemon's proxies"),
    Command("relay add", "relay:add", "use a relay"),
    Command("relay list", "relay:list_", "the relays in use"),
    Command("relay remove", "relay:remove", "use a relay no more"),
    Command("relay setup", "relay:setup", "make config and key of a relay, and show its addresses"),
    Command("relay serve", "relay:serve", "run the relay"),
    Command("relay info", "relay:info", "who this relay is, and its addresses"),
    Command("relay authorize", "relay:authorize", "let a peer use this relay"),
    Command("relay deauthorize", "relay:deauthorize", "shut a peer out of this relay"),
    Command("relay list-peers", "relay:list_peers", "who may use this relay"),
    Command("relay version", "setup:version", "as `version`"),
    Command("daemon", "daemon:start", "run the daemon in the foreground"),
    Command("daemon start", "daemon:start", "run the daemon in the foreground"),
    Command("daemon stop", "daemon:stop", "end the daemon, calmly"),
    Command("daemon status", "daemon:status", "the daemon's own report"),
    Command("daemon services", "daemon:services", "as the daemon reports them"),
    Command("daemon peers", "daemon:peers", "as the daemon reports them"),
    Command("daemon ping", "probe:daemon_ping", "four pings, by the daemon"),
    Command("daemon connect", "proxy:daemon_connect", "as `connect`, with flags"),
    Command("daemon disconnect", "proxy:disconnect", "as `disconnect`"),
    Command("shutdown", "daemon:stop", "as `daemon stop`"),
)

_ALIASES = {"--version": "version", "-V": "version", "--help": "help", "-h": "help"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    words[:1] = [_ALIASES.get(word, word) for word in words[:1]]
    if not words or words[0] == "help":
        sys.stdout.write(usage())
        return 0 if words else RequestError.exit_status
    try:
        command, rest = find(words)
        return _run(command, rest)
    except PeerupError as why:
        return _complain(why)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit is quiet
        return 141


def find(words: Sequence[str]) -> tuple[Command, list[str]]:
    """The command that these words begin with, the longest first, and the words behind it; raises `RequestError`."""
    for size in (2, 1):
        typed = " ".join(words[:size])
        for command in COMMANDS:
            if len(words) >= size and command.words == typed and not _misses_subcommand(command, words):
                return command, list(words[size:])
    raise RequestError(f"unknown command {' '.join(words[:2])!r}", hint=_nearest(words))


def usage() -> str:
    """The table, for people."""
    width = max(len(command.words) for command in COMMANDS) + 2
    lines = [f"  {command.words:<{width}}{command.summary}" for command in COMMANDS]
    return "\n".join(
        (
            "usage: peerupctl COMMAND [...]        (`peerup` is the same program)",
            "",
            *lines,
            "",
            "Every command knows --help, --json, --config FILE and --socket PATH.",
            "",
        )
    )


def _misses_subcommand(command: Command, words: Sequence[str]) -> bool:
    """Whether `daemon nonsense` was typed: a word that is no flag behind a command that has subcommands."""
    has_subcommands = any(other.words.startswith(command.words + " ") for other in COMMANDS)
    return has_subcommands and command.words == words[0] and len(words) > 1 and not words[1].startswith("-")


def _nearest(words: Sequence[str]) -> str:
    import difflib

    known = [command.words for command in COMMANDS]
    typed = " ".join(word for word in words[:2] if not word.startswith("-"))
    close = difflib.get_close_matches(typed, known, 3, 0.5) or [w for w in known if w.startswith(words[0] + " ")]
    return f"did you mean: {', '.join(close[:5])}?" if close else "`peerupctl help` lists the commands"


def _run(command: Command, rest: list[str]) -> int:
    from peerupctl.call import Call

    module, _, name = command.place.partition(":")
    verb = importlib.import_module(f"peerupctl.commands.{module}").VERBS[name]
    return int(verb.run(Call.parse(command, verb, rest)))


def _complain(why: PeerupError) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"peerupctl: {why.message}\n")
    if why.hint:
        sys.stderr.write(f"  hint: {why.hint}\n")
    return why.exit_status
