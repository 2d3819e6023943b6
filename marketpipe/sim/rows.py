"""The rows of the exchange's REST answers as JSON text: fields, their order and their spellings.

The order is that of raw answers (2025-07-30 to 2026-09-23). ``kr`` False is a global region, which has no Korean names,
no KST fields and the older warning (id-api, 2026-09).
"""

from __future__ import annotations

import json
from functools import lru_cache

from marketpipe.core.timeframes import Timeframe
from marketpipe.sim.books import Book
from marketpipe.sim.day import Bar, Deal
from marketpipe.sim.lexemes import (
    KST_MS,
    change8,
    clock,
    compact_clock,
    compact_date,
    day_text,
    fixed8,
    fixed16,
    moment,
    price8,
    rate10,
    rounded8,
    shortest,
)
from marketpipe.sim.tape import DAY_MS
from marketpipe.sim.ticks import group_levels, tick
from marketpipe.sim.universe import CAUTIONS, SimMarket
from marketpipe.sim.world import Summary

__all__ = [
    "candle_row",
    "day_row",
    "instrument_row",
    "levels_row",
    "market_row",
    "orderbook_row",
    "ticker_row",
    "trade_row",
]

MINUTE_UNITS = {
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


@lru_cache(maxsize=8_192)
def market_row(market: SimMarket, *, details: bool, kr: bool) -> str:
    """A row of market/all."""
    fields: dict[str, object] = {"market": market.code}
    if kr:
        fields["korean_name"] = market.korean_name
    fields["english_name"] = market.english_name
    if details and kr:
        cautions = {caution: caution in market.cautions for caution in CAUTIONS}
        fields["market_event"] = {"warning": market.warning, "caution": cautions}
    elif details:
        fields["market_warning"] = "CAUTION" if market.warning else "NONE"
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


@lru_cache(maxsize=8_192)
def ticker_row(ticker: Summary, kr: bool) -> str:
    """A row of ticker and ticker/all."""
    at_ms, change = ticker.last.at_ms, ticker.change
    word = "RISE" if change > 0 else "FALL" if change < 0 else "EVEN"
    kst_ms = at_ms + KST_MS
    kst = f'"trade_date_kst":"{compact_date(kst_ms)}","trade_time_kst":"{compact_clock(kst_ms)}",' if kr else ""
    year = ticker.year
    return (
        f'{{"market":"{ticker.market}",'
        f'"trade_date":"{compact_date(at_ms)}","trade_time":"{compact_clock(at_ms)}",{kst}'
        f'"trade_timestamp":{at_ms},'
        f'"opening_price":{price8(ticker.opening)},"high_price":{price8(ticker.high)},'
        f'"low_price":{price8(ticker.low)},"trade_price":{price8(ticker.last.price)},'
        f'"prev_closing_price":{price8(ticker.previous_close)},"change":"{word}",'
        f'"change_price":{change8(abs(change))},"change_rate":{rate10(abs(change), ticker.previous_close)},'
        f'"signed_change_price":{change8(change)},"signed_change_rate":{rate10(change, ticker.previous_close)},'
        f'"trade_volume":{fixed8(ticker.last.volume)},'
        f'"acc_trade_price":{fixed16(ticker.turnover)},"acc_trade_price_24h":{rounded8(ticker.turnover_24h)},'
        f'"acc_trade_volume":{fixed8(ticker.volume)},"acc_trade_volume_24h":{fixed8(ticker.volume_24h)},'
        f'"highest_52_week_price":{fixed8(year.high)},"highest_52_week_date":"{day_text(year.high_day)}",'
        f'"lowest_52_week_price":{fixed8(year.low)},"lowest_52_week_date":"{day_text(year.low_day)}",'
        f'"timestamp":{ticker.stored_ms}}}'
    )


@lru_cache(maxsize=1_024)
def orderbook_row(book: Book, count: int, *, with_level: bool) -> str:
    """A row of orderbook: ``count`` units, totals over all thirty, bid before ask in each unit (seen 2026-09-23)."""
    units = ",".join(
        f'{{"bid_price":{shortest(bid_price)},"bid_size":{shortest(bid_size)},'
        f'"ask_price":{shortest(ask_price)},"ask_size":{shortest(ask_size)}}}'
        for (ask_price, ask_size), (bid_price, bid_size) in zip(book.asks[:count], book.bids[:count], strict=True)
    )
    level = f',"level":{shortest(book.level)}' if with_level else ""
    return (
        f'{{"market":"{book.market}","timestamp":{book.changed_ms},"total_ask_size":{shortest(book.total_ask)},'
        f'"total_bid_size":{shortest(book.total_bid)},"orderbook_units":[{units}]{level}}}'
    )


def instrument_row(market: SimMarket, price: int) -> str:
    """A row of orderbook/instruments; the tick is that of the band in which ``price`` lies."""
    levels = [shortest(level) for level in _levels(market)]
    fields = {
        "market": market.code,
        "quote_currency": market.quote,
        "tick_size": shortest(tick(market.quote, price)),
        "supported_levels": levels,
    }
    return json.dumps(fields, separators=(",", ":"))


def levels_row(market: SimMarket) -> str:
    """A row of the deprecated orderbook/supported_levels."""
    return f'{{"market":"{market.code}","supported_levels":[{",".join(map(shortest, _levels(market)))}]}}'


def trade_row(market: str, deal: Deal, previous_close: int) -> str:
    """A row of trades/ticks; the change is signed here."""
    return (
        f'{{"market":"{market}","trade_date_utc":"{day_text(deal.at_ms // DAY_MS)}",'
        f'"trade_time_utc":"{clock(deal.at_ms)}","timestamp":{deal.at_ms},'
        f'"trade_price":{price8(deal.price)},"trade_volume":{fixed8(deal.volume)},'
        f'"prev_closing_price":{price8(previous_close)},"change_price":{change8(deal.price - previous_close)},'
        f'"ask_bid":"{"BID" if deal.buy else "ASK"}","sequential_id":{deal.sequential_id}}}'
    )


def candle_row(market: str, timeframe: Timeframe, bar: Bar, *, kr: bool) -> str:
    """A row of the candle endpoints but days."""
    return f"{{{_bar_fields(market, bar, kr=kr)}{_bar_end(timeframe, bar)}}}"


def day_row(market: str, bar: Bar, previous_close: int, extra: str = "", *, kr: bool) -> str:
    """A row of candles/days; ``extra`` are further fields. The change is signed here."""
    change = bar.close - previous_close
    return (
        f'{{{_bar_fields(market, bar, kr=kr)},"prev_closing_price":{price8(previous_close)},'
        f'"change_price":{change8(change)},"change_rate":{rate10(change, previous_close)}{extra}}}'
    )


def _bar_fields(market: str, bar: Bar, *, kr: bool) -> str:
    kst = f'"candle_date_time_kst":"{moment(bar.open_ms + KST_MS)}",' if kr else ""
    return (
        f'"market":"{market}","candle_date_time_utc":"{moment(bar.open_ms)}",{kst}'
        f'"opening_price":{price8(bar.opening)},"high_price":{price8(bar.high)},"low_price":{price8(bar.low)},'
        f'"trade_price":{price8(bar.close)},"timestamp":{bar.stored_ms},'
        f'"candle_acc_trade_price":{rounded8(bar.turnover)},"candle_acc_trade_volume":{fixed8(bar.volume)}'
    )


def _bar_end(timeframe: Timeframe, bar: Bar) -> str:
    unit = MINUTE_UNITS.get(timeframe)
    if unit is not None:
        return f',"unit":{unit}'
    return f',"first_day_of_period":"{day_text(bar.open_ms // DAY_MS)}"' if timeframe in PERIODS else ""


def _levels(market: SimMarket) -> tuple[int, ...]:
    return group_levels(market.quote, market.step, market.base * market.step)
