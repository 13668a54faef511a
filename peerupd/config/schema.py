"""Settings: what a configuration can say, for a node and for a relay; `parse_node` and `parse_relay` read it.

The doc string under each field is the reference. Where a key is absent the default stands; where keys are wrong all
problems are reported at once. Keys and defaults are peer-up's, so that its files load unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

from peerupd.config import kinds
from peerupd.config.reading import Findings, Section
from peerupd.config.yaml_text import Entry, Node, Plain, Scalar, in_order, plain, read
from peerupd.model.addresses import RELAY_PORT, Endpoint, Multiaddr, RelayAddress
from peerupd.model.errors import ConfigInvalid, InvalidPeerId
from peerupd.model.names import MAX_PEER_NAME, RESERVED_SERVICES, PeerId
from peerupd.model.snapshots import PathWish

T = TypeVar("T")

VERSION: Final = 1
NODE_LISTEN: Final = (
    "/ip4/0.0.0.0/tcp/0",
    "/ip4/0.0.0.0/udp/0/quic-v1",
    "/ip6/::/tcp/0",
    "/ip6/::/udp/0/quic-v1",
)
RELAY_LISTEN: Final = (f"/ip4/0.0.0.0/tcp/{RELAY_PORT}", f"/ip6/::/tcp/{RELAY_PORT}")
RENDEZVOUS: Final = "peerup-default-network"
PING_ID: Final = "/pingpong/1.0.0"
RESERVATION_INTERVAL: Final = 120.0  # seconds
METRICS_LISTEN: Final = Endpoint("127.0.0.1", 9091)
HEALTH_LISTEN: Final = Endpoint("127.0.0.1", 9090)

MAX_COUNT: Final = 1_000_000  # of reservations or circuits
MAX_BUFFER: Final = 16 << 20  # bytes
STREAMS_PER_SECOND: Final = 2000  # above what one busy proxy opens one after the other


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """`telemetry:`"""

    metrics_enabled: bool = False
    """`metrics.enabled`: serve Prometheus text."""
    metrics_listen: Endpoint = METRICS_LISTEN
    """`metrics.listen_address`: where."""
    audit_enabled: bool = False
    """`audit.enabled`: write an audit log as JSON lines."""


@dataclass(frozen=True, slots=True)
class RateSettings:
    """`rates:`"""

    connection_burst: int = 16
    """`connection_burst`: new connections at once from one address that has not proved itself. Default 16."""
    connection_interval: float = 5.0
    """`connection_interval`, seconds: then one more in so long. Only handshakes that fail or are refused count, and an
    address keeps places of its own for a day after a peer was admitted from there. Default 5s."""
    streams_per_second: int = STREAMS_PER_SECOND
    """`streams_per_second`: new streams of one peer, in the long run; 0: no limit. Default 2000."""
    bytes_per_second: int = 0
    """`bytes_per_second`, of a relay only: what it carries for one peer, all its circuits and both ways together;
    0: no limit. Default 0."""
    circuits_per_peer: int | None = None
    """`circuits_per_peer`, of a relay only: where it is set, it stands in for `resources.max_circuits`."""


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """`services.<name>`: a TCP service (or Unix socket) that authorised peers may reach."""

    name: str
    enabled: bool
    """Absent: false, as peer-up has it."""
    local_address: Endpoint
    """`host:port`, also of another host of the LAN, or `unix:/path`."""
    protocol: str = ""
    """Listed, otherwise unused: a service is always reached as `/peerup/<name>/1.0.0`."""
    allowed_peers: tuple[PeerId, ...] | None = None
    """Who of the authorised peers may use it (peer IDs or names of `names:`); None, also for an empty list: all.
    Entries that cannot be read admit nobody."""
    authorized_keys_file: Path | None = None
    """`authorized_keys`: a file of further peers who may use it."""
    tags: tuple[str, ...] = ()
    """Kept and listed."""
    reserved: bool = False
    """Its name belongs to peerup itself: not served."""


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """One of `proxies:`, a local address behind which a peer's service is."""

    peer: str
    """A peer ID or a name of `names:`."""
    service: str
    listen: Endpoint
    """`host:port`, or only a port of 127.0.0.1."""
    path: PathWish = PathWish.ANY
    """`any`, `direct` or `relay`."""
    written: Mapping[str, Plain] = field(default_factory=dict, compare=False)
    """As it stands in the file: what `Drop` takes to remove it."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The configuration of a node."""

    identity_key_file: Path
    """`identity.key_file`, relative to the file's folder. Required."""
    listen_addresses: tuple[Multiaddr, ...]
    """`network.listen_addresses`: those of a transport that is there."""
    force_private_reachability: bool
    """`network.force_private_reachability`: for servers behind carrier-grade NAT."""
    resource_limits_enabled: bool
    """`network.resource_limits_enabled`: read and kept; our limits are always on."""
    relays: tuple[RelayAddress, ...]
    """`relay.addresses`, one for each address that can be read, `usable` or not; none: not paired yet."""
    reservation_interval: float
    """`relay.reservation_interval`, seconds: the longest time between two looks at a reservation. Default 2m."""
    rendezvous: str
    """`discovery.rendezvous`. Default `peerup-default-network`."""
    network: str
    """`discovery.network`: a private network's name; empty: the global one."""
    bootstrap_peers: tuple[Multiaddr, ...]
    """`discovery.bootstrap_peers`; none: the relays."""
    authorized_keys_file: Path | None
    """`security.authorized_keys_file`, relative to the file's folder. Required while gating is on."""
    gating: bool
    """`security.enable_connection_gating`: only authorised peers may connect. Default true."""
    ping_enabled: bool
    """`protocols.ping_pong.enabled` (or `protocols.ping.enabled`): answer pings. Default true."""
    ping_id: str
    """`protocols.ping_pong.id`. Default `/pingpong/1.0.0`."""
    services: Mapping[str, ServiceSettings]
    """`services:` by name."""
    names: Mapping[str, PeerId]
    """`names:`, our own names for peers."""
    proxies: tuple[ProxySettings, ...]
    """`proxies:`, opened at each start."""
    rates: RateSettings
    """`rates:`, below."""
    telemetry: TelemetrySettings
    log_level: str
    """`debug`, `info`, `warning` or `error`. Default `info`."""
    unused_addresses: tuple[str, ...]
    """Listen, relay and bootstrap addresses of a transport that is not there, as texts."""
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """The configuration of a relay server. A resource of zero, too, takes its default."""

    identity_key_file: Path
    """`identity.key_file`, relative to the file's folder. Required."""
    listen_addresses: tuple[Multiaddr, ...]
    """`network.listen_addresses`: those of a transport that is there."""
    network: str
    """`discovery.network`: a private network's name; empty: the global one."""
    authorized_keys_file: Path | None
    """`security.authorized_keys_file`, relative to the file's folder. Required while gating is on."""
    gating: bool
    """`security.enable_connection_gating`: only authorised peers may connect. Default true."""
    max_reservations: int
    """`resources.max_reservations`. Default 128."""
    max_circuits: int | None
    """`resources.max_circuits`, per peer; None: not configured (16 for strangers, 512 for authorised peers)."""
    buffer_size: int
    """`resources.buffer_size`, bytes of forwarding buffer. Default 64 KiB."""
    max_reservations_per_ip: int
    """`resources.max_reservations_per_ip`. Default 8."""
    max_reservations_per_asn: int
    """`resources.max_reservations_per_asn`, where `asn_table` says whose network an address is in. Default 32."""
    asn_table: Path | None
    """`resources.asn_table`, relative to the file's folder: a file of networks and their numbers, see
    [relay.md](relay.md)."""
    reservation_ttl: float
    """`resources.reservation_ttl`, seconds. Default 1h."""
    keep_reservations: bool
    """`resources.keep_reservations`: reservations outlive a restart, in a file beside the key. Default false."""
    session_duration: float | None
    """`resources.session_duration`, seconds; None: not configured (10 min for strangers, none for authorised peers)."""
    session_data_limit: int | None
    """`resources.session_data_limit`, bytes each way; None: not configured (64 MiB for strangers, none for
    authorised peers)."""
    health_enabled: bool
    """`health.enabled`: answer `/healthz` to callers of this machine."""
    health_listen: Endpoint
    """`health.listen_address`. Default 127.0.0.1:9090."""
    rates: RateSettings
    """`rates:`, below."""
    telemetry: TelemetrySettings
    log_level: str
    """`debug`, `info`, `warning` or `error`. Default `info`."""
    unused_addresses: tuple[str, ...]
    """Listen addresses of a transport that is not there, as texts."""
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Parsed(Generic[T]):
    """Settings, and what a person should know about the text that they came from."""

    settings: T
    warnings: tuple[str, ...]
    text: str


