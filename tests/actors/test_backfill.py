"""A job's promise: all there is, once, fair and polite, whatever happens on the way and whenever it is stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_pages import SETTLED, Bench, Market, bench_of, slot_of, slots_of, spans
from store.paper_store import EVER, M1, MARKET, full, opened, opens
from trio.testing import MockClock

from marketpipe.actors.job import Job
from marketpipe.config import Collecting
from marketpipe.core.progress import JobState, Progress
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import (
    BadPayload,
    Banned,
    ExchangeError,
    ExchangeUnavailable,
    PipelineClosed,
    RateLimited,
    StoreError,
    UnknownMarket,
)
from marketpipe.models import Priority

DOWN = ExchangeUnavailable("GET candles: answered 503", status=503)
MARKETS = ("KRW-BTC", "KRW-ETH", "KRW-XRP")


def series_of(*markets: str, timeframe: Timeframe = M1) -> tuple[tuple[str, Timeframe], ...]:
    return tuple((market, timeframe) for market in markets)


def outlined(job: Job) -> tuple[JobState, int, int]:
    progress = job.snapshot()
    return progress.state, progress.done, progress.total


async def whole(bench: Bench, first: int, end: int, market: str = MARKET) -> None:
    """All of it is proven, each traded bar is there once, and nothing else."""
    assert not spans((first, end)) - await bench.stored(market)
    stored = bench.slots_stored(market)
    assert [slot for slot in stored if first <= slot < end] == [s for s in bench.market.traded if first <= s < end]
    assert set(stored) <= set(bench.market.traded)
    assert bench.store.integrity() == ()
    assert bench.store.amendments(market, M1) == ()


# -- all of it ----------------------------------------------------------------------------------------------------


async def test_a_job_collects_all_that_is_missing_and_reports_it(autojump_clock):
    async with bench_of() as bench:
        await bench.archive.put(full(1000, 1500))
        job = bench.job(500, 2000)
        report = await job.wait()
        assert report == await job.wait()
        assert report.state is JobState.DONE
        (part,) = report.parts
        assert (part.market, part.timeframe, part.error) == (MARKET, M1, None)
        assert (part.slots, part.done, part.gone) == (1000, 1000, 0)
        assert (part.bars, part.pages) == (report.bars, report.pages)
        assert report.pages == len(bench.asked)
        assert report.elapsed_s == trio.current_time()
        assert report.failed == ()
        assert job.is_over
        await whole(bench, 500, 2000)
        assert len(bench.asked) == len(set(bench.asked)) == 6
        assert set(bench.rest.priorities) == {Priority.LOW}


async def test_when_a_job_has_ended_all_that_it_fetched_is_stored(autojump_clock):
    async with bench_of() as bench:
        await bench.job(100, 150).wait()
        assert slots_of(bench.store.coverage(MARKET, M1, *EVER)) == [(100, 150)]


async def test_without_an_end_a_job_ends_with_what_has_settled(autojump_clock):
    async with bench_of() as bench:
        report = await bench.job(2900).wait()
        assert report.parts[0].slots == SETTLED - 2900
        assert slots_of(await bench.stored()) == [(2900, SETTLED)]


@pytest.mark.parametrize("ahead", [1, 5, 10_000_000])
async def test_an_end_in_the_future_is_as_good_as_none(ahead: int, autojump_clock):
    async with bench_of() as bench:
        report = await bench.job(2900, SETTLED + ahead).wait()
        assert report.state is JobState.DONE
        assert slots_of(await bench.stored()) == [(2900, SETTLED)]


@pytest.mark.parametrize(("first", "end"), [(SETTLED, None), (SETTLED + 1000, None), (SETTLED + 1000, SETTLED + 2000)])
async def test_a_range_that_has_not_begun_is_nothing_to_do(first: int, end: int | None, autojump_clock):
    async with bench_of() as bench:
        job = bench.job(first, end)
        report = await job.wait()
        assert (report.state, report.pages, report.parts[0].slots) == (JobState.DONE, 0, 0)
        assert job.snapshot().share == 1.0
        assert bench.asked == []


@pytest.mark.parametrize("off_ms", [0, 1, 30_000, 59_999])
async def test_the_same_job_again_asks_for_nothing_wherever_its_edges_are(off_ms: int, autojump_clock):
    async with bench_of() as bench:
        for again in range(3):
            job = bench.backfill.start(((MARKET, M1),), opens(100) + off_ms, opens(700) + off_ms, Priority.LOW)
            assert (await job.wait()).state is JobState.DONE
            assert len(bench.asked) == 3
            assert (job.snapshot().total == 0) == bool(again)
        assert slots_of(await bench.stored()) == [(101, 701) if off_ms else (100, 700)]


async def test_a_history_that_begins_later_is_proven_back_to_its_beginning(autojump_clock):
    async with bench_of(Market(range(2000, SETTLED))) as bench:
        job = bench.backfill.start(((MARKET, M1),), 0, None, Priority.LOW)
        report = await job.wait()
        assert report.state is JobState.DONE
        assert report.bars == 1000
        assert bench.store.coverage(MARKET, M1, *EVER).covers(0, opens(SETTLED))
        assert len(bench.asked) <= 5 + 20  # as many as may be under way when the first of them says so


async def test_slots_before_the_listing_are_proven_empty_by_one_page(autojump_clock):
    async with bench_of(Market(range(2000, SETTLED))) as bench:
        report = await bench.job(0, 1500).wait()
        assert (report.state, report.bars, report.pages) == (JobState.DONE, 0, 1)
        assert report.parts[0].done == 1500
        await whole(bench, 0, 1500)


async def test_bars_of_a_second_that_are_not_kept_any_more_are_gone(autojump_clock):
    """The exchange keeps them for three months: what is older is neither proven nor missing."""
    async with bench_of(Market(range(0))) as bench:
        report = await bench.job(-200 * 1440, series=((MARKET, Timeframe.S1),)).wait()
        (part,) = report.parts
        assert report.state is JobState.DONE
        assert 0 < part.gone < part.slots == part.gone + part.done
        assert part.done == pytest.approx(88 * 86_400, rel=0.01)


# -- several ------------------------------------------------------------------------------------------------------


async def test_markets_and_timeframes_take_turns(autojump_clock):
    """None is far ahead of the others, so that whoever looks has something of each."""
    async with bench_of() as bench:
        series = (*series_of(*MARKETS), *series_of(*MARKETS, timeframe=Timeframe.M3))
        job = bench.job(0, SETTLED, series)
        report = await job.wait()
        assert report.state is JobState.DONE
        assert [(part.market, part.timeframe) for part in report.parts] == [*series]
        asked = [(request.market, request.timeframe) for request in bench.asked]
        # Minutes need 15 pages each, three minutes 5: as long as all need some, none gets more than a few more.
        assert Counter(asked) == {one: 15 if one[1] is M1 else 5 for one in series}
        for end in range(len(asked)):
            counts = Counter(asked[:end])
            going = [counts[one] for one in series if counts[one] < Counter(asked)[one]]
            assert max(going) - min(going) <= 2


async def test_a_market_that_fails_does_not_hold_the_others_up(autojump_clock):
    ill = Market(ill=lambda request: DOWN.copy() if request.market == "KRW-ETH" else None)
    async with bench_of(ill) as bench:
        job = bench.job(0, SETTLED, series_of(*MARKETS))
        await trio.sleep(2)
        parts = {part.market: part for part in job.snapshot().parts}
        assert parts["KRW-BTC"].is_whole
        assert parts["KRW-XRP"].is_whole
        assert parts["KRW-ETH"].done == 0
        assert "503" in str(parts["KRW-ETH"].error)
        assert "503" in job.snapshot().trouble
        ill.ill = lambda request: None
        report = await job.wait()
        assert (report.state, report.parts[1].error, job.snapshot().trouble) == (JobState.DONE, None, "")
        await whole(bench, 0, SETTLED, "KRW-ETH")


async def test_two_jobs_over_the_same_range_ask_once(autojump_clock):
    async with bench_of() as bench:
        one = bench.job(0, SETTLED)
        await trio.sleep(0.05)
        other = bench.job(500, 2500)
        reports = [await one.wait(), await other.wait()]
        assert [report.state for report in reports] == [JobState.DONE] * 2
        # The batcher, which is not here, joins what is asked twice at the same moment.
        assert len({request.to_ms for request in bench.asked}) <= 15 + 1
        await whole(bench, 0, SETTLED)


async def test_what_others_prove_meanwhile_is_not_asked_for(autojump_clock):
    async with bench_of(at_once=1) as bench:
        job = bench.job(0, SETTLED)
        await trio.sleep(0.05)
        assert bench.archive.add(full(0, 2300))
        report = await job.wait()
        assert (report.state, report.parts[0].done) == (JobState.DONE, SETTLED)
        assert report.pages == len(bench.asked) <= 4
        await whole(bench, 0, SETTLED)


async def test_a_job_that_is_given_up_keeps_nothing_from_another(autojump_clock):
    """The other one has been told what was proven, and leaves it out: it has to be stored all the same."""
    async with bench_of(kept_rows=250, at_once=3) as bench:
        refuses = Refusing(bench)
        one, other = bench.job(0, 2000), bench.job(0, 2000)
        await trio.sleep(20)
        one.cancel()
        await trio.sleep(20)
        refuses.stop()
        assert (await other.wait()).state is JobState.DONE
        await whole(bench, 0, 2000)


# -- a database that refuses --------------------------------------------------------------------------------------


class Refusing:
    """The bench's database has a full disk, until it is told to stop."""

    def __init__(self, bench: Bench) -> None:
        self._conn = bench.store._access.writer.conn
        pages = self._conn.execute("PRAGMA page_count").fetchone()[0]
        self._conn.execute(f"PRAGMA max_page_count = {pages}")

    def stop(self) -> None:
        self._conn.execute("PRAGMA max_page_count = 1000000")


