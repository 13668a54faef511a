"""Stand the gate in the handshake and before each stream; bound what peers may occupy once they are known.

Before, they are the business of `p2p.half_open`. What we called is free to stay, but the streams that it opens to us
pass the gate as well; of somebody we do not admit only `OUTBOUND_SERVED` are answered.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from peerupd.model.addresses import Multiaddr
from peerupd.model.counters import DECISIONS, Counters
from peerupd.model.logs import said
from peerupd.model.names import PeerId
from peerupd.model.snapshots import Event, GateDecided
from peerupd.p2p.connection import Connection
from peerupd.trust.gate import Admit, Decision, Gate, Probation, Refuse
from peerupd.wire import identify

log = logging.getLogger(__name__)

MAX_CONNECTIONS_PER_PEER: Final = 8
MAX_CONNECTIONS_PER_SOURCE: Final = 256  # per IP address, or per relay for circuits
MAX_CONNECTIONS: Final = 1024
REFUSAL_INTERVAL: Final = 60.0  # seconds between two log lines about one refused peer
MAX_REFUSED_KNOWN: Final = 64  # refused peers told of in that time: names cost a stranger nothing
PING: Final = "/ipfs/ping/1.0.0"
CIRCUIT_STOP: Final = "/libp2p/circuit/relay/0.2.0/stop"
OUTBOUND_SERVED: Final = frozenset({identify.PROTOCOL, identify.PUSH_PROTOCOL, PING, CIRCUIT_STOP})
"""What a peer that we called may open to us although it is not admitted: a relay of others, for example."""


class Admission:
    """The gate, asked with the right words, and its answers told once."""

    def __init__(
        self,
        gate: Gate,
        *,
        clock: Callable[[], float],
        connections: Callable[[], list[Connection]],
        publish: Callable[[Event], None],
        counters: Counters | None = None,
    ) -> None:
        self._gate = gate
        self._clock = clock
        self._connections = connections
        self._publish = publish
        self._counters = Counters() if counters is None else counters
        self._refused: OrderedDict[PeerId, float] = OrderedDict()  # when last told; longest ago first
        self._many_told: float | None = None  # when it was told that there are too many to tell

    def on_arrival(self, peer: PeerId, remote: Multiaddr, *, circuit: bool) -> Decision:
        """The gate's decision on a peer that has proved who it is."""
        decision = self.decide(peer, circuit=circuit)
        self._counters.count(DECISIONS, decision="deny" if isinstance(decision, Refuse) else "allow")
        self._tell(peer, remote, decision)
        return decision

    def decide(self, peer: PeerId, *, circuit: bool) -> Decision:
        """The same, told to nobody."""
        on_probation = sum(connection.on_probation for connection in self._connections())
        return self._gate.decide(peer, circuit=circuit, now=self._clock(), on_probation=on_probation)

    def now(self, connection: Connection) -> Decision:
        """What the gate says of an open connection at this moment; a probation once granted has its full time."""
        decision = self._gate.decide(connection.peer, circuit=connection.relayed, now=self._clock())
        granted = connection.admission
        return granted if isinstance(granted, Probation) and not isinstance(decision, Admit) else decision

    def serves(self, connection: Connection, protocol: str) -> bool:
        """Whether the peer may use `protocol` on this connection now."""
        match self.now(connection):
            case Admit():
                return True
            case Probation(protocols) if connection.inbound:
                return protocol in protocols
            case _:
                return not connection.inbound and protocol in OUTBOUND_SERVED

    def _tell(self, peer: PeerId, remote: Multiaddr, decision: Decision) -> None:
        match decision:
            case Admit():
                log.debug("%s is admitted", peer)
            case Probation(why=why):
                log.info("%s is on probation: %s", peer, why, extra=said("gate.probation", peer=str(peer)))
            case Refuse(why):
                self._tell_refusal(peer, remote, why)
                return
        self._publish(GateDecided(peer, True, getattr(decision, "why", ""), str(remote)))

    def _tell_refusal(self, peer: PeerId, remote: Multiaddr, why: str) -> None:
        if not self._is_due(peer):
            return
        log.warning(
            "refused %s from %s: %s; to admit it: peerupctl auth add %s",
            *(peer, remote, why, peer),
            extra=said("gate.refused", peer=str(peer), address=str(remote)),
        )
        self._publish(GateDecided(peer, False, why, str(remote)))

    def _is_due(self, peer: PeerId) -> bool:
        """Whether its refusal is to be told now; a True counts as told."""
        now = self._clock()
        if _is_recent(self._refused.get(peer), now):
            return False
        if len(self._refused) >= MAX_REFUSED_KNOWN:
            if _is_recent(next(iter(self._refused.values())), now):
                self._tell_many(now)
                return False
            self._refused.popitem(last=False)
        self._refused[peer] = now
        self._refused.move_to_end(peer)
        return True

    def _tell_many(self, now: float) -> None:
        if not _is_recent(self._many_told, now):
            self._many_told = now
            log.warning(
                "refused more than %d peers within %.0f s; further ones are not told, ignoring",
                *(MAX_REFUSED_KNOWN, REFUSAL_INTERVAL),
                extra=said("gate.refused_many", peers=MAX_REFUSED_KNOWN),
            )


def _is_recent(told: float | None, now: float) -> bool:
    return told is not None and abs(now - told) < REFUSAL_INTERVAL
