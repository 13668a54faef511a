"""A connection: negotiating streams, probation, handlers that outlive it."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing

from peerupd.model.errors import ProtocolUnsupported, TimedOut
from peerupd.model.snapshots import PathKind
from peerupd.p2p.connection import HANDLER_GRACE, MAX_PROBATION_STREAMS, MAX_UNANSWERED, Connection
from peerupd.p2p.streams import Stream, StreamLost, StreamWasReset
from peerupd.p2p.upgrade import NEGOTIATION_LIMIT, answer
from peerupd.trust.gate import Admit, Probation
from tests.support.hosts import connected

PROBATION = Probation(frozenset({"/probe"}), 15.0, "why not")


async def serve_x(stream: Stream) -> None:
    with suppress(StreamWasReset):
        await answer(stream, lambda protocol: protocol == "/x")
        await stream.send_all(b"served")
        await stream.aclose()


async def test_a_stream_speaks_the_first_protocol_that_the_peer_knows() -> None:
    async with connected(serve_x) as pair:
        stream = await pair.first.open_stream(["/unknown", "/x"])
        assert stream.protocol == "/x"
        assert await stream.receive_some() == b"served"


async def test_a_peer_that_speaks_none_of_them() -> None:
    async with connected(serve_x) as pair:
        with pytest.raises(ProtocolUnsupported):
            await pair.first.open_stream(["/unknown"])
        await trio.testing.wait_all_tasks_blocked()
        assert pair.first.streams == 0


async def test_a_peer_that_does_not_answer_a_proposal(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as pair:
        began = trio.current_time()
        with pytest.raises(TimedOut, match="10 s"):
            await pair.first.open_stream(["/x"])
        assert trio.current_time() - began == pytest.approx(NEGOTIATION_LIMIT)
        assert pair.first.streams == 0


async def test_a_peer_that_ends_the_stream_instead_of_answering() -> None:
    async with connected(Stream.send_eof) as pair:
        with pytest.raises(StreamLost, match="before a protocol was agreed on"):
            await pair.first.open_stream(["/x"])


async def test_no_more_streams_wait_for_an_answer_than_a_go_peer_takes() -> None:
    """More are opened as the peer answers; in the end all of them are there."""
    count, may_answer = MAX_UNANSWERED + 50, trio.Event()
    begun: list[Stream] = []

    async def serve_later(stream: Stream) -> None:
        begun.append(stream)
        await may_answer.wait()
        await answer(stream, lambda protocol: protocol == "/x")
        await trio.sleep_forever()

    async with connected(serve_later) as pair, trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(pair.first.open_stream, ["/x"])
        await trio.testing.wait_all_tasks_blocked()
        assert (len(begun), pair.first.streams) == (MAX_UNANSWERED, MAX_UNANSWERED)
        may_answer.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (len(begun), pair.first.streams) == (count, count)


async def test_probation_ends_after_its_seconds(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(admission=PROBATION) as pair:
        began = trio.current_time()
        assert pair.second.on_probation
        await pair.second.closed.wait()
        assert trio.current_time() - began == pytest.approx(15)
        assert "probation" in pair.second.reason


async def test_promotion_ends_probation(autojump_clock: trio.testing.MockClock) -> None:
    promoted: list[Connection] = []
    async with connected(admission=PROBATION) as pair:
        pair.second.on_promotion = promoted.append
        await trio.sleep(1)
        pair.second.promote(Admit())
        await trio.sleep(100)
        assert not pair.second.closed.is_set()
        assert promoted == [pair.second]


async def test_another_probation_counts_from_now(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(admission=PROBATION) as pair:
        await trio.sleep(10)
        pair.second.promote(Probation(frozenset({"/other"}), 60.0, "proved"))
        await trio.sleep(59)
        assert not pair.second.closed.is_set()
        await trio.sleep(2)
        assert pair.second.closed.is_set()


async def test_a_peer_on_probation_opens_few_streams() -> None:
    async with connected(admission=PROBATION) as pair:
        streams = [pair.half_stream() for _ in range(MAX_PROBATION_STREAMS + 5)]
        await trio.testing.wait_all_tasks_blocked()
        assert pair.second.streams == MAX_PROBATION_STREAMS
        assert pair.first.streams == MAX_PROBATION_STREAMS
        assert len(streams) > pair.first.streams


async def test_handlers_may_finish_after_the_connection_but_not_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ended: list[float] = []

    async def stubborn(stream: Stream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with connected(stubborn) as pair:
        pair.half_stream()
        await trio.testing.wait_all_tasks_blocked()
        pair.second.abort("the test")
        await pair.second.closed.wait()
        began = trio.current_time()
        assert not ended
        await trio.sleep(HANDLER_GRACE + 1)
        assert ended == [pytest.approx(began + HANDLER_GRACE)]


async def test_what_is_known_of_a_connection() -> None:
    async with connected() as pair:
        assert pair.first.path is PathKind.DIRECT
        assert repr(pair.first).startswith("<Connection to 12D3KooW")
        assert repr(pair.second).startswith("<Connection from 12D3KooW")
