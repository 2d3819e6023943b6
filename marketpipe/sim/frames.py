"""The frames of the exchange's streams as JSON text: fields, their order, their abbreviations and their spellings.

Names are those of reference/websocket-{ticker,trade,candle} (2026-09-22) and websocket-orderbook (2026-09-09), order
and spelling those of raw frames (2025-09-26 to 2026-09-23). ``simple`` is the SIMPLE format: abbreviated names, and
order books spelt another way; ``shown`` is the frame's ``stream_type``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from typing import Literal

from marketpipe.sim.books import Book
from marketpipe.sim.day import Bar, Deal
from marketpipe.sim.lexemes import (
    E8,
    KST_MS,
    clock,
    compact_clock,
    compact_date,
    day_text,
    decimal8,
    decimal16,
    double,
    moment,
    plain,
    price_double,
    price_shortest,
    rate_decimal,
    shortest,
)
from marketpipe.sim.tape import DAY_MS
from marketpipe.sim.universe import SimMarket
from marketpipe.sim.world import Summary

__all__ = ["Shown", "candle_frame", "orderbook_frame", "ticker_frame", "trade_frame"]

Shown = Literal["SNAPSHOT", "REALTIME"]
Fields = Iterable[tuple[str, str]]

_SHORT = {
    "type": "ty",
    "code": "cd",
    "opening_price": "op",
    "high_price": "hp",
    "low_price": "lp",
    "trade_price": "tp",
    "prev_closing_price": "pcp",
    "change": "c",
    "change_price": "cp",
    "signed_change_price": "scp",
    "change_rate": "cr",
    "signed_change_rate": "scr",
    "ask_bid": "ab",
    "trade_volume": "tv",
    "trade_time": "ttm",
    "trade_timestamp": "ttms",
    "timestamp": "tms",
    "stream_type": "st",
}
_SHORT_TICKER = _SHORT | {
    "acc_trade_volume": "atv",
    "acc_trade_volume_24h": "atv24h",
    "acc_trade_price": "atp",
    "acc_trade_price_24h": "atp24h",
    "trade_date": "tdt",
    "acc_ask_volume": "aav",
    "acc_bid_volume": "abv",
    "highest_52_week_price": "h52wp",
    "highest_52_week_date": "h52wdt",
    "lowest_52_week_price": "l52wp",
    "lowest_52_week_date": "l52wdt",
    "market_state": "ms",
    "is_trading_suspended": "its",
    "delisting_date": "dd",
    "market_warning": "mw",
}
_SHORT_TRADE = _SHORT | {
    "trade_date": "td",
    "sequential_id": "sid",
    "best_ask_price": "bap",
    "best_ask_size": "bas",
    "best_bid_price": "bbp",
    "best_bid_size": "bbs",
}
_SHORT_CANDLE = _SHORT | {
    "candle_date_time_utc": "cdttmu",
    "candle_date_time_kst": "cdttmk",
    "candle_acc_trade_volume": "catv",
    "candle_acc_trade_price": "catp",
}
_UNIT = '{"ask_price":%s,"bid_price":%s,"ask_size":%s,"bid_size":%s}'
_SIMPLE_UNIT = '{"ap":%s,"bp":%s,"as":%s,"bs":%s}'


def ticker_frame(market: SimMarket, ticker: Summary, bought: int, shown: Shown, *, simple: bool) -> str:
    """A ticker; ``bought`` is the part of today's volume whose taker bought."""
    last, change, previous = ticker.last, ticker.change, ticker.previous_close
    fields = (
        ("type", '"ticker"'),
        ("code", f'"{market.code}"'),
        ("opening_price", decimal8(ticker.opening)),
        ("high_price", decimal8(ticker.high)),
        ("low_price", decimal8(ticker.low)),
        ("trade_price", decimal8(last.price)),
        ("prev_closing_price", decimal8(previous)),
        ("acc_trade_price", decimal16(ticker.turnover)),
        ("change", _direction(change)),
        ("change_price", decimal8(abs(change))),
        ("signed_change_price", decimal8(change)),
        ("change_rate", rate_decimal(abs(change), previous)),
        ("signed_change_rate", rate_decimal(change, previous)),
        ("ask_bid", _side(last)),
        ("trade_volume", decimal8(last.volume)),
        ("acc_trade_volume", decimal8(ticker.volume)),
        ("trade_date", f'"{compact_date(last.at_ms)}"'),
        ("trade_time", f'"{compact_clock(last.at_ms)}"'),
        ("trade_timestamp", str(last.at_ms)),
        ("acc_ask_volume", decimal8(ticker.volume - bought)),
        ("acc_bid_volume", decimal8(bought)),
        ("highest_52_week_price", decimal8(ticker.year.high)),
        ("highest_52_week_date", f'"{day_text(ticker.year.high_day)}"'),
        ("lowest_52_week_price", decimal8(ticker.year.low)),
        ("lowest_52_week_date", f'"{day_text(ticker.year.low_day)}"'),
        ("market_state", '"ACTIVE"'),
        ("is_trading_suspended", "false"),
        ("delisting_date", "null"),
        ("market_warning", '"CAUTION"' if market.warning else '"NONE"'),
        ("timestamp", str(ticker.stored_ms)),
        ("acc_trade_price_24h", plain(_rounded(ticker.turnover_24h))),
        ("acc_trade_volume_24h", plain(ticker.volume_24h)),
        ("stream_type", f'"{shown}"'),
    )
    return _object(fields, _SHORT_TICKER if simple else {})


