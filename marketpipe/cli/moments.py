"""Moments as people write them on a command line."""

from __future__ import annotations

from datetime import datetime

__all__ = ["moment"]

EXAMPLE = "2026-11-01T09:00+09:00 or 2026-11-01T00:00Z"


def moment(option: str, text: str | None) -> datetime | int | None:
    """Epoch milliseconds, or an aware datetime from ISO 8601. ``ValueError`` names ``option`` and what is missing."""
    if text is None:
        return None
    if text.lstrip("-").isdecimal():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} must be a time such as {EXAMPLE}, or epoch milliseconds, was {text!r}") from None
    if at.utcoffset() is None:
        raise ValueError(f"{option} must have a timezone, such as {EXAMPLE}, was {text!r}")
    return at
