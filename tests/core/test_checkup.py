"""What a look through the database means: holes, and what the exchange has to tell again."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.core import timeframes
from marketpipe.core.checkup import SeriesCheck, StoreCheck, checked, holes_in, to_ask_for
from marketpipe.core.history import first_slot
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe

MARKET = "KRW-BTC"
BASE_MS = 1_790_166_900_000  # 2026-09-23T12:35Z, a whole minute and no whole hour
EVER_MS = 1 << 50


@attrs.frozen
class Found:
    kind: str
    words: str = "wrong"
    market: str | None = MARKET
    timeframe: str | None = "1m"
    start_ms: int | None = BASE_MS
    end_ms: int | None = BASE_MS + 60_000


def at(minute: int) -> int:
    return BASE_MS + minute * 60_000


def series(*holes: tuple[int, int], timeframe: Timeframe = Timeframe.M1) -> SeriesCheck:
    return SeriesCheck(MARKET, timeframe, 5, 0, at(0), at(9), holes, 1)


def test_what_lies_between_proven_spans_is_a_hole_and_what_lies_outside_is_none():
    proven = SpanSet.of((at(0), at(3)), (at(5), at(6)), (at(9), at(10)))
    assert holes_in(Timeframe.M1, proven) == SpanSet.of((at(3), at(5)), (at(6), at(9)))
    assert not holes_in(Timeframe.M1, SpanSet.of((at(0), at(3))))
    assert not holes_in(Timeframe.M1, SpanSet())


@given(
    st.sampled_from(list(Timeframe)),
    st.lists(st.tuples(st.integers(0, 2_000), st.integers(1, 50)), min_size=1, max_size=8),
)
def test_holes_and_what_is_proven_make_one_span_without_a_seam(timeframe, drawn):
    base_ms = timeframes.floor(timeframe, BASE_MS)
    proven = SpanSet.of(
        *(
            (timeframes.shift(timeframe, base_ms, start), timeframes.shift(timeframe, base_ms, start + slots))
            for start, slots in drawn
        )
    )
    holes = holes_in(timeframe, proven)
    assert not holes & proven
    assert len(holes | proven) == 1


@pytest.mark.parametrize("timeframe", [Timeframe.W1, Timeframe.D1, Timeframe.MONTH])
def test_the_beginning_of_all_history_is_no_hole(timeframe):
    """0 stands for it in every timeframe, though a week does not begin there."""
    open_ms = timeframes.floor(timeframe, BASE_MS)
    assert not holes_in(timeframe, SpanSet.of((0, open_ms)))
    holes = holes_in(timeframe, SpanSet.of((0, first_slot(timeframe)), (open_ms, open_ms + 1)))
    assert all(timeframes.floor(timeframe, edge) == edge for span in holes for edge in span)


def test_a_span_that_ends_in_the_middle_of_a_slot_leaves_that_slot_open():
    proven = SpanSet.of((at(0), at(2) + 1), (at(4) + 1, at(6)))
    assert holes_in(Timeframe.M1, proven) == SpanSet.of((at(2), at(5)))


def test_a_series_is_counted_with_its_holes():
    counted = series()
    check = checked(counted, SpanSet.of((at(0), at(3)), (at(5), at(10))))
    assert (check.holes, check.slots_missing, check.bars) == (((at(3), at(5)),), 2, 5)


def test_all_is_well_where_nothing_is_wrong_and_a_hole_is_nothing_wrong():
    """It may have been left on purpose: two stretches were wanted, and what lies between them was not."""
    whole, holed = series(), series((at(1), at(2)))
    for listed, is_whole in (((), True), ((whole, whole), True), ((whole, holed), False)):
        check = StoreCheck("x.db", listed, ())
        assert (check.is_well, check.is_whole) == (True, is_whole)
        assert not StoreCheck("x.db", listed, (Found("MISCOUNTED"),)).is_well


def test_bars_and_missing_slots_of_all_series_are_counted():
    check = StoreCheck("x.db", (series((at(1), at(2))), series((at(1), at(2)))), ())
    assert (check.bars, check.slots_missing) == (10, 2)


def test_holes_and_wrong_rows_are_asked_for_once():
    check = StoreCheck("x.db", (series((at(3), at(5))),), (Found("IMPOSSIBLE", start_ms=at(4), end_ms=at(7)),))
    assert to_ask_for(check, EVER_MS) == {(MARKET, Timeframe.M1): SpanSet.of((at(3), at(7)))}


def test_a_row_out_of_place_means_the_slot_it_lies_in():
    check = StoreCheck("x.db", (), (Found("MISALIGNED", start_ms=at(4) + 7, end_ms=at(5) + 7),))
    assert to_ask_for(check, EVER_MS) == {(MARKET, Timeframe.M1): SpanSet.of((at(4), at(6)))}


@pytest.mark.parametrize(
    "finding",
    [
        Found("DAMAGED", market=None, timeframe=None, start_ms=None, end_ms=None),
        Found("COVERAGE"),
        Found("MISCOUNTED", start_ms=None, end_ms=None),
        Found("UNREADABLE", timeframe="7m", start_ms=None, end_ms=None),
        Found("UNREADABLE", timeframe=None, start_ms=None, end_ms=None),
        Found("MISALIGNED", start_ms=-5, end_ms=-4),
        Found("UNCOVERED", start_ms=EVER_MS, end_ms=EVER_MS + 60_000),
    ],
)
def test_what_no_page_can_put_right_is_not_asked_for(finding):
    assert to_ask_for(StoreCheck("x.db", (series(),), (finding,)), EVER_MS) == {}


def test_a_check_says_from_when_to_when_there_are_bars():
    counted = SeriesCheck(MARKET, Timeframe.M1, 5, 2, at(3), at(8), (), 0)
    check = checked(counted, SpanSet.of((at(0), at(4)), (at(6), at(9))))
    assert (check.first_ms, check.last_ms, check.bars, check.amended) == (at(3), at(8), 5, 2)
    assert (check.holes, check.slots_missing) == (((at(4), at(6)),), 2)


def test_a_finding_that_names_no_rows_does_not_hide_those_after_it():
    findings = (
        Found("LEDGER"),
        Found("UNCOVERED", timeframe="7m"),
        Found("UNCOVERED", timeframe=None),
        Found("UNCOVERED"),
    )
    assert to_ask_for(StoreCheck("a.db", (), findings), EVER_MS) == {
        (MARKET, Timeframe.M1): SpanSet.of((BASE_MS, BASE_MS + 60_000))
    }
