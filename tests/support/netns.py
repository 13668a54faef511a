"""A little internet in network namespaces: hosts on one bridge, and a wall that can be put up between some of them.

    with Lab() as lab:
        relay = lab.host("relay", "203.0.113.10/24")
        home = lab.host("home", "203.0.113.20/24", walled=True)     # walled hosts reach only hosts that are not
        laptop = lab.host("laptop", "203.0.113.30/24", walled=True)
        lab.lower_walls()

Nothing is attached to the machine's own network; everything is gone when the block ends, also after a failure.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import Self


def run(*words: str) -> str:
    """One command; its stderr is in the exception when it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True)
class LabHost:
    """A namespace with one address."""

    namespace: str
    address: str
    port: str
    """Its end of the wire on the bridge."""

    @property
    def prefix(self) -> list[str]:
        """What stands before a command that runs there."""
        return ["ip", "netns", "exec", self.namespace]


class Lab:
    """The bridge, and the hosts on it. Needs root and iproute2."""

    def __init__(self) -> None:
        self._name = f"pu{os.getpid()}"
        self._bridge = f"{self._name}-net"
        self._made: list[str] = []
        self._walled: list[LabHost] = []

    def __enter__(self) -> Self:
        try:
            self._namespace(self._bridge)
            self._ip(self._bridge, "link", "add", "br0", "type", "bridge", "forward_delay", "0")
            self._ip(self._bridge, "link", "set", "br0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self._made):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def host(self, name: str, address: str, *, walled: bool = False) -> LabHost:
        """A new host on the bridge."""
        namespace, port = f"{self._name}-{name}", f"p-{name}"[:15]
        self._namespace(namespace)
        run(
            "ip", "link", "add", "eth0", "netns", namespace, "type", "veth", "peer", "name", port, "netns", self._bridge
        )
        self._ip(self._bridge, "link", "set", port, "master", "br0")
        self._ip(self._bridge, "link", "set", port, "up")
        self._ip(namespace, "addr", "add", address, "dev", "eth0")
        self._ip(namespace, "link", "set", "eth0", "up")
        made = LabHost(namespace, address.partition("/")[0], port)
        if walled:
            self._walled.append(made)
            self._wall(made, "on")
        return made

    def lower_walls(self) -> None:
        """From now on everyone reaches everyone."""
        for host in self._walled:
            self._wall(host, "off")

    def raise_walls(self) -> None:
        """Walled hosts reach one another no more."""
        for host in self._walled:
            self._wall(host, "on")

    def _wall(self, host: LabHost, state: str) -> None:
        run("ip", "netns", "exec", self._bridge, "bridge", "link", "set", "dev", host.port, "isolated", state)

    def _namespace(self, name: str) -> None:
        run("ip", "netns", "add", name)
        self._made.append(name)
        self._ip(name, "link", "set", "lo", "up")

    @staticmethod
    def _ip(namespace: str, *words: str) -> None:
        run("ip", "-n", namespace, *words)
