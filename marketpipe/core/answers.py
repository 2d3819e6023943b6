"""A page of candles as an answer: the bars, and what time it was at the exchange when it gave them.

What a page shows of bars that had not ended by then may still change, and what it does not show may still come. So
whatever is concluded from it holds for the time before: see `settled_ms`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import attrs

from marketpipe.core import timeframes
from marketpipe.core.bars import GRACE_MS
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleState

__all__ = ["Page", "page_of", "settled_before", "settled_ms"]


class Page(tuple[Candle, ...]):
    """Bars, newest first. ``at_ms``: the exchange's time when it gave them, rather too early than too late."""

    at_ms: int

    def __new__(cls, bars: Iterable[Candle], at_ms: int) -> Self:
        """Make one of ``bars``."""
        page = super().__new__(cls, bars)
        page.at_ms = at_ms
        return page


def page_of(bars: tuple[Candle, ...], at_ms: int) -> Page:
    """The page of ``bars``, newest first. The newest is RUNNING unless it had ended, and a grace with it, by then."""
    if bars and bars[0].state is CandleState.FINAL and bars[0].close_ms + GRACE_MS > at_ms:
        bars = (attrs.evolve(bars[0], state=CandleState.RUNNING), *bars[1:])
    return Page(bars, at_ms)


def settled_before(timeframe: Timeframe, now_ms: int) -> int:
    """The slot boundary before which all has settled by ``now_ms``."""
    return timeframes.floor(timeframe, max(0, now_ms - GRACE_MS))


def settled_ms(request: CandlesRequest, page: tuple[Candle, ...], planned_ms: int) -> int:
    """Before which slot boundary ``page``, the answer to ``request``, can prove anything; ``planned_ms`` at most.

    That is what had been taken for settled when it was asked for. An answer that says that it was not reaches less far,
    unless it was asked for less anyway.
    """
    if not isinstance(page, Page):
        return planned_ms
    told_ms = settled_before(request.timeframe, page.at_ms)
    asked_ms = planned_ms if request.to_ms is None else timeframes.ceil(request.timeframe, request.to_ms)
    return planned_ms if min(asked_ms, planned_ms) <= told_ms else told_ms
