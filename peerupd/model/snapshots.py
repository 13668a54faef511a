"""Snapshots and events: frozen pictures that the doors and the command line speak, and what happened, in past tense.

Requests are what a verb is asked, reports what it answers. Field names are the JSON names of the control API; a field
that is None is left out there. Times are seconds since the epoch (`_at`), durations seconds or milliseconds as named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from peerupd.model.counters import Count
from peerupd.model.names import PeerId


class PathKind(StrEnum):
    """How the bytes to a peer travel."""

    DIRECT = "DIRECT"
    RELAYED = "RELAYED"


class PathWish(StrEnum):
    """What path a caller insists on."""

    ANY = "any"
    DIRECT = "direct"
    RELAY = "relay"


# -- requests ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Nothing:
    """A request without words."""


@dataclass(frozen=True, slots=True)
class PeersQuery:
    all: bool = False
    """Also peers whose agent is neither `peerup/` nor `relay-server/`."""


@dataclass(frozen=True, slots=True)
class AuthAdd:
    peer_id: str
    comment: str = ""
    expires: str = ""
    """RFC 3339; empty: never."""


@dataclass(frozen=True, slots=True)
class AuthRemove:
    peer_id: str


@dataclass(frozen=True, slots=True)
class AuthValidate:
    file: str = ""
    """Another allowlist file; empty: the one in force."""


@dataclass(frozen=True, slots=True)
class Ping:
    peer: str
    count: int = 4
    interval_ms: int = 1000
    path: PathWish = PathWish.ANY


@dataclass(frozen=True, slots=True)
class Resolve:
    name: str


@dataclass(frozen=True, slots=True)
class Connect:
    peer: str
    service: str
    listen: str
    """`host:port`; port 0 lets the kernel choose."""
    path: PathWish = PathWish.ANY
    persist: bool = False
    """Write it to `proxies:` of the configuration too."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    id: str


@dataclass(frozen=True, slots=True)
class Pipe:
    peer: str
    service: str
    path: PathWish = PathWish.ANY


@dataclass(frozen=True, slots=True)
class Expose:
    name: str
    local_address: str
    persist: bool = False


@dataclass(frozen=True, slots=True)
class ServiceRef:
    name: str


@dataclass(frozen=True, slots=True)
class ServiceAdd:
    name: str
    local_address: str
    protocol: str = ""
    allowed_peers: tuple[str, ...] = ()
    """Peer IDs or names; empty: every authorised peer."""


@dataclass(frozen=True, slots=True)
class InviteAsk:
    name: str = ""
    """What the joiner shall call this node."""
    ttl_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class InviteRef:
    id: str


@dataclass(frozen=True, slots=True)
class Join:
    code: str
    name: str = ""
    """What the inviter shall call this node."""
    allow_legacy: bool = False
    """Also codes of peer-up's older text dialect."""


@dataclass(frozen=True, slots=True)
class RelayAdd:
    addresses: tuple[str, ...]
    peer_id: str = ""
    """For addresses that do not end in `/p2p/...`."""


@dataclass(frozen=True, slots=True)
class RelayRemove:
    address: str
    force: bool = False
    """Also the last one."""


@dataclass(frozen=True, slots=True)
class Init:
    relay: str = ""
    """As a person types it; empty: no relay yet."""
    relay_peer_id: str = ""
    network: str = ""
    directory: str = ""
    """Where; empty: the place of a user's own run, or of the system for root."""


@dataclass(frozen=True, slots=True)
class RelaySetup:
    directory: str = ""
    fresh: bool = False
    """Replace what is there, after a snapshot of it."""
    address: str = ""
    """The public IP address or multiaddr to print; empty: guessed from the interfaces."""


# -- reports -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    status: str


