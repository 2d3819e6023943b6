"""An exchange made of two lists: bars and trades paged by the exchange's rules, in as few lines as can be checked.

The walks of `marketpipe.core` are held against it. It notes every request and every round of requests.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from unittest import mock

import attrs
from hypothesis import strategies as st

from marketpipe.core import paging, timeframes
from marketpipe.core.requests import CandlesRequest, TradesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleState, Side, Source, Trade

# A Wednesday in the middle of a minute, an hour, a week, a month and a year.
NOW_MS = int(datetime(2026, 9, 23, 12, 34, 56, tzinfo=UTC).timestamp()) * 1000
DAY_MS = 86_400_000
GRACE_MS = 2_000
# Small pages, so that a few dozen rows already need rounds of several requests.
PAGE = 5


def small_pages() -> AbstractContextManager[object]:
    """The walks believe that a page holds no more than `PAGE` rows."""
    return mock.patch.multiple(paging, CANDLES_LIMIT=PAGE, TRADES_LIMIT=PAGE, PAGES_AT_ONCE=8)


def bar(timeframe: Timeframe, open_ms: int, now_ms: int = NOW_MS, **changes: Any) -> Candle:
    """A bar whose prices tell it from its neighbours; RUNNING until its slot and the grace after it are over."""
    price = Decimal(1000 + open_ms // 1000 % 997)
    over = timeframes.next_open(timeframe, open_ms) + GRACE_MS <= now_ms
    values = {
        "market": "KRW-BTC",
        "timeframe": timeframe,
        "open_ms": open_ms,
        "open": price - 1,
        "high": price + 2,
        "low": price - 2,
        "close": price,
        "volume": Decimal("1.5"),
        "quote_volume": Decimal("1500"),
        "exchange_ms": open_ms + 500,
        "received_ms": now_ms,
        "source": Source.REST,
        "state": CandleState.FINAL if over else CandleState.RUNNING,
    }
    return Candle(**{**values, **changes})


def final(candle: Candle) -> Candle:
    return candle if candle.state is CandleState.FINAL else attrs.evolve(candle, state=CandleState.FINAL)


def history(timeframe: Timeframe, slots_ago: Iterable[int], now_ms: int = NOW_MS) -> tuple[Candle, ...]:
    """Bars in the slots that many bars before the running one (0), oldest first."""
    running_ms = timeframes.floor(timeframe, now_ms)
    opens = sorted({timeframes.shift(timeframe, running_ms, -ago) for ago in slots_ago})
    bars = [bar(timeframe, open_ms, now_ms) for open_ms in opens]
    return (*map(final, bars[:-1]), *bars[-1:])


@attrs.frozen
class Story:
    """A market's bars, oldest first, as of ``now_ms``."""

    timeframe: Timeframe
    bars: tuple[Candle, ...] = attrs.field(repr=lambda bars: f"<opening at {[candle.open_ms for candle in bars]}>")
    now_ms: int = NOW_MS


def slots_since_1970(timeframe: Timeframe) -> int:
    return timeframes.bars_between(timeframe, 0, NOW_MS)


@st.composite
def stories(draw: st.DrawFn, now_ms: int | None = NOW_MS) -> Story:
    """Stretches of bars, most of them dense, between stretches without; now is somewhere in a slot."""
    timeframe = draw(st.sampled_from(Timeframe))
    if now_ms is None:
        into = draw(st.sampled_from([0, 500, 1_000, 1_999, 2_000, 2_001, 2_999, 3_000, 30_000]))
        now_ms = timeframes.floor(timeframe, NOW_MS) + into
    slots: list[int] = []
    ago = 0
    stretch = st.tuples(st.integers(0, 60) | st.integers(0, 2), st.integers(1, 40), st.sampled_from([1, 1, 1, 2, 7]))
    for gap, run, every in draw(st.lists(stretch, max_size=8)):
        ago += gap
        slots += range(ago, ago + run * every, every)
        ago += run * every
    slots = [ago for ago in slots if ago < slots_since_1970(timeframe)]
    return Story(timeframe, history(timeframe, slots, now_ms), now_ms)