def trade_frame(deal: Deal, book: Book, previous_close: int, sent_ms: int, shown: Shown, *, simple: bool) -> str:
    """A trade, sent at ``sent_ms`` when ``book`` was the order book. The change is absolute here, unlike in REST."""
    change = deal.price - previous_close
    (ask_price, ask_size), (bid_price, bid_size) = book.asks[0], book.bids[0]
    fields = (
        ("type", '"trade"'),
        ("code", f'"{book.market}"'),
        ("timestamp", str(sent_ms)),
        ("trade_date", f'"{day_text(deal.at_ms // DAY_MS)}"'),
        ("trade_time", f'"{clock(deal.at_ms)}"'),
        ("trade_timestamp", str(deal.at_ms)),
        ("trade_price", plain(deal.price)),
        ("trade_volume", plain(deal.volume)),
        ("ask_bid", _side(deal)),
        ("prev_closing_price", decimal8(previous_close)),
        ("change", _direction(change)),
        ("change_price", decimal8(abs(change))),
        ("sequential_id", str(deal.sequential_id)),
        ("best_ask_price", shortest(ask_price)),
        ("best_ask_size", shortest(ask_size)),
        ("best_bid_price", shortest(bid_price)),
        ("best_bid_size", shortest(bid_size)),
        ("stream_type", f'"{shown}"'),
    )
    return _object(fields, _SHORT_TRADE if simple else {})


def candle_frame(stream: str, market: str, bar: Bar, shown: Shown, *, simple: bool, kr: bool) -> str:
    """A bar of ``stream``, such as candle.1m; ``kr`` False is a global region, without the time in Seoul."""
    kst = (("candle_date_time_kst", f'"{moment(bar.open_ms + KST_MS)}"'),) if kr else ()
    fields = (
        ("type", f'"{stream}"'),
        ("code", f'"{market}"'),
        ("candle_date_time_utc", f'"{moment(bar.open_ms)}"'),
        *kst,
        ("opening_price", decimal8(bar.opening)),
        ("high_price", decimal8(bar.high)),
        ("low_price", decimal8(bar.low)),
        ("trade_price", decimal8(bar.close)),
        ("candle_acc_trade_volume", decimal8(bar.volume)),
        ("candle_acc_trade_price", decimal8(_rounded(bar.turnover))),
        ("timestamp", str(bar.stored_ms)),
        ("stream_type", f'"{shown}"'),
    )
    return _object(fields, _SHORT_CANDLE if simple else {})


def orderbook_frame(book: Book, count: int, shown: Shown, *, simple: bool, kr: bool) -> str:
    """The best ``count`` units of a book, with the totals of all thirty.

    DEFAULT spells prices as doubles and sizes as decimals, SIMPLE prices plainly and sizes as doubles (2026-09-23). A
    global region has no ``level``.
    """
    price, size = (price_shortest, double) if simple else (price_double, decimal8)
    ask_prices, ask_sizes = zip(*book.asks[:count], strict=True)
    bid_prices, bid_sizes = zip(*book.bids[:count], strict=True)
    lexemes = map(price, ask_prices), map(price, bid_prices), map(size, ask_sizes), map(size, bid_sizes)
    units = _units(len(ask_prices), simple=simple) % tuple(chain.from_iterable(zip(*lexemes, strict=True)))
    total_ask, total_bid = size(book.total_ask), size(book.total_bid)
    if simple:
        level = f',"lv":{shortest(book.level)}' if kr else ""
        return (
            f'{{"ty":"orderbook","cd":"{book.market}","tms":{book.changed_ms},"tas":{total_ask},"tbs":{total_bid},'
            f'"obu":[{units}],"st":"{shown}"{level}}}'
        )
    level = f',"level":{shortest(book.level)}' if kr else ""
    return (
        f'{{"type":"orderbook","code":"{book.market}","timestamp":{book.changed_ms},"total_ask_size":{total_ask},'
        f'"total_bid_size":{total_bid},"orderbook_units":[{units}],"stream_type":"{shown}"{level}}}'
    )


@lru_cache(maxsize=64)
def _units(count: int, *, simple: bool) -> str:
    return ",".join([_SIMPLE_UNIT if simple else _UNIT] * count)


def _object(fields: Fields, short: dict[str, str]) -> str:
    return "{" + ",".join([f'"{short.get(name, name)}":{lexeme}' for name, lexeme in fields]) + "}"


def _direction(change: int) -> str:
    return '"RISE"' if change > 0 else '"FALL"' if change < 0 else '"EVEN"'


def _side(deal: Deal) -> str:
    return '"BID"' if deal.buy else '"ASK"'


def _rounded(value: int) -> int:
    # Turnover is an integer of 1e-16, and REST says it to eight decimals too.
    return (value + E8 // 2) // E8
