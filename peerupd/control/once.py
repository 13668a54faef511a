"""The same verbs without a daemon: `peerupd once VERB`, one process for one verb.

Protocol. The request is a line of JSON on stdin, or the argument of `--request`. Answers are lines of JSON on stdout:
any number of `{"progress": text}`, then `{"data": ...}` (`invite` has two: the code, then the outcome; `proxy` has one
and stays), or `{"error", "code", "hint", "exit"}`. For `pipe` stdin and stdout are the pipe itself, and an error is
text on stderr.

Theory of operation. A node is built as for a daemon, and only as much of it is run as the verb wants: nothing for verbs
about files, the network without listeners for the others. Whatever changes a file or talks to the network holds the
identity's lock: beside a running daemon it is refused.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import trio

from peerupd.config.schema import NodeSettings
from peerupd.config.store import find_config, find_relay_config
from peerupd.control import founding, lock
from peerupd.control.node import Node
from peerupd.control.offline import RELAY_VERBS, RelayOffline, files_status
from peerupd.control.opening import Opened, open_node
from peerupd.control.operations import VERBS
from peerupd.control.verbs import Access, expected_in
from peerupd.features.ends import PipeEnd
from peerupd.model.codec import from_json, to_json
from peerupd.model.errors import ConfigNotFound, DaemonNotRunning, PeerupError, RequestError
from peerupd.model.names import printable
from peerupd.model.snapshots import Init, InviteAsk, InviteRef, Join, ProxyStatus, RelaySetup
from peerupd.wire import invite

log = logging.getLogger(__name__)

MAX_REQUEST: Final = 1024 * 1024  # bytes of the line on stdin
WITHDRAW_LIMIT: Final = 5.0  # seconds for telling the relays that a peer was removed
FILE_VERBS: Final = frozenset(
    {
        "version",
        "whoami",
        "services",
        "service_add",
        "service_remove",
        "service_enable",
        "service_disable",
        "auth_list",
        "auth_add",
        "auth_validate",
        "resolve",
        "relays",
        "relay_add",
        "relay_remove",
    }
)

Write = Callable[[dict[str, Any]], None]
Work = Callable[[], Awaitable[object]]


def run(verb: str, request: str | None, config: Path | None) -> int:
    """Do one verb; returns the exit status."""
    try:
        trio.run(_interruptible, Once(verb, _request(request), config, _write))
    except Exception as why:
        expected = expected_in(why)
        if expected is None:
            raise
        return _fail(verb, expected)
    return 0


class Once:
    """One verb, its request, and where its answers go."""

    def __init__(self, verb: str, request: dict[str, Any], config: Path | None, write: Write) -> None:
        self._verb = verb
        self._request = request
        self._config = config
        self._write = write

    async def do(self) -> None:
        """Do it; raises `PeerupError`."""
        match self._verb:
            case "init":
                self._answer(founding.init(from_json(Init, self._request)))
            case "relay_setup":
                self._answer(founding.relay_setup(from_json(RelaySetup, self._request)))
            case "join":
                await self._join()
            case "status":
                opened = open_node(self._find())
                self._answer(files_status(opened, Node(opened).reports.relays()))
            case verb if verb in RELAY_VERBS:
                await self._relay_verb()
            case _:
                await self._node_verb()

    # -- relays ----------------------------------------------------------------------------------------------------

    async def _relay_verb(self) -> None:
        config = find_relay_config(self._config, cwd=Path.cwd(), is_root=os.geteuid() == 0)
        verb = RELAY_VERBS[self._verb]
        method = getattr(RelayOffline(config), verb.name)
        self._answer(await method(from_json(verb.request, self._request)))

    # -- nodes -----------------------------------------------------------------------------------------------------

    async def _node_verb(self) -> None:
        opened = open_node(self._find())
        with self._lock(opened):
            node = Node(opened)
            match self._verb:
                case "invite":
                    await self._on_network(node, lambda: self._invite(node), relays=True)
                case "ping":
                    await self._on_network(node, lambda: self._plain(node))
                case "proxy":
                    await self._on_network(node, lambda: self._plain(node, self._announce))
                case "pipe":
                    await self._on_network(node, lambda: self._quiet(node, PipeEnd(0, 1)))
                case "auth_remove":
                    await self._plain(node)
                    await self._withdraw(node)
                case verb if verb in FILE_VERBS:
                    await self._plain(node)
                case verb if verb not in VERBS:
                    raise RequestError(f"unknown verb {printable(verb, 40)!r}", hint=f"known: {', '.join(VERBS)}")
                case _:
                    raise DaemonNotRunning(f"{self._verb} wants a running daemon", hint="start it: peerupctl daemon")

    async def _plain(self, node: Node, *further: object) -> None:
        self._answer(await self._quiet(node, *further))

    async def _quiet(self, node: Node, *further: object) -> object:
        verb = VERBS[self._verb]
        return await getattr(node.operations, verb.name)(from_json(verb.request, self._request), *further)

    async def _invite(self, node: Node) -> None:
        opened = await node.operations.invite_open(from_json(InviteAsk, self._request))
        self._answer(opened)
        self._answer(await node.operations.invite_wait(InviteRef(opened.id)))

    async def _join(self) -> None:
        ask = from_json(Join, self._request)
        code = invite.decode(
            ask.code, allow_legacy=ask.allow_legacy
        )  # before anything is made: a code with a slip changes nothing
        created = False
        try:
            config = self._find()
        except ConfigNotFound:
            config = self._config or founding.home_folder() / founding.NODE_CONFIG
            founding.found_node(config.absolute(), None, code.network, "peerup join")
            created = True
            self._progress(f"Created new config: {config}")
        opened = open_node(config)
        with lock.held(opened.settings.identity_key_file):
            node = Node(opened)
            node.pairings.progress = self._progress
            node.pairings.config_created = created
            await self._on_network(node, lambda: self._plain(node))

    async def _withdraw(self, node: Node) -> None:
        if node.configuration.settings.relays:
            with trio.move_on_after(WITHDRAW_LIMIT):
                await self._on_network(node, node.withdrawals.settle)

    async def _on_network(self, node: Node, work: Work, *, relays: bool = False) -> None:
        """Do `work` while the node's network runs, without listeners; with `relays`, reachable through them."""
        trouble: PeerupError | None = None
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: node.run_network(listen=False, task_status=task_status))
            if relays:
                nursery.start_soon(node.relays.run)
            try:
                await work()
            except PeerupError as why:
                trouble = why
            await node.host.close()
            nursery.cancel_scope.cancel()
        if trouble is not None:
            raise trouble

    def _find(self) -> Path:
        return find_config(self._config, cwd=Path.cwd(), home=Path.home(), is_root=os.geteuid() == 0)

    def _lock(self, opened: Opened[NodeSettings]) -> AbstractContextManager[None]:
        """Verbs that only look at files may do so beside a daemon."""
        known = VERBS.get(self._verb)
        only_looks = self._verb in FILE_VERBS and known is not None and known.access is Access.OBSERVE
        return nullcontext() if only_looks else lock.held(opened.settings.identity_key_file)

    # -- answers ---------------------------------------------------------------------------------------------------

    async def _announce(self, report: ProxyStatus) -> None:
        self._answer(report)

    def _answer(self, report: object) -> None:
        self._write({"data": to_json(report)})

    def _progress(self, text: str) -> None:
        self._write({"progress": text})


async def _interruptible(once: Once) -> None:
    """SIGTERM and SIGINT end the verb, with its goodbyes."""
    async with trio.open_nursery() as nursery:

        async def end(*, task_status: trio.TaskStatus[None]) -> None:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                task_status.started()
                async for _ in signals:
                    nursery.cancel_scope.cancel()

        await nursery.start(end)
        await once.do()
        nursery.cancel_scope.cancel()


def _request(given: str | None) -> dict[str, Any]:
    text = given if given is not None else sys.stdin.buffer.readline(MAX_REQUEST).decode("utf-8", "replace")
    try:
        request = json.loads(text or "{}")
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        raise RequestError("the request is not a JSON object", hint="one line on stdin, or --request")
    return request


def _write(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _fail(verb: str, why: PeerupError) -> int:
    if verb == "pipe":
        sys.stderr.write(f"peerupd: {why}\n")
    else:
        _write({"error": why.message, "code": why.code, "hint": why.hint, "exit": why.exit_status})
    return why.exit_status