async def test_a_database_that_cannot_be_written_slows_the_job_which_then_goes_on(autojump_clock):
    async with bench_of(kept_rows=1000, at_once=3) as bench:
        refuses = Refusing(bench)
        job = bench.job(0, SETTLED)
        await trio.sleep(30)
        asked = len(bench.asked)
        assert asked < 15
        assert "the disk is full" in job.snapshot().trouble
        assert job.snapshot().state is JobState.RUNNING
        await trio.sleep(600)
        assert len(bench.asked) == asked
        refuses.stop()
        assert (await job.wait()).state is JobState.DONE
        assert len(bench.asked) == 15
        await whole(bench, 0, SETTLED)


async def test_a_job_that_has_all_and_waits_for_it_to_be_stored_says_so(autojump_clock):
    async with bench_of() as bench:
        refuses = Refusing(bench)
        job = bench.job(0, SETTLED)
        await trio.sleep(100)
        assert outlined(job) == (JobState.RUNNING, SETTLED, SETTLED)
        assert "the disk is full" in job.snapshot().trouble
        refuses.stop()
        await job.wait()
        assert job.snapshot().trouble == ""
        await whole(bench, 0, SETTLED)


async def test_what_is_not_stored_since_too_much_is_kept_is_not_left_out(autojump_clock):
    """Others have read it, and it was let go."""
    async with bench_of(kept_rows=100, at_once=1) as bench:
        refuses = Refusing(bench)
        assert bench.archive.add(full(2000, 2150))
        job = bench.job(0, 600)
        await trio.sleep(5)
        assert not bench.archive.add(full(100, 300))
        refuses.stop()
        assert (await job.wait()).state is JobState.DONE
        await whole(bench, 0, 600)


