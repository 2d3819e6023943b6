"""What the exchange calls the fields of a row: in REST answers, and on the stream in its long and its short format.

One table for each kind of row: our name, which is the model's wherever the model is made from the row as it is, and
the three of the exchange; None where it does not tell. (docs.upbit.com/kr reference/websocket-ticker, -trade, -candle,
2026-09-22; websocket-orderbook, 2026-09-09; the REST pages, 2026-07-28.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

__all__ = ["ASK", "BID", "BIDS", "CANDLE", "ORDERBOOK", "TICKER", "TRADE", "Name", "Names", "Spelling"]


Spelling = Literal["rest", "default", "simple"]


class Name(NamedTuple):
    """The exchange's names of one field, in each `Spelling`; ``default`` and ``simple`` are formats of the stream."""

    rest: str | None
    default: str | None
    simple: str | None


Names = Mapping[str, Name]

TICKER: Names = {
    "market": Name("market", "code", "cd"),
    "change": Name("change", "change", "c"),
    "high_52w_date": Name("highest_52_week_date", "highest_52_week_date", "h52wdt"),
    "low_52w_date": Name("lowest_52_week_date", "lowest_52_week_date", "l52wdt"),
    "trade_ms": Name("trade_timestamp", "trade_timestamp", "ttms"),
    "exchange_ms": Name("timestamp", "timestamp", "tms"),
    "open": Name("opening_price", "opening_price", "op"),
    "high": Name("high_price", "high_price", "hp"),
    "low": Name("low_price", "low_price", "lp"),
    "price": Name("trade_price", "trade_price", "tp"),
    "prev_close": Name("prev_closing_price", "prev_closing_price", "pcp"),
    "signed_change": Name("signed_change_price", "signed_change_price", "scp"),
    "signed_change_rate": Name("signed_change_rate", "signed_change_rate", "scr"),
    "last_volume": Name("trade_volume", "trade_volume", "tv"),
    "quote_volume": Name("acc_trade_price", "acc_trade_price", "atp"),
    "quote_volume_24h": Name("acc_trade_price_24h", "acc_trade_price_24h", "atp24h"),
    "volume": Name("acc_trade_volume", "acc_trade_volume", "atv"),
    "volume_24h": Name("acc_trade_volume_24h", "acc_trade_volume_24h", "atv24h"),
    "high_52w": Name("highest_52_week_price", "highest_52_week_price", "h52wp"),
    "low_52w": Name("lowest_52_week_price", "lowest_52_week_price", "l52wp"),
    "stream_type": Name(None, "stream_type", "st"),
}

_UNITS = Name("orderbook_units", "orderbook_units", "obu")

# The bids are read by themselves, out of the same list.
BIDS: Names = {"bids": _UNITS}
ORDERBOOK: Names = {
    "market": Name("market", "code", "cd"),
    "exchange_ms": Name("timestamp", "timestamp", "tms"),
    "total_ask_size": Name("total_ask_size", "total_ask_size", "tas"),
    "total_bid_size": Name("total_bid_size", "total_bid_size", "tbs"),
    "asks": _UNITS,
    "level": Name("level", "level", "lv"),
    "stream_type": Name(None, "stream_type", "st"),
}

_ASK_PRICE = Name("ask_price", "ask_price", "ap")
_ASK_SIZE = Name("ask_size", "ask_size", "as")
_BID_PRICE = Name("bid_price", "bid_price", "bp")
_BID_SIZE = Name("bid_size", "bid_size", "bs")

# The i-th best levels of both sides stand in one object; each is read as a slot of its own.
ASK: Names = {"price": _ASK_PRICE, "size": _ASK_SIZE, "other_price": _BID_PRICE, "other_size": _BID_SIZE}
BID: Names = {"price": _BID_PRICE, "size": _BID_SIZE, "other_price": _ASK_PRICE, "other_size": _ASK_SIZE}

TRADE: Names = {
    "market": Name("market", "code", "cd"),
    # REST has one stamp, and it is the time of the trade.
    "trade_ms": Name("timestamp", "trade_timestamp", "ttms"),
    "exchange_ms": Name(None, "timestamp", "tms"),
    "price": Name("trade_price", "trade_price", "tp"),
    "volume": Name("trade_volume", "trade_volume", "tv"),
    "ask_bid": Name("ask_bid", "ask_bid", "ab"),
    "sequential_id": Name("sequential_id", "sequential_id", "sid"),
    "stream_type": Name(None, "stream_type", "st"),
}

CANDLE: Names = {
    "market": Name("market", "code", "cd"),
    "opens": Name("candle_date_time_utc", "candle_date_time_utc", "cdttmu"),
    "open": Name("opening_price", "opening_price", "op"),
    "high": Name("high_price", "high_price", "hp"),
    "low": Name("low_price", "low_price", "lp"),
    "close": Name("trade_price", "trade_price", "tp"),
    "volume": Name("candle_acc_trade_volume", "candle_acc_trade_volume", "catv"),
    "quote_volume": Name("candle_acc_trade_price", "candle_acc_trade_price", "catp"),
    "exchange_ms": Name("timestamp", "timestamp", "tms"),
    "stream_type": Name(None, "stream_type", "st"),
}
