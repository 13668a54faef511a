"""What a verb is: a method with a frozen request, a frozen report and an access class, declared once for all doors.

`@verb` marks a method; `table` reads the marks into `Verb`s, from which the routes of the HTTP door, the words of
`peerupd once` and the rights of a caller come. A method without the mark cannot be called by any door.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeVar

from peerupd.model.errors import PeerupError

F = TypeVar("F", bound=Callable[..., Any])

_MARK: Final = "__peerup_verb__"


class Access(IntEnum):
    """Who may: each class includes the ones below it."""

    OBSERVE = 1
    """Status, lists, ping, resolve."""
    OPERATE = 2
    """Connect, disconnect, expose, services, proxies."""
    ADMINISTER = 3
    """Authorization, invites, joining, relays, shutdown."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb, as its declaration says."""

    name: str
    access: Access
    request: type[Any]
    doc: str
    held: bool
    """The caller waits for something that may take long; when it goes, the verb is cancelled."""


@dataclass(frozen=True, slots=True)
class _Mark:
    access: Access
    held: bool


def verb(access: Access, *, held: bool = False) -> Callable[[F], F]:
    """Declare a method `(self, ask: Request, ...) -> Report` as a verb."""

    def mark(method: F) -> F:
        setattr(method, _MARK, _Mark(access, held))
        return method

    return mark


def table(holder: type[Any]) -> Mapping[str, Verb]:
    """The verbs of a class, by name, in the order of their declaration."""
    marked = ((name, method, getattr(method, _MARK, None)) for name, method in vars(holder).items())
    return {name: _declared(name, method, mark) for name, method, mark in marked if mark is not None}


def _declared(name: str, method: Callable[..., Any], mark: _Mark) -> Verb:
    request = typing.get_type_hints(method)["ask"]
    return Verb(name, mark.access, request, inspect.getdoc(method) or "", mark.held)


def expected_in(why: BaseException) -> PeerupError | None:
    """The expected error that `why` is, or that a group of nothing but expected errors begins with; None: a bug."""
    if isinstance(why, PeerupError):
        return why
    if not isinstance(why, BaseExceptionGroup):
        return None
    found = [expected_in(inner) for inner in why.exceptions]
    return None if None in found else found[0]
