"""Questions that take several pages, as generators: they yield requests that may go together and are sent the pages.

Nothing here waits, retries or paces; whoever drives the generator does. Every walk returns its rows when it is done
(`StopIteration.value`), and raises `BadPayload` for a page that is not what was asked for, where going on would never
end.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Generator

from marketpipe.core import timeframes
from marketpipe.core.requests import CANDLES_LIMIT, TRADES_LIMIT, CandlesRequest, TradesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import BadPayload
from marketpipe.models import Candle, Trade

__all__ = ["CandleWalk", "TradeWalk", "candle_walk", "candles_back", "forward_walk", "trade_walk"]

# The exchange keeps the trades of the current UTC day and of the seven before it
# (reference/list-pair-trades, 2026-07-28).
TRADE_DAYS = 8
# Pages asked for at once: enough to keep every slot of a second busy several times over, few enough to stay flat in
# memory and fair to others when a million bars are asked.
PAGES_AT_ONCE = 40
# After pages that were dense, so many times more are asked at once: what is lost where a thin stretch follows then
# never exceeds a small multiple of what was gained before it.
GROWTH = 4
# Pages are called dense if at least this share of their slots has a bar; the next windows can then be foretold.
DENSE = 0.9

TradeWalk = Generator[tuple[TradesRequest, ...], tuple[tuple[Trade, ...], ...], tuple[Trade, ...]]
CandleWalk = Generator[tuple[CandlesRequest, ...], tuple[tuple[Candle, ...], ...], tuple[Candle, ...]]


def trade_walk(market: str, count: int) -> TradeWalk:
    """Yield the pages that hold the newest ``count`` trades as of the first page; return them newest first.

    Fewer come back if the exchange keeps no more. A page never crosses its UTC day, and the next page's cursor is the
    last id of the one before (reference/list-pair-trades, 2026-07-28). Days are counted back from the exchange's own
    today: if midnight passes during the walk, the day that was being read comes again, and is read on from where the
    walk was, not from its top. What was traded meanwhile stays out, or there would be a hole below it.
    """
    held: dict[int, Trade] = {}
    last: Trade | None = None
    for days_ago in range(TRADE_DAYS):
        cursor = None
        while len(held) < count:
            size = min(TRADES_LIMIT, count - len(held))
            (page,) = yield (TradesRequest(market, size, cursor, days_ago),)
            days_on = _days_between(last, page)
            if days_on == 0 and cursor is None and last is not None:
                cursor = last.sequential_id
                continue
            if days_on > 0:
                break
            held.update((trade.sequential_id, trade) for trade in page)
            last = page[-1] if page else last
            if len(page) < size:
                break
            cursor = _next_cursor(page, cursor)
    return tuple(sorted(held.values(), key=lambda trade: (trade.trade_ms, trade.sequential_id), reverse=True))


def candle_walk(
    market: str, timeframe: Timeframe, *, count: int | None = None, start_ms: int | None = None, end_ms: int | None
) -> CandleWalk:
    """Yield the pages that hold the bars opening before ``end_ms`` (None: now), back to ``start_ms`` or ``count`` bars.

    Returns them oldest first.
    """
    bars = yield from candles_back(market, timeframe, count=count, start_ms=start_ms, end_ms=end_ms)
    if start_ms is not None:
        bars = tuple(bar for bar in bars if bar.open_ms >= start_ms)
    return bars if count is None else bars[-count:]


def candles_back(
    market: str, timeframe: Timeframe, *, count: int | None = None, start_ms: int | None = None, end_ms: int | None
) -> CandleWalk:
    """As `candle_walk`, but with the bars beyond ``start_ms`` or ``count`` that its pages brought: no hole among them.

    If the oldest bar opens after ``start_ms`` and there are fewer than ``count``, the history begins with it.

    Pages are asked backwards, since ``to`` is the only cursor there is and is exclusive on the open time
    (reference/list-candles-minutes, 2026-07-28). A page of n rows before ``to`` reaches back at least n slots, so
    consecutive windows of n slots leave no hole; on dense markets they are asked together, on thin ones one after the
    other, because a thin page reaches far beyond its window. A page shorter than asked ends the history. A range
    costs at most one request per 200 of its slots, whatever the history.
    """
    held: dict[int, Candle] = {}
    to_ms = None if end_ms is None else timeframes.ceil(timeframe, end_ms)
    ahead = 1
    while requests := _windows(market, timeframe, to_ms, _slots_left(timeframe, held, count, start_ms, to_ms), ahead):
        pages = yield requests
        for request, page in zip(requests, pages, strict=True):
            _take(held, request, page)
        if any(len(page) < request.count for request, page in zip(requests, pages, strict=True)):
            break
        opens = {candle.open_ms for page in pages for candle in page}
        to_ms = min(opens)
        ahead = min(PAGES_AT_ONCE, GROWTH * len(requests)) if _is_dense(timeframe, opens) else 1
    return tuple(sorted(held.values(), key=lambda candle: candle.open_ms))


def forward_walk(market: str, timeframe: Timeframe, *, count: int, start_ms: int, now_ms: int) -> CandleWalk:
    """Yield the pages that hold the first ``count`` bars opening at or after ``start_ms``; return them oldest first.

    The exchange can only be read backwards, so windows are laid from the start on. They grow while they hold few
    bars, and a window with more slots than bars are wanted is only read if one page holds it, otherwise halved: the
    search for a market's first bar may pass years, and must not read the years after it. It is a binary search.
    """
    bars: tuple[Candle, ...] = ()
    window_ms = timeframes.ceil(timeframe, start_ms)
    slots = max(count, CANDLES_LIMIT)
    narrowing = False
    while len(bars) < count and window_ms <= now_ms:
        left = max(count - len(bars), CANDLES_LIMIT)
        slots = min(slots, timeframes.bars_between(timeframe, window_ms, now_ms + 1))
        end_ms = timeframes.shift(timeframe, window_ms, slots)
        to_ms = end_ms if end_ms <= now_ms else None  # nothing is known of how the exchange takes a future `to`
        found = yield from candles_back(
            market, timeframe, count=None if slots <= left else CANDLES_LIMIT, start_ms=window_ms, end_ms=to_ms
        )
        if slots > left and len(found) == CANDLES_LIMIT and found[0].open_ms > window_ms:
            slots, narrowing = slots // 2, True
            continue
        found = tuple(bar for bar in found if bar.open_ms >= window_ms)
        bars += found
        window_ms = end_ms
        narrowing = narrowing and not found  # the other half is the full one
        if narrowing:
            slots = max(slots // 2, CANDLES_LIMIT)
        else:
            slots = 2 * slots if 2 * len(found) <= CANDLES_LIMIT else max(count - len(bars), CANDLES_LIMIT)
    return bars[:count]


def _days_between(last: Trade | None, page: tuple[Trade, ...]) -> int:
    # UTC days from `last` to the page: negative while the walk goes back, as it should.
    if last is None or not page:
        return -1
    return page[-1].trade_ms // timeframes.DAY_MS - last.trade_ms // timeframes.DAY_MS


def _next_cursor(page: tuple[Trade, ...], cursor: int | None) -> int:
    last = page[-1]
    if last.sequential_id == cursor:
        raise BadPayload(f"the page after cursor {cursor} ends with that trade again", market=last.market)
    return last.sequential_id


def _take(held: dict[int, Candle], request: CandlesRequest, page: tuple[Candle, ...]) -> None:
    # Windows overlap on thin stretches; of two readings of one bar the exchange's newer one counts.
    for candle in page:
        if request.to_ms is not None and candle.open_ms >= request.to_ms:
            raise BadPayload(
                f"a bar opens at {candle.open_ms}, asked were those before {request.to_ms}", market=candle.market
            )
        known = held.get(candle.open_ms)
        if known is None or candle.exchange_ms >= known.exchange_ms:
            held[candle.open_ms] = candle


def _slots_left(
    timeframe: Timeframe, held: dict[int, Candle], count: int | None, start_ms: int | None, to_ms: int | None
) -> int:
    # Slots, not bars: what is still unread before `to_ms`. The first page of an open end is a full one.
    left = CANDLES_LIMIT if count is None else count - len(held)
    if start_ms is None or to_ms is None or left <= 0:
        return left
    in_range = timeframes.bars_between(timeframe, start_ms, to_ms)
    # Rows are cheap: full pages, since bars may be missing among the slots before the start.
    return in_range if count is None else min(math.ceil(left / CANDLES_LIMIT) * CANDLES_LIMIT, in_range)


def _windows(
    market: str, timeframe: Timeframe, to_ms: int | None, slots: int, ahead: int
) -> tuple[CandlesRequest, ...]:
    requests: list[CandlesRequest] = []
    while slots > 0 and len(requests) < ahead and (to_ms is None or to_ms > 0):
        size = min(CANDLES_LIMIT, slots)
        requests.append(CandlesRequest(market, timeframe, size, to_ms))
        slots -= size
        if to_ms is None:
            break  # the next window starts where this page ends, which only its answer tells
        to_ms = timeframes.shift(timeframe, to_ms, -size)
    return tuple(requests)


def _is_dense(timeframe: Timeframe, opens: Collection[int]) -> bool:
    return len(opens) >= DENSE * timeframes.bars_between(timeframe, min(opens), max(opens) + 1)
