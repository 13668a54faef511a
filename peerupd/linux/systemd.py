"""Tell the service manager how we are (sd_notify(3), sd_watchdog_enabled(3)); silent where there is none."""

from __future__ import annotations

import os
from typing import Any, Final

from sdnotify import SystemdNotifier

from peerupd.model.names import printable

MAX_STATUS: Final = 400  # characters: one line of `systemctl status`
SEND_TIMEOUT: Final = 1.0  # seconds; a service manager that does not read must not stop us


class Notifier:
    """The notification socket of the unit that we run in."""

    def __init__(self) -> None:
        self._sdnotify = _notifier()

    @property
    def interval(self) -> float | None:
        """Seconds between two beats, half of what the unit allows; None: no watchdog watches this process."""
        allowed = os.environ.get("WATCHDOG_USEC", "")
        mine = os.environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
        if not mine or not allowed.isdecimal() or not int(allowed):
            return None
        return int(allowed) / 2_000_000

    def ready(self) -> None:
        """`READY=1`: the doors are open."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """`STATUS=`: one line for `systemctl status`."""
        self._send(f"STATUS={printable(text, MAX_STATUS)}")

    def stopping(self) -> None:
        """`STOPPING=1`: the end has begun."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """`WATCHDOG=1`: the checks pass."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Gives the socket back; what is said afterwards is not heard."""
        if self._sdnotify is not None:
            self._sdnotify.socket.close()
            self._sdnotify = None

    def _send(self, state: str) -> None:
        if self._sdnotify is not None:
            # sdnotify writes Latin-1 and drops what that cannot say; systemd wants UTF-8
            self._sdnotify.notify(state.encode().decode("latin-1"))


def _notifier() -> Any | None:  # noqa: ANN401 - sdnotify has no types
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    notifier = SystemdNotifier()
    if notifier.socket is None:
        return None
    notifier.socket.settimeout(SEND_TIMEOUT)
    return notifier
