"""What a stream tells, as JSON for programs: one event a line."""

from __future__ import annotations

from typing import Any

import attrs

from marketpipe.cli.rows import json_line, row
from marketpipe.models import Candle, Gap, Ticker, Trade

__all__ = ["Event", "event_line"]

Event = Ticker | Trade | Candle | Gap

_NAMES = {Ticker: "ticker", Trade: "trade", Candle: "candle", Gap: "gap"}


def event_line(event: Event, now_ms: int) -> str:
    """``event`` as one line of JSON: what it is, then its own fields."""
    return json_line({"event": _NAMES[type(event)], **_fields(event, now_ms)})


def _fields(event: Event, now_ms: int) -> dict[str, Any]:
    return {**attrs.asdict(event), "is_open": event.is_open} if isinstance(event, Gap) else row(event, now_ms)
