"""From a configuration's path to what a node or a relay starts with: settings, identity, gate.

All of it is read before anything runs, so that whatever is wrong is said at once and nothing is half started. A daemon
starts all the same where the configuration or the allowlist is bad or gone and a last good copy of it is there: it is
degraded then, and nothing on disk is overwritten. An empty allowlist is obeyed; the identity has no copy.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from peerupd import files
from peerupd.config.schema import NodeSettings, Parsed, RelaySettings
from peerupd.config.store import ConfigFile
from peerupd.control.good_file import in_a_line
from peerupd.control.watching import Stamp, stamp
from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import NotFound, PeerupError
from peerupd.model.logs import said
from peerupd.trust.authorized_keys import Allowlist, AllowlistFile
from peerupd.trust.gate import Gate, Role
from peerupd.trust.identity import Identity

log = logging.getLogger(__name__)

S = TypeVar("S", NodeSettings, RelaySettings)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Opened(Generic[S]):
    """What was found on disk."""

    file: ConfigFile
    parsed: Parsed[S]
    identity: Identity
    gate: Gate
    allowlist: AllowlistFile | None
    allowlist_stamp: Stamp | None = None
    """What the allowlist's file was like just before it was read."""
    config_trouble: str = ""
    """Why the configuration is that of the last good copy; empty: it is not."""
    allowlist_trouble: str = ""
    """The same of the allowlist."""

    @property
    def settings(self) -> S:
        """What the configuration says."""
        return self.parsed.settings


def open_node(path: Path, *, or_copy: bool = False) -> Opened[NodeSettings]:
    """Everything a node starts with; makes a missing identity. With `or_copy`, last good copies stand in.

    Raises `ConfigInvalid`, `InsecurePermissions`, `InvalidKeyFile`, `NotFound` (a named allowlist), `StorageFailed`.
    """
    return _opened(path.absolute(), lambda path: ConfigFile(path).load_node(), "node", or_copy)


def open_relay(path: Path, *, or_copy: bool = False) -> Opened[RelaySettings]:
    """Everything a relay server starts with; as `open_node`."""
    return _opened(path.absolute(), lambda path: ConfigFile(path).load_relay(), "relay", or_copy)


def _opened(path: Path, load: Callable[[Path], Parsed[S]], role: Role, or_copy: bool) -> Opened[S]:
    parsed, config_trouble = _found(path, load, or_copy)
    settings = parsed.settings
    named, gating = settings.authorized_keys_file, settings.gating
    stamped = stamp(named) if named else None
    entries, allowlist_trouble = _found(named, _entries, or_copy) if named and gating else (Allowlist.parse(""), "")
    identity = identity_at(settings.identity_key_file)
    gate = Gate(enabled=gating, allowlist=entries, role=role, own=identity.peer_id)
    allowlist = AllowlistFile(named) if named else None
    return Opened(ConfigFile(path), parsed, identity, gate, allowlist, stamped, config_trouble, allowlist_trouble)


def _found(path: Path, load: Callable[[Path], T], or_copy: bool) -> tuple[T, str]:
    """What is in the file; or in its last good copy, and then why. Raises what reading the file raises."""
    try:
        return load(path), ""
    except PeerupError as why:
        copy = files.copy_of(path)
        if or_copy:
            with suppress(PeerupError):
                return load(copy), f"{in_a_line(why)}; the last good copy {copy} is in force until it is mended"
        raise


def identity_at(path: Path) -> Identity:
    """The identity in `path`, a new one if there is no such file; raises as `Identity.load`."""
    try:
        return Identity.load(path)
    except NotFound:
        made = Identity.create(path)
        log.info("new identity %s in %s", made.peer_id, path, extra=said("identity.created", file=str(path)))
        return made


def _entries(path: Path) -> Allowlist:
    try:
        return AllowlistFile(path).load()
    except NotFound:
        raise NotFound(
            f"the allowlist {path} does not exist, and connection gating is on",
            hint=f"make one: install -m 600 /dev/null {path}, then peerupctl auth add PEER_ID",
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


def tell_warnings(opened: Opened[NodeSettings] | Opened[RelaySettings], let_in: str) -> None:
    """Log what a person should mend. `let_in`: the command that authorizes a peer."""
    allowlist = opened.gate.allowlist
    name = str(opened.allowlist.path) if opened.allowlist else ""
    for trouble in filter(None, (opened.config_trouble, opened.allowlist_trouble)):
        log.error("DEGRADED: %s", trouble, extra=said("start.degraded", problem=trouble))
    for problem in (*opened.parsed.warnings, *(f"{name}: {problem}" for problem in allowlist.problems)):
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
