"""One question for candles, from the archive as far as that reaches and from the exchange for the rest.

It is answered as it would be without any archive: by the walk over pages that `marketpipe.core.bars` makes of it. Here
a page is given from what is proven, and where that ends, one page of the exchange is asked for, which reaches at least
as far down as the walk wanted to; so it never takes more requests than without an archive. A stretch between two
moments needs no walk, and is fetched in as few pages as prove it, several at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import attrs
import trio

from marketpipe.actors.proving import Proving
from marketpipe.core import timeframes
from marketpipe.core.answers import Page, settled_before, settled_ms
from marketpipe.core.bars import GRACE_MS, BarsWanted, bars_walk
from marketpipe.core.expiring import MISSING
from marketpipe.core.history import Piece, first_slot, proven
from marketpipe.core.requests import CANDLES_LIMIT, CandlesRequest
from marketpipe.core.shelf import Shelf
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic
from marketpipe.models import Candle, CandleState, Priority

__all__ = ["Found", "Reading", "Streams", "needed"]

NO_END_MS = 1 << 62


class _NotYet(Exception):
    """An answer says that it is no later than ``now_ms``, so that not all has settled that was taken for settled."""

    def __init__(self, now_ms: int) -> None:
        super().__init__(now_ms)
        self.now_ms = now_ms


@attrs.frozen
class Found:
    """``from_memory``: whether nothing was asked of the exchange. ``stored``: whether the database told some of it.

    ``gone``: slots among those that were asked for, of which nobody can tell any more whether they had a bar: bars of a
    second that the exchange does not keep, and that were not stored in time.
    """

    bars: tuple[Candle, ...]
    from_memory: bool
    gone: SpanSet = attrs.field(factory=SpanSet)
    stored: bool = False


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


def needed(wanted: BarsWanted, top_ms: int) -> tuple[int, int]:
    """The slots before ``top_ms`` that ``wanted`` needs in any case: half-open, epoch ms, slot boundaries."""
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


@attrs.define(eq=False)
class Reading:
    """One question on its way. ``now_ms``: the exchange's time, rather too early than too late; `bars` is the answer.

    ``cached`` reads a page from memory. Bars that had ended at ``now_ms``, less a grace, are settled; what is newer is
    read anew by every question, once, unless closed bars alone are wanted.
    """

    _proving: Proving
    _cached: Callable[[CandlesRequest], Any]
    _streams: Streams | None
    _market: str
    _wanted: BarsWanted
    _priority: Priority
    _now_ms: int
    _timeframe: Timeframe = attrs.field(init=False)
    _settled_ms: int = attrs.field(init=False)
    _lowest_ms: int = attrs.field(init=False)  # no bar below is of any use
    _shelf: Shelf = attrs.field(init=False)  # what is at hand of the settled bars
    _running: tuple[Candle, ...] = attrs.field(default=(), init=False)  # the others, oldest first
    _running_end_ms: int = attrs.field(default=0, init=False)  # which of them were read: those that open before
    _asked: bool = attrs.field(default=False, init=False)
    _stored: bool = attrs.field(default=False, init=False)  # whether the archive had something

    def __attrs_post_init__(self) -> None:
        self._timeframe = self._wanted.timeframe
        self._settled_ms = settled_before(self._timeframe, self._now_ms)
        start_ms = self._wanted.range.start_ms
        # A gap is filled with what was traded before it, however long ago.
        self._lowest_ms = first_slot(self._timeframe)
        if start_ms is not None and not self._wanted.fill:
            self._lowest_ms = max(self._lowest_ms, timeframes.ceil(self._timeframe, start_ms))

    async def bars(self) -> Found:
        """What is wanted, oldest first. Raises the exchange's error, which says what is missing because of it."""
        while True:
            try:
                return await self._bars()
            except _NotYet as earlier:
                self._now_ms = earlier.now_ms
                self._settled_ms = settled_before(self._timeframe, self._now_ms)
                self._running, self._running_end_ms = (), 0

    async def _bars(self) -> Found:
        wanted, asked = self._wanted, self._wanted.range
        end_ms = NO_END_MS if asked.end_ms is None else timeframes.ceil(self._timeframe, asked.end_ms)
        low_ms, top_ms = needed(wanted, min(end_ms, self._settled_ms))
        self._shelf = await self._proving.stored(self._market, self._timeframe, low_ms, top_ms)
        self._stored = self._stored or bool(self._shelf.proven)
        if asked.count is None and not wanted.fill:
            return self._found(await self._between(low_ms, top_ms, end_ms), low_ms, top_ms)
        bars: tuple[Candle, ...] | None = None
        if not wanted.fill:
            bars = await self._newest(end_ms) if asked.start_ms is None else self._first(low_ms)
        return self._found(await self._walked() if bars is None else bars, low_ms, top_ms)

    def _found(self, bars: tuple[Candle, ...], low_ms: int, top_ms: int) -> Found:
        gone = self._proving.gone(self._shelf, self._market, low_ms, top_ms)
        return Found(bars, not self._asked, gone, self._stored)

    async def _between(self, low_ms: int, top_ms: int, end_ms: int) -> tuple[Candle, ...]:
        """All bars of the span."""
        if end_ms > self._settled_ms and low_ms <= self._now_ms and not self._wanted.closed_only:
            await self._read_running_and_missing(low_ms, end_ms)
        if self._proving.missing(self._shelf, self._market, low_ms, top_ms):
            found = await self._proving.proven(self._market, self._timeframe, low_ms, top_ms, self._priority)
            self._asked = self._asked or found.was_missing
            if found.end_ms < top_ms:
                raise _NotYet(found.end_ms + GRACE_MS)
            self._shelf.lay_shelf(found.shelf)
        running = (bar for bar in self._running if low_ms <= bar.open_ms < end_ms)
        return (*self._shelf.bars(low_ms, top_ms), *running)

    async def _read_running_and_missing(self, low_ms: int, end_ms: int) -> None:
        holes = self._proving.missing(self._shelf, self._market, low_ms, self._settled_ms)
        last = next(reversed(holes), None)
        touches = last is not None and last[1] == self._settled_ms
        if self._is_streamed_from(last[0] if last is not None and touches else self._settled_ms):
            return
        # A whole page costs no more than the running bar alone, and reaches what is missing so near.
        near_ms = self._slots_before(self._settled_ms, CANDLES_LIMIT - 2)
        near = holes.clip(near_ms, max(near_ms, self._settled_ms))
        await self._read_running(next(iter(near), (self._settled_ms, 0))[0], end_ms)

    async def _newest(self, end_ms: int) -> tuple[Candle, ...] | None:
        """The newest bars before ``end_ms``, if they are all at hand once the running one is read."""
        count = self._wanted.range.count
        assert count is not None
        bars: tuple[Candle, ...] = ()
        if end_ms > self._settled_ms and not self._wanted.closed_only:
            bars = await self._running_before(end_ms, count)
        bars = (*self._shelf.newest(count, min(end_ms, self._settled_ms)), *bars)
        return bars[-count:] if len(bars) >= count else None

    def _first(self, low_ms: int) -> tuple[Candle, ...] | None:
        """The first bars from ``low_ms`` on, if they are all at hand."""
        count, span = self._wanted.range.count, self._shelf.proven.at(low_ms)
        bars = () if span is None else self._shelf.bars(low_ms, min(span[1], self._settled_ms))[:count]
        return bars if len(bars) == count else None

    # -- the walk -----------------------------------------------------------------------------------------------

    async def _walked(self) -> tuple[Candle, ...]:
        walk = bars_walk(self._market, self._wanted, self._now_ms)
        pages: tuple[Any, ...] | None = None
        while True:
            try:
                requests = next(walk) if pages is None else walk.send(pages)
            except StopIteration as stop:
                bars: tuple[Candle, ...] = stop.value
                return bars
            pages = await self._answers(requests)
            await trio.lowlevel.checkpoint()

    async def _answers(self, requests: Iterable[CandlesRequest]) -> tuple[tuple[Candle, ...], ...]:
        """What the exchange would answer, newest first as it would."""
        parts = [await self._split(request) for request in requests]
        while lacking := [each for _, count, to_ms in parts if (each := await self._lacking(count, to_ms)) is not None]:
            await self._ask(lacking)
        return tuple((*newest, *self._shelf.newest(count, to_ms)[::-1]) for newest, count, to_ms in parts)

    async def _split(self, request: CandlesRequest) -> tuple[tuple[Candle, ...], int, int]:
        """The bars that have not settled, and how many besides before which moment."""
        to_ms = NO_END_MS if request.to_ms is None else request.to_ms
        newest: tuple[Candle, ...] = ()
        if to_ms > self._settled_ms and not self._wanted.closed_only:
            newest = (await self._running_before(to_ms, request.count))[::-1][: request.count]
        return newest, request.count - len(newest), min(to_ms, self._settled_ms)

    async def _lacking(self, count: int, to_ms: int) -> CandlesRequest | None:
        """The page that must be asked for, so that the newest ``count`` bars before ``to_ms`` are at hand."""
        while not self._is_enough(count, to_ms):
            low_ms = self._shelf.proven_from(to_ms)
            if not await self._lay_stored(low_ms):
                if low_ms <= self._proving.gone_ms(self._market, self._timeframe):
                    return None  # there are no more
                slots = timeframes.bars_between(self._timeframe, await self._hole_from(count, low_ms), low_ms)
                return CandlesRequest(self._market, self._timeframe, min(CANDLES_LIMIT, slots), low_ms)
        return None

    async def _hole_from(self, count: int, to_ms: int) -> int:
        """From where on a page must show what there is before ``to_ms``, for ``count`` bars to be at hand.

        If that many are right below the hole, it is the hole alone. Otherwise a whole page: it costs no more.
        """
        from_ms = self._proven_before(to_ms)
        while not self._is_enough(count, from_ms):
            if not await self._lay_stored(self._shelf.proven_from(from_ms)):
                return self._slots_before(to_ms, CANDLES_LIMIT)
        return from_ms

    def _proven_before(self, to_ms: int) -> int:
        # The end of the newest stretch at hand.
        return next(reversed(self._shelf.proven.clip(0, to_ms)), (0, to_ms))[1]

    def _slots_before(self, to_ms: int, slots: int) -> int:
        slots = min(slots, timeframes.bars_between(self._timeframe, 0, to_ms))
        return timeframes.shift(self._timeframe, to_ms, -slots)

    def _is_enough(self, count: int, to_ms: int) -> bool:
        return len(self._shelf.newest(count, to_ms)) >= count or self._shelf.proven_from(to_ms) <= self._lowest_ms

    async def _lay_stored(self, to_ms: int) -> bool:
        more = await self._proving.newest_stored(self._market, self._timeframe, CANDLES_LIMIT, to_ms)
        self._stored = self._stored or bool(more.proven)
        self._shelf.lay_shelf(more)
        return self._shelf.proven_from(to_ms) < to_ms

    # -- what has not settled -----------------------------------------------------------------------------------

    async def _running_before(self, end_ms: int, count: int) -> tuple[Candle, ...]:
        """The bars that have not settled and open before ``end_ms``, oldest first.

        What had to be asked for them is chosen so that it lacks nothing of the newest ``count`` bars, if one page can.
        """
        if self._running_end_ms < end_ms and not self._is_streamed_from(self._proven_before(self._settled_ms)):
            await self._read_running(await self._hole_from(count, self._settled_ms), end_ms)
        return tuple(bar for bar in self._running if bar.open_ms < end_ms)

    async def _read_running(self, from_ms: int, end_ms: int) -> None:
        """Read what there is from ``from_ms`` up to now, which must be no later than what has not settled."""
        # The exchange may be a second ahead of what is known of its time, and have begun another bar.
        slots = timeframes.bars_between(self._timeframe, from_ms, self._now_ms + 1) + 1
        to_ms = None if end_ms > self._now_ms else end_ms
        request = CandlesRequest(self._market, self._timeframe, min(CANDLES_LIMIT, slots), to_ms)
        topic, streams = Topic(Line.CANDLE, self._market, self._timeframe), self._streams
        was_live = streams is not None and streams.is_live(topic)
        (page,), are_new = await self._ask([request])
        if streams is not None and was_live and are_new and to_ms is None:
            streams.page_read(topic, page, self._now_ms)
        rows = list(page)
        # The answer may have taken so long that the bars after those that have settled are not among so many any more.
        while len(page) == request.count and page[-1].open_ms > self._settled_ms:
            request = CandlesRequest(self._market, self._timeframe, CANDLES_LIMIT, page[-1].open_ms)
            (page,), _ = await self._ask([request])
            rows += page
        self._running = tuple(bar for bar in rows[::-1] if bar.open_ms >= self._settled_ms)
        self._running_end_ms = NO_END_MS if to_ms is None else to_ms

    def _is_streamed_from(self, from_ms: int) -> bool:
        """Whether a stream vouches for all from ``from_ms`` on; then that is taken."""
        whole = None
        if self._streams is not None:
            whole = self._streams.whole_bars(Topic(Line.CANDLE, self._market, self._timeframe))
        if whole is None or whole[0] > from_ms:
            return False
        bars = [bar for bar in whole[1] if bar.open_ms >= from_ms]
        settled = [bar for bar in bars if bar.open_ms < self._settled_ms]
        if any(bar.state is not CandleState.FINAL for bar in settled):
            return False
        self._running = tuple(bar for bar in bars if bar.open_ms >= self._settled_ms)
        self._running_end_ms = NO_END_MS
        if from_ms < self._settled_ms:
            self._shelf.lay(SpanSet.of((from_ms, self._settled_ms)), settled)
        return True

    # -- the exchange -------------------------------------------------------------------------------------------

    async def _ask(self, requests: list[CandlesRequest]) -> tuple[list[tuple[Candle, ...]], bool]:
        """The page to each request, and whether one of them is new. What they prove is at hand then."""
        held = {request: self._cached(request) for request in requests}
        absent = tuple(request for request, page in held.items() if page is MISSING)
        if absent:
            self._asked = True
            held.update(await self._proving.pages.read(absent, self._priority, self._settled_ms))
        self._refuse_what_has_not_settled(held)
        for request, page in held.items():
            piece = proven(request, page, self._settled_ms)
            if piece is not None:
                self._shelf.lay_pieces((piece,))
            if len(page) < request.count:
                self._note_end(request, piece)
        return [held[request] for request in requests], bool(absent)

    def _refuse_what_has_not_settled(self, held: dict[CandlesRequest, tuple[Candle, ...]]) -> None:
        told_ms = [
            page.at_ms
            for request, page in held.items()
            if isinstance(page, Page) and settled_ms(request, page, self._settled_ms) < self._settled_ms
        ]
        if told_ms:
            raise _NotYet(min(told_ms))

    def _note_end(self, request: CandlesRequest, piece: Piece | None) -> None:
        # The page was shorter than asked. If that does not prove that history begins here, no more of it is kept.
        end_ms = request.to_ms if piece is None else piece.start_ms
        if end_ms is not None and end_ms > first_slot(self._timeframe):
            self._proving.note_gone(self._market, self._timeframe, end_ms)
