"""A long way in front of a port, by holding back bytes; a program, because not every kernel has netem.

    far.py ADDRESS PORT SECONDS   prints a port of ADDRESS; what comes there goes on to PORT after so long, and back

A connection is there for its maker at once; so the first bytes wait for one round trip more, as its handshake would.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress
from queue import SimpleQueue

CHUNK = 1 << 16  # bytes
Parcel = tuple[float, bytes]


def main(address: str, port: int, seconds: float) -> None:
    """For ever."""
    listener = socket.create_server((address, 0), backlog=256)
    print(listener.getsockname()[1], flush=True)
    while True:
        near, _ = listener.accept()
        far = socket.create_connection((address, port))
        for one, other, more in ((near, far, 2 * seconds), (far, near, 0.0)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            way: SimpleQueue[Parcel] = SimpleQueue()
            threading.Thread(target=take, args=(one, way, seconds, time.monotonic() + more), daemon=True).start()
            threading.Thread(target=give, args=(other, way), daemon=True).start()


def take(source: socket.socket, way: SimpleQueue[Parcel], seconds: float, earliest: float) -> None:
    """Note when each piece may go on; an empty one is the end."""
    data = b"-"
    while data:
        data = b""
        with suppress(OSError):
            data = source.recv(CHUNK)
        way.put((max(time.monotonic(), earliest) + seconds, data))


def give(sink: socket.socket, way: SimpleQueue[Parcel]) -> None:
    """Each piece at its time."""
    with suppress(OSError):
        while True:
            due, data = way.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                break
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
