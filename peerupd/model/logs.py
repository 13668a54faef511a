"""How a log line carries its stable event name and its fields beside the words."""

from __future__ import annotations

from typing import Final

EXTRA: Final = "peerup"
"""The attribute of a log record under which `said` puts them."""


def said(event: str, **fields: str | float | bool) -> dict[str, dict[str, str | int | float | bool]]:
    """For `log.info("...", extra=said("path.changed", peer=...))`; the event's name never changes once released."""
    return {EXTRA: {"event": event, **fields}}