@st.composite
def moments(draw: st.DrawFn, timeframe: Timeframe) -> int:
    """From before the oldest bar there may be to after now; on a boundary or between two."""
    ago = draw(st.integers(-30, min(700, slots_since_1970(timeframe) - 1)) | st.integers(-3, 10))
    open_ms = timeframes.shift(timeframe, timeframes.floor(timeframe, NOW_MS), -ago)
    return open_ms + draw(st.sampled_from([0, 0, 1, -1, 777]))


@attrs.define(eq=False)
class Drive:
    """Runs a walk against ``answer`` and notes what it asks."""

    answer: Callable[[Any], tuple[Any, ...]]
    rounds: list[tuple[Any, ...]] = attrs.field(factory=list)

    @property
    def requests(self) -> list[Any]:
        return [request for asked in self.rounds for request in asked]

    def run(self, walk: Generator[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]], at_most: int = 5000) -> Any:
        """What the walk returns; fails if it asks more than ``at_most`` requests."""
        pages = None
        while True:
            try:
                asked = next(walk) if pages is None else walk.send(pages)
            except StopIteration as stop:
                return stop.value
            self.rounds.append(asked)
            assert len(self.requests) <= at_most, f"the walk does not end: {asked}"
            pages = tuple(self.answer(request) for request in asked)


@attrs.define(eq=False)
class CandleExchange:
    """``bars`` oldest first. ``to`` is exclusive on the open time; pages are newest first and hold ``limit`` bars.

    A bar that is not the newest of its page is FINAL.
    """

    bars: Sequence[Candle]
    limit: int = 200
    _opens: list[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._opens = [candle.open_ms for candle in self.bars]

    def page(self, request: CandlesRequest) -> tuple[Candle, ...]:
        assert 1 <= request.count <= self.limit, request
        end = len(self.bars) if request.to_ms is None else bisect_left(self._opens, request.to_ms)
        newest_first = self.bars[max(0, end - request.count) : end][::-1]
        return (*newest_first[:1], *map(final, newest_first[1:]))


@attrs.frozen
class Deal:
    """A trade and the request (counted from 0) from which on the exchange shows it."""

    trade: Trade
    shown_from: int = 0


def trade(trade_ms: int, sequential_id: int) -> Trade:
    price = Decimal(100 + sequential_id % 7)
    return Trade("KRW-BTC", Side.BUY, trade_ms, sequential_id, price, Decimal(1), trade_ms, NOW_MS, Source.REST)


@attrs.define(eq=False)
class TradeExchange:
    """Trades of the UTC days that ``days_ago`` counts back from ``today_ms``, newest first, a cursor at a time.

    ``by_id`` orders and continues by id, as an index on it would; otherwise by time. At the request ``midnight_at``
    (counted from 0) a new day begins.
    """

    deals: Sequence[Deal]
    today_ms: int
    by_id: bool = False
    midnight_at: int | None = None
    limit: int = 500
    asked: int = 0

    def page(self, request: TradesRequest) -> tuple[Trade, ...]:
        assert 1 <= request.count <= self.limit, request
        assert 0 <= request.days_ago <= 7, request
        if self.asked == self.midnight_at:
            self.today_ms += DAY_MS
        day_ms = self.today_ms - request.days_ago * DAY_MS
        shown = [deal.trade for deal in self.deals if deal.shown_from <= self.asked]
        self.asked += 1
        cursor = next((self._rank(deal) for deal in shown if deal.sequential_id == request.cursor), None)
        rows = [deal for deal in shown if 0 <= deal.trade_ms - day_ms < DAY_MS]
        rows = [row for row in rows if cursor is None or self._rank(row) < cursor]
        return tuple(sorted(rows, key=self._rank, reverse=True)[: request.count])

    def _rank(self, row: Trade) -> tuple[int, int]:
        return (row.sequential_id, 0) if self.by_id else (row.trade_ms, row.sequential_id)
