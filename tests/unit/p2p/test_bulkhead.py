import pytest
import trio

from peerupd.p2p.bulkhead import contained


async def _fail() -> None:
    raise IndexError("a bug")


async def test_a_bug_is_told_and_goes_no_further(caplog):
    await contained("a task", _fail)
    assert "a bug ended a task" in caplog.text
    assert "IndexError" in caplog.text


async def test_a_bug_beside_a_cancellation_is_told_and_the_cancellation_passes(caplog, autojump_clock):
    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep(1)
            except trio.Cancelled:
                await _fail()

    with trio.move_on_after(0.5) as scope:
        await contained("a task", both)
    assert "IndexError" in caplog.text
    assert scope.cancel_called


async def test_what_ends_well_is_left_alone(caplog):
    async def fine(number: int) -> None:
        assert number == 3

    await contained("a task", fine, 3)
    assert not caplog.records


async def test_a_keyboard_interrupt_passes(caplog):
    async def interrupted() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_fail)
            raise KeyboardInterrupt

    with pytest.raises(BaseExceptionGroup) as caught:
        await contained("a task", interrupted)
    assert caught.value.subgroup(Exception) is None
    assert "IndexError" in caplog.text
