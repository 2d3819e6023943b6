"""`get_candle` over pages: the bars meant, closed ones only, gaps filled."""

from __future__ import annotations

import itertools
import math

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from paper_exchange import (
    GRACE_MS,
    NOW_MS,
    PAGE,
    CandleExchange,
    Drive,
    Story,
    bar,
    final,
    history,
    moments,
    slots_since_1970,
    small_pages,
    stories,
)

from marketpipe.core import bars as bars_module
from marketpipe.core import timeframes
from marketpipe.core.bars import BarsWanted, bars_walk
from marketpipe.core.ranges import BarRange
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleState

M1 = Timeframe.M1
RUNNING_MS = timeframes.floor(M1, NOW_MS)
MINUTE_MS = 60_000


def run(drive: Drive, wanted: BarsWanted, now_ms: int = NOW_MS) -> tuple[Candle, ...]:
    return drive.run(bars_walk("KRW-BTC", wanted, now_ms))


def wanted_of(timeframe: Timeframe, count: int | None, start_ms: int | None, end_ms: int | None, **how: bool):
    return BarsWanted(timeframe, BarRange(count, start_ms, end_ms), **how)


@st.composite
def questions(draw: st.DrawFn, story: Story, *, fill: bool) -> BarsWanted:
    """Every combination that `bar_range` lets through."""
    count, start_ms, end_ms = draw(st.integers(1, 80)), None, None
    bounds = draw(st.sampled_from(["count", "count+end", "count+start", "start", "start+end"]))
    if "start" in bounds:
        start_ms = draw(moments(story.timeframe))
    if "end" in bounds:
        end_ms = draw(moments(story.timeframe))
    if start_ms is not None and end_ms is not None:
        start_ms, end_ms = min(start_ms, end_ms), max(start_ms, end_ms) + 1
    if "count" not in bounds:
        count = None
    return wanted_of(story.timeframe, count, start_ms, end_ms, closed_only=draw(st.booleans()), fill=fill)


def known(story: Story, wanted: BarsWanted, end_ms: int | None) -> tuple[Candle, ...]:
    """The bars before ``end_ms``, closed ones only if so wanted."""
    bars = [candle for candle in story.bars if end_ms is None or candle.open_ms < end_ms]
    if wanted.closed_only:
        bars = [candle for candle in bars if candle.state is CandleState.FINAL]
    return tuple(bars)


def naive_traded(story: Story, wanted: BarsWanted) -> tuple[Candle, ...]:
    asked = wanted.range
    bars = [c for c in known(story, wanted, asked.end_ms) if asked.start_ms is None or c.open_ms >= asked.start_ms]
    if asked.count is None:
        return tuple(bars)
    return tuple(bars[: asked.count] if asked.start_ms is not None else bars[-asked.count :])


def naive_filled(story: Story, wanted: BarsWanted) -> tuple[Candle, ...]:
    asked, timeframe = wanted.range, story.timeframe
    if not story.bars:
        return ()
    start_ms, end_ms = asked.start_ms, asked.end_ms
    if asked.count is not None and start_ms is not None:
        start_ms = max(timeframes.ceil(timeframe, start_ms), story.bars[0].open_ms)
        if start_ms > story.now_ms:
            return ()
        slots = min(asked.count, timeframes.bars_between(timeframe, start_ms, story.now_ms + 1))
        end_ms = timeframes.shift(timeframe, start_ms, slots)
    series = every_slot(story, known(story, wanted, end_ms), end_ms)
    series = [candle for candle in series if start_ms is None or candle.open_ms >= start_ms]
    return tuple(series if asked.count is None or asked.start_ms is not None else series[-asked.count :])


def every_slot(story: Story, bars: tuple[Candle, ...], end_ms: int | None) -> list[Candle]:
    """Slot by slot from the first bar ever; a slot without a bar is filled once it is over, or a later bar is there."""
    timeframe, by_open = story.timeframe, {candle.open_ms: candle for candle in bars}
    series: list[Candle] = []
    if not bars:
        return series
    open_ms = bars[0].open_ms
    while open_ms <= story.now_ms and (end_ms is None or open_ms < end_ms):
        next_ms = timeframes.next_open(timeframe, open_ms)
        over = next_ms + GRACE_MS <= story.now_ms
        if open_ms in by_open:
            series.append(by_open[open_ms])
        elif over or open_ms < bars[-1].open_ms:
            flat = dict.fromkeys(("open", "high", "low"), series[-1].close)
            none = dict.fromkeys(("volume", "quote_volume"), 0)
            series.append(
                attrs.evolve(series[-1], open_ms=open_ms, filled=True, state=CandleState.FINAL, **flat, **none)
            )
        open_ms = next_ms
    return series


