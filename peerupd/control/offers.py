"""What this node offers: the services of the configuration, those exposed for now, and those taken back for now.

An exposure, and the taking back of a configured service, live until the daemon ends. Whatever changes, the registry
gets the whole wish.
"""

from __future__ import annotations

from collections.abc import Callable

from peerupd.config.edits import Put, Remove, Value
from peerupd.config.schema import NodeSettings, ServiceSettings
from peerupd.control.configuration import Configuration
from peerupd.control.names import Names
from peerupd.features.registry import Registry, silence_at
from peerupd.model.addresses import Endpoint
from peerupd.model.errors import AlreadyExists, RequestError, UnknownService
from peerupd.model.names import new_service_name, printable
from peerupd.model.snapshots import Event, ServiceAdd, ServicesChanged, ServiceStatus


class Offers:
    """The services of this node, live and on disk."""

    def __init__(
        self, configuration: Configuration, registry: Registry, names: Names, publish: Callable[[Event], None]
    ) -> None:
        self._configuration = configuration
        self._registry = registry
        self._names = names
        self._publish = publish
        self._exposed: dict[str, ServiceSettings] = {}
        self._taken_back: set[str] = set()
        configuration.tell(self._apply)

    def list(self) -> tuple[ServiceStatus, ...]:
        """All services, by name."""
        return self._registry.list()

    async def add(self, ask: ServiceAdd) -> ServiceStatus:
        """Offer a service, live and in the file; raises `InvalidName`, `InvalidAddress`, `AlreadyExists`."""
        name, endpoint = self._new(ask.name, ask.local_address)
        value: dict[str, Value] = {"enabled": True, "local_address": str(endpoint)}
        if ask.protocol:
            value["protocol"] = ask.protocol
        if ask.allowed_peers:
            value["allowed_peers"] = [str(self._names.resolve(peer)) for peer in ask.allowed_peers]
        await self._configuration.edit(Put(("services", name), value))
        return ServiceStatus(
            name=name,
            protocol=next(service.protocol for service in self.list() if service.name == name),
            local_address=str(endpoint),
            warning=await silence_at(endpoint),
        )

    async def remove(self, name: str) -> None:
        """Offer it no more, live and in the file; raises `UnknownService`."""
        if name in self._exposed:
            self.unexpose(name)
            return
        self._configured(name)
        await self._configuration.edit(Remove(("services", name)))

    async def switch(self, name: str, *, enabled: bool) -> bool:
        """Take new streams, or none; whether that is a change. Raises `UnknownService`."""
        if self._configured(name).enabled is enabled and name not in self._taken_back:
            return False
        self._taken_back.discard(name)
        await self._configuration.edit(Put(("services", name, "enabled"), enabled))
        return True

    def expose(self, name: str, local_address: str) -> None:
        """Offer a service until the daemon ends; raises `InvalidName`, `InvalidAddress`, `AlreadyExists`."""
        name, endpoint = self._new(name, local_address)
        self._exposed[name] = ServiceSettings(name=name, enabled=True, local_address=endpoint)
        self._apply(self._configuration.settings)

    def unexpose(self, name: str) -> None:
        """Offer it no more until the daemon ends, whatever the file says; raises `UnknownService`."""
        if name not in {service.name for service in self.list()}:
            raise _unknown(name)
        if self._exposed.pop(name, None) is None:
            self._taken_back.add(name)
        self._apply(self._configuration.settings)

    def _new(self, name: str, local_address: str) -> tuple[str, Endpoint]:
        if not name or not local_address:
            raise RequestError("name and local_address are required")
        fresh = new_service_name(name)
        if fresh in self._exposed or fresh in self._configuration.settings.services.keys() - self._taken_back:
            raise AlreadyExists(f"service already registered: {fresh}", hint=f"peerupctl service remove {fresh}")
        return fresh, Endpoint.parse(local_address)

    def _configured(self, name: str) -> ServiceSettings:
        settings = self._configuration.settings.services.get(name)
        if settings is None:
            raise _unknown(name)
        return settings

    def _apply(self, settings: NodeSettings) -> None:
        kept = {name: service for name, service in settings.services.items() if name not in self._taken_back}
        wish = self._exposed | kept
        self._registry.set(wish)
        self._publish(ServicesChanged(tuple(sorted(wish))))


def _unknown(name: str) -> UnknownService:
    return UnknownService(f"service not found: {printable(name, 64)}", hint="`peerupctl service list` lists them")