async def test_a_database_that_cannot_be_read_ends_the_job(autojump_clock):
    async with bench_of() as bench:
        bench.store.close()
        job = bench.job(0, 600)
        for _ in range(2):
            with pytest.raises(StoreError, match="it has been closed"):
                await job.wait()
        assert job.snapshot().state is JobState.FAILED
        assert bench.asked == []


async def test_nothing_is_collected_into_a_database_that_is_only_read(autojump_clock, tmp_path: Path):
    with opened(tmp_path / "history.db"):
        view = opened(tmp_path / "history.db")
        async with bench_of(store=view) as bench:
            with pytest.raises(StoreError, match="open for reading only, since another program"):
                bench.job(0, 600)
            assert bench.backfill.snapshots() == ()


# -- an exchange that fails ---------------------------------------------------------------------------------------


async def test_a_job_outlasts_an_outage_however_long(autojump_clock):
    market = Market()
    async with bench_of(market, at_once=3) as bench:
        job = bench.job(0, SETTLED)
        await trio.sleep(0.07)
        market.ill = lambda request: DOWN.copy()
        before = len(bench.asked)
        await trio.sleep(3600)
        tried = len(bench.asked) - before
        assert 3600 / 30 <= tried <= 3600 / 14  # ever more rarely, and never given up
        assert "503" in job.snapshot().trouble
        assert job.snapshot().state is JobState.RUNNING
        market.ill = lambda request: None
        assert (await job.wait()).state is JobState.DONE
        await whole(bench, 0, SETTLED)
        assert bench.store.failures(MARKET, M1) == ()


@pytest.mark.parametrize(
    "error", [RateLimited("429", retry_after_s=1.0), ExchangeError("408", status=408), ExchangeError("502", status=502)]
)
async def test_what_passes_is_waited_for_as_long_as_it_takes(error: ExchangeError, autojump_clock):
    market = Market(ill=lambda request: error.copy() if trio.current_time() < 300 else None)
    async with bench_of(market) as bench:
        report = await bench.job(0, SETTLED).wait()
        assert report.state is JobState.DONE
        assert report.elapsed_s < 300 + 31
        await whole(bench, 0, SETTLED)


