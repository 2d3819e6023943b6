"""Pages of candles from the exchange into the archive: what one answer does to whoever planned it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import attrs
import trio

from marketpipe.actors.archive import Archive
from marketpipe.actors.asker import Asker
from marketpipe.actors.beginnings import Beginnings
from marketpipe.core import timeframes
from marketpipe.core.answers import settled_ms as settled_by
from marketpipe.core.history import Piece, proven
from marketpipe.core.planning import Planner
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.spans import Span, SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import ExchangeError, MarketPipeError
from marketpipe.models import Candle, Priority

__all__ = ["Pages"]

Series = tuple[str, Timeframe]


@attrs.define(eq=False)
class _Asked:
    priority: Priority
    answer: Any = None
    is_over: trio.Event = attrs.field(factory=trio.Event, init=False)


@attrs.frozen(eq=False)
class Pages:
    """Asks for what planners want. ``at_once``: pages of one planner in flight at most."""

    _asker: Asker
    archive: Archive
    _at_once: int
    _beginnings: Beginnings = attrs.field(init=False)
    _asked: dict[CandlesRequest, _Asked] = attrs.field(factory=dict, init=False)  # for planners, not answered yet
    _planners: dict[Series, list[Planner]] = attrs.field(factory=dict, init=False)  # those that are at work

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_beginnings", Beginnings(self.archive, self.ask))  # frozen: it is part of this

    async def ask(self, request: CandlesRequest, priority: Priority) -> tuple[Candle, ...]:
        """One page as the exchange gives it; raises its error."""
        return _page((await self._asker.ask((request,), priority))[request])

    async def read(
        self, requests: tuple[CandlesRequest, ...], priority: Priority, settled_ms: int
    ) -> dict[CandlesRequest, tuple[Candle, ...]]:
        """The pages, asked for together; what they prove is in the archive.

        Raises the exchange's error, noted in the ledger, with the span it leaves out; what else has come is in the
        archive all the same. ``settled_ms``: what is later is no loss to the ledger.
        """
        answers = await self._asker.ask(requests, priority)
        pages: dict[CandlesRequest, tuple[Candle, ...]] = {}
        failure: ExchangeError | None = None
        for request in requests:
            try:
                pages[request] = await self._kept(request, answers[request], settled_ms, priority)
            except ExchangeError as error:
                window = SpanSet.of(_window(request, settled_ms))
                self._note(request.market, request.timeframe, window, error)
                failure = failure or _missing(error, request.timeframe, window)
        if failure is not None:
            raise failure
        return pages

    async def _kept(
        self, request: CandlesRequest, answer: Any, settled_ms: int, priority: Priority
    ) -> tuple[Candle, ...]:
        page = _page(answer)
        settled_ms = settled_by(request, page, settled_ms)
        await self._beginnings.confirm(request, page, settled_ms, priority)
        piece = proven(request, page, settled_ms)
        if piece is not None:
            self.archive.add(piece)
        return page

    async def take(self, planner: Planner, request: CandlesRequest, priority: Priority) -> Piece | None:
        """What the answer to ``request``, given by ``planner``, proves; it is told to the planner.

        None if that is nothing, or if others have proven meanwhile what it was for; then it is not asked for.

        Raises the exchange's error, which is noted in the ledger, and then the planner has its request back.
        """
        try:
            await trio.lowlevel.checkpoint()
            if not planner.is_needed(request):
                planner.dropped(request)
                return None
            page = await self._ask_once(request, priority)
            await self._beginnings.confirm(request, page, settled_by(request, page, planner.settled_ms), priority)
            return planner.took(request, page)
        except ExchangeError as error:
            self._note(planner.market, planner.timeframe, planner.dropped(request), error)
            raise
        except BaseException:
            planner.dropped(request)
            raise

    async def _ask_once(self, request: CandlesRequest, priority: Priority) -> tuple[Candle, ...]:
        """The page, which is asked for once for all planners that have it in flight.

        Who is in more of a hurry than they asks too, and the batcher joins the two. Whoever waits for another one's
        answer asks for himself if that is given up.
        """
        while (asked := self._asked.get(request)) is not None and asked.priority.budget_s <= priority.budget_s:
            await asked.is_over.wait()
            if asked.answer is not None:
                return _page(asked.answer)
        asked = self._asked[request] = _Asked(priority)
        try:
            asked.answer = (await self._asker.ask((request,), priority))[request]
        finally:
            asked.is_over.set()
            if self._asked.get(request) is asked:
                del self._asked[request]
        return _page(asked.answer)

    async def fetch(self, planner: Planner, priority: Priority, pages_at_most: int | None = None) -> tuple[Piece, ...]:
        """All that ``planner`` lacks, several pages at once; the pieces that were proven, whether stored or not.

        Those that others fetch meanwhile are among them, and what they have in flight is not asked twice. After
        ``pages_at_most`` of them it ends early. The first error ends it and is raised, with the span that is missing;
        what had come before is in the archive.
        """
        fetch = _Fetch(self, planner, priority, pages_at_most)
        with (
            self._beside_the_others(planner),
            self.archive.follow(planner.market, planner.timeframe, fetch.hear),
        ):
            await fetch.run(min(self._at_once, max(1, planner.pages_missing)))
        return tuple(fetch.pieces)

    @contextmanager
    def following(self, planner: Planner) -> Generator[None]:
        """While entered, ``planner`` leaves out what others prove, if it is stored, and joins what they ask for."""

        def hear(piece: Piece, is_kept: bool) -> None:
            if is_kept:
                planner.skip(SpanSet.of((piece.start_ms, piece.end_ms)))

        with self._beside_the_others(planner), self.archive.follow(planner.market, planner.timeframe, hear):
            yield

    @contextmanager
    def _beside_the_others(self, planner: Planner) -> Generator[None]:
        series = (planner.market, planner.timeframe)
        planner.beside = planners = self._planners.setdefault(series, [])
        planners.append(planner)
        try:
            yield
        finally:
            planner.beside = ()
            planners.remove(planner)
            if not planners:
                del self._planners[series]

    def _note(self, market: str, timeframe: Timeframe, spans: SpanSet, error: ExchangeError) -> None:
        for start_ms, end_ms in spans:
            self.archive.writer.failed(market, timeframe, start_ms, end_ms, type(error).__name__, str(error))


@attrs.define(eq=False)
class _Fetch:
    _pages: Pages
    _planner: Planner
    _priority: Priority
    _at_most: int | None
    pieces: list[Piece] = attrs.field(factory=list, init=False)
    _failure: MarketPipeError | None = attrs.field(default=None, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def run(self, workers: int) -> None:
        if workers == 1:  # no nursery for one: a plain traceback
            await self._work(lambda: None)
        else:
            async with trio.open_nursery() as nursery:
                for _ in range(workers):
                    nursery.start_soon(self._work, nursery.cancel_scope.cancel, name=f"page of {self._planner.market}")
        # Not before now: others that were answered in the same moment have proven theirs.
        failure = self._failure
        if failure is not None and not self._planner.is_done:
            if isinstance(failure, ExchangeError):
                failure = _missing(failure, self._planner.timeframe, self._planner.missing)
            raise failure

    async def _work(self, stop: Callable[[], None]) -> None:
        await trio.lowlevel.checkpoint()
        while self._failure is None and not self._planner.is_done and not self._has_enough:
            request = self._planner.next()
            if request is not None:
                await self._ask(request, stop)
            elif self._planner.in_flight:
                await self._changed.wait()
            else:
                return

    async def _ask(self, request: CandlesRequest, stop: Callable[[], None]) -> None:
        try:
            piece = await self._pages.take(self._planner, request, self._priority)
        except MarketPipeError as error:  # also that the pipeline was left: for the one who asked, in no group
            self._failure = self._failure or error
            stop()
            return
        finally:
            self._changed.set()
            self._changed = trio.Event()
        if piece is not None:
            self.pieces.append(piece)
            self._pages.archive.add(piece)

    def hear(self, piece: Piece, is_kept: bool) -> None:
        """Somebody has proven ``piece``: it need not be asked for."""
        if self._planner.missing.clip(piece.start_ms, piece.end_ms):
            self.pieces.append(piece)
            self._planner.skip(SpanSet.of((piece.start_ms, piece.end_ms)))

    @property
    def _has_enough(self) -> bool:
        return self._at_most is not None and len(self.pieces) + self._planner.in_flight >= self._at_most


def _page(answer: Any) -> tuple[Candle, ...]:
    if isinstance(answer, MarketPipeError):
        raise answer.copy()
    page: tuple[Candle, ...] = answer
    return page


def _window(request: CandlesRequest, settled_ms: int) -> Span:
    """What the page would have proven of what has settled, at least."""
    timeframe = request.timeframe
    top_ms = settled_ms if request.to_ms is None else timeframes.ceil(timeframe, request.to_ms)
    end_ms = min(settled_ms, top_ms)
    slots = min(request.count, timeframes.bars_between(timeframe, 0, top_ms))
    return min(end_ms, timeframes.shift(timeframe, top_ms, -slots)), end_ms


def _missing(error: ExchangeError, timeframe: Timeframe, missing: SpanSet) -> ExchangeError:
    """``error``, saying which bars are missing because of it."""
    told = error.copy()
    spans = list(missing)
    if spans:
        words = f"{timeframe} bars from {_moment(spans[0][0])} to {_moment(spans[-1][1])} UTC are missing"
        told.args = (f"{error}; {words}", *error.args[1:])
    return told


def _moment(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%d %H:%M:%S}"
