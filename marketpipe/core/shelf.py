"""Bars of one series that are at hand, and of which spans they are all there is: pages can be made of them.

What is proven is laid on the shelf piece by piece (`marketpipe.core.history`). A page of the exchange, the newest n
bars before a moment, can then be given from it if it is proven so far down that n bars are found, or down to where
history begins; and if it is not, only what lies further down has to be asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

import attrs

from marketpipe.core.history import Piece, first_slot
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle

__all__ = ["Shelf"]


@attrs.define(eq=False)
class Shelf:
    """What is at hand of one series. Later pieces count where they contradict earlier ones."""

    timeframe: Timeframe
    proven: SpanSet = attrs.field(factory=SpanSet, init=False)
    _bars: list[Candle] = attrs.field(factory=list, init=False)
    _opens: list[int] = attrs.field(factory=list, init=False)

    def lay(self, spans: SpanSet, bars: Sequence[Candle]) -> None:
        """``bars``, oldest first, are all there is in ``spans``; those that open elsewhere are left out."""
        opens = [bar.open_ms for bar in bars]
        for start_ms, end_ms in spans:
            low, high = bisect_left(self._opens, start_ms), bisect_left(self._opens, end_ms)
            first, last = bisect_left(opens, start_ms), bisect_left(opens, end_ms)
            self._bars[low:high] = bars[first:last]
            self._opens[low:high] = opens[first:last]
        self.proven |= spans

    def lay_shelf(self, other: Shelf) -> None:
        """As `lay`, all that is on ``other``."""
        self.lay(other.proven, other._bars)

    def lay_pieces(self, pieces: Iterable[Piece]) -> None:
        """As `lay`, each of them."""
        for piece in pieces:
            self.lay(SpanSet.of((piece.start_ms, piece.end_ms)), piece.bars)

    def bars(self, start_ms: int, end_ms: int) -> tuple[Candle, ...]:
        """The bars at hand that open in ``[start_ms, end_ms)``, oldest first."""
        return tuple(self._bars[bisect_left(self._opens, start_ms) : bisect_left(self._opens, end_ms)])

    def proven_from(self, end_ms: int) -> int:
        """Down to where all is proven that lies before ``end_ms``; that itself, if nothing is."""
        span = self.proven.at(end_ms - 1)
        return end_ms if span is None else span[0]

    def newest(self, count: int, end_ms: int) -> tuple[Candle, ...]:
        """The newest ``count`` bars before ``end_ms``, oldest first; fewer if it is not known what lies below."""
        low, high = bisect_left(self._opens, self.proven_from(end_ms)), bisect_left(self._opens, end_ms)
        return tuple(self._bars[max(low, high - count) : high])

    def page(self, request: CandlesRequest) -> tuple[Candle, ...] | None:
        """The answer to ``request``, newest first as the exchange gives it; None if it is not at hand."""
        assert request.to_ms is not None
        bars = self.newest(request.count, request.to_ms)
        if len(bars) < request.count and self.proven_from(request.to_ms) > first_slot(self.timeframe):
            return None
        return bars[::-1]
