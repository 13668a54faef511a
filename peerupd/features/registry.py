"""Which services this node offers, and to whom: each inbound stream is carried to the service's local address.

Theory of operation. `set` takes the whole wish and makes it true at once: handlers of new names are registered, of
names that are gone removed. A stream is served by the settings of the moment it came; it lives on when its service is
disabled or moved, and is reset when the service is removed or its access list no longer holds the peer. There is no
greeting and no error message on the wire (wire spec 2.2): a stream that cannot be served is reset. One that finds no
descriptor for its local connection waits for it a while, with its bytes in the stream's window.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Final, NoReturn

import trio

from peerupd.config.schema import ServiceSettings
from peerupd.features.access import Access
from peerupd.features.counting import SERVED, Traffic
from peerupd.features.ends import SocketEnd, dial
from peerupd.features.places import places as local_places
from peerupd.features.places import take
from peerupd.features.pump import pump, reset_on_error
from peerupd.features.seldom import Seldom
from peerupd.features.streams import ByteStream, Handler, Handlers
from peerupd.model.addresses import Endpoint
from peerupd.model.counters import Counters
from peerupd.model.errors import AlreadyExists, ServiceDown, UnknownService
from peerupd.model.logs import said
from peerupd.model.names import RESERVED_SERVICES, PeerId, new_service_name, printable, service_name, service_protocol
from peerupd.model.snapshots import ServiceStatus

log = logging.getLogger(__name__)

PROBE_LIMIT: Final = 1.0  # seconds in which something should answer at a service's address
ACCESS_INTERVAL: Final = 1.0  # seconds between two looks at the access files of running streams
MAX_STREAMS: Final = 4096  # inbound streams over all services; each holds one local socket
PLACE_LIMIT: Final = 30.0  # seconds that a stream waits for a place for its local connection
DIAL_PAUSE: Final = 0.5  # seconds between two attempts to dial without a descriptor

# no descriptors; and of a Unix socket: its queue of connections is full (connect(2))
_PASSING: Final = (errno.EMFILE, errno.ENFILE, errno.EAGAIN)

# a word for the counters, and a few for the log
_DISABLED: Final = ("disabled", "the service is disabled")
_CLOSED: Final = ("access", "the service's access list does not hold the peer")
_FULL: Final = ("full", f"{MAX_STREAMS} streams are running")
_SHORT: Final = ("descriptors", f"no descriptor became free within {PLACE_LIMIT:g} s")


class Registry:
    """The services of this node."""

    def __init__(
        self,
        handlers: Handlers,
        *,
        now: Callable[[], float] = time.time,
        worker: trio.CapacityLimiter | None = None,
        places: trio.Semaphore | None = None,
        counters: Counters | None = None,
    ) -> None:
        """`places`: for all local connections of the process."""
        self._handlers = handlers
        self._now = now
        self._worker = worker or trio.CapacityLimiter(1)
        self._services: dict[str, _Service] = {}
        self._refusals = Seldom()
        self._places = places or local_places()
        self._traffic = Traffic(counters, SERVED)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Keep the access lists of running streams current."""
        task_status.started()
        while True:
            await trio.sleep(ACCESS_INTERVAL)
            for service in tuple(self._services.values()):
                await self._look_again(service)

    def set(self, services: Mapping[str, ServiceSettings]) -> None:
        """Offer exactly these, from now on."""
        for name in self._services.keys() - services.keys():
            self._withdraw(self._services.pop(name))
        for name, settings in services.items():
            self._put(name, settings)

    def add(self, settings: ServiceSettings) -> None:
        """Offer one more; raises `InvalidName`, `AlreadyExists`."""
        name = new_service_name(settings.name)
        if name in self._services:
            raise AlreadyExists(f"service already registered: {name}", hint=f"remove it first: service remove {name}")
        self._put(name, settings)

    def remove(self, name: str) -> None:
        """Offer it no more and end its streams; raises `UnknownService`."""
        self._withdraw(self._get(name))
        del self._services[name]

    def enable(self, name: str) -> None:
        """Take new streams again; raises `UnknownService`."""
        self._put(name, replace(self._get(name).settings, enabled=True))

    def disable(self, name: str) -> None:
        """Take no new streams; raises `UnknownService`."""
        self._put(name, replace(self._get(name).settings, enabled=False))

    def list(self) -> tuple[ServiceStatus, ...]:
        """All services, by name."""
        return tuple(_status(self._services[name].settings) for name in sorted(self._services))

    def settle(self) -> None:
        """Bring the counters up to now: bytes of connections that still run are counted too."""
        self._traffic.settle()

    def _get(self, name: str) -> _Service:
        try:
            return self._services[name]
        except KeyError:
            raise UnknownService(f"service not found: {printable(name, 64)}") from None

    def _put(self, name: str, settings: ServiceSettings) -> None:
        service = self._services.get(name)
        if service is None:
            service = self._services[name] = _Service(settings, Access(settings, self._worker))
        elif service.settings != settings:
            service.settings, service.access = settings, Access(settings, self._worker)
        self._register(service)
        if not service.access.watches_a_file:
            service.cut_revoked(self._now())

    def _register(self, service: _Service) -> None:
        protocol = service_protocol(service_name(service.settings.name))
        wanted = service.settings.enabled and service.settings.name not in RESERVED_SERVICES
        if wanted and not service.registered:
            self._handlers.set_stream_handler(protocol, self._handler(service))
        elif service.registered and not wanted:
            self._handlers.remove_stream_handler(protocol)
        service.registered = wanted

    def _withdraw(self, service: _Service) -> None:
        service.settings = replace(service.settings, enabled=False)
        self._register(service)
        service.cut(service.running)

    def _handler(self, service: _Service) -> Handler:
        async def handle(stream: ByteStream) -> None:
            await self._serve(service, stream)

        return handle

    async def _serve(self, service: _Service, stream: ByteStream) -> None:
        settings = service.settings
        with reset_on_error(stream):
            await service.access.refresh()
        if refusal := self._refusal(service, stream.peer):
            self._refuse(settings, stream, *refusal)
            return
        with _Running(service, stream.peer), reset_on_error(stream):
            await self._carry(settings, stream)

    async def _carry(self, settings: ServiceSettings, stream: ByteStream) -> None:
        if not await take(self._places, PLACE_LIMIT):
            self._refuse(settings, stream, *_SHORT)
            return
        try:
            local = await _dial(settings.local_address)
            with self._traffic.connection(settings.name) as tally:
                await pump(local, stream, tally)
        except ServiceDown as why:
            self._refuse(settings, stream, "down", str(why))
        finally:
            self._places.release()

    def _refusal(self, service: _Service, peer: PeerId) -> tuple[str, str] | None:
        """Why this peer gets no stream now; None: it does."""
        if not service.registered:
            return _DISABLED
        if not service.access.allows(peer, self._now()):
            return _CLOSED
        if sum(len(each.running) for each in self._services.values()) >= MAX_STREAMS:
            return _FULL
        return None

    def _refuse(self, settings: ServiceSettings, stream: ByteStream, reason: str, why: str) -> None:
        stream.reset()
        self._traffic.refused(settings.name, reason)
        self._tell_refusal(settings, stream.peer, why)

    def _tell_refusal(self, settings: ServiceSettings, peer: PeerId, why: str) -> None:
        if self._refusals.due((settings.name, peer, why)):
            log.warning(
                "service %s: a stream of %s is refused: %s",
                settings.name,
                peer,
                why,
                extra=said("service.refused", service=settings.name, peer=str(peer), why=why),
            )

    async def _look_again(self, service: _Service) -> None:
        if service.running and service.access.watches_a_file:
            await service.access.refresh()
        service.cut_revoked(self._now())