async def test_during_a_block_nothing_is_asked_before_it_ends(autojump_clock):
    market = Market()
    async with bench_of(market, at_once=3) as bench:
        job = bench.job(0, SETTLED)
        await trio.sleep(0.07)
        until_ms = opens(SETTLED) + 2_000 + 120_000
        market.ill = lambda request: Banned("answered 418", until_ms=until_ms)
        await trio.sleep(1)
        asked = len(bench.asked)
        assert isinstance(job.snapshot().parts[0].error, Banned)
        await trio.sleep(118)
        assert len(bench.asked) == asked
        market.ill = lambda request: None
        assert (await job.wait()).state is JobState.DONE
        await whole(bench, 0, SETTLED)


@pytest.mark.parametrize("error", [BadPayload("nonsense"), ExchangeError("answered 400", status=400)])
async def test_a_page_that_will_never_come_is_given_up_and_the_rest_goes_on(error: ExchangeError, autojump_clock):
    async with bench_of(at_once=3) as bench:
        market, page = bench.market, (MARKET, opens(1400))
        market.ill = lambda request: error.copy() if (request.market, request.to_ms) == page else None
        job = bench.job(0, SETTLED, series_of(MARKET, "KRW-ETH"))
        report = await job.wait()
        assert report.state is JobState.FAILED
        btc, eth = report.parts
        assert eth.is_whole
        assert (btc.slots, btc.done) == (SETTLED, SETTLED - 200)
        assert report.failed == (btc,)
        assert type(btc.error) is type(error)
        (hole,) = slots_of(spans((0, SETTLED)) - await bench.stored())
        assert hole == (1200, 1400)
        (failure,) = bench.store.failures(MARKET, M1)
        assert (slot_of(failure.start_ms), slot_of(failure.end_ms), failure.attempts) == (1200, 1400, 5)
        await whole(bench, 0, 1200)
        await whole(bench, 1400, SETTLED)
        # Once more, it is well.
        market.ill = lambda request: None
        report = await bench.job(0, SETTLED, series_of(MARKET, "KRW-ETH")).wait()
        assert (report.state, report.pages) == (JobState.DONE, 1)
        assert bench.store.failures(MARKET, M1) == ()
        await whole(bench, 0, SETTLED)


async def test_a_thin_market_s_page_that_will_never_come_gives_up_no_more_than_it_must(autojump_clock):
    market = Market(
        range(0, SETTLED, 5), ill=lambda request: BadPayload("no") if request.to_ms == opens(2000) else None
    )
    async with bench_of(market, at_once=1) as bench:
        report = await bench.job(0, SETTLED).wait()
        assert report.state is JobState.FAILED
        (hole,) = slots_of(spans((0, SETTLED)) - await bench.stored())
        assert hole == (1800, 2000)
        assert bench.slots_stored() == [slot for slot in market.traded if not 1800 <= slot < 2000]


async def test_a_market_that_is_delisted_ends_with_its_reason_and_the_rest_goes_on(autojump_clock):
    market = Market()
    async with bench_of(market, at_once=3) as bench:
        job = bench.job(0, SETTLED, series_of(*MARKETS))
        await trio.sleep(0.13)
        market.ill = lambda request: UnknownMarket("KRW-ETH") if request.market == "KRW-ETH" else None
        before = len([request for request in bench.asked if request.market == "KRW-ETH"])
        report = await job.wait()
        assert report.state is JobState.FAILED
        btc, eth, xrp = report.parts
        assert btc.is_whole
        assert xrp.is_whole
        assert isinstance(eth.error, UnknownMarket)
        assert 0 < eth.done < eth.slots
        assert report.elapsed_s < 3  # it is not tried again
        assert len([request for request in bench.asked if request.market == "KRW-ETH"]) <= before + 3
        assert (await bench.stored("KRW-ETH")).length == eth.done * 60_000


async def test_what_still_comes_of_a_market_that_is_delisted_does_not_hide_the_reason(autojump_clock):
    """Pages that were under way are answered after the one that was refused, well or not."""
    outcomes: list[ExchangeError | None] = []

    def ill(request: CandlesRequest) -> ExchangeError | None:
        outcomes.append({3: UnknownMarket(MARKET), 4: DOWN.copy()}.get(len(outcomes)))
        return outcomes[-1]

    async with bench_of(Market(ill=ill), at_once=4) as bench:
        report = await bench.job(0, SETTLED).wait()
        (part,) = report.parts
        assert isinstance(part.error, UnknownMarket)
        assert not part.is_whole
        assert part.pages == outcomes.count(None)
        assert len(outcomes) >= 5
        assert (await bench.stored()).length == part.done * 60_000


