"""Proxies of this node: those of the configuration, opened at each start, and those that a caller asked for.

A configured proxy that cannot be opened (its port is taken, its peer has no name yet) is tried again for as long as
it is configured; meanwhile `problems` says so.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, NoReturn, cast

import trio

from peerupd.config.edits import Append, Drop, Value
from peerupd.config.schema import NodeSettings, ProxySettings
from peerupd.control.configuration import Configuration
from peerupd.control.names import Names
from peerupd.features.proxy import Proxies
from peerupd.model.errors import PeerupError, UnknownProxy
from peerupd.model.logs import said
from peerupd.model.names import PeerId
from peerupd.model.snapshots import Connect, PathWish, ProxyStatus

log = logging.getLogger(__name__)

ENDED_LOOK: Final = 1.0  # seconds between two looks whether a proxy in the foreground was ended by somebody else
RETRY: Final = 30.0  # seconds between two attempts at configured proxies that could not be opened

Reach = Callable[[PeerId, PathWish], Awaitable[object]]


class Forwards:
    """The proxies, live and on disk."""

    def __init__(self, configuration: Configuration, proxies: Proxies, names: Names, reach: Reach) -> None:
        self._configuration = configuration
        self._proxies = proxies
        self._names = names
        self._reach = reach
        self._wanted: tuple[ProxySettings, ...] = ()
        self._standing: dict[ProxySettings, str] = {}  # to the ID of its proxy
        self._troubles: dict[ProxySettings, str] = {}
        self._changed = trio.Event()

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps configured proxies from being open."""
        return tuple(self._troubles.values())

    def list(self) -> tuple[ProxyStatus, ...]:
        """All proxies, oldest first."""
        return self._proxies.list()

    async def run(self) -> NoReturn:
        """Keep the configured proxies open."""
        self._configuration.tell(self._apply)
        while True:
            self._changed = trio.Event()
            for wanted in self._wanted:
                if wanted not in self._standing:
                    await self._open_configured(wanted)
            with trio.move_on_after(RETRY if self._troubles else float("inf")):
                await self._changed.wait()

    async def open(self, ask: Connect) -> ProxyStatus:
        """Open a proxy to a peer that can be reached; with `persist` to any, and in the file too.

        Raises `UnknownPeer`, `Unreachable`, `AddressInUse`, `InvalidAddress`, `StorageFailed`.
        """
        peer = self._names.resolve(ask.peer)
        if not ask.persist:
            await self._reach(peer, ask.path)
        status = await self._proxies.open(peer, ask)
        if ask.persist:
            try:
                await self._persist(ask, status)
            except BaseException:
                self._proxies.close(status.id)
                raise
        return status

    async def close(self, proxy: str) -> None:
        """End a proxy, in the file too if it is there; raises `UnknownProxy`, `StorageFailed`."""
        configured = next((wanted for wanted, standing in self._standing.items() if standing == proxy), None)
        if configured is not None:
            await self._configuration.edit(Drop(("proxies",), cast("Value", configured.written)))
        else:
            self._proxies.close(proxy)

    async def ended(self, proxy: str) -> None:
        """Wait until a proxy is no more."""
        while any(status.id == proxy for status in self._proxies.list()):  # noqa: ASYNC110 - nobody tells us
            await trio.sleep(ENDED_LOOK)

    def end(self, proxy: str) -> None:
        """End a proxy that lives for a caller in the foreground; it may be over already."""
        with suppress(UnknownProxy):
            self._proxies.close(proxy)

    async def _persist(self, ask: Connect, status: ProxyStatus) -> None:
        value = {"peer": ask.peer, "service": ask.service, "listen": status.listen_address}
        if ask.path is not PathWish.ANY:
            value["path"] = str(ask.path)
        before = set(self._configuration.settings.proxies)
        await self._configuration.edit(Append(("proxies",), value))
        for added in set(self._configuration.settings.proxies) - before:
            self._standing[added] = status.id

    async def _open_configured(self, wanted: ProxySettings) -> None:
        ask = Connect(wanted.peer, wanted.service, str(wanted.listen), wanted.path, persist=True)
        try:
            status = await self._proxies.open(self._names.resolve(ask.peer), ask)
        except PeerupError as why:
            trouble = f"proxy {wanted.listen} -> {wanted.peer}:{wanted.service}: {why.message}"
            if self._troubles.get(wanted) != trouble:
                log.warning(
                    "%s, retrying in %g s", trouble, RETRY, extra=said("proxy.not_opened", listen=str(wanted.listen))
                )
            self._troubles[wanted] = trouble
        else:
            self._troubles.pop(wanted, None)
            self._standing[wanted] = status.id

    def _apply(self, settings: NodeSettings) -> None:
        self._wanted = settings.proxies
        for gone in [standing for standing in self._standing if standing not in self._wanted]:
            proxy = self._standing.pop(gone)
            if any(status.id == proxy for status in self._proxies.list()):
                self._proxies.close(proxy)
        self._troubles = {wanted: why for wanted, why in self._troubles.items() if wanted in self._wanted}
        self._changed.set()
