"""Ping, both roles, against each other and against what Go peers say."""

import pytest
import trio

from peerupd.features import probe
from peerupd.features.probe import PROTOCOLS, Probe, answer, statistics
from peerupd.model.errors import ProtocolUnsupported, RequestError, TimedOut, Unreachable
from peerupd.model.snapshots import PathWish, PingResult, PingStats
from tests.support.fakes import MemoryNetwork, memory_streams, peer_id


class Pair:
    """A laptop that pings, and a home that answers."""

    def __init__(self, nursery):
        self.network = MemoryNetwork(nursery)
        self.laptop, self.home = self.network.host(1), self.network.host(2)
        self.probe = Probe(self.laptop, self.laptop.new_stream)
        self.there = Probe(self.home, self.home.new_stream)
        self.there.set(enabled=True)

    def speak(self, protocol, handler):
        self.there.set(enabled=False)
        self.home.set_stream_handler(protocol, handler)

    async def ping(self, **how):
        return await self.probe.ping(self.home.peer, **how)


@pytest.fixture
async def pair(nursery):
    return Pair(nursery)


async def test_pings_are_answered_and_counted(pair, autojump_clock):
    began = trio.current_time()
    report = await pair.ping(count=3, interval_ms=500)
    assert trio.current_time() - began == pytest.approx(1.0)  # between the pings, not after the last
    assert [(result.seq, result.path, result.error) for result in report.results] == [
        (1, "DIRECT", ""),
        (2, "DIRECT", ""),
        (3, "DIRECT", ""),
    ]
    assert (report.stats.sent, report.stats.received, report.stats.loss_pct) == (3, 3, 0.0)
    assert report.peer_id == str(pair.home.peer)


async def test_four_pings_a_second_apart_are_the_default(pair, autojump_clock):
    began = trio.current_time()
    assert len((await pair.ping(count=0, interval_ms=0)).results) == 4
    assert trio.current_time() - began == pytest.approx(3.0)


async def test_each_ping_names_its_path_and_the_wish_is_passed_on(pair):
    pair.network.relayed = True
    report = await pair.ping(count=1, wish=PathWish.RELAY)
    assert report.results[0].path == "RELAYED"
    assert pair.laptop.opened == [(pair.home.peer, PathWish.RELAY)]


@pytest.mark.parametrize("protocol", [*PROTOCOLS, "/mine/1"])
async def test_every_known_protocol_is_asked_for_and_the_configured_one(pair, protocol):
    pair.speak(protocol, answer)
    pair.probe.set(enabled=False, protocol="/mine/1")
    assert (await pair.ping(count=1)).stats.received == 1
    assert pair.laptop.handlers == {}


async def test_answering_can_be_changed_live(pair):
    assert set(pair.home.handlers) == set(PROTOCOLS)
    pair.there.set(enabled=True, protocol="/mine/1")
    assert set(pair.home.handlers) == {*PROTOCOLS, "/mine/1"}
    pair.there.set(enabled=False)
    assert pair.home.handlers == {}


async def test_no_path_at_the_first_ping_is_an_error(pair):
    with pytest.raises(Unreachable):
        await pair.probe.ping(peer_id(9))


async def test_later_troubles_are_results(pair, autojump_clock):
    results = []
    async for result in pair.probe.pings(pair.home.peer, count=3):
        results.append(result)
        if len(results) == 1:
            pair.network.hosts.clear()
    assert [result.error.partition(":")[0] for result in results] == ["", "stream", "stream"]
    assert results[2].path == ""
    stats = statistics(results)
    assert (stats.sent, stats.received, stats.lost) == (3, 1, 2)


async def test_a_peer_without_ping_is_a_result(pair):
    pair.there.set(enabled=False)
    assert "speaks none of" in (await pair.ping(count=1)).results[0].error


async def test_opening_has_15_seconds(autojump_clock):
    async def never(peer, protocols, /, *, wish=PathWish.ANY):
        await trio.sleep_forever()

    with pytest.raises(TimedOut, match="15 s"):
        await Probe(None, never).ping(peer_id(2), count=1)


