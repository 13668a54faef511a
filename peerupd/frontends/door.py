"""The node's control door, as the assembler wants one: the socket in its place, HTTP behind it."""

from __future__ import annotations

import trio

from peerupd.control.operations import VERBS, Operations
from peerupd.frontends.access import Rights
from peerupd.frontends.http import Door
from peerupd.frontends.socket import ControlSocket, Place


class ControlDoor:
    """Satisfies `control.node.Door`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._socket: ControlSocket | None = None
        self._door: Door | None = None

    async def open(self) -> None:
        """Take the place; raises `DaemonAlreadyRunning`, `StorageFailed`."""
        self._socket = await ControlSocket.open(self._place)

    async def serve(
        self, operations: Operations, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer until `close`, and then for a short while those who are being answered."""
        assert self._socket is not None, "open() comes first"
        self._door = Door(operations, VERBS, self._socket.cookie, Rights(self._socket.group))
        await self._door.serve(self._socket.listener, task_status=task_status)

    async def answers(self) -> bool:
        """Whether callers get in."""
        return self._socket is not None and await self._socket.answers()

    def close(self) -> None:
        """Take no further callers, and send away those that wait."""
        if self._door is not None:
            self._door.close()

    def remove(self) -> None:
        """Socket and cookie leave the disk."""
        if self._socket is not None:
            self._socket.close()

    def __str__(self) -> str:
        return str(self._place.socket)
