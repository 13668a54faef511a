"""A QR code as lines of text for a dark terminal: light modules are drawn, dark ones are left black.

Two modules share one character; error level M, with the quiet zone of ISO/IEC 18004 (four modules).
"""

from __future__ import annotations

import sys
from itertools import zip_longest
from types import ModuleType
from typing import Any, Final

QUIET_ZONE: Final = 4  # modules on each side

# (upper module dark, lower module dark); below an odd last row there is nothing to draw.
_BLOCKS: Final = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}


def lines(text: str) -> tuple[str, ...]:
    """The rows of the code of `text`, top first."""
    code = _segno().make(text, error="m", micro=False, boost_error=False)
    rows = [tuple(row) for row in code.matrix_iter(border=QUIET_ZONE)]
    below = zip_longest(rows[::2], rows[1::2], fillvalue=(1,) * len(rows[0]))
    return tuple("".join(_BLOCKS[pair] for pair in zip(*both, strict=True)) for both in below)


def _segno() -> Any:  # noqa: ANN401 - segno tells no types
    """Late: only pairing and setup draw codes. Without what writes images: it imports `http` and `ssl`, 6 MiB."""
    writers = "segno.writers"
    if writers not in sys.modules:
        sys.modules[writers] = ModuleType(writers, "Nothing is written: see peerupd.features.qr.")
    import segno

    return segno
