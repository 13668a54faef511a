"""What a text of the configuration can be: each kind in words, and how it is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from peerupd.config.reading import Kind
from peerupd.model.addresses import Endpoint, Multiaddr, RelayAddress, is_protocol
from peerupd.model.duration import parse_duration
from peerupd.model.errors import InvalidAddress
from peerupd.model.names import PeerId, ServiceName, network_name, service_name
from peerupd.model.snapshots import PathWish

MAX_TEXT: Final = 200  # characters of a text without a grammar of its own
MAX_SIZE: Final = 1 << 60  # bytes
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOOPBACK: Final = "127.0.0.1"

_SIZE: Final = re.compile(r"(\d{1,18}) *(B|KB|MB|GB|)", re.IGNORECASE)
_UNITS: Final = {"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_FOREIGN_STARTS: Final = frozenset({"dnsaddr", "garlic32", "garlic64", "ip6zone", "onion", "onion3", "unix"})
_PROTOCOL_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")


def path_in(folder: Path) -> Kind[Path]:
    """A path; a relative one is relative to `folder`. `~` is a name like any other."""

    def read(text: str) -> Path:
        if not text or "\0" in text:
            raise ValueError(text)
        return folder / text

    return Kind("the path of a file", read)


def _text(text: str) -> str:
    if not text.isprintable() or not 0 < len(text) <= MAX_TEXT:
        raise ValueError(text)
    return text


def _optional_text(text: str) -> str:
    return _text(text) if text else ""


def _optional_network(text: str) -> str:
    return network_name(text) if text else ""


def _protocol(text: str) -> str:
    if not text.startswith("/") or " " in text:
        raise ValueError(text)
    return _text(text)


def _positive_duration(text: str) -> float:
    if (seconds := parse_duration(text)) < 1:
        raise ValueError(text)
    return seconds


def _pause(text: str) -> float:
    if (seconds := parse_duration(text)) < 0.001:
        raise ValueError(text)
    return seconds


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None or (size := int(found[1]) * _UNITS[found[2].upper()]) > MAX_SIZE:
        raise ValueError(text)
    return size


def _log_level(text: str) -> str:
    if text not in LOG_LEVELS:
        raise ValueError(text)
    return text


def _any_endpoint(text: str) -> Endpoint:
    return Endpoint.parse(f"{LOOPBACK}:{text}" if text.isdigit() else text, any_port=True)


def _multiaddr(text: str) -> Multiaddr | str:
    try:
        return Multiaddr.parse(text)
    except InvalidAddress:
        if _is_foreign(text):
            return text
        raise


def _relay(text: str) -> RelayAddress | str:
    try:
        return RelayAddress.parse(text)
    except InvalidAddress:
        if _is_foreign(text):
            return text
        raise


def _is_foreign(text: str) -> bool:
    """Whether it is an address as far as we can read it, up to a protocol that is not known here."""
    if not text.startswith("/") or len(text) > MAX_TEXT or not text.isprintable():
        return False
    words = text[1:].split("/")
    if words[0] in _FOREIGN_STARTS:
        return len(words) > 1
    return any(_stops_at(words, at) for at in range(2, len(words)))


def _stops_at(words: list[str], at: int) -> bool:
    if is_protocol(words[at]) or not _PROTOCOL_NAME.fullmatch(words[at]):
        return False
    try:
        Multiaddr.parse("/" + "/".join(words[:at]))
    except InvalidAddress:
        return False
    return True


TEXT: Final = Kind(f"a text of 1 to {MAX_TEXT} printable characters", _text)
OPTIONAL_TEXT: Final = Kind(f"a text of at most {MAX_TEXT} printable characters", _optional_text)
PROTOCOL: Final = Kind("a protocol ID like /pingpong/1.0.0", _protocol)
DURATION: Final = Kind("a duration like 30s, 2m or 1h30m", parse_duration)
INTERVAL: Final = Kind("a duration of at least one second, like 30s, 2m or 1h30m", _positive_duration)
PAUSE: Final = Kind("a duration of at least 1ms, like 500ms, 5s or 1m", _pause)
SIZE: Final = Kind("a size like 64MB (B, KB, MB or GB)", _size)
LOG_LEVEL: Final = Kind("debug, info, warning or error", _log_level)
NETWORK: Final = Kind("a network name of 1-63 lowercase letters, digits or hyphens", _optional_network)
SERVICE: Final[Kind[ServiceName]] = Kind("a service name of 1-63 lowercase letters, digits or hyphens", service_name)
PEER_ID: Final = Kind("a peer ID like 12D3KooW...", PeerId.parse)
ENDPOINT: Final = Kind("an address like localhost:22, [::1]:22 or unix:/run/x.sock", Endpoint.parse)
LISTENING: Final = Kind("an address like 127.0.0.1:2222, or a port", _any_endpoint)
PATH_WISH: Final = Kind("any, direct or relay", PathWish)
LISTEN_ADDRESS: Final = Kind("an address like /ip4/0.0.0.0/tcp/0", _multiaddr)
PEER_ADDRESS: Final = Kind("an address like /ip4/203.0.113.50/tcp/7777/p2p/12D3KooW...", _multiaddr)
RELAY_ADDRESS: Final = Kind("a relay address like /ip4/203.0.113.50/tcp/7777/p2p/12D3KooW...", _relay)
