"""Rows of the wire as the values of `marketpipe.models`.

The rows of a batch stand for themselves; those of a page belong together: they are of one market, and in order.
`BadPayload` names market and field of the first row that no market can mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from operator import attrgetter

import attrs
import msgspec

from marketpipe.core import timeframes
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import BadPayload
from marketpipe.models import Candle, CandleState, Market, Orderbook, Side, Ticker, Trade
from marketpipe.upbit.wire_numbers import Numbers, flaw_of, wire_name
from marketpipe.upbit.wire_rows import (
    LATEST_MS,
    CandleRow,
    InstrumentRow,
    MarketEvent,
    MarketRow,
    OrderbookRow,
    Slot,
    TickerRow,
    TradeRow,
)

__all__ = [
    "Instrument",
    "candle_of",
    "candles_of",
    "instruments_of",
    "markets_of",
    "orderbook_of",
    "orderbooks_of",
    "ticker_of",
    "tickers_of",
    "trade_of",
    "trades_of",
]

# The last trade of a bar may be stored up to a second after the bar's end.
FINAL_GRACE_MS = 2_000
# By how much a frame's bar may open after the frame's own stamp: no more than clocks of one exchange may disagree.
AHEAD_MS = 300_000

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAIVE_EPOCH = EPOCH.replace(tzinfo=None)
MILLISECOND = timedelta(milliseconds=1)

_TICKER = Numbers(TickerRow, signed=("signed_change", "signed_change_rate"))
_ORDERBOOK = Numbers(OrderbookRow)
_SLOT = Numbers(Slot)
_TRADE = Numbers(TradeRow)
_CANDLE = Numbers(CandleRow)
_OPEN_MS = attrgetter("open_ms")
_TAKERS = {"BID": Side.BUY, "ASK": Side.SELL}


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
        _stamp(row, received_ms)
    # The hottest loop of the edge: this takes half the time of calling `Ticker` for every row.
    return msgspec.convert(rows, list[Ticker], from_attributes=True)


def ticker_of(row: TickerRow, received_ms: int) -> Ticker:
    """The ticker of a frame."""
    _TICKER.refuse_impossible_in(row)
    _stamp(row, received_ms)
    return msgspec.convert(row, Ticker, from_attributes=True)


def orderbooks_of(rows: Sequence[OrderbookRow], received_ms: int) -> list[Orderbook]:
    """The books of ``rows``."""
    return [orderbook_of(row, received_ms) for row in rows]


def orderbook_of(row: OrderbookRow, received_ms: int) -> Orderbook:
    """The book of a row or frame, without the slots of price 0 and size 0 that pad a side with few orders."""
    _ORDERBOOK.refuse_impossible((row,))
    if not row.guarded:
        row.asks = _without_padding(row.asks, row.market)
        row.bids = _without_padding(row.bids, row.market)
    row.exchange_ms = _in_ms(row.exchange_ms)
    row.received_ms = received_ms
    # Levels too are made in C: calling `Level` for every slot would cost as much as all the rest.
    return msgspec.convert(row, Orderbook, from_attributes=True)


def _without_padding(slots: list[Slot], market: str) -> list[Slot]:
    _SLOT.refuse_impossible(slots, market=market)
    kept = [slot for slot in slots if slot.price or slot.size]
    for slot in kept:
        if not slot.price:
            field = wire_name(slot, "price")
            raise BadPayload("was 0 beside a size that is not", field=field, market=market)
    return kept


def trades_of(rows: Sequence[TradeRow], market: str, received_ms: int) -> list[Trade]:
    """The trades of a page of ``market``, in their order. A page that repeats one is refused, see `candles_of`."""
    _refuse_other_markets(rows, market)
    _TRADE.refuse_impossible(rows)
    if len({row.sequential_id for row in rows}) < len(rows):
        raise BadPayload("a trade stands twice in one page", field="sequential_id", market=market)
    for row in rows:
        # REST has one stamp, and it is the time of the trade (the stream's "trade_timestamp").
        row.exchange_ms = row.trade_ms
        row.side = _TAKERS[row.ask_bid]
        _stamp(row, received_ms)
    return msgspec.convert(rows, list[Trade], from_attributes=True)


def trade_of(row: TradeRow, received_ms: int) -> Trade:
    """The trade of a frame."""
    _TRADE.refuse_impossible_in(row)
    row.side = _TAKERS[row.ask_bid]
    _stamp(row, received_ms)
    return msgspec.convert(row, Trade, from_attributes=True)


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
    for row in rows:
        _place(row, CandleState.FINAL, received_ms)
    bars = sorted(rows, key=_OPEN_MS, reverse=True)
    if len(set(map(_OPEN_MS, bars))) < len(bars):
        raise BadPayload("a bar stands twice in one page", field="candle_date_time_utc", market=market)
    now_ms = received_ms if exchange_ms is None else exchange_ms
    if bars and now_ms < timeframes.next_open(timeframe, bars[0].open_ms) + FINAL_GRACE_MS:
        bars[0].state = CandleState.RUNNING
    return msgspec.convert(bars, list[Candle], from_attributes=True)


def candle_of(row: CandleRow, received_ms: int) -> Candle:
    """The bar of a frame. It is RUNNING: the stream does not say when one is over.

    One that opens long after the last trade in it, which is its stamp, is refused: believed, it would end all others.
    """
    _CANDLE.refuse_impossible_in(row)
    _place(row, CandleState.RUNNING, received_ms)
    if row.open_ms > row.exchange_ms + AHEAD_MS:
        flaw = f"was {row.opens.isoformat()}, long after its own timestamp {row.exchange_ms}"
        raise BadPayload(flaw, field=wire_name(row, "opens"), market=row.market)
    return msgspec.convert(row, Candle, from_attributes=True)


def _place(row: CandleRow, state: CandleState, received_ms: int) -> None:
    opens = row.opens
    open_ms = (opens - (EPOCH if opens.tzinfo else NAIVE_EPOCH)) // MILLISECOND
    if not 0 <= open_ms < LATEST_MS or timeframes.floor(row.timeframe, open_ms) != open_ms:
        flaw = f"was {opens.isoformat()}, where no {row.timeframe} bar opens"
        raise BadPayload(flaw, field=wire_name(row, "opens"), market=row.market)
    row.open_ms = open_ms
    row.state = state
    row.exchange_ms = _in_ms(row.exchange_ms)
    row.received_ms = received_ms


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


def _stamp(row: TickerRow | TradeRow, received_ms: int) -> None:
    row.received_ms = received_ms
    if row.exchange_ms >= LATEST_MS or row.trade_ms >= LATEST_MS:
        row.exchange_ms, row.trade_ms = _in_ms(row.exchange_ms), _in_ms(row.trade_ms)


def _in_ms(stamp: int) -> int:
    return stamp if stamp < LATEST_MS else stamp // 1000
