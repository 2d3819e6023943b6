"""Synthetic bars for charts: the previous close carried forward over slots without a trade."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from decimal import Decimal

import attrs

from marketpipe.core import timeframes
from marketpipe.models import Candle, CandleState

__all__ = ["fill_forward"]

ZERO = Decimal(0)


def fill_forward(
    bars: Sequence[Candle], *, start_ms: int | None = None, end_ms: int | None = None
) -> tuple[Candle, ...]:
    """``bars`` (oldest first) with a flat bar, ``filled=True``, in every slot without one.

    Filled are the slots after the first bar that open at or after ``start_ms`` and end by ``end_ms`` (None: no more
    than between the bars). Bars opening before ``start_ms`` serve as the previous close and are left out. Nothing is
    filled before the first bar: there is no close to carry, and none is invented.
    """
    filled = [bar for run in _runs(bars, start_ms, end_ms) for bar in run]
    return tuple(bar for bar in filled if start_ms is None or bar.open_ms >= start_ms)


def _runs(bars: Sequence[Candle], start_ms: int | None, end_ms: int | None) -> Iterator[Iterator[Candle]]:
    for bar, following in itertools.pairwise(bars):
        yield _carry(bar, start_ms, following.open_ms)
    if bars:
        yield _carry(bars[-1], start_ms, end_ms)


def _carry(bar: Candle, start_ms: int | None, until_ms: int | None) -> Iterator[Candle]:
    yield bar
    open_ms = bar.close_ms
    if start_ms is not None and open_ms < start_ms:  # years may lie between the last trade and the first slot wanted
        open_ms = timeframes.ceil(bar.timeframe, start_ms)
    while until_ms is not None and open_ms < until_ms and timeframes.next_open(bar.timeframe, open_ms) <= until_ms:
        yield attrs.evolve(
            bar,
            open_ms=open_ms,
            open=bar.close,
            high=bar.close,
            low=bar.close,
            volume=ZERO,
            quote_volume=ZERO,
            state=CandleState.FINAL,
            revision=0,
            filled=True,
        )
        open_ms = timeframes.next_open(bar.timeframe, open_ms)
