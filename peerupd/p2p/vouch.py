"""Ask a relay to let a joiner through (`wire.vouch`): what an inviter asks, and what a joiner shows.

One request is one stream to the relay and one answer. A relay that does not speak this (Go's) raises
`ProtocolUnsupported`: there, the relay's owner has to authorise the joiner first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from peerupd.model.addresses import RelayAddress
from peerupd.model.errors import LimitReached, ProtocolViolation, RelayRefused, TimedOut
from peerupd.model.names import PeerId, sanitised_name
from peerupd.p2p.delimited import receive_message, send_message
from peerupd.p2p.host import Host
from peerupd.wire.vouch import (
    MAX_MESSAGE,
    PROTOCOL,
    Close,
    Keep,
    No,
    Ok,
    Open,
    Prove,
    Reason,
    Request,
    Withdraw,
    decode_answer,
    proof,
)

ANSWER_LIMIT: Final = 15.0  # seconds

_IN_WORDS: Final = {
    Reason.NOT_ALLOWED: "it does not let us",
    Reason.NO_SUCH_CODE: "no open code fits: it is wrong, used up or over",
    Reason.TOO_MANY: "too many codes are open",
    Reason.FAILED: "it could not write it down",
}


class Vouching:
    """Our requests to relays; each is given by all its addresses and raises as follows.

    `RelayRefused` and `LimitReached` for a no, `ProtocolUnsupported`, `Unreachable`, `TimedOut`, `ConnectionLost`,
    `ProtocolViolation`.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    async def open(self, relay: Sequence[RelayAddress], key: bytes, seconds: float) -> None:
        """A code is out for so many seconds: whoever proves `key` may call us through the relay."""
        await self._ask(relay, Open(key, max(1, int(seconds))))

    async def close(self, relay: Sequence[RelayAddress], key: bytes) -> None:
        """The code is used, burned or over."""
        await self._ask(relay, Close(key))

    async def keep(self, relay: Sequence[RelayAddress], peer: PeerId, name: str) -> None:
        """Paired: the joiner stays in the relay's allowlist, in our name."""
        await self._ask(relay, Keep(peer, sanitised_name(name)))

    async def withdraw(self, relay: Sequence[RelayAddress], peer: PeerId) -> None:
        """We no longer vouch for this peer."""
        await self._ask(relay, Withdraw(peer))

    async def prove(self, relay: Sequence[RelayAddress], key: bytes) -> PeerId:
        """Show that we hold the code; the inviter that we may call now, within a minute."""
        answer = await self._ask(relay, Prove(proof(key, self._host.peer_id)))
        if answer.inviter is None:
            raise ProtocolViolation(f"relay {relay[0].peer.short} accepted our code without naming its inviter")
        return answer.inviter

    async def _ask(self, relay: Sequence[RelayAddress], request: Request) -> Ok:
        connection = await self._host.connect(relay[0].peer, [address.address for address in relay])
        async with await connection.open_stream([PROTOCOL]) as stream:
            with trio.move_on_after(ANSWER_LIMIT) as limit:
                await send_message(stream, request.encode())
                answer = decode_answer(await receive_message(stream, MAX_MESSAGE))
        name = relay[0].peer.short
        if limit.cancelled_caught:
            raise TimedOut(f"relay {name} gave no answer in {ANSWER_LIMIT:g} s")
        if isinstance(answer, No):
            kind = LimitReached if answer.reason is Reason.TOO_MANY else RelayRefused
            raise kind(f"relay {name} said no: {_IN_WORDS.get(answer.reason, answer.reason.words)}")
        return answer
