"""Where the history of each series begins, confirmed before it is believed.

A page shorter than asked says that there is nothing before it, years at once. One that lacks a row, or came empty by a
mistake of whoever stands in between, says the same. So it is held against what is proven, and then another page has to
say it too: one request for each series, at the beginning of its history, and one more for each page that was under way
further down at that time and is answered first.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import attrs

from marketpipe.actors.archive import Archive
from marketpipe.core.history import Piece, proven, refuse_contradiction
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import StoreError
from marketpipe.logs import fields
from marketpipe.models import Candle, Priority

__all__ = ["Ask", "Beginnings"]

logger = logging.getLogger("marketpipe.store")

Series = tuple[str, Timeframe]
Ask = Callable[[CandlesRequest, Priority], Awaitable[tuple[Candle, ...]]]


@attrs.frozen(eq=False)
class Beginnings:
    """``ask`` gives one page as the exchange does; raises its error."""

    _archive: Archive
    _ask: Ask
    _confirmed: dict[Series, int] = attrs.field(factory=dict, init=False)  # before which there is nothing
    # What pages that are not confirmed yet say of that.
    _said: dict[Series, dict[CandlesRequest, int]] = attrs.field(factory=dict, init=False)

    async def confirm(
        self, request: CandlesRequest, page: tuple[Candle, ...], settled_ms: int, priority: Priority
    ) -> None:
        """Raise `BadPayload` for a page that ends where history does not; the exchange's error, if it will not say."""
        piece = proven(request, page, settled_ms)
        if piece is None or not piece.is_concluded:
            return
        refuse_contradiction(piece, await self._known_before(piece))
        if self._is_confirmed(request, piece):
            return
        said = self._said.setdefault((piece.market, piece.timeframe), {})
        said[request] = piece.shown_ms
        try:
            await self._ask_before(piece, settled_ms, priority)
        finally:
            said.pop(request, None)
        self._note(piece)

    async def _known_before(self, piece: Piece) -> int | None:
        try:
            return await self._archive.newest_proven(piece.market, piece.timeframe, piece.shown_ms)
        except StoreError as error:
            about = fields("store-unreadable", error, market=piece.market, timeframe=piece.timeframe)
            logger.warning("%s; the exchange is asked instead", error, extra=about)
            return None

    def _is_confirmed(self, request: CandlesRequest, piece: Piece) -> bool:
        series = piece.market, piece.timeframe
        if piece.shown_ms <= self._confirmed.get(series, 0):
            return True
        # Pages below the beginning come together: each of them is the other one that says so.
        others = (shown_ms for other, shown_ms in self._said.get(series, {}).items() if other != request)
        return piece.shown_ms <= max(others, default=0)

    async def _ask_before(self, piece: Piece, settled_ms: int, priority: Priority) -> None:
        request = CandlesRequest(piece.market, piece.timeframe, 1, piece.shown_ms)
        further = await self._ask(request, priority)
        proven(request, further, settled_ms)  # refuses what cannot be the answer
        refuse_contradiction(piece, further[0].open_ms if further else None)

    def _note(self, piece: Piece) -> None:
        series = piece.market, piece.timeframe
        self._confirmed[series] = max(piece.shown_ms, self._confirmed.get(series, 0))
