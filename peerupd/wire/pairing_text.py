"""The joiner's side of the older text dialect of pairing, spoken only where a person allowed it.

    joiner    16 hex digits of the token, a blank and its name (if it has one), LF
    inviter   `OK <name>` LF, or `ERR <why>` LF

The token itself goes to whoever answers, so a code of this dialect proves nothing about the inviter beyond its peer
ID, which the connection has authenticated. A line has fewer than 512 bytes.
"""

from __future__ import annotations

from typing import Final

from peerupd.model.errors import InviteRefused, ProtocolViolation
from peerupd.model.names import printable, sanitised_name
from peerupd.wire.pairing import Event, Paired

MAX_LINE: Final = 511  # bytes

_OTHER_CODE: Final = "ask the inviter for a new code"


class TextJoiner:
    """Says the token, reads one line. The same calls as `pairing.Joiner`."""

    def __init__(self, token: bytes, name: str) -> None:
        self._line = f"{token.hex()} {sanitised_name(name)}".rstrip() + "\n"
        self._pending = b""
        self._done = False

    def start(self) -> bytes:
        """The only message of ours."""
        return self._line.encode()

    def receive(self, data: bytes) -> list[Event]:
        """`Paired` once the answer is whole; raises `InviteRefused`, `ProtocolViolation`."""
        self._pending += data
        line, end, _ = self._pending.partition(b"\n")
        if len(line) > MAX_LINE:
            raise ProtocolViolation("pairing: a line that is too long")
        if self._done or not end:
            return []
        self._done = True
        return [_answered(line.decode("utf-8", "replace").strip())]

    def closed(self) -> None:
        """The other side ended the stream: raises what that means, unless the dialogue is done."""
        if not self._done:
            raise InviteRefused("the inviter ended the pairing without an answer", hint=_OTHER_CODE)


def _answered(line: str) -> Paired:
    if line.startswith("OK"):
        return Paired(sanitised_name(line[2:].strip()))
    if line.startswith("ERR"):
        raise InviteRefused(f"the inviter refused: {printable(line[3:].strip())}", hint=_OTHER_CODE)
    raise ProtocolViolation(f"pairing: neither OK nor ERR but {printable(line, 40)!r}")
