"""Bars for the handle: what is stored, only what is missing from the exchange, and the running bar.

One question is answered by `marketpipe.actors.reading`. Here is what goes beyond one: long stretches page by page, what
a question would cost, what is known of a stretch, and what is wrong with it.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Callable
from typing import Any

import attrs

from marketpipe.actors.pages import Pages
from marketpipe.actors.proving import Proving
from marketpipe.actors.reading import Found, Reading, Streams, needed
from marketpipe.core import timeframes
from marketpipe.core.bars import BarsWanted
from marketpipe.core.collection import CollectionSummary, Explanation, summed_up
from marketpipe.core.planning import pages_at_most, slots_in
from marketpipe.core.requests import CANDLES_LIMIT, CandlesRequest
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, Priority

__all__ = ["Collected", "Found"]


@attrs.frozen(eq=False)
class Collected:
    """``now_ms``: the exchange's time, rather too early than too late. ``cached`` reads a page from memory."""

    _pages: Pages
    _now_ms: Callable[[], int]
    _cached: Callable[[CandlesRequest], Any]
    _per_second: int
    _streams: Streams | None = None
    _proving: Proving = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_proving", Proving(self._pages, self._now_ms))  # frozen: it is part of this

    async def bars(self, market: str, wanted: BarsWanted, priority: Priority) -> Found:
        """What ``wanted`` means of ``market``, oldest first; raises the exchange's error, saying what is missing."""
        now_ms = self._now_ms()
        return await Reading(self._proving, self._cached, self._streams, market, wanted, priority, now_ms).bars()

    def iterate(
        self,
        market: str,
        timeframe: Timeframe,
        start_ms: int,
        end_ms: int | None,
        priority: Priority,
        *,
        stored_only: bool = False,
    ) -> AsyncGenerator[tuple[Candle, ...]]:
        """The settled bars that open in the range, oldest first, some thousands at a time: memory stays flat.

        ``stored_only``: those that are proven, and nothing is asked.
        """
        low_ms, top_ms = timeframes.ceil(timeframe, start_ms), self._top_ms(timeframe, end_ms)
        return self._proving.through(market, timeframe, low_ms, top_ms, priority, stored_only=stored_only)

    async def explain(self, market: str, wanted: BarsWanted) -> Explanation:
        """What `bars` would find, and what it would ask; nothing is asked."""
        timeframe, now_ms = wanted.timeframe, self._now_ms()
        low_ms, top_ms = needed(wanted, self._top_ms(timeframe, wanted.range.end_ms))
        proven = await self._proving.ledger(market, timeframe, low_ms, top_ms)
        holes = self._proving.unproven(proven, market, timeframe, low_ms, top_ms)
        running = _reaches_what_runs(wanted, low_ms, top_ms, now_ms)
        unsettled = timeframes.bars_between(timeframe, top_ms, now_ms + 1) if running else 0
        requests = _requests(wanted, (low_ms, top_ms), holes, unsettled)
        return Explanation(
            market=market,
            timeframe=timeframe,
            start_ms=low_ms,
            end_ms=max(top_ms, now_ms) if running else top_ms,
            bars_stored=len(await self._opens(market, timeframe, proven)),
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
        # Before the bars: what is proven in between has bars that it does not know of, never the other way round.
        proven = await archive.coverage(market, timeframe, low_ms, top_ms)
        opens = await self._opens(market, timeframe, proven)
        failures = await archive.failures(market, timeframe, low_ms, top_ms)
        return summed_up(market, timeframe, (low_ms, top_ms), proven, opens, failures)

    async def _opens(self, market: str, timeframe: Timeframe, spans: SpanSet) -> array[int]:
        """When the bars open that are stored in ``spans``."""
        opens = array("q")  # eight bytes a bar, however many there are
        for span in spans:
            async for bars in self._proving.through(market, timeframe, *span, Priority.LOW, stored_only=True):
                opens.extend(bar.open_ms for bar in bars)
        return opens

    def _top_ms(self, timeframe: Timeframe, end_ms: int | None) -> int:
        settled_ms = self._proving.settled_ms(timeframe)
        return settled_ms if end_ms is None else min(settled_ms, timeframes.ceil(timeframe, end_ms))


def _reaches_what_runs(wanted: BarsWanted, low_ms: int, top_ms: int, now_ms: int) -> bool:
    """Whether bars that have not settled are asked about; ``top_ms`` is where they begin then."""
    asked = wanted.range
    if asked.count is not None and asked.start_ms is not None:
        return low_ms <= now_ms and timeframes.bars_between(wanted.timeframe, low_ms, top_ms) < asked.count
    return low_ms <= now_ms and (asked.end_ms is None or asked.end_ms > top_ms)


def _requests(wanted: BarsWanted, span: tuple[int, int], holes: SpanSet, unsettled: int) -> int:
    """Pages that ``wanted`` takes if every slot has a bar, ``unsettled`` of them after ``span``."""
    if not unsettled:
        return pages_at_most(wanted.timeframe, holes)
    # One page brings what has not settled, and with it what is missing before that, as far as it reaches.
    timeframe, (low_ms, top_ms) = wanted.timeframe, span
    reach = CANDLES_LIMIT - unsettled
    if wanted.range.count is None:
        reach -= 1  # the exchange may have begun another bar
    elif wanted.range.start_ms is None:
        low_ms = timeframes.shift(timeframe, low_ms, min(unsettled, timeframes.bars_between(timeframe, low_ms, top_ms)))
    reach = min(reach, timeframes.bars_between(timeframe, low_ms, top_ms))
    return 1 + pages_at_most(timeframe, holes.clip(low_ms, timeframes.shift(timeframe, top_ms, -reach)))
