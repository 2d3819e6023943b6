"""The rows of the exchange's messages as they are written: one struct for each kind of row, spelled in three ways.

A struct names the fields that are needed; what else a row holds is skipped, not parsed. Decimals come from the text of
the wire, digit for digit. A JSON *string* that `Decimal` reads is taken for a number too (some recordings are written
so); a whole number, such as a time, has to be a JSON integer.

Tickers, books, trades and candles have the names of their models, which are made from them attribute by attribute.
What the wire does not tell is a field all the same (`OFF_WIRE`) and set before the model is made, whatever came; what
is the same in all rows is an attribute of the class.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast

import msgspec

from marketpipe.core.timeframes import Timeframe
from marketpipe.models import CandleState, Change, Side, Source
from marketpipe.upbit import wire_names
from marketpipe.upbit.wire_names import Names, Spelling

__all__ = [
    "LATEST_MS",
    "BidsRow",
    "CandleRow",
    "GuardedSlot",
    "InstrumentRow",
    "MarketEvent",
    "MarketRow",
    "OrderbookRow",
    "Slot",
    "TickerRow",
    "TradeRow",
    "book_rows",
    "spelled",
]

# In August 2023 the exchange stamped in microseconds for some days. This is the year 5138 in milliseconds, or
# March 1973 in microseconds: what is not below it is not in milliseconds.
LATEST_MS = 10**14

Stamp = Annotated[int, msgspec.Meta(gt=0, lt=LATEST_MS * 1000)]
# Not every number that a market can mean, but all of a busy book: the limits of `wire_numbers`, without 0.
Ordinary = Annotated[float, msgspec.Meta(gt=1e-40, lt=1e40)]
RowT = TypeVar("RowT", bound=msgspec.Struct)

OFF_WIRE = "(not on the wire) "


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


class TickerRow(msgspec.Struct, gc=False, kw_only=True):
    """A row of ticker and ticker/all, or a frame of the stream ``ticker``."""

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
    stream_type: str = ""
    received_ms: int
    source: ClassVar[Source]


class Slot(msgspec.Struct, gc=False, kw_only=True):
    """One level of one side of a book; where the other side has more, its price and its size may be 0."""

    price: Decimal
    size: Decimal


class GuardedSlot(Slot, gc=False, kw_only=True):
    """A slot that is read only where the one beside it, on the other side, is ordinary too.

    With the bids guarding the asks and the asks guarding the bids, no price or size of a book is left to be looked at.
    As floats in bounds they take a third of the time in which the decimals could be checked, also in C. A book that is
    refused by its guards, for it is padded, or something is wrong, is decoded again without them.
    """

    other_price: Ordinary
    other_size: Ordinary


class OrderbookRow(msgspec.Struct, gc=False, kw_only=True):
    """A row of orderbook, or a frame of the stream ``orderbook``. Indonesia and the year 2021 send no ``level``."""

    market: str
    exchange_ms: Stamp
    total_ask_size: Decimal
    total_bid_size: Decimal
    asks: list[Slot]
    level: Decimal = Decimal(0)
    stream_type: str = ""
    bids: list[Slot]
    received_ms: int
    source: ClassVar[Source]
    guarded: ClassVar[bool]


class BidsRow(msgspec.Struct, gc=False, kw_only=True):
    """The bids of an `OrderbookRow`, which stand in the same list as the asks."""

    bids: list[Slot]


class TradeRow(msgspec.Struct, gc=False, kw_only=True):
    """A row of trades/ticks, or a frame of the stream ``trade``."""

    market: str
    trade_ms: Stamp
    exchange_ms: Stamp
    price: Decimal
    volume: Decimal
    ask_bid: Literal["ASK", "BID"]
    sequential_id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    stream_type: str = ""
    side: Side
    received_ms: int
    source: ClassVar[Source]


class CandleRow(msgspec.Struct, gc=False, kw_only=True):
    """A row of every candles page, or a frame of a stream ``candle.1m``.

    Its open time has no zone and is UTC (reference/list-candles-days, 2026-07-28).
    """

    market: str
    opens: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    exchange_ms: Stamp
    stream_type: str = ""
    open_ms: int
    state: CandleState
    received_ms: int
    source: ClassVar[Source]
    timeframe: ClassVar[Timeframe]
    revision: ClassVar[int] = 0
    filled: ClassVar[bool] = False


class InstrumentRow(msgspec.Struct):
    """A row of orderbook/instruments; its numbers are JSON strings."""

    market: str
    quote_currency: str
    tick_size: Decimal
    supported_levels: list[Decimal] = []


def spelled(
    row: type[RowT],
    names: Names,
    spelling: Spelling,
    *,
    types: dict[str, Any] | None = None,
    tag: tuple[str, str] | None = None,
    **constants: object,
) -> type[RowT]:
    """``row`` as the wire spells it. What the wire does not tell is empty until the value is made.

    ``types`` replaces types of fields, ``tag`` is the field and the word that tell this row from others, and
    ``constants`` are attributes of the class.
    """
    told = {field: name for field, each in names.items() if (name := getattr(each, spelling)) is not None}
    # msgspec renames only what a class defines itself, so every field is defined again.
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(row):
        kind = (types or {}).get(field.name, field.type)
        if field.required and field.name in told:
            fields.append((field.name, kind))
        else:
            fields.append((field.name, kind, None if field.required else field.default))
    made = msgspec.defstruct(
        row.__name__,
        fields,
        bases=(row,),
        module=__name__,
        namespace=constants,
        rename={name: told.get(name, f"{OFF_WIRE}{name}") for name in row.__struct_fields__},
        tag_field=tag and tag[0],
        tag=tag and tag[1],
        gc=False,
        kw_only=True,
    )
    return cast(type[RowT], made)


def book_rows(
    spelling: Spelling, *, guarded: bool, tag: tuple[str, str] | None = None, **constants: object
) -> tuple[type[OrderbookRow], type[BidsRow]]:
    """Both halves of an order book as the wire spells it: all but the bids, and the bids."""
    slot = GuardedSlot if guarded else Slot
    asks = {"asks": list[spelled(slot, wire_names.ASK, spelling)]}  # type: ignore[misc]
    bids = {"bids": list[spelled(slot, wire_names.BID, spelling)]}  # type: ignore[misc]
    return (
        spelled(OrderbookRow, wire_names.ORDERBOOK, spelling, types=asks, tag=tag, guarded=guarded, **constants),
        spelled(BidsRow, wire_names.BIDS, spelling, types=bids),
    )
