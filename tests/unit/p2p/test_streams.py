"""The ends of a stream are told apart, and closing never passes for something that it is not."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from peerupd.model.errors import ConnectionLost, StreamReset
from peerupd.p2p.muxer import LINGER, PING_EVERY
from peerupd.p2p.streams import MAX_READ, Stream, StreamLost, StreamWasReset
from tests.support.hosts import MemoryPair, connected

MiB = 1024 * 1024


async def rest_of(stream: Stream) -> bytes:
    data = b""
    while more := await stream.receive_some():
        data += more
    return data


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_a_clean_end_is_empty_bytes_again_and_again() -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        await ours.send_all(b"all")
        await ours.aclose()
        assert await rest_of(theirs) == b"all"
        assert await theirs.receive_some() == b""


async def test_a_reset_is_not_an_end_and_discards_what_was_not_read() -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        await ours.send_all(b"half of it")
        await settle()
        ours.reset()
        await settle()
        with pytest.raises(StreamWasReset, match="reset the stream") as caught:
            await theirs.receive_some()
        assert isinstance(caught.value, StreamReset)
        with pytest.raises(trio.BrokenResourceError):
            await theirs.send_all(b"x")


async def test_a_lost_connection_gives_what_has_come_and_then_says_so() -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        await ours.send_all(b"before")
        await settle()
        pair.first.abort("the test")
        await pair.second.closed.wait()
        assert await theirs.receive_some() == b"before"
        with pytest.raises(StreamLost, match="was lost: the peer closed it") as caught:
            await theirs.receive_some()
        assert isinstance(caught.value, ConnectionLost)
        with pytest.raises(StreamLost, match="the test"):
            await ours.receive_some()


async def test_a_reader_that_waits_learns_of_reset_and_loss_at_once() -> None:
    async with connected() as pair, trio.open_nursery() as nursery:
        seen: list[type[BaseException]] = []

        async def read(stream: Stream) -> None:
            try:
                await stream.receive_some()
            except trio.BrokenResourceError as why:
                seen.append(type(why))

        first, second = await pair.streams(), await pair.streams()
        nursery.start_soon(read, first[1])
        nursery.start_soon(read, second[1])
        await settle()
        first[0].reset()
        await settle()
        pair.first.abort("the test")
        await settle()
        assert seen == [StreamWasReset, StreamLost]
        nursery.cancel_scope.cancel()


async def test_an_answer_survives_that_its_sender_closes_before_the_asker_does() -> None:
    async with connected() as pair:
        asker, answerer = await pair.streams()
        await asker.send_all(b"ping\n")
        assert await answerer.receive_some() == b"ping\n"
        await answerer.send_all(b"pong\n")
        await answerer.aclose()
        await settle()
        assert await rest_of(asker) == b"pong\n"
        await asker.aclose()
        await settle()
        assert pair.first.streams == pair.second.streams == 0


async def test_what_is_sent_to_a_closed_stream_is_answered_with_a_reset() -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        await theirs.aclose()
        await ours.send_all(b"is anybody there?")
        await settle()
        with pytest.raises(StreamWasReset):
            await ours.send_all(b"?")
        assert pair.first.streams == pair.second.streams == 0


async def test_closing_with_unread_bytes_is_a_reset() -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        await ours.send_all(b"unread")
        await settle()
        await theirs.aclose()
        await settle()
        with pytest.raises(StreamWasReset):
            await ours.receive_some()


async def test_closing_after_a_send_that_was_cut_short_is_a_reset() -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        with trio.move_on_after(0.05):
            await ours.send_all(bytes(8 * MiB))
        await ours.aclose()
        with pytest.raises(StreamWasReset):
            await rest_of(theirs)


async def test_closing_while_cancelled_is_a_reset() -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        await ours.send_all(b"half of it")
        await trio.aclose_forcefully(ours)
        with pytest.raises(StreamWasReset):
            while await theirs.receive_some():
                pass


async def test_a_stream_that_has_ended_both_ways_is_closed_without_a_word() -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        await ours.send_eof()
        await theirs.send_eof()
        assert await rest_of(ours) == await rest_of(theirs) == b""
        assert pair.first.streams == pair.second.streams == 0
        ours.reset()
        await theirs.aclose()
        await theirs.aclose()


async def test_a_closed_stream_lingers_a_minute_for_the_end_of_the_peer(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        await ours.aclose()
        await trio.sleep(LINGER - PING_EVERY)
        assert pair.first.streams == 1
        await trio.sleep(2 * PING_EVERY)
        assert pair.first.streams == 0
        assert await rest_of(theirs) == b""  # the FIN came first
        with pytest.raises(StreamWasReset):
            await theirs.send_all(b"late")


async def test_half_close_keeps_the_other_direction() -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        await ours.send_eof()
        assert await theirs.receive_some() == b""
        await theirs.send_all(b"still here")
        assert await ours.receive_some() == b"still here"


async def test_many_mebibytes_arrive_whole_and_in_order() -> None:
    async with connected() as pair, trio.open_nursery() as nursery:
        ours, theirs = await pair.streams()
        sent = bytes(range(256)) * 4096 * 9

        async def send() -> None:
            await ours.send_all(sent)
            await ours.send_eof()

        nursery.start_soon(send)
        assert await rest_of(theirs) == sent


async def test_one_read_gives_at_most_what_was_asked_and_at_most_its_bound() -> None:
    async with connected() as pair, trio.open_nursery() as nursery:
        ours, theirs = await pair.streams()
        nursery.start_soon(ours.send_all, bytes(2 * MAX_READ))
        await settle()
        assert len(await theirs.receive_some(10)) == 10
        assert 10 < len(await theirs.receive_some()) <= MAX_READ
        assert len(await theirs.receive_some(1)) == 1
        nursery.cancel_scope.cancel()


async def test_what_a_negotiation_read_too_far_comes_first() -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        await ours.send_all(b"second")
        theirs.push_back(b"first ")
        assert await theirs.receive_some(3) == b"fir"
        assert await theirs.receive_some() == b"st "
        assert await theirs.receive_some() == b"second"


async def test_tiny_pieces_are_put_together() -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        for _ in range(1000):
            await ours.send_all(b"ab")
        await settle()
        assert len(theirs._unread.first(MiB)) == 1
        assert await theirs.receive_some() == b"ab" * 1000


async def test_in_the_shape_of_an_inetstream() -> None:
    async with connected() as pair:
        ours, theirs = await pair.streams()
        ours.set_protocol("/x")
        assert ours.get_protocol() == "/x"
        assert ours.get_remote_address() == ("192.0.2.1", 1)
        assert ours.peer == pair.first.peer
        await ours.write(b"a")
        await ours.close_write()
        assert await theirs.read(5) == b"a"
        assert await theirs.read() == b""
        await theirs.close()
        await ours.close()


async def fill(pair: MemoryPair) -> tuple[Stream, Stream]:
    ours, theirs = await pair.streams()
    with trio.move_on_after(0.05):
        await ours.send_all(bytes(MiB))
    return ours, theirs


async def test_a_sender_at_a_shut_window_learns_of_a_reset_at_once() -> None:
    async with connected() as pair, trio.open_nursery() as nursery:
        ours, theirs = await fill(pair)

        async def reset() -> None:
            await settle()
            theirs.reset()

        nursery.start_soon(reset)
        with pytest.raises(StreamWasReset):
            await ours.send_all(b"x" * 100_000)


async def test_a_sender_that_waits_for_its_turn_learns_of_a_close_at_once() -> None:
    """The link takes nothing, so no turn will ever come."""
    async with connected() as pair, trio.open_nursery() as nursery:
        pair.stop_first_link()
        streams = [pair.half_stream() for _ in range(4)]
        ended: list[type[BaseException]] = []

        async def send(stream: Stream) -> None:
            try:
                await stream.send_all(bytes(200 * 1024))
            except trio.ClosedResourceError as why:
                ended.append(type(why))

        for stream in streams:
            nursery.start_soon(send, stream)
        await settle()
        for stream in streams:
            stream.reset()
        await settle()
        assert ended
        nursery.cancel_scope.cancel()
