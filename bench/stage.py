"""Where it is measured: client, home and relay in network namespaces of their own on one bridge, or on loopback.

Namespaces need root; they are not attached to the machine's own network and are gone afterwards. The far places stand
behind walls: they reach the relay, but not one another. On loopback everything shares one address.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.netns import Lab

DESCRIPTORS = 65536
PACKET_HEADERS = 66  # bytes: Ethernet, IPv4, TCP with time stamps


@dataclass(frozen=True)
class Place:
    """Where a program runs."""

    address: str
    prefix: Sequence[str] = ()
    """Stands before its command."""
    namespace: str = ""


@dataclass(frozen=True)
class Stage:
    """All places."""

    client: Place
    home: Place
    relay: Place
    far_client: Place
    far_home: Place
    nowhere: str
    """An address where nobody is."""

    @property
    def in_namespaces(self) -> bool:
        """Or else on loopback."""
        return bool(self.client.namespace)


@contextmanager
def stage(*, loopback: bool = False) -> Iterator[Stage]:
    """Namespaces for root, if not asked otherwise."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, DESCRIPTORS), most))
    if loopback or os.geteuid() != 0:
        here = Place("127.0.0.1")
        yield Stage(here, here, here, here, here, "127.0.0.2")
        return
    with Lab() as lab:

        def place(name: str, number: int, *, walled: bool = False) -> Place:
            host = lab.host(name, f"203.0.113.{number}/24", walled=walled)
            return Place(host.address, tuple(host.prefix), host.namespace)

        yield Stage(
            place("client", 10),
            place("home", 20),
            place("relay", 30),
            place("farclient", 11, walled=True),
            place("farhome", 21, walled=True),
            "203.0.113.99",
        )


def traffic(place: Place, address: str, port: int) -> int:
    """Bytes, packet headers included, that the connections from there to one peer have carried both ways so far."""
    words = [*place.prefix, "ss", "-Htin", "dst", address, "and", "dport", "=", f":{port}"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    counts = dict.fromkeys(("bytes_sent", "bytes_received", "segs_out", "segs_in"), 0)
    for name, number in re.findall(r"\b(\w+):(\d+)", said):
        if name in counts:
            counts[name] += int(number)
    packets = counts["segs_out"] + counts["segs_in"]
    return counts["bytes_sent"] + counts["bytes_received"] + packets * PACKET_HEADERS
