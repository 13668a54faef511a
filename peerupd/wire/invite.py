"""Invite codes: the text that a person carries from one machine to the other.

A code is bytes in base32, upper case, in groups of four. Its first byte says how to read on (peer-up wire formats):

    1   token, relay as IPv4 and TCP port, relay ID, network, inviter ID     what peer-up makes, and what we make
    1   the same without a network                                           the text dialect of older peer-up
    2   as the first, or with a token of 16 bytes and no inviter             another dialect; a relay's pairing code
    3   token, relay as a multiaddr, relay ID, network, inviter ID           ours, for relays without an IPv4 address

The bytes have no checksum, so reading is strict: every peer ID is one whole multihash, nothing may be left over, and
only the text that encoding gives back is taken. That also tells the two layouts of version 1 apart.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final, TypeVar

from peerupd.model.addresses import Multiaddr, RelayAddress
from peerupd.model.errors import InvalidAddress, InvalidCode, InvalidName, InvalidPeerId, LegacyCode
from peerupd.model.names import PeerId, network_name, printable

TOKEN_SIZE: Final = 8  # bytes
PAIRING_TOKEN_SIZE: Final = 16  # bytes, in the codes that a Go relay gives out
MAX_CODE_TEXT: Final = 2048  # characters; the longest that we make has under 1,300
MIN_CODE_BYTES: Final = 16
GROUP: Final = 4  # characters between two dashes

_VERSION: Final = 1
_VERSION_2: Final = 2
_VERSION_OWN: Final = 3
_WHOLE: Final = "copy the whole code again, or ask for a new one"
_NEW_CODE: Final = "ask the inviter for a new code, made by a current peer-up"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Invite:
    """What a code says. `network` is empty for the global network; `legacy`: its inviter speaks the text dialect."""

    token: bytes = field(repr=False)
    relay: RelayAddress
    inviter: PeerId
    network: str = ""
    legacy: bool = False


def new_token() -> bytes:
    """A secret for one code."""
    return secrets.token_bytes(TOKEN_SIZE)


def encode(invite: Invite) -> str:
    """The code, in groups of four with dashes; the version that older programs read wherever the relay allows it."""
    text = _text(_layout_own(invite) if _ipv4_of(invite.relay) is None else _layout_1(invite))
    return "-".join(text[at : at + GROUP] for at in range(0, len(text), GROUP))


def decode(text: str, *, allow_legacy: bool = False) -> Invite:
    """What a code says; dashes, white space and case do not matter.

    Raises `LegacyCode` for one of the older text dialect, unless that is allowed, and `InvalidCode` for everything
    else that is no invite.
    """
    data = _bytes(text)
    read = _LAYOUTS.get(data[0])
    invite = _fitting(read, data) if read else None
    if invite is None and allow_legacy and data[0] == _VERSION:
        invite = _fitting(_read_legacy, data)
    if invite is None:
        raise _why_not(data)
    return invite


# -- text and bytes ------------------------------------------------------------------------------------------------


def _text(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    """The bytes behind a code, at least `MIN_CODE_BYTES` of them."""
    kept = "".join(text[: MAX_CODE_TEXT + 1].split()).replace("-", "")
    if not kept:
        raise InvalidCode("no invite code was given", hint="the inviter gets one from: peerup invite")
    if len(text) > MAX_CODE_TEXT or not kept.isascii() or not kept.isalnum():
        raise InvalidCode(f"not an invite code: {printable(text, 40)!r}", hint=_WHOLE)
    kept = kept.upper()
    try:
        data = base64.b32decode(kept + "=" * (-len(kept) % 8))
    except ValueError:
        raise _damaged() from None
    if len(data) < MIN_CODE_BYTES:
        raise InvalidCode("the invite code is too short", hint=_WHOLE)
    if _text(data) != kept:
        raise _damaged()
    return data


def _damaged() -> InvalidCode:
    return InvalidCode("the invite code is damaged or not complete", hint=_WHOLE)


# -- layouts, written ----------------------------------------------------------------------------------------------


def _layout_1(invite: Invite) -> bytes:
    relay = invite.relay.address
    address = IPv4Address(relay.host or "").packed + (relay.port or 0).to_bytes(2, "big")
    return bytes((_VERSION,)) + invite.token + address + _tail(invite)


def _layout_own(invite: Invite) -> bytes:
    address = invite.relay.address.to_bytes()
    return bytes((_VERSION_OWN,)) + invite.token + len(address).to_bytes(2, "big") + address + _tail(invite)


def _tail(invite: Invite) -> bytes:
    relay, network = invite.relay.peer.multihash, invite.network.encode()
    return bytes((len(relay),)) + relay + bytes((len(network),)) + network + invite.inviter.multihash


def _ipv4_of(relay: RelayAddress) -> str | None:
    """The IPv4 address of a relay that is nothing but IPv4 and TCP."""
    return relay.address.get("ip4") if relay.address.is_plain_tcp else None


# -- layouts, read -------------------------------------------------------------------------------------------------


class _Cursor:
    """Bytes taken from the front; `ValueError` when there are too few."""

    def __init__(self, data: bytes) -> None:
        self._left = data

    def take(self, size: int) -> bytes:
        if size > len(self._left):
            raise ValueError(size)
        taken, self._left = self._left[:size], self._left[size:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def rest(self) -> bytes:
        return self.take(len(self._left))


def _fitting(read: Callable[[_Cursor], T], data: bytes) -> T | None:
    """`data` after its version byte as this layout; None when it is not."""
    try:
        return read(_Cursor(data[1:]))
    except (ValueError, InvalidAddress, InvalidName, InvalidPeerId):
        return None


def _read_invite(code: _Cursor) -> Invite:
    token, relay = code.take(TOKEN_SIZE), _read_relay(code)
    network = _read_network(code)
    return Invite(token, relay, PeerId.from_bytes(code.rest()), network)


def _read_legacy(code: _Cursor) -> Invite:
    return Invite(code.take(TOKEN_SIZE), _read_relay(code), PeerId.from_bytes(code.rest()), legacy=True)


def _read_pairing(code: _Cursor) -> RelayAddress:
    code.take(PAIRING_TOKEN_SIZE)
    relay = _read_relay(code)
    _read_network(code)
    if code.rest():
        raise ValueError("bytes after a pairing code")
    return relay


def _read_own(code: _Cursor) -> Invite:
    token, raw = code.take(TOKEN_SIZE), code.take(code.number(2))
    address = Multiaddr.from_bytes(raw)
    relay = RelayAddress.parse(str(address.with_peer(_read_peer(code))))
    if relay.address.to_bytes() != raw or address.has("p2p") or _ipv4_of(relay) is not None:
        raise ValueError("not how this relay is written")
    network = _read_network(code)
    return Invite(token, relay, PeerId.from_bytes(code.rest()), network)


def _read_relay(code: _Cursor) -> RelayAddress:
    host, port = IPv4Address(code.take(4)), code.number(2)
    address = Multiaddr((("ip4", str(host)), ("tcp", str(port))))
    return RelayAddress(address, _read_peer(code))


def _read_peer(code: _Cursor) -> PeerId:
    return PeerId.from_bytes(code.take(code.number(1)))


def _read_network(code: _Cursor) -> str:
    text = code.take(code.number(1)).decode()
    return network_name(text) if text else ""


_LAYOUTS: Final = {_VERSION: _read_invite, _VERSION_OWN: _read_own}


# -- codes that are not for us -------------------------------------------------------------------------------------


def _why_not(data: bytes) -> InvalidCode:
    """Why these bytes are no invite of ours: what else they are, as far as that can be told."""
    version = data[0]
    if version == _VERSION and _fitting(_read_legacy, data) is not None:
        return LegacyCode(
            "the invite code is of the text dialect of an older peer-up, which shows its secret to whoever answers",
            hint=f"{_NEW_CODE}; or, if you trust the way this code came, join again with --allow-legacy",
        )
    if version == _VERSION_2 and _fitting(_read_pairing, data) is not None:
        return InvalidCode(
            "this is a relay's pairing code, not an invite code; this version of peerup does not speak that protocol",
            hint="on the relay authorize this machine's peer ID, then use an invite code of the other machine",
        )
    if version == _VERSION_2 and _fitting(_read_invite, data) is not None:
        return InvalidCode(
            "the invite code is of a dialect that only development versions of peer-up spoke", hint=_NEW_CODE
        )
    if version > _VERSION_OWN:
        return InvalidCode(
            f"the invite code is of version {version}, which is newer than this program (or the code is damaged)",
            hint="update peerup on this machine, or copy the whole code again",
        )
    return _damaged()
