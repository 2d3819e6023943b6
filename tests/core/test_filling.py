"""Flat bars stand where nobody traded, and nowhere else."""

from __future__ import annotations

import itertools
from decimal import Decimal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_exchange import NOW_MS, bar, history

from marketpipe.core import timeframes
from marketpipe.core.filling import fill_forward
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleState, Source

M1 = Timeframe.M1
NOW_OPEN_MS = timeframes.floor(M1, NOW_MS)

bars_of = st.builds(history, st.sampled_from(Timeframe), st.lists(st.integers(1, 40) | st.integers(1, 6), max_size=12))


def bound(draw: st.DrawFn | st.DataObject, timeframe: Timeframe) -> int:
    ago = draw.draw(st.integers(-3, 45))
    return timeframes.shift(timeframe, timeframes.floor(timeframe, NOW_MS), -ago) + draw.draw(
        st.sampled_from([0, 0, 7])
    )


def of(bars: tuple[Candle, ...]) -> Timeframe:
    return bars[0].timeframe if bars else M1


@given(bars_of, st.data())
def test_bars_that_were_traded_are_untouched_and_the_others_are_flat_at_the_close_before(
    bars: tuple[Candle, ...], data: st.DataObject
):
    end_ms = data.draw(st.none() | st.just(bound(data, of(bars))))
    filled = fill_forward(bars, end_ms=end_ms)
    assert tuple(candle for candle in filled if not candle.filled) == bars
    for before, candle in itertools.pairwise(filled):
        if candle.filled:
            prices = {candle.open, candle.high, candle.low, candle.close}
            assert prices == {before.close}
            assert candle.volume == candle.quote_volume == 0


@given(bars_of, st.data())
def test_after_the_first_bar_every_slot_is_there_once(bars: tuple[Candle, ...], data: st.DataObject):
    timeframe = of(bars)
    end_ms = data.draw(st.none() | st.just(bound(data, timeframe)))
    filled = fill_forward(bars, end_ms=end_ms)
    assert all(one.close_ms == following.open_ms for one, following in itertools.pairwise(filled))
    assert [candle.open_ms for candle in filled[:1]] == [candle.open_ms for candle in bars[:1]]
    if bars and end_ms is not None:
        last_ms = max(bars[-1].close_ms, timeframes.floor(timeframe, end_ms))
        assert filled[-1].close_ms == last_ms


@given(bars_of, st.data())
def test_filling_twice_is_filling_once(bars: tuple[Candle, ...], data: st.DataObject):
    start_ms = data.draw(st.none() | st.just(bound(data, of(bars))))
    end_ms = data.draw(st.none() | st.just(bound(data, of(bars))))
    once = fill_forward(bars, start_ms=start_ms, end_ms=end_ms)
    assert fill_forward(once, start_ms=start_ms, end_ms=end_ms) == once


@given(bars_of, st.data())
def test_a_start_cuts_what_is_filled_without_changing_it(bars: tuple[Candle, ...], data: st.DataObject):
    start_ms, end_ms = bound(data, of(bars)), bound(data, of(bars))
    whole = fill_forward(bars, end_ms=end_ms)
    cut = fill_forward(bars, start_ms=start_ms, end_ms=end_ms)
    assert cut == tuple(candle for candle in whole if candle.open_ms >= start_ms)


def test_a_filled_bar_is_final_and_keeps_the_dates_and_the_source_of_the_close_it_carries():
    old = bar(M1, NOW_OPEN_MS - 300_000, source=Source.STREAM, revision=3)
    _, filled = fill_forward([old], end_ms=NOW_OPEN_MS - 180_000)
    assert filled == bar(
        M1,
        NOW_OPEN_MS - 240_000,
        open=old.close,
        high=old.close,
        low=old.close,
        close=old.close,
        volume=Decimal(0),
        quote_volume=Decimal(0),
        exchange_ms=old.exchange_ms,
        source=Source.STREAM,
        state=CandleState.FINAL,
        revision=0,
        filled=True,
    )


def test_a_slot_that_the_end_cuts_is_not_filled():
    old = bar(M1, NOW_OPEN_MS - 120_000)
    assert len(fill_forward([old], end_ms=NOW_OPEN_MS - 1)) == 1
    assert len(fill_forward([old], end_ms=NOW_OPEN_MS)) == 2


def test_without_a_bar_there_is_nothing_to_carry():
    assert fill_forward((), start_ms=0, end_ms=NOW_MS) == ()


@pytest.mark.parametrize("start_ms", [NOW_OPEN_MS - 4000, NOW_OPEN_MS - 4001])
def test_the_years_between_the_last_trade_and_the_start_are_not_walked_through(start_ms: int):
    old = bar(Timeframe.S1, 0)  # with 1.8 billion slots to go: this test would not end
    filled = fill_forward([old], start_ms=start_ms, end_ms=NOW_OPEN_MS)
    assert [candle.open_ms for candle in filled] == [NOW_OPEN_MS - i * 1000 for i in (4, 3, 2, 1)]
    assert {candle.close for candle in filled} == {old.close}


def test_a_flat_bar_after_a_running_one_is_final_by_itself():
    running = attrs.evolve(bar(M1, NOW_OPEN_MS - 180_000, NOW_MS), state=CandleState.RUNNING, revision=3)
    flat = fill_forward((running,), end_ms=NOW_OPEN_MS)[1:]
    assert [(candle.state, candle.revision, candle.filled) for candle in flat] == [(CandleState.FINAL, 0, True)] * 2


def test_years_before_the_start_are_not_walked_through():
    first, last = bar(M1, 0, NOW_MS), bar(M1, NOW_OPEN_MS, NOW_MS)
    walked = itertools.islice(fill_forward((first, last), start_ms=NOW_OPEN_MS - 120_000), 10)
    assert [candle.open_ms for candle in walked] == [NOW_OPEN_MS - 120_000, NOW_OPEN_MS - 60_000, NOW_OPEN_MS]
