"""Collecting in the background over the whole pipe: all there is and nothing twice, in nobody's way, in any weather."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from collecting_checks import budgets_of, covered, flaws, open_pipe
from rig import EPOCH_MS, Rig, open_rig

import marketpipe as mp
from marketpipe import Config, Priority, Timeframe
from marketpipe.clock import TrioClock
from marketpipe.config import Collecting
from marketpipe.core.progress import JobState
from marketpipe.core.requests import CandlesRequest
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

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
DENSE = ("KRW-BTC", "KRW-ETH", "KRW-XRP")
M1 = Timeframe.M1


def pages(rig: Any) -> list[CandlesRequest]:
    return rig.exchange.of(CandlesRequest)


def well(rig: Rig) -> None:
    """What is stored is what was, no page was asked twice, and never too many at once."""
    assert rig.store is not None
    assert flaws(rig.store, rig.sim.world, rig.clock.now_ms()) == []
    assert rig.greatest() <= 10


def once(rig: Rig) -> None:
    assert not [request for request, count in Counter(pages(rig)).items() if count > 1]


def proven(rig: Rig, market: str, start_ms: int, end_ms: int, timeframe: Timeframe = M1) -> bool:
    assert rig.store is not None
    return rig.store.coverage(market, timeframe, start_ms, end_ms).covers(start_ms, end_ms)


# -- well ---------------------------------------------------------------------------------------------------------


async def test_many_markets_and_timeframes_are_collected_side_by_side(autojump_clock):
    """Each page is asked once, and what is stored is what was."""
    async with open_rig(store=":memory:") as rig:
        markets = [*DENSE, "BTC-ETH", "BTC-DOGE"]
        job = await rig.market.start_backfill(markets, ["1m", "15m", "1d"], start=EPOCH_MS - 3 * DAY_MS)
        assert rig.market.status().jobs[0].state in (JobState.PLANNING, JobState.RUNNING)
        report = await job.wait()
        assert report.state is JobState.DONE
        assert report.failed == ()
        assert Counter(part.market for part in report.parts) == dict.fromkeys(markets, 3)
        assert all(part.done == part.slots for part in report.parts)
        assert report.bars == sum(part.bars for part in report.parts)
        assert report.pages == len(pages(rig))
        assert set(covered(rig.store)) == {(part.market, part.timeframe) for part in report.parts}
        assert rig.refused() == 0
        assert rig.market.status().jobs == ()
        well(rig)
        once(rig)


async def test_a_job_uses_the_limit_and_never_more(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        job = await rig.market.start_backfill(DENSE, start=EPOCH_MS - 10 * DAY_MS)
        await trio.sleep(5)
        before = len(pages(rig))
        await trio.sleep(12)
        assert len(pages(rig)) - before >= 9.5 * 12
        progress = job.snapshot()
        assert progress.requests_per_s == pytest.approx(9.8, abs=0.3)
        assert progress.bars_per_s == pytest.approx(9.8 * 200, rel=0.05)
        report = await job.wait()
        assert report.state is JobState.DONE
        assert rig.refused() == 0
        well(rig)
        once(rig)


async def test_no_market_is_far_ahead_of_another(autojump_clock):
    """However long the job is: whoever was answered first is some pages ahead, and stays so."""
    async with open_rig(store=":memory:", jitter_s=0.05) as rig:
        job = await rig.market.start_backfill(
            [*DENSE, "KRW-SOL", "USDT-BTC"], ["1m", "15m"], start=EPOCH_MS - 9 * DAY_MS
        )
        assert (await job.wait()).state is JobState.DONE
        asked = [request.market for request in pages(rig) if request.timeframe is M1 and request.market in DENSE]
        needed = Counter(asked)
        assert min(needed.values()) >= 65
        for end in range(len(asked)):
            counts = Counter(asked[:end])
            if all(counts[name] < needed[name] for name in DENSE):
                assert max(counts.values(), default=0) - min(counts[name] for name in DENSE) <= 12


async def test_progress_only_grows_and_the_time_that_is_left_settles(autojump_clock):
    async with open_rig(store=":memory:", jitter_s=0.05) as rig:
        job = await rig.market.start_backfill(DENSE, start=EPOCH_MS - 10 * DAY_MS)
        seen = [progress async for progress in job.progress()]
        for before, after in pairwise(seen[1:]):
            assert (before.done, before.bars, before.pages) <= (after.done, after.bars, after.pages)
            assert before.total == after.total
        elapsed_s = seen[-1].elapsed_s
        late = [progress for progress in seen[:-1] if progress.elapsed_s > 2]
        assert len(late) > 20
        for progress in late:
            assert progress.eta_s == pytest.approx(elapsed_s - progress.elapsed_s, rel=0.25, abs=1.5)
        assert seen[-1].eta_s == 0.0
        assert seen[-1].share == 1.0


async def test_the_same_job_again_asks_for_nothing(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        asked = {"start": EPOCH_MS - 2 * DAY_MS, "end": EPOCH_MS - DAY_MS + 1}
        await (await rig.market.start_backfill(DENSE, ["1m", "3m"], **asked)).wait()
        before = len(pages(rig))
        report = await (await rig.market.start_backfill(DENSE, ["1m", "3m"], **asked)).wait()
        assert (report.state, report.pages) == (JobState.DONE, 0)
        assert len(pages(rig)) == before
        series = await rig.market.get_candle("KRW-BTC", start=asked["start"], end=asked["end"])
        assert len(series) == 1440
        assert len(pages(rig)) == before
        once(rig)


async def test_two_jobs_over_the_same_range_ask_once(autojump_clock):
    async with open_rig(store=":memory:", jitter_s=0.01) as rig:
        first = await rig.market.start_backfill("KRW-BTC", start=EPOCH_MS - 3 * DAY_MS, end=EPOCH_MS - DAY_MS)
        await trio.sleep(0.4)
        second = await rig.market.start_backfill("KRW-BTC", start=EPOCH_MS - 4 * DAY_MS, end=EPOCH_MS - 2 * DAY_MS)
        assert len(rig.market.status().jobs) == 2
        reports = [await first.wait(), await second.wait()]
        assert [report.state for report in reports] == [JobState.DONE] * 2
        assert all(report.parts[0].done == report.parts[0].slots for report in reports)
        assert reports[0].parts[0].slots == 2880
        assert proven(rig, "KRW-BTC", EPOCH_MS - 4 * DAY_MS + MINUTE_MS, EPOCH_MS - DAY_MS)
        # 4320 slots are 21.6 pages; where the two stretches meet, one may be asked for from either side.
        assert len(pages(rig)) <= 22 + 2
        well(rig)
        once(rig)


async def test_a_read_over_the_range_of_a_job_shares_with_it(autojump_clock):
    async with open_rig(store=":memory:", jitter_s=0.01) as rig:
        job = await rig.market.start_backfill("KRW-BTC", start=EPOCH_MS - 5 * DAY_MS, end=EPOCH_MS - DAY_MS)
        await trio.sleep(0.5)
        series = await rig.market.get_candle("KRW-BTC", start=EPOCH_MS - 3 * DAY_MS, end=EPOCH_MS - 2 * DAY_MS)
        assert len(series) == 1440
        assert not job.is_over
        assert (await job.wait()).state is JobState.DONE
        assert len(pages(rig)) <= 29 + 2
        well(rig)
        once(rig)


@pytest.mark.parametrize("verb", ["get_ticker", "get_candle"])
async def test_a_job_is_in_nobody_s_way(verb: str, autojump_clock):
    """Everything waits for the same ten a second, and what is urgent goes first."""
    async with open_rig(store=":memory:", jitter_s=0.02) as rig:
        job = await rig.market.start_backfill(DENSE, start=EPOCH_MS - 10 * DAY_MS)
        await trio.sleep(3)
        longest_s = 0.0
        for second in range(10):
            began_s = trio.current_time()
            if verb == "get_ticker":
                await rig.market.get_ticker("KRW-ETH", max_age_s=0)
            else:
                await rig.market.get_candle("KRW-SOL", count=150 + second, priority=Priority.HIGH)
            longest_s = max(longest_s, trio.current_time() - began_s)
            await trio.sleep(0.9)
        assert not job.is_over
        if verb == "get_ticker":
            assert longest_s <= Priority.HIGH.budget_s
            assert not rig.market.status().late.get(Priority.HIGH)
        assert longest_s <= 0.1 + 0.04 + 0.02  # at most the wait for the next slot, and the way
        assert job.snapshot().requests_per_s > 8.5  # and it goes on all the same
        job.cancel()
        assert rig.greatest() <= 10
        assert rig.refused() == 0


# -- ranges -------------------------------------------------------------------------------------------------------


async def test_a_range_from_before_the_listing_is_proven_back_to_its_start(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        opening_ms = rig.sim.world.opening_ms("KRW-BTC")
        job = await rig.market.start_backfill(
            "KRW-BTC", start=opening_ms - 400 * DAY_MS, end=opening_ms + 1000 * MINUTE_MS
        )
        report = await job.wait()
        assert (report.state, report.bars) == (JobState.DONE, report.parts[0].bars)
        assert proven(rig, "KRW-BTC", opening_ms - 400 * DAY_MS, opening_ms + 1000 * MINUTE_MS)
        assert len(pages(rig)) <= 6 + 20
        well(rig)


async def test_a_job_whose_slots_lie_all_before_the_listing_takes_one_page(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        opening_ms = rig.sim.world.opening_ms("KRW-BTC")
        start_ms, end_ms = opening_ms - 10 * DAY_MS, opening_ms - 5 * DAY_MS
        report = await (await rig.market.start_backfill("KRW-BTC", start=start_ms, end=end_ms)).wait()
        assert (report.state, report.bars, report.pages) == (JobState.DONE, 0, 1)
        summary = await rig.market.collection_summary("KRW-BTC", start=start_ms, end=end_ms)
        assert (summary.empty, summary.slots) == (5 * 1440, 5 * 1440)
        well(rig)


@pytest.mark.parametrize("ahead", [timedelta(minutes=5), timedelta(days=400)])
async def test_an_end_in_the_future_stops_at_the_running_bar(ahead: timedelta, autojump_clock):
    async with open_rig(store=":memory:") as rig:
        now = datetime.fromtimestamp(EPOCH_MS / 1000, UTC)
        job = await rig.market.start_backfill("KRW-BTC", start=now - timedelta(hours=2), end=now + ahead)
        report = await job.wait()
        assert report.state is JobState.DONE
        assert report.parts[0].slots in (118, 119, 120)
        # And the rest is collected when it has come.
        await trio.sleep(240)
        report = await (
            await rig.market.start_backfill("KRW-BTC", start=now - timedelta(hours=2), end=now + ahead)
        ).wait()
        assert report.parts[0].slots in (3, 4, 5)
        assert proven(rig, "KRW-BTC", EPOCH_MS // MINUTE_MS * MINUTE_MS - HOUR_MS, EPOCH_MS + 2 * MINUTE_MS)
        well(rig)


async def test_a_market_that_is_none_ends_with_that_and_the_rest_goes_on(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        job = await rig.market.start_backfill(["KRW-BTC", "KRW-NOPE", "KRW-ETH"], start=EPOCH_MS - DAY_MS)
        report = await job.wait()
        assert report.state is JobState.FAILED
        btc, nope, eth = report.parts
        assert btc.is_whole
        assert eth.is_whole
        assert isinstance(nope.error, mp.UnknownMarket)
        assert (nope.done, nope.bars) == (0, 0)
        assert report.failed == (nope,)
        assert report.elapsed_s < 5
        well(rig)


async def test_what_a_market_in_maintenance_did_not_trade_is_known_to_be_empty(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        job = await rig.market.start_backfill("BTC-DOGE", start=EPOCH_MS - 20 * DAY_MS)
        report = await job.wait()
        assert report.state is JobState.DONE
        assert report.parts[0].slots == pytest.approx(20 * 1440, abs=2)
        assert report.pages < 10  # not one for every 200 slots
        well(rig)
        once(rig)


# -- weather ------------------------------------------------------------------------------------------------------

STRIKES = {
    "down": DownFault(for_s=300),
    "down with a word": StatusFault(status=503, for_s=300),
    "hanging": HangFault(groups=("candles",), for_s=60),
    "slow": LatencyFault(latency_s=4.0, for_s=60),
    "refused now and then": StatusFault(status=429, groups=("candles",), probability=0.2, for_s=60),
    "refused for long": StatusFault(status=429, groups=("candles",), for_s=60),
    "blocked": StatusFault(status=418, body="Try again in 30 seconds", count=1),
    "nonsense for a moment": GarbageFault(groups=("candles",), for_s=0.5),
    "nonsense now and then": GarbageFault(groups=("candles",), probability=0.2, for_s=60),
}


@pytest.mark.slow
@pytest.mark.parametrize("weather", STRIKES)
async def test_a_job_outlasts_whatever_passes(weather: str, autojump_clock):
    """It is slowed down, says why, and then has all of it; nothing that was proven is asked for again."""
    async with open_rig(store=":memory:", ban_after=None, jitter_s=0.01) as rig:
        job = await rig.market.start_backfill(DENSE, start=EPOCH_MS - 3 * DAY_MS)
        await trio.sleep(2)
        before = job.snapshot()
        rig.sim.add_fault(STRIKES[weather])
        troubles: set[str] = set()
        with trio.fail_after(1000):
            async for progress in job.progress(every_s=0.1):
                assert progress.done >= before.done
                before = progress
                troubles.add(progress.trouble)
        report = await job.wait()
        assert report.state is JobState.DONE
        assert [part.error for part in report.parts] == [None] * 3
        well(rig)
        # A 429 is waited out below, and nobody is told.
        assert len(troubles) > 1 or weather in ("slow", "hanging") or "refused" in weather or "nonsense" in weather
        assert [failure for name in DENSE for failure in rig.store.failures(name, M1)] == []


async def test_during_a_block_a_job_waits_for_its_end(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        job = await rig.market.start_backfill(DENSE, start=EPOCH_MS - 3 * DAY_MS)
        await trio.sleep(2)
        rig.sim.add_fault(StatusFault(status=418, body="Try again in 30 seconds", count=1))
        await trio.sleep(1)
        asked = len(rig.exchange.requests)
        await trio.sleep(28)
        assert len(rig.exchange.requests) == asked
        assert "418" in job.snapshot().trouble or "blocks" in job.snapshot().trouble
        report = await job.wait()
        assert report.state is JobState.DONE
        well(rig)


async def test_a_market_whose_pages_can_never_be_read_is_given_up_and_the_rest_goes_on(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        rig.sim.add_fault(
            EditFault(groups=("candles",), change="set", market="KRW-ETH", field="opening_price", lexeme='"?"')
        )
        job = await rig.market.start_backfill(DENSE, start=EPOCH_MS - DAY_MS // 2)
        await trio.sleep(5)
        parts = {part.market: part for part in job.snapshot().parts}
        assert parts["KRW-BTC"].is_whole
        assert parts["KRW-XRP"].is_whole
        report = await job.wait()
        assert report.state is JobState.FAILED
        (failed,) = report.failed
        assert failed.market == "KRW-ETH"
        assert isinstance(failed.error, mp.BadPayload)
        assert failed.done == 0
        summary = await rig.market.collection_summary("KRW-ETH", start=EPOCH_MS - DAY_MS // 2, end=EPOCH_MS - HOUR_MS)
        assert summary.failed == summary.slots
        assert {failure.attempts for failure in summary.failures} == {5}
        rig.sim.clear_faults()
        report = await (await rig.market.start_backfill(DENSE, start=EPOCH_MS - DAY_MS // 2)).wait()
        assert report.state is JobState.DONE
        well(rig)


async def test_a_market_that_is_delisted_in_the_middle_ends_with_its_reason(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        job = await rig.market.start_backfill(DENSE, start=EPOCH_MS - 5 * DAY_MS)
        await trio.sleep(3)
        history = rig.sim.world._histories["KRW-ETH"]
        opening_ms, history.opening_ms = history.opening_ms, EPOCH_MS + 1000 * DAY_MS  # the exchange knows it no more
        report = await job.wait()
        assert report.state is JobState.FAILED
        btc, eth, xrp = report.parts
        assert btc.is_whole
        assert xrp.is_whole
        assert isinstance(eth.error, mp.UnknownMarket)
        assert 0 < eth.done < eth.slots
        assert "KRW-ETH" in str(eth.error)
        history.opening_ms = opening_ms
        well(rig)


# -- a database that refuses --------------------------------------------------------------------------------------


async def test_a_full_disk_slows_the_job_and_reads_go_on(autojump_clock):
    config = Config(collecting=Collecting(kept_rows=2_000))
    async with open_rig(config, store=":memory:") as rig:
        conn = rig.store._access.writer.conn
        conn.execute(f"PRAGMA max_page_count = {conn.execute('PRAGMA page_count').fetchone()[0] + 20}")
        job = await rig.market.start_backfill(DENSE, start=EPOCH_MS - 5 * DAY_MS)
        await trio.sleep(60)
        asked = len(pages(rig))
        assert asked < 60
        status = rig.market.status()
        assert "the disk is full" in status.store.trouble
        assert "the disk is full" in status.jobs[0].trouble
        assert status.store.rows_kept >= 2_000
        # What is kept is read, and what is not is asked for.
        series = await rig.market.get_candle("KRW-BTC", start=EPOCH_MS - 3 * HOUR_MS, end=EPOCH_MS - HOUR_MS)
        assert len(series) == 120
        assert len(pages(rig)) == asked
        series = await rig.market.get_candle("KRW-BTC", start=EPOCH_MS - 30 * DAY_MS, end=EPOCH_MS - 29 * DAY_MS)
        assert len(series) == 1440
        assert rig.market.status().store.rows_let_go > 0
        conn.execute("PRAGMA max_page_count = 1000000")
        report = await job.wait()
        assert report.state is JobState.DONE
        assert rig.market.status().store.trouble == ""
        assert rig.market.status().store.rows_kept == 0
        well(rig)


async def test_what_a_job_left_out_since_somebody_read_it_is_stored(autojump_clock):
    """On a full disk what is read is let go: whoever leaves it out for that would claim what is not there."""
    config = Config(collecting=Collecting(kept_rows=1_000))
    async with open_rig(config, store=":memory:") as rig:
        conn = rig.store._access.writer.conn
        conn.execute(f"PRAGMA max_page_count = {conn.execute('PRAGMA page_count').fetchone()[0]}")
        start_ms, end_ms = EPOCH_MS - 4 * DAY_MS, EPOCH_MS - DAY_MS
        job = await rig.market.start_backfill("KRW-BTC", start=start_ms, end=end_ms)
        await trio.sleep(30)
        await rig.market.get_candle("KRW-BTC", start=start_ms, end=start_ms + DAY_MS)
        conn.execute("PRAGMA max_page_count = 1000000")
        assert (await job.wait()).state is JobState.DONE
        assert proven(rig, "KRW-BTC", start_ms + 60_000, end_ms - 60_000)
        well(rig)


async def test_nothing_is_collected_into_a_file_that_somebody_else_writes(autojump_clock, tmp_path: Path):
    with SqliteStore.open(tmp_path / "history.db", source="http://sim"):
        async with open_rig(store=str(tmp_path / "history.db")) as rig:
            with pytest.raises(mp.StoreError, match="nothing can be collected"):
                await rig.market.start_backfill("KRW-BTC", start=EPOCH_MS - DAY_MS)
            assert rig.market.status().jobs == ()
            assert rig.market.status().store.read_only


async def test_without_a_database_nothing_can_be_collected(autojump_clock):
    async with open_rig() as rig:
        with pytest.raises(RuntimeError, match="without a database"):
            await rig.market.start_backfill("KRW-BTC", start=EPOCH_MS - DAY_MS)


# -- left and opened again ----------------------------------------------------------------------------------------


async def test_a_job_is_continued_by_another_pipeline_over_the_same_file(autojump_clock, tmp_path: Path):
    clock = TrioClock(EPOCH_MS)
    sim = SimExchange(SimConfig(markets=40, latency_s=0.02, jitter_s=0.01), clock)
    start_ms, before, asked, again = EPOCH_MS - 4 * DAY_MS, {}, Counter(), []
    budgets = budgets_of(Config())
    for _ in range(40):
        with SqliteStore.open(tmp_path / "history.db", source="http://sim") as store:
            async with open_pipe(sim, clock, store, budgets) as pipe:
                job = await pipe.market.start_backfill(DENSE, start=start_ms, end=EPOCH_MS - DAY_MS)
                with trio.move_on_after(0.77):
                    await job.wait()
            asked.update(pipe.exchange.of(CandlesRequest))
            again += pipe.again
            now = covered(store)
            assert all(not before[one] - now[one] for one in before)
            assert flaws(store, sim.world, clock.now_ms()) == []
            before = now
            if job.snapshot().state is JobState.DONE:
                break
    assert job.snapshot().state is JobState.DONE
    assert again == []
    assert sim.statistics().groups["candles"].greatest_per_second <= 10


async def test_after_the_pipeline_was_left_no_job_begins_and_whoever_waits_is_told(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        job = await rig.market.start_backfill(DENSE, start=EPOCH_MS - 10 * DAY_MS)
        told: list[str] = []

        async def wait() -> None:
            with pytest.raises(mp.PipelineClosed):
                await job.wait()
            told.append("closed")

        async def follow() -> None:
            told.extend([str(progress.state) async for progress in job.progress()][-1:])

        async with trio.open_nursery() as outside:
            outside.start_soon(wait)
            outside.start_soon(follow)
            await trio.sleep(2)
            rig.market.close()
            with pytest.raises(mp.PipelineClosed):
                await rig.market.start_backfill("KRW-BTC", start=EPOCH_MS - DAY_MS)
            rig.market._backfill._nursery.cancel_scope.cancel()
        assert told.count("closed") == 1
        assert len(told) == 2


@pytest.mark.parametrize("moment_s", [0.0, 0.01, 0.02, 0.03, 0.045, 0.3, 1.0, 2.5])
async def test_leaving_takes_no_time_and_keeps_what_had_come(moment_s: float, autojump_clock):
    with SqliteStore.open(":memory:", source="http://sim") as store:
        async with open_rig(store=store) as rig:
            job = await rig.market.start_backfill(DENSE, start=EPOCH_MS - 10 * DAY_MS)
            await trio.sleep(moment_s)
            left_s = trio.current_time()
        assert trio.current_time() - left_s < 2
        with pytest.raises(mp.PipelineClosed):
            await job.wait()
        stored = sum(spans.length for spans in covered(store).values()) // MINUTE_MS
        assert stored == job.snapshot().done
        assert flaws(store, rig.sim.world, rig.clock.now_ms()) == []


def test_a_pipeline_may_be_left_while_a_job_is_being_started():
    """Whoever starts one meanwhile gets a job that was cut off, or is told that the pipeline has been left."""

    async def main(delay: int) -> None:
        outcomes: list[str] = []

        async def start(market: mp.Client) -> None:
            for _ in range(delay):
                await trio.lowlevel.checkpoint()
            try:
                job = await market.start_backfill("KRW-BTC", start=EPOCH_MS - DAY_MS)
                await job.wait()
            except mp.PipelineClosed:
                outcomes.append("closed")

        async with trio.open_nursery() as outside, open_rig(store=":memory:") as rig:
            await rig.market.get_market("KRW-BTC")
            outside.start_soon(start, rig.market)
            for _ in range(6):
                await trio.lowlevel.checkpoint()
        assert outcomes == ["closed"]

    for delay in range(40):
        trio.run(main, delay, clock=trio.testing.MockClock(autojump_threshold=0))


# -- misuse -------------------------------------------------------------------------------------------------------

MISUSE = [
    ((), {"start": 0}, ValueError, "at least one symbol"),
    (("KRW-BTC", []), {"start": 0}, ValueError, "at least one timeframe"),
    (("KRW-BTC", "2m"), {"start": 0}, ValueError, "unknown timeframe '2m'"),
    (("KRW-BTC",), {"start": EPOCH_MS, "end": EPOCH_MS}, ValueError, "end"),
    (("KRW-BTC",), {"start": datetime(2026, 1, 1)}, ValueError, "aware"),  # noqa: DTZ001  # that is the point
    (("KRW-BTC",), {"start": 0, "priority": "low"}, TypeError, "Priority"),
]


@pytest.mark.parametrize(("asked", "options", "kind", "words"), MISUSE)
async def test_misuse_is_named_before_anything_is_asked(asked, options, kind, words, autojump_clock):
    async with open_rig(store=":memory:") as rig:
        await trio.sleep(1)
        before = len(rig.exchange.requests)
        with pytest.raises(kind, match=words):
            await rig.market.start_backfill(*(asked or ([],)), **options)
        assert len(rig.exchange.requests) == before
        assert rig.market.status().jobs == ()
