"""Our streams keep the promises of trio's `HalfCloseableStream`, checked by trio's own tests."""

from __future__ import annotations

import trio
from trio.testing import check_half_closeable_stream

from peerupd.p2p.streams import Stream
from tests.support.hosts import MemoryPair, connected


async def test_a_stream_over_yamux_is_a_half_closeable_stream() -> None:
    async with connected() as pair:
        with trio.fail_after(60):
            await check_half_closeable_stream(pair.streams, lambda: _clogged(pair))


async def _clogged(pair: MemoryPair) -> tuple[Stream, Stream]:
    """Both ends of a stream whose window is used up in both directions."""
    ends = await pair.streams()
    for end in ends:
        stuck = False
        while not stuck:
            with trio.move_on_after(0.2) as patience:
                await end.send_all(bytes(64 * 1024))
            stuck = patience.cancelled_caught
    return ends
