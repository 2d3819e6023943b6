"""The answers of the quotation API: path and query in, status and bytes out; no network, no limits, no clock.

Rules are those of reference/list-candles-*, list-pair-trades, list-tickers, list-quote-tickers, list-orderbooks,
list-orderbook-instruments (2026-07-28) and list-trading-pairs (2026-07-29), and of observations where those are
silent: a ``count`` too large is clamped, ``to`` excludes the bar that opens at it, a market without data is ``[]``, one
unknown code in a batch is 404 for all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import attrs

from marketpipe.core.timeframes import Timeframe
from marketpipe.sim.day import Bar
from marketpipe.sim.draw import draw
from marketpipe.sim.lexemes import fixed8
from marketpipe.sim.params import INVALID, MISTYPED, NOT_FOUND, Parameters, RefusedRequest
from marketpipe.sim.rows import (
    candle_row,
    day_row,
    instrument_row,
    levels_row,
    market_row,
    orderbook_row,
    ticker_row,
    trade_row,
)
from marketpipe.sim.tape import DAY_MS
from marketpipe.sim.ticks import E8, group_levels
from marketpipe.sim.world import World

__all__ = ["Answer", "Options", "answer", "group_of", "truth_candles", "truth_trades"]

CANDLES_LIMIT = 200
TRADES_LIMIT = 500
BOOK_UNITS = 30
TRADE_DAYS = 7
# candles/seconds goes back "three months" (reference/list-candles-seconds, 2026-07-28).
SECONDS_KEPT_MS = 92 * DAY_MS
QUOTES = ("KRW", "BTC", "USDT")
NO_ROUTE = b'{"error":{"name":"not_found","message":"no Route matched with those values"}}'
BAD_UNIT = "specified unit is not valid."
MINUTES = {
    1: Timeframe.M1,
    3: Timeframe.M3,
    5: Timeframe.M5,
    10: Timeframe.M10,
    15: Timeframe.M15,
    30: Timeframe.M30,
    60: Timeframe.H1,
    240: Timeframe.H4,
}
PERIODS = {
    "seconds": Timeframe.S1,
    "days": Timeframe.D1,
    "weeks": Timeframe.W1,
    "months": Timeframe.MONTH,
    "years": Timeframe.Y1,
}


@attrs.frozen(kw_only=True)
class Options:
    """Habits of the exchange that differ by region or that nobody has recorded; the defaults are the likeliest.

    - ``region``: ``kr`` has Korean names, market events and KST fields; the others have not, and refuse ``level``.
    - ``row_order``: of a batch's rows: as requested, reversed, by code, or shuffled (differently each millisecond).
    - ``duplicates``: a market asked twice in a batch is answered ``once`` or ``each`` time.
    - ``future_to``: a ``to`` after now is as good as none (``newest``) or refused (``error``).
    - ``nonpositive_count``: a ``count`` of 0 or less for candles or trades is refused (``error``) or taken as 1.
    - ``unknown_quote``: ticker/all for a quote currency that is none is refused (``error``) or has no rows (``skip``).
    """

    region: Literal["kr", "sg", "id", "th"] = "kr"
    row_order: Literal["request", "reversed", "sorted", "shuffled"] = "request"
    duplicates: Literal["once", "each"] = "once"
    future_to: Literal["newest", "error"] = "newest"
    nonpositive_count: Literal["error", "one"] = "error"
    unknown_quote: Literal["error", "skip"] = "error"


@attrs.frozen
class Answer:
    """``group`` is the rate-limit group as ``Remaining-Req`` spells it; None where nothing listens."""

    status: int
    body: bytes
    group: str | None


@attrs.frozen
class _Call:
    world: World
    parameters: Parameters
    now_ms: int
    options: Options

    @property
    def kr(self) -> bool:
        return self.options.region == "kr"


def group_of(path: str) -> str | None:
    """The rate-limit group that answers ``path``: market, ticker, orderbook, crix-trades or candles; None: no route."""
    if path.startswith("/v1/candles/"):
        kind, slash, unit = path.removeprefix("/v1/candles/").partition("/")
        known = kind in PERIODS if not slash else kind == "minutes" and unit and "/" not in unit
        return "candles" if known else None
    route = _ROUTES.get(path)
    return route[0] if route else None


def answer(
    world: World, path: str, query: Iterable[tuple[str, str]], now_ms: int, options: Options | None = None
) -> Answer:
    """What the exchange answers to a GET of ``path``; ``query`` holds percent-decoded pairs in their order."""
    group = group_of(path)
    if group is None:
        return Answer(404, NO_ROUTE, None)
    call = _Call(world, Parameters(query), now_ms, options or Options())
    try:
        rows = _candles(call, path) if group == "candles" else _ROUTES[path][1](call)
    except RefusedRequest as refused:
        body = f'{{"error":{{"name":{refused.status},"message":"{refused.message}"}}}}'
        return Answer(refused.status, body.encode(), group)
    return Answer(200, _array(rows), group)


def truth_candles(world: World, market: str, timeframe: Timeframe, start_ms: int, end_ms: int, now_ms: int) -> bytes:
    """The bars that open in ``[start_ms, end_ms)``, oldest first, as rows of the candle endpoints; any number.

    Raises ``KeyError`` if the market is not listed.
    """
    bars = world.candles(market, timeframe, start_ms, end_ms, now_ms)
    return _array(_bar_rows(_Call(world, Parameters(()), now_ms, Options()), market, timeframe, bars[::-1])[::-1])


def truth_trades(world: World, market: str, start_ms: int, end_ms: int, now_ms: int) -> bytes:
    """The trades in ``[start_ms, end_ms)``, oldest first, as rows of trades/ticks; any number.

    Raises ``KeyError`` if the market is not listed.
    """
    closes: dict[int, int] = {}
    rows = []
    for deal in world.trades(market, start_ms, end_ms, now_ms):
        day_ms = deal.at_ms - deal.at_ms % DAY_MS
        if day_ms not in closes:
            closes[day_ms] = world.previous_close(market, day_ms, now_ms)
        rows.append(trade_row(market, deal, closes[day_ms]))
    return _array(rows)


def _array(rows: Iterable[str]) -> bytes:
    return f"[{','.join(rows)}]".encode()


def _markets(call: _Call) -> list[str]:
    details = call.parameters.truth("is_details", "isDetails")
    codes = call.world.listed(call.now_ms)
    return [market_row(call.world.market(code), details=details, kr=call.kr) for code in codes]


def _tickers(call: _Call) -> list[str]:
    return _ticker_rows(call, _batch(call, call.parameters.listed("markets")))


def _quote_tickers(call: _Call) -> list[str]:
    quotes = list(dict.fromkeys(call.parameters.listed("quote_currencies")))
    if call.options.unknown_quote == "error" and not all(quote in QUOTES for quote in quotes):
        raise RefusedRequest(400, INVALID)
    listed = call.world.listed(call.now_ms)
    codes = [code for quote in quotes for code in listed if code.partition("-")[0] == quote]
    return _ticker_rows(call, _ordered(call, codes))


def _ticker_rows(call: _Call, codes: list[str]) -> list[str]:
    return [ticker_row(call.world.ticker(code, call.now_ms), call.kr) for code in codes]


def _orderbooks(call: _Call) -> list[str]:
    codes = call.parameters.listed("markets")
    count = call.parameters.whole("count")
    level = call.parameters.units("level")
    if not call.kr and call.parameters.text("level") is not None:
        raise RefusedRequest(400, INVALID)
    if count is None or not 1 <= count <= BOOK_UNITS:
        count = BOOK_UNITS
    books = [
        call.world.orderbook(code, call.now_ms, level)
        for code in _batch(call, [code.upper() for code in codes])
        if level in _group_levels(call, code)
    ]
    return [orderbook_row(book, count, with_level=call.kr) for book in books]


def _instruments(call: _Call) -> list[str]:
    codes = _batch(call, call.parameters.listed("markets"))
    return [instrument_row(call.world.market(code), call.world.ticker(code, call.now_ms).last.price) for code in codes]


def _supported_levels(call: _Call) -> list[str]:
    return [levels_row(call.world.market(code)) for code in _batch(call, call.parameters.listed("markets"))]


def _trades(call: _Call) -> list[str]:
    parameters = call.parameters
    code = parameters.required("market")
    count = _count(call, TRADES_LIMIT)
    cursor = parameters.whole("cursor", bits=64)
    days_ago = parameters.whole("days_ago", "daysAgo")
    if days_ago is not None and not 1 <= days_ago <= TRADE_DAYS:
        raise RefusedRequest(400, INVALID)
    until_ms = parameters.time_of_day_ms("to")
    _must_be_listed(call, [code])
    day_ms = call.now_ms - call.now_ms % DAY_MS - (days_ago or 0) * DAY_MS
    end_ms = day_ms + (DAY_MS if until_ms is None else until_ms)
    deals = call.world.newest_trades(code, day_ms, end_ms, call.now_ms, count, cursor)
    if not deals:
        return []
    previous_close = call.world.previous_close(code, day_ms, call.now_ms)
    return [trade_row(code, deal, previous_close) for deal in deals]


def _candles(call: _Call, path: str) -> list[str]:
    kind, _, unit = path.removeprefix("/v1/candles/").partition("/")
    code = call.parameters.required("market")
    count = _count(call, CANDLES_LIMIT)
    timeframe = PERIODS[kind] if kind in PERIODS else _minutes(unit)
    before_ms = call.parameters.moment_ms("to")
    if before_ms is None or before_ms > call.now_ms:
        if before_ms is not None and call.options.future_to == "error":
            raise RefusedRequest(400, INVALID)
        before_ms = call.now_ms + 1
    if timeframe is Timeframe.D1 and call.parameters.text("converting_price_unit") not in (None, "KRW"):
        raise RefusedRequest(400, INVALID)
    _must_be_listed(call, [code])
    return _bar_rows(call, code, timeframe, _page(call, code, timeframe, before_ms, count))


def _page(call: _Call, code: str, timeframe: Timeframe, before_ms: int, count: int) -> list[Bar]:
    bars = call.world.newest_candles(code, timeframe, before_ms, count, call.now_ms)
    if timeframe is not Timeframe.S1:
        return bars
    return [bar for bar in bars if bar.open_ms >= call.now_ms - SECONDS_KEPT_MS]


def _bar_rows(call: _Call, code: str, timeframe: Timeframe, newest_first: list[Bar]) -> list[str]:
    if timeframe is not Timeframe.D1:
        return [candle_row(code, timeframe, bar, kr=call.kr) for bar in newest_first]
    if not newest_first:
        return []
    converted = call.parameters.text("converting_price_unit") is not None
    before_all = call.world.previous_close(code, newest_first[-1].open_ms, call.now_ms)
    # The day before the visible one may have had no trade: its close is still the last price before today.
    previous = [*(bar.close for bar in newest_first[1:]), before_all]
    return [
        day_row(code, bar, close, _converted(call, code, bar) if converted else "", kr=call.kr)
        for bar, close in zip(newest_first, previous, strict=True)
    ]


def _converted(call: _Call, code: str, bar: Bar) -> str:
    # In KRW by that day's close of the quote currency; null for what is quoted in KRW (reference/list-candles-days).
    bridge = f"KRW-{code.partition('-')[0]}"
    if not call.world.is_listed(bridge, call.now_ms):
        return ',"converted_trade_price":null'
    rates = call.world.newest_candles(bridge, Timeframe.D1, bar.open_ms + 1, 1, call.now_ms)
    return f',"converted_trade_price":{fixed8(bar.close * rates[0].close // E8) if rates else "null"}'


def _minutes(unit: str) -> Timeframe:
    if not unit.isascii() or not unit.isdigit() or len(unit) > 9:
        raise RefusedRequest(400, MISTYPED)
    if int(unit) not in MINUTES:
        raise RefusedRequest(400, BAD_UNIT)
    return MINUTES[int(unit)]


def _count(call: _Call, limit: int) -> int:
    count = call.parameters.whole("count")
    if count is None:
        return 1
    if count < 1 and call.options.nonpositive_count == "error":
        raise RefusedRequest(400, INVALID)
    return min(max(count, 1), limit)


def _batch(call: _Call, codes: list[str]) -> list[str]:
    _must_be_listed(call, codes)
    if call.options.duplicates == "once":
        codes = list(dict.fromkeys(codes))
    return _ordered(call, codes)


def _ordered(call: _Call, codes: list[str]) -> list[str]:
    match call.options.row_order:
        case "reversed":
            return codes[::-1]
        case "sorted":
            return sorted(codes)
        case "shuffled":
            return sorted(codes, key=lambda code: draw(1 << 32, call.world.seed, call.now_ms, code))
    return codes


def _must_be_listed(call: _Call, codes: Iterable[str]) -> None:
    if not all(call.world.is_listed(code, call.now_ms) for code in codes):
        raise RefusedRequest(404, NOT_FOUND)


def _group_levels(call: _Call, code: str) -> tuple[int, ...]:
    market = call.world.market(code)
    return group_levels(market.quote, market.step, market.base * market.step)


_ROUTES: dict[str, tuple[str, Callable[[_Call], list[str]]]] = {
    "/v1/market/all": ("market", _markets),
    "/v1/ticker": ("ticker", _tickers),
    "/v1/ticker/all": ("ticker", _quote_tickers),
    "/v1/orderbook": ("orderbook", _orderbooks),
    "/v1/orderbook/instruments": ("orderbook", _instruments),
    "/v1/orderbook/supported_levels": ("orderbook", _supported_levels),
    "/v1/trades/ticks": ("crix-trades", _trades),
}
