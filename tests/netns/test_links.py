"""Bad links: the smallest packets that a path may have, and packets that are lost; relayed and direct."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.netns import Lab
from tests.support.pair import Crowd, Pair

pytestmark = pytest.mark.lab

KIB, MIB = 1 << 10, 1 << 20
IPV4_LEAST, IPV6_LEAST = 576, 1280  # bytes of a packet that every host takes (RFC 791), that every link carries (8200)
LOSSY, LOSS, DELAY = "lossy", 1.0, 15  # percent, milliseconds


@pytest.fixture(scope="module", params=[IPV4_LEAST, IPV6_LEAST, LOSSY])
def pair(request, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Lab() as lab:
        hosts = [
            lab.host("relay", "203.0.113.10/24"),
            lab.host("home", "203.0.113.20/24"),
            lab.host("laptop", "203.0.113.30/24"),
        ]
        for host in hosts:
            if request.param == LOSSY:
                print(f"\n{host.namespace}: {lab.worsen(host, LOSS, DELAY)}")
            else:
                lab.narrow(host, request.param)
        pair = Pair.make(tmp_path_factory.mktemp("links"), hosts)
        yield pair
        pair.close()
        assert request.param != LOSSY or all(lab.lost(host) for host in hosts)


@pytest.mark.parametrize("path", ["relay", "direct"])
def test_everything_comes_whole(pair: Pair, path: str):
    pair.await_path(path)
    with Crowd(pair) as crowd, pair.proxy("crowd", path) as port:
        assert crowd.run("at-once", port, 40, 64 * KIB)["right"] == 40
        seen = crowd.run("freely", port, 2, 4 * MIB)
    pair.home.ctl("service", "remove", "crowd")
    print(f"{path}: 8 MiB in {seen['seconds']} s")
    assert seen["right"] == 2
    label = {"relay": "RELAYED", "direct": "DIRECT"}[path]
    assert f"path=[{label}]" in pair.laptop.ctl("ping", "home", "-c", "1", "--path", path).stdout