async def silent(stream):
    await trio.sleep_forever()


async def rude(stream):
    await stream.receive_some()
    await stream.send_all(b"no\x1b[2J\n")


async def torn(stream):
    stream.reset()


async def endless(stream):
    await stream.receive_some()
    await stream.send_all(b"x" * 300)
    await stream.receive_some()


async def short(stream):
    await stream.receive_some()
    await stream.aclose()


@pytest.mark.parametrize(
    ("manner", "error"),
    [
        (silent, "read: no answer within 10 s"),
        (rude, 'unexpected response: "no\N{REPLACEMENT CHARACTER}[2J"'),
        (endless, "read: a line of more than 256 bytes"),
        (short, "read: the stream ended before the line did"),
    ],
)
async def test_what_a_peer_may_do_instead(pair, autojump_clock, manner, error):
    pair.speak(PROTOCOLS[0], manner)
    result = (await pair.ping(count=1)).results[0]
    assert (result.error, result.path, result.rtt_ms) == (error, "DIRECT", 0.0)


async def test_a_reset_is_an_error_of_reading_or_writing(pair):
    pair.speak(PROTOCOLS[0], torn)
    assert (await pair.ping(count=1)).results[0].error.startswith(("read: ", "write: "))
    near, far = memory_streams()
    far.reset()

    async def broken(peer, protocols, /, *, wish=PathWish.ANY):
        return near

    result = (await Probe(None, broken).ping(peer_id(2), count=1)).results[0]
    assert result.error == "write: the other side reset the stream"


async def test_a_report_is_bounded_in_length_and_time(pair, autojump_clock):
    with pytest.raises(RequestError):
        await pair.ping(count=probe.MAX_COUNT + 1)
    pair.speak(PROTOCOLS[0], silent)
    began = trio.current_time()
    report = await pair.ping(count=10, interval_ms=1000)
    assert trio.current_time() - began == pytest.approx(40.0)
    assert len(report.results) == 3


async def test_pings_may_go_on_without_end(pair, autojump_clock):
    pings = pair.probe.pings(pair.home.peer)
    assert [(await anext(pings)).seq for _ in range(50)] == list(range(1, 51))
    await pings.aclose()


@pytest.mark.parametrize(
    ("asked", "answered"), [(b"ping\n", b"pong\n"), (b" ping\r\n", b"pong\n"), (b"hello\n", b"unknown\n")]
)
async def test_the_answer_fits_the_question(nursery, asked, answered):
    near, far = memory_streams()
    nursery.start_soon(answer, far)
    for byte in asked:
        await near.send_all(bytes([byte]))
    assert await near.receive_some() == answered
    assert await near.receive_some() == b""


@pytest.mark.parametrize("asked", [b"", b"x" * 257])
async def test_silence_and_junk_are_reset(nursery, autojump_clock, asked):
    near, far = memory_streams()
    nursery.start_soon(answer, far)
    await near.send_all(asked)
    with trio.fail_after(10.5), pytest.raises(trio.BrokenResourceError):
        await near.receive_some()


async def test_a_questioner_that_leaves_ends_its_stream_only():
    near, far = memory_streams()
    near.reset()
    await answer(far)
    assert far.was_reset


def test_statistics_are_as_go_counts_them():
    good, bad = PingResult(1, "p", 10.0, "DIRECT"), PingResult(2, "p", 0.0, "", "stream: no")
    assert statistics([good, bad, PingResult(3, "p", 20.0, "DIRECT")]) == PingStats(
        sent=3, received=2, lost=1, loss_pct=pytest.approx(33.333, abs=0.001), min_ms=10.0, avg_ms=15.0, max_ms=20.0
    )
    assert statistics([]) == PingStats(0, 0, 0, 0.0, 0.0, 0.0, 0.0)


def test_the_error_of_a_stream_is_one_short_line():
    assert probe._one_line(ProtocolUnsupported("a\nb")) == "a"
    assert len(probe._one_line(ProtocolUnsupported("x" * 500))) == 200
