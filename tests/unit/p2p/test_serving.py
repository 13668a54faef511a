"""Whatever a handler does ends one stream and nothing else; what is told of it depends on whose fault it was."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from peerupd.model.errors import LimitReached
from peerupd.p2p.serving import Serving
from peerupd.p2p.streams import Stream
from peerupd.p2p.upgrade import NEGOTIATION_LIMIT
from tests.support.hosts import MemoryPair, connected


class EveryoneMay:
    """An admission that says yes, until told otherwise."""

    allowed = True

    def serves(self, _connection: object, _protocol: str) -> bool:
        return self.allowed


async def outcome(handler: object, caplog: pytest.LogCaptureFixture) -> tuple[bytes | None, list[int]]:
    """What the opener reads (None: a reset), and at what levels something was logged."""
    serving = Serving(EveryoneMay())  # type: ignore[arg-type]
    serving.set("/x", handler)  # type: ignore[arg-type]
    with caplog.at_level(logging.DEBUG):
        async with connected(serving.serve) as pair:
            got = await opened_and_read(pair)
            await trio.testing.wait_all_tasks_blocked()
            assert not pair.second.closed.is_set()
    return got, [record.levelno for record in caplog.records]


async def opened_and_read(pair: MemoryPair) -> bytes | None:
    try:
        return await read_all(await pair.first.open_stream(["/x"]))
    except trio.BrokenResourceError:
        return None


async def read_all(stream: Stream) -> bytes | None:
    got = b""
    try:
        while more := await stream.receive_some():
            got += more
    except trio.BrokenResourceError:
        return None
    return got


async def test_a_handler_that_returns_closes_its_stream(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(stream: Stream) -> None:
        await stream.send_all(b"done")

    assert await outcome(handler, caplog) == (b"done", [])


@pytest.mark.parametrize("why", [LimitReached("no"), OSError(5, "x"), trio.BrokenResourceError("x")])
async def test_what_the_world_causes_resets_and_is_a_whisper(why: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(_stream: Stream) -> None:
        raise why

    assert await outcome(handler, caplog) == (None, [logging.DEBUG])


async def test_a_bug_resets_and_is_told_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(_stream: Stream) -> None:
        raise ZeroDivisionError

    assert await outcome(handler, caplog) == (None, [logging.ERROR])
    assert caplog.records[0].exc_info


@pytest.mark.parametrize(("inner", "level"), [(LimitReached("no"), logging.DEBUG), (ValueError(), logging.ERROR)])
async def test_what_a_nursery_of_a_handler_raises_is_looked_into(
    inner: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def raiser() -> None:
        raise inner

    async def handler(_stream: Stream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raiser)
            nursery.start_soon(trio.sleep_forever)

    assert await outcome(handler, caplog) == (None, [level])


async def test_a_group_with_something_that_is_no_error_is_passed_on() -> None:
    async def handler(_stream: Stream) -> None:
        raise BaseExceptionGroup("", [KeyboardInterrupt(), ValueError("told")])

    serving = Serving(EveryoneMay())  # type: ignore[arg-type]
    serving.set("/x", handler)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with connected(serving.serve) as pair:
            await opened_and_read(pair)
    assert caught.group_contains(KeyboardInterrupt)
    assert not caught.group_contains(ValueError)


async def test_who_opens_a_stream_and_says_nothing_is_reset(autojump_clock: trio.testing.MockClock) -> None:
    serving = Serving(EveryoneMay())  # type: ignore[arg-type]
    async with connected(serving.serve) as pair:
        stream = pair.half_stream()
        began = trio.current_time()
        assert await read_all(stream) is None
        assert trio.current_time() - began == pytest.approx(NEGOTIATION_LIMIT)


async def test_the_gate_is_asked_for_each_stream() -> None:
    admission = EveryoneMay()
    serving = Serving(admission)  # type: ignore[arg-type]
    serving.set("/x", Stream.send_eof)
    async with connected(serving.serve) as pair:
        assert await opens(pair)
        admission.allowed = False
        assert not await opens(pair)


async def test_what_is_no_longer_served_is_refused() -> None:
    serving = Serving(EveryoneMay())  # type: ignore[arg-type]
    serving.set("/x", Stream.send_eof)
    assert serving.protocols == ["/x"]
    async with connected(serving.serve) as pair:
        assert await opens(pair)
        serving.remove("/x")
        serving.remove("/x")
        assert not await opens(pair)


async def test_what_is_withdrawn_while_it_is_agreed_on_is_refused_without_ado(caplog: pytest.LogCaptureFixture) -> None:
    class Withdrawing:
        """An admission that says yes, whereupon the handler goes."""

        def serves(self, _connection: object, protocol: str) -> bool:
            serving.remove(protocol)
            return True

    serving = Serving(Withdrawing())  # type: ignore[arg-type]
    serving.set("/x", Stream.send_eof)
    with caplog.at_level(logging.DEBUG):
        async with connected(serving.serve) as pair:
            assert await opened_and_read(pair) is None
            await trio.testing.wait_all_tasks_blocked()
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]


async def opens(pair: MemoryPair) -> bool:
    try:
        stream = await pair.first.open_stream(["/x"])
    except Exception:
        return False
    await stream.aclose()
    return True
