"""Several who collect the same series at the same time: every page is asked for once, wherever their ranges end."""

from __future__ import annotations

import pytest
import trio
from rig import EPOCH_MS, Rig, open_rig

from marketpipe import JobState, Priority, Timeframe
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.spans import SpanSet
from marketpipe.sim import StatusFault

M1 = Timeframe.M1
MINUTE_MS, DAY_MS = 60_000, 86_400_000
BUSY = "KRW-BTC"
END_MS = EPOCH_MS - EPOCH_MS % DAY_MS
START_MS = END_MS - 4 * DAY_MS
PAGES = 29  # four days of minutes, 200 to a page


def asked(rig: Rig) -> list[CandlesRequest]:
    return rig.exchange.of(CandlesRequest)


async def job(rig: Rig, end_ms: int = END_MS, start_ms: int = START_MS, timeframe: str = "1m") -> None:
    report = await (await rig.market.start_backfill(BUSY, timeframe, start=start_ms, end=end_ms)).wait()
    assert report.state is JobState.DONE


async def candles(rig: Rig, end_ms: int) -> None:
    bars = await rig.market.get_candle(BUSY, start=START_MS, end=end_ms)
    assert len(bars) == (end_ms - START_MS) // MINUTE_MS


def check_stored(rig: Rig, end_ms: int = END_MS) -> None:
    assert rig.store is not None
    assert rig.store.coverage(BUSY, M1, START_MS, end_ms) == SpanSet.of((START_MS, end_ms))
    assert rig.store.integrity() == ()


def slow_spans(rig: Rig) -> SpanSet:
    assert rig.store is not None
    return rig.store.coverage(BUSY, M1, 0, END_MS)


@pytest.mark.parametrize("latency_s", [0.02, 0.5])
@pytest.mark.parametrize("after_s", [0.0, 0.25, 1.3])
@pytest.mark.parametrize("apart", [0, 1, 43, 100, 120, 200, -1, -30, -120])
async def test_two_jobs_whose_ranges_overlap_ask_once(apart: int, after_s: float, latency_s: float, autojump_clock):
    """The second one ends some minutes before the first, or after it, and begins a little later."""
    async with open_rig(store=":memory:", markets=40, latency_s=latency_s) as rig:
        end_ms = END_MS - apart * MINUTE_MS
        async with trio.open_nursery() as nursery:
            nursery.start_soon(job, rig)
            await trio.sleep(after_s)
            nursery.start_soon(job, rig, end_ms)
        check_stored(rig, end_ms=max(END_MS, end_ms))
        assert len(asked(rig)) <= PAGES + 1
        assert len(asked(rig)) == len(set(asked(rig)))


@pytest.mark.parametrize("latency_s", [0.02, 0.5])
@pytest.mark.parametrize("apart", [0, 1, 43, -1, -30])
async def test_a_job_and_a_reading_over_the_same_range_ask_once(apart: int, latency_s: float, autojump_clock):
    async with open_rig(store=":memory:", markets=40, latency_s=latency_s) as rig:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(job, rig)
            nursery.start_soon(candles, rig, END_MS - apart * MINUTE_MS)
        check_stored(rig)
        assert len(asked(rig)) <= PAGES + 2


async def test_many_at_once_ask_once(autojump_clock):
    async with open_rig(store=":memory:", markets=40) as rig:
        async with trio.open_nursery() as nursery:
            for apart in range(0, 210, 30):
                nursery.start_soon(job, rig, END_MS - apart * MINUTE_MS)
                nursery.start_soon(candles, rig, END_MS - apart * MINUTE_MS - 7 * MINUTE_MS)
        check_stored(rig)
        # Each of the seven readings, which are in more of a hurry, may ask for a page that is just being answered.
        assert len(asked(rig)) <= PAGES + 7


@pytest.mark.parametrize("latency_s", [0.02, 0.5])
async def test_where_hardly_anything_is_traded_two_ask_hardly_more_than_one(latency_s: float, autojump_clock):
    """Pages reach further there than can be foretold, so that claims are wide and answers end anywhere."""
    start_ms, counts = END_MS - 12 * 3_600_000, []
    for both in (False, True):
        async with open_rig(store=":memory:", markets=60, latency_s=latency_s) as rig:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(job, rig, END_MS, start_ms, "1s")
                if both:
                    nursery.start_soon(job, rig, END_MS - 43_000, start_ms, "1s")
            counts.append(len(asked(rig)))
    alone, together = counts
    assert alone > 20
    assert together <= alone * 1.2 + 1


async def test_who_waits_for_a_page_that_another_gives_up_asks_for_it_himself(autojump_clock):
    async with open_rig(store=":memory:", markets=40, latency_s=0.5) as rig:
        given_up = await rig.market.start_backfill(BUSY, "1m", start=START_MS, end=END_MS)
        async with trio.open_nursery() as nursery:
            await trio.sleep(0.2)
            nursery.start_soon(job, rig, END_MS - 43 * MINUTE_MS)
            await trio.sleep(0.2)
            given_up.cancel()
        check_stored(rig, end_ms=END_MS - 43 * MINUTE_MS)
        assert len(asked(rig)) <= PAGES + 1


async def test_who_waits_for_a_page_that_fails_another_asks_for_it_himself(autojump_clock):
    async with open_rig(store=":memory:", markets=40, latency_s=0.1) as rig:
        rig.sim.add_fault(StatusFault(status=503, groups=("candles",), for_s=4))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(job, rig)
            nursery.start_soon(job, rig, END_MS - 43 * MINUTE_MS)
        check_stored(rig)


async def test_who_is_in_more_of_a_hurry_does_not_wait_for_who_is_not(autojump_clock):
    """A job's page that waits for its turn goes first once a reading needs it."""
    async with open_rig(store=":memory:", markets=40) as rig:
        slow = await rig.market.start_backfill(BUSY, "1m", start=END_MS - 365 * DAY_MS, end=END_MS)
        await trio.sleep(5)
        (newest_ms, _), *_ = slow_spans(rig)
        began_s = trio.current_time()
        bars = await rig.market.get_candle(
            BUSY, start=newest_ms - 2_000 * MINUTE_MS, end=newest_ms, priority=Priority.HIGH
        )
        assert len(bars) == 2_000
        assert trio.current_time() - began_s <= 2.5  # ten pages at ten a second, and who was there before
        slow.cancel()
