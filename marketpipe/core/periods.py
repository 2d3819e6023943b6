"""Bars that the exchange does not stream, kept current from the tickers it does: days, weeks, months and years.

A ticker counts its open, high, low and volumes from 00:00 UTC (reference/list-tickers, 2026-07-28), so it *is* the bar
of its day. A longer bar is made of the days of its period that have closed, as REST shows them, and of the ticker: the
first open, the extremes, the exact sums. As long as a closed day of the period has not been read there is no bar, for
it would be half of one. After midnight that is the case again for a moment.

Two questions of time decide what a ticker says:

- *Of which day is it?* Of that of its last trade. Once a new day has begun, a market without a trade in it shows
  nothing: its sums are 0 then, and a bar exists only if there was a trade. Sums that are not 0 still belong to the day
  of the last trade, also when the ticker itself was refreshed after midnight.
- *How new is it?* As new as ``exchange_ms``, when it was refreshed. REST stamps a bar with the moment its last trade
  was stored, which is the stamp of the ticker that showed this trade (seen 2026-09-13), so the two are of one scale: a
  ticker refreshed at or after a bar's stamp has seen all that is in the bar. ``trade_ms`` is 30 to 50 ms less; with
  it, REST's bar would outrank the tickers of the trades that follow it closely. A ticker that is refreshed without a
  trade has a newer stamp and says nothing new, so it makes no bar.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal, Inexact
from typing import NamedTuple

import attrs

from marketpipe.core import timeframes
from marketpipe.core.bars import GRACE_MS
from marketpipe.core.candles import SETTLE_MS, rank
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleState, Ticker

__all__ = ["DaySpan", "PeriodBars"]

PERIODS = (Timeframe.D1, Timeframe.W1, Timeframe.MONTH, Timeframe.Y1)
# A year's turnover needs some 40 digits; the default context would round it to 28 without a word.
EXACT = Context(prec=200, traps=[Inexact])


class DaySpan(NamedTuple):
    """Days opening in ``[start_ms, end_ms)``, both 00:00 UTC."""

    start_ms: int
    end_ms: int


class PeriodBars:
    """The running bar of one market and timeframe (1d, 1w, 1M or 1y), told anew with each ticker that changes it."""

    def __init__(self, market: str, timeframe: Timeframe) -> None:
        if timeframe not in PERIODS:
            raise ValueError(f"timeframe must be one of {', '.join(PERIODS)}, was {timeframe!r}")
        self.market = market
        self.timeframe = timeframe
        self._days: dict[int, Candle] = {}
        self._known = DaySpan(0, 0)  # every day in it that had a trade is in `_days`, which may hold more
        self._closed: tuple[DaySpan, Candle | None] | None = None  # the sum of those days that was needed last
        self._newest: Ticker | None = None
        self._told: Candle | None = None

    def wants_days(self, now_ms: int) -> DaySpan | None:
        """The closed days that are still to be read (1d bars, by REST), or None.

        At most those of the current period up to today's midnight; ``now_ms`` is the time at the exchange. A day is
        not wanted before the last trade of it can be seen.
        """
        if self.timeframe is Timeframe.D1:
            return None
        today_ms = timeframes.floor(Timeframe.D1, now_ms - GRACE_MS)
        start_ms = timeframes.floor(self.timeframe, today_ms)
        if self._known.start_ms <= start_ms <= self._known.end_ms:
            start_ms = self._known.end_ms
        return DaySpan(start_ms, today_ms) if start_ms < today_ms else None

    def days(self, asked: DaySpan, candles: Iterable[Candle], read_ms: int) -> Candle | None:
        """All 1d bars of the days ``asked`` came in; return the bar to tell, if the newest ticker now makes one.

        ``read_ms`` is a lower bound of the time at the exchange when they were read: a day that had not been over for a
        second by then is not taken, and wanted again. A day that was read before may come again, corrected.
        """
        end_ms = min(asked.end_ms, timeframes.floor(Timeframe.D1, read_ms - SETTLE_MS))
        if asked.start_ms >= end_ms:
            return None
        for day in candles:
            self._take(day)
        self._know(asked.start_ms, end_ms)
        self._closed = None
        return None if self._newest is None else self._tell(self._newest)

    def ticker(self, ticker: Ticker) -> Candle | None:
        """A ticker came in; return the bar to tell: RUNNING, dated like the ticker. None if it changes nothing, or if
        days are missing."""
        if ticker.volume == 0:
            return None
        if self._newest is None or self._newest.exchange_ms <= ticker.exchange_ms:
            self._newest = ticker
        return self._tell(ticker)

    def _take(self, day: Candle) -> None:
        held = self._days.get(day.open_ms)
        if held is None or rank(held, settled=True) < rank(day, settled=True):
            self._days[day.open_ms] = day

    def _know(self, start_ms: int, end_ms: int) -> None:
        known = self._known
        if known.start_ms <= start_ms <= known.end_ms:
            start_ms, end_ms = known.start_ms, max(known.end_ms, end_ms)
        self._known = DaySpan(start_ms, end_ms)

    def _tell(self, ticker: Ticker) -> Candle | None:
        day_ms = timeframes.floor(Timeframe.D1, ticker.trade_ms)
        period = DaySpan(timeframes.floor(self.timeframe, day_ms), day_ms)
        if not self._knows(period):
            return None
        bar = self._bar(period.start_ms, ticker, self._sum(period))
        told = self._told
        # An older ticker cannot win against what was told, and a refreshed one says the same.
        if told is not None and told.open_ms == bar.open_ms and not _is_news(bar, told):
            return None
        if told is None or told.open_ms <= bar.open_ms:
            self._told = bar
        return bar

    def _knows(self, days: DaySpan) -> bool:
        return days.start_ms == days.end_ms or (
            self._known.start_ms <= days.start_ms and days.end_ms <= self._known.end_ms
        )

    def _sum(self, period: DaySpan) -> Candle | None:
        """The closed days of ``period`` as one bar; None if none of them had a trade."""
        if self._closed is None or self._closed[0] != period:
            total: Candle | None = None
            for open_ms in sorted(self._days):
                if period.start_ms <= open_ms < period.end_ms:
                    day = self._days[open_ms]
                    total = day if total is None else _joined(total, day)
            self._closed = period, total
        return self._closed[1]

    def _bar(self, open_ms: int, ticker: Ticker, closed: Candle | None) -> Candle:
        today = Candle(
            market=self.market,
            timeframe=self.timeframe,
            open_ms=open_ms,
            open=ticker.open,
            high=ticker.high,
            low=ticker.low,
            close=ticker.price,
            volume=ticker.volume,
            quote_volume=ticker.quote_volume,
            exchange_ms=ticker.exchange_ms,
            received_ms=ticker.received_ms,
            source=ticker.source,
            state=CandleState.RUNNING,
        )
        return today if closed is None else _joined(closed, today)


def _joined(earlier: Candle, later: Candle) -> Candle:
    """One bar of two that follow each other; what is not a price or a volume is that of the later one."""
    return attrs.evolve(
        later,
        open=earlier.open,
        high=max(earlier.high, later.high),
        low=min(earlier.low, later.low),
        volume=EXACT.add(earlier.volume, later.volume),
        quote_volume=EXACT.add(earlier.quote_volume, later.quote_volume),
    )


def _is_news(bar: Candle, told: Candle) -> bool:
    return bar.exchange_ms >= told.exchange_ms and _values(bar) != _values(told)


def _values(bar: Candle) -> tuple[Decimal, ...]:
    return (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.quote_volume)
