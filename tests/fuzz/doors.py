"""Targets: the HTTP door from the first byte to the answer, `/healthz`, the text forms, and the lines of ping.

Behind the door stand operations that answer every verb with a picture of the right kind. A 500 is a finding: it says
that a bug came out of a verb. All runs on a stream in memory that ends where the input ends; nothing ever waits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_args, get_type_hints

import trio

from peerupd.control.operations import VERBS, Operations
from peerupd.control.verbs import Verb
from peerupd.features import probe
from peerupd.frontends import healthz, text
from peerupd.frontends.access import Caller, Rights
from peerupd.frontends.conversation import MAX_BODY, MAX_DROPPED, MAX_HEAD, Conversation
from peerupd.frontends.http import Door
from peerupd.frontends.routes import ROUTES
from peerupd.model.codec import from_json
from peerupd.model.errors import RequestError
from peerupd.model.snapshots import PathKind
from tests.fuzz import mutation
from tests.fuzz.samples import PEER, drawn
from tests.fuzz.target import Choices, Target, portions
from tests.fuzz.texts import JSON_WORDS, json_seeds
from tests.support.strategies import SNAPSHOT_KINDS, snapshots

COOKIE = "c0ffee"
OWNER = Caller(pid=1, uid=0, groups=frozenset())
RIGHTS = Rights(group=None, owner=0)
LONGEST_ANSWER = 256 * 1024  # bytes to one request of the inputs' size


# -- a stream in memory --------------------------------------------------------------------------------------------


@dataclass
class _Stream:
    """Gives the pieces, then the end; keeps what is sent."""

    pieces: list[bytes]
    sent: bytearray = field(default_factory=bytearray)
    was_reset: bool = False
    peer: object = PEER

    def __post_init__(self) -> None:
        self._left = [memoryview(piece) for piece in self.pieces if piece]

    async def receive_some(self, most: int | None = None) -> bytes:
        """The next piece, or as much of it as is wanted."""
        if not self._left:
            return b""
        piece = self._left.pop(0)
        if most is not None and len(piece) > most:
            self._left.insert(0, piece[most:])
        return bytes(piece[:most])

    async def send_all(self, data: bytes) -> None:
        """Kept."""
        self.sent += data

    async def send_eof(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to do."""

    def reset(self) -> None:
        """Noted."""
        self.was_reset = True

    @property
    def socket(self) -> _Stream:
        """Itself, for those who ask where the caller is."""
        return self

    def getpeername(self) -> tuple[str, int]:
        """This machine."""
        return "127.0.0.1", 1


class _Operations:
    """Answers every verb with a picture of its kind."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def answer(ask: object, *further: object) -> object:
            assert type(ask) is VERBS[name].request
            if name == "proxy":
                await further[0](_report(name))  # type: ignore[operator] # how a held answer begins
            return _report(name)

        return answer


@cache
def _report(verb: str) -> Any:
    """A report as the verb's declaration has it."""
    kind = get_type_hints(getattr(Operations, verb))["return"]
    if get_args(kind):
        return tuple(drawn(snapshots(get_args(kind)[0]), 3))
    if kind is type(None):
        hint = get_type_hints(getattr(Operations, verb)).get("announce")
        kind = get_args(get_args(hint)[0][0]) if hint else kind
        return drawn(snapshots(_announced(verb)), 3)[-1] if hint else None
    return drawn(snapshots(kind), 3)[-1]


def _announced(verb: str) -> type:
    from peerupd.model.snapshots import ProxyStatus

    assert verb == "proxy"
    return ProxyStatus


# -- the door ------------------------------------------------------------------------------------------------------


