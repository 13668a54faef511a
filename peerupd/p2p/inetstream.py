"""The shape of libp2p's INetStream, for those who know streams by it: the names of py-libp2p for what trio's do."""

from __future__ import annotations

from abc import abstractmethod

import trio

from peerupd.model.addresses import Multiaddr


class INetShape(trio.abc.HalfCloseableStream):
    """A trio stream that speaks a protocol with somebody."""

    __slots__ = ("protocol",)

    protocol: str | None

    @property
    @abstractmethod
    def remote(self) -> Multiaddr:
        """Where the other side is."""

    def get_protocol(self) -> str | None:
        """The protocol, once negotiated."""
        return self.protocol

    def set_protocol(self, protocol_id: str) -> None:
        """Name the protocol."""
        self.protocol = protocol_id

    def get_remote_address(self) -> tuple[str, int] | None:
        """IP address and port of the other side; None for a circuit."""
        ip, port = self.remote.ip, self.remote.port
        return None if ip is None or port is None or self.remote.is_circuit else (str(ip), port)

    async def read(self, n: int | None = None) -> bytes:
        """As `receive_some`."""
        return bytes(await self.receive_some(n))

    async def write(self, data: bytes) -> None:
        """As `send_all`."""
        await self.send_all(data)

    async def close(self) -> None:
        """As `aclose`."""
        await self.aclose()

    async def close_write(self) -> None:
        """As `send_eof`."""
        await self.send_eof()


def positive(max_bytes: int) -> int:
    """`max_bytes`, as trio wants it checked."""
    if not isinstance(max_bytes, int):
        raise TypeError("max_bytes must be a whole number")
    if max_bytes < 1:
        raise ValueError("max_bytes must be at least 1")
    return max_bytes
