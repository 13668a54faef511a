"""A service and its clients in crowds: thousands of connections in one loop, every byte compared; run as a program.

    crowd.py serve                     prints {"port": N}; asked `report` on stdin, tells how connections ended
    crowd.py at-once PORT COUNT SIZE   COUNT connections; none carries its bytes before all have been greeted
    crowd.py freely PORT COUNT SIZE    COUNT connections; each as soon as it can
    crowd.py in-turn PORT COUNT SIZE   one after the other
    crowd.py stuck PORT COUNT SIZE     as at-once; but once greeted, which is told, they read nothing until a line
                                       comes on stdin. The service does so too from `hold` on stdin until `release`

A client says which part of the content goes which way: connections with an even number bring SIZE bytes down, the
others carry them up. The content of every connection begins at a place of its own in random bytes, so a byte that is
lost, doubled, changed or in the wrong connection is seen. What was seen is printed as one JSON object.
"""

from __future__ import annotations

import errno
import json
import random
import resource
import select
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

GREETING, GO, RIGHT, WRONG = b"!", b"g", b"+", b"-"
HEADER = struct.Struct(">II")  # number, size
CALM = ("right", "looked")  # how a connection may end; any other end is a reset for the other side too
LINGER_ZERO = struct.pack("ii", 1, 0)
PLACE = 1009  # bytes between the beginnings of two connections' contents
READ = 256 * 1024
PIECE = 64 * 1024
KEPT = 32 * 1024  # bytes that the kernel may hold for a sender: thousands of them must not use up its memory for TCP
IN, OUT = select.EPOLLIN, select.EPOLLOUT
SECONDS = 600.0  # limit of all of it

_BLOCK = random.Random(20).randbytes(1 << 22)


def content(number: int, start: int, end: int) -> bytes:
    """These bytes of a connection's content."""
    begin = (number * PLACE + start) % len(_BLOCK)
    parts = []
    while start < end:
        part = _BLOCK[begin : begin + min(end - start, len(_BLOCK) - begin)]
        parts.append(part)
        start, begin = start + len(part), 0
    return parts[0] if len(parts) == 1 else b"".join(parts)


def goes_up(number: int) -> bool:
    """Which way its content goes."""
    return number % 2 == 1