def _conversed(data: bytes) -> str:
    """Any bytes: the same answers however they come, all of them HTTP, no bug behind any."""

    async def both() -> tuple[bytes, bytes]:
        whole, cut = _Stream([data]), _Stream(portions(data))
        for stream in (whole, cut):
            door = Door(_Operations(), _verbs(), COOKIE, RIGHTS)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                await door._converse(Conversation(stream), OWNER, crowded=False)  # type: ignore[arg-type] # as a stream
        return bytes(whole.sent), bytes(cut.sent)

    whole, cut = trio.run(both)
    assert whole == cut, f"in portions: {cut!r}, at once: {whole!r}"
    return _statuses(whole, len(data))


@cache
def _verbs() -> Mapping[str, Verb]:
    """All but the pipe, which goes on with the bare socket."""
    return {name: verb for name, verb in VERBS.items() if name != "pipe"} | {"pipe": VERBS["whoami"]}


def _statuses(answers: bytes, asked: int) -> str:
    found = [line.split(b" ")[1] for line in re.findall(rb"HTTP/1\.1 \d{3} [^\r\n]*\r\n", answers)]
    assert answers.startswith(b"HTTP/1.1 ") or not answers
    assert b"500" not in found, "a bug behind the door"
    assert len(answers) < LONGEST_ANSWER * (1 + asked // 16)
    return b" ".join(found[:4]).decode()


def _request(method: str, target: str, body: bytes = b"", *more: str) -> bytes:
    head = [f"{method} {target} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {COOKIE}", *more]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*head, "", "")).encode() + body


def _body(verb: str) -> bytes:
    kind = VERBS[verb].request
    at = SNAPSHOT_KINDS.index(kind)
    return next((seed[1:] for seed in json_seeds() if seed[0] == at), b"{}")


@cache
def _request_seeds() -> list[bytes]:
    each = [_request(route.method, re.sub(r"\{\w+\}", "home%2Fx", route.path), _body(route.verb)) for route in ROUTES]
    chunked = (
        _request("POST", "/v1/ping", b"", "Transfer-Encoding: chunked")
        + b"e\r\n"
        + b'{"peer":"abc"}'
        + b"\r\n0\r\n\r\n"
    )
    return [
        *each,
        _request("GET", "/v1/peers?all=true&format=text") + _request("HEAD", "/v1/status"),
        _request("GET", "/v1/status", b"", "Accept: text/plain", "Connection: close"),
        _request("POST", "/v1/pipe", _body("pipe"), "Upgrade: peerup-pipe", "Connection: Upgrade") + b"\0\0\0\1x",
        _request("POST", "/v1/resolve", b'{"name":"x"}', "Expect: 100-continue"),
        chunked,
        b"GET /v1/status HTTP/1.0\r\n\r\n",
        b"POST /v1/auth HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{",
        _request("GET", "http://[::1/v1/status"),
    ]


