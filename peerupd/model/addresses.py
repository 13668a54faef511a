"""Addresses: multiaddrs in text and bytes, what a person may type for a relay, `host:port` of services.

Only the protocols that peerup can meet are known (libp2p specs, addressing; multiformats/multiaddr `protocols.csv`).
`Multiaddr` is our own small value because the lowest floor stands on the standard library alone; a contract test
holds it against the `multiaddr` package.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from peerupd.model.errors import InvalidAddress, InvalidPeerId
from peerupd.model.names import PeerId, printable

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

RELAY_PORT: Final = 7777  # TCP; the default of a relay
MAX_MULTIADDR_BYTES: Final = 512
MAX_COMPONENTS: Final = 16

_CODES: Final = {
    "ip4": 4,
    "tcp": 6,
    "ip6": 41,
    "dns": 53,
    "dns4": 54,
    "dns6": 55,
    "udp": 273,
    "p2p-circuit": 290,
    "p2p": 421,
    "tls": 448,
    "sni": 449,
    "noise": 454,
    "quic": 460,
    "quic-v1": 461,
    "ws": 477,
    "wss": 478,
}
_NAMES: Final = {code: name for name, code in _CODES.items()}
_FLAGS: Final = frozenset({"p2p-circuit", "tls", "noise", "quic", "quic-v1", "ws", "wss"})
_FIXED: Final = {"ip4": 4, "ip6": 16, "tcp": 2, "udp": 2}  # bytes of value
_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}\.?$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?"
)


@dataclass(frozen=True, slots=True)
class Multiaddr:
    """A path of `(protocol, value)` pairs, outermost first; `value` is empty for protocols without one."""

    parts: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Multiaddr:
        """The multiaddr in `text`; raises `InvalidAddress`."""
        words = text.split("/")
        if len(text) > 2 * MAX_MULTIADDR_BYTES or not text.startswith("/") or len(words) < 2:
            raise _bad(text, "a multiaddr looks like /ip4/203.0.113.50/tcp/7777")
        words = words[1:-1] if words[-1] == "" else words[1:]
        parts: list[tuple[str, str]] = []
        while words:
            name = "p2p" if (word := words.pop(0)) == "ipfs" else word
            if name not in _CODES:
                raise _bad(text, f"{printable(word, 20)!r} is not an address protocol")
            if name not in _FLAGS and not words:
                raise _bad(text, f"/{name} wants a value")
            parts.append((name, "" if name in _FLAGS else _canonical(name, words.pop(0), text)))
        found = cls(tuple(parts))
        if not 1 <= len(parts) <= MAX_COMPONENTS or len(found.to_bytes()) > MAX_MULTIADDR_BYTES:
            raise _bad(text, f"it wants 1 to {MAX_COMPONENTS} parts, in at most {MAX_MULTIADDR_BYTES} bytes")
        return found

    @classmethod
    def from_bytes(cls, data: bytes) -> Multiaddr:
        """The multiaddr in its binary form; raises `InvalidAddress`, also for protocols not known here."""
        if len(data) > MAX_MULTIADDR_BYTES:
            raise InvalidAddress("multiaddr too long")
        parts: list[tuple[str, str]] = []
        at = 0
        while at < len(data):
            code, at = _uvarint(data, at)
            name = _NAMES.get(code)
            if name is None or len(parts) == MAX_COMPONENTS:
                raise InvalidAddress(f"multiaddr with unknown protocol {code} or too many parts")
            size = 0 if name in _FLAGS else _FIXED.get(name, -1)
            if size < 0:
                size, at = _uvarint(data, at)
            if at + size > len(data):
                raise InvalidAddress("multiaddr cut short")
            parts.append((name, _value_text(name, data[at : at + size])))
            at += size
        if not parts:
            raise InvalidAddress("empty multiaddr")
        return cls(tuple(parts))

    def to_bytes(self) -> bytes:
        """The binary form."""
        out = bytearray()
        for name, value in self.parts:
            out += _varint(_CODES[name])
            if name in _FLAGS:
                continue
            raw = _value_bytes(name, value)
            out += raw if name in _FIXED else _varint(len(raw)) + raw
        return bytes(out)

    def get(self, *names: str) -> str | None:
        """The first value of any of these protocols; the empty string for one without a value; None if absent."""
        return next((value for name, value in self.parts if name in names), None)

    def has(self, name: str) -> bool:
        """Whether this protocol is part of the address."""
        return self.get(name) is not None

    def join(self, other: Multiaddr) -> Multiaddr:
        """This address, then that one."""
        return Multiaddr(self.parts + other.parts)

    def with_peer(self, peer: PeerId) -> Multiaddr:
        """This address with `/p2p/<peer>` at its end."""
        return Multiaddr((*self.parts, ("p2p", str(peer))))

    def without_peer(self) -> Multiaddr:
        """This address without a `/p2p/...` at its very end."""
        return Multiaddr(self.parts[:-1]) if len(self.parts) > 1 and self.parts[-1][0] == "p2p" else self

    @property
    def peer(self) -> PeerId | None:
        """The peer at the very end of the address, if it is named."""
        return PeerId.parse(self.parts[-1][1]) if self.parts[-1][0] == "p2p" else None

    @property
    def is_circuit(self) -> bool:
        """Whether the address leads through a relay."""
        return self.has("p2p-circuit")

    @property
    def is_plain_tcp(self) -> bool:
        """Whether it is an IP or DNS name and a TCP port and nothing else (but a peer at its end)."""
        names = [name for name, _ in self.without_peer().parts]
        return len(names) == 2 and names[0] in ("ip4", "ip6", "dns", "dns4", "dns6") and names[1] == "tcp"

    @property
    def host(self) -> str | None:
        """The IP address or DNS name."""
        return self.get("ip4", "ip6", "dns", "dns4", "dns6")

    @property
    def port(self) -> int | None:
        """The TCP or UDP port."""
        text = self.get("tcp", "udp")
        return int(text) if text is not None else None

    @property
    def ip(self) -> IpAddress | None:
        """The IP address, if it is one."""
        text = self.get("ip4", "ip6")
        return ipaddress.ip_address(text) if text is not None else None

    def __str__(self) -> str:
        return "".join(f"/{name}/{value}" if value else f"/{name}" for name, value in self.parts)


def is_protocol(name: str) -> bool:
    """Whether this address protocol is known here."""
    return name in _CODES or name == "ipfs"


def counted_as(ip: IpAddress) -> str:
    """The place that an address counts for where places are bounded: itself, or the /64 that its holder has whole."""
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.IPv6Network((ip, 64), strict=False))


def tcp_multiaddr(host: str, port: int) -> Multiaddr:
    """`/ip4|ip6/<host>/tcp/<port>`; a scope (`%eth0`) and an IPv4-mapped form are taken off."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return Multiaddr(((f"ip{ip.version}", str(ip)), ("tcp", str(port))))