async def test_what_fails_after_others_have_proven_it_is_no_failure_of_the_job(autojump_clock):
    async with bench_of(Market(ill=lambda request: DOWN.copy()), at_once=1) as bench:
        job = bench.job(0, 600)
        await trio.sleep(0.01)
        assert bench.archive.add(full(0, 600))
        report = await job.wait()
        assert (report.state, report.parts[0].error) == (JobState.DONE, None)


async def test_what_others_have_proven_while_it_was_waiting_to_try_again_is_no_failure_either(autojump_clock):
    async with bench_of(Market(ill=lambda request: DOWN.copy()), at_once=1) as bench:
        job = bench.job(0, 600)
        await trio.sleep(100)
        assert job.snapshot().parts[0].error is not None
        assert bench.archive.add(full(0, 600))
        report = await job.wait()
        assert (report.state, report.parts[0].error) == (JobState.DONE, None)


async def test_what_others_have_proven_ends_the_waiting_at_once(autojump_clock):
    """Nobody waits for a pause to end after which there would be nothing to ask."""
    async with bench_of(Market(ill=lambda request: DOWN.copy()), at_once=3, retry_cap_s=3600.0) as bench:
        job = bench.job(0, 600)
        await trio.sleep(20_000)
        bench.archive.add(full(0, 300))
        await trio.sleep(2)
        assert not job.is_over
        bench.archive.add(full(300, 600))
        with trio.fail_after(2):
            assert (await job.wait()).state is JobState.DONE


# -- paused, resumed, cancelled, left -----------------------------------------------------------------------------


async def test_a_job_that_is_paused_asks_for_nothing_more_until_it_is_resumed(autojump_clock):
    async with bench_of(at_once=3) as bench:
        job = bench.job(0, SETTLED)
        await trio.sleep(0.05)
        job.pause()
        job.pause()
        asked = len(bench.asked)
        await trio.sleep(1000)
        assert len(bench.asked) == asked < 15
        assert (await bench.stored()).length == job.snapshot().done * 60_000  # what was under way is stored
        assert job.snapshot().state is JobState.PAUSED
        assert job.snapshot().eta_s is None
        job.resume()
        job.resume()
        assert (await job.wait()).state is JobState.DONE
        await whole(bench, 0, SETTLED)
        assert len(bench.asked) == 15


async def test_a_job_that_is_resumed_and_paused_at_once_asks_for_nothing(autojump_clock):
    async with bench_of(at_once=3) as bench:
        job = bench.job(0, SETTLED)
        await trio.sleep(0.05)
        job.pause()
        await trio.sleep(10)
        asked = len(bench.asked)
        for _ in range(5):
            job.resume()
            job.pause()
            await trio.sleep(1)
        assert len(bench.asked) == asked
        job.cancel()


async def test_a_job_may_be_paused_before_it_has_begun(autojump_clock):
    async with bench_of() as bench:
        job = bench.job(0, SETTLED)
        assert job.snapshot().state is JobState.PLANNING
        job.pause()
        await trio.sleep(10)
        assert bench.asked == []
        assert job.snapshot().total == SETTLED
        job.resume()
        assert (await job.wait()).state is JobState.DONE


async def test_a_job_that_has_ended_stays_as_it_is(autojump_clock):
    async with bench_of() as bench:
        job = bench.job(0, 600)
        report = await job.wait()
        await trio.sleep(5)
        for verb in (job.pause, job.resume, job.cancel):
            verb()
            assert await job.wait() == report
            assert job.snapshot().elapsed_s == report.elapsed_s


async def test_a_job_that_is_cancelled_says_what_it_had(autojump_clock):
    async with bench_of(at_once=3) as bench:
        job = bench.job(0, SETTLED, series_of(*MARKETS))
        await trio.sleep(0.1)
        job.cancel()
        report = await job.wait()
        assert report.state is JobState.CANCELLED
        assert report.elapsed_s == pytest.approx(0.1)
        assert bench.backfill.snapshots() == ()
        asked = len(bench.asked)
        await trio.sleep(100)
        assert len(bench.asked) == asked
        for part in report.parts:
            assert (await bench.stored(part.market)).length == part.done * 60_000
            assert 0 < part.done < SETTLED


