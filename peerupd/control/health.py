"""The watchdog's beat: sent by the event loop itself, and only in a round in which every check has passed.

Checks are about this process: do the listeners accept, does the control socket answer, does the loop turn. What the
network does (a relay that is away) is shown in the status and never withholds the beat: a restart would not mend it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

import trio

from peerupd.model.addresses import Multiaddr
from peerupd.model.logs import said

log = logging.getLogger(__name__)

LOOP_LIMIT: Final = 5.0  # seconds in which the loop turns once, and every check is done
LONGEST_ROUND: Final = 15.0  # seconds between two rounds


@dataclass(frozen=True, slots=True)
class Check:
    """One question with a yes or no."""

    name: str
    passes: Callable[[], Awaitable[bool]]


async def watch(checks: Sequence[Check], beat: Callable[[], object], interval: float | None) -> NoReturn:
    """Beat while all is well; `interval` is what the service manager wants, in seconds (None: nobody waits)."""
    pause = LONGEST_ROUND if interval is None else min(interval / 3, LONGEST_ROUND)
    while True:
        due = trio.current_time() + pause
        await trio.sleep_until(due)
        failed = await failing(checks)
        if (late := trio.current_time() - due) > LOOP_LIMIT:
            failed.append(f"event loop ({late:.1f} s late)")
        if failed:
            log.error(
                "health check failed: %s, no watchdog beat",
                ", ".join(failed),
                extra=said("health.failed", checks=",".join(failed)),
            )
        else:
            beat()


async def failing(checks: Sequence[Check]) -> list[str]:
    """The names of the checks that do not pass, or do not end in time."""
    failed = {check.name for check in checks}

    async def ask(check: Check) -> None:
        if await check.passes():
            failed.discard(check.name)

    with trio.move_on_after(LOOP_LIMIT):
        async with trio.open_nursery() as nursery:
            for check in checks:
                nursery.start_soon(ask, check)
    return sorted(failed)


async def accepts(address: Multiaddr) -> bool:
    """Whether our own listener at this address takes a connection."""
    host, port = address.host, address.port
    if host is None or port is None:
        return False
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    try:
        stream = await trio.open_tcp_stream(own, port)
    except OSError:
        return False
    await trio.aclose_forcefully(stream)
    return True
