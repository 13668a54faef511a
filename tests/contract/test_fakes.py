"""The fakes keep the contracts of what they stand for."""

import pytest
import trio
from trio.testing import check_half_closeable_stream

from tests.support.fakes import memory_streams


async def test_memory_streams_are_half_closeable_streams():
    async def streams():
        return memory_streams()

    async def clogged():
        near, far = memory_streams(window=1)
        await near.send_all(b"x")
        await far.send_all(b"x")
        return near, far

    await check_half_closeable_stream(streams, clogged)


async def test_a_reset_of_a_memory_stream_is_no_end():
    near, far = memory_streams()
    await near.send_all(b"torn")
    near.reset()
    with pytest.raises(trio.BrokenResourceError):
        await far.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await far.send_all(b"x")
