"""The process's limit of descriptors, raised as far as it may be without asking anybody.

The soft limit of 1,024 is there for programs that use select(2) (systemd, "File Descriptor Limits"); this one does not.
"""

from __future__ import annotations

import resource
from contextlib import suppress


def raise_limit() -> int:
    """Raise the soft limit to the hard one; what the soft one is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # the kernel's own bound may have been lowered below it: it stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft
