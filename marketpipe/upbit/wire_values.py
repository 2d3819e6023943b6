"""Rows of the wire as the values of `marketpipe.models`.

The rows of a batch stand for themselves; those of a page belong together: they are of one market, and in order.
`BadPayload` names market and field of the first row that no market can mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import attrs
import msgspec

from marketpipe.core import timeframes
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import BadPayload
from marketpipe.models import Candle, CandleState, Level, Market, Orderbook, Side, Source, Ticker, Trade
from marketpipe.upbit.wire_numbers import Numbers, flaw_of
from marketpipe.upbit.wire_rows import (
    LATEST_MS,
    CandleRow,
    InstrumentRow,
    MarketEvent,
    MarketRow,
    OrderbookRow,
    TickerRow,
    TradeRow,
    Unit,
)

__all__ = [
    "Instrument",
    "candles_of",
    "instruments_of",
    "markets_of",
    "orderbooks_of",
    "tickers_of",
    "trades_of",
]

# The last trade of a bar may be stored up to a second after the bar's end.
FINAL_GRACE_MS = 2_000

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

_TICKER = Numbers(TickerRow, signed=("signed_change", "signed_change_rate"))
_ORDERBOOK = Numbers(OrderbookRow)
_UNIT = Numbers(Unit)
_TRADE = Numbers(TradeRow)
_CANDLE = Numbers(CandleRow)


@attrs.frozen
class Instrument:
    """How the order book of one market is cut.

    ``tick_size`` is the price step of the *current* price band; it changes when the price crosses a band.
    ``supported_levels`` are the grouping steps on offer, 0 for none; empty in regions that do not tell.
    """

    market: str
    quote_currency: str
    tick_size: Decimal
    supported_levels: tuple[Decimal, ...]


def markets_of(rows: Sequence[MarketRow], received_ms: int) -> list[Market]:
    """The markets of ``rows``. Their list has no date, so they are dated with its receipt."""
    return [
        Market(
            market=row.market,
            korean_name=row.korean_name,
            english_name=row.english_name,
            warning=event.warning or row.market_warning == "CAUTION",
            cautions=frozenset(name for name, raised in event.caution.items() if raised),
            exchange_ms=received_ms,
            received_ms=received_ms,
        )
        for row in rows
        for event in (row.market_event or MarketEvent(warning=False),)
    ]


def tickers_of(rows: Sequence[TickerRow], received_ms: int) -> list[Ticker]:
    """The tickers of ``rows``."""
    _TICKER.refuse_impossible(rows)
    for row in rows:
        row.received_ms = received_ms
        if row.exchange_ms >= LATEST_MS or row.trade_ms >= LATEST_MS:
            row.exchange_ms, row.trade_ms = _in_ms(row.exchange_ms), _in_ms(row.trade_ms)
    # The hottest loop of the edge: this takes half the time of calling `Ticker` for every row.
    return msgspec.convert(rows, list[Ticker], from_attributes=True)


def orderbooks_of(rows: Sequence[OrderbookRow], received_ms: int) -> list[Orderbook]:
    """The books of ``rows``, without the slots of price 0 and size 0 that pad a side with few orders."""
    _ORDERBOOK.refuse_impossible(rows)
    return [_orderbook(row, received_ms) for row in rows]


def _orderbook(row: OrderbookRow, received_ms: int) -> Orderbook:
    units = row.orderbook_units
    _UNIT.refuse_impossible(units, market=row.market)
    return Orderbook(
        market=row.market,
        bids=_side([(unit.bid_price, unit.bid_size) for unit in units], "bid_price", row.market),
        asks=_side([(unit.ask_price, unit.ask_size) for unit in units], "ask_price", row.market),
        total_bid_size=row.total_bid_size,
        total_ask_size=row.total_ask_size,
        level=row.level,
        exchange_ms=_in_ms(row.timestamp),
        received_ms=received_ms,
        source=Source.REST,
    )


def _side(slots: list[tuple[Decimal, Decimal]], field: str, market: str) -> tuple[Level, ...]:
    levels = tuple(Level(price, size) for price, size in slots if price or size)
    if not all(level.price for level in levels):
        raise BadPayload("was 0 beside a size that is not", field=field, market=market)
    return levels


def trades_of(rows: Sequence[TradeRow], market: str, received_ms: int) -> list[Trade]:
    """The trades of a page of ``market``, in their order. A page that repeats one is refused, see `candles_of`."""
    _refuse_other_markets(rows, market)
    _TRADE.refuse_impossible(rows)
    if len({row.sequential_id for row in rows}) < len(rows):
        raise BadPayload("a trade stands twice in one page", field="sequential_id", market=market)
    return [_trade(row, received_ms) for row in rows]


def _trade(row: TradeRow, received_ms: int) -> Trade:
    # REST has one stamp, and it is the time of the trade (the stream's "trade_timestamp").
    trade_ms = _in_ms(row.timestamp)
    return Trade(
        market=row.market,
        side=Side.BUY if row.ask_bid == "BID" else Side.SELL,
        trade_ms=trade_ms,
        sequential_id=row.sequential_id,
        price=row.trade_price,
        volume=row.trade_volume,
        exchange_ms=trade_ms,
        received_ms=received_ms,
        source=Source.REST,
    )


def candles_of(
    rows: Sequence[CandleRow], market: str, timeframe: Timeframe, received_ms: int, exchange_ms: int | None
) -> list[Candle]:
    """The bars of a page of ``market``, newest first.

    A page that repeats a bar is refused: its length tells how far it reaches and whether the history has ended, so a
    row too many would pass for a hole, or hide one.

    A bar is FINAL if a later one stands beside it, or if its end lies `FINAL_GRACE_MS` or more before
    ``exchange_ms``, the exchange's clock (``received_ms`` where the answer had no date).
    """
    _refuse_other_markets(rows, market)
    _CANDLE.refuse_impossible(rows)
    bars = {_open_ms(row, timeframe): row for row in rows}
    if len(bars) < len(rows):
        raise BadPayload("a bar stands twice in one page", field="candle_date_time_utc", market=market)
    newest_ms = max(bars, default=0)
    now_ms = received_ms if exchange_ms is None else exchange_ms
    newest_is_over = now_ms >= timeframes.next_open(timeframe, newest_ms) + FINAL_GRACE_MS
    return [
        _candle(row, timeframe, open_ms, received_ms, is_final=open_ms < newest_ms or newest_is_over)
        for open_ms, row in sorted(bars.items(), reverse=True)
    ]


def _candle(row: CandleRow, timeframe: Timeframe, open_ms: int, received_ms: int, *, is_final: bool) -> Candle:
    return Candle(
        market=row.market,
        timeframe=timeframe,
        open_ms=open_ms,
        open=row.opening_price,
        high=row.high_price,
        low=row.low_price,
        close=row.trade_price,
        volume=row.candle_acc_trade_volume,
        quote_volume=row.candle_acc_trade_price,
        exchange_ms=_in_ms(row.timestamp),
        received_ms=received_ms,
        source=Source.REST,
        state=CandleState.FINAL if is_final else CandleState.RUNNING,
    )


def _open_ms(row: CandleRow, timeframe: Timeframe) -> int:
    opened = row.candle_date_time_utc
    open_ms = ((opened if opened.tzinfo else opened.replace(tzinfo=UTC)) - EPOCH) // MILLISECOND
    if not 0 <= open_ms < LATEST_MS or timeframes.floor(timeframe, open_ms) != open_ms:
        flaw = f"was {opened.isoformat()}, where no {timeframe} bar opens"
        raise BadPayload(flaw, field="candle_date_time_utc", market=row.market)
    return open_ms


def instruments_of(rows: Sequence[InstrumentRow]) -> list[Instrument]:
    """The instruments of ``rows``."""
    for row in rows:
        for field, value in [("tick_size", row.tick_size), *(("supported_levels", v) for v in row.supported_levels)]:
            if flaw := flaw_of(value):
                raise BadPayload(flaw, field=field, market=row.market)
    return [Instrument(row.market, row.quote_currency, row.tick_size, tuple(row.supported_levels)) for row in rows]


def _refuse_other_markets(rows: Sequence[TradeRow | CandleRow], market: str) -> None:
    for row in rows:
        if row.market != market:
            raise BadPayload(f"was {row.market!r} in an answer about {market}", field="market", market=market)


def _in_ms(stamp: int) -> int:
    return stamp if stamp < LATEST_MS else stamp // 1000
