"""Where each verb is in HTTP: method, path, and what of the request comes from where.

The documented routes of Go peer-up's DAEMON-API first, ours beside them. A request's fields come from the body (a JSON
object), from the query and from the braces of the path; the path wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import unquote


class Body(Enum):
    """What a route does with a body."""

    IGNORED = "ignored"
    WANTED = "wanted"
    """An empty one is an error."""
    WELCOME = "welcome"
    """An empty one is the same as `{}`."""


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the table."""

    method: str
    path: str
    verb: str
    body: Body = Body.IGNORED

    def match(self, segments: Sequence[str]) -> dict[str, str] | None:
        """What stands in the braces, if the path is of this shape; names are percent-decoded."""
        pattern = self.path.split("/")
        if len(pattern) != len(segments):
            return None
        found = {}
        for wanted, given in zip(pattern, segments, strict=True):
            if wanted.startswith("{") and given:
                found[wanted[1:-1]] = unquote(given)
            elif wanted != given:
                return None
        return found


ROUTES: Final = (
    Route("GET", "/v1/status", "status"),
    Route("GET", "/v1/services", "services"),
    Route("GET", "/v1/peers", "peers"),
    Route("GET", "/v1/auth", "auth_list"),
    Route("POST", "/v1/auth", "auth_add", Body.WANTED),
    Route("DELETE", "/v1/auth/{peer_id}", "auth_remove"),
    Route("POST", "/v1/ping", "ping", Body.WANTED),
    Route("POST", "/v1/resolve", "resolve", Body.WANTED),
    Route("POST", "/v1/connect", "connect", Body.WANTED),
    Route("DELETE", "/v1/connect/{id}", "disconnect"),
    Route("POST", "/v1/expose", "expose", Body.WANTED),
    Route("DELETE", "/v1/expose/{name}", "unexpose"),
    Route("POST", "/v1/shutdown", "shutdown"),
    Route("GET", "/v1/version", "version"),
    Route("GET", "/v1/whoami", "whoami"),
    Route("GET", "/v1/auth/validate", "auth_validate"),
    Route("POST", "/v1/services", "service_add", Body.WANTED),
    Route("DELETE", "/v1/services", "service_remove", Body.WELCOME),
    Route("DELETE", "/v1/services/{name}", "service_remove"),
    Route("POST", "/v1/services/{name}/enable", "service_enable"),
    Route("POST", "/v1/services/{name}/disable", "service_disable"),
    Route("GET", "/v1/proxies", "proxies"),
    Route("POST", "/v1/proxy", "proxy", Body.WANTED),
    Route("POST", "/v1/pipe", "pipe", Body.WANTED),
    Route("GET", "/v1/relays", "relays"),
    Route("POST", "/v1/relays", "relay_add", Body.WANTED),
    Route("DELETE", "/v1/relays", "relay_remove", Body.WELCOME),
    Route("POST", "/v1/invite", "invite_open", Body.WELCOME),
    Route("GET", "/v1/invite/{id}", "invite_wait"),
    Route("DELETE", "/v1/invite/{id}", "invite_cancel"),
    Route("POST", "/v1/join", "join", Body.WANTED),
)


@dataclass(frozen=True, slots=True)
class Found:
    """A route, and what its braces hold."""

    route: Route
    fields: Mapping[str, str]


def find(method: str, path: str) -> Found | tuple[str, ...]:
    """The route of a request; else the methods that the path knows, sorted (none: the path is unknown)."""
    wanted = "GET" if method == "HEAD" else method
    segments = path.split("/")
    matches = [(route, fields) for route in ROUTES if (fields := route.match(segments)) is not None]
    for route, fields in matches:
        if route.method == wanted:
            return Found(route, fields)
    methods = {route.method for route, _ in matches}
    return tuple(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
