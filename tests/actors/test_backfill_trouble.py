"""A job over the whole pipe while this machine gives trouble: its disk, its clock; and ranges with awkward edges."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import attrs
import pytest
import trio
from collecting_checks import Pipe, budgets_of, flaws, open_pipe
from full_disk import disk_of, filled
from rig import EPOCH_MS, open_rig

from marketpipe import Config
from marketpipe.clock import TrioClock
from marketpipe.config import Collecting
from marketpipe.core import timeframes
from marketpipe.core.bars import GRACE_MS
from marketpipe.core.progress import JobState
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.sim import SimConfig, SimExchange, StatusFault
from marketpipe.store.sqlite import SqliteStore

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
BUSY = "KRW-BTC"
M1 = Timeframe.M1
KST = timezone(timedelta(hours=9))


# -- a disk without room ------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight megabytes."""
    with disk_of(8, tmp_path) as folder:
        yield folder


async def test_a_disk_that_is_full_in_the_middle_of_a_job_only_holds_it_up(small_disk: Path, autojump_clock):
    with SqliteStore.open(small_disk / "history.db", source="http://sim") as store:
        async with open_rig(Config(collecting=Collecting(kept_rows=1_000)), store=store) as rig:
            job = await rig.market.start_backfill(BUSY, start=EPOCH_MS - 7 * DAY_MS // 2)
            await trio.sleep(0.5)
            filler = filled(small_disk)
            await trio.sleep(60)
            asked = len(rig.exchange.of(CandlesRequest))
            stored = store.coverage(BUSY, M1, 0, EPOCH_MS)
            assert stored
            assert "the disk is full" in job.snapshot().trouble
            assert "the disk is full" in rig.market.status().store.trouble
            assert len(await rig.market.get_candle(BUSY, count=300)) == 300
            await trio.sleep(600)
            assert len(rig.exchange.of(CandlesRequest)) <= asked + 2  # those of the reading
            filler.unlink()
            report = await job.wait()
            assert report.state is JobState.DONE
            assert not stored - store.coverage(BUSY, M1, 0, EPOCH_MS)
            assert flaws(store, rig.sim.world, rig.clock.now_ms()) == []
            asked_for = [one for one in rig.exchange.of(CandlesRequest) if one.to_ms is not None]
            assert max(Counter(asked_for).values()) == 1


async def test_a_job_that_is_cancelled_while_the_disk_is_full_ends_and_the_next_one_goes_on(
    small_disk: Path, autojump_clock
):
    with SqliteStore.open(small_disk / "history.db", source="http://sim") as store:
        async with open_rig(Config(collecting=Collecting(kept_rows=1_000)), store=store) as rig:
            job = await rig.market.start_backfill(BUSY, start=EPOCH_MS - 3 * DAY_MS)
            await trio.sleep(0.5)
            filler = filled(small_disk)
            await trio.sleep(60)
            job.cancel()
            with trio.fail_after(2):
                assert (await job.wait()).state is JobState.CANCELLED
            filler.unlink()
            job = await rig.market.start_backfill(BUSY, start=EPOCH_MS - 3 * DAY_MS)
            assert (await job.wait()).state is JobState.DONE
            assert flaws(store, rig.sim.world, rig.clock.now_ms()) == []
            assert max(Counter(rig.exchange.of(CandlesRequest)).values()) == 1


# -- a block ------------------------------------------------------------------------------------------------------


async def test_a_block_in_the_middle_of_two_jobs_holds_up_both_and_is_broken_by_neither(autojump_clock):
    async with open_rig(store=":memory:", markets=5) as rig:
        jobs = [await rig.market.start_backfill(name, start=EPOCH_MS - 3 * DAY_MS) for name in (BUSY, "KRW-ETH")]
        await trio.sleep(1)
        rig.sim.add_fault(StatusFault(status=418, body="Try again in 60 seconds", count=1))
        await trio.sleep(1)
        asked = len(rig.exchange.requests)
        done = [job.snapshot().done for job in jobs]
        await trio.sleep(58)
        assert len(rig.exchange.requests) == asked
        assert [job.snapshot().done for job in jobs] == done
        assert all(0 < job.snapshot().share < 1 for job in jobs)
        assert all("blocked by the exchange (418)" in job.snapshot().trouble for job in jobs)
        for job in jobs:
            assert (await job.wait()).state is JobState.DONE
        assert flaws(rig.store, rig.sim.world, rig.clock.now_ms()) == []


# -- pages under way ----------------------------------------------------------------------------------------------


async def test_no_more_pages_are_under_way_than_the_limit_has_turns_for(autojump_clock):
    """They would only wait, and when the job is paused, or everything ends, they are for nothing."""
    async with open_rig(store=":memory:", markets=5) as rig:
        job = await rig.market.start_backfill(BUSY, start=EPOCH_MS - 30 * DAY_MS)
        await trio.sleep(10.5)
        before = len(rig.exchange.of(CandlesRequest))
        assert before >= 98  # and all turns are taken
        job.pause()
        await trio.sleep(60)
        assert len(rig.exchange.of(CandlesRequest)) <= before + 6
        job.cancel()


# -- a clock that is set ------------------------------------------------------------------------------------------


@attrs.define
class SetClock:
    """One that somebody sets."""

    true: TrioClock
    off_ms: int = 0

    def now_ms(self) -> int:
        return self.true.now_ms() + self.off_ms


@asynccontextmanager
async def with_a_clock() -> AsyncIterator[tuple[Pipe, SimExchange, SetClock]]:
    """A pipe, its clock, and the exchange, whose own clock is right."""
    true, config = TrioClock(EPOCH_MS), Config()
    ours = SetClock(true)
    sim = SimExchange(SimConfig(markets=5, latency_s=0.02), true)
    with SqliteStore.open(":memory:", source="http://sim") as store:
        async with open_pipe(sim, ours, store, budgets_of(config), config) as pipe:
            yield pipe, sim, ours


STEPS = {"an hour back": -HOUR_MS, "a year back": -365 * DAY_MS, "an hour on": HOUR_MS, "a year on": 365 * DAY_MS}


@pytest.mark.parametrize("step", STEPS)
async def test_a_clock_that_is_set_in_the_middle_of_a_job_changes_nothing(step: str, autojump_clock):
    async with with_a_clock() as (pipe, sim, clock):
        start_ms = EPOCH_MS - 4 * DAY_MS
        job = await pipe.market.start_backfill(BUSY, start=start_ms)
        await trio.sleep(1.5)
        assert 0 < job.snapshot().share < 1
        clock.off_ms = STEPS[step]
        assert (await job.wait()).state is JobState.DONE
        now_ms = EPOCH_MS + int(trio.current_time() * 1000)
        assert flaws(pipe.store, sim.world, now_ms) == []
        first_ms, settled_ms = timeframes.ceil(M1, start_ms), timeframes.floor(M1, EPOCH_MS - GRACE_MS)
        assert pipe.store.coverage(BUSY, M1, first_ms, settled_ms).covers(first_ms, settled_ms)
        assert max(Counter(pipe.exchange.of(CandlesRequest)).values()) == 1


@pytest.mark.parametrize("step", STEPS)
async def test_a_job_that_begins_right_after_the_clock_was_set_proves_nothing_that_has_not_been(
    step: str, autojump_clock
):
    """Nobody has told the exchange's time since."""
    async with with_a_clock() as (pipe, sim, clock):
        await pipe.market.get_market()
        clock.off_ms = STEPS[step]
        job = await pipe.market.start_backfill(BUSY, start=EPOCH_MS - HOUR_MS)
        assert (await job.wait()).state is JobState.DONE
        now_ms = EPOCH_MS + int(trio.current_time() * 1000)
        assert flaws(pipe.store, sim.world, now_ms) == []
        settled_ms = timeframes.floor(M1, EPOCH_MS - GRACE_MS)
        assert pipe.store.coverage(BUSY, M1, 0, EPOCH_MS + 1000 * DAY_MS).covers(EPOCH_MS - HOUR_MS + 4_000, settled_ms)


# -- edges --------------------------------------------------------------------------------------------------------

# Midnight in Seoul is 15:00 UTC; 2026-09-21 is a Monday.
RANGES = {
    "two minutes about midnight in Seoul": ("2026-09-20T23:59+09:00", "2026-09-21T00:01+09:00"),
    "a day of Seoul": ("2026-09-21T00:00+09:00", "2026-09-22T00:00+09:00"),
    "two minutes about midnight in UTC": ("2026-09-20T23:59+00:00", "2026-09-21T00:01+00:00"),
    "a day of UTC": ("2026-09-21T00:00+00:00", "2026-09-22T00:00+00:00"),
    "three weeks of Seoul": ("2026-08-31T00:00+09:00", "2026-09-21T00:00+09:00"),
    "three weeks of UTC": ("2026-08-31T00:00+00:00", "2026-09-21T00:00+00:00"),
    "from noon in Seoul to noon in UTC": ("2026-09-01T12:00+09:00", "2026-09-20T12:00+00:00"),
}


@pytest.mark.parametrize("timeframe", [Timeframe.M1, Timeframe.M10, Timeframe.H4, Timeframe.D1, Timeframe.W1])
@pytest.mark.parametrize("between", RANGES)
async def test_a_range_means_the_slots_that_open_in_it_wherever_its_midnights_are(
    between: str, timeframe: Timeframe, autojump_clock
):
    start, end = map(datetime.fromisoformat, RANGES[between])
    start_ms, end_ms = (int(each.timestamp() * 1000) for each in (start, end))
    async with open_rig(store=":memory:", markets=5) as rig:
        job = await rig.market.start_backfill(BUSY, timeframe, start=start, end=end)
        report = await job.wait()
        assert report.state is JobState.DONE
        over_ms = timeframes.floor(timeframe, EPOCH_MS)
        opens = list(timeframes.opens_between(timeframe, start_ms, min(end_ms, over_ms)))
        assert report.parts[0].slots == len(opens)
        stored = rig.store.coverage(BUSY, timeframe, 0, EPOCH_MS)
        whole = [(opens[0], timeframes.next_open(timeframe, opens[-1]))] if opens else []
        assert list(stored) == whole
        assert flaws(rig.store, rig.sim.world, rig.clock.now_ms()) == []
        # In the other zone's words it is the same range.
        asked = len(rig.exchange.of(CandlesRequest))
        other = KST if start.tzinfo is UTC else UTC
        again = await rig.market.start_backfill(
            BUSY, timeframe, start=start.astimezone(other), end=end.astimezone(other)
        )
        assert (await again.wait()).pages == 0
        assert len(rig.exchange.of(CandlesRequest)) == asked