class Loop:
    """Sockets by descriptor, and whose they are."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.members: dict[int, Side] = {}
        self.others: dict[int, Callable[[], None]] = {}
        self.holding = False
        """Nobody takes content while this lasts."""

    def add(self, side: Side) -> None:
        """Watch it from now on."""
        self.members[side.socket.fileno()] = side
        self.epoll.register(side.socket, side.wants)

    def turn(self, seconds: float) -> None:
        """Wait once, and let those act who can."""
        for fd, ready in self.epoll.poll(seconds, 512):
            if fd in self.others:
                self.others[fd]()
            elif (side := self.members.get(fd)) is not None:
                self._act(fd, side, ready)

    def release(self) -> None:
        """All take content again."""
        self.holding = False
        for fd, side in self.members.items():
            if side.act == side.take:
                side.wants = IN
                self.epoll.modify(fd, IN)

    def _act(self, fd: int, side: Side, ready: int) -> None:
        before = side.wants
        try:
            side.act(ready)
        except BlockingIOError:
            pass
        except OSError as why:
            side.ended = "reset" if why.errno in (errno.ECONNRESET, errno.EPIPE) else str(why)
        if side.ended:
            self.epoll.unregister(fd)
            del self.members[fd]
            if side.ended not in CALM:
                side.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            side.socket.close()
            side.told(side)
            return
        if self.holding and side.act == side.take:
            side.wants = 0
        if side.wants != before:
            self.epoll.modify(fd, side.wants)


class Side:
    """One end of one connection; `ended` says how: `right`, `wrong`, `reset`."""

    def __init__(self, sock: socket.socket, told: Callable[[Side], None]) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KEPT)
        self.socket = sock
        self.told = told
        self.wants = IN
        self.ended = ""
        self.number = self.size = 0
        self.done = 0  # bytes of the content
        self.act: Callable[[int], None] = self.begin

    def begin(self, ready: int) -> None:
        """The first thing to do."""
        raise NotImplementedError

    def give(self, _ready: int) -> None:
        """Content out, then the end."""
        if self.done < self.size:
            self.done += self.socket.send(content(self.number, self.done, min(self.size, self.done + PIECE)))
        if self.done == self.size:
            self.socket.shutdown(socket.SHUT_WR)
            self.wants = IN
            self.act = self.given

    def given(self, _ready: int) -> None:
        """All was given: what does the other side say?"""
        raise NotImplementedError

    def take(self, _ready: int) -> None:
        """Content in, until the end."""
        data = self.socket.recv(READ)
        if data != content(self.number, self.done, self.done + len(data)) or self.done + len(data) > self.size:
            self.ended = "wrong"
        self.done += len(data)
        if not data:
            self.taken(right=self.done == self.size)

    def taken(self, *, right: bool) -> None:
        """The end has come."""
        raise NotImplementedError


class Served(Side):
    """At the service."""

    header = b""

    def begin(self, _ready: int) -> None:
        """Who is it?"""
        data = self.socket.recv(HEADER.size - len(self.header))
        self.header += data
        if not data:
            self.ended = "looked"  # `service add` only looks whether somebody answers
        elif len(self.header) == HEADER.size:
            self.number, self.size = HEADER.unpack(self.header)
            self.socket.send(GREETING)
            self.act = self.start

    def start(self, _ready: int) -> None:
        """The word to go on."""
        if self.socket.recv(1) != GO:
            self.ended = "wrong"
        elif goes_up(self.number):
            self.act = self.take
        else:
            self.wants, self.act = OUT, self.give

    def given(self, _ready: int) -> None:
        """The client's end."""
        self.ended = "wrong" if self.socket.recv(1) else "right"

    def taken(self, *, right: bool) -> None:
        """Answer whether it was what it should be."""
        self.socket.send(RIGHT if right else WRONG)
        self.ended = "right" if right else "wrong"


class Client(Side):
    """At the proxy."""

    greeted = False
    waits = True
    """For the others, once it is greeted."""

    def begin(self, _ready: int) -> None:
        """Connected, or not: say who we are."""
        if failed := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(failed, errno.errorcode.get(failed, "?"))
        self.socket.send(HEADER.pack(self.number, self.size))
        self.wants, self.act = IN, self.meet

    def meet(self, _ready: int) -> None:
        """The greeting, then silence until `go`."""
        data = self.socket.recv(1)
        if data != GREETING:
            self.ended = "wrong" if data else "ended before the greeting"
        self.greeted = True
        self.wants = 0 if self.waits else OUT
        self.act = self.go

    def go(self, _ready: int) -> None:
        """Now."""
        self.socket.send(GO)
        up = goes_up(self.number)
        self.wants, self.act = (OUT, self.give) if up else (IN, self.take)

    def given(self, _ready: int) -> None:
        """The service's word, then its end."""
        self.ended = "right" if self.socket.recv(2) == RIGHT else "wrong"

    def taken(self, *, right: bool) -> None:
        """All has come."""
        self.ended = "right" if right else "cut short"


# -- the service ---------------------------------------------------------------------------------------------------


