"""The ways on which bytes go from the client to the service: what each is called, where it begins, who works for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.processes import Client, cpu

RAW = "raw TCP"
SSH = "ssh -L, {}"
CIPHERS = {
    "chacha20": "chacha20-poly1305@openssh.com",
    "aes128-gcm": "aes128-gcm@openssh.com",
    "aes256-gcm": "aes256-gcm@openssh.com",
}
STOCK = "py-libp2p, stock, not proxied"
GO_NOISE = "go-libp2p, TCP, Noise"
GO_TLS = "go-libp2p, TCP, TLS"
GO_QUIC = "go-libp2p, QUIC"
GO_RELAYED = "go-libp2p, relayed, 2 KiB buffer"
GO_RAISED = "go-libp2p, relayed, 64 KiB buffer"
SHIPPED_TCP = "Go peer-up, TCP"
SHIPPED_QUIC = "Go peer-up, QUIC"
SHIPPED_RELAYED = "Go peer-up, relayed"
OURS = "peerup, direct"
OURS_RELAYED = "peerup, relayed"
OURS_OVER_GO = "peerup, relayed by go-libp2p"

ALL_SSH = tuple(SSH.format(name) for name in CIPHERS)
GO_TCP = (GO_NOISE, GO_TLS, SHIPPED_TCP)
ENDS = ("client", "home", "relay")


@dataclass(frozen=True)
class Route:
    """One way; there while it is in use."""

    name: str
    client: Client
    """Who stands at its beginning."""
    second: Client
    """Another one, for what goes on beside."""
    at: tuple[str, int]
    """What they connect to; `client` asks for the service there."""
    works: Mapping[str, int] = field(default_factory=dict)
    """The processes that carry it, by the end at which they stand."""

    def spent(self) -> dict[str, float]:
        """Seconds of CPU that each end has taken."""
        return {end: cpu([pid]) for end, pid in self.works.items()}