def parse_node(text: str, folder: Path, *, strict: bool = False) -> Parsed[NodeSettings]:
    """The settings of a node; relative paths are relative to `folder`, the file's.

    Raises `ConfigInvalid` with all problems; with `strict`, unknown keys and the like are problems too.
    """
    return _parse(text, strict, lambda top: _node(top, folder))


def parse_relay(text: str, folder: Path, *, strict: bool = False) -> Parsed[RelaySettings]:
    """The settings of a relay server; as `parse_node`."""
    return _parse(text, strict, lambda top: _relay(top, folder))


def _parse(text: str, strict: bool, settings: Callable[[Section], T]) -> Parsed[T]:
    document = read(text)
    findings = Findings(strict, problems=[*document.problems])
    with Section(findings, document.root) as top:
        _check_version(top)
        parsed = settings(top)
    if findings.problems:
        count = len(findings.problems)
        words = "a problem" if count == 1 else f"{count} problems"
        raise ConfigInvalid(f"the configuration has {words}:", problems=in_order(findings.problems))
    return Parsed(parsed, in_order(findings.warnings), text)


def _check_version(top: Section) -> None:
    version = top.number("version", VERSION, highest=MAX_COUNT)
    if version > VERSION:
        raise ConfigInvalid(
            f"config version too new: version {version} is newer than supported version {VERSION}",
            hint="please upgrade peerup",
        )


