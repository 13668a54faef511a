"""A source and a reader that cost as little as they can, so that the path between them is what is measured.

stream.py source          prints its port; sends as many bytes as the first 8 bytes of a connection say (big-endian)
stream.py read PORT SIZE  prints the seconds that SIZE bytes took
"""

from __future__ import annotations

import socket
import sys
import threading
import time

BLOCK = bytes(1 << 20)


def source() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=send, args=(connection,), daemon=True).start()


def send(connection: socket.socket) -> None:
    with connection:
        left = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big")
        while left > 0:
            left -= connection.send(memoryview(BLOCK)[: min(left, len(BLOCK))])
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)


def read(port: int, size: int) -> float:
    """Seconds from the request to the last byte."""
    buffer = bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        began = time.perf_counter()
        connection.sendall(size.to_bytes(8, "big"))
        got = 0
        while count := connection.recv_into(buffer):
            got += count
        if got != size:
            raise RuntimeError(f"{got} of {size} bytes came")
        return time.perf_counter() - began


if __name__ == "__main__":
    if sys.argv[1] == "source":
        source()
    print(read(int(sys.argv[2]), int(sys.argv[3])))
