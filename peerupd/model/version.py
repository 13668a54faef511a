"""What this program is: version, commit, build date, Python.

Commit and date are stamped into `peerupd/model/stamp.py` when the program is set up or packaged
(`packaging/stamp.py`); a tree that was never set up says `unknown`.
"""

from __future__ import annotations

import importlib
import platform
from typing import Final

from peerupd.model.snapshots import Version

VERSION: Final = "0.1.0"


def own() -> Version:
    """This program's own version."""
    commit, built = _stamp()
    return Version(version=VERSION, commit=commit, built=built, python=platform.python_version())


def _stamp() -> tuple[str, str]:
    try:
        stamp = importlib.import_module("peerupd.model.stamp")
    except ImportError:
        return "unknown", "unknown"
    return str(stamp.COMMIT), str(stamp.BUILT)
