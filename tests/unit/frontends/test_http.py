"""The HTTP door over a real Unix socket, with small verbs behind it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from peerupd.control import operations
from peerupd.control.verbs import Access, table, verb
from peerupd.features.ends import SocketEnd
from peerupd.frontends import http, routes
from peerupd.frontends.access import Rights
from peerupd.frontends.conversation import MAX_BODY, MAX_HEAD
from peerupd.frontends.http import MAX_CONNECTIONS, Door
from peerupd.frontends.pipe import ChunkedEnd
from peerupd.frontends.socket import ControlSocket, Place
from peerupd.model import errors
from peerupd.model.errors import PeerupError
from peerupd.model.snapshots import (
    AuthAdd,
    AuthRemove,
    Connect,
    Done,
    Expose,
    InviteRef,
    Nothing,
    PeersQuery,
    Ping,
    PingReport,
    PingResult,
    PingStats,
    Pipe,
    ProxyStatus,
    Resolve,
    Resolved,
    ServiceAdd,
    ServiceRef,
    ServiceStatus,
    Whoami,
)
from peerupd.wire.chunks import MAX_CHUNK, ChunkReader

PEER = "12D3KooWQeqs8JGbw7PJw5MBqnLK5JSoLRTw1Asmvw2eUUxYb3Q2"


class FakeOperations:
    """Verbs of the real names; what they were asked is kept."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self._more = trio.Event()
        self.trouble: Exception | None = None
        self.release = trio.Event()
        self.cancelled = trio.Event()
        self.torn = trio.Event()

    async def heard(self, count: int) -> None:
        with trio.fail_after(30):
            while len(self.asked) < count:
                self._more = trio.Event()
                await self._more.wait()

    def _heard(self, ask: object) -> None:
        self.asked.append(ask)
        self._more.set()
        if self.trouble is not None:
            raise self.trouble

    @verb(Access.OBSERVE)
    async def whoami(self, ask: Nothing) -> Whoami:
        self._heard(ask)
        return Whoami(PEER)

    @verb(Access.OBSERVE)
    async def services(self, ask: Nothing) -> tuple[ServiceStatus, ...]:
        self._heard(ask)
        return ()

    @verb(Access.OBSERVE)
    async def peers(self, ask: PeersQuery) -> tuple[()]:
        self._heard(ask)
        return ()

    @verb(Access.OBSERVE)
    async def resolve(self, ask: Resolve) -> Resolved:
        self._heard(ask)
        return Resolved(ask.name, PEER, "<&>")

    @verb(Access.OBSERVE, held=True)
    async def ping(self, ask: Ping) -> PingReport:
        self._heard(ask)
        result = PingResult(1, PEER, 45.0, "RELAYED")
        return PingReport((result,), PingStats(1, 1, 0, 0.0, 45.0, 45.0, 45.0), PEER)

    @verb(Access.OPERATE)
    async def expose(self, ask: Expose) -> Done:
        self._heard(ask)
        return Done("exposed")

    @verb(Access.OPERATE)
    async def unexpose(self, ask: ServiceRef) -> Done:
        self._heard(ask)
        return Done("unexposed")

    @verb(Access.OPERATE)
    async def service_add(self, ask: ServiceAdd) -> Done:
        self._heard(ask)
        return Done("added")

    @verb(Access.ADMINISTER)
    async def auth_add(self, ask: AuthAdd) -> Done:
        self._heard(ask)
        return Done("added")

    @verb(Access.ADMINISTER)
    async def auth_remove(self, ask: AuthRemove) -> Done:
        self._heard(ask)
        await self.release.wait()
        return Done("removed")

    @verb(Access.ADMINISTER, held=True)
    async def invite_wait(self, ask: InviteRef) -> Done:
        self._heard(ask)
        try:
            await self.release.wait()
        except trio.Cancelled:
            self.cancelled.set()
            raise
        return Done("joined")

    @verb(Access.OPERATE, held=True)
    async def proxy(self, ask: Connect, announce: Any) -> Done:
        self._heard(ask)
        await announce(ProxyStatus("proxy-1", "127.0.0.1:1"))
        try:
            await self.release.wait()
        except trio.Cancelled:
            self.cancelled.set()
            raise
        raise errors.ConnectionLost("the proxy broke")

    @verb(Access.OPERATE, held=True)
    async def pipe(self, ask: Pipe, near: Any) -> Done:
        self._heard(ask)
        if ask.service == "torn":
            await near.receive_some()
            near.reset()
            raise errors.ConnectionLost("torn")
        try:
            while data := await near.receive_some(4):
                await near.send_all(bytes(data).upper())
        except trio.BrokenResourceError as why:
            near.reset()
            self.torn.set()
            raise errors.StreamReset(str(why)) from why
        await near.send_eof()
        await near.aclose()
        return Done("ended")