@pytest.mark.parametrize("when", ["before it has begun", "paused", "waiting for the database"])
async def test_a_job_may_be_cancelled(when: str, autojump_clock):
    async with bench_of(kept_rows=100, at_once=2) as bench:
        refuses = Refusing(bench) if when == "waiting for the database" else None
        job = bench.job(0, SETTLED)
        if when != "before it has begun":
            await trio.sleep(0.03)
        if when == "paused":
            job.pause()
        if refuses is not None:
            await trio.sleep(50)
        job.cancel()
        # What is kept is given as long as leaving would take.
        with trio.fail_after(Collecting().leave_s + 0.1):
            assert (await job.wait()).state is JobState.CANCELLED
        if refuses is not None:
            refuses.stop()
        assert (await bench.stored()).length == job.snapshot().done * 60_000


async def test_all_that_a_cancelled_job_has_fetched_is_stored_when_that_is_told(autojump_clock):
    """The last rows too, which were still waiting for company."""
    async with bench_of(at_once=1) as bench:
        job = bench.job(0, 30, series_of(*MARKETS))
        await trio.sleep(0.05)
        job.cancel()
        report = await job.wait()
        assert [part.bars for part in report.parts] == [30, 30, 0]
        for part in report.parts:
            assert bench.store.coverage(part.market, M1, *EVER).length == part.done * 60_000


async def test_all_that_a_cancelled_job_has_fetched_is_stored_though_the_pipeline_is_left_too(autojump_clock):
    with opened(":memory:") as store:
        close, store.close = store.close, lambda: None  # type: ignore[method-assign]
        seen: list[tuple[int, int]] = []

        async def wait(job: Job) -> None:
            parts = (await job.wait()).parts
            seen.extend((part.done * 60_000, store.coverage(part.market, M1, *EVER).length) for part in parts)

        async def slowly(call: Callable[..., Any], *args: Any) -> Any:
            await trio.sleep(0.5)
            return call(*args)

        async with trio.open_nursery() as beside, bench_of(at_once=1, store=store) as bench:
            bench.archive.writer._run = slowly
            job = bench.job(0, 30, series_of(*MARKETS))
            beside.start_soon(wait, job)
            await trio.sleep(0.05)
            job.cancel()
        assert seen == [(30 * 60_000,) * 2, (30 * 60_000,) * 2, (0, 0)]
        store.close = close  # type: ignore[method-assign]


@attrs.define(eq=False)
class DoAt(trio.abc.Instrument):
    """Calls ``act`` the moment any task of a job waits for the ``step``-th time."""

    step: int
    act: Callable[[], Any] = lambda: None
    steps: int = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name.startswith("backfill"):
            self.steps += 1
            if self.steps == self.step:
                self.act()


def at_every_step(main: Callable[[DoAt], Any], least: int, every: int = 1) -> None:
    """Run ``main`` with something to be done at the first step of a job, the second, and so on to its last."""

    async def once(step: int) -> bool:
        at = DoAt(step)
        trio.lowlevel.add_instrument(at)
        await main(at)
        trio.lowlevel.remove_instrument(at)
        return at.steps >= step

    step = 1
    while trio.run(once, step, clock=MockClock(autojump_threshold=0)):
        step += every
    assert step >= least


THIN = Market([*range(0, 900, 3), *range(900, 1500)])


@pytest.mark.slow
def test_a_job_may_be_paused_and_resumed_at_any_instant():
    async def main(at: DoAt) -> None:
        async with bench_of(Market(THIN.traded), at_once=3) as bench:
            job = bench.job(100, 1500, series_of(MARKET, "KRW-ETH"))
            asked: list[int] = []

            def pause() -> None:
                job.pause()
                asked.append(len(bench.asked))

            at.act = pause
            with trio.move_on_after(60):
                await job.wait()
            if asked and not job.is_over:
                # Those that were on their way to the exchange, each with what may have to confirm it.
                assert len(bench.asked) <= asked[0] + 2 * 3
                assert job.snapshot().state is JobState.PAUSED
                job.resume()
            assert (await job.wait()).state is JobState.DONE
            assert len(bench.asked) == len(set(bench.asked))
            for market in (MARKET, "KRW-ETH"):
                await whole(bench, 100, 1500, market)

    at_every_step(main, least=40)


