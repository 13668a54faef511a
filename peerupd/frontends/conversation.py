"""One HTTP/1.1 conversation: h11's machine on one end of a stream, with a bound on everything that the other end sends.

Theory of operation. A request is read whole: its head within `READ_LIMIT` and `MAX_HEAD`, its body up to `MAX_BODY`
(what comes after that is read and dropped for a while, so that the answer is not lost in a reset). Then there is one
answer of three kinds: whole, held open and fed line by line, or 101 and the bare stream. What h11 refuses is answered
with its own status and ends the conversation.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import h11
import trio

from peerupd.features.ends import SocketEnd

MAX_HEAD: Final = 16 * 1024  # bytes of request line and headers
MAX_BODY: Final = 1024 * 1024  # bytes
MAX_DROPPED: Final = 8 * 1024 * 1024  # bytes read and dropped behind a body that is too large
READ_LIMIT: Final = 30.0  # seconds for a whole request, and between two requests
WRITE_LIMIT: Final = 60.0  # seconds for the caller to take an answer, or a line of a held one
LINGER: Final = 1.0  # seconds to read what still comes behind a last answer
CHUNK: Final = 64 * 1024  # bytes

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, read whole."""

    method: str
    target: str
    headers: dict[str, str]
    """By lower-case name; the first of several."""
    body: bytes
    cut: bool
    """The body was larger than `MAX_BODY`: what is here is its beginning."""


class BadRequest(Exception):
    """The bytes are not HTTP, or too many; `status` is the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Conversation:
    """Requests in, answers out, on one stream."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._bare = False  # asked by HEAD: whatever is answered has no body

    async def next(self) -> Asked | None:
        """The next request; None: the caller is gone or said nothing for too long. Raises `BadRequest`."""
        with trio.move_on_after(READ_LIMIT):
            try:
                return await self._read()
            except h11.RemoteProtocolError as why:
                raise BadRequest(why.error_status_hint) from why
        return None

    async def answer(self, status: int, headers: Headers, body: bytes, *, bare: bool = False) -> bool:
        """Send a whole answer (`bare`: without its body, for HEAD); whether the conversation goes on."""
        sized = [*headers, ("Content-Length", str(len(body)))]
        head = h11.Response(status_code=status, headers=sized, reason=HTTPStatus(status).phrase)
        await self._send(head, *([] if bare or not body else [h11.Data(data=body)]), h11.EndOfMessage())
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return True
        await self._linger()
        return False

    async def hold(self, headers: Headers) -> None:
        """Begin an answer that is fed with `feed` and ends with the connection."""
        await self._send(h11.Response(status_code=200, headers=headers, reason=HTTPStatus.OK.phrase))

    async def feed(self, data: bytes) -> None:
        """A part of a held answer, sent at once."""
        await self._send(h11.Data(data=data))

    async def switch(self, protocol: str) -> SocketEnd:
        """Say 101 and give the bare socket away, with what was read ahead of its time."""
        upgrade = [("Upgrade", protocol), ("Connection", "Upgrade")]
        await self._send(
            h11.InformationalResponse(status_code=101, headers=upgrade, reason=HTTPStatus.SWITCHING_PROTOCOLS.phrase)
        )
        return SocketEnd(self._stream.socket, self._http.trailing_data[0])

    async def gone(self) -> None:
        """Wait until the caller hangs up; what it sends meanwhile waits for its turn, up to a bound."""
        waiting = 0
        with suppress(trio.BrokenResourceError):
            while waiting < MAX_HEAD and (data := await self._stream.receive_some(MAX_HEAD)):
                waiting += len(data)
                self._http.receive_data(bytes(data))

    async def refuse(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer what was not even a request, and end."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            closing: Headers = [*headers, ("Connection", "close")]
            await self.answer(status, closing, body, bare=self._bare)

    async def _read(self) -> Asked | None:
        self._bare = False
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        self._bare = head.method == b"HEAD"
        if len(head.target) + sum(len(name) + len(value) for name, value in head.headers) > MAX_HEAD:
            raise BadRequest(431)  # h11 measures only what has not come whole
        body, cut = await self._body()
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in reversed(head.headers)}
        return Asked(head.method.decode("ascii"), head.target.decode("latin-1"), headers, body, cut)

    async def _body(self) -> tuple[bytes, bool]:
        kept = bytearray()
        size = 0
        while isinstance(event := await self._next_event(), h11.Data):
            size += len(event.data)
            if size <= MAX_BODY:
                kept += event.data
            elif size > MAX_DROPPED:
                raise BadRequest(413)
        return bytes(kept), size > MAX_BODY

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._send(
                    h11.InformationalResponse(status_code=100, headers=[], reason=HTTPStatus.CONTINUE.phrase)
                )
            self._http.receive_data(await self._receive())
        return event

    async def _receive(self) -> bytes:
        with suppress(trio.BrokenResourceError):
            return bytes(await self._stream.receive_some(CHUNK))
        return b""

    async def _send(self, *events: h11.Event) -> None:
        parts: Iterable[bytes | None] = [self._http.send(event) for event in events]
        with trio.fail_after(WRITE_LIMIT):
            await self._stream.send_all(b"".join(part or b"" for part in parts))

    async def _linger(self) -> None:
        """Let the caller read its last answer before a reset can overtake it."""
        with suppress(trio.BrokenResourceError), trio.move_on_after(LINGER):
            await self._stream.send_eof()
            while await self._stream.receive_some(CHUNK):
                pass
