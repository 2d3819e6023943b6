"""History as it is proven: a stretch of time, and every bar that was traded in it.

Every slot of a series is in one of three states: *traded* (a bar), *empty* (proven: no trade fell into it, so there is
no bar) or *unknown*. A `Piece` is what turns unknown slots into the other two, and the only thing the store takes in.
"""

from __future__ import annotations

import attrs

from marketpipe.core import timeframes
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import BadPayload
from marketpipe.models import Candle, CandleState

__all__ = ["Piece", "first_slot", "proven"]

# Bars of a second are kept for "the last 3 months" (reference/list-candles-seconds, 2026-07-28): the shortest three
# there are, less a day for what takes its time. A page that ends before that tells nothing of what was traded earlier.
SECONDS_KEPT_MS = 88 * timeframes.DAY_MS


@attrs.frozen
class Piece:
    """All there is between ``start_ms`` and ``end_ms`` (half-open, slot boundaries of ``timeframe``, epoch ms UTC).

    ``bars``: FINAL, oldest first, each opening within the piece. A slot of it without a bar is proven to be empty.
    """

    market: str
    timeframe: Timeframe
    start_ms: int
    end_ms: int
    bars: tuple[Candle, ...]


def first_slot(timeframe: Timeframe) -> int:
    """The first open time since 1970: as far back as any history is ever proven."""
    return timeframes.ceil(timeframe, 0)


def proven(request: CandlesRequest, page: tuple[Candle, ...], settled_ms: int) -> Piece | None:
    """What the answer to ``request`` proves of the slots before ``settled_ms``; None if that is nothing.

    ``settled_ms`` is a slot boundary that had been settled when the request was sent. A page holds the newest bars that
    open before `to`, and a slot without a trade has none (reference/list-candles-minutes, 2026-07-28). A full page is
    therefore all there is from its oldest bar on, and one shorter than asked, all there is since `first_slot`; of bars
    of a second, all since the exchange keeps them. Raises `BadPayload` for a page that cannot be the answer.
    """
    timeframe = request.timeframe
    bars = sorted(page, key=lambda bar: bar.open_ms)
    _refuse_what_was_not_asked(request, bars)
    start_ms = first_slot(timeframe)
    if timeframe is Timeframe.S1:
        start_ms = max(start_ms, settled_ms - SECONDS_KEPT_MS)
    if bars:
        start_ms = bars[0].open_ms if len(bars) == request.count else min(start_ms, bars[0].open_ms)
    end_ms = settled_ms if request.to_ms is None else min(settled_ms, timeframes.ceil(timeframe, request.to_ms))
    if end_ms <= start_ms:
        return None
    return Piece(
        request.market, timeframe, start_ms, end_ms, tuple(_final(bar) for bar in bars if bar.open_ms < end_ms)
    )


def _refuse_what_was_not_asked(request: CandlesRequest, bars: list[Candle]) -> None:
    # `bars` oldest first. Whoever went on from such a page would prove what it does not show, or never come to an end.
    market, timeframe = request.market, request.timeframe
    if len(bars) > request.count:
        raise BadPayload(f"{len(bars)} bars came, asked were {request.count}", market=market)
    before_ms = None
    for bar in bars:
        if (bar.market, bar.timeframe) != (market, timeframe):
            raise BadPayload(f"a {bar.timeframe} bar of {bar.market} came, asked were {timeframe} bars", market=market)
        if timeframes.floor(timeframe, bar.open_ms) != bar.open_ms or bar.open_ms < 0:
            raise BadPayload(f"a bar opens at {bar.open_ms}, where no {timeframe} bar can", market=market)
        if request.to_ms is not None and bar.open_ms >= request.to_ms:
            raise BadPayload(f"a bar opens at {bar.open_ms}, asked were those before {request.to_ms}", market=market)
        if bar.open_ms == before_ms:
            raise BadPayload(f"two bars open at {bar.open_ms}", market=market)
        before_ms = bar.open_ms


def _final(bar: Candle) -> Candle:
    return bar if bar.state is CandleState.FINAL else attrs.evolve(bar, state=CandleState.FINAL)
