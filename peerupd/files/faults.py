"""What the kernel says about a file, as our errors: which path, which trouble, what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from peerupd.model.errors import NotFound, RequestError, StorageFailed
from peerupd.model.names import printable

_NEXT: Final = {
    errno.ENOSPC: "make room and try again",
    errno.EDQUOT: "make room and try again",
    errno.EACCES: "run it as the owner of the file",
    errno.EPERM: "run it as the owner of the file",
    errno.EROFS: "make the file system writable",
}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns `OSError` into `NotFound` or `StorageFailed`, a path that cannot be one into `RequestError`."""
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    except OSError as why:
        raise StorageFailed(f"cannot read {path}: {words(why)}", hint=_NEXT.get(why.errno or 0, "")) from why
    except ValueError:
        raise _no_path(path) from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns `OSError` into `StorageFailed` that says that nothing was changed; the caller sees to its being true."""
    try:
        yield
    except OSError as why:
        message = f"cannot write {path}: {words(why)}; nothing was changed"
        raise StorageFailed(message, hint=_NEXT.get(why.errno or 0, "")) from why
    except ValueError:
        raise _no_path(path) from None


def words(why: OSError) -> str:
    """The error in the kernel's words, for the middle of a sentence."""
    text = os.strerror(why.errno) if why.errno else str(why)
    return text[:1].lower() + text[1:]


def _no_path(path: Path) -> RequestError:
    return RequestError(f"not the path of a file: {printable(str(path), 80)!r}")