@given(stories(now_ms=None), st.data())
def test_every_question_is_answered_as_from_a_list(story: Story, data: st.DataObject):
    wanted = data.draw(questions(story, fill=False))
    drive = Drive(CandleExchange(story.bars, PAGE).page)
    with small_pages():
        assert run(drive, wanted, story.now_ms) == naive_traded(story, wanted)
    assert all(request.to_ms is None or request.to_ms <= story.now_ms for request in drive.requests)


@given(stories(now_ms=None), st.data())
def test_every_question_with_gaps_filled_is_answered_as_from_a_filled_list(story: Story, data: st.DataObject):
    wanted = data.draw(questions(story, fill=True))
    drive = Drive(CandleExchange(story.bars, PAGE).page)
    with small_pages():
        filled = run(drive, wanted, story.now_ms)
    assert filled == naive_filled(story, wanted)
    assert all(before.close_ms == after.open_ms for before, after in itertools.pairwise(filled))
    assert all(request.to_ms is None or request.to_ms <= story.now_ms for request in drive.requests)


@given(stories(now_ms=None), st.integers(1, 80), st.none() | st.integers(0, 100), st.booleans())
@example(Story(Timeframe.S1, history(Timeframe.S1, [*range(28), 29, 30])), 31, None, False)
def test_the_newest_slots_are_as_many_as_wanted_and_cost_a_request_per_page(
    story: Story, count: int, ago: int | None, closed_only: bool
):
    timeframe = story.timeframe
    ago = None if ago is None else min(ago, slots_since_1970(timeframe) - 1)
    end_ms = None if ago is None else timeframes.shift(timeframe, timeframes.floor(timeframe, NOW_MS), -ago)
    wanted = wanted_of(timeframe, count, None, end_ms, closed_only=closed_only, fill=True)
    drive = Drive(CandleExchange(story.bars, PAGE).page)
    with small_pages():
        filled = run(drive, wanted, story.now_ms)
    # The slots wanted, the running one, and those of the grace: two for bars of a second.
    assert len(drive.requests) <= math.ceil((count + 3) / PAGE)
    over_ms = timeframes.floor(timeframe, story.now_ms - GRACE_MS)
    last_ms = over_ms if end_ms is None else min(over_ms, end_ms)
    first_ms = story.bars[0].open_ms if story.bars else story.now_ms
    assert len(filled) >= min(count, timeframes.bars_between(timeframe, first_ms, last_ms))
    assert len(filled) <= count


# -- by example -------------------------------------------------------------------------------------------------


def test_count_closed_bars_come_back_although_the_newest_is_running():
    drive = Drive(CandleExchange(history(M1, range(100))).page)
    bars = run(drive, wanted_of(M1, 3, None, None, closed_only=True))
    assert [candle.open_ms for candle in bars] == [RUNNING_MS - i * MINUTE_MS for i in (3, 2, 1)]
    assert {candle.state for candle in bars} == {CandleState.FINAL}
    assert [request.count for request in drive.requests] == [4]


@pytest.mark.parametrize("into_ms", [0, 1_000, 1_999, 2_000, 30_000])
def test_the_slot_that_has_just_ended_is_filled_only_after_the_grace(into_ms: int):
    now_ms = RUNNING_MS + into_ms
    drive = Drive(CandleExchange(history(M1, range(2, 9), now_ms)).page)
    filled = run(drive, wanted_of(M1, 3, None, None, fill=True), now_ms)
    newest_ago = 1 if into_ms >= 2_000 else 2
    assert [candle.open_ms for candle in filled] == [RUNNING_MS - (newest_ago + i) * MINUTE_MS for i in (2, 1, 0)]
    assert [candle.filled for candle in filled] == [False, False, into_ms >= 2_000]


def test_the_running_slot_is_never_filled_and_its_bar_is_shown_as_running():
    quiet = Drive(CandleExchange(history(M1, [1, 2])).page)
    assert run(quiet, wanted_of(M1, 5, None, None, fill=True))[-1].open_ms == RUNNING_MS - MINUTE_MS
    lively = Drive(CandleExchange(history(M1, [0, 1, 2])).page)
    assert run(lively, wanted_of(M1, 5, None, None, fill=True))[-1].state is CandleState.RUNNING


