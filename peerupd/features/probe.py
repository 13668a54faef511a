"""Ping: one line each way on a stream of its own, as Go peer-up speaks it (`ping\\n` asked, `pong\\n` answered).

The protocol ID is a matter of configuration there; here all known ones are answered, and asked for in one list.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Final

import trio

from peerupd.features.pump import reset_on_error
from peerupd.features.streams import ByteStream, Handlers, OpenStream
from peerupd.model.errors import EnvironmentalError, PeerupError, ProtocolViolation, RequestError, TimedOut
from peerupd.model.names import PeerId, printable
from peerupd.model.snapshots import PathKind, PathWish, PingReport, PingResult, PingStats

PROTOCOLS: Final = ("/pingpong/1.0.0", "/peerup/ping/1.0.0")
MAX_LINE: Final = 256  # bytes, with its line feed
EXCHANGE_LIMIT: Final = 10.0  # seconds for one line each way
OPEN_LIMIT: Final = 15.0  # seconds for opening the stream
MAX_COUNT: Final = 10_000  # pings in one report
MAX_INTERVAL_MS: Final = 3_600_000
GRACE: Final = 30.0  # seconds that a report may take beside its intervals
DEFAULT_COUNT: Final = 4
DEFAULT_INTERVAL_MS: Final = 1000


class Probe:
    """Both roles of ping."""

    def __init__(self, handlers: Handlers, open_stream: OpenStream) -> None:
        self._handlers = handlers
        self._open = open_stream
        self._answered: tuple[str, ...] = ()
        self._asked: tuple[str, ...] = PROTOCOLS

    def set(self, *, enabled: bool, protocol: str = PROTOCOLS[0]) -> None:
        """Answer pings, or not, under the known IDs and the configured `protocol`, which is also asked for first."""
        self._asked = tuple(dict.fromkeys((protocol, *PROTOCOLS)))
        wanted = self._asked if enabled else ()
        for gone in set(self._answered).difference(wanted):
            self._handlers.remove_stream_handler(gone)
        for new in set(wanted).difference(self._answered):
            self._handlers.set_stream_handler(new, answer)
        self._answered = wanted

    async def ping(
        self, peer: PeerId, *, count: int = 0, interval_ms: int = 0, wish: PathWish = PathWish.ANY
    ) -> PingReport:
        """`count` pings, `interval_ms` apart; zero or less: 4 pings, 1000 ms.

        Raises `RequestError` for more than `MAX_COUNT`, and what `OpenStream` raises if the first ping finds no path.
        """
        count = count if count > 0 else DEFAULT_COUNT
        interval_ms = interval_ms if interval_ms > 0 else DEFAULT_INTERVAL_MS
        if count > MAX_COUNT:
            raise RequestError(f"a report of {count} pings is too long", hint=f"ask for at most {MAX_COUNT}")
        results: list[PingResult] = []
        with trio.move_on_after(count * interval_ms / 1000 + GRACE):
            async with aclosing(self.pings(peer, count=count, interval_ms=interval_ms, wish=wish)) as pings:
                async for result in pings:
                    results.append(result)  # noqa: PERF401 - what came before the deadline is kept
        return PingReport(tuple(results), statistics(results), str(peer))

    async def pings(
        self, peer: PeerId, *, count: int = 0, interval_ms: int = DEFAULT_INTERVAL_MS, wish: PathWish = PathWish.ANY
    ) -> AsyncGenerator[PingResult, None]:
        """Pings one by one, endless when `count` is zero or less; raises like `ping`. To be closed by its user."""
        interval = min(max(interval_ms, 1), MAX_INTERVAL_MS) / 1000
        seq = 1
        yield await self._ping(peer, seq, wish, must_reach=True)
        while seq != count:
            await trio.sleep(interval)
            seq += 1
            yield await self._ping(peer, seq, wish)

    async def _ping(self, peer: PeerId, seq: int, wish: PathWish, *, must_reach: bool = False) -> PingResult:
        try:
            stream = await self._open_within_limit(peer, wish)
        except EnvironmentalError as why:
            if must_reach:
                raise
            return _failed(seq, peer, f"stream: {_one_line(why)}")
        except PeerupError as why:
            return _failed(seq, peer, f"stream: {_one_line(why)}")
        path = PathKind.RELAYED if stream.connection.relayed else PathKind.DIRECT
        with trio.move_on_after(EXCHANGE_LIMIT):
            return await _exchange(stream, seq, path)
        return _failed(seq, peer, f"read: no answer within {EXCHANGE_LIMIT:g} s", path)

    async def _open_within_limit(self, peer: PeerId, wish: PathWish) -> ByteStream:
        with trio.move_on_after(OPEN_LIMIT):
            return await self._open(peer, self._asked, wish=wish)
        raise TimedOut(f"opening a stream took longer than {OPEN_LIMIT:g} s")


async def answer(stream: ByteStream) -> None:
    """The acceptor's side of one exchange; silence and junk end in a reset."""
    with (
        suppress(trio.BrokenResourceError, ProtocolViolation),
        trio.move_on_after(EXCHANGE_LIMIT),
        reset_on_error(stream),
    ):
        asked = await _line(stream)
        await stream.send_all(b"pong\n" if asked == b"ping" else b"unknown\n")
        await stream.send_eof()
        await stream.aclose()


def statistics(results: Sequence[PingResult]) -> PingStats:
    """As Go peer-up counts: lost are those with an error; the times are over the others, zero without any."""
    times = [result.rtt_ms for result in results if not result.error]
    sent, received = len(results), len(times)
    lost = sent - received
    return PingStats(
        sent=sent,
        received=received,
        lost=lost,
        loss_pct=lost / sent * 100 if sent else 0.0,
        min_ms=min(times, default=0.0),
        avg_ms=sum(times) / received if received else 0.0,
        max_ms=max(times, default=0.0),
    )


async def _exchange(stream: ByteStream, seq: int, path: PathKind) -> PingResult:
    """One ping on an open stream, which is closed afterwards; what goes wrong is told in the result."""
    began = trio.current_time()
    try:
        with reset_on_error(stream):
            await stream.send_all(b"ping\n")
    except trio.BrokenResourceError as why:
        return _failed(seq, stream.peer, f"write: {_one_line(why)}", path)
    try:
        with reset_on_error(stream):
            reply = await _line(stream)
            rtt_ms = round((trio.current_time() - began) * 1000, 3)
            await stream.aclose()
    except (trio.BrokenResourceError, ProtocolViolation) as why:
        return _failed(seq, stream.peer, f"read: {_one_line(why)}", path)
    if reply != b"pong":
        text = printable(reply.decode("utf-8", "replace"))
        return _failed(seq, stream.peer, f'unexpected response: "{text}"', path)
    return PingResult(seq, str(stream.peer), rtt_ms, path)


async def _line(stream: ByteStream) -> bytes:
    """Up to the first line feed, white space trimmed; raises `ProtocolViolation` if none comes in `MAX_LINE` bytes."""
    line = bytearray()
    while b"\n" not in line:
        data = await stream.receive_some(MAX_LINE)
        if not data:
            raise ProtocolViolation("the stream ended before the line did")
        line += data
        if len(line) > MAX_LINE:
            raise ProtocolViolation(f"a line of more than {MAX_LINE} bytes")
    return bytes(line.partition(b"\n")[0]).strip()


def _failed(seq: int, peer: PeerId, error: str, path: PathKind | None = None) -> PingResult:
    return PingResult(seq, str(peer), 0.0, path or "", error)


def _one_line(why: BaseException) -> str:
    return printable(str(why).partition("\n")[0])