def _node(top: Section, folder: Path) -> NodeSettings:
    unused: list[str] = []
    names = _names(top.section("names"))
    authorized_keys_file, gating = _security(top, folder)
    ping_enabled, ping_id = _ping(top)
    with top.section("network") as network, top.section("relay") as relay, top.section("discovery") as discovery:
        return NodeSettings(
            identity_key_file=_identity(top, folder),
            listen_addresses=_listen(network, NODE_LISTEN, unused),
            force_private_reachability=network.flag("force_private_reachability", False),
            resource_limits_enabled=network.flag("resource_limits_enabled", False),
            relays=_relays(relay, unused),
            reservation_interval=relay.value("reservation_interval", kinds.INTERVAL, RESERVATION_INTERVAL),
            rendezvous=discovery.value("rendezvous", kinds.TEXT, RENDEZVOUS),
            network=_network_name(discovery),
            bootstrap_peers=_bootstrap(discovery, unused),
            authorized_keys_file=authorized_keys_file,
            gating=gating,
            ping_enabled=ping_enabled,
            ping_id=ping_id,
            services=_services(top.section("services"), folder, names),
            names=names,
            proxies=_proxies(top),
            rates=_rates(top.section("rates")),
            telemetry=_telemetry(top),
            log_level=top.value("log_level", kinds.LOG_LEVEL, "info"),
            unused_addresses=tuple(unused),
        )


