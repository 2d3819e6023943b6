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

__all__ = ["Piece", "first_slot", "is_possible", "proven", "refuse_contradiction"]

# Bars of a second are kept for "the last 3 months" (reference/list-candles-seconds, 2026-07-28): the shortest three
# there are, less a day for what takes its time. A page that ends before that tells nothing of what was traded earlier.
SECONDS_KEPT_MS = 88 * timeframes.DAY_MS


@attrs.frozen
class Piece:
    """All there is between ``start_ms`` and ``end_ms`` (half-open, slot boundaries of ``timeframe``, epoch ms UTC).

    ``bars``: FINAL, oldest first, each opening within the piece. A slot of it without a bar is proven to be empty.

    ``shown_ms``: from there on the exchange has shown what there is. That the slots before it are empty is concluded
    alone, from a page that was shorter than asked; such a conclusion yields to any bar that is proven. No bar opens
    before it; a slot boundary, and `start_ms` if nothing is concluded.
    """

    market: str
    timeframe: Timeframe
    start_ms: int
    end_ms: int
    bars: tuple[Candle, ...]
    shown_ms: int = attrs.field(default=attrs.Factory(lambda self: self.start_ms, takes_self=True), kw_only=True)

    @property
    def is_concluded(self) -> bool:
        """Whether some of it was not shown."""
        return self.start_ms < self.shown_ms


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
        request.market,
        timeframe,
        start_ms,
        end_ms,
        tuple(_final(bar) for bar in bars if bar.open_ms < end_ms),
        shown_ms=min(end_ms, bars[0].open_ms) if bars else end_ms,
    )


def refuse_contradiction(piece: Piece, known_ms: int | None) -> None:
    """Raise `BadPayload` if what ``piece`` concludes is known to be wrong.

    ``known_ms`` is where the newest bar before `Piece.shown_ms` opens of those that are known otherwise; None if there
    is none. A page that lacks a row, or all of them, looks like the beginning of history.
    """
    if known_ms is not None and piece.start_ms <= known_ms < piece.shown_ms:
        raise BadPayload(
            f"the page ends with what is no beginning of the {piece.timeframe} bars: one opens at {known_ms},"
            f" before {piece.shown_ms}",
            market=piece.market,
        )


def is_possible(bar: Candle) -> bool:
    """Whether a bar can be so: its low the lowest of its prices, its high the highest, and nothing below 0."""
    return (
        0 <= bar.low <= bar.open <= bar.high
        and bar.low <= bar.close <= bar.high
        and bar.volume >= 0
        and bar.quote_volume >= 0
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
        if not is_possible(bar):
            raise BadPayload(
                f"the bar that opens at {bar.open_ms} has prices or volumes that no bar can", market=market
            )
        before_ms = bar.open_ms


def _final(bar: Candle) -> Candle:
    return bar if bar.state is CandleState.FINAL else attrs.evolve(bar, state=CandleState.FINAL)
