"""Clocks that are wrong: nothing that has not happened is proven or called FINAL, and all that is told is right.

The simulator's candles are the truth; its ``Date`` is what is wrong, or this machine's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import trio
from rig import Rig, open_rig

from marketpipe import Candle, CandleState, JobState, Timeframe
from marketpipe.clock import TrioClock
from marketpipe.core import timeframes
from marketpipe.core.bars import GRACE_MS
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.spans import SpanSet
from marketpipe.sim import ClockSkewFault

M1 = Timeframe.M1
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
UNIT = Decimal("0.00000001")
AHEAD_MS = 10 * MINUTE_MS
BUSY = "KRW-BTC"


def this_machine_s_clock_goes_forward(rig: Rig) -> None:
    later = TrioClock(rig.clock.epoch_ms + AHEAD_MS)
    rig.exchange.rest._clock = rig.market._batcher._clock = later


async def one_date_is_wrong(rig: Rig) -> None:
    rig.sim.add_fault(ClockSkewFault(skew_ms=AHEAD_MS))
    await rig.market.get_ticker(BUSY)
    rig.sim.clear_faults()


async def dates_are_wrong_for_half_a_minute(rig: Rig) -> None:
    rig.sim.add_fault(ClockSkewFault(skew_ms=AHEAD_MS, for_s=30))
    for _ in range(8):
        await rig.market.get_ticker(BUSY, max_age_s=0)
        await trio.sleep(1)


async def the_machine_s_clock_steps(rig: Rig) -> None:
    this_machine_s_clock_goes_forward(rig)
    await trio.lowlevel.checkpoint()


WRONGS = [one_date_is_wrong, dates_are_wrong_for_half_a_minute, the_machine_s_clock_steps]


def settled_ms(rig: Rig) -> int:
    return timeframes.floor(M1, rig.clock.now_ms() - GRACE_MS)


async def proven(rig: Rig) -> SpanSet:
    await trio.sleep(1.1)  # until it is stored
    assert rig.store is not None
    found = rig.store.coverage(BUSY, M1, 0, 1 << 60)
    for bar in rig.store.bars(BUSY, M1, 0, 1 << 60):
        assert [(bar.open_ms, bar.volume)] == truth(rig, bar.open_ms, bar.close_ms)
        assert bar.open_ms in found
    return found


def truth(rig: Rig, start_ms: int, end_ms: int) -> list[tuple[int, Decimal]]:
    bars = rig.sim.world.candles(BUSY, M1, start_ms, end_ms, rig.clock.now_ms())
    return [(bar.open_ms, bar.volume * UNIT) for bar in bars]


def check_told(rig: Rig, bars: Any, start_ms: int) -> None:
    """All bars there are, up to the running one, and none called over that is not."""
    now_ms = rig.clock.now_ms()
    assert [(bar.open_ms, bar.volume) for bar in bars] == truth(rig, start_ms, now_ms)
    assert bars[-1].open_ms == timeframes.floor(M1, now_ms)
    check_states(rig, bars)


def check_states(rig: Rig, bars: Any) -> None:
    early: list[Candle] = [bar for bar in bars if bar.close_ms > rig.clock.now_ms()]
    assert all(bar.state is CandleState.RUNNING for bar in early)


@pytest.mark.parametrize("wrong", WRONGS)
async def test_a_job_proves_nothing_that_has_not_settled(wrong: Callable[[Rig], Any], autojump_clock):
    async with open_rig(store=":memory:", markets=5) as rig:
        await rig.market.get_market()
        await wrong(rig)
        start_ms = settled_ms(rig) - HOUR_MS
        report = await (await rig.market.start_backfill(BUSY, "1m", start=start_ms)).wait()
        assert report.state is JobState.DONE
        ((low_ms, top_ms),) = await proven(rig)
        assert (low_ms, top_ms <= settled_ms(rig)) == (start_ms, True)
        assert top_ms >= start_ms + HOUR_MS - MINUTE_MS


@pytest.mark.parametrize("wrong", WRONGS)
@pytest.mark.parametrize("store", [":memory:", None])
async def test_the_running_bar_is_told_as_such(wrong: Callable[[Rig], Any], store: str | None, autojump_clock):
    async with open_rig(store=store, markets=5) as rig:
        await rig.market.get_market()
        await wrong(rig)
        bars = await rig.market.get_candle(BUSY, count=5)
        check_told(rig, bars, bars[0].open_ms)
        bars = await rig.market.get_candle(BUSY, start=rig.clock.now_ms() - HOUR_MS)
        check_told(rig, bars, rig.clock.now_ms() - HOUR_MS)
        closed = await rig.market.get_candle(BUSY, start=rig.clock.now_ms() - HOUR_MS, closed_only=True)
        assert closed[-1].close_ms <= rig.clock.now_ms()
        if store is not None:
            assert [end_ms <= settled_ms(rig) for _, end_ms in await proven(rig)] == [True]


@pytest.mark.parametrize(
    "question",
    [
        {"count": 5},
        {"count": 250},
        {"start": -HOUR_MS},
        {"start": -4 * HOUR_MS},
        {"start": -HOUR_MS, "count": 100},
        {"start": -HOUR_MS, "end": HOUR_MS},
    ],
    ids=str,
)
@pytest.mark.parametrize("which", ["the time", "the page"])
@pytest.mark.parametrize("store", [":memory:", None])
async def test_an_answer_is_as_if_the_date_had_been_right(
    question: dict[str, int], which: str, store: str | None, autojump_clock
):
    """The very first ``Date``, or the one of the page itself, is ten minutes ahead."""
    async with open_rig(store=store, markets=5) as rig:
        now_ms = rig.clock.now_ms()
        options = {name: value if name == "count" else now_ms + value for name, value in question.items()}
        if which == "the page":
            await rig.market.get_market(max_age_s=0)
        rig.sim.add_fault(ClockSkewFault(skew_ms=AHEAD_MS))
        if which == "the time":
            await rig.market.get_market(max_age_s=0)
            rig.sim.clear_faults()
        bars = await rig.market.get_candle(BUSY, **options)
        check_told(rig, bars, options.get("start", bars[0].open_ms))
        assert len(bars) == question.get("count", len(bars)) or "start" in question
        if store is not None:
            assert all(end_ms <= settled_ms(rig) for _, end_ms in await proven(rig))


async def test_a_long_reading_ends_where_the_answers_say_that_it_must(autojump_clock):
    async with open_rig(store=":memory:", markets=5) as rig:
        rig.sim.add_fault(ClockSkewFault(skew_ms=AHEAD_MS))
        await rig.market.get_market()
        rig.sim.clear_faults()
        start_ms, top_ms = settled_ms(rig) - HOUR_MS, settled_ms(rig)
        opens = [bar.open_ms async for page in rig.market.iterate_candle(BUSY, "1m", start=start_ms) for bar in page]
        assert opens == [open_ms for open_ms, _ in truth(rig, start_ms, top_ms)]
        assert (await proven(rig)).clip(start_ms, 1 << 60) == SpanSet.of((start_ms, top_ms))


async def test_a_wrong_date_costs_nothing_once_the_right_ones_are_back(autojump_clock):
    async with open_rig(store=":memory:", markets=5) as rig:
        await rig.market.get_market()
        await dates_are_wrong_for_half_a_minute(rig)
        for _ in range(12):
            await trio.sleep(61)
            await rig.market.get_ticker(BUSY, max_age_s=0)
        asked = len(rig.exchange.of(CandlesRequest))
        start_ms = settled_ms(rig) - HOUR_MS
        await (await rig.market.start_backfill(BUSY, "1m", start=start_ms)).wait()
        assert await proven(rig) == SpanSet.of((start_ms, start_ms + HOUR_MS))
        assert len(rig.exchange.of(CandlesRequest)) == asked + 1


async def test_a_machine_that_slept_believes_the_exchange_again_though_it_asks_seldom(autojump_clock):
    """While it sleeps its monotonic clock stands still; to it the exchange has gone hours ahead."""
    async with open_rig(store=":memory:", markets=5) as rig:
        await rig.market.get_market()
        rig.sim.add_fault(ClockSkewFault(skew_ms=8 * HOUR_MS))
        for _ in range(4):
            await trio.sleep(900)
            await rig.market.get_ticker(BUSY, max_age_s=0)
        behind_ms = rig.clock.now_ms() + 8 * HOUR_MS - rig.market._batcher.exchange_now_ms()
        assert 0 <= behind_ms < 2_000