def _relay(top: Section, folder: Path) -> RelaySettings:
    unused: list[str] = []
    authorized_keys_file, gating = _security(top, folder)
    with (
        top.section("network") as network,
        top.section("discovery") as discovery,
        top.section("resources") as resources,
        top.section("health") as health,
    ):
        return RelaySettings(
            identity_key_file=_identity(top, folder),
            listen_addresses=_listen(network, RELAY_LISTEN, unused),
            network=_network_name(discovery),
            authorized_keys_file=authorized_keys_file,
            gating=gating,
            max_reservations=_count(resources, "max_reservations", 128),
            max_circuits=_count(resources, "max_circuits", 0) or None,
            buffer_size=_count(resources, "buffer_size", 64 << 10, MAX_BUFFER),
            max_reservations_per_ip=_count(resources, "max_reservations_per_ip", 8),
            max_reservations_per_asn=_count(resources, "max_reservations_per_asn", 32),
            asn_table=resources.value("asn_table", kinds.path_in(folder), None),
            reservation_ttl=resources.value("reservation_ttl", kinds.DURATION, 0.0) or 3600.0,
            keep_reservations=resources.flag("keep_reservations", False),
            session_duration=resources.value("session_duration", kinds.DURATION, 0.0) or None,
            session_data_limit=resources.value("session_data_limit", kinds.SIZE, 0) or None,
            health_enabled=health.flag("enabled", False),
            health_listen=health.value("listen_address", kinds.LISTENING, HEALTH_LISTEN),
            rates=_rates(top.section("rates"), relay=True),
            telemetry=_telemetry(top),
            log_level=top.value("log_level", kinds.LOG_LEVEL, "info"),
            unused_addresses=tuple(unused),
        )


def _identity(top: Section, folder: Path) -> Path:
    with top.section("identity") as identity:
        return identity.required("key_file", kinds.path_in(folder)) or folder


def _security(top: Section, folder: Path) -> tuple[Path | None, bool]:
    with top.section("security") as security:
        gating = security.flag("enable_connection_gating", True)
        file = kinds.path_in(folder)
        if gating:
            return security.required("authorized_keys_file", file), gating
        return security.value("authorized_keys_file", file, None), gating


def _count(resources: Section, key: str, default: int, highest: int = MAX_COUNT) -> int:
    return resources.number(key, 0, highest=highest) or default


def _network_name(discovery: Section) -> str:
    return discovery.value("network", kinds.NETWORK, "")


def _listen(network: Section, default: Iterable[str], unused: list[str]) -> tuple[Multiaddr, ...]:
    """Where to listen: plain TCP at an IP address; the rest goes to `unused`."""
    given = network.listing("listen_addresses", kinds.LISTEN_ADDRESS)
    if given == () and not network.nodes("listen_addresses"):
        network.problem("listen_addresses", "wanted at least one address, got none")
    if given is None:  # what nobody wrote is not named as unused
        given, unused = tuple(map(Multiaddr.parse, default)), []
    return _sorted_out(given, lambda address: address.is_plain_tcp and address.ip is not None, unused)


def _sorted_out(
    addresses: Iterable[Multiaddr | str], usable: Callable[[Multiaddr], bool], unused: list[str]
) -> tuple[Multiaddr, ...]:
    found = []
    for address in addresses:
        if isinstance(address, Multiaddr) and usable(address):
            found.append(address)
        else:
            unused.append(str(address))
    return tuple(found)


def _bootstrap(discovery: Section, unused: list[str]) -> tuple[Multiaddr, ...]:
    given = discovery.listing("bootstrap_peers", kinds.PEER_ADDRESS) or ()
    return _sorted_out(given, lambda address: address.is_plain_tcp and address.peer is not None, unused)


def _relays(relay: Section, unused: list[str]) -> tuple[RelayAddress, ...]:
    given = relay.listing("addresses", kinds.RELAY_ADDRESS) or ()
    unused.extend(str(address) for address in given if isinstance(address, str) or not address.usable)
    return tuple(address for address in given if isinstance(address, RelayAddress))


def _ping(top: Section) -> tuple[bool, str]:
    """`protocols.ping_pong`; the documents of peer-up call it `ping`, too."""
    with top.section("protocols") as protocols:
        with protocols.section("ping") as ping:
            enabled = ping.flag("enabled", True)
            protocol = ping.value("id", kinds.PROTOCOL, PING_ID)
        with protocols.section("ping_pong") as ping_pong:
            return ping_pong.flag("enabled", enabled), ping_pong.value("id", kinds.PROTOCOL, protocol)


def _telemetry(top: Section) -> TelemetrySettings:
    with (
        top.section("telemetry") as telemetry,
        telemetry.section("metrics") as metrics,
        telemetry.section("audit") as audit,
    ):
        return TelemetrySettings(
            metrics_enabled=metrics.flag("enabled", False),
            metrics_listen=metrics.value("listen_address", kinds.LISTENING, METRICS_LISTEN),
            audit_enabled=audit.flag("enabled", False),
        )


