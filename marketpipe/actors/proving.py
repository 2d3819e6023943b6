"""Stretches of history as they are wanted: what is proven is read, only what is missing is fetched."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime

import attrs
import trio

from marketpipe.actors.pages import Pages
from marketpipe.core import timeframes
from marketpipe.core.answers import settled_before
from marketpipe.core.planning import Planner, missing
from marketpipe.core.requests import CANDLES_LIMIT
from marketpipe.core.shelf import Shelf
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import StoreError
from marketpipe.logs import Sparing, fields
from marketpipe.models import Candle, Priority

__all__ = ["Fetched", "Proving"]

logger = logging.getLogger("marketpipe.store")
ASKED_INSTEAD = "%s; the exchange is asked instead"
GONE = "the exchange keeps no %s bars of %s from before %s UTC: what is not stored of them cannot be known any more"
# Bars in one step of a long reading, and the slots of one that has to be fetched.
STEP = 5_000
# Where hardly anything is traded, a step has up to so many slots, for pages reach further there.
LONGEST_STEP = 100 * STEP
# A long step that takes more pages is made shorter: there is more in it than was thought.
PAGES_AT_MOST = 2 * STEP // CANDLES_LIMIT


@attrs.frozen(eq=False)
class Fetched:
    """What there is of a span, whether anything of it ``was_missing``, and before when it had settled.

    ``end_ms`` is the end of the span, unless an answer said that it was not reached yet.
    """

    shelf: Shelf
    was_missing: bool
    end_ms: int


@attrs.frozen(eq=False)
class Proving:
    """Reads from the archive and fetches from the exchange, and remembers what the latter does not keep any more.

    ``now_ms`` is the exchange's time, rather too early than too late. What is kept no more can never be proven (bars of
    a second are kept for three months), so the ledger has no place for it; it is asked for once.
    """

    pages: Pages
    _now_ms: Callable[[], int]
    _gone: dict[tuple[str, Timeframe], int] = attrs.field(factory=dict, init=False)
    _told: set[tuple[str, Timeframe]] = attrs.field(factory=set, init=False)  # of which the log says it
    _complaints: Sparing = attrs.field(factory=Sparing, init=False)

    def settled_ms(self, timeframe: Timeframe) -> int:
        """The slot boundary before which all has settled by now."""
        return settled_before(timeframe, self._now_ms())

    async def stored(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> Shelf:
        """What is proven; nothing, if the database cannot be read: the exchange still can."""
        try:
            return await self.pages.archive.shelf(market, timeframe, start_ms, max(start_ms, end_ms))
        except StoreError as error:
            self._ask_instead(error)
            return Shelf(timeframe)

    async def ledger(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> SpanSet:
        """What is proven, without the bars; nothing, if the database cannot be read."""
        try:
            return await self.pages.archive.coverage(market, timeframe, start_ms, max(start_ms, end_ms))
        except StoreError as error:
            self._ask_instead(error)
            return SpanSet()

    async def newest_stored(self, market: str, timeframe: Timeframe, count: int, end_ms: int) -> Shelf:
        """What is proven right before ``end_ms``, down to ``count`` bars; nothing, if the database cannot be read."""
        try:
            return await self.pages.archive.newest(market, timeframe, count, end_ms)
        except StoreError as error:
            self._ask_instead(error)
            return Shelf(timeframe)

    def missing(self, shelf: Shelf, market: str, start_ms: int, end_ms: int) -> SpanSet:
        """The slots in ``[start_ms, end_ms)`` that are not proven on ``shelf``, and that the exchange may have."""
        return self.unproven(shelf.proven, market, shelf.timeframe, start_ms, end_ms)

    def unproven(self, proven: SpanSet, market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> SpanSet:
        """As `missing`, where ``proven`` is what is."""
        return missing(timeframe, max(start_ms, self.gone_ms(market, timeframe)), end_ms, proven)

    async def through(
        self,
        market: str,
        timeframe: Timeframe,
        start_ms: int,
        end_ms: int,
        priority: Priority,
        *,
        stored_only: bool = False,
    ) -> AsyncGenerator[tuple[Candle, ...]]:
        """The bars of the settled span, oldest first, about `STEP` at a time at most.

        ``stored_only``: those that are proven, and nothing is asked; then a `StoreError` is raised.
        """
        low_ms, step = start_ms, STEP
        while low_ms < end_ms:
            shelf, high_ms = await self._proven_or_not(market, timeframe, low_ms, end_ms, stored_only)
            if low_ms not in shelf.proven and not stored_only:
                slots = min(step, timeframes.bars_between(timeframe, low_ms, high_ms))
                high_ms = timeframes.shift(timeframe, low_ms, slots)
                at_most = PAGES_AT_MOST if slots > STEP else None
                found = await self.proven(market, timeframe, low_ms, high_ms, priority, pages_at_most=at_most)
                shelf = found.shelf
                if found.end_ms < high_ms:
                    high_ms = end_ms = max(low_ms, found.end_ms)
                elif slots > STEP and self.missing(shelf, market, low_ms, high_ms):
                    step = max(STEP, slots // 2)
                    continue
                is_thin = len(shelf.bars(low_ms, high_ms)) < slots // 2
                step = min(2 * step, LONGEST_STEP) if is_thin else STEP
            if not stored_only:
                self.gone(shelf, market, low_ms, high_ms)
            bars = shelf.bars(low_ms, high_ms)
            if bars:
                yield bars
            low_ms = high_ms

    async def _proven_or_not(
        self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int, stored_only: bool
    ) -> tuple[Shelf, int]:
        """What is proven from ``start_ms`` on, and how far; or nothing, and up to where nothing is."""
        archive = self.pages.archive
        try:
            shelf = await archive.oldest(market, timeframe, STEP, start_ms, end_ms)
            span = shelf.proven.at(start_ms)
            if span is not None:
                return shelf, min(span[1], end_ms)
            proven = await archive.coverage(market, timeframe, start_ms, end_ms)
        except StoreError as error:
            if stored_only:
                raise
            self._ask_instead(error)
            return Shelf(timeframe), end_ms
        return Shelf(timeframe), next(iter(proven), (end_ms, end_ms))[0]

    async def proven(
        self,
        market: str,
        timeframe: Timeframe,
        start_ms: int,
        end_ms: int,
        priority: Priority,
        *,
        pages_at_most: int | None = None,
    ) -> Fetched:
        """All of the settled span, fetched where it is missing.

        ``pages_at_most``: after so many, what is missing is left out.

        Raises the exchange's error, which says what is missing because of it.
        """
        shelf = await self.stored(market, timeframe, start_ms, end_ms)
        holes = self.missing(shelf, market, start_ms, end_ms)
        if not holes:
            return Fetched(shelf, False, end_ms)
        # Not `end_ms` alone: what a page proves depends on how long ago that was.
        settled_ms = max(end_ms, self.settled_ms(timeframe))
        planner = Planner(market, timeframe, missing=holes, settled_ms=settled_ms)
        pieces = await self.pages.fetch(planner, priority, pages_at_most)
        for _, gone_ms in planner.gone:
            self.note_gone(market, timeframe, gone_ms)
        # Others may have stored what was left to them; what could not be stored is at hand all the same.
        shelf.lay_shelf(await self.stored(market, timeframe, start_ms, end_ms))
        shelf.lay_pieces(pieces)
        return Fetched(shelf, True, min(end_ms, planner.settled_ms))

    def gone_ms(self, market: str, timeframe: Timeframe) -> int:
        """Before which the exchange keeps nothing that could be asked for."""
        return self._gone.get((market, timeframe), 0)

    def gone(self, shelf: Shelf, market: str, start_ms: int, end_ms: int) -> SpanSet:
        """The slots in ``[start_ms, end_ms)`` of which nobody can tell any more whether anything was traded in them.

        They are not proven on ``shelf``, and the exchange does not keep them. That is said once in the log.
        """
        gone_ms = self.gone_ms(market, shelf.timeframe)
        found = missing(shelf.timeframe, start_ms, min(end_ms, gone_ms), shelf.proven)
        if found and (market, shelf.timeframe) not in self._told:
            self._told.add((market, shelf.timeframe))
            before = f"{datetime.fromtimestamp(gone_ms // 1000, UTC):%Y-%m-%d %H:%M:%S}"
            about = fields("bars-gone", market=market, timeframe=shelf.timeframe)
            logger.warning(GONE, shelf.timeframe, market, before, extra=about)
        return found

    def _ask_instead(self, error: StoreError) -> None:
        # Every reading of bars may bring one.
        unsaid = self._complaints.unsaid(trio.current_time())
        if unsaid is not None:
            logger.warning(ASKED_INSTEAD, error, extra=fields("store-unreadable", error, unsaid=unsaid))

    def note_gone(self, market: str, timeframe: Timeframe, before_ms: int) -> None:
        """The exchange has shown nothing before this moment, and that proves nothing."""
        self._gone[market, timeframe] = max(before_ms, self.gone_ms(market, timeframe))
