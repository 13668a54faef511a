"""Peers of a relay that cost next to nothing: plain sockets, driven by their caller; they hold slots and take calls."""

from __future__ import annotations

from peerupd.model.addresses import Multiaddr
from peerupd.trust.identity import Identity
from peerupd.wire import identify
from peerupd.wire.circuit import HOP_PROTOCOL, STOP_PROTOCOL, HopKind, HopMessage, Status, StopKind, StopMessage
from peerupd.wire.framing import frame
from peerupd.wire.multistream import Listener
from tests.attack import raw
from tests.attack.raw import Talk

SERVED = (identify.PROTOCOL, identify.PUSH_PROTOCOL, STOP_PROTOCOL)
MADE = identify.Identify(
    protocol_version="peerup/1",
    agent_version="test/0",
    listen_addrs=tuple(Multiaddr.parse(f"/ip4/192.0.2.{number}/tcp/4001") for number in range(4)),
    protocols=(*SERVED, "/ipfs/ping/1.0.0", "/peerup/ssh/1.0.0"),
)


class Guest:
    """A peer with a slot: it says what it is, and takes circuits."""

    def __init__(self, identity: Identity, port: int) -> None:
        self.identity = identity
        self.muxed = raw.connect(port, identity, source=raw.somewhere())
        self.muxed.welcome = self._offered
        self._unserved: list[Talk] = []
        self._known = False
        self._calls: list[Talk] = []

    def reserve(self) -> None:
        """Get a slot, and be known to the relay."""
        assert self.wish() is Status.OK
        while not self._known:
            self._serve_next()

    def wish(self) -> Status | None:
        """Ask for a slot; the answer."""
        return raw.ask_hop(self.muxed, HopMessage(HopKind.RESERVE))[0]

    def ask_for(self, other: Guest) -> Talk:
        """A circuit, whose answer is not waited for."""
        request = HopMessage(HopKind.CONNECT, peer=other.identity.peer_id)
        return self.muxed.open(HOP_PROTOCOL, frame(request.encode()))

    def take_call(self) -> Talk:
        """The circuit that somebody asks for."""
        while not self._calls:
            self._serve_next()
        return self._calls.pop()

    def _offered(self, talk: Talk) -> None:
        self._unserved.append(talk)

    def _serve_next(self) -> None:
        while not self._unserved:
            self.muxed.pump()
        talk = self._unserved.pop(0)
        listener = Listener(SERVED)
        while listener.chosen is None:
            talk.send(listener.receive(talk.receive()))
        if listener.chosen == identify.PROTOCOL:
            talk.send(frame(MADE.encode()))
            talk.finish()
            self._known = True
        elif listener.chosen == STOP_PROTOCOL:
            talk._data = listener.leftover + talk._data
            assert StopMessage.decode(talk.message()).kind is StopKind.CONNECT
            talk.send(frame(StopMessage(StopKind.STATUS, status=Status.OK).encode()))
            self._calls.append(talk)


def joined(one: Guest, other: Guest) -> tuple[Talk, Talk]:
    """Both ends of a circuit."""
    near = one.ask_for(other)
    far = other.take_call()
    assert near.chosen()
    assert HopMessage.decode(near.message()).status is Status.OK
    return near, far