class _Service:
    """One service and its running streams."""

    def __init__(self, settings: ServiceSettings, access: Access) -> None:
        self.settings = settings
        self.access = access
        self.registered = False
        self.running: set[_Running] = set()

    def cut_revoked(self, now: float) -> None:
        """End the streams of peers that the access list, as read last, does not hold."""
        self.cut(running for running in self.running if not self.access.allows(running.peer, now))

    def cut(self, streams: Iterable[_Running]) -> None:
        for running in tuple(streams):
            running.scope.cancel()


class _Running:
    """One stream while it runs: the scope in which it can be cut."""

    def __init__(self, service: _Service, peer: PeerId) -> None:
        self._service = service
        self.peer = peer
        self.scope = trio.CancelScope()

    def __enter__(self) -> None:
        self.scope.__enter__()
        self._service.running.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._service.running.discard(self)
        return self.scope.__exit__(kind, why, trace)


async def _dial(endpoint: Endpoint) -> SocketEnd:
    """As `dial`; again, for a while, where what was in the way may pass."""
    until = trio.current_time() + PLACE_LIMIT
    while True:
        try:
            return await dial(endpoint)
        except ServiceDown as why:
            if not _is_short(why) or trio.current_time() >= until:
                raise
        await trio.sleep(DIAL_PAUSE)


def _is_short(why: ServiceDown) -> bool:
    """Whether the reason is one that passes; trio has the errors of all addresses behind one of its own."""
    cause = why.__cause__
    below = cause.__cause__ if cause is not None else None
    causes = below.exceptions if isinstance(below, BaseExceptionGroup) else (cause,)
    return any(isinstance(each, OSError) and each.errno in _PASSING for each in causes)


async def silence_at(endpoint: Endpoint) -> str | None:
    """The warning that nothing answers at a service's address, as found out in a second; None when something does."""
    try:
        await (await dial(endpoint, PROBE_LIMIT)).aclose()
    except ServiceDown as why:
        return why.message
    return None


def _status(settings: ServiceSettings) -> ServiceStatus:
    reserved = settings.name in RESERVED_SERVICES
    return ServiceStatus(
        name=settings.name,
        protocol=settings.protocol or service_protocol(service_name(settings.name)),
        local_address=str(settings.local_address),
        enabled=settings.enabled and not reserved,
        allowed_peers=None if settings.allowed_peers is None else tuple(map(str, settings.allowed_peers)),
        tags=tuple(settings.tags) or None,
        warning="the name is reserved for peerup itself: not served" if reserved else None,
    )
