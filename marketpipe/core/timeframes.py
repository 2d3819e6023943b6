"""Bar boundaries of every timeframe, in epoch milliseconds UTC.

Boundaries are UTC everywhere, for 4 h bars and days too, although the exchange sits in Korea: minutes and hours are
aligned to 00:00 UTC, days start at 00:00 UTC (09:00 in Seoul), weeks on Monday, months on the 1st, years on 1 January
(https://docs.upbit.com/kr/reference/list-candles-days, 2026-07-28, and its siblings). A bar is named by its open time
and holds the half-open time ``[open_ms, next_open(open_ms))``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from enum import StrEnum

__all__ = ["Timeframe", "bars_between", "ceil", "floor", "next_open", "opens_between", "parse", "shift"]

SECOND_MS = 1_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
# 1970-01-01 was a Thursday: the first Monday at or before the epoch lies three days back.
MONDAY_OFFSET_MS = 3 * DAY_MS
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class Timeframe(StrEnum):
    """Length of a bar; a plain string, so ``Timeframe("1m") == "1m"``. ``1M`` is a month, ``1m`` a minute."""

    S1 = "1s"
    M1 = "1m"
    M3 = "3m"
    M5 = "5m"
    M10 = "10m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H4 = "4h"
    D1 = "1d"
    W1 = "1w"
    MONTH = "1M"
    Y1 = "1y"


_FIXED_MS = {
    Timeframe.S1: SECOND_MS,
    Timeframe.M1: MINUTE_MS,
    Timeframe.M3: 3 * MINUTE_MS,
    Timeframe.M5: 5 * MINUTE_MS,
    Timeframe.M10: 10 * MINUTE_MS,
    Timeframe.M15: 15 * MINUTE_MS,
    Timeframe.M30: 30 * MINUTE_MS,
    Timeframe.H1: HOUR_MS,
    Timeframe.H4: 4 * HOUR_MS,
    Timeframe.D1: DAY_MS,
    Timeframe.W1: WEEK_MS,
}
_MONTHS = {Timeframe.MONTH: 1, Timeframe.Y1: 12}
# Upbit's own spellings of the two hour bars.
_ALIASES = {"60m": Timeframe.H1, "240m": Timeframe.H4}


def parse(name: str) -> Timeframe:
    """The timeframe called ``name``; raises ``ValueError`` naming what is allowed, ``TypeError`` if it is no string."""
    if not isinstance(name, str):
        raise TypeError(f"timeframe must be a str such as '1m', was {name!r}")
    if name in _ALIASES:
        return _ALIASES[name]
    try:
        return Timeframe(name)
    except ValueError:
        allowed = " ".join([*Timeframe, *_ALIASES])
        raise ValueError(f"unknown timeframe {name!r}; allowed: {allowed}") from None


def floor(timeframe: Timeframe, at_ms: int) -> int:
    """The open time of the bar that holds ``at_ms``."""
    size_ms = _FIXED_MS.get(timeframe)
    if size_ms is None:
        return _month_start_ms(_month_index(at_ms) // _MONTHS[timeframe] * _MONTHS[timeframe])
    offset_ms = MONDAY_OFFSET_MS if timeframe is Timeframe.W1 else 0
    return at_ms - (at_ms + offset_ms) % size_ms


def ceil(timeframe: Timeframe, at_ms: int) -> int:
    """The first open time at or after ``at_ms``."""
    open_ms = floor(timeframe, at_ms)
    return at_ms if open_ms == at_ms else next_open(timeframe, open_ms)


def shift(timeframe: Timeframe, open_ms: int, bars: int) -> int:
    """The open time ``bars`` later than the bar opening at ``open_ms`` (earlier, if negative)."""
    size_ms = _FIXED_MS.get(timeframe)
    if size_ms is not None:
        return open_ms + bars * size_ms
    return _month_start_ms(_month_index(open_ms) + bars * _MONTHS[timeframe])


def next_open(timeframe: Timeframe, open_ms: int) -> int:
    """The end of the bar opening at ``open_ms``, which is the open time of the one after it."""
    return shift(timeframe, open_ms, 1)


def bars_between(timeframe: Timeframe, start_ms: int, end_ms: int) -> int:
    """How many bars open in ``[start_ms, end_ms)``; 0 if the range is empty."""
    if end_ms <= start_ms:
        return 0
    first = floor(timeframe, start_ms - 1)  # the last bar that opens before the range
    last = floor(timeframe, end_ms - 1)
    size_ms = _FIXED_MS.get(timeframe)
    if size_ms is not None:
        return (last - first) // size_ms
    return (_month_index(last) - _month_index(first)) // _MONTHS[timeframe]


def opens_between(timeframe: Timeframe, start_ms: int, end_ms: int) -> Sequence[int]:
    """The open times of the bars that open in ``[start_ms, end_ms)``, in order; `bars_between` counts them."""
    first_ms = ceil(timeframe, start_ms)
    size_ms = _FIXED_MS.get(timeframe)
    if size_ms is not None:
        return range(first_ms, end_ms, size_ms)
    return tuple(shift(timeframe, first_ms, bars) for bars in range(bars_between(timeframe, start_ms, end_ms)))


def _month_index(at_ms: int) -> int:
    day = date.fromordinal(EPOCH_ORDINAL + at_ms // DAY_MS)
    return day.year * 12 + day.month - 1


def _month_start_ms(index: int) -> int:
    year, month = divmod(index, 12)
    return int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp()) * 1000
