"""Whatever is read and collected, whatever goes wrong, however often it is left and opened again: what is stored is so.

After every step: each proven slot is as it was traded, what was proven stays proven, no page was asked for of which
all was known, and the exchange never counted more than its limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from collecting_checks import Pipe, budgets_of, covered, flaws, open_pipe
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import EPOCH_MS

from marketpipe import Config, ExchangeError, PipelineClosed, Priority, Timeframe
from marketpipe.actors.job import Job
from marketpipe.clock import TrioClock
from marketpipe.config import Collecting
from marketpipe.core import timeframes
from marketpipe.core.bars import GRACE_MS
from marketpipe.core.progress import JobState
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.spans import SpanSet
from marketpipe.sim import (
    DownFault,
    EditFault,
    GarbageFault,
    HangFault,
    LatencyFault,
    SimConfig,
    SimExchange,
    StatusFault,
)
from marketpipe.store.sqlite import SqliteStore

DAY_S = 86_400
# 2019-09-05: BTC-ETH has been listed for two and a half days.
YOUNG_MS = 1_567_483_200_000 + 61 * 3_600_000
# Dense, with every other minute, with a trade or two an hour; and one that there is not.
MARKETS = ("KRW-BTC", "BTC-ETH", "BTC-DOGE", "KRW-NOPE")
# How far back a question goes, in seconds: some pages of each.
REACHES = {Timeframe.S1: 900, Timeframe.M1: 2 * DAY_S, Timeframe.M15: 20 * DAY_S, Timeframe.D1: 700 * DAY_S}
TIMEFRAMES = st.sampled_from([*[Timeframe.M1] * 5, Timeframe.S1, Timeframe.M15, Timeframe.D1])


@attrs.frozen
class Read:
    """``from_share`` and ``to_share``: of the reach, back from now; a negative one lies ahead."""

    markets: Any
    timeframe: Timeframe
    kind: str
    from_share: float
    to_share: float
    count: int
    closed_only: bool
    fill: str
    priority: Priority
    patience_s: float
    beside: bool

    def asked(self, now_ms: int) -> dict[str, Any]:
        reach_ms = 1000 * REACHES[self.timeframe]
        start_ms, end_ms = (now_ms - int(share * reach_ms) for share in (self.from_share, self.to_share))
        options: dict[str, Any] = {"closed_only": self.closed_only, "fill": self.fill, "priority": self.priority}
        if "count" in self.kind:
            options["count"] = self.count
        if "start" in self.kind:
            options["start"] = min(start_ms, end_ms - 1)
        if "end" in self.kind:
            options["end"] = end_ms
        return options


@attrs.frozen
class Begin:
    """A job; ``wait_s``: how long the next step waits for it."""

    markets: tuple[str, ...]
    timeframes: tuple[Timeframe, ...]
    from_share: float
    to_share: float
    wait_s: float


@attrs.frozen
class Touch:
    """Something is done to a job that was begun."""

    number: int
    verb: str


@attrs.frozen
class Strike:
    fault: Any
    pause_s: float


@attrs.frozen
class Disk:
    """It is full from now on, or is not any more."""

    is_full: bool


@attrs.frozen
class Reopen:
    """The pipeline is left; ``away_s`` later another one is opened."""

    away_s: float


# Few edges, and questions that meet at them.
SHARES = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(-0.1, 1))
READS = st.builds(
    Read,
    markets=st.one_of(
        st.sampled_from(MARKETS), st.lists(st.sampled_from(MARKETS), min_size=1, max_size=3, unique=True)
    ),
    timeframe=TIMEFRAMES,
    kind=st.sampled_from(["count", "start", "start end", "count start", "count end", "count"]),
    from_share=SHARES,
    to_share=SHARES,
    count=st.one_of(st.integers(1, 50), st.integers(190, 210), st.integers(500, 900)),
    closed_only=st.booleans(),
    fill=st.sampled_from(["none", "none", "forward"]),
    priority=st.sampled_from(Priority),
    patience_s=st.sampled_from([30.0, 30.0, 0.05, 0.3]),
    beside=st.booleans(),
)
BEGINS = st.builds(
    Begin,
    markets=st.lists(st.sampled_from(MARKETS), min_size=1, max_size=3, unique=True).map(tuple),
    timeframes=st.lists(TIMEFRAMES, min_size=1, max_size=2, unique=True).map(tuple),
    from_share=SHARES,
    to_share=SHARES,
    wait_s=st.sampled_from([0.0, 0.3, 2.0, 60.0]),
)
FAULTS = st.one_of(
    st.builds(DownFault, for_s=st.floats(0.1, 20)),
    st.builds(HangFault, for_s=st.floats(0.1, 5)),
    st.builds(LatencyFault, latency_s=st.floats(0, 2), for_s=st.floats(0.1, 20)),
    st.builds(StatusFault, status=st.sampled_from([400, 429, 500, 503]), for_s=st.floats(0.1, 5)),
    st.builds(StatusFault, status=st.just(418), body=st.just("Try again in 3 seconds"), count=st.just(1)),
    st.builds(GarbageFault, groups=st.just(("candles",)), probability=st.floats(0.1, 1), for_s=st.floats(0.1, 20)),
    st.builds(EditFault, groups=st.just(("candles",)), change=st.just("duplicate"), for_s=st.floats(0.1, 5)),
)
STEPS = st.lists(
    st.one_of(
        READS,
        BEGINS,
        BEGINS,
        st.builds(Touch, number=st.integers(0, 3), verb=st.sampled_from(["pause", "resume", "cancel"])),
        st.builds(Strike, fault=FAULTS, pause_s=st.floats(0, 3)),
        st.builds(Disk, is_full=st.booleans()),
        st.builds(Reopen, away_s=st.sampled_from([0.0, 1.5, 70.0])),
    ),
    min_size=8,
    max_size=20,
)


@attrs.define(eq=False)
class World:
    """One exchange, one database, and what was seen so far."""

    sim: SimExchange
    clock: TrioClock
    database: Any
    before: dict[Any, SpanSet] = attrs.field(factory=dict)
    asked: int = 0

    def check(self, store: SqliteStore, again: list[str]) -> None:
        assert flaws(store, self.sim.world, self.clock.now_ms()) == []
        now = covered(store)
        assert [one for one, spans in self.before.items() if spans - now[one]] == []
        self.before = now
        assert again == []
        groups = self.sim.statistics().groups.values()
        assert max((group.greatest_per_second for group in groups), default=0) <= 10


@attrs.define(eq=False)
class Run:
    """What goes on in one pipeline."""

    world: World
    pipe: Pipe
    beside: trio.Nursery
    jobs: list[Job]
    ranges: list[tuple[int, int]] = attrs.field(factory=list)

    async def take(self, step: Any) -> None:
        match step:
            case Read(beside=True):
                self.beside.start_soon(self.read, step)
                await trio.sleep(0.05)
            case Read():
                await self.read(step)
            case Begin():
                await self.begin(step)
            case Touch():
                if step.number < len(self.jobs):
                    getattr(self.jobs[step.number], step.verb)()
                    await trio.sleep(0.2)
            case Disk():
                self.fill(step.is_full)
            case Strike():
                self.world.sim.add_fault(step.fault)
                await trio.sleep(step.pause_s)

    def fill(self, is_full: bool) -> None:
        conn = self.pipe.store._access.writer.conn
        used = conn.execute("PRAGMA page_count").fetchone()[0]
        conn.execute(f"PRAGMA max_page_count = {used if is_full else 1 << 30}")

    async def read(self, step: Read) -> None:
        with trio.move_on_after(step.patience_s):
            try:
                found = await self.pipe.market.get_candle(
                    step.markets, step.timeframe, **step.asked(self.world.clock.now_ms())
                )
            except ExchangeError:
                return
            for series in [found] if isinstance(step.markets, str) else found.values():
                opens = [bar.open_ms for bar in series]
                assert opens == sorted(set(opens))

    async def begin(self, step: Begin) -> None:
        for timeframe in step.timeframes:
            reach_ms, now_ms = 1000 * REACHES[timeframe], self.world.clock.now_ms()
            end_ms = now_ms - int(step.to_share * reach_ms)
            start_ms = min(now_ms - int(step.from_share * reach_ms), end_ms - 1)
            job = await self.pipe.market.start_backfill(step.markets, timeframe, start=start_ms, end=end_ms)
            self.jobs.append(job)
            # What the job calls settled is known to a second or two.
            over_ms = timeframes.floor(timeframe, now_ms - 2 * GRACE_MS)
            start_ms = timeframes.ceil(timeframe, start_ms)
            self.ranges.append((start_ms, max(start_ms, min(over_ms, timeframes.ceil(timeframe, end_ms)))))
        with trio.move_on_after(step.wait_s):
            for job in self.jobs:
                await job.wait()

    async def end(self) -> None:
        """Everybody who still goes on comes to an end, once nothing is wrong any more."""
        self.world.sim.clear_faults()
        self.fill(False)
        for job, (start_ms, end_ms) in zip(self.jobs, self.ranges, strict=True):
            job.resume()
            report = await job.wait()
            for part in report.parts:
                assert part.is_whole or part.error is not None or report.state is JobState.CANCELLED
                if part.is_whole and report.state is not JobState.CANCELLED:
                    stored = self.pipe.store.coverage(part.market, part.timeframe, start_ms, end_ms)
                    assert stored.covers(start_ms, end_ms)


@contextmanager
def databases(kind: str) -> Iterator[Any]:
    """A function that opens the database: every time the same one."""
    with ExitStack() as stack:
        if kind == "memory":
            store = stack.enter_context(SqliteStore.open(":memory:", source="http://sim"))
            yield lambda inner: store
        else:
            path = Path(stack.enter_context(TemporaryDirectory())) / "history.db"
            yield lambda inner: inner.enter_context(SqliteStore.open(path, source="http://sim"))


async def live(steps: list[Any], epoch_ms: int, kind: str, jitter_s: float) -> None:
    config, clock = Config(collecting=Collecting(kept_rows=3_000)), TrioClock(epoch_ms)
    sim = SimExchange(SimConfig(markets=40, latency_s=0.02, jitter_s=jitter_s, ban_after=None), clock)
    budgets = budgets_of(config)
    with databases(kind) as database:
        world, left = World(sim, clock, database), [*steps]
        while True:
            with ExitStack() as stack:
                store = database(stack)
                jobs: list[Job] = []
                async with open_pipe(sim, clock, store, budgets, config) as pipe, trio.open_nursery() as beside:
                    run = Run(world, pipe, beside, jobs)
                    while left and not isinstance(left[0], Reopen):
                        await run.take(left.pop(0))
                        world.check(store, pipe.again)
                    if not left:
                        await run.end()
                    else:
                        beside.cancel_scope.cancel()
                world.check(store, pipe.again)
                world.asked += len(pipe.exchange.of(CandlesRequest))
                for job in jobs:
                    assert job.is_over
                    if left and job.snapshot().state in (JobState.RUNNING, JobState.PAUSED, JobState.PLANNING):
                        with pytest.raises(PipelineClosed):
                            await job.wait()
            if not left:
                return
            await trio.sleep(left.pop(0).away_s)


@pytest.mark.slow
@settings(max_examples=max(10, settings.default.max_examples // 20))
@given(
    steps=STEPS,
    epoch_ms=st.sampled_from([EPOCH_MS, YOUNG_MS]),
    kind=st.sampled_from(["memory", "file"]),
    jitter_s=st.sampled_from([0.01, 0.2]),
)
def test_whatever_is_read_and_collected_what_is_stored_is_so(
    steps: list[Any], epoch_ms: int, kind: str, jitter_s: float
):
    trio.run(live, steps, epoch_ms, kind, jitter_s, clock=trio.testing.MockClock(autojump_threshold=0))
