"""Whose network an address is in."""

from __future__ import annotations

import ipaddress
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.errors import NotFound, RequestError
from peerupd.p2p import networks
from peerupd.p2p.networks import load, parse

TABLE = b"""\
# the documentation's networks
; as other programs comment
203.0.113.0/24\tAS64500
203.0.113.128/25 64501   # the upper half
198.51.100.7/32  as64502

2001:db8::/32 64503
2001:db8:1:2::/64 64504
2001:db8:1:3:4::/80 64505
"""


@pytest.mark.parametrize(
    ("address", "number"),
    [
        ("203.0.112.255", None),
        ("203.0.113.0", 64500),
        ("203.0.113.127", 64500),
        ("203.0.113.128", 64501),
        ("203.0.113.255", 64501),
        ("203.0.114.0", None),
        ("198.51.100.7", 64502),
        ("198.51.100.8", None),
        ("0.0.0.0", None),
        ("255.255.255.255", None),
        ("::ffff:203.0.113.1", 64500),
        ("2001:db8::1", 64503),
        ("2001:db8:1:2:ffff::", 64504),
        ("2001:db8:1:3::9", 64505),  # who has a part of a /64 counts as having it whole
        ("2001:db8:ffff::", 64503),
        ("2001:db9::", None),
        ("::", None),
    ],
)
def test_the_smallest_network_around_an_address_says_its_number(address: str, number: int | None) -> None:
    table = parse(TABLE)
    assert table.trouble == ""
    assert table.number_of(ipaddress.ip_address(address)) == number


def test_the_whole_of_both_worlds_is_a_network_too() -> None:
    table = parse(b"0.0.0.0/0 1\n128.0.0.0/1 2\n::/0 3\n255.255.255.255/32 4\n")
    found = [table.number_of(ipaddress.ip_address(a)) for a in ("1.1.1.1", "200.0.0.1", "ffff::", "255.255.255.255")]
    assert found == [1, 2, 3, 4]


def test_neighbours_of_one_number_are_one_span() -> None:
    assert len(parse(b"10.0.0.0/9 7\n10.128.0.0/9 7\n").v4) <= 3


@pytest.mark.parametrize(
    "line",
    [
        "203.0.113.0/24",
        "203.0.113.0/24 AS1 more",
        "203.0.113.0/33 1",
        "203.0.113.0/-1 1",
        "203.0.113.0 1",
        "2001:db8::/-1 1",
        "2001:db8::/x 1",
        "203.0.113/24 1",
        "203.0.113.0/24 4294967296",
        "203.0.113.0/24 -1",
        "203.0.113.0/24 ASN",
        "\x1b[31m 1",
        "\udcff 1",
    ],
)
def test_a_line_that_cannot_be_read_costs_itself_and_is_told(line: str) -> None:
    table = parse(b"10.0.0.0/8 1\n" + line.encode(errors="surrogateescape") + b"\n11.0.0.0/8 2\n")
    assert table.number_of(ipaddress.ip_address("11.0.0.1")) == 2
    assert table.trouble.startswith("line 2: wanted a network and its number, like 203.0.113.0/24 AS64500, got ")
    assert table.trouble.isprintable()


def test_of_many_bad_lines_the_first_is_told() -> None:
    assert parse(b"x\n" * 1000).trouble.endswith("got 'x', and 999 more like it")


def test_number_zero_is_nobodys_network() -> None:
    assert parse(b"10.0.0.0/8 0\n").number_of(ipaddress.ip_address("10.0.0.1")) is None


def test_a_table_has_a_bound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(networks, "MAX_NETWORKS", 2)
    with pytest.raises(RequestError, match="at most 2 are read"):
        parse(b"10.0.0.0/8 1\n::/0 1\n11.0.0.0/8 1\n")
    monkeypatch.setattr(networks, "MAX_FILE", 10)
    (tmp_path / "asn.txt").write_bytes(b"10.0.0.0/8 1\n")
    with pytest.raises(RequestError, match="too large"):
        load(tmp_path / "asn.txt")


def test_a_table_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load(tmp_path / "asn.txt")
    (tmp_path / "asn.txt").write_bytes(TABLE)
    assert load(tmp_path / "asn.txt").number_of(ipaddress.ip_address("203.0.113.1")) == 64500


NETS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32), st.integers(1, 9))


@given(st.lists(NETS, max_size=12, unique_by=lambda net: (net[0] >> 32 - net[1], net[1])), st.integers(0, 2**32 - 1))
def test_it_is_what_a_look_at_every_network_says(nets: list[tuple[int, int, int]], address: int) -> None:
    lines = [f"{ipaddress.IPv4Address(start)}/{length} {number}" for start, length, number in nets]
    random.Random(address).shuffle(lines)
    table = parse("\n".join(lines).encode())
    for ip in map(ipaddress.ip_address, (address, *(start for start, _, _ in nets))):
        around = [(length, n) for start, length, n in nets if ip in ipaddress.ip_network((start, length), strict=False)]
        assert table.number_of(ip) == max(around, default=(0, None))[1]


@given(st.binary(max_size=200))
def test_anything_is_a_table_or_trouble(data: bytes) -> None:
    parse(data)
