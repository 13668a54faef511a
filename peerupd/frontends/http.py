"""The HTTP door: verbs over a Unix socket, as Go peer-up's DAEMON-API documents them.

Theory of operation. A caller is known by its socket's credentials before a byte is read; each request then shows the
cookie, finds its route, has its fields made into the verb's frozen request, and gets the report back in the wanted
form. Two verbs keep the connection: `proxy` is a held answer that lives as long as the caller, `pipe` switches to
chunks. At most `MAX_CONNECTIONS` are open; when one more comes, the one that has been silent longest makes room. A bug
in a verb is a 500 and a traceback in the log, never the end of the daemon.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import trio

from peerupd.control.verbs import Access, Verb, expected_in
from peerupd.frontends import answers, routes, text
from peerupd.frontends.access import Caller, Rights, caller_of
from peerupd.frontends.conversation import Asked, BadRequest, Conversation, Headers
from peerupd.frontends.pipe import ChunkedEnd
from peerupd.model.codec import from_json
from peerupd.model.errors import LimitReached, NotAuthorized, PeerupError, RequestError, Unauthenticated
from peerupd.model.logs import said

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 256
GRACE: Final = 3.0  # seconds for requests that are being answered when the door closes
PIPE_PROTOCOL: Final = "peerup-pipe"
JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
_FLAGS: Final = {"true": True, "1": True, "": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class _Question:
    """A request that has found its verb."""

    asked: Asked
    verb: Verb
    request: Any
    wants_text: bool


class Door:
    """Lets callers in, one conversation each."""

    def __init__(self, operations: object, verbs: Mapping[str, Verb], cookie: str, rights: Rights) -> None:
        self._operations = operations
        self._verbs = verbs
        self._cookie = f"Bearer {cookie}".encode()
        self._rights = rights
        self._open = 0
        self._silent: dict[Conversation, trio.CancelScope] = {}  # longest silent first
        self._held: set[trio.CancelScope] = set()
        self._closing = trio.Event()

    async def serve(
        self, listener: trio.SocketListener, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer whoever connects until `close`, then whoever is still being answered, for `GRACE` seconds."""
        async with trio.open_nursery() as conversations:
            async with trio.open_nursery() as accepting:
                serve = partial(trio.serve_listeners, self._admit, [listener], handler_nursery=conversations)
                await accepting.start(serve)
                task_status.started()
                await self._closing.wait()
                accepting.cancel_scope.cancel()
            for scope in (*self._silent.values(), *self._held):
                scope.cancel()
            conversations.cancel_scope.deadline = trio.current_time() + GRACE

    def close(self) -> None:
        """Take no further callers, and send away those that wait."""
        self._closing.set()

    # -- one connection --------------------------------------------------------------------------------------------

    async def _admit(self, stream: trio.SocketStream) -> None:
        crowded = self._open >= MAX_CONNECTIONS and not self._make_room()
        self._open += 1
        try:
            async with stream:
                await self._converse(Conversation(stream), caller_of(stream.socket), crowded=crowded)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            log.debug("a caller of the control socket went away in the middle, ignoring")
        except Exception:
            log.exception("a bug in the control door ended one of its connections", extra=said("bug", where="door"))
        finally:
            self._open -= 1

    def _make_room(self) -> bool:
        """End the conversation that has been silent longest; False: all are busy."""
        if not self._silent:
            return False
        silence = self._silent.pop(next(iter(self._silent)))
        silence.cancel()
        return True

    async def _converse(self, conversation: Conversation, caller: Caller, *, crowded: bool) -> None:
        going_on = True
        while going_on:
            try:
                asked = await self._wait(conversation)
            except BadRequest as why:
                await conversation.refuse(why.status, _typed(TEXT), f"{_phrase(why.status)}\n".encode())
                return
            if asked is None:
                return
            if crowded:
                await conversation.refuse(503, _typed(JSON), answers.failure(_CROWDED))
                return
            going_on = await self._answer(conversation, asked, caller)

    async def _wait(self, conversation: Conversation) -> Asked | None:
        """The next request; None: there is none, or somebody else needed the room."""
        if self._closing.is_set():
            return None
        with trio.CancelScope() as silence:
            self._silent[conversation] = silence
            try:
                return await conversation.next()
            finally:
                self._silent.pop(conversation, None)
        return None

    # -- one request -----------------------------------------------------------------------------------------------

    async def _answer(self, conversation: Conversation, asked: Asked, caller: Caller) -> bool:
        """Answer one request; whether the conversation goes on."""
        try:
            access = self._check(asked, caller)
            path, query = _split(asked.target)
            found = routes.find(asked.method, path)
            if isinstance(found, tuple):
                return await _answer_no_route(conversation, asked, found)
            question = self._understand(asked, found, query, access)
            _note(question.verb, caller)
            return await self._do(conversation, question)
        except PeerupError as why:
            bare = asked.method == "HEAD"
            return await conversation.answer(answers.status_of(why), _typed(JSON), answers.failure(why), bare=bare)

    def _check(self, asked: Asked, caller: Caller) -> Access:
        """What the caller may do here; raises `NotAuthorized`, `Unauthenticated`."""
        access = self._rights.of(caller)
        if access is None:
            raise NotAuthorized(
                f"user {caller.uid} may not use this socket",
                hint="run it as the daemon's user or as root, or join the socket's group",
            )
        if not hmac.compare_digest(asked.headers.get("authorization", "").encode(), self._cookie):
            raise Unauthenticated(
                "unauthorized: invalid or missing auth token",
                hint="send `Authorization: Bearer` and what the cookie file beside the socket holds",
            )
        return access

    def _understand(self, asked: Asked, found: routes.Found, query: Mapping[str, str], access: Access) -> _Question:
        """The verb and its request; raises `NotAuthorized`, `RequestError`."""
        verb = self._verbs[found.route.verb]
        if verb.access > access:
            raise NotAuthorized(
                f"{verb.name} wants the right to {verb.access.name.lower()}",
                hint="run it as the daemon's user or as root",
            )
        fields = {**_from_query(query), **_from_body(asked, found.route.body), **found.fields}
        wants_text = query.get("format") == "text" or "text/plain" in asked.headers.get("accept", "")
        return _Question(asked, verb, from_json(verb.request, fields), wants_text)

    async def _do(self, conversation: Conversation, question: _Question) -> bool:
        match question.verb.name:
            case "proxy":
                return await self._hold(conversation, question)
            case "pipe":
                return await self._pipe(conversation, question)
        if question.verb.held:
            report = await self._while_present(conversation, lambda: self._call(question))
            if isinstance(report, _Gone):
                return False
        else:
            report = await self._call(question)
        return await _answer_report(conversation, question, report)

    async def _call(self, question: _Question, *further: object) -> object:
        """Do the verb; raises `PeerupError` only."""
        try:
            return await getattr(self._operations, question.verb.name)(question.request, *further)
        except Exception as why:
            expected = expected_in(why)
            if expected is None:
                log.exception("a bug in %s", question.verb.name, extra=said("bug", where=question.verb.name))
                expected = PeerupError("internal error", hint="this is a bug: the daemon's log has its traceback")
            raise expected from why

    async def _hold(self, conversation: Conversation, question: _Question) -> bool:
        """A held answer: one line when the verb has begun; the verb ends when the caller goes."""
        begun = False

        async def announce(report: object) -> None:
            nonlocal begun
            await conversation.hold(_typed(JSON))
            begun = True
            await conversation.feed(answers.success(report))

        try:
            await self._while_present(conversation, lambda: self._call(question, announce))
        except PeerupError as why:
            if not begun:
                raise
            await conversation.feed(answers.failure(why))
        return False

    async def _pipe(self, conversation: Conversation, question: _Question) -> bool:
        """Chunks both ways, once the far end is there."""
        if PIPE_PROTOCOL not in question.asked.headers.get("upgrade", "").lower():
            raise RequestError("pipe wants the connection itself", hint=f"send `Upgrade: {PIPE_PROTOCOL}`")
        near = ChunkedEnd(partial(conversation.switch, PIPE_PROTOCOL))
        with trio.CancelScope() as scope:
            self._held.add(scope)
            try:
                await self._call(question, near)
            except PeerupError:
                if not near.begun:
                    raise
            finally:
                self._held.discard(scope)
        return False

    async def _while_present(self, conversation: Conversation, call: Callable[[], Awaitable[object]]) -> object | _Gone:
        """What `call` returns; or `_Gone`, and `call` is cancelled, when the caller or the door goes first.

        Raises what `call` raises.
        """
        outcome: list[object] = []
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await conversation.gone()
                nursery.cancel_scope.cancel()

            self._held.add(nursery.cancel_scope)
            nursery.start_soon(watch)
            try:
                outcome.append(await call())
            except PeerupError as why:
                outcome.append(why)
            finally:
                self._held.discard(nursery.cancel_scope)
            nursery.cancel_scope.cancel()
        result = outcome[0] if outcome else _Gone()
        if isinstance(result, PeerupError):
            raise result
        return result


