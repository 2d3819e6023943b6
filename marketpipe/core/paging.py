"""Questions that take several pages, as generators: they yield requests that may go together and are sent the pages.

Nothing here waits, retries or paces; whoever drives the generator does. Both walks return their rows when they are
done (`StopIteration.value`).
"""

from __future__ import annotations

from collections.abc import Generator

from marketpipe.core import timeframes
from marketpipe.core.requests import CANDLES_LIMIT, TRADES_LIMIT, CandlesRequest, TradesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, Trade

__all__ = ["CandleWalk", "TradeWalk", "align_up", "candle_walk", "forward_walk", "trade_walk"]

# The exchange keeps the trades of the current UTC day and of the seven before it
# (reference/list-pair-trades, 2026-07-28).
TRADE_DAYS = 8
# Pages asked for at once: enough to keep every slot of a second busy several times over, few enough to stay flat in
# memory and fair to others when a million bars are asked.
PAGES_AT_ONCE = 40
# A page is called dense if at least this share of its slots has a bar; the next windows can then be foretold.
DENSE = 0.9

TradeWalk = Generator[tuple[TradesRequest, ...], tuple[tuple[Trade, ...], ...], tuple[Trade, ...]]
CandleWalk = Generator[tuple[CandlesRequest, ...], tuple[tuple[Candle, ...], ...], tuple[Candle, ...]]


def trade_walk(market: str, count: int) -> TradeWalk:
    """Yield the pages that hold the newest ``count`` trades; return them newest first.

    Fewer come back if the exchange keeps no more. A page never crosses its UTC day, and the next page's cursor is the
    last id of the one before (reference/list-pair-trades, 2026-07-28). Days are counted back from the exchange's own
    today: if midnight passes during the walk, a day is seen twice, and ids already held are simply not taken again.
    """
    held: dict[int, Trade] = {}
    for days_ago in range(TRADE_DAYS):
        cursor = None
        while len(held) < count:
            size = min(TRADES_LIMIT, count - len(held))
            (page,) = yield (TradesRequest(market, size, cursor, days_ago),)
            held.update((trade.sequential_id, trade) for trade in page)
            if len(page) < size:
                break
            cursor = page[-1].sequential_id
    newest_first = sorted(held.values(), key=lambda trade: (trade.trade_ms, trade.sequential_id), reverse=True)
    return tuple(newest_first[:count])


def candle_walk(
    market: str, timeframe: Timeframe, *, count: int | None = None, start_ms: int | None = None, end_ms: int | None
) -> CandleWalk:
    """Yield the pages that hold the bars opening before ``end_ms`` (None: now), back to ``start_ms`` or ``count`` bars.

    Returns them oldest first. Pages are asked backwards, since ``to`` is the only cursor there is and is exclusive on
    the open time (reference/list-candles-minutes, 2026-07-28). A page of n rows before ``to`` reaches back at least n
    slots, so consecutive windows of n slots leave no hole; on dense markets they are asked together, on thin ones one
    after the other, because a thin page reaches far beyond its window. A page shorter than asked ends the history.
    """
    held: dict[int, Candle] = {}
    ended = False
    ahead = 1
    to_ms = None if end_ms is None else align_up(timeframe, end_ms)
    while not ended:
        requests = _windows(market, timeframe, to_ms, _slots_left(timeframe, held, count, start_ms, to_ms), ahead)
        if not requests:
            break
        pages = yield requests
        for page in pages:
            _take(held, page)
        ended = any(len(page) < request.count for page, request in zip(pages, requests, strict=True))
        if held:
            to_ms = min(held)
        ahead = PAGES_AT_ONCE if _is_dense(timeframe, pages[-1]) else 1
    bars = sorted(held.values(), key=lambda candle: candle.open_ms)
    if start_ms is not None:
        bars = [bar for bar in bars if bar.open_ms >= start_ms]
    return tuple(bars if count is None else bars[-count:])


def forward_walk(market: str, timeframe: Timeframe, *, count: int, start_ms: int, now_ms: int) -> CandleWalk:
    """Yield the pages that hold the first ``count`` bars opening at or after ``start_ms``; return them oldest first.

    The exchange can only be read backwards, so windows are laid from the start on, each twice as long as the one
    before while bars are missing, until there are enough or the present is reached.
    """
    bars: tuple[Candle, ...] = ()
    window_ms = start_ms
    slots = count
    while len(bars) < count and window_ms <= now_ms:
        end_ms = timeframes.shift(timeframe, align_up(timeframe, window_ms), slots)
        bars += yield from candle_walk(market, timeframe, start_ms=window_ms, end_ms=end_ms)
        window_ms = end_ms
        slots *= 2
    return bars[:count]


def align_up(timeframe: Timeframe, at_ms: int) -> int:
    """The first open time at or after ``at_ms``."""
    open_ms = timeframes.floor(timeframe, at_ms)
    return at_ms if open_ms == at_ms else timeframes.next_open(timeframe, open_ms)


def _take(held: dict[int, Candle], page: tuple[Candle, ...]) -> None:
    # Windows overlap on thin stretches; of two readings of one bar the exchange's newer one counts.
    for candle in page:
        known = held.get(candle.open_ms)
        if known is None or candle.exchange_ms >= known.exchange_ms:
            held[candle.open_ms] = candle


def _slots_left(
    timeframe: Timeframe, held: dict[int, Candle], count: int | None, start_ms: int | None, to_ms: int | None
) -> int:
    # Slots, not bars: what is still unread before `to_ms`. The first page of an open end is a full one.
    left = CANDLES_LIMIT if count is None else count - len(held)
    if start_ms is None or to_ms is None:
        return left
    in_range = timeframes.bars_between(timeframe, start_ms, to_ms)
    return in_range if count is None else min(left, in_range)


def _windows(
    market: str, timeframe: Timeframe, to_ms: int | None, slots: int, ahead: int
) -> tuple[CandlesRequest, ...]:
    requests: list[CandlesRequest] = []
    while slots > 0 and len(requests) < ahead:
        size = min(CANDLES_LIMIT, slots)
        requests.append(CandlesRequest(market, timeframe, size, to_ms))
        slots -= size
        if to_ms is None:
            break  # the next window starts where this page ends, which only its answer tells
        to_ms = timeframes.shift(timeframe, to_ms, -size)
    return tuple(requests)


def _is_dense(timeframe: Timeframe, page: tuple[Candle, ...]) -> bool:
    if not page:
        return False
    opens = [candle.open_ms for candle in page]
    slots = timeframes.bars_between(timeframe, min(opens), max(opens) + 1)
    return len(page) >= DENSE * slots
