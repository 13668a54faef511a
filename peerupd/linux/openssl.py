"""Keep the system's OpenSSL out of a process that speaks no TLS: 4.6 MiB of memory (docs/decisions/0004-memory.md).

trio imports `ssl` and `hmac` for doors that we never open, and both load libssl and libcrypto; what we need of
cryptography comes with the package `cryptography`, which has an OpenSSL of its own. So while trio is imported, `ssl` is
an empty stand-in, and `_hashlib` is missing: `hashlib` then takes Python's own hashes, as it does on builds without
OpenSSL. Afterwards `ssl` can be imported as ever; only trio's own TLS streams stay out of use in this process.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Final

_OWN_HASHES: Final = (("_md5",), ("_sha1",), ("_sha2", "_sha256"), ("_sha2", "_sha512"), ("_sha3",), ("_blake2",))
"""Python's own; which of the names there are depends on its version."""


@contextmanager
def left_out() -> Iterator[None]:
    """What is imported in the block gets no OpenSSL; where it is loaded already, nothing is done."""
    if "ssl" in sys.modules or "_hashlib" in sys.modules or not _has_own_hashes():
        yield
        return
    sys.modules["ssl"] = _StandIn("ssl", "Names without meaning: see peerupd.linux.openssl.")
    sys.modules["_hashlib"] = None  # type: ignore[assignment] # how the import system spells "there is none"
    try:
        yield
    finally:
        del sys.modules["ssl"], sys.modules["_hashlib"]


class _StandIn(ModuleType):
    """A module in which every name is a class: enough for base classes and annotations."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__module__": self.__name__})


def _has_own_hashes() -> bool:
    return all(any(find_spec(name) is not None for name in names) for names in _OWN_HASHES)
