"""Minute bars by their slot, as frames and pages show them; what a series tells is held against them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import attrs

from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleState, Source

MINUTE_MS = 60_000
START_MS = 1_790_166_900_000
RUNNING, FINAL = CandleState.RUNNING, CandleState.FINAL


def opens(slot: int) -> int:
    return START_MS + slot * MINUTE_MS


def reading(slot: int, *, at: int = 500, volume: Any = 1, source: Source = Source.STREAM, **changes: Any) -> Candle:
    """A frame: a bar as it was ``at`` ms after its open time."""
    prices = dict.fromkeys(("open", "high", "low", "close", "quote_volume"), Decimal(7))
    bar = Candle(
        "KRW-BTC",
        Timeframe.M1,
        opens(slot),
        **prices,
        volume=Decimal(volume),
        exchange_ms=opens(slot) + at,
        received_ms=1,
        source=source,
        state=RUNNING,
    )
    return attrs.evolve(bar, **changes) if changes else bar


def row(slot: int, **changes: Any) -> Candle:
    """A bar of a page."""
    return reading(slot, **{"source": Source.REST, **changes})


def brief(bars: Sequence[Candle]) -> list[tuple[int, int, CandleState, int]]:
    """Slot, volume, state and revision of each bar."""
    return [((c.open_ms - START_MS) // MINUTE_MS, int(c.volume), c.state, c.revision) for c in bars]


def content(bars: Sequence[Candle]) -> list[Candle]:
    """The bars without what depends on the order in which they were heard of."""
    return [attrs.evolve(bar, received_ms=0, source=Source.REST, revision=0) for bar in bars]