@pytest.mark.slow
def test_a_job_may_be_cancelled_at_any_instant_and_the_same_one_continues():
    async def main(at: DoAt) -> None:
        async with bench_of(Market(THIN.traded), at_once=3) as bench:
            job = bench.job(100, 1500, series_of(MARKET, "KRW-ETH"))
            at.act = job.cancel
            report = await job.wait()
            stored = {market: bench.store.coverage(market, M1, *EVER) for market in (MARKET, "KRW-ETH")}
            for part in report.parts:
                assert slots_missing_of(stored[part.market]) == part.slots - part.done or not part.slots
            before = len(bench.asked)
            again = bench.job(100, 1500, series_of(MARKET, "KRW-ETH"))
            assert (await again.wait()).state is JobState.DONE
            for request in bench.asked[before:]:
                assert request.to_ms - 1 not in stored[request.market]
            for market in (MARKET, "KRW-ETH"):
                await whole(bench, 100, 1500, market)
            assert bench.store.failures(MARKET, M1) == ()

    at_every_step(main, least=40)


def slots_missing_of(stored: Any) -> int:
    return (spans((100, 1500)) - stored).length // 60_000


@pytest.mark.slow
def test_the_pipeline_may_be_left_at_any_instant_of_a_job():
    """Whoever waits is told; what was fetched is stored; nothing is left over."""

    async def main(at: DoAt) -> None:
        with opened(":memory:") as store:
            store_close, store.close = store.close, lambda: None  # type: ignore[method-assign]
            left = trio.Event()
            told: list[type[BaseException]] = []
            with trio.CancelScope() as scope:
                async with (
                    bench_of(Market(THIN.traded), at_once=3, store=store) as bench,
                    trio.open_nursery() as nursery,
                ):
                    job = bench.job(100, 1500)
                    at.act = lambda: (scope.cancel(), left.set())

                    async def wait() -> None:
                        with trio.CancelScope(shield=True):
                            try:
                                await job.wait()
                            except PipelineClosed as error:
                                told.append(type(error))

                    nursery.start_soon(wait)
            assert job.is_over
            assert told == ([PipelineClosed] if left.is_set() and job.snapshot().state is not JobState.DONE else [])
            done = job.snapshot().done
            assert store.coverage(MARKET, M1, *EVER).clip(opens(100), opens(1500)).length == done * 60_000
            assert store.integrity() == ()
            store.close = store_close  # type: ignore[method-assign]

    at_every_step(main, least=25)


async def test_after_the_pipeline_was_left_no_job_begins(autojump_clock):
    async with bench_of() as bench:
        job = bench.job(0, SETTLED)
        await trio.sleep(0.03)
    for _ in range(2):
        with pytest.raises(PipelineClosed):
            await job.wait()
    with pytest.raises(PipelineClosed):
        bench.job(0, SETTLED)


# -- progress -----------------------------------------------------------------------------------------------------


async def watched(job: Job, every_s: float) -> list[Progress]:
    return [progress async for progress in job.progress(every_s=every_s)]


async def test_progress_is_told_until_the_end(autojump_clock):
    async with bench_of(at_once=1) as bench:
        seen = await watched(bench.job(0, SETTLED, series_of(*MARKETS)), every_s=0.05)
        first, *middle, last = seen
        assert (first.state, first.total, first.eta_s) == (JobState.PLANNING, 0, None)
        assert {progress.state for progress in middle} == {JobState.RUNNING}
        assert {progress.total for progress in middle} == {3 * SETTLED}
        assert (last.state, last.done, last.share, last.eta_s) == (JobState.DONE, 3 * SETTLED, 1.0, 0.0)
        assert last.bars == 3 * SETTLED
        assert last.pages == 45
        assert {progress.current for progress in middle[1:]} == {*MARKETS}
        for before, after in pairwise(seen[1:]):
            assert before.done <= after.done
            assert before.bars <= after.bars
            assert before.pages <= after.pages
            assert before.elapsed_s < after.elapsed_s or after is last
        # Each 0.05 s: it is not told more often than that.
        assert len(seen) <= 45 * 0.02 / 0.05 + 3
        # After its end it is told once.
        assert await watched(bench.job(0, 1), every_s=1)


async def test_the_time_that_is_left_settles(autojump_clock):
    async with bench_of(at_once=1) as bench:
        job = bench.job(0, SETTLED, series_of(*(f"KRW-A{number}" for number in range(12))))
        seen = await watched(job, every_s=0.1)
        elapsed_s = seen[-1].elapsed_s
        known = [progress for progress in seen[:-1] if progress.eta_s is not None]
        assert len(known) > len(seen) * 0.9
        for progress in known:
            left_s = elapsed_s - progress.elapsed_s
            assert progress.eta_s == pytest.approx(left_s, rel=0.1, abs=0.1)
            assert progress.requests_per_s == pytest.approx(50, rel=0.1)
            assert progress.bars_per_s == pytest.approx(50 * 200, rel=0.1)


