"""The last good copy of a file: `.config.last-good.yaml` beside `config.yaml`, for its owner alone.

What is good decides the caller; here it is only written, atomically, and only when it is another than before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from peerupd.files.atomic import replace
from peerupd.files.faults import writing
from peerupd.files.reading import read_secret
from peerupd.model.errors import RequestError

MODE: Final = 0o600


def copy_of(path: Path) -> Path:
    """Where the last good copy of `path` is, or would be."""
    return path.with_name(f".{path.stem}.last-good{path.suffix}")


def keep_copy(path: Path, data: bytes) -> None:
    """The last good copy of `path` is now `data`; raises `StorageFailed`."""
    copy = copy_of(path)
    if not _holds(copy, data):
        replace(copy, data, mode=MODE)


def drop_copy(path: Path) -> None:
    """There is no last good copy of `path` any more; raises `StorageFailed`."""
    copy = copy_of(path)
    with writing(copy):
        copy.unlink(missing_ok=True)


def _holds(copy: Path, data: bytes) -> bool:
    try:
        return read_secret(copy, len(data)) == data
    except RequestError:  # there is none, others may read it, or it is longer
        return False
