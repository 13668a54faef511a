"""From a configuration's path to what a node or a relay starts with: settings, identity, gate.

All of it is read before anything runs, so that whatever is wrong is said at once and nothing is half started.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from peerupd.config.schema import NodeSettings, Parsed, RelaySettings
from peerupd.config.store import ConfigFile
from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import NotFound
from peerupd.model.logs import said
from peerupd.trust.authorized_keys import Allowlist, AllowlistFile
from peerupd.trust.gate import Gate, Role
from peerupd.trust.identity import Identity

log = logging.getLogger(__name__)

S = TypeVar("S", NodeSettings, RelaySettings)


@dataclass(frozen=True, slots=True)
class Opened(Generic[S]):
    """What was found on disk."""

    file: ConfigFile
    settings: S
    warnings: tuple[str, ...]
    identity: Identity
    gate: Gate
    allowlist: AllowlistFile | None


def open_node(path: Path) -> Opened[NodeSettings]:
    """Everything a node starts with; makes a missing identity.

    Raises `ConfigInvalid`, `InsecurePermissions`, `InvalidKeyFile`, `NotFound` (a named allowlist), `StorageFailed`.
    """
    file = ConfigFile(path.absolute())
    return _opened(file, file.load_node(), "node")


def open_relay(path: Path) -> Opened[RelaySettings]:
    """Everything a relay server starts with; as `open_node`."""
    file = ConfigFile(path.absolute())
    return _opened(file, file.load_relay(), "relay")


def _opened(file: ConfigFile, parsed: Parsed[S], role: Role) -> Opened[S]:
    settings = parsed.settings
    allowlist = AllowlistFile(settings.authorized_keys_file) if settings.authorized_keys_file else None
    entries = _entries(allowlist, settings.gating)
    identity = identity_at(settings.identity_key_file)
    gate = Gate(enabled=settings.gating, allowlist=entries, role=role, own=identity.peer_id)
    return Opened(file, settings, parsed.warnings, identity, gate, allowlist)


def identity_at(path: Path) -> Identity:
    """The identity in `path`, a new one if there is no such file; raises as `Identity.load`."""
    try:
        return Identity.load(path)
    except NotFound:
        made = Identity.create(path)
        log.info("new identity %s in %s", made.peer_id, path, extra=said("identity.created", file=str(path)))
        return made


def _entries(file: AllowlistFile | None, gating: bool) -> Allowlist:
    if file is None or not gating:
        return Allowlist.parse("")
    try:
        return file.load()
    except NotFound:
        raise NotFound(
            f"the allowlist {file.path} does not exist, and connection gating is on",
            hint=f"make one: install -m 600 /dev/null {file.path}, then peerupctl auth add PEER_ID",
        ) from None


def bindable(addresses: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
    """The addresses that this machine's kernel can bind; without IPv6 in it, those of IPv6 are left out, and said."""
    wanted = tuple(addresses)
    kept = wanted if _has_ipv6() else tuple(address for address in wanted if not address.has("ip6"))
    for address in wanted:
        if address not in kept:
            log.warning("this machine has no IPv6: not listening on %s, ignoring", address)
    return kept


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def tell_warnings(opened: Opened[NodeSettings] | Opened[RelaySettings], let_in: str) -> tuple[str, ...]:
    """Log what a person should mend; returns it. `let_in`: the command that authorizes a peer."""
    allowlist = opened.gate.allowlist
    name = str(opened.allowlist.path) if opened.allowlist else ""
    problems = (*opened.warnings, *(f"{name}: {problem}" for problem in allowlist.problems))
    for problem in problems:
        log.warning("%s, ignoring", problem, extra=said("start.problem", problem=problem))
    if not opened.gate.enabled:
        log.warning("connection gating is DISABLED: any peer can connect", extra=said("start.ungated"))
    elif not allowlist.entries:
        log.warning(
            "%s is EMPTY: nobody can connect; `%s` lets a peer in",
            name,
            let_in,
            extra=said("start.empty_allowlist", file=name),
        )
    return problems
