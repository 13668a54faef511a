"""What each program may import: who is not on the list fails the test by name. Lean is a habit, and this its guard.

The lists name packages from outside and modules of the standard library by their first name, and our own by their
full name where only some of a room may come. Real processes, `-X importtime`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Daemon, Machine, free_port

TIMED = [sys.executable, "-X", "importtime"]

OF_PYTHON = """
abc argparse array ast atexit base64 binascii bisect bz2 codecs collections contextlib contextvars copy copyreg
ctypes dataclasses datetime dis encodings enum errno fcntl fnmatch functools gc genericpath gettext hashlib heapq
hmac importlib inspect io ipaddress itertools json keyword linecache locale logging lzma marshal math ntpath opcode
operator os pathlib platform posix posixpath queue random re reprlib resource runpy secrets select selectors shlex
shutil signal site sitecustomize socket stat string struct subprocess tempfile textwrap threading time token
tokenize traceback types typing unicodedata urllib warnings weakref zipimport zlib
"""
"""What trio, cryptography, PyYAML and we need of the standard library. Not there: asyncio, email, http, ssl, xml..."""
OF_OTHERS = "attr attrs cryptography idna outcome sdnotify sniffio sortedcontainers trio yaml"
"""What every daemon loads from outside."""
PYTHON, LIBRARIES = frozenset(OF_PYTHON.split()), frozenset(OF_OTHERS.split())

RARE = (
    "peerupd.control.founding",
    "peerupd.control.offline",
    "peerupd.control.once",
    "peerupd.config.templates",
    "peerupd.p2p.lean",
    "peerupd.p2p.records",
)
RELAYS = (
    "peerupd.control.relay_node",
    "peerupd.frontends.healthz",
    "peerupd.p2p.relay_server",
    "peerupd.p2p.forwarding",
)
NODES = (
    "peerupd.control.node",
    "peerupd.features",
    "peerupd.frontends.socket",
    "peerupd.p2p.paths",
    "peerupd.p2p.circuit",
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("imports") / "c", covered=False) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def home(cluster: Cluster) -> Machine:
    """A node that is set up and does not run."""
    machine = cluster.machine("home")
    machine.ctl("init", "--non-interactive")
    machine.ctl("service", "add", "ssh", "127.0.0.1:22")
    return machine


def imported(said: str) -> set[str]:
    """Every module that was looked for and found."""
    rows = (line.split("|")[-1].strip() for line in said.splitlines() if line.startswith("import time:"))
    return {name for name in rows if name != "imported package"}


def newcomers(names: Iterable[str], *allowed: frozenset[str]) -> list[str]:
    """First names that are on no list; private ones belong to somebody public, and some names are but tried."""
    known = {"msvcrt", "nt", "org", "peerupd", "peerupctl"}.union(*allowed)
    first = {name.partition(".")[0] for name in names}
    return sorted(name for name in first - known if not name.startswith("_"))


def among(names: set[str], rooms: Iterable[str]) -> list[str]:
    """Those that belong to one of these rooms."""
    return sorted(name for name in names if any(name == room or name.startswith(room + ".") for room in rooms))


def started(machine: Machine, *words: str) -> Daemon:
    machine.daemon = Daemon([*TIMED, "-m", "peerupd", *words], machine.home, machine.env, "imports")
    machine.daemon.wait_ready(60)
    return machine.daemon


def test_a_node(home: Machine) -> None:
    daemon = started(home)
    home.ctl("status")
    home.stop()
    names = imported(daemon.log.read_text())
    assert newcomers(names, PYTHON, LIBRARIES, frozenset({"h11", "http"})) == []
    assert among(names, (*RARE, *RELAYS, "http.client", "http.server")) == []


def test_a_relay(cluster: Cluster) -> None:
    relay = cluster.relay("127.0.0.1", free_port())
    relay.stop()
    daemon = started(relay.machine, "relay", "--config", str(relay.config))
    relay.stop()
    names = imported(daemon.log.read_text())
    assert newcomers(names, PYTHON, LIBRARIES) == []
    assert among(names, (*RARE, *NODES)) == []


def test_a_question_by_the_command_line(home: Machine) -> None:
    started(home)
    done = run(home, "peerupctl", "status")
    home.stop()
    names = imported(done.stderr)
    assert newcomers(names, PYTHON) == []
    assert among(names, ("peerupd.model.snapshots", "peerupd.model.codec", "logging", "datetime", "traceback")) == []


def test_one_verb_without_a_daemon(home: Machine) -> None:
    done = run(home, "peerupd", "once", "status", "--request", "{}")
    names = imported(done.stderr)
    assert newcomers(names, PYTHON, LIBRARIES) == []
    assert among(names, (*RELAYS, "peerupd.frontends", "peerupd.p2p.lean", "peerupd.p2p.records")) == []


def run(machine: Machine, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*TIMED, "-m", *words]
    return subprocess.run(
        command, env=machine.env, cwd=machine.home, capture_output=True, text=True, timeout=60, check=True
    )


def test_the_systems_openssl_is_not_loaded(home: Machine) -> None:
    daemon = started(home)
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    home.stop()
    assert [name for name in ("libcrypto", "libssl") if name in maps] == []
