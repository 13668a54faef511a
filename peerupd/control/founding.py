"""First files: the configuration, key and allowlist of a new node or relay server.

Nothing that is there is overwritten, but by `relay setup --fresh`: after a snapshot of what was there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from peerupd import files
from peerupd.config import templates
from peerupd.config.schema import RelaySettings
from peerupd.config.store import SYSTEM_CONFIG, SYSTEM_RELAY_CONFIG, ConfigFile
from peerupd.control.opening import identity_at
from peerupd.control.relay_list import typed
from peerupd.features import qr
from peerupd.linux import links
from peerupd.model.addresses import RELAY_PORT, Multiaddr, relay_input, tcp_multiaddr
from peerupd.model.errors import AlreadyExists
from peerupd.model.names import PeerId, network_name
from peerupd.model.snapshots import Init, Initialised, RelayInfo, RelayReady, RelaySetup
from peerupd.trust.authorized_keys import AllowlistFile

USER_FOLDER: Final = Path(".config/peerup")  # in the home folder
NODE_CONFIG: Final = SYSTEM_CONFIG.name
RELAY_CONFIG: Final = SYSTEM_RELAY_CONFIG.name
RELAY_CONFIG_HERE: Final = "relay-server.yaml"  # what the relay looks for in its working directory
SNAPSHOTS: Final = "snapshots"
MAX_COPY: Final = 2 << 20  # bytes of one file of a snapshot
PRIVATE: Final = 0o600

_NODE_ALLOWLIST: Final = (
    b"# Peers that may connect to this node, one per line: <peer ID>  # comment\n# See `peerupctl auth`.\n"
)
_RELAY_ALLOWLIST: Final = (
    b"# Peers that may use this relay, one per line: <peer ID>  # comment\n"
    b"# See `peerupctl relay authorize`; a running relay notices changes by itself.\n"
)


def home_folder() -> Path:
    """Where a new node lives: the system's folder for root if it is there, else the user's own."""
    system = SYSTEM_CONFIG.parent
    return system if os.geteuid() == 0 and system.is_dir() else Path.home() / USER_FOLDER


def init(ask: Init) -> Initialised:
    """A new node; raises `AlreadyExists`, `InvalidAddress`, `InvalidPeerId`, `InvalidName`, `StorageFailed`."""
    relay = str(typed(ask.relay, ask.relay_peer_id)) if ask.relay else None
    network = network_name(ask.network) if ask.network else ""
    folder = Path(ask.directory).absolute() if ask.directory else home_folder()
    return found_node(folder / NODE_CONFIG, relay, network, "peerup init")


def found_node(config: Path, relay: str | None, network: str, generator: str) -> Initialised:
    """Configuration, identity and empty allowlist in one folder; raises `AlreadyExists`, `StorageFailed`."""
    if config.exists():
        raise AlreadyExists(f"{config} exists already", hint="it is left as it is; use it, or move it away")
    folder = config.parent
    files.make_folder(folder)
    identity = identity_at(folder / templates.KEY_FILE)
    allowlist = folder / templates.ALLOWLIST_FILE
    _create_if_missing(allowlist, _NODE_ALLOWLIST)
    files.create(config, templates.node_template(relay, network, generator=generator).encode(), mode=PRIVATE)
    return Initialised(
        config=str(config),
        identity=str(folder / templates.KEY_FILE),
        authorized_keys=str(allowlist),
        peer_id=str(identity.peer_id),
        qr=qr.lines(str(identity.peer_id)),
    )


# -- relay servers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RelayFiles:
    """The three files of a relay server."""

    config: Path
    identity: Path
    allowlist: Path

    def all(self) -> Sequence[Path]:
        """In the order of a snapshot."""
        return self.config, self.identity, self.allowlist


def relay_setup(ask: RelaySetup) -> RelayReady:
    """A relay server: what is missing is made, what is there is kept; with `fresh`, replaced after a snapshot.

    Raises `InvalidAddress`, `ConfigInvalid` for a file that is kept, `StorageFailed`.
    """
    config = _relay_config(ask.directory)
    files.make_folder(config.parent)
    wanted = _relay_files(config, fresh=ask.fresh)
    snapshot = _snapshot(wanted) if ask.fresh else None
    if not config.exists():
        files.create(config, templates.relay_template().encode(), mode=PRIVATE)
    _create_if_missing(wanted.allowlist, _RELAY_ALLOWLIST)
    identity = identity_at(wanted.identity)
    addresses = public_addresses(ConfigFile(config).load_relay().settings, identity.peer_id, ask.address)
    return RelayReady(
        config=str(config),
        identity=str(wanted.identity),
        authorized_keys=str(wanted.allowlist),
        peer_id=str(identity.peer_id),
        multiaddrs=addresses,
        qr=qr.lines(addresses[0]) if addresses else (),
        snapshot=str(snapshot) if snapshot else None,
    )


def relay_info(settings: RelaySettings, peer: PeerId) -> RelayInfo:
    """A relay as its files tell it; raises what reading its allowlist raises."""
    file = settings.authorized_keys_file
    addresses = public_addresses(settings, peer, "")
    return RelayInfo(
        peer_id=str(peer),
        gating=settings.gating,
        authorized_peers=len(AllowlistFile(file).load().entries) if file else 0,
        multiaddrs=addresses,
        qr=qr.lines(addresses[0]) if addresses else (),
    )


def public_addresses(settings: RelaySettings, peer: PeerId, given: str) -> tuple[str, ...]:
    """The whole multiaddrs for nodes: of `given`, or of the public addresses of this machine's interfaces."""
    port = next((address.port for address in settings.listen_addresses if address.port), RELAY_PORT)
    if given:
        return (str(_with_port(given, port).without_peer().with_peer(peer)),)
    families = {address.ip.version for address in settings.listen_addresses if address.ip is not None}
    public = [ip for ip in links.addresses() if ip.is_global and ip.version in families]
    return tuple(str(tcp_multiaddr(str(ip), port).with_peer(peer)) for ip in public)