@dataclass(frozen=True, slots=True)
class RelayAddress:
    """A relay: where it listens, and who it is."""

    address: Multiaddr
    peer: PeerId

    @classmethod
    def parse(cls, text: str) -> RelayAddress:
        """A full multiaddr that ends in `/p2p/<relay peer ID>`; raises `InvalidAddress`."""
        whole = Multiaddr.parse(text)
        if whole.peer is None or whole.host is None or whole.port is None or whole.is_circuit:
            raise _bad(text, "a relay address looks like /ip4/203.0.113.50/tcp/7777/p2p/12D3KooW...")
        return cls(whole.without_peer(), whole.peer)

    @property
    def usable(self) -> bool:
        """Whether its transport is there: plain TCP."""
        return self.address.is_plain_tcp

    def circuit_to(self, peer: PeerId) -> Multiaddr:
        """The address of `peer` through this relay."""
        return Multiaddr((*self.address.with_peer(self.peer).parts, ("p2p-circuit", ""), ("p2p", str(peer))))

    def __str__(self) -> str:
        return str(self.address.with_peer(self.peer))


def relay_input(text: str) -> Multiaddr:
    """What a person may type for a relay: a multiaddr, `IP`, `IP:PORT`, `[v6]`, `[v6]:PORT` or a bare v6.

    Host names are refused (use `/dns4/<name>/tcp/<port>`); the port defaults to 7777. The peer ID, where the text
    has none, is asked for separately. Raises `InvalidAddress`.
    """
    text = text.strip()
    if text.startswith("/"):
        whole = Multiaddr.parse(text)
        if whole.host is None or whole.port is None or whole.is_circuit:
            raise _bad(text, "a relay address looks like /ip4/203.0.113.50/tcp/7777/p2p/12D3KooW...")
        return whole
    host, port = _split_host(text)
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        raise _bad(
            text, f"a relay is given by its IP address; for a name write /dns4/<name>/tcp/{RELAY_PORT}"
        ) from None
    return tcp_multiaddr(str(ip), RELAY_PORT if port is None else _port(port, text))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a service is, or where a proxy listens: a TCP host and port, or the path of a Unix socket."""

    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, text: str, *, any_port: bool = False) -> Endpoint:
        """`host:port`, `[v6]:port` or `unix:/path`; port 0 only with `any_port`; raises `InvalidAddress`."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path.startswith("/") or not path.isprintable() or len(path.encode()) > 107:
                raise _bad(text, "a Unix socket looks like unix:/run/x.sock, at most 107 bytes")
            return cls("", 0, path)
        host, port = _split_host(text)
        if port is None or not (_HOST_NAME.fullmatch(host) or (_is_ip(host) and host.isprintable())):
            raise _bad(text, "it looks like localhost:22, 192.168.1.5:80, [::1]:22 or unix:/run/x.sock")
        number = _port(port, text, lowest=0 if any_port else 1)
        return cls(host, number)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.path or self.host == "localhost":
            return True
        return _is_ip(self.host) and ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _bad(text: str, wanted: str) -> InvalidAddress:
    return InvalidAddress(f"cannot read the address {printable(text, 80)!r}", hint=wanted)


