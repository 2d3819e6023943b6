"""Moments as people write them on a command line."""

from __future__ import annotations

from datetime import datetime

from marketpipe.core.ranges import epoch_ms

__all__ = ["moment"]

EXAMPLE = "2026-11-01T09:00+09:00 or 2026-11-01T00:00Z"


def moment(option: str, text: str) -> datetime | int:
    """Epoch milliseconds, or an aware datetime from ISO 8601. ``ValueError`` names ``option`` and what is missing."""
    at = int(text) if text.lstrip("-").isdecimal() else _aware(option, text)
    epoch_ms(option, at)  # refuses what lies outside of time, and seconds
    return at


def _aware(option: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} must be a time such as {EXAMPLE}, or epoch milliseconds, was {text!r}") from None
    if at.utcoffset() is None:
        raise ValueError(f"{option} must have a timezone, such as {EXAMPLE}, was {text!r}")
    return at
