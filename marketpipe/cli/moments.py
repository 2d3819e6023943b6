"""Moments as people write them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from marketpipe.core.ranges import epoch_ms

__all__ = ["WRITTEN", "moment"]

EXAMPLE = "2026-11-01T09:00+09:00 or 2026-11-01T00:00Z"
# What options say about it.
WRITTEN = "2026-11-01T09:00+09:00, 2026-11-01 (00:00 UTC), 30d or 12h (ago), or epoch ms"

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_AGO = re.compile(r"(\d{1,9})\s*([smhdwy])(?:\s+ago)?")
_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
    "y": timedelta(days=365),
}


def moment(option: str, text: str, now_ms: int) -> datetime | int:
    """Epoch milliseconds, or an aware datetime from ISO 8601. ``ValueError`` names ``option`` and what is missing.

    ``30d`` is thirty days before ``now_ms``; the units are s, m (minutes), h, d, w and y (365 days). A day alone begins
    where the exchange's days do: at 00:00 UTC.
    """
    ago = _AGO.fullmatch(text)
    if ago:
        at: datetime | int = now_ms - int(ago[1]) * (_UNITS[ago[2]] // timedelta(milliseconds=1))
    else:
        at = int(text) if text.lstrip("-").isdecimal() else _aware(option, text)
    epoch_ms(option, at)  # refuses what lies outside of time, and seconds
    return at


def _aware(option: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{option} must be a time such as {EXAMPLE}, a day, 30d (ago), or epoch milliseconds, was {text!r}"
        ) from None
    if _DAY.fullmatch(text):
        return at.replace(tzinfo=UTC)
    if at.utcoffset() is None:
        raise ValueError(f"{option} must have a timezone, such as {EXAMPLE}, was {text!r}")
    return at
