"""What `get_candle` answers, as a generator over pages: the range meant, closed bars only, gaps filled."""

from __future__ import annotations

import attrs

from marketpipe.core import timeframes
from marketpipe.core.filling import fill_forward
from marketpipe.core.paging import CandleWalk, align_up, candle_walk, forward_walk
from marketpipe.core.ranges import BarRange
from marketpipe.core.requests import CandlesRequest
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
    spare = 1 if wanted.closed_only else 0  # the running bar may be among the newest
    count = None if asked.count is None else asked.count + spare
    bars = yield from candle_walk(market, timeframe, count=count, start_ms=asked.start_ms, end_ms=asked.end_ms)
    if wanted.closed_only:
        bars = _closed(bars)
    return bars if asked.count is None else bars[-asked.count :]


def _filled_walk(market: str, wanted: BarsWanted, now_ms: int) -> CandleWalk:
    # With gaps filled, every slot counts as a bar, so the range is laid in slots.
    timeframe = wanted.timeframe
    start_ms, end_ms = _slots_meant(wanted, now_ms)
    bars = yield from candle_walk(market, timeframe, start_ms=start_ms, end_ms=end_ms)
    if wanted.closed_only:
        bars = _closed(bars)
    if not bars or bars[0].open_ms > start_ms:
        (before,) = yield (CandlesRequest(market, timeframe, 1, start_ms),)
        bars = (*before, *bars)
    until_ms = timeframes.floor(timeframe, now_ms - GRACE_MS)
    if end_ms is not None:
        until_ms = min(until_ms, end_ms)
    filled = fill_forward(bars, start_ms=start_ms, end_ms=until_ms)
    count = wanted.range.count
    if count is None:
        return filled
    return filled[:count] if wanted.range.start_ms is not None else filled[-count:]


def _slots_meant(wanted: BarsWanted, now_ms: int) -> tuple[int, int | None]:
    asked, timeframe = wanted.range, wanted.timeframe
    end_ms = None if asked.end_ms is None else align_up(timeframe, asked.end_ms)
    if asked.start_ms is None:
        assert asked.count is not None  # a range bounded by nothing has the default count
        last_ms = timeframes.floor(timeframe, now_ms) if end_ms is None else end_ms
        return timeframes.shift(timeframe, last_ms, -asked.count), end_ms
    start_ms = align_up(timeframe, asked.start_ms)
    if asked.count is not None:
        end_ms = timeframes.shift(timeframe, start_ms, asked.count)
    return start_ms, end_ms


def _closed(bars: tuple[Candle, ...]) -> tuple[Candle, ...]:
    return tuple(bar for bar in bars if bar.state is CandleState.FINAL)
