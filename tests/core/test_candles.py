"""Readings of bars become one series, whatever their order; each change is told once, and doubt is respected."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_bars import FINAL, RUNNING, START_MS, brief, content, opens, reading, row

from marketpipe.core.candles import LiveSeries
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleState, Source

FOREVER_MS = START_MS * 2


def series(keep: int = 50) -> LiveSeries:
    return LiveSeries("KRW-BTC", Timeframe.M1, keep=keep)


# -- laws -------------------------------------------------------------------------------------------------------

# Few slots and few values, so that readings meet; times about the ends of bars, where it matters.
slots = st.integers(0, 7)
moments = st.builds(lambda slot, ms: opens(slot) + ms, st.integers(0, 9), st.sampled_from([-500, 0, 500, 999, 1000]))
readings = st.builds(
    reading,
    slots,
    at=st.sampled_from([500, 700, 60_200]),
    volume=st.sampled_from(["1", "1.0", "2"]),
    close=st.sampled_from([Decimal(7), Decimal(8)]),
    received_ms=st.integers(1, 3),
)
pages = st.tuples(st.lists(readings.map(lambda bar: attrs.evolve(bar, source=Source.REST)), max_size=6), moments)
told_in = {"live": readings, "page": pages, "doubt": st.tuples(moments, moments), "proven": moments}
inputs = st.sampled_from(sorted(told_in)).flatmap(lambda kind: st.tuples(st.just(kind), told_in[kind]))
keeps = st.sampled_from([1, 2, 4, 50])


def put(into: LiveSeries, given_: tuple[str, Any]) -> Sequence[Candle]:
    match given_:
        case "live", bar:
            return into.live(bar)
        case "page", (bars, read_ms):
            return into.page(bars, read_ms)
        case "doubt", (start_ms, end_ms):
            into.doubt(start_ms, end_ms)
            return ()
        case "cleared", (start_ms, end_ms):
            return into.cleared(start_ms, end_ms)
        case _, exchange_ms:
            return into.proven(exchange_ms)


def split(given_: tuple[str, Any]) -> list[tuple[str, Any]]:
    """A page as one page for each of its rows."""
    kind, what = given_
    return [(kind, ((bar,), what[1])) for bar in what[0]] if kind == "page" else [given_]


def after(given_: Sequence[tuple[str, Any]], keep: int) -> LiveSeries:
    into = series(keep)
    for each in given_:
        put(into, each)
    return into


@st.composite
def two_ways(draw: st.DrawFn) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]], int]:
    """Inputs, and the same ones in another order, some of them twice, pages in pieces. Doubts come before the rest."""
    drawn = draw(st.lists(inputs, max_size=14))
    again = draw(st.lists(st.sampled_from(drawn), max_size=5)) if drawn else []
    pieces = [piece for each in drawn + again for piece in (split(each) if draw(st.booleans()) else [each])]
    shuffled = draw(st.permutations(pieces))
    return *(sorted(way, key=lambda each: each[0] != "doubt") for way in (drawn, shuffled)), draw(keeps)


@given(two_ways())
def test_any_order_repetition_and_split_of_the_same_readings_gives_the_same_series(ways: Any):
    one, other, keep = ways
    assert content(after(one, keep).bars) == content(after(other, keep).bars)
    ended = [after([*way, ("proven", FOREVER_MS)], keep).bars for way in (one, other)]
    assert content(ended[0]) == content(ended[1])


@given(two_ways())
def test_without_a_doubt_every_bar_is_final_in_the_end(ways: Any):
    given_ = [each for each in ways[1] if each[0] != "doubt"]
    assert {bar.state for bar in after([*given_, ("proven", FOREVER_MS)], ways[2]).bars} <= {FINAL}


@given(two_ways(), moments, moments)
def test_a_doubt_that_is_cleared_might_as_well_not_have_been(ways: Any, start_ms: int, end_ms: int):
    given_ = [each for each in ways[1] if each[0] != "doubt"]
    doubted = [("doubt", (start_ms, end_ms)), *given_, ("cleared", (start_ms, end_ms)), ("proven", FOREVER_MS)]
    assert content(after(doubted, 50).bars) == content(after([*given_, ("proven", FOREVER_MS)], 50).bars)
    assert {bar.state for bar in after(doubted, 50).bars} <= {FINAL}


@given(st.lists(inputs, max_size=14), st.data(), keeps)
def test_since_when_a_series_is_whole_does_not_depend_on_the_order_not_even_of_doubts(
    given_: list[tuple[str, Any]], data: st.DataObject, keep: int
):
    shuffled = data.draw(st.permutations(given_))
    assert after(given_, keep).whole_from_ms == after(shuffled, keep).whole_from_ms


@given(st.lists(inputs, max_size=30), keeps)
def test_what_is_told_is_what_is_held_and_each_bar_becomes_final_once(given_: list[tuple[str, Any]], keep: int):
    into, told, final = series(keep), dict[int, Candle](), set[int]()
    for each in given_:
        news = put(into, each)
        assert [bar.open_ms for bar in news] == sorted({bar.open_ms for bar in news})
        for bar in news:
            before = told.get(bar.open_ms)
            if bar.state is RUNNING or bar.revision == 0:
                assert bar.open_ms not in final
                assert bar.revision == 0
            else:
                assert before is not None
                assert (before.state, bar.revision) == (FINAL, before.revision + 1)
            if before is not None and before.state is bar.state:
                assert content([bar]) != content([before])
            final |= {bar.open_ms} if bar.state is FINAL else set()
            told[bar.open_ms] = bar
        held = into.bars
        assert len(held) <= keep
        assert list(held) == sorted(held, key=lambda bar: bar.open_ms)
        assert all(told[bar.open_ms] is bar for bar in held)
        assert {told[open_ms] for open_ms in sorted(told)[-keep:]} == set(held)


@given(st.lists(inputs, max_size=14), keeps)
def test_nothing_changes_when_everything_comes_once_more(given_: list[tuple[str, Any]], keep: int):
    into = after(given_, keep)
    before = into.bars, into.whole_from_ms
    for each in given_:
        put(into, each)
    finals = [bar for bar in before[0] if bar.state is FINAL]
    assert [bar for bar in into.bars if bar in finals] == finals
    assert content(into.bars) == content(before[0])
    assert into.whole_from_ms == before[1]


# -- what a reading changes -------------------------------------------------------------------------------------


def test_a_running_bar_is_told_again_only_when_it_changes():
    into = series()
    assert brief(into.live(reading(0))) == [(0, 1, RUNNING, 0)]
    assert brief(into.live(reading(0, received_ms=9, source=Source.REST))) == []
    assert brief(into.live(reading(0, volume="1.00"))) == []
    assert brief(into.live(reading(0, at=600, volume=2))) == [(0, 2, RUNNING, 0)]
    assert brief(into.live(reading(0, at=601, volume=1))) == []
    assert brief(into.live(reading(0, at=599, volume=3))) == [(0, 3, RUNNING, 0)]
    assert into.ignored == 3


def test_a_later_bar_makes_the_ones_before_it_final():
    into = series()
    into.live(reading(0))
    assert brief(into.live(reading(2))) == [(0, 1, FINAL, 0), (2, 1, RUNNING, 0)]
    assert brief(into.live(reading(1))) == [(1, 1, FINAL, 0)]
    assert brief(into.bars) == [(0, 1, FINAL, 0), (1, 1, FINAL, 0), (2, 1, RUNNING, 0)]


@pytest.mark.parametrize(("after_ms", "told"), [(1_999, []), (2_000, [(0, 1, FINAL, 0)])])
def test_time_makes_a_bar_final_two_seconds_after_its_end(after_ms: int, told: list[Any]):
    into = series()
    into.live(reading(0))
    assert brief(into.proven(opens(1) + after_ms)) == told
    assert into.proven(opens(1) + after_ms) == ()
    assert brief(into.proven(opens(0))) == []
    assert brief(into.live(reading(0, at=60_700, volume=2))) == [(0, 2, told[0][2], 1) if told else (0, 2, RUNNING, 0)]


def test_a_bar_that_comes_after_its_time_was_proven_is_final_at_once():
    into = series()
    into.proven(opens(1) + 2_000)
    assert brief(into.live(reading(0))) == [(0, 1, FINAL, 0)]
    assert brief(into.live(reading(1))) == [(1, 1, RUNNING, 0)]


@pytest.mark.parametrize(("after_ms", "state", "volume"), [(999, RUNNING, 2), (1_000, FINAL, 1)])
def test_a_page_has_authority_over_frames_a_second_after_the_end_of_a_bar(
    after_ms: int, state: CandleState, volume: int
):
    """Until then it may have been read before the last trade was stored, and counts like a frame."""
    into = series()
    into.live(reading(0, at=60_300, volume=2))
    into.page([row(0)], opens(1) + after_ms)
    assert brief(into.bars) == [(0, volume, state, 0)]


def test_a_page_that_confirms_a_bar_tells_only_that_it_is_final():
    into = series()
    into.live(reading(0))
    assert brief(into.page([row(0)], opens(1) + 1_000)) == [(0, 1, FINAL, 0)]
    assert into.bars[0].source is Source.STREAM
    assert brief(into.live(reading(0, at=60_500, volume=5))) == []
    assert brief(into.page([row(0)], opens(3))) == []


def test_a_late_correction_is_an_amendment_with_the_next_revision():
    into = series()
    into.page([row(1), row(0)], opens(2))
    assert brief(into.page([row(0, at=600, volume=2)], opens(3))) == [(0, 2, FINAL, 1)]
    assert brief(into.page([row(0, at=700, volume=3)], opens(3))) == [(0, 3, FINAL, 2)]
    assert brief(into.page([row(0, at=600, volume=2)], opens(4))) == []


def test_a_late_frame_amends_a_bar_that_a_later_bar_had_made_final():
    into = series()
    into.live(reading(0))
    into.live(reading(1))
    assert brief(into.live(reading(0, at=60_300, volume=2))) == [(0, 2, FINAL, 1)]


def test_two_rows_of_one_bar_that_lead_back_to_what_was_told_are_no_news():
    """The first one outranks the frame because its page is settled, the second one says what the frame said."""
    into = series()
    into.live(reading(0, at=700, volume=2))
    into.live(reading(1))
    assert brief(into.page([row(0, at=800, volume=1), row(0, at=700, volume=2)], opens(1) + 1_000)) == []
    assert brief(into.bars)[0] == (0, 2, FINAL, 0)


def test_the_greater_volume_counts_and_then_the_newer_stamp_and_then_the_same_for_all():
    for lesser, greater in [
        (reading(0, at=501, volume=1), reading(0, at=500, volume=2)),
        (reading(0, at=500, close=Decimal(9)), reading(0, at=501, close=Decimal(8))),
        (reading(0, volume=1, quote_volume=Decimal(9)), reading(0, volume=2, quote_volume=Decimal(8))),
        (reading(0, high=Decimal(9)), reading(0, quote_volume=Decimal(8))),
        (reading(0, low=Decimal(9)), reading(0, high=Decimal(8))),
        (reading(0, open=Decimal(9)), reading(0, low=Decimal(8))),
        (reading(0, close=Decimal(9)), reading(0, open=Decimal(8))),
        (reading(0), reading(0, close=Decimal(8))),
    ]:
        for first, second in itertools.permutations([lesser, greater]):
            into = series()
            into.live(first)
            into.live(second)
            assert into.bars == (greater,)


def test_a_page_of_another_series_is_refused():
    with pytest.raises(ValueError, match="a page of KRW-BTC 1m holds a bar of KRW-ETH 1m"):
        series().page([row(0, market="KRW-ETH")], opens(1))
    with pytest.raises(ValueError, match="a page of KRW-BTC 1m holds a bar of KRW-BTC 3m"):
        series().page([row(0, timeframe=Timeframe.M3)], opens(1))


# -- doubt ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start_ms", "end_ms", "doubted"),
    [
        (-500, 1, [0]),
        (-500, 0, []),
        (60_999, 70_000, [0, 1]),
        (61_000, 70_000, [1]),
        (30_000, 60_000, [0]),
        (30_000, 60_001, [0, 1]),
        (30_000, 30_000, []),
        (31_000, 30_000, []),
    ],
)
def test_a_bar_is_in_doubt_if_its_time_or_the_second_after_it_is(start_ms: int, end_ms: int, doubted: list[int]):
    into = series()
    into.doubt(START_MS + start_ms, START_MS + end_ms)
    for slot in (0, 1, 2):
        into.live(reading(slot))
    into.proven(opens(9))
    assert [slot for slot, _, state, _ in brief(into.bars) if state is RUNNING] == doubted


def test_a_bar_in_doubt_becomes_final_when_a_page_shows_it():
    into = series()
    into.doubt(opens(0), opens(1))
    into.live(reading(0))
    assert brief(into.live(reading(1))) == [(1, 1, RUNNING, 0)]
    assert brief(into.page([row(0, volume=3, at=900), row(1)], opens(1) + 1_000)) == [(0, 3, FINAL, 0)]


def test_the_running_bar_is_not_in_doubt_any_more_after_a_page_read_a_second_after_the_doubt():
    """Every frame is the whole bar: those that come after the page make up for those that were missed."""
    for late_ms, states in [(999, [RUNNING, RUNNING]), (1_000, [FINAL, RUNNING])]:
        into = series()
        into.live(reading(0))
        into.doubt(opens(0) + 10_000, opens(0) + 20_000)
        into.page([row(0)], opens(0) + 20_000 + late_ms)
        into.live(reading(1))
        assert [bar.state for bar in into.bars] == states


def test_a_page_does_not_take_the_doubt_from_the_bar_before_it():
    """The last frame of a bar comes up to a second after its end: a doubt there is about the bar before, too."""
    into = series()
    into.live(reading(0))
    into.doubt(opens(1) + 500, opens(1) + 600)
    into.page([row(1)], opens(2))
    assert brief(into.bars) == [(0, 1, RUNNING, 0), (1, 1, RUNNING, 0)]
    into.live(reading(2))
    assert [bar.state for bar in into.bars] == [RUNNING, FINAL, RUNNING]
    into.page([row(0), row(1)], opens(2))
    assert [bar.state for bar in into.bars] == [FINAL, FINAL, RUNNING]


def test_a_page_read_before_the_doubt_was_told_takes_it_away_all_the_same():
    into = series()
    into.page([row(0), row(1)], opens(1) + 30_000)
    into.doubt(opens(0), opens(1) + 29_000)
    into.live(reading(2))
    assert [bar.state for bar in into.bars] == [FINAL, FINAL, RUNNING]


def test_a_page_up_to_a_moment_takes_no_doubt_from_what_follows():
    into = series()
    into.doubt(opens(0), opens(3))
    into.live(reading(1))
    into.page([row(0)], opens(5), to_ms=opens(1))
    into.proven(opens(9))
    assert [bar.state for bar in into.bars] == [FINAL, RUNNING]
    into.page([row(0), row(1)], opens(5), to_ms=opens(2))
    into.live(reading(2))
    assert [bar.state for bar in into.bars] == [FINAL, FINAL, RUNNING]


def test_a_bar_told_final_before_the_doubt_stays_final():
    into = series()
    into.live(reading(0))
    into.proven(opens(2))
    into.doubt(opens(0), opens(1))
    assert [bar.state for bar in into.bars] == [FINAL]


def test_under_a_doubt_without_end_only_pages_make_bars_final():
    into = LiveSeries("KRW-BTC", Timeframe.MONTH)
    into.doubt(0, 1 << 62)
    first = reading(0, timeframe=Timeframe.MONTH, open_ms=1_788_220_800_000)
    into.live(first)
    second = attrs.evolve(first, open_ms=first.close_ms)
    assert [bar.state for bar in into.live(second)] == [RUNNING]
    assert into.proven(second.close_ms * 2) == []
    assert [bar.state for bar in into.page([second, first], second.open_ms + 1_000)] == [FINAL]
    assert into.whole_from_ms is None


# -- whole ------------------------------------------------------------------------------------------------------


def test_a_series_is_whole_from_the_oldest_bar_of_its_pages_on():
    into = series()
    into.live(reading(5))
    assert into.whole_from_ms is None
    into.page([row(4), row(3)], opens(5))
    assert into.whole_from_ms == opens(3)
    into.page([row(2)], opens(5))
    assert into.whole_from_ms == opens(2)
    into.page([row(4), row(5)], opens(6))
    assert into.whole_from_ms == opens(2)


def test_a_page_that_may_have_been_read_before_its_bars_shows_nothing():
    into = series()
    into.page([row(4)], opens(4) + 1_000)
    assert into.whole_from_ms is None
    into.page([row(4)], opens(4) + 1_001)
    assert into.whole_from_ms == opens(4)


def test_an_empty_page_says_nothing_unless_it_says_from_where_on_it_is_empty():
    into = series()
    assert into.page([], opens(3)) == []
    assert into.whole_from_ms is None
    into.page([], opens(3), from_ms=opens(1))
    assert into.whole_from_ms == opens(1)


def test_after_a_doubt_a_series_is_whole_from_the_next_bar_on_until_a_page_shows_the_rest():
    into = series()
    into.page([row(0)], opens(2))
    into.doubt(opens(3), opens(3) + 1)
    assert into.whole_from_ms == opens(4)
    into.doubt(opens(1), opens(1) + 500)  # shown by the page
    assert into.whole_from_ms == opens(4)
    into.page([row(3)], opens(3) + 1_000)  # read too early
    assert into.whole_from_ms == opens(4)
    into.page([row(3)], opens(3) + 1_001)
    assert into.whole_from_ms == opens(3)
    into.page([row(2)], opens(4))
    assert into.whole_from_ms == opens(0)


def test_a_page_up_to_a_moment_makes_no_series_whole_but_extends_one():
    into = series()
    into.page([row(0)], opens(9), to_ms=opens(2))
    assert into.whole_from_ms is None
    into.page([row(3)], opens(9))
    assert into.whole_from_ms == opens(3)
    into.page([row(0)], opens(9), to_ms=opens(3))
    assert into.whole_from_ms == opens(0)


def test_a_series_is_not_whole_before_the_oldest_bar_that_is_kept():
    into = series(keep=2)
    into.page([row(0), row(1), row(4)], opens(9))
    assert into.whole_from_ms == opens(1)
    into.live(reading(6))
    assert into.whole_from_ms == opens(2)


def test_what_a_page_has_shown_is_remembered_for_as_long_as_its_bars_are_kept():
    into = series(keep=2)
    into.page([row(0), row(1)], opens(2))
    into.live(reading(2))
    into.doubt(opens(1) + 1_000, opens(1) + 30_000)
    assert into.whole_from_ms == opens(1)


def test_a_doubt_without_end_over_bars_that_are_all_gone_leaves_nothing_whole():
    into = series(keep=1)
    into.page([row(0)], opens(1))
    into.live(reading(3))
    into.doubt(opens(2), 1 << 62)
    assert into.whole_from_ms is None


# -- what is kept -----------------------------------------------------------------------------------------------


def test_at_most_so_many_bars_are_kept_and_no_older_one_is_told_again():
    into = series(keep=2)
    told = [(0, 1, FINAL, 0), (1, 1, FINAL, 0), (3, 1, FINAL, 0)]
    assert brief(into.page([row(3), row(1), row(0)], opens(5))) == told
    assert brief(into.bars) == told[1:]
    assert brief(into.live(reading(0, volume=2))) == []
    assert brief(into.page([row(0, volume=2)], opens(5))) == []
    assert into.ignored == 2
    assert brief(into.live(reading(2))) == [(2, 1, FINAL, 0)]
    assert brief(into.live(reading(1, volume=2))) == []
    assert brief(into.bars) == [(2, 1, FINAL, 0), (3, 1, FINAL, 0)]


def test_a_bar_that_leaves_while_it_runs_is_not_told():
    into = series(keep=1)
    into.doubt(opens(0), 1 << 62)
    into.live(reading(0))
    assert brief(into.live(reading(1))) == [(1, 1, RUNNING, 0)]
    assert into.proven(opens(1)) == []
    assert brief(into.page([row(0)], opens(5))) == []


def test_what_a_page_has_yet_to_mend_is_not_let_go_of_however_many_bars_follow():
    into = series(keep=2)
    assert into.begins_ms is None
    into.live(reading(0))
    assert into.begins_ms == opens(0)
    into.doubt(opens(1), opens(4))
    for slot in range(5, 12):
        into.live(reading(slot))
    assert brief(into.bars) == [(10, 1, FINAL, 0), (11, 1, RUNNING, 0)]
    told = into.page([row(slot) for slot in range(12)], opens(12))
    assert brief(told) == [(slot, 1, FINAL, 0) for slot in (0, 1, 2, 3, 4)]
    assert brief(into.bars)[0][0] == 10
    assert brief(into.live(reading(4, volume=2))) == []


def test_a_doubt_does_not_hold_up_more_than_an_hour_of_seconds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("marketpipe.core.candles.HELD_AT_MOST", 4)
    into = series(keep=2)
    into.doubt(opens(0), opens(1))
    for slot in range(6):
        into.live(reading(slot))
    assert into.ignored == 0
    assert brief(into.live(reading(0, volume=2))) == []  # it is gone


@pytest.mark.parametrize("keep", [0, -1])
def test_at_least_one_bar_is_kept(keep: int):
    with pytest.raises(ValueError, match=f"keep must be at least 1, was {keep}"):
        series(keep)


@pytest.mark.parametrize(("count", "first"), [(0, 6), (1, 5), (2, 4), (3, 3), (4, 2), (6, 0), (9, 0)])
def test_the_latest_bars_are_those_of_the_page_and_those_that_are_held(count: int, first: int):
    into = series(keep=3)
    page = [row(1, volume="0.4"), *(row(slot) for slot in (4, 3, 2, 1, 0)), row(1, volume="0.5")]
    into.live(reading(5))
    into.page(page, opens(5))
    into.live(reading(3, at=900, volume=9))
    into.page([row(3, at=900, volume=9)], opens(5))
    expected = [(slot, 9 if slot == 3 else 1, RUNNING if slot == 5 else FINAL, int(slot == 3)) for slot in range(6)]
    assert brief(into.latest(count, page)) == expected[first:]
    assert brief(into.latest(count)) == expected[max(first, 3) :]


def test_an_amendment_has_the_next_revision_whatever_state_its_reading_has():
    into = series()
    for revision, volume in enumerate(("1", "2", "3")):
        (told,) = into.page((attrs.evolve(reading(0, volume=volume), state=FINAL),), opens(3))
        assert (told.state, told.revision) == (FINAL, revision)


def test_of_a_doubt_that_is_cleared_nothing_is_left():
    into = series()
    into.live(reading(0))
    into.doubt(opens(0) + 500, opens(1))
    assert not into.proven(opens(2))
    (told,) = into.cleared(opens(0) + 500, opens(1))
    assert told.state is FINAL