def _rates(section: Section, *, relay: bool = False) -> RateSettings:
    with section as rates:
        return RateSettings(
            connection_burst=rates.number("connection_burst", 16, lowest=1, highest=MAX_COUNT),
            connection_interval=rates.value("connection_interval", kinds.PAUSE, 5.0),
            streams_per_second=rates.number("streams_per_second", STREAMS_PER_SECOND, highest=MAX_COUNT),
            bytes_per_second=rates.value("bytes_per_second", kinds.SIZE, 0) if relay else 0,
            circuits_per_peer=rates.number("circuits_per_peer", 0, highest=MAX_COUNT) or None if relay else None,
        )


def _names(section: Section) -> dict[str, PeerId]:
    """Our names for peers; a bad one costs itself only."""
    names = {}
    for entry in section.entries():
        peer = _peer(entry.value, {})
        name = entry.key.text
        if peer is None:
            section.findings.slip(
                entry.value.line, section.where(name), f"wanted {kinds.PEER_ID.wanted}, got {entry.value}"
            )
        elif not name.isprintable() or not 0 < len(name) <= MAX_PEER_NAME:
            wanted = f"wanted a name of 1 to {MAX_PEER_NAME} printable characters, got {entry.key}"
            section.findings.slip(entry.key.line, section.where(name), wanted)
        else:
            names[name] = peer
    return names


def _peer(node: Node, names: Mapping[str, PeerId]) -> PeerId | None:
    if not isinstance(node, Scalar):
        return None
    if node.text in names:
        return names[node.text]
    try:
        return PeerId.parse(node.text)
    except InvalidPeerId:
        return None


def _services(section: Section, folder: Path, names: Mapping[str, PeerId]) -> dict[str, ServiceSettings]:
    found = (_service(section, entry, folder, names) for entry in section.entries())
    return {service.name: service for service in found if service is not None}


def _service(section: Section, entry: Entry, folder: Path, names: Mapping[str, PeerId]) -> ServiceSettings | None:
    where = section.where(entry.key.text)
    name = section.read(entry.key, where, kinds.SERVICE)
    with section.inner(entry.value, where) as service:
        settings = ServiceSettings(
            name=entry.key.text,
            enabled=service.flag("enabled", False),
            local_address=service.required("local_address", kinds.ENDPOINT) or Endpoint("", 0),
            protocol=service.value("protocol", kinds.OPTIONAL_TEXT, ""),
            allowed_peers=_allowed(service, names),
            authorized_keys_file=service.value("authorized_keys", kinds.path_in(folder), None),
            tags=service.listing("tags", kinds.TEXT) or (),
            reserved=name in RESERVED_SERVICES,
        )
    if settings.reserved:
        section.findings.notice(entry.key.line, where, "this name belongs to peerup itself, the service is not served")
    return settings


def _allowed(service: Section, names: Mapping[str, PeerId]) -> tuple[PeerId, ...] | None:
    """Who may use the service; once somebody is named, an entry that cannot be read never opens it to all."""
    found = []
    nodes = service.nodes("allowed_peers")
    for where, node in nodes:
        peer = _peer(node, names)
        if peer is None:
            service.findings.slip(node.line, where, f"wanted a peer ID or a name of names:, got {node}")
        else:
            found.append(peer)
    return tuple(found) if nodes else None


def _proxies(top: Section) -> tuple[ProxySettings, ...]:
    found = (_proxy(top, where, node) for where, node in top.nodes("proxies"))
    return tuple(proxy for proxy in found if proxy is not None)


def _proxy(top: Section, where: str, node: Node) -> ProxySettings | None:
    with top.inner(node, where) as proxy:
        peer = proxy.required("peer", kinds.TEXT)
        service = proxy.required("service", kinds.SERVICE)
        listen = proxy.required("listen", kinds.LISTENING)
        path = proxy.value("path", kinds.PATH_WISH, PathWish.ANY)
    if peer is None or service is None or listen is None:
        return None
    written = plain(node)
    return ProxySettings(peer, service, listen, path, written if isinstance(written, dict) else {})
