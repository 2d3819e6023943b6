"""Background collection: years of candles into the database, only what is missing, without being in anybody's way.

Here the jobs are held; each does its work by itself (`marketpipe.actors.job`). All of it has the lowest priority, which
yields to everything and still moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
import trio

from marketpipe.actors.job import Job
from marketpipe.actors.mailbox import LEFT
from marketpipe.actors.pages import Pages
from marketpipe.config import Collecting as Options
from marketpipe.core.checkup import StoreCheck, to_ask_for
from marketpipe.core.progress import Progress
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import PipelineClosed, StoreError
from marketpipe.models import Priority

__all__ = ["Backfill"]

Series = tuple[str, Timeframe]


@attrs.define(eq=False)
class Backfill:
    """The actor: it holds the jobs.

    ``now_ms`` is the exchange's time; ``draw``: uniform numbers in [0, 1); ``waiting``: how many requests for candles
    wait for a turn, anybody's.
    """

    _pages: Pages
    _options: Options
    _now_ms: Callable[[], int]
    _draw: Callable[[], float]
    _waiting: Callable[[], int] = lambda: 0
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    _jobs: list[Job] = attrs.field(factory=list, init=False)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold jobs until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def start(
        self,
        series: Sequence[Series],
        start_ms: int,
        end_ms: int | None,
        priority: Priority,
    ) -> Job:
        """Begin to collect ``series`` from ``start_ms`` on, up to now or ``end_ms``."""
        return self._begin(series, start_ms, end_ms, priority)

    async def check(self) -> StoreCheck:
        """Look through all that is stored."""
        return await self._pages.archive.check()

    async def repair(self, priority: Priority) -> Job:
        """Put the ledger in order, and begin to fetch what is missing in between, and what is stored wrongly.

        What the exchange says now counts, whether the slot was proven or not.
        """
        writer = self._pages.archive.writer
        self._refuse_to_read_only()
        await writer.stored()
        await self._pages.archive.tidy()
        wanted = to_ask_for(await self.check(), self._now_ms())
        return self._begin(tuple(wanted), 0, None, priority, wanted)

    def _begin(
        self,
        series: Sequence[Series],
        start_ms: int,
        end_ms: int | None,
        priority: Priority,
        wanted: Mapping[Series, SpanSet] | None = None,
    ) -> Job:
        if self._nursery is None:
            raise PipelineClosed(LEFT)
        self._refuse_to_read_only()
        job = Job(
            series,
            start_ms,
            end_ms,
            priority,
            self._pages,
            self._options,
            self._now_ms,
            self._draw,
            self._waiting,
            wanted,
        )
        self._jobs = [held for held in self._jobs if not held.is_over] + [job]
        self._nursery.start_soon(job.run, name=f"backfill of {len(series)}")
        return job

    def _refuse_to_read_only(self) -> None:
        writer = self._pages.archive.writer
        if not writer.can_write:
            status = writer.status()
            raise StoreError(
                f"{status.path}: nothing can be collected: it is open for reading only, since {status.why}"
            )

    def snapshots(self) -> tuple[Progress, ...]:
        """How far every job is, the ended ones left out."""
        return tuple(job.snapshot() for job in self._jobs if not job.is_over)
