"""Answers of a control socket that are none: told as such, never a traceback."""

from __future__ import annotations

import socket

import pytest

from peerupctl import client
from peerupctl.client import Answer, error_of
from peerupd.model.errors import EnvironmentalError, PeerupError


def answer(data: bytes) -> Answer:
    near, far = socket.socketpair()
    with far:
        far.sendall(data)
    try:
        return Answer(near)
    except BaseException:
        near.close()
        raise


@pytest.mark.parametrize(
    "head",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    ],
)
def test_a_head_that_is_no_http_is_the_world_in_the_way(head: bytes) -> None:
    with pytest.raises(EnvironmentalError):
        answer(head)


@pytest.mark.parametrize("body", [b"[]", b"{}", b"null", b"\xff", b"", b"[" * 100_000])
def test_a_body_without_data_is_told(body: bytes) -> None:
    with answer(b"HTTP/1.1 200 OK\r\n\r\n" + body) as given, pytest.raises(EnvironmentalError, match="and no"):
        given.data()


def test_a_line_that_is_no_object_is_told() -> None:
    with answer(b"HTTP/1.1 200 OK\r\n\r\n7\n") as given, pytest.raises(EnvironmentalError, match="no JSON"):
        list(given.lines())


def test_a_chunk_of_a_bad_size_is_told() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with answer(head + b"-5\r\n{}\r\n") as given, pytest.raises(EnvironmentalError, match="bad number"):
        given.data()


def test_an_answer_without_end_is_read_up_to_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_BODY", 100)
    with answer(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200) as given, pytest.raises(EnvironmentalError, match="more than"):
        given.text()


def test_an_error_without_a_word_has_one_here() -> None:
    assert isinstance(error_of({"code": [], "error": ""}), PeerupError)
    assert error_of({"error": None}).message == "unknown error"