def test_no_flat_bar_stands_in_for_a_bar_that_the_exchange_calls_running_while_our_clock_is_ahead():
    bars = history(M1, range(5))
    drive = Drive(CandleExchange(bars).page)
    filled = run(drive, wanted_of(M1, 4, None, None, closed_only=True, fill=True), NOW_MS + 5 * MINUTE_MS)
    assert not any(candle.filled for candle in filled)
    assert filled == bars[:4]


def test_the_close_before_the_range_is_carried_into_it_from_the_page_that_was_read_anyway():
    old = bar(M1, RUNNING_MS - 100 * MINUTE_MS)
    drive = Drive(CandleExchange((old,)).page)
    start_ms = RUNNING_MS - 5 * MINUTE_MS
    filled = run(drive, wanted_of(M1, None, start_ms, RUNNING_MS, fill=True))
    assert [candle.open_ms for candle in filled] == [start_ms + i * MINUTE_MS for i in range(5)]
    assert {(candle.close, candle.filled) for candle in filled} == {(old.close, True)}
    assert len(drive.requests) == 1


def test_nothing_is_filled_before_the_first_bar_ever():
    first = bar(M1, RUNNING_MS - 3 * MINUTE_MS)
    for asked in [(10, None, None), (None, RUNNING_MS - 10 * MINUTE_MS, None), (10, RUNNING_MS - 10 * MINUTE_MS, None)]:
        filled = run(Drive(CandleExchange((first,)).page), wanted_of(M1, *asked, fill=True))
        assert [candle.open_ms for candle in filled] == [RUNNING_MS - i * MINUTE_MS for i in (3, 2, 1)]


def test_count_bars_from_a_start_are_closed_ones_only_if_so_wanted():
    bars = history(M1, range(5))
    for closed_only, meant in [(False, bars[1:]), (True, bars[1:-1])]:
        wanted = wanted_of(M1, 10, bars[1].open_ms, None, closed_only=closed_only)
        assert run(Drive(CandleExchange(bars).page), wanted) == meant


@pytest.mark.parametrize("slots_before", [0, 1, 5, 9, 10, 11])
def test_slots_before_the_first_bar_are_not_counted(slots_before: int):
    listed = history(M1, range(100))
    start_ms = listed[0].open_ms - slots_before * MINUTE_MS
    drive = Drive(CandleExchange(listed).page)
    assert run(drive, wanted_of(M1, 10, start_ms, None, fill=True)) == listed[:10]


def test_the_count_from_a_start_begins_with_the_first_bar_of_a_market_listed_later():
    listed = history(M1, range(0, 1000, 3))
    drive = Drive(CandleExchange(listed).page)
    filled = run(drive, wanted_of(M1, 30, RUNNING_MS - 100_000 * MINUTE_MS, None, fill=True))
    assert [candle.open_ms for candle in filled] == [listed[0].open_ms + i * MINUTE_MS for i in range(30)]


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("closed_only", [False, True])
@pytest.mark.parametrize("asked", [(10, None, None), (10, NOW_MS - 10**9, None), (None, NOW_MS - 10**9, NOW_MS)])
def test_a_market_without_any_bar_has_an_empty_answer(asked: tuple[int | None, ...], closed_only: bool, fill: bool):
    drive = Drive(CandleExchange(()).page)
    assert run(drive, wanted_of(M1, *asked, closed_only=closed_only, fill=fill)) == ()


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("timeframe", [Timeframe.S1, Timeframe.D1, Timeframe.W1, Timeframe.MONTH, Timeframe.Y1])
@pytest.mark.parametrize("bound", ["none", "start", "end", "far end"])
def test_a_million_bars_of_any_timeframe_are_what_there_is(timeframe: Timeframe, bound: str, fill: bool):
    bars = history(timeframe, range(1, 40))
    start_ms = bars[0].open_ms if bound == "start" else None
    end_ms = {"end": NOW_MS, "far end": 253_370_764_799_999}.get(bound)  # 9998-12-31
    drive = Drive(CandleExchange(bars).page)
    assert run(drive, wanted_of(timeframe, 10**6, start_ms, end_ms, fill=fill)) == bars


