"""`make demo`: the main job on this one machine, each step shown with its time.

A relay, a home and a laptop run as real processes with files of their own under `.make/demo`. The home offers a file
over TCP; the laptop joins by invite code and fetches it, first through the relay and then directly.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.cluster import Cluster, Machine, end, free_port

FOLDER = Path(__file__).resolve().parent.parent / ".make/demo"
SIZE = 64 * 1024 * 1024  # bytes
BEGAN = time.monotonic()


def main() -> int:
    """Run it; exit status 0 when both transfers were right."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    content = os.urandom(SIZE)
    with file_service(content) as service, Cluster(FOLDER) as cluster:
        relay = cluster.relay("127.0.0.1", free_port())
        step(f"a relay runs at {relay.multiaddr}")
        home = cluster.machine("home")
        home.ctl("init", "--non-interactive", "--relay", relay.multiaddr)
        relay.authorize(home.ctl("whoami").stdout.strip(), "home")
        home.ctl("service", "add", "files", f"127.0.0.1:{service}")
        step(f"home is ready in {home.start():.2f} s and offers `files`")
        await_reservation(home)
        step("home holds a slot on the relay: it can be reached without an open port")
        laptop = cluster.machine("laptop")
        pair(cluster, home, laptop)
        step(f"laptop is ready in {laptop.start():.2f} s")
        same = [fetch(cluster, laptop, path, hashlib.sha256(content).hexdigest()) for path in ("relay", "direct")]
    step("all processes ended")
    shutil.rmtree(FOLDER)
    return 0 if all(same) else 1


def pair(cluster: Cluster, home: Machine, laptop: Machine) -> None:
    """Invite at home, join at the laptop."""
    invite = cluster.begin(home, "invite", "--name", "home", "--non-interactive")
    assert invite.stdout is not None
    code = invite.stdout.readline().strip()
    step(f"home invites: {code[:19]}-...")
    laptop.ctl("join", "--name", "laptop", "--non-interactive", say=code + "\n")
    if invite.wait(20):
        raise RuntimeError("the invite did not end with a joined peer")
    step("laptop has joined: each is in the other's authorized_keys, the relay knows both")


def await_reservation(machine: Machine) -> None:
    """Until the relay has given its slot."""
    deadline = time.monotonic() + 15
    while not machine.ask("daemon", "status")["relay_addresses"]:
        if time.monotonic() > deadline:
            raise TimeoutError("no reservation within 15 s")
        time.sleep(0.05)


def fetch(cluster: Cluster, laptop: Machine, path: str, wanted: str) -> bool:
    """Fetch the file by one path; whether it came whole."""
    port = free_port()
    proxy = cluster.begin(laptop, "proxy", "home", "files", str(port), "--path", path)
    assert proxy.stdout is not None
    proxy.stdout.readline()
    ping = laptop.ctl("ping", "home", "-c", "1", "--path", path).stdout.splitlines()[1]
    began = time.monotonic()
    got = hashlib.sha256()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while data := connection.recv(1 << 20):
            got.update(data)
    rate = SIZE / 1e6 / (time.monotonic() - began)
    same = got.hexdigest() == wanted
    step(f"64 MiB, --path {path}: {rate:.0f} MB/s, SHA-256 {'equal' if same else 'DIFFERS'}; {ping}")
    end(proxy)
    return same


@contextmanager
def file_service(content: bytes) -> Iterator[int]:
    """A TCP service that sends the file to whoever connects; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # `service add` only looks whether somebody answers
                connection.sendall(content)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def step(text: str) -> None:
    """One line with its time."""
    print(f"[{time.monotonic() - BEGAN:6.2f} s] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