@dataclass(frozen=True, slots=True)
class RelayStatus:
    peer_id: str
    addresses: tuple[str, ...]
    state: str
    """`absent`, `reserving`, `reserved` or `lost`."""
    reserved_until: float | None = None
    retry_in_seconds: float | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class NodeStatus:
    peer_id: str
    version: str
    uptime_seconds: int
    connected_peers: int
    listen_addresses: tuple[str, ...]
    relay_addresses: tuple[str, ...]
    services_count: int
    relays: tuple[RelayStatus, ...] = ()
    unused_addresses: tuple[str, ...] = ()
    """Listen and relay addresses of a transport that is not there."""
    problems: tuple[str, ...] = ()
    """What a person should mend, shown as DEGRADED; or know: an authorization that ends soon. Empty: all is well."""
    config: str = ""
    """The path of the configuration in force."""
    counters: tuple[Count, ...] = ()
    """What was counted since the start, and what stands and is held now: see [counters.md](counters.md)."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    name: str
    protocol: str
    local_address: str
    enabled: bool = True
    allowed_peers: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    warning: str | None = None
    """E.g. that nothing answers at the address."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    id: str
    addresses: tuple[str, ...]
    agent_version: str | None = None
    name: str | None = None
    path: str | None = None
    """`DIRECT` or `RELAYED` when connected."""


@dataclass(frozen=True, slots=True)
class AuthEntry:
    peer_id: str
    comment: str | None = None
    verified: str | None = None
    expires_at: str | None = None
    group: str | None = None
    vouched_by: str | None = None


@dataclass(frozen=True, slots=True)
class AuthReport:
    """What `auth validate` found."""

    file: str
    valid: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PingResult:
    seq: int
    peer_id: str
    rtt_ms: float
    path: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class PingStats:
    sent: int
    received: int
    lost: int
    loss_pct: float
    min_ms: float
    avg_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class PingReport:
    results: tuple[PingResult, ...]
    stats: PingStats
    peer_id: str = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    name: str
    peer_id: str
    source: str
    """`local_config` or `peer_id`."""


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    id: str
    listen_address: str
    peer: str = ""
    service: str = ""
    path: str = ""
    """The path wished for."""
    persist: bool = False
    connections: int = 0
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class InviteOpened:
    id: str
    code: str
    expires_at: float
    relay: str
    qr: tuple[str, ...] = ()
    """Lines of a QR code for a dark terminal."""
    notes: tuple[str, ...] = ()
    """What a person should know while waiting, e.g. that the relay's owner must authorise the joiner."""


@dataclass(frozen=True, slots=True)
class InviteOutcome:
    id: str
    outcome: str
    """`joined`, `expired`, `burned` or `cancelled`."""
    peer_id: str | None = None
    name: str | None = None
    notes: tuple[str, ...] = ()
    """What a person should know, e.g. that the relay's owner must authorise the joiner."""


@dataclass(frozen=True, slots=True)
class Joined:
    peer_id: str
    """The inviter."""
    name: str
    """Under which the inviter can be named here; empty: by peer ID only."""
    own_peer_id: str
    relay: str
    config: str
    config_created: bool
    authorized_keys: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RelaysChanged:
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    already: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Whoami:
    peer_id: str


@dataclass(frozen=True, slots=True)
class Initialised:
    config: str
    identity: str
    authorized_keys: str
    peer_id: str
    qr: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RelayReady:
    """What `relay setup` wrote, and what to give to the nodes."""

    config: str
    identity: str
    authorized_keys: str
    peer_id: str
    multiaddrs: tuple[str, ...]
    qr: tuple[str, ...] = ()
    snapshot: str | None = None


@dataclass(frozen=True, slots=True)
class RelayInfo:
    """A relay as its files tell it."""

    peer_id: str
    gating: bool
    authorized_peers: int
    multiaddrs: tuple[str, ...]
    qr: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FilesStatus:
    """What `status` can tell without a daemon: the files."""

    version: str
    peer_id: str
    config: str
    relays: tuple[RelayStatus, ...] = ()
    authorized: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    unused_addresses: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Version:
    version: str
    commit: str
    built: str
    python: str


# -- events --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeerConnected:
    peer: PeerId
    path: PathKind
    address: str


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    peer: PeerId


@dataclass(frozen=True, slots=True)
class PathChanged:
    peer: PeerId
    before: PathKind | None
    after: PathKind | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class ReservationChanged:
    relay: PeerId
    status: RelayStatus


@dataclass(frozen=True, slots=True)
class GateDecided:
    peer: PeerId
    admitted: bool
    why: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class ServicesChanged:
    names: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class ProblemsChanged:
    """What a person should mend may be another by now."""


Event = (
    PeerConnected
    | PeerDisconnected
    | PathChanged
    | ReservationChanged
    | GateDecided
    | ServicesChanged
    | ProblemsChanged
)