class _Gone:
    """The caller did not wait for the answer."""


async def _answer_report(conversation: Conversation, question: _Question, report: object) -> bool:
    bare = question.asked.method == "HEAD"
    shown = text.render(question.verb.name, question.request, report) if question.wants_text else None
    if shown is not None:
        return await conversation.answer(200, _typed(TEXT), shown.encode("utf-8", "replace"), bare=bare)
    return await conversation.answer(200, _typed(JSON), answers.success(report), bare=bare)


async def _answer_no_route(conversation: Conversation, asked: Asked, allowed: tuple[str, ...]) -> bool:
    bare = asked.method == "HEAD"
    if allowed:
        headers = [*_typed(TEXT), ("Allow", ", ".join(allowed))]
        return await conversation.answer(405, headers, b"Method Not Allowed\n", bare=bare)
    return await conversation.answer(404, _typed(TEXT), b"404 page not found\n", bare=bare)


def _note(verb: Verb, caller: Caller) -> None:
    level = logging.DEBUG if verb.access is Access.OBSERVE else logging.INFO
    log.log(level, "%s asked", verb.name, extra=said("control.asked", verb=verb.name, uid=caller.uid, pid=caller.pid))


def _split(target: str) -> tuple[str, dict[str, str]]:
    """Path and query of a request target; the scheme and host that a proxy's caller writes are ignored.

    Raises `RequestError`.
    """
    try:
        parts = urlsplit(target)
    except ValueError:
        raise RequestError("cannot read the request's target", hint="it wants a path, like /v1/status") from None
    return parts.path, dict(parse_qsl(parts.query, keep_blank_values=True))


def _from_query(query: Mapping[str, str]) -> dict[str, Any]:
    """Fields of the query; flags as they are usually written."""
    return {name: _FLAGS.get(value, value) for name, value in query.items() if name != "format"}


def _from_body(asked: Asked, wish: routes.Body) -> dict[str, Any]:
    """Fields of the body: the first JSON value in it, an object; raises `RequestError`."""
    if wish is routes.Body.IGNORED or (wish is routes.Body.WELCOME and not asked.body.strip()):
        return {}
    try:
        if asked.cut:
            raise ValueError("the body is longer than we read")
        value, _ = json.JSONDecoder().raw_decode(asked.body.decode().lstrip())
    except (ValueError, RecursionError):
        raise RequestError("invalid request body", hint="it wants a JSON object of at most 1 MiB") from None
    if not isinstance(value, dict):
        raise RequestError("invalid request body", hint="it wants a JSON object")
    return {str(name).lower(): inner for name, inner in value.items()}


def _typed(kind: str) -> Headers:
    return [("Content-Type", kind)]


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase


_CROWDED: Final = LimitReached(
    f"{MAX_CONNECTIONS} callers are busy at this socket already", hint="try again when some of them have gone"
)
