"""Walks over pages give what a list would, and cost few requests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import attrs
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from paper_exchange import (
    DAY_MS,
    NOW_MS,
    PAGE,
    CandleExchange,
    Deal,
    Drive,
    Story,
    TradeExchange,
    bar,
    history,
    moments,
    slots_since_1970,
    small_pages,
    stories,
    trade,
)

from marketpipe.core import timeframes
from marketpipe.core.paging import candle_walk, candles_back, forward_walk, trade_walk
from marketpipe.core.requests import CandlesRequest, TradesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import BadPayload
from marketpipe.models import Candle, Trade

M1 = Timeframe.M1
RUNNING_MS = timeframes.floor(M1, NOW_MS)
MARKET = "KRW-BTC"


def naive(
    bars: tuple[Candle, ...], count: int | None = None, start_ms: int | None = None, end_ms: int | None = None
) -> tuple[Candle, ...]:
    meant = [
        candle
        for candle in bars
        if (start_ms is None or candle.open_ms >= start_ms) and (end_ms is None or candle.open_ms < end_ms)
    ]
    return tuple(meant if count is None else meant[-count:])


def slots(timeframe: Timeframe, start_ms: int, end_ms: int | None) -> int:
    after_ms = timeframes.next_open(timeframe, timeframes.floor(timeframe, NOW_MS))
    return timeframes.bars_between(timeframe, start_ms, after_ms if end_ms is None else end_ms)


# -- candles, backwards -----------------------------------------------------------------------------------------


@given(stories(), st.integers(1, 200), st.data())
def test_the_newest_bars_before_an_end_are_those_a_list_would_give(story: Story, count: int, data: st.DataObject):
    end_ms = data.draw(st.none() | moments(story.timeframe))
    drive = Drive(CandleExchange(story.bars, PAGE).page)
    with small_pages():
        bars = drive.run(candle_walk(MARKET, story.timeframe, count=count, end_ms=end_ms))
    assert bars == naive(story.bars, count, end_ms=end_ms)


@given(stories(), st.data())
def test_a_range_is_read_without_hole_or_double_in_one_request_per_page_of_slots(story: Story, data: st.DataObject):
    start_ms = data.draw(moments(story.timeframe))
    end_ms = data.draw(st.none() | moments(story.timeframe))
    drive = Drive(CandleExchange(story.bars, PAGE).page)
    with small_pages():
        bars = drive.run(candle_walk(MARKET, story.timeframe, start_ms=start_ms, end_ms=end_ms))
    assert bars == naive(story.bars, start_ms=start_ms, end_ms=end_ms)
    assert len(drive.requests) <= max(1, math.ceil(slots(story.timeframe, start_ms, end_ms) / PAGE))


@given(stories(), st.integers(1, 200), st.data())
def test_count_and_start_together_stop_at_whichever_is_reached_first(story: Story, count: int, data: st.DataObject):
    start_ms = data.draw(moments(story.timeframe))
    drive = Drive(CandleExchange(story.bars, PAGE).page)
    with small_pages():
        bars = drive.run(candle_walk(MARKET, story.timeframe, count=count, start_ms=start_ms, end_ms=None))
    assert bars == naive(story.bars, count, start_ms=start_ms)
    assert len(drive.requests) <= max(1, math.ceil(slots(story.timeframe, start_ms, None) / PAGE))


@given(stories(), st.integers(1, 400))
def test_no_history_costs_more_than_six_times_the_pages_its_bars_fill(story: Story, count: int):
    drive = Drive(CandleExchange(story.bars, PAGE).page)
    with small_pages():
        drive.run(candle_walk(MARKET, story.timeframe, count=count, end_ms=None))
    assert len(drive.requests) <= 6 * math.ceil(min(count, len(story.bars)) / PAGE) + 6


@given(stories(), st.integers(1, 200), st.data())
def test_what_was_read_beyond_the_start_is_whole_and_reaches_the_start_or_the_first_bar(
    story: Story, count: int, data: st.DataObject
):
    start_ms = data.draw(moments(story.timeframe))
    end_ms = data.draw(st.none() | moments(story.timeframe))
    drive = Drive(CandleExchange(story.bars, PAGE).page)
    with small_pages():
        bars = drive.run(candles_back(MARKET, story.timeframe, start_ms=start_ms, end_ms=end_ms))
    assert bars == naive(story.bars, len(bars) or None, end_ms=end_ms) or not bars
    assume(drive.requests)
    before = naive(story.bars, end_ms=end_ms)
    assert not before or bars[0] == before[0] or bars[0].open_ms <= timeframes.ceil(story.timeframe, start_ms)


@pytest.mark.parametrize("count", [1, 199, 200, 201, 1000, 3000, 10_000])
def test_a_market_that_trades_in_every_slot_costs_one_request_per_200_bars(count: int):
    drive = Drive(CandleExchange(history(M1, range(10_000))).page)
    bars = drive.run(candle_walk(MARKET, M1, count=count, end_ms=None))
    assert [candle.open_ms for candle in bars] == [RUNNING_MS - i * 60_000 for i in reversed(range(count))]
    assert len(drive.requests) == math.ceil(count / 200)


def test_a_dense_market_is_asked_for_in_a_few_rounds():
    drive = Drive(CandleExchange(history(M1, range(10_000))).page)
    drive.run(candle_walk(MARKET, M1, count=10_000, end_ms=None))
    assert [len(asked) for asked in drive.rounds] == [1, 4, 16, 29]


def test_a_known_end_is_asked_for_one_page_first_too():
    drive = Drive(CandleExchange(history(M1, range(10_000))).page)
    drive.run(candle_walk(MARKET, M1, count=1_000, end_ms=RUNNING_MS))
    assert [len(asked) for asked in drive.rounds] == [1, 4]


def test_a_dense_range_without_a_count_is_asked_for_in_a_few_rounds():
    drive = Drive(CandleExchange(history(M1, range(10_000))).page)
    start_ms = RUNNING_MS - 2_000 * 60_000
    assert len(drive.run(candle_walk(MARKET, M1, start_ms=start_ms, end_ms=RUNNING_MS))) == 2_000
    assert [len(asked) for asked in drive.rounds] == [1, 4, 5]


@pytest.mark.parametrize(("slots", "asked"), [(222, 4), (223, 1)])
def test_pages_are_dense_with_nine_bars_in_ten_slots(slots: int, asked: int):
    drive = Drive(CandleExchange(history(M1, [*range(199), *range(slots - 1, 5_000)])).page)
    drive.run(candle_walk(MARKET, M1, count=2_000, end_ms=None))
    assert len(drive.rounds[1]) == asked


def test_a_thin_market_is_asked_one_page_at_a_time():
    drive = Drive(CandleExchange(history(M1, range(0, 30_000, 30))).page)
    bars = drive.run(candle_walk(MARKET, M1, count=1000, end_ms=None))
    assert len(bars) == 1000
    assert [len(asked) for asked in drive.rounds] == [1] * 5


def test_a_market_that_has_just_come_alive_does_not_waste_a_round_of_forty_on_its_quiet_past():
    lively, quiet = range(200), range(200, 200 + 40 * 5000, 40)
    drive = Drive(CandleExchange(history(M1, [*lively, *quiet])).page)
    bars = drive.run(candle_walk(MARKET, M1, count=5000, end_ms=None))
    assert len(bars) == 5000
    assert len(drive.requests) <= math.ceil(5000 / 200) + 4


@pytest.mark.parametrize("count", [200, 1_000_000])
def test_a_history_that_ends_is_not_asked_again_and_again(count: int):
    drive = Drive(CandleExchange(history(M1, range(200))).page)
    assert len(drive.run(candle_walk(MARKET, M1, count=count, end_ms=None))) == 200
    assert len(drive.rounds) <= 2


def test_a_short_page_among_full_ones_ends_the_walk():
    drive = Drive(CandleExchange(history(M1, range(500))).page)
    assert len(drive.run(candle_walk(MARKET, M1, count=1_000_000, end_ms=None))) == 500
    assert [len(asked) for asked in drive.rounds] == [1, 4]


def test_a_market_without_any_bar_costs_one_request():
    drive = Drive(CandleExchange(()).page)
    assert drive.run(candle_walk(MARKET, M1, count=1000, end_ms=None)) == ()
    assert len(drive.requests) == 1


@pytest.mark.parametrize("timeframe", [Timeframe.MONTH, Timeframe.Y1, Timeframe.W1, Timeframe.S1])
def test_windows_are_never_laid_before_1970(timeframe: Timeframe):
    count = min(1000, slots_since_1970(timeframe))
    drive = Drive(CandleExchange(history(timeframe, range(count))).page)
    assert len(drive.run(candle_walk(MARKET, timeframe, count=1_000_000, end_ms=None))) == count
    assert all(request.to_ms is None or request.to_ms > 0 for request in drive.requests)


def test_of_two_readings_of_a_bar_the_later_one_counts():
    old = bar(M1, RUNNING_MS - 60_000, exchange_ms=RUNNING_MS - 30_000)
    new = bar(M1, RUNNING_MS - 60_000, exchange_ms=RUNNING_MS, close=old.close + 1)
    for page in [(old, new), (new, old)]:
        pages = iter([page, ()])
        drive = Drive(lambda request, pages=pages: next(pages))
        assert drive.run(candle_walk(MARKET, M1, count=2, end_ms=None)) == (new,)


def test_a_page_of_bars_that_were_not_asked_for_is_an_error_and_not_an_endless_walk():
    newest = CandleExchange(history(M1, range(200)))
    drive = Drive(lambda request: newest.page(attrs.evolve(request, to_ms=None)))
    with pytest.raises(BadPayload, match=r"KRW-BTC.*opens at \d+.*before \d+"):
        drive.run(candle_walk(MARKET, M1, count=1000, end_ms=None))


def test_a_bar_that_opens_at_the_very_end_was_not_asked_for():
    exchange = CandleExchange(history(M1, range(10_000)))

    def one_later(request: CandlesRequest) -> tuple[Candle, ...]:
        return exchange.page(request if request.to_ms is None else attrs.evolve(request, to_ms=request.to_ms + 60_000))

    with pytest.raises(BadPayload, match="asked were those before"):
        Drive(one_later).run(candle_walk(MARKET, M1, count=1_000, end_ms=None))


def test_an_unaligned_end_is_asked_for_at_the_next_boundary():
    drive = Drive(CandleExchange(history(M1, range(10))).page)
    bars = drive.run(candle_walk(MARKET, M1, count=1, end_ms=RUNNING_MS - 60_000 + 1))
    assert drive.requests == [CandlesRequest(MARKET, M1, 1, RUNNING_MS)]
    assert [candle.open_ms for candle in bars] == [RUNNING_MS - 60_000]


@given(st.sampled_from(Timeframe), st.integers(0, NOW_MS))
def test_ceil_gives_the_first_open_time_at_or_after(timeframe: Timeframe, at_ms: int):
    open_ms = timeframes.ceil(timeframe, at_ms)
    assert timeframes.floor(timeframe, open_ms) == open_ms >= at_ms
    assert timeframes.bars_between(timeframe, at_ms, open_ms) == 0


# -- candles, forwards ------------------------------------------------------------------------------------------


@given(stories(), st.integers(1, 120), st.data())
def test_the_first_bars_from_a_start_are_those_a_list_would_give(story: Story, count: int, data: st.DataObject):
    start_ms = data.draw(moments(story.timeframe))
    drive = Drive(CandleExchange(story.bars, PAGE).page)
    with small_pages():
        bars = drive.run(forward_walk(MARKET, story.timeframe, count=count, start_ms=start_ms, now_ms=NOW_MS))
    assert bars == naive(story.bars, start_ms=start_ms)[:count]


@given(stories(), st.integers(1, 120), st.data())
def test_reading_forwards_costs_a_search_for_every_gap_and_the_pages_of_what_is_wanted(
    story: Story, count: int, data: st.DataObject
):
    start_ms = data.draw(moments(story.timeframe))
    drive = Drive(CandleExchange(story.bars, PAGE).page)
    with small_pages():
        bars = drive.run(forward_walk(MARKET, story.timeframe, count=count, start_ms=start_ms, now_ms=NOW_MS))
    # Doubling and halving over the slots passed, four half-filled pages for every page of bars, and the same again
    # where a stretch turns from thin to dense.
    search = 2 * math.ceil(math.log2(slots(story.timeframe, start_ms, None) + 2))
    gaps = 1 + sum(
        timeframes.bars_between(story.timeframe, before.open_ms, after.open_ms) > PAGE
        for before, after in itertools.pairwise(bars)
    )
    assert len(drive.requests) <= search * min(gaps, 9) + 6 * math.ceil(min(count, len(bars)) / PAGE) + 2


def test_the_first_bars_of_a_market_are_found_from_years_before_it_was_listed_without_reading_its_history():
    listed = history(M1, range(500_000 - 2000, 500_000))
    start_ms = RUNNING_MS - 3_000_000 * 60_000
    exchange = CandleExchange(listed)
    drive = Drive(exchange.page)
    bars = drive.run(forward_walk(MARKET, M1, count=200, start_ms=start_ms, now_ms=NOW_MS))
    assert bars == listed[:200]
    assert len(drive.requests) <= 2 * math.ceil(math.log2(3_000_000 / 200))


def test_many_dense_bars_from_a_start_cost_one_request_per_200():
    listed = history(M1, range(10_000))
    drive = Drive(CandleExchange(listed).page)
    start_ms = listed[100].open_ms
    assert drive.run(forward_walk(MARKET, M1, count=5000, start_ms=start_ms, now_ms=NOW_MS)) == listed[100:5100]
    assert len(drive.requests) == 25


def test_nothing_is_asked_about_the_future():
    drive = Drive(CandleExchange(history(M1, range(10))).page)
    assert drive.run(forward_walk(MARKET, M1, count=5, start_ms=NOW_MS + 1, now_ms=NOW_MS)) == ()
    assert drive.requests == []
    drive.run(forward_walk(MARKET, M1, count=50, start_ms=NOW_MS - 300_000, now_ms=NOW_MS))
    assert all(request.to_ms is None or request.to_ms <= NOW_MS for request in drive.requests)


@pytest.mark.parametrize(("count", "ago"), [(1, 0), (200, 200), (201, 200), (450, 449)])
def test_the_bar_that_opens_at_this_very_moment_is_the_last(count: int, ago: int):
    listed = history(M1, range(1_000))
    drive = Drive(CandleExchange(listed).page)
    start_ms = RUNNING_MS - ago * 60_000
    bars = drive.run(forward_walk(MARKET, M1, count=count, start_ms=start_ms, now_ms=RUNNING_MS))
    assert bars == listed[-1 - ago :][:count]


@pytest.mark.parametrize("timeframe", Timeframe)
def test_a_million_bars_from_a_start_end_at_the_present(timeframe: Timeframe):
    listed = history(timeframe, range(50))
    drive = Drive(CandleExchange(listed).page)
    bars = drive.run(forward_walk(MARKET, timeframe, count=10**6, start_ms=listed[0].open_ms, now_ms=NOW_MS))
    assert bars == listed
    assert len(drive.requests) == 1


# -- trades -----------------------------------------------------------------------------------------------------

TODAY_MS = NOW_MS - NOW_MS % DAY_MS


def trades_of(days: list[list[int]]) -> list[Trade]:
    """Trades at those offsets into their days, today first; ids as the exchange makes them."""
    ids: dict[int, int] = {}
    trades = []
    for ago, offsets in enumerate(days):
        for offset in offsets:
            at_ms = TODAY_MS - ago * DAY_MS + offset
            ids[at_ms] = ids.get(at_ms, -1) + 1
            trades.append(trade(at_ms, at_ms * 10_000 + ids[at_ms]))
    return trades


# Offsets close together, so that many fall into one millisecond.
a_day = st.lists(st.integers(0, 30), max_size=25)


def newest_first(trades: list[Trade]) -> list[Trade]:
    return sorted(trades, key=lambda each: (each.trade_ms, each.sequential_id), reverse=True)


@given(st.lists(a_day, max_size=9), st.integers(1, 120), st.booleans())
def test_the_newest_trades_are_those_a_list_would_give_over_days_and_ties(
    days: list[list[int]], count: int, by_id: bool
):
    trades = trades_of(days)
    exchange = TradeExchange([Deal(each) for each in trades], TODAY_MS, by_id, limit=PAGE)
    drive = Drive(exchange.page)
    with small_pages():
        answer = drive.run(trade_walk(MARKET, count))
    kept = [each for each in newest_first(trades) if each.trade_ms >= TODAY_MS - 7 * DAY_MS]
    assert list(answer) == kept[:count]
    assert len(drive.requests) <= count // PAGE + 8 + 1


@given(st.lists(a_day, max_size=8), st.integers(1, 120), st.data())
def test_ids_that_are_not_in_time_order_lose_and_double_nothing(days: list[list[int]], count: int, data: st.DataObject):
    trades = trades_of(days)
    ids = data.draw(st.permutations([each.sequential_id for each in trades]))
    trades = [attrs.evolve(each, sequential_id=number) for each, number in zip(trades, ids, strict=True)]
    drive = Drive(TradeExchange([Deal(each) for each in trades], TODAY_MS, limit=PAGE).page)
    with small_pages():
        answer = drive.run(trade_walk(MARKET, count))
    assert list(answer) == newest_first(trades)[:count]


@given(a_day, st.integers(1, 40), st.data())
def test_where_the_exchange_pages_by_ids_out_of_time_order_every_id_down_to_the_last_one_is_there(
    offsets: list[int], count: int, data: st.DataObject
):
    trades = trades_of([offsets])
    ids = data.draw(st.permutations([each.sequential_id for each in trades]))
    trades = [attrs.evolve(each, sequential_id=number) for each, number in zip(trades, ids, strict=True)]
    drive = Drive(TradeExchange([Deal(each) for each in trades], TODAY_MS, by_id=True, limit=PAGE).page)
    with small_pages():
        answer = drive.run(trade_walk(MARKET, count))
    assert len(answer) == len({each.sequential_id for each in answer}) == min(count, len(trades))
    assert list(answer) == newest_first(list(answer))
    if count >= len(trades):
        assert list(answer) == newest_first(trades)


@given(st.lists(a_day, min_size=1, max_size=7), st.integers(1, 120), st.integers(0, 40), st.booleans(), st.data())
@example([[1] * 25], 12, 1, False, None)
def test_midnight_and_new_trades_in_the_middle_of_a_walk_lose_nothing_and_double_nothing(
    days: list[list[int]], count: int, midnight_at: int, by_id: bool, data: st.DataObject | None
):
    before = trades_of(days)
    # What is traded meanwhile: later the same day, and after midnight.
    later, after = (data.draw(a_day), data.draw(a_day)) if data is not None else (list(range(25)), [])
    meanwhile = [trade(TODAY_MS + 1000 + i, (TODAY_MS + 1000 + i) * 10_000) for i in range(len(later))]
    meanwhile += [trade(TODAY_MS + DAY_MS + i, (TODAY_MS + DAY_MS + i) * 10_000) for i in range(len(after))]
    deals = [Deal(each) for each in before] + [Deal(each, 1 + i // 6) for i, each in enumerate(meanwhile)]
    drive = Drive(TradeExchange(deals, TODAY_MS, by_id, midnight_at=midnight_at, limit=PAGE).page)
    with small_pages():
        answer = drive.run(trade_walk(MARKET, count))
    asked_at_first = len(drive.requests) > 0 and days[0] and midnight_at > 0
    if asked_at_first:  # then the answer is the state at the first page
        assert list(answer) == newest_first(before)[:count]
    held = newest_first(before + meanwhile)
    assert list(answer) == held[held.index(answer[0]) :][: len(answer)] if answer else not before
    assert len(answer) >= min(count, len(before))
    assert len(drive.requests) <= count // PAGE + 8 + 1 + 2


def test_a_walk_that_midnight_interrupts_reads_on_from_where_it_was():
    trades = trades_of([list(range(2000))])
    drive = Drive(TradeExchange([Deal(each) for each in trades], TODAY_MS, midnight_at=3).page)
    assert list(drive.run(trade_walk(MARKET, 1501))) == newest_first(trades)[:1501]
    cursor = newest_first(trades)[1499].sequential_id
    asked = [(request.count, request.cursor, request.days_ago) for request in drive.requests[3:]]
    assert asked == [(1, cursor, 0), (1, None, 1), (1, cursor, 1)]


def test_a_new_day_that_is_shown_for_a_cursor_of_the_old_one_is_not_taken():
    before = trades_of([list(range(10))])
    after = [trade(TODAY_MS + DAY_MS + i, (TODAY_MS + DAY_MS + i) * 10_000) for i in range(20)]
    exchange = TradeExchange([Deal(each) for each in before + after], TODAY_MS, midnight_at=1, limit=PAGE)

    def page(request: TradesRequest) -> tuple[Trade, ...]:
        new_day = exchange.asked > 0 and request.days_ago == 0
        return exchange.page(attrs.evolve(request, cursor=None) if new_day else request)

    with small_pages():
        assert list(Drive(page).run(trade_walk(MARKET, 10))) == newest_first(before)


@pytest.mark.parametrize("count", [1, 100, 500])
def test_up_to_a_page_of_trades_costs_one_request(count: int):
    drive = Drive(TradeExchange([Deal(each) for each in trades_of([list(range(600))])], TODAY_MS).page)
    assert len(drive.run(trade_walk(MARKET, count))) == count
    assert [(request.count, request.cursor, request.days_ago) for request in drive.requests] == [(count, None, 0)]


def test_a_market_without_trades_is_asked_once_for_every_day_that_is_kept():
    drive = Drive(TradeExchange((), TODAY_MS).page)
    assert drive.run(trade_walk(MARKET, 100)) == ()
    assert [request.days_ago for request in drive.requests] == list(range(8))


def ignoring_the_cursor(exchange: TradeExchange) -> Callable[..., tuple[Trade, ...]]:
    return lambda request: exchange.page(attrs.evolve(request, cursor=None))


def test_an_exchange_that_ignores_the_cursor_is_an_error_and_not_an_endless_walk():
    exchange = TradeExchange([Deal(each) for each in trades_of([list(range(600))])], TODAY_MS)
    with pytest.raises(BadPayload, match=r"KRW-BTC.*cursor"):
        Drive(ignoring_the_cursor(exchange)).run(trade_walk(MARKET, 600))
