import ipaddress
import os
import socket
import struct
import subprocess
import sys

import pytest

from peerupd.linux import links
from peerupd.wire import netlink

LOOPBACK = ipaddress.ip_address("127.0.0.1")


def test_loopback_is_among_the_addresses_and_nothing_link_local_of_ipv6():
    found = links.addresses()

    assert LOOPBACK in found
    assert not any(ip.version == 6 and ip.is_link_local for ip in found)
    assert len(set(found)) == len(found)


def test_a_kernel_that_does_not_tell_means_no_addresses_and_one_line_in_the_log(monkeypatch, caplog):
    def refuse(*_, **__):
        raise PermissionError("not in this sandbox")

    monkeypatch.setattr(socket, "socket", refuse)

    assert links.addresses() == []
    assert caplog.messages == ["cannot list the addresses of this machine: not in this sandbox, ignoring"]


class Kernel:
    """Answers each question with the same datagrams."""

    def __init__(self, *datagrams):
        self._datagrams = list(datagrams)
        self.asked = []

    def send(self, data):
        self.asked.append(data)

    def recv(self, size):
        if not self._datagrams:
            raise TimeoutError("timed out")
        return self._datagrams.pop(0)


def message(kind, body):
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body


def address(ip, *, flags=0, index=1):
    packed = ipaddress.ip_address(ip).packed
    family = {4: socket.AF_INET, 16: socket.AF_INET6}[len(packed)]
    attribute = struct.pack("=HH", 4 + len(packed), 1) + packed
    return message(20, struct.pack("=BBBBI", family, 24, flags, 0, index) + attribute)


DONE = message(3, bytes(4))


def test_the_dump_is_read_to_its_end_over_several_datagrams():
    kernel = Kernel(address("192.0.2.1") + address("2001:db8::1"), address("192.0.2.2"), DONE)

    assert [str(seen.ip) for seen in links._dump(kernel)] == ["192.0.2.1", "2001:db8::1", "192.0.2.2"]
    assert kernel.asked == [netlink.request()]


def test_a_kernel_that_falls_silent_is_not_waited_for():
    with pytest.raises(TimeoutError):
        list(links._dump(Kernel(address("192.0.2.1"))))


def test_a_dump_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(links, "MAX_DATAGRAMS", 3)

    assert len(list(links._dump(Kernel(*[address("192.0.2.1")] * 10)))) == 3


@pytest.mark.parametrize(
    ("ip", "flags", "usable"),
    [
        ("192.0.2.1", 0, True),
        ("169.254.1.1", 0, True),
        ("fe80::1", 0, False),
        ("2001:db8::1", 0, True),
        ("2001:db8::1", netlink.FLAG_TENTATIVE, False),
    ],
)
def test_link_local_and_unproven_ipv6_addresses_are_not_ours_to_use(ip, flags, usable):
    (seen,) = links._dump(Kernel(address(ip, flags=flags) + DONE))

    assert links._is_usable(seen) is usable


def test_an_interface_that_has_gone_is_not_up():
    assert links._up({1_000_000}) == set()


@pytest.mark.lab
def test_only_interfaces_that_are_up_count():
    namespace = f"peerup-links-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", namespace], check=True)

    def ip(*words):
        subprocess.run(["ip", "-n", namespace, *words], check=True)

    def seen():
        program = "from peerupd.linux.links import addresses; print(*addresses())"
        command = ["ip", "netns", "exec", namespace, sys.executable, "-c", program]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

    try:
        ip("link", "add", "one", "type", "veth", "peer", "name", "two")
        ip("address", "add", "192.0.2.1/24", "dev", "one")
        assert seen() == []
        ip("link", "set", "one", "up")
        assert seen() == ["192.0.2.1"]
        ip("address", "add", "2001:db8::1/64", "dev", "one", "nodad")
        ip("link", "set", "lo", "up")
        assert sorted(seen()) == ["127.0.0.1", "192.0.2.1", "2001:db8::1", "::1"]
    finally:
        subprocess.run(["ip", "netns", "delete", namespace], check=True)