def _with_port(text: str, port: int) -> Multiaddr:
    """As a person types it; a bare IP address gets the port that the relay listens on."""
    address = relay_input(text)
    bare = address.ip is not None and text.strip().strip("[]") == address.host
    return tcp_multiaddr(str(address.ip), port) if bare else address


def _relay_config(directory: str) -> Path:
    if not directory:
        return Path.cwd() / RELAY_CONFIG_HERE
    folder = Path(directory).absolute()
    old = folder / RELAY_CONFIG_HERE
    return old if old.exists() else folder / RELAY_CONFIG


def _relay_files(config: Path, *, fresh: bool) -> RelayFiles:
    """Where they are, or will be."""
    folder = config.parent
    made = RelayFiles(config, folder / templates.RELAY_KEY_FILE, folder / templates.RELAY_ALLOWLIST_FILE)
    if fresh or not config.exists():
        return made
    settings = ConfigFile(config).load_relay().settings
    return RelayFiles(config, settings.identity_key_file, settings.authorized_keys_file or made.allowlist)


def _snapshot(wanted: RelayFiles) -> Path | None:
    """Copies of what is there, which then goes; None: there is nothing."""
    there = [path for path in wanted.all() if path.exists()]
    if not there:
        return None
    folder = wanted.config.parent / SNAPSHOTS / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    files.make_folder(folder)
    for path in there:
        files.create(folder / path.name, files.read_bytes(path, MAX_COPY), mode=PRIVATE)
    for path in there:
        path.unlink()
        files.drop_copy(path)  # no start may bring back what was given up here
    return folder


def _create_if_missing(path: Path, data: bytes) -> None:
    if not path.exists():
        files.create(path, data, mode=PRIVATE)
