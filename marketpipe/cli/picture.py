"""A bar in one line of text: the wick from its low to its high, the body from its open to where it closes.

::

    ──██████►─    rose: opened where the body begins, closed at the arrow
    ─◄████────    fell
    ────┃─────    closed where it opened

The picture is of one bar alone: its left end is that bar's low, its right end that bar's high.
"""

from __future__ import annotations

from decimal import Decimal

import attrs

from marketpipe.models import Candle

__all__ = ["WIDTH", "picture"]

WIDTH = 10


@attrs.frozen
class _Strokes:
    wick: str
    body: str
    rose: str
    fell: str
    even: str


_BLOCKS = _Strokes("─", "█", "►", "◄", "┃")
_ASCII = _Strokes("-", "=", ">", "<", "|")


def picture(candle: Candle, *, width: int = WIDTH, ascii_only: bool = False) -> str:
    """``candle`` in exactly ``width`` characters (at least 1). The arrow tells the direction without a colour."""
    strokes = _ASCII if ascii_only else _BLOCKS
    if candle.high == candle.low:
        return strokes.even.center(width)
    opened, closed = (_place(price, candle, width) for price in (candle.open, candle.close))
    cells = [strokes.wick] * width
    for place in range(min(opened, closed), max(opened, closed) + 1):
        cells[place] = strokes.body
    cells[closed] = strokes.even
    if candle.close != candle.open:
        cells[closed] = strokes.rose if candle.close > candle.open else strokes.fell
    return "".join(cells)


def _place(price: Decimal, candle: Candle, width: int) -> int:
    share = (price - candle.low) / (candle.high - candle.low)
    # What is told of a bar comes in pieces, and a price may lie outside of it for a moment.
    return min(max(round(share * (width - 1)), 0), width - 1)
