"""What `get_candle` answers, as a generator over pages: the range meant, closed bars only, gaps filled."""

from __future__ import annotations

import attrs

from marketpipe.core import timeframes
from marketpipe.core.filling import fill_forward
from marketpipe.core.paging import CandleWalk, candles_back, forward_walk
from marketpipe.core.ranges import BarRange
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleState

__all__ = ["GRACE_MS", "BarsWanted", "bars_walk"]

# How long after a slot's end its bar may still appear: a bar's last tick is stored up to 54 ms after its end, and the
# stream sends a last frame up to a second later; twice that is safe (upbit-api, candle semantics).
GRACE_MS = 2_000


@attrs.frozen
class BarsWanted:
    """One `get_candle` question, apart from its market."""

    timeframe: Timeframe
    range: BarRange
    closed_only: bool = False
    fill: bool = False

    @property
    def needs_the_time(self) -> bool:
        """Whether the answer depends on what time it is at the exchange."""
        return self.fill or self.range.start_ms is not None or self.range.end_ms is not None


def bars_walk(market: str, wanted: BarsWanted, now_ms: int) -> CandleWalk:
    """Yield the pages that ``wanted`` needs; return its bars, oldest first.

    ``now_ms`` is the time by which a slot without a bar is known to have ended empty.
    """
    walk = _filled_walk if wanted.fill else _traded_walk
    return (yield from walk(market, wanted, now_ms))


def _traded_walk(market: str, wanted: BarsWanted, now_ms: int) -> CandleWalk:
    asked, timeframe = wanted.range, wanted.timeframe
    if asked.count is not None and asked.start_ms is not None:
        bars = yield from forward_walk(market, timeframe, count=asked.count, start_ms=asked.start_ms, now_ms=now_ms)
        return _closed(bars) if wanted.closed_only else bars
    bars = yield from _back_from(market, wanted, asked.start_ms, asked.end_ms, now_ms)
    if asked.start_ms is not None:
        bars = tuple(bar for bar in bars if bar.open_ms >= asked.start_ms)
    if wanted.closed_only:
        bars = _closed(bars)
    return bars if asked.count is None else bars[-asked.count :]


def _filled_walk(market: str, wanted: BarsWanted, now_ms: int) -> CandleWalk:
    # With gaps filled, every slot counts as a bar, so the range is laid in slots. What is read beyond its start is kept
    # for the close before it.
    asked, timeframe = wanted.range, wanted.timeframe
    start_ms, end_ms = _slots_meant(wanted, now_ms)
    bars = yield from _back_from(market, wanted, start_ms, end_ms, now_ms)
    if asked.count is None or asked.start_ms is None:
        filled = _fill(bars, wanted, start_ms, end_ms, now_ms)
        return filled if asked.count is None else filled[-asked.count :]
    if not bars or bars[0].open_ms > start_ms:
        # The history begins later, and the count with it: nothing is filled before a market's first bar.
        first = bars or (yield from forward_walk(market, timeframe, count=1, start_ms=start_ms, now_ms=now_ms))
        if not first:
            return ()
        start_ms, end_ms = _slots_from(timeframe, first[0].open_ms, asked.count, now_ms)
        bars = yield from _back_from(market, wanted, start_ms, end_ms, now_ms)
    return _fill(bars, wanted, start_ms, end_ms, now_ms)


def _back_from(market: str, wanted: BarsWanted, start_ms: int | None, end_ms: int | None, now_ms: int) -> CandleWalk:
    count = _newest(wanted)
    to_ms = _no_later_than_now(wanted.timeframe, end_ms, now_ms)
    bars = yield from candles_back(market, wanted.timeframe, count=count, start_ms=start_ms, end_ms=to_ms)
    if end_ms is not None and any(bar.open_ms >= end_ms for bar in bars):
        # A bar at or after the end: it has passed at the exchange, whose clock is known to a second only.
        bars = yield from candles_back(market, wanted.timeframe, count=count, start_ms=start_ms, end_ms=end_ms)
    return bars


def _fill(
    bars: tuple[Candle, ...], wanted: BarsWanted, start_ms: int, end_ms: int | None, now_ms: int
) -> tuple[Candle, ...]:
    over_ms = timeframes.floor(wanted.timeframe, now_ms - GRACE_MS)
    if end_ms is not None:
        over_ms = min(over_ms, end_ms)
    if wanted.closed_only:
        # A bar that the exchange calls running leaves no gap to fill, whatever our own clock says.
        over_ms = min([over_ms, *(bar.open_ms for bar in bars if bar.state is not CandleState.FINAL)])
        bars = _closed(bars)
    if wanted.range.start_ms is None:
        start_ms = _slots_before(wanted, over_ms)
    return fill_forward(bars, start_ms=start_ms, end_ms=over_ms)


def _newest(wanted: BarsWanted) -> int | None:
    """How many of the newest bars there must be, if that is what is asked."""
    count = wanted.range.count
    if count is None or wanted.range.start_ms is not None:
        return None
    return count + 1 if wanted.closed_only else count  # the running bar may be among them


def _slots_meant(wanted: BarsWanted, now_ms: int) -> tuple[int, int | None]:
    asked, timeframe = wanted.range, wanted.timeframe
    end_ms = None if asked.end_ms is None else timeframes.ceil(timeframe, asked.end_ms)
    if asked.start_ms is None:
        over_ms = timeframes.floor(timeframe, now_ms - GRACE_MS)
        return _slots_before(wanted, over_ms if end_ms is None else min(end_ms, over_ms)), end_ms
    start_ms = timeframes.ceil(timeframe, asked.start_ms)
    return (start_ms, end_ms) if asked.count is None else _slots_from(timeframe, start_ms, asked.count, now_ms)


def _slots_before(wanted: BarsWanted, over_ms: int) -> int:
    assert wanted.range.count is not None  # a range bounded by nothing has the default count
    slots = min(wanted.range.count, timeframes.bars_between(wanted.timeframe, 0, over_ms))
    return timeframes.shift(wanted.timeframe, over_ms, -slots)


def _slots_from(timeframe: Timeframe, start_ms: int, count: int, now_ms: int) -> tuple[int, int]:
    slots = min(count, timeframes.bars_between(timeframe, start_ms, now_ms + 1))
    return start_ms, timeframes.shift(timeframe, start_ms, slots)


def _no_later_than_now(timeframe: Timeframe, end_ms: int | None, now_ms: int) -> int | None:
    # How the exchange takes a `to` in the future is not documented; none at all means now.
    return None if end_ms is None or timeframes.ceil(timeframe, end_ms) > now_ms else end_ms


def _closed(bars: tuple[Candle, ...]) -> tuple[Candle, ...]:
    return tuple(bar for bar in bars if bar.state is CandleState.FINAL)