@pytest.mark.parametrize("timeframe", Timeframe)
@pytest.mark.parametrize("fill", [False, True])
def test_a_range_in_the_future_is_empty(timeframe: Timeframe, fill: bool):
    bars = history(timeframe, range(1, 40))
    far_ms = 253_370_764_799_999  # 9998-12-31
    for asked in [(None, far_ms - 10**10, far_ms), (5, far_ms, None), (None, far_ms, None)]:
        drive = Drive(CandleExchange(bars).page)
        assert run(drive, wanted_of(timeframe, *asked, fill=fill)) == ()
        assert len(drive.requests) <= 1


def test_an_end_in_the_future_is_never_sent_and_means_now():
    bars = history(M1, range(40))
    for fill in (False, True):
        drive = Drive(CandleExchange(bars).page)
        assert run(drive, wanted_of(M1, 5, None, NOW_MS + 10**8, fill=fill)) == bars[-5:]
        assert [request.to_ms for request in drive.requests] == [None]


def test_bars_at_and_after_the_end_stay_out_while_our_clock_is_behind():
    bars = history(M1, range(40))
    now_ms = NOW_MS - 3 * MINUTE_MS
    for fill in (False, True):
        drive = Drive(CandleExchange(bars).page)
        answer = run(drive, wanted_of(M1, None, bars[30].open_ms, RUNNING_MS - MINUTE_MS, fill=fill), now_ms)
        assert answer == tuple(map(final, bars[30:-2]))


@pytest.mark.parametrize(("closed_only", "requests"), [(False, 1), (True, 2)])
def test_the_default_count_of_a_busy_market_costs_one_request_filled_or_not(closed_only: bool, requests: int):
    for fill in (False, True):
        drive = Drive(CandleExchange(history(M1, range(1000))).page)
        assert len(run(drive, wanted_of(M1, 200, None, None, closed_only=closed_only, fill=fill))) == 200
        assert len(drive.requests) == requests


@pytest.mark.parametrize("count", [200, 1000])
def test_a_thin_market_costs_one_request_where_its_page_holds_all_slots(count: int):
    drive = Drive(CandleExchange(history(M1, range(7, 5000, 30))).page)
    assert len(run(drive, wanted_of(M1, count, None, None, fill=True))) == count
    assert len(drive.requests) == 1


def test_the_grace_is_the_one_after_which_the_wire_calls_a_bar_final():
    from marketpipe.upbit.wire_values import FINAL_GRACE_MS

    assert bars_module.GRACE_MS == FINAL_GRACE_MS == GRACE_MS


# -- the exchange's clock is known to a second only --------------------------------------------------------------


def listed(drive_of: int) -> tuple[Drive, int]:
    """A market whose newest of so many bars has just begun, and the moment before that."""
    return Drive(CandleExchange(history(M1, range(drive_of))).page), RUNNING_MS - 500


@pytest.mark.parametrize("fill", [False, True])
def test_a_bar_that_opens_at_the_end_stays_out_though_the_end_has_passed_at_the_exchange_already(fill: bool):
    drive, now_ms = listed(1_000)
    bars = run(drive, wanted_of(M1, 3, None, RUNNING_MS, fill=fill), now_ms)
    assert [bar.open_ms for bar in bars] == [RUNNING_MS - ago * MINUTE_MS for ago in (3, 2, 1)]
    assert len(drive.requests) == 2


@pytest.mark.parametrize("fill", [False, True])
def test_a_range_is_not_read_beyond_its_start_however_long_the_history(fill: bool):
    for end_ms in (None, RUNNING_MS, RUNNING_MS - 5 * MINUTE_MS):
        drive, now_ms = listed(5_000)
        run(drive, wanted_of(M1, None, RUNNING_MS - 250 * MINUTE_MS, end_ms, fill=fill), now_ms)
        assert len(drive.requests) <= 4
        drive, now_ms = listed(5_000)
        run(drive, wanted_of(M1, 250, RUNNING_MS - 250 * MINUTE_MS, None, fill=fill), now_ms)
        assert len(drive.requests) <= 4


def test_what_was_traded_in_the_slot_of_this_very_moment_is_counted_from_a_start():
    drive = Drive(CandleExchange(history(M1, range(10))).page)
    (bar,) = run(drive, wanted_of(M1, 1, RUNNING_MS, None, fill=True), RUNNING_MS)
    assert bar.open_ms == RUNNING_MS