@dataclass
class Answer:
    status: int
    head: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Caller:
    """One connection to the door."""

    stream: trio.SocketStream
    cookie: str
    pending: bytearray = field(default_factory=bytearray)

    async def ask(self, method: str, path: str, body: object = None, /, **headers: str) -> Answer:
        await self.send(method, path, body, **headers)
        return await self.answer(bodiless=method == "HEAD")

    async def send(self, method: str, path: str, body: object = None, /, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        lines = {"Host": "x", "Authorization": f"Bearer {self.cookie}", "Content-Length": str(len(raw)), **given}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await self.stream.send_all(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + raw)

    async def answer(self, *, bodiless: bool = False) -> Answer:
        with trio.fail_after(30):
            while b"\r\n\r\n" not in self.pending:
                await self.more()
            head, _, rest = bytes(self.pending).partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            named = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            size = 0 if bodiless else int(named.get("content-length", 0))
            self.pending = bytearray(rest)
            while len(self.pending) < size:
                await self.more()
            body = bytes(self.pending[:size])
            del self.pending[:size]
            return Answer(int(first.split()[1]), named, body)

    async def more(self) -> None:
        data = await self.stream.receive_some()
        assert data, "the door hung up"
        self.pending += data

    async def hung_up(self) -> bool:
        with trio.fail_after(30):
            try:
                return await self.stream.receive_some() == b""
            except trio.BrokenResourceError:
                return True


@dataclass
class House:
    """A door and what is behind it."""

    operations: FakeOperations
    control: ControlSocket
    door: Door
    callers: AsyncExitStack

    async def caller(self) -> Caller:
        stream = await self.callers.enter_async_context(await trio.open_unix_socket(self.control.place.socket))
        return Caller(stream, self.control.cookie)


@asynccontextmanager
async def house(tmp_path: Any, rights: Rights | None = None) -> AsyncIterator[House]:
    control = await ControlSocket.open(Place(tmp_path / "s", shared=False))
    behind = FakeOperations()
    door = Door(behind, table(FakeOperations), control.cookie, rights or Rights())
    async with trio.open_nursery() as nursery, AsyncExitStack() as callers:
        await nursery.start(door.serve, control.listener)
        yield House(behind, control, door, callers)
        nursery.cancel_scope.cancel()
    control.close()


# -- the table -----------------------------------------------------------------------------------------------------


def test_every_verb_has_a_route_and_every_route_a_verb() -> None:
    assert {route.verb for route in routes.ROUTES} == set(operations.VERBS)


def test_every_verb_has_an_access_class_a_docstring_and_a_frozen_request() -> None:
    for each in operations.VERBS.values():
        assert isinstance(each.access, Access)
        assert each.doc.endswith("."), each.name
        assert each.request.__dataclass_params__.frozen, each.name


def test_what_is_not_declared_a_verb_is_not_in_the_table() -> None:
    class Holder(FakeOperations):
        async def secret(self, ask: Nothing) -> None: ...

    assert dict(table(Holder)) == {}


# -- answers -------------------------------------------------------------------------------------------------------


async def test_json_has_an_envelope_a_newline_and_escapes_as_go_writes_them(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        answer = await caller.ask("POST", "/v1/resolve", {"NAME": "höme"})
    assert answer.status == 200
    assert answer.head["content-type"] == "application/json"
    assert (
        answer.body == ('{"data":{"name":"höme","peer_id":"' + PEER + '","source":"\\u003c\\u0026\\u003e"}}\n').encode()
    )


async def test_empty_lists_are_lists_and_whole_floats_have_no_point(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        assert (await caller.ask("GET", "/v1/services")).body == b'{"data":[]}\n'
        assert b'"rtt_ms":45,' in (await caller.ask("POST", "/v1/ping", {"peer": "home"})).body


async def test_text_is_chosen_by_query_or_accept_where_there_is_a_text_form(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        by_query = await caller.ask("POST", "/v1/resolve?format=text", {"name": "home"})
        by_header = await caller.ask("GET", "/v1/whoami", Accept="text/html, text/plain")
        without_form = await caller.ask("POST", "/v1/expose?format=text", {"name": "a", "local_address": "b:1"})
    assert by_query.body.decode() == f"home → {PEER} (source: <&>)\n"
    assert by_query.head["content-type"] == "text/plain; charset=utf-8"
    assert by_header.body.decode() == f"{PEER}\n"
    assert without_form.json == {"data": {"status": "exposed"}}


async def test_fields_come_from_body_query_and_path(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        await caller.ask("GET", "/v1/peers?all=true")
        await caller.ask("DELETE", "/v1/expose/a%2Db", {"name": "ignored"})
        await caller.ask("POST", "/v1/ping", b'{"peer":"p","unknown":1} and more')
    assert here.operations.asked == [PeersQuery(all=True), ServiceRef("a-b"), Ping("p")]


async def test_head_answers_like_get_without_a_body(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        answer = await caller.ask("HEAD", "/v1/whoami")
        assert (answer.status, answer.body) == (200, b"")
        assert int(answer.head["content-length"]) > 50
        assert (await caller.ask("HEAD", "/v1/nowhere")).status == 404
        assert (await caller.ask("GET", "/v1/whoami")).status == 200


async def test_unknown_paths_and_methods_are_answered_in_text(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        unknown = await caller.ask("GET", "/v1/nowhere")
        wrong = await caller.ask("PUT", "/v1/services")
    assert (unknown.status, unknown.body) == (404, b"404 page not found\n")
    assert (wrong.status, wrong.body) == (405, b"Method Not Allowed\n")
    assert wrong.head["allow"] == "DELETE, GET, HEAD, POST"


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        (errors.UnknownProxy("x"), 404),
        (errors.AlreadyExists("x"), 409),
        (errors.InvalidName("x"), 400),
        (errors.NotAuthorized("x"), 403),
        (errors.Unauthenticated("x"), 401),
        (errors.ProtocolViolation("x"), 502),
        (errors.Unreachable("x"), 502),
        (errors.NoRelay("x"), 502),
        (errors.TimedOut("x"), 504),
        (errors.StorageFailed("x"), 500),
        (errors.ServiceDown("x"), 503),
        (ExceptionGroup("nursery", [errors.Unreachable("x")]), 502),
    ],
)
async def test_errors_are_answered_by_family(tmp_path: Any, trouble: Exception, status: int) -> None:
    async with house(tmp_path) as here:
        here.operations.trouble = trouble
        caller = await here.caller()
        answer = await caller.ask("GET", "/v1/whoami?format=text")
    expected = trouble.exceptions[0] if isinstance(trouble, ExceptionGroup) else trouble
    assert isinstance(expected, PeerupError)
    assert answer.status == status
    assert answer.json == {"error": "x", "code": expected.code, "hint": ""}


async def test_a_target_that_is_no_url_is_a_400(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        answer = await caller.ask("GET", "http://[::1/v1/whoami")
        assert (await caller.ask("GET", "/v1/whoami")).status == 200
    assert answer.status == 400
    assert answer.json["code"] == "bad-request"


@pytest.mark.parametrize(
    "request_",
    [b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n", b"HEAD /" + b"x" * MAX_HEAD + b" HTTP/1.0\r\n\r\n"],
)
async def test_a_head_request_that_is_refused_is_answered_without_a_body(
    tmp_path: Any, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        await caller.ask("HEAD", "/v1/whoami")
        await caller.stream.send_all(request_)
        await caller.stream.send_eof()
        answer = await caller.answer(bodiless=True)
        assert await caller.hung_up()
    assert answer.status in (400, 431)
    assert not caller.pending
    assert not caplog.records


async def test_a_bug_in_a_verb_is_a_500_in_the_log_and_the_door_lives(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as here:
        here.operations.trouble = ZeroDivisionError("secret detail")
        caller = await here.caller()
        answer = await caller.ask("GET", "/v1/whoami")
        here.operations.trouble = None
        assert (await caller.ask("GET", "/v1/whoami")).status == 200
    assert answer.status == 500
    assert answer.json["code"] == "internal"
    assert b"secret" not in answer.body
    assert "ZeroDivisionError" in caplog.text


# -- who may -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shown", ["", "Bearer", "Bearer 00", "bearer {cookie}", "Bearer {cookie} ", "Bearer {cookie}0"]
)
async def test_without_the_cookie_everything_is_401(tmp_path: Any, shown: str) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        shown = shown.format(cookie=here.control.cookie)
        answer = await caller.ask("GET", "/v1/nowhere", Authorization=shown)
    if shown.strip() == f"Bearer {here.control.cookie}":
        assert answer.status == 404  # HTTP takes blanks around a header's value away
        return
    assert answer.status == 401
    assert answer.json["error"] == "unauthorized: invalid or missing auth token"


async def test_a_stranger_is_refused_even_with_the_cookie(tmp_path: Any) -> None:
    async with house(tmp_path, _NobodysRights()) as here:
        caller = await here.caller()
        answer = await caller.ask("GET", "/v1/whoami")
    assert (answer.status, here.operations.asked) == (403, [])


async def test_the_sockets_group_observes_and_operates_but_does_not_administer(tmp_path: Any) -> None:
    async with house(tmp_path, _GroupsRights()) as here:
        caller = await here.caller()
        assert (await caller.ask("GET", "/v1/whoami")).status == 200
        assert (await caller.ask("POST", "/v1/expose", {"name": "a", "local_address": "b:1"})).status == 200
        refused = await caller.ask("POST", "/v1/auth", {"peer_id": "x"})
    assert refused.status == 403
    assert refused.json["code"] == "not-authorized"


class _NobodysRights(Rights):
    def of(self, caller: Any) -> None:
        return None


class _GroupsRights(Rights):
    def of(self, caller: Any) -> Access:
        return Access.OPERATE


# -- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"\xff\xfe", b"nonsense", b"[" * 100_000])
async def test_a_body_that_is_no_object_is_refused(tmp_path: Any, body: bytes) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        answer = await caller.ask("POST", "/v1/resolve", body)
    assert answer.status == 400
    assert answer.json["error"].startswith("invalid request body")


async def test_a_missing_or_wrong_field_is_named(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        assert (await caller.ask("POST", "/v1/resolve", {})).json["error"] == "name is required"
        wrong = await caller.ask("POST", "/v1/resolve", {"name": 7})
    assert (wrong.status, wrong.json["error"]) == (400, "name: wanted a text")


async def test_a_body_above_the_limit_is_answered_and_not_kept(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        body = b'{"name": "' + b"x" * MAX_BODY + b'"}'
        answer = await caller.ask("POST", "/v1/resolve", body)
        assert (answer.status, answer.json["error"]) == (400, "invalid request body")
        assert (await caller.ask("GET", "/v1/whoami")).status == 200


async def test_an_endless_body_is_cut(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peerupd.frontends.conversation.MAX_DROPPED", 2 * MAX_BODY)
    async with house(tmp_path) as here:
        caller = await here.caller()
        await caller.send("POST", "/v1/resolve", b"", Content_Length=str(64 * MAX_BODY))
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    while True:
                        await caller.stream.send_all(bytes(MAX_BODY))

            nursery.start_soon(flood)
            assert (await caller.answer()).status == 413


async def test_a_head_above_the_limit_is_a_431(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        answer = await caller.ask("GET", "/v1/whoami", Long="x" * MAX_HEAD)
        assert answer.status == 431
        assert await caller.hung_up()
        assert (await (await here.caller()).ask("GET", "/v1/whoami")).status == 200


@pytest.mark.parametrize(
    "junk", [os.urandom(4096), b"\0" * 50, b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"]
)
async def test_junk_ends_its_own_connection_only(tmp_path: Any, junk: bytes) -> None:
    async with house(tmp_path) as here:
        other = await here.caller()
        caller = await here.caller()
        await caller.stream.send_all(junk + b"\r\n\r\n")
        assert (await caller.answer()).status in (400, 431)
        assert await caller.hung_up()
        assert (await other.ask("GET", "/v1/whoami")).status == 200


async def test_a_caller_that_goes_in_the_middle_of_its_request_is_nothing(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        await caller.stream.send_all(b"POST /v1/resolve HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        await caller.stream.aclose()
        assert (await (await here.caller()).ask("GET", "/v1/whoami")).status == 200


async def test_expect_100_continue_is_answered(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        await caller.send("POST", "/v1/resolve", b"", Content_Length="15", Expect="100-continue")
        assert (await caller.answer()).status == 100
        await caller.stream.send_all(b'{"name":"home"}')
        assert (await caller.answer()).status == 200


async def test_a_caller_that_says_nothing_for_thirty_seconds_is_sent_away(tmp_path: Any, autojump_clock: Any) -> None:
    class Silent:
        async def receive_some(self, _: int | None = None) -> bytes:
            await trio.sleep_forever()
            raise AssertionError

    from peerupd.frontends.conversation import READ_LIMIT, Conversation

    began = trio.current_time()
    assert await Conversation(Silent()).next() is None  # type: ignore[arg-type] # all that is used of a stream
    assert trio.current_time() - began == READ_LIMIT == 30


# -- many callers --------------------------------------------------------------------------------------------------


async def test_200_idle_connections_do_not_starve_the_201st(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        idle = [await here.caller() for _ in range(200)]
        assert (await (await here.caller()).ask("GET", "/v1/whoami")).status == 200
        assert (await idle[0].ask("GET", "/v1/whoami")).status == 200


async def test_when_all_places_are_taken_the_longest_silent_one_makes_room(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        idle = []
        for _ in range(MAX_CONNECTIONS):
            idle.append(await here.caller())
            assert (await idle[-1].ask("GET", "/v1/whoami")).status == 200
        assert (await (await here.caller()).ask("GET", "/v1/whoami")).status == 200
        assert await idle[0].hung_up()
        assert (await idle[1].ask("GET", "/v1/whoami")).status == 200


async def test_when_all_are_busy_the_newcomer_is_told(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 2)
    async with house(tmp_path) as here:
        busy = [await here.caller() for _ in range(2)]
        for caller in busy:
            await caller.send("DELETE", "/v1/auth/x")
        await here.operations.heard(2)
        refused = await (await here.caller()).ask("GET", "/v1/whoami")
        assert (refused.status, refused.json["code"]) == (503, "limit-reached")
        here.operations.release.set()
        assert [(await caller.answer()).status for caller in busy] == [200, 200]


async def test_requests_sent_in_one_go_are_answered_in_order(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        await caller.send("POST", "/v1/resolve", {"name": "one"})
        await caller.send("POST", "/v1/ping", {"peer": "p"})
        await caller.send("POST", "/v1/resolve", {"name": "two"})
        assert [(await caller.answer()).status for _ in range(3)] == [200, 200, 200]
    assert here.operations.asked == [Resolve("one"), Ping("p"), Resolve("two")]


# -- verbs that keep the connection --------------------------------------------------------------------------------


async def test_a_caller_that_goes_ends_what_it_waited_for(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        await caller.send("GET", "/v1/invite/invite-1")
        await here.operations.heard(1)
        await caller.stream.aclose()
        with trio.fail_after(30):
            await here.operations.cancelled.wait()


async def test_a_held_verb_answers_when_it_is_done(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        await caller.send("GET", "/v1/invite/invite-1")
        here.operations.release.set()
        assert (await caller.answer()).json == {"data": {"status": "joined"}}


PROXY = {"peer": "home", "service": "web", "listen": "127.0.0.1:0"}


async def test_proxy_says_where_it_listens_and_lives_as_long_as_its_caller(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        await caller.send("POST", "/v1/proxy", PROXY)
        answer = await caller.answer()
        assert (answer.status, answer.head["transfer-encoding"]) == (200, "chunked")
        while b"\n" not in caller.pending.partition(b"\r\n")[2]:
            await caller.more()
        assert json.loads(caller.pending.split(b"\r\n")[1])["data"]["listen_address"] == "127.0.0.1:1"
        await caller.stream.aclose()
        with trio.fail_after(30):
            await here.operations.cancelled.wait()


async def test_a_proxy_that_ends_by_itself_says_why_in_its_last_line(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        await caller.send("POST", "/v1/proxy", PROXY)
        here.operations.release.set()
        with trio.fail_after(30):
            while b"connection-lost" not in caller.pending:
                await caller.more()
        assert await caller.hung_up()


async def test_a_proxy_that_cannot_begin_is_an_ordinary_error(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        here.operations.trouble = errors.AddressInUse("taken")
        caller = await here.caller()
        assert (await caller.ask("POST", "/v1/proxy", PROXY)).status == 503
        here.operations.trouble = None
        assert (await caller.ask("GET", "/v1/whoami")).status == 200


def chunk(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


UPGRADE = {"Upgrade": "peerup-pipe", "Connection": "Upgrade"}


async def test_pipe_switches_to_chunks_with_half_close(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        await caller.send("POST", "/v1/pipe", {"peer": "home", "service": "echo"}, **UPGRADE)
        await caller.stream.send_all(chunk(b"early ")[:7])
        answer = await caller.answer()
        assert (answer.status, answer.head["upgrade"]) == (101, "peerup-pipe")
        await caller.stream.send_all(chunk(b"early ")[7:] + chunk(b"and late"))
        await caller.stream.send_all(chunk(b""))
        with trio.fail_after(30):
            rest = bytes(caller.pending) + b"".join([bytes(data) async for data in caller.stream])
    reader = ChunkReader()
    assert reader.receive(rest) == b"EARLY AND LATE"
    assert reader.ended


@pytest.mark.parametrize("how", ["hangs up", "hangs up in a chunk", "sends a huge chunk"])
async def test_a_caller_without_a_clean_end_is_cut_off(tmp_path: Any, how: str) -> None:
    words = {
        "hangs up": chunk(b"all"),
        "hangs up in a chunk": chunk(b"half")[:-2],
        "sends a huge chunk": (MAX_CHUNK + 1).to_bytes(4, "big"),
    }[how]
    async with house(tmp_path) as here:
        caller = await here.caller()
        await caller.send("POST", "/v1/pipe", {"peer": "home", "service": "echo"}, **UPGRADE)
        assert (await caller.answer()).status == 101
        await caller.stream.send_all(words)
        if how.startswith("hangs up"):
            await caller.stream.send_eof()
        with trio.fail_after(30):
            rest = bytes(caller.pending) + b"".join([bytes(data) async for data in caller.stream])
            await here.operations.torn.wait()
    assert not rest.endswith(chunk(b""))


async def test_what_is_too_large_for_a_chunk_becomes_several(tmp_path: Any) -> None:
    near, far = trio.socket.socketpair()
    content = bytes(2 * MAX_CHUNK + 5)

    async def switch() -> SocketEnd:
        return SocketEnd(near)

    end, reader, got = ChunkedEnd(switch), ChunkReader(), 0
    end.reset()
    assert not end.begun
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.send_all, content)
        with trio.fail_after(30):
            while got < len(content):
                got += len(reader.receive(await far.recv(65536)))
        assert got == len(content)
    await end.aclose()
    far.close()


async def test_a_pipe_that_tears_after_the_switch_just_ends(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        await caller.send("POST", "/v1/pipe", {"peer": "h", "service": "torn"}, **UPGRADE)
        assert (await caller.answer()).status == 101
        await caller.stream.send_all(chunk(b"x"))
        assert await caller.hung_up()
        assert (await (await here.caller()).ask("GET", "/v1/whoami")).status == 200


async def test_pipe_without_upgrade_and_pipe_to_nobody_are_ordinary_errors(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        assert (await caller.ask("POST", "/v1/pipe", {"peer": "home", "service": "echo"})).status == 400
        here.operations.trouble = errors.Unreachable("nobody")
        assert (await caller.ask("POST", "/v1/pipe", {"peer": "home", "service": "echo"}, **UPGRADE)).status == 502
        here.operations.trouble = None
        assert (await caller.ask("GET", "/v1/whoami")).status == 200


# -- the end -------------------------------------------------------------------------------------------------------


async def test_at_the_end_idle_and_waiting_callers_go_and_busy_ones_are_answered(tmp_path: Any) -> None:
    async with house(tmp_path) as here:
        idle, waiting, busy = [await here.caller() for _ in range(3)]
        assert (await idle.ask("GET", "/v1/whoami")).status == 200
        await waiting.send("GET", "/v1/invite/invite-1")
        await busy.send("DELETE", "/v1/auth/x")
        await here.operations.heard(3)
        here.door.close()
        assert await idle.hung_up()
        assert await waiting.hung_up()
        with pytest.raises(OSError):
            await here.caller()
        here.operations.release.set()
        assert (await busy.answer()).status == 200
        assert await busy.hung_up()


async def test_a_verb_that_does_not_end_is_cut_after_the_grace(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "GRACE", 0.05)
    async with house(tmp_path) as here:
        busy = await here.caller()
        await busy.send("DELETE", "/v1/auth/x")
        await here.operations.heard(1)
        here.door.close()
        assert await busy.hung_up()


async def test_a_bug_in_the_door_ends_one_connection(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as here:
        caller = await here.caller()
        with monkeypatch.context() as patched:
            patched.setattr(routes, "find", lambda method, path: 1 / 0)
            await caller.send("GET", "/v1/whoami")
            assert await caller.hung_up()
        assert (await (await here.caller()).ask("GET", "/v1/whoami")).status == 200
    assert "a bug in the control door" in caplog.text


async def test_mutations_are_logged_with_the_caller(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with house(tmp_path) as here:
        caller = await here.caller()
        await caller.ask("POST", "/v1/expose", {"name": "a", "local_address": "b:1"})
        await caller.ask("GET", "/v1/whoami")
    said = [record.peerup for record in caplog.records if hasattr(record, "peerup")]
    assert said == [{"event": "control.asked", "verb": "expose", "uid": os.getuid(), "pid": os.getpid()}]
