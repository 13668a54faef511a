"""What the rooms here need of the network: streams to peers, opened and answered; the assembler brings it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

from peerupd.features.pump import End
from peerupd.model.names import PeerId
from peerupd.model.snapshots import PathWish


class Carrier(Protocol):
    """The connection under a stream."""

    @property
    def relayed(self) -> bool: ...


class ByteStream(End, Protocol):
    """A stream to a peer."""

    @property
    def peer(self) -> PeerId: ...

    @property
    def protocol(self) -> str | None: ...

    @property
    def connection(self) -> Carrier: ...


Handler: TypeAlias = Callable[[ByteStream], Awaitable[None]]


class Handlers(Protocol):
    """Where inbound streams are answered."""

    def set_stream_handler(self, protocol: str, handler: Handler, /) -> None: ...

    def remove_stream_handler(self, protocol: str, /) -> None: ...


class OpenStream(Protocol):
    """A new stream that speaks the first of `protocols` known to the peer, over a path that fits the wish.

    Raises `Unreachable`, `ProtocolUnsupported` and other `PeerupError`s.
    """

    async def __call__(
        self, peer: PeerId, protocols: Sequence[str], /, *, wish: PathWish = PathWish.ANY
    ) -> ByteStream: ...
