"""What a node and a relay have in common between their first and their last second: signals, status lines, the end."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn, Protocol

import trio

from peerupd.control.bus import Bus
from peerupd.model.errors import PeerupError
from peerupd.model.logs import said

log = logging.getLogger(__name__)

STATUS_INTERVAL: Final = 30.0  # seconds between two status lines when nothing happens
STATUS_PAUSE: Final = 0.5  # seconds in which several events make one line
DRAIN_LIMIT: Final = 5.0  # seconds from the wish to end to the end, whoever may still hang

Say = Callable[[str], None]


class Notifier(Protocol):
    """The service manager."""

    @property
    def interval(self) -> float | None: ...

    def ready(self) -> None: ...

    def status(self, text: str) -> None: ...

    def stopping(self) -> None: ...

    def watchdog(self) -> None: ...


async def obey_signals(
    stop: trio.Event, reload: Callable[[], Awaitable[None]], say: Say, *, task_status: trio.TaskStatus[None]
) -> NoReturn:
    """SIGTERM and SIGINT end the program calmly, SIGHUP reads the files anew."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                await _reload(reload)
                continue
            name = "interrupt" if number == signal.SIGINT else "terminated"
            log.info("received %s, shutting down", name, extra=said("node.stopping", why=name))
            if not stop.is_set():
                say(f"Received {name}, shutting down...")
            stop.set()
    raise AssertionError("signals do not end")


@contextmanager
def insisting(leave_nothing: Callable[[], None] = lambda: None) -> Iterator[Callable[[trio.Event], Awaitable[None]]]:
    """Gives a task that, once the end is wished, sees to it that it comes within `DRAIN_LIMIT`, whoever may hang."""
    timer = threading.Timer(DRAIN_LIMIT, _end_now, (leave_nothing,))
    timer.daemon = True

    async def begin(stop: trio.Event) -> None:
        await stop.wait()
        timer.start()

    try:
        yield begin
    finally:
        timer.cancel()


def _end_now(leave_nothing: Callable[[], None]) -> None:
    log.error("not done within %g s, ending all the same", DRAIN_LIMIT, extra=said("node.cut"))
    leave_nothing()
    os._exit(0)


async def tell_status(bus: Bus, line: Callable[[], str], notifier: Notifier) -> NoReturn:
    """Keep the service manager's status line true."""
    told = ""
    with bus.subscribe() as events:
        while True:
            if (now := line()) != told:
                notifier.status(now)
                told = now
            with trio.move_on_after(STATUS_INTERVAL):
                await events.next()
            await trio.sleep(STATUS_PAUSE)
            events.clear()


def degraded(problems: Sequence[str]) -> str:
    """How a status line begins."""
    return f"DEGRADED: {'; '.join(problems)} | " if problems else ""


async def _reload(reload: Callable[[], Awaitable[None]]) -> None:
    try:
        await reload()
    except PeerupError as why:
        log.error("cannot read the files anew: %s, keeping what is in force", why, extra=said("reload.failed"))
    else:
        log.info("the files were read anew", extra=said("reload.done"))
