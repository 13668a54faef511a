"""One authenticated connection to a peer: what is known of it, its streams, its end.

It lives in `run`: the multiplexer first, then, when that has ended, the handlers of the peer's streams, who learn of
it from their streams and get `HANDLER_GRACE` to finish. A connection on probation ends after its seconds unless it was
promoted meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from peerupd.model.addresses import Multiaddr
from peerupd.model.counters import STREAMS, STREAMS_REFUSED, Counters
from peerupd.model.errors import TimedOut
from peerupd.model.names import PeerId
from peerupd.model.snapshots import PathKind
from peerupd.p2p.budget import Budget, Pool
from peerupd.p2p.links import Link
from peerupd.p2p.muxer import Muxer
from peerupd.p2p.streams import Stream
from peerupd.p2p.upgrade import NEGOTIATION_LIMIT, Upgraded, propose
from peerupd.trust.gate import Admit, Decision, Probation

MAX_PROBATION_STREAMS: Final = 8  # open at once, of a connection on probation
HANDLER_GRACE: Final = 30.0  # seconds that stream handlers may outlive their connection
MAX_UNANSWERED: Final = 256  # streams that we opened and the peer has not answered yet: go-yamux resets what is more


@dataclass(frozen=True, slots=True)
class Limit:
    """What a relay allows a circuit; None: unlimited in that respect."""

    seconds: float | None
    data: int | None
    """Bytes, in each direction."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a connection when it begins."""

    remote: Multiaddr
    """Where the other side is; for a circuit `<relay>/p2p/<relay's ID>/p2p-circuit`."""
    inbound: bool
    relayed: bool
    limit: Limit | None
    source: str
    """What connections are counted by: the IP address, or the relay's ID."""
    opened_at: float
    """Seconds since the epoch."""


def _always() -> bool:
    return True


class Connection:
    """To `peer`, over `link`. `serve` handles each stream that the peer opens."""

    def __init__(
        self,
        upgraded: Upgraded,
        link: Link,
        facts: Facts,
        *,
        admission: Decision,
        serve: Callable[[Stream], Awaitable[None]],
        pool: Pool,
        may_open: Callable[[], bool] = _always,
        counters: Counters | None = None,
    ) -> None:
        """`may_open` is asked before each stream that the peer opens, and counts it."""
        self.peer: PeerId = upgraded.peer
        self.facts = facts
        self.remote = facts.remote
        self.inbound = facts.inbound
        self.relayed = facts.relayed
        self.limit = facts.limit
        self.opened_at = facts.opened_at
        self.closed = trio.Event()
        self.identified = trio.Event()
        self.keep = False  # not to be closed to make room
        self.on_closed: Callable[[Connection], None] = _nothing
        self.on_promotion: Callable[[Connection], None] = _nothing
        self._admission = admission
        self._serve = serve
        self._may_open = may_open
        self._counters = Counters() if counters is None else counters
        self._handlers: trio.Nursery | None = None
        self._unanswered = trio.Semaphore(MAX_UNANSWERED)
        self._muxer = Muxer(
            link,
            upgraded.session,
            client=not facts.inbound,
            accept=self._accept,
            budget=Budget(pool),
            received=upgraded.received,
        )
        self._muxer.connection = self

    async def run(self) -> None:
        """Until the connection and the handlers of its streams have ended."""
        async with trio.open_nursery() as self._handlers:
            self._watch_probation()
            try:
                await self._muxer.run()
            finally:
                self.closed.set()
                self.identified.set()
                self.on_closed(self)
                self._handlers.cancel_scope.deadline = trio.current_time() + HANDLER_GRACE

    def _accept(self, stream: Stream) -> None:
        assert self._handlers is not None
        if self.on_probation and self.streams > MAX_PROBATION_STREAMS:
            self._turn_down(stream, "probation")
        elif not self._may_open():
            self._turn_down(stream, "rate")
        else:
            self._counters.count(STREAMS, direction="inbound")
            self._handlers.start_soon(self._serve, stream)

    def _turn_down(self, stream: Stream, reason: str) -> None:
        self._counters.count(STREAMS_REFUSED, reason=reason)
        stream.reset()

    # -- what is known ---------------------------------------------------------------------------------------------

    @property
    def path(self) -> PathKind:
        """How the bytes travel."""
        return PathKind.RELAYED if self.relayed else PathKind.DIRECT

    @property
    def rtt(self) -> float | None:
        """Seconds, of the last ping; None before the first has come back."""
        return self._muxer.rtt

    @property
    def streams(self) -> int:
        """How many are open."""
        return self._muxer.streams

    @property
    def sent(self) -> int:
        """Bytes that streams have sent."""
        return self._muxer.sent

    @property
    def received(self) -> int:
        """Bytes that streams have got."""
        return self._muxer.received

    @property
    def reason(self) -> str:
        """Why it ended, or is ending; empty while it lives."""
        return self._muxer.reason.removeprefix(": ")

    # -- admission -------------------------------------------------------------------------------------------------

    @property
    def admission(self) -> Decision:
        """What the gate thinks of the peer; of those that we called too."""
        return self._admission

    @property
    def on_probation(self) -> bool:
        """Whether only a few protocols are served, for a short while."""
        return self.inbound and isinstance(self._admission, Probation)

    def promote(self, decision: Decision) -> None:
        """The peer has earned `decision`; the seconds of a `Probation` count from now."""
        before, self._admission = self._admission, decision
        self._watch_probation()
        if isinstance(decision, Admit) and not isinstance(before, Admit):
            self.on_promotion(self)

    def _watch_probation(self) -> None:
        if isinstance(self._admission, Probation) and self.inbound and self._handlers is not None:
            self._handlers.start_soon(self._end_probation, self._admission, self._admission.seconds)

    async def _end_probation(self, probation: Decision, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.closed.wait()
        if self._admission is probation:
            self.abort("the time of its probation is over")

    def serve_only(self, protocols: Container[str]) -> None:
        """Reset what the peer opened for anything else; what we opened goes on."""
        self._muxer.reset_theirs(but=protocols)

    # -- streams and end -------------------------------------------------------------------------------------------

    async def open_stream(self, protocols: Sequence[str]) -> Stream:
        """A stream that speaks the first of `protocols` that the peer speaks.

        Raises `ProtocolUnsupported`, `ConnectionLost`, `StreamReset`, `LimitReached`, `TimedOut` (10 s).
        """
        try:
            with trio.fail_after(NEGOTIATION_LIMIT):
                try:
                    self._unanswered.acquire_nowait()  # without a checkpoint
                except trio.WouldBlock:
                    await self._unanswered.acquire()
                try:
                    return await self._proposed(protocols)
                finally:
                    self._unanswered.release()
        except trio.TooSlowError:
            raise TimedOut(f"{self.peer} did not agree on a protocol within {NEGOTIATION_LIMIT:.0f} s") from None

    async def _proposed(self, protocols: Sequence[str]) -> Stream:
        stream = self._muxer.open(quietly=True)
        self._counters.count(STREAMS, direction="outbound")
        try:
            await propose(stream, protocols)
        except BaseException:
            stream.reset()
            raise
        return stream

    async def close(self) -> None:
        """Say goodbye, then end; returns when it has ended, after a second at most."""
        self._muxer.close()
        await self.closed.wait()

    def abort(self, why: str) -> None:
        """End it at once."""
        self._muxer.abort(why)

    def __repr__(self) -> str:
        return f"<Connection {'from' if self.inbound else 'to'} {self.peer} at {self.remote}>"


def _nothing(_connection: Connection) -> None:
    pass
