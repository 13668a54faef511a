"""Targets: what the command line reads: HTTP answers of a control socket, lines of `peerupd once`, and what it shows.

The daemon is ours, but who listens at a socket or which version answers is not known before it has answered.
"""

from __future__ import annotations

import io
from functools import cache
from types import SimpleNamespace
from typing import Any

from peerupctl import client
from peerupctl.client import Answer
from peerupd.model.errors import PeerupError
from tests.fuzz import mutation
from tests.fuzz.target import Choices, Target, portions
from tests.fuzz.texts import JSON_WORDS, json_seeds


class _Socket:
    """Gives the pieces, then the end."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self.closed = False

    def recv(self, most: int) -> bytes:
        """The next piece, or as much of it as is wanted."""
        while self._pieces and not self._pieces[0]:
            self._pieces.pop(0)
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        self._pieces[:0] = [piece[most:]]
        return piece[:most]

    def close(self) -> None:
        """Noted."""
        self.closed = True


def _read(data: bytes, pieces: list[bytes]) -> object:
    answer = Answer(_Socket(pieces))  # type: ignore[arg-type] # as a socket
    match data[0] % 3:
        case 0:
            return answer.data()
        case 1:
            return answer.text()
    return list(answer.lines())


def _answer(data: bytes) -> str:
    """An answer in one of three ways: as data, as text, line by line."""
    if not data:
        return "nothing"
    whole, cut = (_outcome(data, pieces) for pieces in ([data[1:]], portions(data[1:])))
    assert whole == cut, f"in portions: {cut}, at once: {whole}"
    _read(data, [data[1:]])
    return whole[0]


def _outcome(data: bytes, pieces: list[bytes]) -> tuple[str, str]:
    try:
        return "read", repr(_read(data, pieces))
    except PeerupError as why:
        return type(why).__name__, why.message


def _http(status: str, body: bytes, *head: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *head, *([] if head else [f"Content-Length: {len(body)}"])]
    return "\r\n".join((*lines, "", "")).encode() + body


@cache
def _answer_seeds() -> list[bytes]:
    bodies = [b'{"data":' + seed[1:].strip() + b"}\n" for seed in json_seeds()[::9] if seed[1:2] == b"{"]
    error = b'{"error":"no such peer","code":"unknown-peer","hint":"look at names"}\n'
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(body), body) for body in bodies[:2]) + b"0\r\n\r\n"
    answers = [
        *(_http("200 OK", body) for body in bodies),
        _http("404 Not Found", error),
        _http("200 OK", chunked, "Transfer-Encoding: chunked"),
        _http("200 OK", b"".join(bodies[:3]), "Connection: close"),
        _http("200", b"[]"),
        _http("OK OK", b"{}"),
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
    ]
    return [bytes([kind]) + answer for kind in range(3) for answer in answers]


def _body_mutations(random: Any, data: bytes, other: bytes) -> bytes:
    head, _, body = data.partition(b"\r\n\r\n")
    _, _, further = other.partition(b"\r\n\r\n")
    changed = mutation.json_behind(0)(random, body or b"{}", further or b"{}")
    return head.partition(b"\r\n")[0] + b"\r\nContent-Length: %d\r\n\r\n" % len(changed) + changed


def _once(data: bytes) -> int:
    """Lines of `peerupd once`: data, progress, an error."""
    choices = Choices(data)
    status, lines = choices.byte() % 3, choices.rest()
    process = SimpleNamespace(stdout=io.BytesIO(lines), wait=lambda: status, returncode=status)
    found = list(client.Once(None)._lines(process))  # type: ignore[arg-type] # as a process
    assert all(isinstance(line, dict) for line in found)
    return min(len(found), 3)


_WORDS = (
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"HTTP/1.1 200 OK\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"0\r\n\r\n",
    ),
    *(b"ffffffffffffffff\r\n", b'"data":', b'"error":', b'"code":', b'"progress":'),
    *JSON_WORDS,
)

ANSWERS = (
    Target(
        "peerupctl.answers", _answer, _answer_seeds, (PeerupError,), _WORDS, _body_mutations, share=0.8, memory=2000
    ),
    Target(
        "peerupctl.once",
        _once,
        lambda: [
            b'\0{"progress":"x"}\n{"data":{"a":1}}\n',
            b'\1{"error":"no","code":"timed-out"}\n',
            b"\2\n",
            b"\0[]\n",
        ],
        (PeerupError,),
        _WORDS,
        mutation.json_behind(1),
        share=0.4,
        memory=2000,
    ),
)