def _split_host(text: str) -> tuple[str, str | None]:
    """Host and port, the port None where there is none; brackets off."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise _bad(text, "an IPv6 address with a port looks like [2001:db8::1]:7777")
        return host, rest[1:] if rest else None
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, None


def _port(text: str, whole: str, lowest: int = 1) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and lowest <= int(text) <= 65535):
        raise _bad(whole, f"a port is a number from {lowest} to 65535")
    return int(text)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _canonical(name: str, value: str, whole: str) -> str:
    """One value, one check; raises `InvalidAddress`."""
    try:
        return _value_text(name, _value_bytes(name, value))
    except (ValueError, InvalidPeerId, InvalidAddress):
        raise _bad(whole, f"{printable(value, 60)!r} is not a value for /{name}") from None


def _value_bytes(name: str, value: str) -> bytes:
    match name:
        case "ip4":
            return ipaddress.IPv4Address(value).packed
        case "ip6":
            return ipaddress.IPv6Address(value.partition("%")[0]).packed
        case "tcp" | "udp":
            return _port(value, value, lowest=0).to_bytes(2, "big")
        case "p2p":
            return PeerId.parse(value).multihash
        case _:
            return value.encode()


def _value_text(name: str, raw: bytes) -> str:
    match name:
        case "ip4":
            return str(ipaddress.IPv4Address(raw))
        case "ip6":
            return str(ipaddress.IPv6Address(raw))
        case "tcp" | "udp":
            return str(int.from_bytes(raw, "big"))
        case "p2p":
            try:
                return str(PeerId.from_bytes(raw))
            except InvalidPeerId as why:
                raise InvalidAddress("multiaddr with a bad peer ID") from why
        case _ if name in _FLAGS:
            return ""
        case _:
            text = raw.decode("utf-8", "backslashreplace")
            if text.encode() != raw or not text or "/" in text or not text.isprintable() or len(text) > 253:
                raise InvalidAddress(f"multiaddr with a bad value for /{name}")
            return text


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _uvarint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift <= 28:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise InvalidAddress("multiaddr with a bad number")
