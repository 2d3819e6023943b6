"""Pages and jobs over an exchange of paper and a database in memory: what is asked of it, and what is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from paper_streams import Rest, asking
from rig import EPOCH_MS
from store.paper_store import EVER, M1, MARKET, bar, opened, opens

from marketpipe.actors.archive import Archive
from marketpipe.actors.backfill import Backfill
from marketpipe.actors.job import Job
from marketpipe.actors.mailbox import Ask
from marketpipe.actors.messages import Answers, Question
from marketpipe.actors.pages import Pages
from marketpipe.actors.writer import Writer, in_line
from marketpipe.clock import TrioClock
from marketpipe.config import Collecting
from marketpipe.core import timeframes
from marketpipe.core.bars import GRACE_MS
from marketpipe.core.planning import Planner
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import ExchangeError
from marketpipe.models import Priority
from marketpipe.store.sqlite import SqliteStore

__all__ = ["SETTLED", "Bench", "Market", "bench_of", "slot_of", "slots_of", "spans"]

# The first minute slot that is not over when a bench is opened.
SETTLED = 3_000


@attrs.define(eq=False)
class Market:
    """Bars by their slot, and what the exchange answers of them.

    ``ill`` gives an error for some requests; ``delay_s`` is how much longer than the others some take.
    """

    traded: Collection[int] = range(SETTLED)
    ill: Callable[[CandlesRequest], ExchangeError | None] = lambda request: None
    delay_s: Callable[[CandlesRequest], float] = lambda request: 0.0

    def answer(self, request: CandlesRequest) -> tuple[Any, ...]:
        if (error := self.ill(request)) is not None:
            raise error
        timeframe = request.timeframe
        to_ms = opens(SETTLED) if request.to_ms is None else request.to_ms
        before = timeframes.bars_between(timeframe, opens(0, timeframe), to_ms)
        slots = [slot for slot in self.traded if slot < before][-request.count :]
        return tuple(bar(slot, timeframe=timeframe, market=request.market) for slot in reversed(slots))


@attrs.define(eq=False)
class Uneven(Rest):
    """It takes as long as its market says."""

    market: Market = attrs.field(kw_only=True)

    async def _reply(self, question: Ask[Question, Answers]) -> None:
        requests = [key for key in question.payload.keys if isinstance(key, CandlesRequest)]
        if delay_s := max(map(self.market.delay_s, requests)):
            await trio.sleep(delay_s)
        await super()._reply(question)


@attrs.frozen
class Bench:
    market: Market
    pages: Pages
    rest: Rest
    store: SqliteStore
    archive: Archive
    backfill: Backfill

    @property
    def asked(self) -> list[CandlesRequest]:
        return [key for _, key in self.rest.asked]

    def planner(self, *slots: tuple[int, int], **options: Any) -> Planner:
        return Planner(MARKET, M1, missing=spans(*slots), settled_ms=opens(SETTLED), **options)

    def job(
        self,
        first: int = 0,
        end: int | None = None,
        series: Collection[tuple[str, Timeframe]] = ((MARKET, M1),),
        priority: Priority = Priority.LOW,
    ) -> Job:
        """A job over minute slots ``first`` to before ``end``, or up to now."""
        return self.backfill.start(tuple(series), opens(first), None if end is None else opens(end), priority)

    async def stored(self, market: str = MARKET, timeframe: Timeframe = M1) -> SpanSet:
        await self.archive.writer.stored()
        return self.store.coverage(market, timeframe, *EVER)

    def slots_stored(self, market: str = MARKET) -> list[int]:
        return [slot_of(each.open_ms) for each in self.store.bars(market, M1, *EVER)]


@asynccontextmanager
async def bench_of(
    market: Market | None = None, *, at_once: int = 20, store: SqliteStore | None = None, **options: Any
) -> AsyncIterator[Bench]:
    """Pages and jobs, with the writer at work; all of it ends with the block."""
    market, settings = market or Market(), Collecting(pages_at_once=at_once, **options)
    rest = Uneven(market.answer, market=market)
    with store or opened(":memory:") as database:
        clock = TrioClock(EPOCH_MS)
        writer = Writer(database, in_line, clock, settings, lambda: 0.5)
        archive = Archive(database, in_line, writer)
        exchange = TrioClock(opens(SETTLED) + GRACE_MS)
        async with asking(rest) as asker, trio.open_nursery() as nursery:
            pages = Pages(asker, archive, at_once)
            backfill = Backfill(pages, settings, exchange.now_ms, lambda: 0.5)
            await nursery.start(writer.run)
            await nursery.start(backfill.run)
            yield Bench(market, pages, rest, database, archive, backfill)
            nursery.cancel_scope.cancel()


def spans(*slots: tuple[int, int]) -> SpanSet:
    return SpanSet.of(*((opens(first), opens(end)) for first, end in slots))


def slot_of(ms: int) -> int:
    return (ms - opens(0)) // 60_000


def slots_of(proven: SpanSet) -> list[tuple[int, int]]:
    return [(slot_of(start_ms), slot_of(end_ms)) for start_ms, end_ms in proven]