def _crowd_body(data: bytes) -> str:
    """A large body, right or cut: read up to a bound, dropped behind it."""
    choices = Choices(data)
    size = choices.pick((10, MAX_HEAD, MAX_BODY - 8, MAX_BODY, MAX_BODY + 1, MAX_DROPPED + 1))
    text_ = choices.rest()[:64] or b" "
    body = (text_ * (size // len(text_) + 1))[:size]
    return _conversed(_request("POST", "/v1/ping", body) + _request("GET", "/v1/whoami"))


def _body_mutations(random: Any, data: bytes, other: bytes) -> bytes:
    """The JSON behind the head is changed, and the length in the head with it."""
    head, _, body = data.partition(b"\r\n\r\n")
    _, _, further = other.partition(b"\r\n\r\n")
    changed = mutation.json_behind(0)(random, body or b"{}", further or b"{}")
    head = re.sub(rb"\r\nContent-Length: \d+", b"", head)
    return head + b"\r\nContent-Length: %d" % len(changed) + b"\r\n\r\n" + changed


# -- /healthz ------------------------------------------------------------------------------------------------------


def _healthz(data: bytes) -> str:
    stream = _Stream(portions(data))
    trio.run(healthz._answer, stream, lambda: {"circuits": 1, "status": "ok", "uptime_seconds": 5})
    return _statuses(bytes(stream.sent), len(data))


# -- text forms ----------------------------------------------------------------------------------------------------


def _rendered(data: bytes) -> str | bool:
    """A report of any content in its text form: text, a line an item."""
    verb = sorted(text.FORMS)[data[0] % len(text.FORMS)] if data else "whoami"
    kind = get_type_hints(getattr(Operations, verb))["return"]
    try:
        value = json.loads(data[1:])
    except (ValueError, RecursionError):
        return False
    if get_args(kind):
        items = value if isinstance(value, list) else [value]
        report: object = tuple(from_json(get_args(kind)[0], item) for item in items)
    else:
        report = from_json(kind, value)
    ask = from_json(VERBS[verb].request, {"peer": "a", "name": "b"})
    shown = text.render(verb, ask, report)
    assert shown is not None
    assert shown == "" or shown.endswith("\n")
    return verb


@cache
def _report_seeds() -> list[bytes]:
    from peerupd.model.codec import to_json

    return [bytes([at]) + json.dumps(to_json(_report(verb))).encode() for at, verb in enumerate(sorted(text.FORMS))]


# -- ping ----------------------------------------------------------------------------------------------------------


def _ping_answered(data: bytes) -> str:
    """Somebody pings: one of two answers, or a reset."""
    whole, cut = _Stream([data]), _Stream(portions(data))
    for stream in (whole, cut):
        trio.run(probe.answer, stream)
    assert bytes(whole.sent) in (b"", b"pong\n", b"unknown\n")
    assert whole.was_reset is not bool(whole.sent)
    if len(data) <= probe.MAX_LINE:
        assert whole.sent == cut.sent
    return bytes(whole.sent).decode()


def _ping_asked(data: bytes) -> str:
    """Whatever comes for an answer becomes a result in one printable line."""
    result = trio.run(probe._exchange, _Stream(portions(data)), 1, PathKind.DIRECT)
    assert result.error.isprintable()
    assert len(result.error) < 2 * probe.MAX_LINE
    assert (result.error == "") is (data.partition(b"\n")[0].strip() == b"pong" and b"\n" in data)
    return result.error[:24]


_HTTP_WORDS = (
    *(b"\r\n", b"\r\n\r\n", b"HTTP/1.1", b"HTTP/1.0", b"HEAD ", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n"),
    *(
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"%00",
        b"%2F",
        b"?format=text",
        b"&all=1",
        b"//",
        b"0\r\n\r\n",
    ),
    *(b"Accept: text/plain\r\n", b"Upgrade: peerup-pipe\r\n", b"\0", b"\xff", b"http://[", b"/v1/"),
    *JSON_WORDS,
)

DOORS = (
    Target("frontends.http", _conversed, _request_seeds, (), _HTTP_WORDS, _body_mutations, share=0.25, memory=3000),
    Target(
        "frontends.http.bodies",
        _crowd_body,
        lambda: [bytes([at]) + b'{"peer":"a"}' for at in range(6)],
        (),
        share=0.002,
        max_input=80,
        memory=6_000_000,
    ),
    Target(
        "frontends.healthz",
        _healthz,
        lambda: [b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\1"],
        (),
        _HTTP_WORDS[:20],
        share=0.1,
        memory=3000,
    ),
    Target(
        "frontends.text",
        _rendered,
        _report_seeds,
        (RequestError,),
        JSON_WORDS,
        mutation.json_behind(1),
        share=0.4,
        memory=2000,
    ),
    Target(
        "features.ping.answer",
        _ping_answered,
        lambda: [b"ping\n", b"hello\n", b"x" * 300, b" ping \r\nmore"],
        (),
        (b"ping", b"\n"),
        share=0.2,
        max_input=700,
    ),
    Target(
        "features.ping.ask",
        _ping_asked,
        lambda: [b"pong\n", b"unknown\n", b"\x1b[2J\n", b"pong"],
        (),
        (b"pong", b"\n"),
        share=0.2,
        max_input=700,
    ),
)
