"""The rows of the exchange's answers as they are written: one struct for each kind of row, one decoder for each struct.

A struct names the fields that are needed and their wire names; what else a row holds is skipped, not parsed. Decimals
come from the text of the wire, digit for digit. A JSON *string* that `Decimal` reads is taken for a number too (some
recordings are written so); a whole number, such as a time, has to be a JSON integer.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Generic, Literal, TypeVar

import msgspec

from marketpipe.models import Change, Source

__all__ = [
    "CANDLES",
    "INSTRUMENTS",
    "LATEST_MS",
    "MARKETS",
    "ORDERBOOKS",
    "TICKERS",
    "TRADES",
    "UNREADABLE",
    "CandleRow",
    "InstrumentRow",
    "MarketEvent",
    "MarketRow",
    "OrderbookRow",
    "RowDecoders",
    "TickerRow",
    "TradeRow",
    "Unit",
]

# What decoding bytes from outside can raise: bad syntax or a wrong type, bad UTF-8, brackets nested without end.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# In August 2023 the exchange stamped in microseconds for some days. This is the year 5138 in milliseconds, or
# March 1973 in microseconds: what is not below it is not in milliseconds.
LATEST_MS = 10**14

Stamp = Annotated[int, msgspec.Meta(gt=0, lt=LATEST_MS * 1000)]


class MarketEvent(msgspec.Struct, gc=False):
    warning: bool
    caution: dict[str, bool] = {}


class MarketRow(msgspec.Struct):
    """A row of market/all. Korea sends ``market_event``, the other regions ``market_warning``; old answers neither."""

    market: str
    english_name: str
    korean_name: str = ""
    market_event: MarketEvent | None = None
    market_warning: str = "NONE"


class TickerRow(
    msgspec.Struct,
    gc=False,
    rename={
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
        "last_volume": "trade_volume",
        "quote_volume": "acc_trade_price",
        "quote_volume_24h": "acc_trade_price_24h",
        "volume": "acc_trade_volume",
        "volume_24h": "acc_trade_volume_24h",
        "high_52w": "highest_52_week_price",
        "low_52w": "lowest_52_week_price",
        "received_ms": "(not on the wire) received_ms",
        "source": "(not on the wire) source",
    },
):
    """A row of ticker and ticker/all, with the names of `Ticker`, which is made from it attribute by attribute."""

    market: str
    change: Change
    high_52w_date: date
    low_52w_date: date
    trade_ms: Stamp
    exchange_ms: Stamp
    open: Decimal
    high: Decimal
    low: Decimal
    price: Decimal
    prev_close: Decimal
    signed_change: Decimal
    signed_change_rate: Decimal
    last_volume: Decimal
    quote_volume: Decimal
    quote_volume_24h: Decimal
    volume: Decimal
    volume_24h: Decimal
    high_52w: Decimal
    low_52w: Decimal
    received_ms: int = 0
    source: Source = Source.REST


class Unit(msgspec.Struct, gc=False):
    """The i-th best level of both sides of a book."""

    ask_price: Decimal
    ask_size: Decimal
    bid_price: Decimal
    bid_size: Decimal


class OrderbookRow(msgspec.Struct):
    """A row of orderbook. Indonesia sends no ``level``."""

    market: str
    timestamp: Stamp
    total_ask_size: Decimal
    total_bid_size: Decimal
    orderbook_units: list[Unit]
    level: Decimal = Decimal(0)


class TradeRow(msgspec.Struct, gc=False):
    """A row of trades/ticks."""

    market: str
    timestamp: Stamp
    trade_price: Decimal
    trade_volume: Decimal
    ask_bid: Literal["ASK", "BID"]
    sequential_id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class CandleRow(msgspec.Struct, gc=False):
    """A row of every candles page. Its open time has no zone and is UTC (reference/list-candles-days, 2026-07-28)."""

    market: str
    candle_date_time_utc: datetime
    opening_price: Decimal
    high_price: Decimal
    low_price: Decimal
    trade_price: Decimal
    candle_acc_trade_volume: Decimal
    candle_acc_trade_price: Decimal
    timestamp: Stamp


class InstrumentRow(msgspec.Struct):
    """A row of orderbook/instruments; its numbers are JSON strings."""

    market: str
    quote_currency: str
    tick_size: Decimal
    supported_levels: list[Decimal] = []


RowT = TypeVar("RowT")


class RowDecoders(Generic[RowT]):
    """The decoders of one kind of row: of a whole answer, and of a single row of it."""

    def __init__(self, row: type[RowT]) -> None:
        self.all: msgspec.json.Decoder[list[RowT]] = msgspec.json.Decoder(list[row])  # type: ignore[valid-type]
        self.one: msgspec.json.Decoder[RowT] = msgspec.json.Decoder(row)


MARKETS = RowDecoders(MarketRow)
TICKERS = RowDecoders(TickerRow)
ORDERBOOKS = RowDecoders(OrderbookRow)
TRADES = RowDecoders(TradeRow)
CANDLES = RowDecoders(CandleRow)
INSTRUMENTS = RowDecoders(InstrumentRow)
