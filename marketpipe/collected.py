"""Bars for the handle: what is stored, only what is missing from the exchange, and the running bar.

A question is answered in three steps. What is proven is laid on a shelf (`marketpipe.core.shelf`); one page from the
newest proven bar up to now brings what has settled since and what is still running; what is missing besides is fetched
in as few pages as prove it, and stored. Questions that go by more than time (the first bars after a moment, gaps that
are filled with the bar before) then walk over the shelf as they would over the exchange's pages.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import attrs
import trio

from marketpipe.actors.pages import Pages
from marketpipe.core import timeframes
from marketpipe.core.bars import GRACE_MS, BarsWanted, bars_walk
from marketpipe.core.collection import CollectionSummary, Explanation, summed_up
from marketpipe.core.expiring import MISSING
from marketpipe.core.history import proven
from marketpipe.core.planning import Planner, missing, pages_at_most, slots_in
from marketpipe.core.requests import CANDLES_LIMIT, CandlesRequest
from marketpipe.core.shelf import Shelf
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import StoreError
from marketpipe.models import Candle, CandleState, Priority

__all__ = ["Collected", "Found"]

logger = logging.getLogger("marketpipe.store")

# Pages that are fetched for one step of a long reading.
STEP_PAGES = 25
NO_END_MS = 1 << 62


@attrs.frozen
class Found:
    """``from_memory``: whether nothing was asked of the exchange."""

    bars: tuple[Candle, ...]
    from_memory: bool


class Streams(Protocol):
    """The live bars."""

    def whole_bars(self, topic: Topic) -> tuple[int, tuple[Candle, ...]] | None:
        """All bars that exist from a moment on, which comes first, if a live stream vouches for them."""
        ...

    def is_live(self, topic: Topic) -> bool:
        """Whether they flow."""
        ...

    def page_read(self, topic: Topic, candles: tuple[Candle, ...], read_ms: int) -> None:
        """Take note of a page with the newest bars."""
        ...


@attrs.frozen(eq=False)
class Collected:
    """``now_ms``: the exchange's time, rather too early than too late. ``cached`` reads a page from memory."""

    _pages: Pages
    _now_ms: Callable[[], int]
    _cached: Callable[[CandlesRequest], Any]
    _per_second: int
    _streams: Streams | None = None

    async def bars(self, market: str, wanted: BarsWanted, priority: Priority) -> Found:
        """What ``wanted`` means of ``market``, oldest first; raises the exchange's error, saying what is missing."""
        return await _Reading(self, market, wanted, priority, self._now_ms()).bars()

    async def iterate(
        self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int | None, priority: Priority
    ) -> AsyncIterator[tuple[Candle, ...]]:
        """The settled bars that open in the range, oldest first, some thousands at a time: memory stays flat."""
        top_ms = self._top_ms(timeframe, end_ms)
        low_ms = timeframes.ceil(timeframe, start_ms)
        step = STEP_PAGES * CANDLES_LIMIT
        while low_ms < top_ms:
            slots = min(step, timeframes.bars_between(timeframe, low_ms, top_ms))
            high_ms = timeframes.shift(timeframe, low_ms, slots)
            shelf, _ = await self.ensured(market, timeframe, low_ms, high_ms, priority)
            bars = shelf.bars(low_ms, high_ms)
            if bars:
                yield bars
            # Of a thin market the next step is longer: its pages reach further.
            if len(bars) < slots // 2:
                step = min(2 * step, 100 * STEP_PAGES * CANDLES_LIMIT)
            low_ms = high_ms

    async def explain(self, market: str, wanted: BarsWanted) -> Explanation:
        """What `bars` would find, and what it would ask; nothing is asked."""
        timeframe, now_ms = wanted.timeframe, self._now_ms()
        low_ms, top_ms = _span(wanted, self._top_ms(timeframe, wanted.range.end_ms))
        shelf = await self.shelf(market, timeframe, low_ms, top_ms)
        holes = missing(timeframe, low_ms, top_ms, shelf.proven)
        running = wanted.range.end_ms is None or wanted.range.end_ms > top_ms
        requests = pages_at_most(timeframe, holes)
        if running:  # one page brings the running bar, and what is missing right before it
            last = next(reversed(holes), None)
            beside = SpanSet() if last is None or last[1] < top_ms else _newest_slots(timeframe, last)
            requests = pages_at_most(timeframe, holes - beside) + 1
        return Explanation(
            market=market,
            timeframe=timeframe,
            start_ms=low_ms,
            end_ms=max(top_ms, now_ms) if running else top_ms,
            bars_stored=len(shelf.bars(low_ms, top_ms)),
            slots=timeframes.bars_between(timeframe, low_ms, top_ms),
            slots_missing=slots_in(timeframe, holes),
            missing=tuple(holes),
            requests=requests,
            seconds=requests / self._per_second,
        )

    async def summary(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int | None) -> CollectionSummary:
        """What is known of each slot in the range."""
        low_ms = timeframes.ceil(timeframe, start_ms)
        top_ms = max(low_ms, timeframes.ceil(timeframe, self._now_ms() if end_ms is None else end_ms))
        archive = self._pages.archive
        shelf = await archive.shelf(market, timeframe, low_ms, top_ms)
        failures = await archive.failures(market, timeframe, low_ms, top_ms)
        return summed_up(market, timeframe, (low_ms, top_ms), shelf, failures)

    async def shelf(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> Shelf:
        """What is proven; nothing, if the database cannot be read: the exchange still can."""
        try:
            return await self._pages.archive.shelf(market, timeframe, start_ms, max(start_ms, end_ms))
        except StoreError as error:
            logger.warning("%s; the exchange is asked instead", error)
            return Shelf(timeframe)

    async def ensured(
        self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int, priority: Priority
    ) -> tuple[Shelf, bool]:
        """All of the span, fetched where it is missing; and whether anything was."""
        shelf = await self.shelf(market, timeframe, start_ms, end_ms)
        holes = missing(timeframe, start_ms, end_ms, shelf.proven)
        if not holes:
            return shelf, False
        planner = Planner(market, timeframe, missing=holes, settled_ms=end_ms)
        pieces = await self._pages.fetch(planner, priority)
        shelf = await self.shelf(market, timeframe, start_ms, end_ms)
        shelf.lay_pieces(pieces)
        return shelf, True

    def settled_ms(self, timeframe: Timeframe) -> int:
        """The slot boundary before which all has settled by now."""
        return timeframes.floor(timeframe, self._now_ms() - GRACE_MS)

    def _top_ms(self, timeframe: Timeframe, end_ms: int | None) -> int:
        settled_ms = self.settled_ms(timeframe)
        return settled_ms if end_ms is None else min(settled_ms, timeframes.ceil(timeframe, end_ms))


@attrs.define(eq=False)
class _Reading:
    """One question on its way."""

    _at: Collected
    _market: str
    _wanted: BarsWanted
    _priority: Priority
    _now_ms: int
    _shelf: Shelf = attrs.field(init=False)
    _settled_ms: int = attrs.field(init=False)
    _running: tuple[Candle, ...] = attrs.field(default=(), init=False)  # what has not settled, oldest first
    _asked: bool = attrs.field(default=False, init=False)

    async def bars(self) -> Found:
        timeframe, asked = self._wanted.timeframe, self._wanted.range
        self._settled_ms = timeframes.floor(timeframe, self._now_ms - GRACE_MS)
        end_ms = NO_END_MS if asked.end_ms is None else timeframes.ceil(timeframe, asked.end_ms)
        low_ms, top_ms = _span(self._wanted, min(end_ms, self._settled_ms))
        self._shelf = await self._at.shelf(self._market, timeframe, low_ms, top_ms)
        # Closed bars alone need no look at the running one.
        if (
            end_ms > self._settled_ms
            and low_ms <= self._now_ms
            and not (self._wanted.closed_only and not self._wanted.fill)
        ):
            await self._read_the_newest(low_ms, end_ms)
        if missing(timeframe, low_ms, top_ms, self._shelf.proven):
            running = self._shelf
            self._shelf, fetched = await self._at.ensured(self._market, timeframe, low_ms, top_ms, self._priority)
            self._shelf.lay(running.proven, running.bars(0, self._settled_ms))  # if it could not be stored
            self._asked = self._asked or fetched
        at_hand = self._at_hand(low_ms, top_ms, end_ms)
        return Found(await self._walked() if at_hand is None else at_hand, not self._asked)

    def _at_hand(self, low_ms: int, top_ms: int, end_ms: int) -> tuple[Candle, ...] | None:
        asked = self._wanted.range
        if self._wanted.fill or (asked.count is not None and asked.start_ms is not None):
            return None
        if low_ms < top_ms and not self._shelf.proven.covers(low_ms, top_ms):
            return None
        bars = (*self._shelf.bars(low_ms, top_ms), *(bar for bar in self._running if low_ms <= bar.open_ms < end_ms))
        if self._wanted.closed_only:
            bars = tuple(bar for bar in bars if bar.state is CandleState.FINAL)
        if asked.count is None:
            return bars
        return bars[-asked.count :] if len(bars) >= asked.count else None

    async def _walked(self) -> tuple[Candle, ...]:
        walk = bars_walk(self._market, self._wanted, self._now_ms)
        pages: tuple[Any, ...] | None = None
        while True:
            try:
                requests = next(walk) if pages is None else walk.send(pages)
            except StopIteration as stop:
                bars: tuple[Candle, ...] = stop.value
                return bars
            pages = tuple([await self._page(request) for request in requests])
            await trio.lowlevel.checkpoint()

    async def _page(self, request: CandlesRequest) -> tuple[Candle, ...]:
        """The answer to ``request``, from the shelf as far as that reaches."""
        if request.to_ms is not None and request.to_ms <= self._settled_ms:
            return await self._settled_page(request.count, request.to_ms)
        to_ms = NO_END_MS if request.to_ms is None else request.to_ms
        if not self._running and not self._asked:
            await self._read_the_newest(self._settled_ms, to_ms)
        newest = tuple(bar for bar in self._running if bar.open_ms < to_ms)[::-1][: request.count]
        if len(newest) == request.count:
            return newest
        return newest + await self._settled_page(request.count - len(newest), self._settled_ms)

    async def _settled_page(self, count: int, to_ms: int) -> tuple[Candle, ...]:
        timeframe = self._wanted.timeframe
        while (page := self._shelf.page(CandlesRequest(self._market, timeframe, count, to_ms))) is None:
            low_ms = self._shelf.proven_from(to_ms)
            if not await self._lay_stored(low_ms) and not await self._lay_fetched(low_ms):
                return self._shelf.newest(count, to_ms)[::-1]  # the exchange keeps nothing older
        return page

    async def _lay_stored(self, to_ms: int) -> bool:
        try:
            more = await self._at._pages.archive.newest(self._market, self._wanted.timeframe, CANDLES_LIMIT, to_ms)
        except StoreError as error:
            logger.warning("%s; the exchange is asked instead", error)
            return False
        self._shelf.lay(more.proven, more.bars(0, to_ms))
        return self._shelf.proven_from(to_ms) < to_ms

    async def _lay_fetched(self, to_ms: int) -> bool:
        request = CandlesRequest(self._market, self._wanted.timeframe, CANDLES_LIMIT, to_ms)
        piece = proven(request, await self._ask(request), self._settled_ms)
        if piece is None:
            return False
        self._shelf.lay_pieces((piece,))
        return True

    async def _read_the_newest(self, low_ms: int, end_ms: int) -> None:
        """One page from the newest proven bar, or from ``low_ms``, up to now."""
        timeframe = self._wanted.timeframe
        holes = missing(timeframe, low_ms, self._settled_ms, self._shelf.proven)
        last = next(reversed(holes), None)
        from_ms = self._settled_ms if last is None or last[1] < self._settled_ms else last[0]
        # The exchange may be a second ahead of what is known of its time, and have begun another bar.
        if self._is_streamed_from(from_ms):
            return
        slots = timeframes.bars_between(timeframe, from_ms, self._now_ms + 1) + 1
        to_ms = None if end_ms > self._now_ms else end_ms
        request = CandlesRequest(self._market, timeframe, min(CANDLES_LIMIT, slots), to_ms)
        topic, streams = Topic(Line.CANDLE, self._market, timeframe), self._at._streams
        was_live, asked = streams is not None and streams.is_live(topic), self._asked
        page = await self._ask(request)
        if streams is not None and was_live and self._asked is not asked and to_ms is None:
            streams.page_read(topic, page, self._now_ms)
        self._running = tuple(bar for bar in page[::-1] if bar.open_ms >= self._settled_ms)
        piece = proven(request, page, self._settled_ms)
        if piece is not None:
            self._shelf.lay_pieces((piece,))

    def _is_streamed_from(self, from_ms: int) -> bool:
        """Whether a stream vouches for all from ``from_ms`` on; then that is taken."""
        streams = self._at._streams
        whole = None
        if streams is not None:
            whole = streams.whole_bars(Topic(Line.CANDLE, self._market, self._wanted.timeframe))
        if whole is None or whole[0] > from_ms:
            return False
        bars = [bar for bar in whole[1] if bar.open_ms >= from_ms]
        self._running = tuple(bar for bar in bars if bar.open_ms >= self._settled_ms)
        settled = [bar for bar in bars if bar.open_ms < self._settled_ms]
        if from_ms < self._settled_ms and all(bar.state is CandleState.FINAL for bar in settled):
            self._shelf.lay(SpanSet.of((from_ms, self._settled_ms)), settled)
        return True

    async def _ask(self, request: CandlesRequest) -> tuple[Candle, ...]:
        held = self._at._cached(request)
        if held is not MISSING:
            page: tuple[Candle, ...] = held
            return page
        self._asked = True
        page = await self._at._pages.ask(request, self._priority)
        piece = proven(request, page, self._settled_ms)
        if piece is not None:
            self._at._pages.archive.add(piece)
        return page


def _span(wanted: BarsWanted, top_ms: int) -> tuple[int, int]:
    """The slots that are needed in any case, before ``top_ms``."""
    asked, timeframe = wanted.range, wanted.timeframe
    if asked.start_ms is not None:
        low_ms = timeframes.ceil(timeframe, asked.start_ms)
        if asked.count is None:
            return low_ms, max(low_ms, top_ms)
        slots = min(asked.count, timeframes.bars_between(timeframe, low_ms, top_ms))
        return low_ms, timeframes.shift(timeframe, low_ms, slots)
    assert asked.count is not None
    slots = min(asked.count, timeframes.bars_between(timeframe, 0, top_ms))
    return timeframes.shift(timeframe, top_ms, -slots), top_ms


def _newest_slots(timeframe: Timeframe, hole: tuple[int, int]) -> SpanSet:
    slots = min(CANDLES_LIMIT - 2, timeframes.bars_between(timeframe, *hole))
    return SpanSet.of((timeframes.shift(timeframe, hole[1], -slots), hole[1]))
