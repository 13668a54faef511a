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
import sys
from dataclasses import dataclass
from typing import Self

# The kernel's word for it is an ioctl, and ethtool is not everywhere. SIOCETHTOOL with ETHTOOL_STSO, _SGSO, _SGRO,
# _STXCSUM and zero: every segment is a packet of its own then.
_NO_OFFLOADS = """
import array, fcntl, socket, struct
with socket.socket() as sock:
    for command in (0x1F, 0x24, 0x2C, 0x17):
        words = array.array("B", struct.pack("II", command, 0))
        fcntl.ioctl(sock, 0x8946, struct.pack("16sP", b"eth0", words.buffer_info()[0]))
"""


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

    def narrow(self, host: LabHost, mtu: int) -> None:
        """From now on its packets are at most so long, and none is put together from several (for new connections)."""
        self._ip(host.namespace, "link", "set", "eth0", "mtu", str(mtu))
        run(*host.prefix, sys.executable, "-c", _NO_OFFLOADS)

    def worsen(self, host: LabHost, loss: float, delay: int) -> str:
        """Lose so many percent of the packets that it gets; send each so many milliseconds late, where that can be.

        What was done: not every kernel has netem, which delays.
        """
        run(*host.prefix, sys.executable, "-c", _NO_OFFLOADS)
        run(*host.prefix, "nft", "add table inet bad; add chain inet bad in { type filter hook input priority 0; }")
        words = f"iifname eth0 numgen random mod 1000 < {round(10 * loss)} counter drop"
        run(*host.prefix, "nft", f"add rule inet bad in {words}")
        try:
            run(*host.prefix, "tc", "qdisc", "add", "dev", "eth0", "root", "netem", "delay", f"{delay}ms")
        except RuntimeError:
            return f"{loss} % lost, not delayed: this kernel has no netem"
        return f"{loss} % lost, {delay} ms late"

    def lost(self, host: LabHost) -> int:
        """How many packets a worsened host has lost."""
        return int(run(*host.prefix, "nft", "list", "chain", "inet", "bad", "in").partition("packets ")[2].split()[0])

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
