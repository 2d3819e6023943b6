"""What the market really was, written the way the exchange writes it, and held against what came out of the pipe.

The simulated market is a pure function of seed and time, so it is worked out again here, as of each value's own time;
it is read with ``json``, and not with the decoder that is under test. Every field is compared. Each function returns
one line for every value that differs, and none as it should be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from marketpipe.models import CandleSeries, CandleState, Orderbook, Side, Ticker, Trade
from marketpipe.sim import World
from marketpipe.sim.quotation import truth_candles, truth_trades
from marketpipe.sim.rows import orderbook_row, ticker_row

__all__ = ["CANDLE_FIELDS", "TICKER_FIELDS", "TRADE_FIELDS", "wrong_book", "wrong_candles", "wrong_tickers",
           "wrong_trades"]  # fmt: skip

DAY_MS = 86_400_000
BOOK_UNITS = 30

TICKER_FIELDS = {
    "market": "market",
    "change": "change",
    "high_52w_date": "highest_52_week_date",
    "low_52w_date": "lowest_52_week_date",
    "trade_ms": "trade_timestamp",
    "exchange_ms": "timestamp",
    "open": "opening_price",
    "high": "high_price",
    "low": "low_price",
    "price": "trade_price",
    "prev_close": "prev_closing_price",
    "signed_change": "signed_change_price",
    "signed_change_rate": "signed_change_rate",
    "last_volume": "trade_volume",
    "quote_volume": "acc_trade_price",
    "quote_volume_24h": "acc_trade_price_24h",
    "volume": "acc_trade_volume",
    "volume_24h": "acc_trade_volume_24h",
    "high_52w": "highest_52_week_price",
    "low_52w": "lowest_52_week_price",
}
CANDLE_FIELDS = {
    "market": "market",
    "open": "opening_price",
    "high": "high_price",
    "low": "low_price",
    "close": "trade_price",
    "volume": "candle_acc_trade_volume",
    "quote_volume": "candle_acc_trade_price",
    "exchange_ms": "timestamp",
}
TRADE_FIELDS = {
    "market": "market",
    "trade_ms": "timestamp",
    "sequential_id": "sequential_id",
    "price": "trade_price",
    "volume": "trade_volume",
}


def wrong_tickers(world: World, tickers: Iterable[Ticker], asked_ms: int) -> list[str]:
    """A ticker is what the market was at its last trade, and no newer trade had happened when it was asked."""
    return [line for ticker in tickers for line in _wrong_ticker(world, ticker, asked_ms)]


def wrong_book(world: World, book: Orderbook, asked_ms: int) -> list[str]:
    """A book is what it was when it last changed, and had not changed again when it was asked."""
    true = _read(orderbook_row(world.orderbook(book.market, book.exchange_ms), BOOK_UNITS, with_level=True))
    lines = [
        f"{book.market}: {side} differ" for side in ("bids", "asks") if _side(book, side) != _true_side(true, side)
    ]
    for name in ("total_bid_size", "total_ask_size", "level"):
        lines += _differs(book.market, name, getattr(book, name), true[name])
    if book.exchange_ms < world.orderbook(book.market, asked_ms).changed_ms:
        lines.append(f"{book.market}: the book is older than the question")
    return lines


def wrong_trades(world: World, market: str, trades: Sequence[Trade], asked_ms: int, count: int) -> list[str]:
    """The newest ``count`` trades, newest first, without a gap or a double."""
    if len(trades) != count:
        return [f"{market}: {len(trades)} trades came, {count} were asked"]
    oldest_first = _rows(truth_trades(world, market, trades[-1].trade_ms, trades[0].trade_ms + 1, trades[0].trade_ms))
    true = oldest_first[::-1][:count]
    lines = _wrong_rows(market, TRADE_FIELDS, trades, true)
    if [trade.side for trade in trades] != [Side.BUY if row["ask_bid"] == "BID" else Side.SELL for row in true]:
        lines.append(f"{market}: the sides differ")
    newest = world.newest_trades(market, asked_ms - DAY_MS, asked_ms + 1, asked_ms, 1)
    if newest and newest[0].at_ms > trades[0].trade_ms:
        lines.append(f"{market}: the newest trade is missing")
    return lines


def wrong_candles(world: World, series: CandleSeries, count: int, end_ms: int) -> list[str]:
    """The last ``count`` bars that open before ``end_ms``, which has passed: none more, none less, all final."""
    bars = world.newest_candles(series.market, series.timeframe, end_ms, count, end_ms)
    start_ms = bars[-1].open_ms if bars else end_ms
    true = _rows(truth_candles(world, series.market, series.timeframe, start_ms, end_ms, end_ms))
    lines = _wrong_rows(series.market, CANDLE_FIELDS, series, true)
    if [f"{bar.open_time:%Y-%m-%dT%H:%M:%S}" for bar in series] != [row["candle_date_time_utc"] for row in true]:
        lines.append(f"{series.market}: the open times differ")
    unfinished = [bar for bar in series if bar.state is not CandleState.FINAL]
    return lines + [f"{bar.market}: the bar of {bar.open_time} is {bar.state}" for bar in unfinished]


def _wrong_ticker(world: World, ticker: Ticker, asked_ms: int) -> Iterator[str]:
    # A market that has not traded today is summed up as of 00:00 UTC of the day it was answered.
    midnight_ms = ticker.received_ms - ticker.received_ms % DAY_MS
    true = _read(ticker_row(world.ticker(ticker.market, max(ticker.trade_ms, midnight_ms)), kr=True))
    for ours, theirs in TICKER_FIELDS.items():
        yield from _differs(ticker.market, ours, getattr(ticker, ours), true[theirs])
    if ticker.trade_ms < world.ticker(ticker.market, asked_ms).last.at_ms:
        yield f"{ticker.market}: the ticker is older than the question"


def _wrong_rows(
    market: str, fields: Mapping[str, str], ours: Sequence[object], theirs: Sequence[Mapping[str, Any]]
) -> list[str]:
    if len(ours) != len(theirs):
        return [f"{market}: {len(ours)} rows came, the market had {len(theirs)}"]
    return [
        line
        for value, row in zip(ours, theirs, strict=True)
        for name, wire_name in fields.items()
        for line in _differs(market, name, getattr(value, name), row[wire_name])
    ]


def _differs(market: str, name: str, ours: object, theirs: object) -> list[str]:
    if isinstance(ours, date):
        ours = ours.isoformat()
    return [] if ours == theirs else [f"{market}: {name} is {ours}, the market's is {theirs}"]


def _side(book: Orderbook, side: str) -> list[tuple[Decimal, Decimal]]:
    return [(level.price, level.size) for level in getattr(book, side)]


def _true_side(row: Mapping[str, Any], side: str) -> list[tuple[Decimal, Decimal]]:
    # Slots of size 0 pad a side that has few orders; they are no levels.
    word = side.removesuffix("s")
    return [(u[f"{word}_price"], u[f"{word}_size"]) for u in row["orderbook_units"] if u[f"{word}_size"]]


def _rows(body: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _read(body)
    return rows


def _read(body: str | bytes) -> Any:
    return json.loads(body, parse_float=Decimal)
