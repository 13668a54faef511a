"""Serve the streams that peers open: agree on a protocol, ask the gate, run the handler, survive whatever it does.

A handler owns its stream until it returns; then the stream is closed. If it raises, the stream is reset, and nothing
else ends. What a bad peer or network causes is told at debug level; anything else is a bug, whose traceback is logged
once per place: a peer that finds it must not fill the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import trio

from peerupd.model.errors import PeerupError, ProtocolUnsupported, TimedOut
from peerupd.p2p.admission import Admission
from peerupd.p2p.streams import Stream
from peerupd.p2p.upgrade import NEGOTIATION_LIMIT, answer

log = logging.getLogger(__name__)

Handler = Callable[[Stream], Awaitable[None]]

MAX_KNOWN_BUGS: Final = 256  # places; beyond, all are told without a traceback

_EXPECTED: Final = (PeerupError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError, OSError)


class Serving:
    """The handlers by protocol."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._handlers: dict[str, Handler] = {}
        self._bugs: set[tuple[str, str, int]] = set()

    def set(self, protocol: str, handler: Handler) -> None:
        """From now on `handler` serves `protocol`; another one before it is replaced."""
        self._handlers[protocol] = handler

    def remove(self, protocol: str) -> None:
        """Serve `protocol` no longer; streams that are open go on."""
        self._handlers.pop(protocol, None)

    @property
    def protocols(self) -> list[str]:
        """What is served."""
        return sorted(self._handlers)

    async def serve(self, stream: Stream) -> None:
        """One stream, from its first byte to its end."""
        try:
            handler = await self._agree(stream)
            await handler(stream)
            if not stream.is_closed:
                await stream.aclose()
        except BaseExceptionGroup as several:
            stream.reset()
            ours, others = several.split(Exception)
            if ours is not None:
                self._told(stream, ours)
            if others is not None:
                raise others from None
        except Exception as why:
            stream.reset()
            self._told(stream, why)
        finally:
            stream.reset()

    async def _agree(self, stream: Stream) -> Handler:
        connection = stream.connection

        def speaks(protocol: str) -> bool:
            return protocol in self._handlers and self._admission.serves(connection, protocol)

        with trio.move_on_after(NEGOTIATION_LIMIT):
            chosen = await answer(stream, speaks)
            if (handler := self._handlers.get(chosen)) is None:
                raise ProtocolUnsupported(f"{chosen} was withdrawn while it was agreed on")
            return handler
        raise TimedOut(f"no protocol was agreed on within {NEGOTIATION_LIMIT:.0f} s")

    def _told(self, stream: Stream, why: Exception) -> None:
        if all(isinstance(one, _EXPECTED) for one in _leaves(why)):
            log.debug("a stream of %s (%s) ended: %s", stream.peer, stream.protocol, why)
            return
        where = _place(why)
        known = where in self._bugs or len(self._bugs) >= MAX_KNOWN_BUGS
        self._bugs.add(where) if not known else None
        log.error(
            "a bug ended a stream of %s (%s): %r",
            *(stream.peer, stream.protocol, why),
            exc_info=None if known else why,
        )


def _leaves(why: BaseException) -> Iterator[BaseException]:
    if isinstance(why, BaseExceptionGroup):
        for one in why.exceptions:
            yield from _leaves(one)
    else:
        yield why


def _place(why: BaseException) -> tuple[str, str, int]:
    """Where it was raised."""
    first = next(_leaves(why))
    trace = first.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(first).__name__, "", 0
    return type(first).__name__, trace.tb_frame.f_code.co_filename, trace.tb_lineno
