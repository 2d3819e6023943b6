"""The decoders of REST answers: one pair for each kind of row."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Source
from marketpipe.upbit import wire_names
from marketpipe.upbit.wire_flaws import UNREADABLE
from marketpipe.upbit.wire_rows import (
    CandleRow,
    InstrumentRow,
    MarketRow,
    OrderbookRow,
    TickerRow,
    TradeRow,
    book_rows,
    spelled,
)

__all__ = ["CANDLES", "INSTRUMENTS", "MARKETS", "ORDERBOOKS", "TICKERS", "TRADES", "RowDecoders"]

RowT = TypeVar("RowT", bound=msgspec.Struct)


class RowDecoders(Generic[RowT]):
    """Decodes one kind of row: a whole answer, or a single row of it. Both raise `UNREADABLE`."""

    def __init__(self, row: type[RowT]) -> None:
        self._all: msgspec.json.Decoder[list[RowT]] = msgspec.json.Decoder(list[row])  # type: ignore[valid-type]
        self._one: msgspec.json.Decoder[RowT] = msgspec.json.Decoder(row)

    def all(self, body: bytes) -> list[RowT]:
        return self._all.decode(body)

    def one(self, body: bytes | msgspec.Raw) -> RowT:
        return self._one.decode(body)


class BookDecoders(RowDecoders[OrderbookRow]):
    """Decodes order books: all of an answer if all are guarded, and a single one whether it is or not."""

    def __init__(self) -> None:
        asks, bids = book_rows("rest", guarded=True, source=Source.REST)
        plain_asks, plain_bids = book_rows("rest", guarded=False, source=Source.REST)
        super().__init__(asks)
        self._bids = RowDecoders(bids)
        self._plain_asks, self._plain_bids = RowDecoders(plain_asks), RowDecoders(plain_bids)

    def all(self, body: bytes) -> list[OrderbookRow]:
        rows = super().all(body)
        for row, half in zip(rows, self._bids.all(body), strict=True):
            row.bids = half.bids
        return rows

    def one(self, body: bytes | msgspec.Raw) -> OrderbookRow:
        try:
            row, half = super().one(body), self._bids.one(body)
        except UNREADABLE:
            row, half = self._plain_asks.one(body), self._plain_bids.one(body)
        row.bids = half.bids
        return row


MARKETS = RowDecoders(MarketRow)
TICKERS = RowDecoders(spelled(TickerRow, wire_names.TICKER, "rest", source=Source.REST))
ORDERBOOKS = BookDecoders()
TRADES = RowDecoders(spelled(TradeRow, wire_names.TRADE, "rest", source=Source.REST))
# A page does not say of which timeframe its bars are.
CANDLES = {
    timeframe: RowDecoders(spelled(CandleRow, wire_names.CANDLE, "rest", source=Source.REST, timeframe=timeframe))
    for timeframe in Timeframe
}
INSTRUMENTS = RowDecoders(InstrumentRow)
