"""Bars as rows, and back. Numbers are canonical decimal text: no exponent, no digit that says nothing, none lost.

Text is compared to know whether two bars say the same, so one number must have one spelling.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from itertools import chain, starmap
from operator import attrgetter
from typing import Any, ClassVar

import msgspec

from marketpipe.core.history import Piece
from marketpipe.models import Candle, CandleState, Source

__all__ = [
    "COLUMNS",
    "EXCHANGE_MS",
    "OPEN_MS",
    "REVISION",
    "Row",
    "bar_or_none",
    "bars_of",
    "content",
    "number_text",
    "rows_of",
    "texts_of",
]

# The columns of `candles`, in their order.
COLUMNS = "market, timeframe, open_ms, open, high, low, close, volume, quote_volume, exchange_ms, received_ms, revision"
OPEN_MS, EXCHANGE_MS, REVISION = 2, 9, 11
Row = tuple[Any, ...]

_NUMBERS = attrgetter("open", "high", "low", "close", "volume", "quote_volume")


class _StoredBar(msgspec.Struct, gc=False):
    # Made from a row and turned into a `Candle` attribute by attribute, in C: that takes 60 % of the time of calling
    # `Candle` and `Decimal`, and reading is mostly that.
    market: str
    timeframe: str
    open_ms: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    exchange_ms: int
    received_ms: int
    revision: int
    source: ClassVar[Source] = Source.STORE
    state: ClassVar[CandleState] = CandleState.FINAL
    filled: ClassVar[bool] = False


def number_text(number: Decimal) -> str:
    """``number`` in its one spelling: ``116539000`` for 1.16539E8, ``0.00000001`` for 1E-8, ``0.1`` for 0.10.

    Exact for any number of digits: `Decimal.normalize` would round to those of the context. NaN and infinities are a
    ``ValueError``.
    """
    text = str(number)
    if not "0" <= text[0] <= "9":
        if not number.is_finite():
            raise ValueError(f"a price or size must be a number, was {number!s:.20}")
        number = number or Decimal(0)  # -0 is 0
        text = str(number)
    if "E" in text:
        text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def number_texts(numbers: Iterable[Decimal]) -> list[str]:
    """`number_text` of each, in two thirds of the time: hardly any number needs the closer look."""
    numbers = [*numbers]
    texts = [*map(str, numbers)]
    together = "".join(texts)
    if any(sign in together for sign in "E-NI"):  # an exponent, below 0, NaN, Infinity
        return [*map(number_text, numbers)]
    return [text.rstrip("0").rstrip(".") if "." in text else text for text in texts]


def texts_of(bar: Candle) -> tuple[str, ...]:
    """The prices and volumes of ``bar`` as they are stored."""
    return tuple(map(number_text, _NUMBERS(bar)))


def rows_of(piece: Piece) -> list[Row]:
    """The rows of ``piece``, in its order."""
    market, timeframe = piece.market, piece.timeframe.value
    texts = iter(number_texts(chain.from_iterable(map(_NUMBERS, piece.bars))))
    return [
        (market, timeframe, bar.open_ms, *six, bar.exchange_ms, bar.received_ms, bar.revision)
        for bar, six in zip(piece.bars, zip(*[texts] * 6, strict=True), strict=True)
    ]


def bars_of(rows: Iterable[Row]) -> tuple[Candle, ...]:
    """The bars of ``rows``, in their order; a row that nothing can mean is a ``msgspec.ValidationError``."""
    return msgspec.convert([*starmap(_StoredBar, rows)], tuple[Candle, ...], from_attributes=True)


def bar_or_none(row: Row) -> Candle | None:
    """The bar of ``row``; None if there is none in it, or none that can be read."""
    try:
        return bars_of((row,))[0]
    except msgspec.ValidationError:
        return None


def content(row: Row) -> Row:
    """What makes two rows of a slot the same bar: every value and the exchange's stamp, as in `core.candles`.

    When it was received is no content, nor how often it has changed.
    """
    return row[OPEN_MS + 1 : EXCHANGE_MS + 1]