async def test_a_pause_is_no_slowness(autojump_clock):
    async with bench_of(at_once=1) as bench:
        job = bench.job(0, SETTLED, series_of(*(f"KRW-A{number}" for number in range(12))))
        await trio.sleep(1)
        before = job.snapshot()
        job.pause()
        await trio.sleep(3600)
        assert job.snapshot().eta_s is None
        job.resume()
        await trio.sleep(0.1)
        after = job.snapshot()
        assert after.requests_per_s == pytest.approx(before.requests_per_s, rel=0.1)
        assert after.eta_s == pytest.approx(before.eta_s - 0.1, rel=0.1)
        assert after.elapsed_s > 3600


async def test_jobs_that_have_not_ended_are_told_of(autojump_clock):
    async with bench_of() as bench:
        jobs = [bench.job(0, end) for end in (300, 3000)]
        assert len(bench.backfill.snapshots()) == 2
        await jobs[0].wait()
        assert [progress.total for progress in bench.backfill.snapshots()] == [3000]
        await jobs[1].wait()
        assert bench.backfill.snapshots() == ()


# -- whatever happens ---------------------------------------------------------------------------------------------

ERRORS = st.sampled_from([None, DOWN, BadPayload("nonsense"), RateLimited("429", retry_after_s=1.0)])


@settings(max_examples=max(50, settings.default.max_examples // 2))
@given(
    traded=st.lists(st.sampled_from([1, 2, 7, 50, 1000]), min_size=30, max_size=30),
    jobs=st.lists(st.tuples(st.integers(0, 29), st.integers(1, 30), st.floats(0, 1)), min_size=1, max_size=4),
    answers=st.lists(ERRORS, max_size=20),
    verbs=st.lists(
        st.tuples(st.floats(0, 2), st.integers(0, 3), st.sampled_from(["pause", "resume", "cancel"])), max_size=5
    ),
    at_once=st.integers(1, 6),
)
def test_whatever_happens_to_some_jobs_what_is_stored_is_true_and_what_they_say_is_so(
    traded: list[int], jobs: list[Any], answers: list[ExchangeError | None], verbs: list[Any], at_once: int
):
    async def main() -> None:
        slots = [slot for at, step in enumerate(traded) for slot in range(100 * at, 100 * (at + 1), step)]
        market = Market(slots, ill=lambda request: next(replies, None))
        replies = (answer and answer.copy() for answer in answers)
        async with bench_of(market, at_once=at_once) as bench:
            begun: list[tuple[Job, tuple[int, int]]] = []

            async def begin(first: int, length: int, after_s: float) -> None:
                await trio.sleep(after_s)
                wanted = (100 * first, min(SETTLED, 100 * (first + length)))
                begun.append((bench.job(*wanted), wanted))

            async def act(after_s: float, number: int, verb: str) -> None:
                await trio.sleep(after_s)
                if number < len(begun):
                    getattr(begun[number][0], verb)()

            async with trio.open_nursery() as nursery:
                for one in jobs:
                    nursery.start_soon(begin, *one)
                for other in verbs:
                    nursery.start_soon(act, *other)
            for job, wanted in begun:
                job.resume()
                report = await job.wait()
                (part,) = report.parts
                assert report.state in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
                if report.state is JobState.DONE:
                    assert part.is_whole
                    assert part.error is None
                    assert not spans(wanted) - await bench.stored()
            stored = await bench.stored()
            assert bench.slots_stored() == [slot for slot in slots if opens(slot) in stored]
            assert bench.store.integrity() == ()
            assert bench.store.amendments(MARKET, M1) == ()
            assert bench.backfill.snapshots() == ()
            assert bench.archive._followers == {}

    trio.run(main, clock=MockClock(autojump_threshold=0))


# -- a file that is moved or deleted ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kept_rows", [300, 100_000])
async def test_a_job_ends_when_its_file_is_gone_and_says_so(kept_rows: int, tmp_path: Path, autojump_clock):
    """Whether it waits for room at that moment, or for the last bars to be stored."""
    path = tmp_path / "history.db"
    store = opened(path)
    async with bench_of(Market(delay_s=lambda request: 0.5), store=store, kept_rows=kept_rows, at_once=3) as bench:
        job = bench.job(0, SETTLED)
        await trio.sleep(1.2)
        path.unlink()
        with pytest.raises(StoreError, match="has been moved or deleted"), trio.fail_after(300):
            await job.wait()
        assert job.snapshot().state is JobState.FAILED
        again = bench.job(0, SETTLED)
        again.cancel()
        assert (await again.wait()).state is JobState.CANCELLED
