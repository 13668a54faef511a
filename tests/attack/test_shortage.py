"""A daemon and a relay without a descriptor left: they take no more, lose nothing, and go on when there are some."""

from __future__ import annotations

import itertools
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.attack import raw
from tests.attack.raw import Tcp
from tests.attack.scene import PING, Scene, Target
from tests.support.cluster import wait_for

SPARE = 3  # descriptors


@contextmanager
def few_descriptors(target: Target, spare: int = SPARE) -> Iterator[None]:
    """No more than now, and a few."""
    pid = target.daemon.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    free = (number for number in itertools.count() if str(number) not in target.numbers())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (next(itertools.islice(free, spare, None)), before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_without_descriptors_what_stands_goes_on_and_who_waits_is_served_later(target: Target) -> None:
    with target.attacked(), target.call(target.friend) as muxed, ExitStack() as held:
        talk = muxed.open(PING, bytes(32))
        assert talk.chosen()
        talk.receive()
        with few_descriptors(target):
            for _ in range(SPARE + 30):
                held.enter_context(Tcp(target.port, raw.somewhere()))
            waiting = [Tcp(target.port) for _ in range(5)]
            wait_for("the shortage to be told", lambda: "cannot accept connections" in target.daemon.words())
            talk.send(bytes(32))
            assert talk.receive()
            used = target.seconds()
            time.sleep(1)  # a span, in which it must not spin
            assert target.seconds() - used < 0.5
            held.close()
        for line in waiting:
            with raw.Muxed(raw.secure(line, target.friend, target.peer)) as late:
                assert late.open(PING, bytes(32)).chosen()


def test_without_descriptors_a_dial_and_a_file_say_so_and_the_daemon_lives(scene: Scene) -> None:
    node, home = scene.node, scene.pair.home
    with node.attacked():
        with few_descriptors(node, 1):
            for words in (
                ("ping", "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5", "-c", "1"),
                ("auth", "list"),
            ):
                home.ctl(*words, check=False)
            said = [home.ctl("service", "add", f"short{number}", "127.0.0.1:9", check=False) for number in range(2)]
            with socket.socket(socket.AF_UNIX) as one:
                one.connect(str(home.home / ".config/peerup/peerup.sock"))  # takes the last descriptor
                said.append(home.ctl("service", "add", "short2", "127.0.0.1:9", check=False, seconds=30))
            for done in said:
                assert "Traceback" not in done.stderr + done.stdout
                assert not done.returncode or "too many open files" in done.stderr.lower()
        wait_for("the door to be open again", lambda: home.ctl("daemon", "status", check=False).returncode == 0)
        for number in range(3):
            home.ctl("service", "remove", f"short{number}", check=False)
        assert any(done.returncode for done in said)
