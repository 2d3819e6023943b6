"""A job: one background collection, from its plan to its report.

It is planned from what is proven, so that the same one started again continues where the last one was, however that
ended. Its markets take turns, page by page. What fails for a while is asked for again for as long as it takes; what is
refused for good ends that market, or that span, and the rest goes on.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial

import attrs
import trio

from marketpipe.actors.mailbox import LEFT
from marketpipe.actors.pages import Pages
from marketpipe.config import Collecting as Options
from marketpipe.core import timeframes
from marketpipe.core.bars import GRACE_MS
from marketpipe.core.history import Piece, first_slot
from marketpipe.core.pacing import full_jitter_s
from marketpipe.core.planning import Planner, missing, slots_in
from marketpipe.core.progress import JobState, Outcome, Pace, Progress, Report
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import (
    BadPayload,
    Banned,
    ExchangeError,
    MarketPipeError,
    PipelineClosed,
    StoreError,
    UnknownMarket,
)
from marketpipe.logs import fields, told
from marketpipe.models import Priority

__all__ = ["Job"]

logger = logging.getLogger("marketpipe.backfill")

Series = tuple[str, Timeframe]

PROGRESS_EVERY_S = 0.5
# The first guess at what is left lasts until a rate is known.
ETA_AFTER_PAGES = 5
# So many are under way at first.
FIRST_PAGES = 2


@attrs.define(eq=False)
class _Part:
    """One market and timeframe of a job."""

    market: str
    timeframe: Timeframe
    planner: Planner | None = None  # None until it is planned
    bars: int = 0
    pages: int = 0
    given_up: int = 0  # slots that are not asked for any more
    error: MarketPipeError | None = None  # the last one, if nothing came since
    gave_up: MarketPipeError | None = None  # why a span of it is not asked for any more
    failures: int = 0  # in a row
    refused: Counter[CandlesRequest] = attrs.field(factory=Counter)
    is_over: bool = False
    not_before_s: float = 0.0

    def outcome(self) -> Outcome:
        if self.planner is None:
            return Outcome(self.market, self.timeframe, 0, 0, 0, 0, 0, None)
        slots, gone = self.planner.slots, slots_in(self.timeframe, self.planner.gone)
        done = slots - self.planner.slots_missing - gone - self.given_up
        error = self.error or self.gave_up
        return Outcome(self.market, self.timeframe, slots, done, gone, self.bars, self.pages, error)


@attrs.define(eq=False)
class Job:
    """A collection that runs in the background of the pipeline; it goes on whether anybody looks or not.

    What it has stored stays stored. The same job started again continues.
    """

    _series: Sequence[Series]
    _start_ms: int
    _end_ms: int | None
    _priority: Priority
    _pages: Pages
    _options: Options
    _now_ms: Callable[[], int]
    _draw: Callable[[], float]
    _waiting: Callable[[], int]  # how many requests for candles wait for a turn
    # What is wanted of each part, proven or not; without it, what is not proven between start and end.
    _wanted: Mapping[Series, SpanSet] | None = None
    _parts: list[_Part] = attrs.field(init=False)
    _began_s: float = attrs.field(factory=trio.current_time, init=False)
    _ended_s: float | None = attrs.field(default=None, init=False)
    _paused_s: float = attrs.field(default=0.0, init=False)  # since when, if it is
    _state: JobState = attrs.field(default=JobState.PLANNING, init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _go: trio.Event = attrs.field(factory=trio.Event, init=False)
    _over: trio.Event = attrs.field(factory=trio.Event, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _turns: deque[_Part] = attrs.field(factory=deque, init=False)
    _bars: Pace = attrs.field(factory=Pace, init=False)
    _asked: Pace = attrs.field(factory=Pace, init=False)
    _room: int = attrs.field(init=False)  # pages that may be under way at the moment
    _under_way: int = attrs.field(default=0, init=False)
    _current: str = attrs.field(default="", init=False)
    _cut_off: bool = attrs.field(default=False, init=False)
    _failure: StoreError | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._parts = [_Part(market, timeframe) for market, timeframe in self._series]
        self._room = min(FIRST_PAGES, self._options.pages_at_once)

    # -- for whoever started it ---------------------------------------------------------------------------------

    def pause(self) -> None:
        """Ask for nothing more until `resume`; pages that are under way are still stored."""
        if self._state in (JobState.PLANNING, JobState.RUNNING):
            self._state, self._paused_s = JobState.PAUSED, trio.current_time()
            self._go = trio.Event()

    def resume(self) -> None:
        """Go on after `pause`."""
        if self._state is JobState.PAUSED:
            self._state = JobState.RUNNING
            now_s = trio.current_time()
            self._bars.begin(now_s)
            self._asked.begin(now_s)
            self._go.set()

    def cancel(self) -> None:
        """End it; what it has stored stays stored. Nothing happens if it has ended."""
        if not self._over.is_set():
            self._state = JobState.CANCELLED
            self._scope.cancel(reason="the job was cancelled")

    @property
    def is_over(self) -> bool:
        """Whether it has ended, in whichever way."""
        return self._over.is_set()

    async def wait(self) -> Report:
        """Wait until it has ended, with all that it fetched stored, and return what became of it.

        A cancelled one waits for a database that cannot be written no longer than leaving does (`Collecting.leave_s`).
        Raises `StoreError` if the database could not be read, or was moved or deleted meanwhile, `PipelineClosed` if
        the pipeline was left before.
        """
        await self._over.wait()
        if self._cut_off:
            raise PipelineClosed(LEFT)
        if self._failure is not None:
            raise self._failure.copy()
        return Report(
            state=self._state,
            bars=sum(part.bars for part in self._parts),
            pages=sum(part.pages for part in self._parts),
            elapsed_s=self._elapsed_s(),
            parts=tuple(part.outcome() for part in self._parts),
        )

    async def progress(self, *, every_s: float = PROGRESS_EVERY_S) -> AsyncGenerator[Progress]:
        """How far it is, now and every ``every_s`` seconds; the last one when it has ended."""
        while not self._over.is_set():
            yield self.snapshot()
            with trio.move_on_after(every_s):
                await self._over.wait()
        yield self.snapshot()

    def snapshot(self) -> Progress:
        """How far it is at this moment."""
        parts = tuple(part.outcome() for part in self._parts)
        # A pause is no slowness: what was its pace is its pace.
        now_s = self._paused_s if self._state is JobState.PAUSED else self._began_s + self._elapsed_s()
        done, total = sum(part.done + part.gone for part in parts), sum(part.slots for part in parts)
        return Progress(
            state=self._state,
            total=total,
            done=done,
            bars=sum(part.bars for part in parts),
            pages=sum(part.pages for part in parts),
            bars_per_s=self._bars.per_s(now_s),
            requests_per_s=self._asked.per_s(now_s),
            eta_s=self._eta_s(now_s),
            elapsed_s=self._elapsed_s(),
            current=self._current,
            parts=parts,
            trouble=self._trouble(),
        )

    def _elapsed_s(self) -> float:
        return (trio.current_time() if self._ended_s is None else self._ended_s) - self._began_s

    def _eta_s(self, now_s: float) -> float | None:
        left = sum(part.planner.pages_missing for part in self._parts if part.planner is not None and not part.is_over)
        if self._over.is_set() or (not left and self._state is JobState.RUNNING):
            return 0.0
        rate = self._asked.per_s(now_s)
        if (
            sum(part.pages for part in self._parts) < ETA_AFTER_PAGES
            or rate <= 0
            or self._state is not JobState.RUNNING
        ):
            return None
        return left / rate

    def _trouble(self) -> str:
        writer, left = self._pages.archive.writer, [part for part in self._parts if not part.is_over]
        waiting = [part.error for part in left if part.error is not None]
        if waiting:
            return str(waiting[0])
        is_storing = not left and not self._over.is_set()
        return writer.status().trouble if writer.is_full or is_storing else ""

    # -- its work -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do it: for `Backfill`."""
        try:
            with self._scope, ExitStack() as following:
                following.enter_context(self._pages.archive.writer.feeding())
                await self._plan(following)
                await self._collect()
                await self._pages.archive.writer.stored()
            if self._state is not JobState.CANCELLED:
                whole = all(part.outcome().is_whole for part in self._parts)
                self._state = JobState.DONE if whole else JobState.FAILED
        except StoreError as error:
            self._state, self._failure = JobState.FAILED, error
        finally:
            if self._state is JobState.CANCELLED:
                await self._store_the_last()
            self._cut_off = self._state in (JobState.PLANNING, JobState.RUNNING, JobState.PAUSED)
            self._ended_s = trio.current_time()
            self._over.set()

    async def _store_the_last(self) -> None:
        # Though the pipeline is left meanwhile: the writer stores what is kept then, too.
        deadline_s = trio.current_time() + self._options.leave_s
        # What cannot be stored ever, the writer has told of.
        with trio.CancelScope(shield=True, deadline=deadline_s), suppress(StoreError, PipelineClosed):
            await self._pages.archive.writer.stored()

    async def _plan(self, following: ExitStack) -> None:
        for part in self._parts:
            settled_ms = timeframes.floor(part.timeframe, self._now_ms() - GRACE_MS)
            if self._wanted is None:
                holes = await self._holes(part, settled_ms)
            else:
                holes = self._wanted[part.market, part.timeframe]
            part.planner = Planner(part.market, part.timeframe, missing=holes, settled_ms=settled_ms)
            part.is_over = part.planner.is_done
            following.enter_context(self._pages.following(part.planner))
            hear = partial(self._hear, part)
            following.enter_context(self._pages.archive.follow(part.market, part.timeframe, hear))
        if self._state is JobState.PLANNING:
            self._state = JobState.RUNNING
        self._turns.extend(part for part in self._parts if not part.is_over)

    def _hear(self, part: _Part, piece: Piece, is_kept: bool) -> None:
        # Whoever waits to try again may have nothing to try any more.
        if is_kept and part.failures:
            self._wake()

    async def _holes(self, part: _Part, settled_ms: int) -> SpanSet:
        low_ms = max(self._start_ms, first_slot(part.timeframe))
        top_ms = settled_ms
        if self._end_ms is not None:
            top_ms = min(settled_ms, timeframes.ceil(part.timeframe, self._end_ms))
        covered = await self._pages.archive.coverage(part.market, part.timeframe, low_ms, max(low_ms, top_ms))
        return missing(part.timeframe, low_ms, top_ms, covered)

    async def _collect(self) -> None:
        now_s = trio.current_time()
        self._bars.begin(now_s)
        self._asked.begin(now_s)
        async with trio.open_nursery() as pages:
            while self._failure is None:
                await trio.lowlevel.checkpoint()
                while self._state is JobState.PAUSED:
                    await self._go.wait()
                turn = self._turn() if self._under_way < self._room else None
                if turn is not None:
                    self._under_way += 1
                    pages.start_soon(self._ask, *turn, name=f"backfill page of {turn[0].market}")
                elif not await self._waits():
                    break
            else:
                pages.cancel_scope.cancel(reason="nothing can be stored")
        if self._failure is not None:
            raise self._failure

    def _turn(self) -> tuple[_Part, CandlesRequest] | None:
        """The next page of the next market that has one to ask for."""
        now_s = trio.current_time()
        for _ in range(len(self._turns)):
            part = self._turns[0]
            self._turns.rotate(-1)
            assert part.planner is not None
            if part.is_over:
                continue
            if part.planner.is_done:
                part.is_over, part.error = True, None
                continue
            # Where one has failed, one at a time is enough to see whether it is over.
            if now_s < part.not_before_s or (part.failures and part.planner.in_flight):
                continue
            request = part.planner.next()
            if request is not None:
                return part, request
            if not part.planner.in_flight:  # nothing of what is missing can be asked for
                part.is_over = True
        return None

    async def _waits(self) -> bool:
        """Wait until there may be something to ask; False if there will be nothing more."""
        left = [part for part in self._turns if not part.is_over]
        if not left:
            return False
        now_s = trio.current_time()
        pauses = [part.not_before_s for part in left if part.not_before_s > now_s]
        with trio.move_on_at(min(pauses, default=math.inf)):
            await self._changed.wait()
        return True

    async def _ask(self, part: _Part, request: CandlesRequest) -> None:
        assert part.planner is not None
        try:
            piece = await self._pages.take(part.planner, request, self._priority)
        except ExchangeError as error:
            self._failed(part, request, error)
        else:
            self._took(part)
            if piece is not None:
                part.bars += len(piece.bars)
                self._bars.add(len(piece.bars), trio.current_time())
                await self._store(piece)
        finally:
            self._fit()
            self._under_way -= 1
            self._wake()

    async def _store(self, piece: Piece) -> None:
        try:
            await self._pages.archive.put(piece)
        except StoreError as error:  # raised once the other pages are through with theirs
            self._failure = error

    def _fit(self) -> None:
        # What is under way when everything ends is asked for again: no more of it than keeps the exchange busy. One
        # more where pages are what is waited for, one less where they wait for a turn, and one is enough to take it.
        waiting = self._waiting()
        if not waiting and self._under_way >= self._room:
            self._room = min(self._options.pages_at_once, self._room + 1)
        elif waiting > 1:
            self._room = max(1, self._room - 1)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _took(self, part: _Part) -> None:
        part.pages += 1
        if not part.is_over:
            part.failures, part.error, part.not_before_s = 0, None, 0.0
        self._current = part.market
        self._asked.add(1, trio.current_time())

    def _failed(self, part: _Part, request: CandlesRequest, error: ExchangeError) -> None:
        assert part.planner is not None
        about = fields("page-failed", error, market=part.market, timeframe=part.timeframe)
        logger.info("backfill of %s %s: %s", part.market, part.timeframe, told(error), extra=about)
        if part.is_over or part.planner.is_done:  # it has its reason already, or needs none
            return
        part.failures += 1
        part.error = error
        if isinstance(error, UnknownMarket):
            part.is_over = True
            return
        if _is_final(error):
            part.refused[request] += 1
            if part.refused[request] >= self._options.tries:  # this page will not come; what lies below it may
                spans = part.planner.dropped(request)
                part.given_up += slots_in(part.timeframe, spans)
                part.planner.skip(spans)
                part.error, part.gave_up = None, error
                return
        part.not_before_s = trio.current_time() + self._pause_s(part.failures, error)

    def _pause_s(self, failures: int, error: ExchangeError) -> float:
        options = self._options
        pause_s = full_jitter_s(failures - 1, base_s=options.retry_base_s, cap_s=options.retry_cap_s, draw=self._draw())
        if isinstance(error, Banned):
            pause_s = max(pause_s, (error.until_ms - self._now_ms()) / 1000)
        return max(pause_s, options.retry_base_s / 2)


def _is_final(error: ExchangeError) -> bool:
    # What cannot be read, or is refused for what it asks, will be so the next time.
    passing = error.status is None or error.status >= 500 or error.status in (408, 418, 429)
    return isinstance(error, BadPayload) or not passing
