"""`/healthz` over real TCP on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from peerupd.frontends import healthz
from peerupd.model.addresses import Endpoint
from peerupd.model.errors import AddressInUse

FIGURES = {"uptime_seconds": 5, "status": "ok", "connected_peers": 2}


@asynccontextmanager
async def serving(host: str = "127.0.0.1") -> AsyncIterator[Endpoint]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(healthz.serve, Endpoint(host, 0), lambda: FIGURES)
        nursery.cancel_scope.cancel()


async def ask(where: Endpoint, request: bytes) -> bytes:
    with trio.fail_after(30):
        async with await trio.open_tcp_stream(where.host, where.port) as stream:
            await stream.send_all(request)
            answer = b""
            async for data in stream:
                answer += data
    return answer


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE"])
async def test_any_method_gets_three_figures_and_the_connection_ends(method: bytes) -> None:
    async with serving() as where:
        head, _, body = (await ask(where, method + b" /healthz?x HTTP/1.1\r\nHost: x\r\n\r\n")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert json.loads(body) == FIGURES
    assert list(json.loads(body)) == ["connected_peers", "status", "uptime_seconds"]


async def test_other_paths_and_junk_are_refused() -> None:
    async with serving() as where:
        assert b" 404 " in await ask(where, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 400 " in await ask(where, b"\0\0\r\n\r\n")
        assert b"\r\n\r\n" in await ask(where, b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_a_caller_that_goes_at_once_is_nothing() -> None:
    async with serving() as where:
        stream = await trio.open_tcp_stream(where.host, where.port)
        await stream.aclose()
        assert b" 200 " in await ask(where, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_callers_from_elsewhere_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthz, "_is_local", lambda host: False)
    async with serving() as where:
        answer = await ask(where, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 403 " in answer
    assert answer.endswith(b"forbidden\n")


def test_loopback_is_told_from_the_rest() -> None:
    local = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]
    assert all(healthz._is_local(host) for host in local)
    assert not any(healthz._is_local(host) for host in ("192.0.2.1", "fe80::1%eth0", "::ffff:192.0.2.1", "::"))


async def test_a_taken_port_is_a_clear_error() -> None:
    async with serving() as where:
        with pytest.raises(AddressInUse, match="healthz"):
            await healthz.serve(where, lambda: FIGURES)