class Service:
    """All connections of the service, and how they ended."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.ends: Counter[str] = Counter()
        self.peak = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self._watch(self._listener, self._accept)
        self._watch(sys.stdin, self._report)
        self.over = False

    def run(self) -> None:
        """Until stdin ends."""
        print(json.dumps({"port": self._listener.getsockname()[1]}), flush=True)
        while not self.over:
            self.loop.turn(-1)

    def _watch(self, file: Any, call: Callable[[], None]) -> None:
        self.loop.epoll.register(file, IN)
        self.loop.others[file.fileno()] = call

    def _accept(self) -> None:
        try:
            for _ in range(64):
                self.loop.add(Served(self._listener.accept()[0], self._ended))
        except BlockingIOError:
            pass
        self.peak = max(self.peak, len(self.loop.members))

    def _ended(self, side: Side) -> None:
        self.ends[side.ended] += 1

    def _report(self) -> None:
        match sys.stdin.readline().strip():
            case "":
                self.over = True
                return
            case "hold":
                self.loop.holding = True
            case "release":
                self.loop.release()
        print(json.dumps({"open": len(self.loop.members), "peak": self.peak, "ends": self.ends}), flush=True)


# -- clients -------------------------------------------------------------------------------------------------------


class Crowd:
    """Many clients at once."""

    def __init__(self, port: int, count: int, size: int) -> None:
        self.loop = Loop()
        self.ends: Counter[str] = Counter()
        self.sides = [self._client(port, number, size) for number in range(count)]

    def _client(self, port: int, number: int, size: int) -> Client:
        side = Client(socket.socket(), self._ended)
        side.number, side.size, side.wants = number, size, OUT
        side.socket.connect_ex(("127.0.0.1", port))
        self.loop.add(side)
        return side

    def _ended(self, side: Side) -> None:
        self.ends[side.ended] += 1

    def run(self, *, freely: bool = False) -> dict[str, Any]:
        """All of them greeted, then all of them at work; what was seen."""
        began = time.monotonic()
        for side in self.sides:
            side.waits = not freely
        self._until(lambda: freely or all(side.greeted or side.ended for side in self.sides), began)
        met = time.monotonic()
        if self.loop.holding:
            print(json.dumps({"greeted": sum(side.greeted for side in self.sides)}), flush=True)
        for side in self.sides:
            if side.greeted and not side.ended and not freely:
                side.wants = OUT
                self.loop.epoll.modify(side.socket, OUT)
        self._until(lambda: not self.loop.members, began)
        ended = time.monotonic()
        unfinished = len(self.loop.members)
        return {
            "ends": self.ends,
            "right": self.ends["right"],
            "unfinished": unfinished,
            "greeted_after": round(met - began, 2),
            "seconds": round(ended - began, 2),
        }

    def pause(self) -> None:
        """From now on nobody reads; once a line comes on stdin, all do."""
        self.loop.holding = True

        def go_on() -> None:
            sys.stdin.readline()
            self.loop.epoll.unregister(sys.stdin)
            self.loop.release()

        self.loop.epoll.register(sys.stdin, IN)
        self.loop.others[sys.stdin.fileno()] = go_on

    def _until(self, holds: Callable[[], bool], began: float) -> None:
        while not holds() and time.monotonic() - began < SECONDS:
            for _ in range(16):
                self.loop.turn(0.05)
                if not self.loop.members:
                    return


def in_turn(port: int, count: int, size: int) -> dict[str, Any]:
    """One after the other; the times to the greeting."""
    ends: Counter[str] = Counter()
    times = []
    for number in range(count):
        began = time.monotonic()
        try:
            with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
                sock.sendall(HEADER.pack(number, size))
                met = sock.recv(1) == GREETING
                times.append(time.monotonic() - began)
                sock.sendall(GO)
                ends["right" if met and _carry(sock, number, size) else "wrong"] += 1
        except OSError as why:
            ends[f"{number}: {why} after {time.monotonic() - began:.2f} s"] += 1
    times.sort()
    p50 = times[len(times) // 2] if times else 0.0
    return {"ends": ends, "right": ends["right"], "p50_ms": round(1000 * p50, 2)}


def _carry(sock: socket.socket, number: int, size: int) -> bool:
    if goes_up(number):
        sock.sendall(content(number, 0, size))
        sock.shutdown(socket.SHUT_WR)
        return sock.recv(2) == RIGHT
    parts = []
    while data := sock.recv(READ):
        parts.append(data)
    return b"".join(parts) == content(number, 0, size)


def main(words: list[str]) -> None:
    """See the module's docstring."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if words[0] == "serve":
        with suppress(KeyboardInterrupt):
            Service().run()
        return
    numbers = tuple(map(int, words[1:]))
    match words[0]:
        case "in-turn":
            seen = in_turn(*numbers)
        case how:
            crowd = Crowd(*numbers)
            if how == "stuck":
                crowd.pause()
            seen = crowd.run(freely=how == "freely")
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
