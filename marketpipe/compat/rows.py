"""Values as the exchange's own rows: plain dicts with Upbit's field names, in Upbit's order, numbers as `Decimal`.

What the rows are: https://docs.upbit.com/kr/reference, the pages list-tickers, list-orderbooks, list-pair-trades,
list-trading-pairs and list-candles-minutes to list-candles-years (2026-07-28 and -29). Times and identifiers are whole
numbers there and here.

A field that the pipe does not keep is left out rather than made up: ``prev_closing_price`` and ``change_price`` of a
trade, and with ``change_rate`` those of a daily candle.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import zip_longest
from typing import Any

from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, Level, Market, Orderbook, Side, Ticker, Trade

__all__ = ["Row", "candle_row", "market_row", "orderbook_row", "ticker_row", "trade_row"]

Row = dict[str, Any]

# Korea has no summer time.
KST = timezone(timedelta(hours=9), "KST")
# The shorter side of a book is padded so, to as many units as the longer one has.
PADDING = Level(Decimal(0), Decimal(0))
# The alerts of market_event.caution (reference/list-trading-pairs, 2026-07-29).
CAUTIONS = (
    "PRICE_FLUCTUATIONS",
    "TRADING_VOLUME_SOARING",
    "DEPOSIT_AMOUNT_SOARING",
    "GLOBAL_PRICE_DIFFERENCES",
    "CONCENTRATION_OF_SMALL_ACCOUNTS",
)
UNITS = {
    Timeframe.M1: 1,
    Timeframe.M3: 3,
    Timeframe.M5: 5,
    Timeframe.M10: 10,
    Timeframe.M15: 15,
    Timeframe.M30: 30,
    Timeframe.H1: 60,
    Timeframe.H4: 240,
}
PERIODS = (Timeframe.W1, Timeframe.MONTH, Timeframe.Y1)


def ticker_row(ticker: Ticker) -> Row:
    """A row of ``/v1/ticker``."""
    utc, kst = _utc(ticker.trade_ms), _kst(ticker.trade_ms)
    return {
        "market": ticker.market,
        "trade_date": f"{utc:%Y%m%d}",
        "trade_time": f"{utc:%H%M%S}",
        "trade_date_kst": f"{kst:%Y%m%d}",
        "trade_time_kst": f"{kst:%H%M%S}",
        "trade_timestamp": ticker.trade_ms,
        "opening_price": ticker.open,
        "high_price": ticker.high,
        "low_price": ticker.low,
        "trade_price": ticker.price,
        "prev_closing_price": ticker.prev_close,
        "change": str(ticker.change),
        "change_price": ticker.signed_change.copy_abs(),
        "change_rate": ticker.signed_change_rate.copy_abs(),
        "signed_change_price": ticker.signed_change,
        "signed_change_rate": ticker.signed_change_rate,
        "trade_volume": ticker.last_volume,
        "acc_trade_price": ticker.quote_volume,
        "acc_trade_price_24h": ticker.quote_volume_24h,
        "acc_trade_volume": ticker.volume,
        "acc_trade_volume_24h": ticker.volume_24h,
        "highest_52_week_price": ticker.high_52w,
        "highest_52_week_date": ticker.high_52w_date.isoformat(),
        "lowest_52_week_price": ticker.low_52w,
        "lowest_52_week_date": ticker.low_52w_date.isoformat(),
        "timestamp": ticker.exchange_ms,
    }


def orderbook_row(book: Orderbook) -> Row:
    """A row of ``/v1/orderbook``; unit i is the i-th best of each side."""
    return {
        "market": book.market,
        "timestamp": book.exchange_ms,
        "total_ask_size": book.total_ask_size,
        "total_bid_size": book.total_bid_size,
        "orderbook_units": [
            {"ask_price": ask.price, "bid_price": bid.price, "ask_size": ask.size, "bid_size": bid.size}
            for ask, bid in zip_longest(book.asks, book.bids, fillvalue=PADDING)
        ],
        "level": book.level,
    }


def trade_row(trade: Trade) -> Row:
    """A row of ``/v1/trades/ticks``, without the previous close and the change against it."""
    utc = _utc(trade.trade_ms)
    return {
        "market": trade.market,
        "trade_date_utc": f"{utc:%Y-%m-%d}",
        "trade_time_utc": f"{utc:%H:%M:%S}",
        "timestamp": trade.trade_ms,
        "trade_price": trade.price,
        "trade_volume": trade.volume,
        "ask_bid": "BID" if trade.side is Side.BUY else "ASK",
        "sequential_id": trade.sequential_id,
    }


def candle_row(candle: Candle) -> Row:
    """A row of ``/v1/candles/...``, a daily one without the previous close and the change against it."""
    utc = _utc(candle.open_ms)
    row: Row = {
        "market": candle.market,
        "candle_date_time_utc": f"{utc:%Y-%m-%dT%H:%M:%S}",
        "candle_date_time_kst": f"{_kst(candle.open_ms):%Y-%m-%dT%H:%M:%S}",
        "opening_price": candle.open,
        "high_price": candle.high,
        "low_price": candle.low,
        "trade_price": candle.close,
        "timestamp": candle.exchange_ms,
        "candle_acc_trade_price": candle.quote_volume,
        "candle_acc_trade_volume": candle.volume,
    }
    if candle.timeframe in UNITS:
        row["unit"] = UNITS[candle.timeframe]
    elif candle.timeframe in PERIODS:
        row["first_day_of_period"] = f"{utc:%Y-%m-%d}"
    return row


def market_row(market: Market, *, is_details: bool) -> Row:
    """A row of ``/v1/market/all``.

    With ``is_details`` both the ``market_event`` of Korea and the ``market_warning`` that was there before it, and
    still is in the other regions.
    """
    row: Row = {
        "market": market.market,
        "korean_name": market.korean_name,
        "english_name": market.english_name,
    }
    if is_details:
        names = dict.fromkeys([*CAUTIONS, *sorted(market.cautions)])
        caution = {name: name in market.cautions for name in names}
        row["market_event"] = {"warning": market.warning, "caution": caution}
        row["market_warning"] = "CAUTION" if market.warning else "NONE"
    return row


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms // 1000, UTC)


def _kst(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms // 1000, KST)
