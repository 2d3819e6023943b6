"""What a chart shows: every bar in its place, nothing lost where bars are merged, and words that are true."""

from __future__ import annotations

import itertools
from datetime import UTC, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_bars import MINUTE_MS, START_MS, opens, reading, row

from marketpipe.cli.chart_marks import Drawing, Kind
from marketpipe.core import timeframes
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleSeries, CandleState

SEOUL = ZoneInfo("Asia/Seoul")
DAY_MS = 86_400_000


def final(slot: int, **changes) -> Candle:
    return row(slot, state=CandleState.FINAL, **changes)


def series(*bars: Candle) -> CandleSeries:
    return CandleSeries("KRW-BTC", bars[0].timeframe if bars else Timeframe.M1, bars)


def drawing(*bars: Candle, room: int = 1000, zone=UTC, **options) -> Drawing:
    return Drawing.of(series(*bars), room=room, zone=zone, **options)


@st.composite
def histories(draw) -> CandleSeries:
    """Bars with holes, some of them made up, the last one perhaps running."""
    timeframe = draw(st.sampled_from(Timeframe))
    open_ms = timeframes.floor(timeframe, draw(st.integers(0, 1_800_000_000)) * 1000)
    bars = []
    for step in draw(st.lists(st.sampled_from([1, 1, 2, 30]), min_size=1, max_size=60)):
        open_ms = timeframes.shift(timeframe, open_ms, step)
        prices = sorted(draw(st.lists(st.integers(1, 99), min_size=4, max_size=4)))
        low, one, two, high = map(Decimal, prices)
        opened, closed = (one, two) if draw(st.booleans()) else (two, one)
        filled = draw(st.integers(0, 5)) == 0
        volume = Decimal(0) if filled else Decimal(draw(st.integers(1, 10**9))).scaleb(-8)
        bars.append(
            final(0, timeframe=timeframe, open_ms=open_ms, open=opened, high=high, low=low, close=closed, volume=volume)
        )
        bars[-1] = attrs.evolve(bars[-1], filled=filled)
    if draw(st.booleans()) and not bars[-1].filled:
        bars[-1] = attrs.evolve(bars[-1], state=CandleState.RUNNING)
    return CandleSeries("KRW-BTC", timeframe, tuple(bars))


@given(histories(), st.integers(1, 100))
def test_merging_loses_neither_volume_nor_extremes_nor_ends(bars, room):
    shown = Drawing.of(bars, room=room, zone=UTC)
    real = [bar for bar in bars if not bar.filled]
    marks = [mark for mark in shown.marks if mark.kind is not Kind.FILLED]
    assert sum(mark.bars for mark in marks) == len(real)
    assert sum(mark.volume for mark in marks) == sum(bar.volume for bar in real)
    if real:
        assert max(mark.high for mark in marks) == max(bar.high for bar in real)
        assert min(mark.low for mark in marks) == min(bar.low for bar in real)
        assert (marks[0].open, marks[-1].close) == (real[0].open, real[-1].close)
    assert (shown.marks[-1].kind is Kind.RUNNING) == (bars[-1].state is CandleState.RUNNING)


@given(histories(), st.integers(1, 100))
def test_every_bar_lies_in_a_mark_and_marks_lie_in_order_within_the_time_shown(bars, room):
    shown = Drawing.of(bars, room=room, zone=UTC)
    edges = [edge for mark in shown.marks for edge in (mark.start_ms, mark.end_ms)]
    assert edges == sorted(edges)
    assert shown.start_ms <= edges[0]
    assert edges[-1] <= shown.end_ms
    for bar in bars:
        assert any(mark.start_ms <= bar.open_ms and bar.close_ms <= mark.end_ms for mark in shown.marks)


@given(histories(), st.integers(1, 100))
def test_marks_have_room_unless_there_is_nothing_coarser(bars, room):
    shown = Drawing.of(bars, room=room, zone=UTC)
    widest = max(mark.end_ms - mark.start_ms for mark in shown.marks)
    coarsest = bars.timeframe is Timeframe.W1 or widest >= 365 * DAY_MS
    # The first and the last mark may each stick out.
    assert coarsest or (shown.end_ms - shown.start_ms) / widest <= room + 2


@pytest.mark.parametrize(
    ("timeframe", "bars", "name"),
    [
        ("1s", 400, None),
        ("1s", 700, "2s"),
        ("1s", 3_600, "10s"),
        ("1m", 3_000, "10m"),
        ("1m", 100_000, "6h"),
        ("3m", 500, "15m"),
        ("10m", 500, "30m"),
        ("4h", 500, "12h"),
        ("1d", 500, "1w"),
        ("1d", 3_000, "1M"),
        ("1w", 500, None),
        ("1M", 500, "1y"),
        ("1y", 450, None),
    ],
)
def test_bars_are_merged_into_the_finest_that_fit_and_the_title_says_so(timeframe, bars, name):
    timeframe = Timeframe(timeframe)
    first_ms = timeframes.floor(timeframe, 0 if timeframe is Timeframe.Y1 else DAY_MS * 4)
    ends = [first_ms, timeframes.shift(timeframe, first_ms, bars - 1)]
    shown = drawing(*(final(0, timeframe=timeframe, open_ms=at_ms) for at_ms in ends), room=400)
    assert shown.title == f"KRW-BTC {timeframe}" + (f", drawn as {name} bars" if name else "")


def test_a_merged_bar_is_what_the_exchange_would_have_made():
    bars = [
        final(0, open=Decimal(5), high=Decimal(8), low=Decimal(4), close=Decimal(6), volume="1.5"),
        final(4, open=Decimal(6), high=Decimal(9), low=Decimal(2), close=Decimal(3), volume="0.00000001"),
        final(5),
    ]
    first, second = drawing(*bars, room=2).marks
    assert (first.open, first.high, first.low, first.close) == (5, 9, 2, 3)
    assert (first.volume, first.bars, first.change) == (Decimal("1.50000001"), 2, -2)
    assert (first.start_ms, first.end_ms) == (opens(0), opens(5))
    assert second.bars == 1


def test_a_made_up_bar_says_nothing_beside_a_real_one():
    made_up = attrs.evolve(final(0, volume=0, high=Decimal(99)), filled=True)
    (mark,) = drawing(made_up, final(1, high=Decimal(8)), room=1).marks
    assert (mark.kind, mark.high, mark.bars) == (Kind.TRADED, 8, 1)
    (mark,) = drawing(made_up, room=1).marks
    assert mark.kind is Kind.FILLED


def test_the_last_bar_runs_and_so_does_what_it_is_merged_into():
    assert [mark.kind for mark in drawing(final(0), reading(1)).marks] == [Kind.TRADED, Kind.RUNNING]
    assert [mark.kind for mark in drawing(final(0), reading(1), room=1).marks] == [Kind.RUNNING]


def test_the_wicks_reach_from_the_ends_to_the_body():
    (mark,) = drawing(final(0, open=Decimal(5), high=Decimal(9), low=Decimal(4), close=Decimal(6))).marks
    assert mark.wicks == ((4, 5), (9, 6))


# -- time ---------------------------------------------------------------------------------------------------------


def test_the_time_shown_is_what_bars_and_unknown_spans_take():
    shown = drawing(final(3), final(5))
    assert (shown.start_ms, shown.end_ms) == (opens(3), opens(6))
    shown = drawing(final(3), final(5), unknown=[(opens(8), opens(9)), (opens(1), opens(2))])
    assert (shown.start_ms, shown.end_ms) == (opens(1), opens(9))


def test_a_span_that_is_asked_for_is_shown_whole_and_nothing_beside_it():
    unknown = [(opens(-5), opens(1)), (opens(9), opens(20)), (opens(30), opens(40))]
    shown = drawing(final(-2), final(3), final(12), span=(opens(0), opens(10)), unknown=unknown)
    assert (shown.start_ms, shown.end_ms) == (opens(0), opens(10))
    assert [mark.start_ms for mark in shown.marks] == [opens(3)]
    assert shown.unknown == ((opens(0), opens(1)), (opens(9), opens(10)))


@given(st.lists(st.tuples(st.integers(-9, 40), st.integers(1, 9)), max_size=8))
def test_unknown_spans_are_told_in_order_apart_and_within_the_time_shown(spans):
    unknown = [(opens(first), opens(first + slots)) for first, slots in spans]
    shown = drawing(final(7), span=(opens(0), opens(30)), unknown=unknown)
    slots = {slot for first, count in spans for slot in range(first, first + count) if 0 <= slot < 30}
    told = [((a - START_MS) // MINUTE_MS, (b - START_MS) // MINUTE_MS) for a, b in shown.unknown]
    assert {slot for a, b in told for slot in range(a, b)} == slots
    assert all(a < b for a, b in told)
    assert all(one[1] < two[0] for one, two in itertools.pairwise(told))


@given(st.sets(st.integers(0, 29), min_size=1), st.lists(st.tuples(st.integers(-9, 40), st.integers(1, 9)), max_size=5))
def test_slots_without_a_trade_are_counted_where_they_are_known(traded, spans):
    unknown = [(opens(first), opens(first + slots)) for first, slots in spans]
    shown = drawing(*map(final, sorted(traded)), span=(opens(0), opens(30)), unknown=unknown)
    hidden = {slot for first, count in spans for slot in range(first, first + count)}
    empty = len(set(range(30)) - traded - hidden)
    words = f", {empty} slot{'s' * (empty != 1)} without a trade" if empty else ""
    assert shown.subtitle.partition("   ")[0] == f"{len(traded)} bar{'s' * (len(traded) != 1)} of 1m{words}"


@pytest.mark.parametrize("span", [(5, 5), (6, 5)])
def test_a_span_that_is_empty_is_refused(span):
    with pytest.raises(ValueError, match=f"a span must end after it starts, was {span[0]} to {span[1]}"):
        drawing(final(0), span=span)
    with pytest.raises(ValueError, match="a span must end after it starts"):
        drawing(final(0), unknown=[span])


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="there is no 1m bar of KRW-BTC to draw"):
        drawing()
    with pytest.raises(ValueError, match="there is no 1m bar of KRW-BTC to draw"):
        drawing(final(0), span=(opens(1), opens(5)))


# -- words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeframe", "zone", "words"),
    [
        ("1s", UTC, "1 bar of 1s   2026-09-23 12:35:00 to 2026-09-23 12:35:01"),
        ("1m", UTC, "1 bar of 1m   2026-09-23 12:35 to 2026-09-23 12:36"),
        ("1m", SEOUL, "1 bar of 1m   2026-09-23 21:35 to 2026-09-23 21:36"),
        ("1d", UTC, "1 bar of 1d   2026-09-23 to 2026-09-24"),
        ("1d", SEOUL, "1 bar of 1d   2026-09-23 09:00 to 2026-09-24 09:00"),
    ],
)
def test_the_time_is_told_in_the_zone_asked_for_and_as_exactly_as_it_takes(timeframe, zone, words):
    open_ms = timeframes.floor(Timeframe(timeframe), START_MS)
    assert drawing(final(0, timeframe=Timeframe(timeframe), open_ms=open_ms), zone=zone).subtitle == words


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        (UTC, "time (UTC)"),
        (ZoneInfo("UTC"), "time (UTC)"),
        (SEOUL, "time (Asia/Seoul, UTC+09:00)"),
        (timezone(timedelta(hours=9)), "time (UTC+09:00)"),
        (timezone(timedelta(hours=9), "KST"), "time (KST, UTC+09:00)"),
        (ZoneInfo("America/New_York"), "time (America/New_York, UTC-04:00 to UTC-05:00)"),
    ],
)
def test_the_axis_names_its_zone_and_every_offset_it_has(zone, name):
    # Over the night of 1 November 2026, when New York leaves its summer time.
    bars = [final(0, timeframe=Timeframe.D1, open_ms=START_MS // DAY_MS * DAY_MS + days * DAY_MS) for days in (30, 50)]
    assert drawing(*bars, zone=zone).time_name == name


def test_a_title_of_one_s_own_still_says_that_bars_were_merged():
    assert drawing(final(0), title="My coin").title == "My coin"
    assert drawing(final(0), final(5), title="My coin", room=1).title == "My coin, drawn as 15m bars"


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        ([(0, 200)], "3 h 20 min"),
        ([(0, 1), (5, 6)], "2 spans, 2 min"),
        ([(0, 1441)], "1 d 1 min"),
        ([(0, 1440 * 2000)], "2,000 d"),
    ],
)
def test_the_legend_says_how_much_is_unknown(spans, words):
    unknown = [(opens(a), opens(b)) for a, b in spans]
    assert drawing(final(0), unknown=unknown).unknown_name == f"not fetched: {words}"


def test_even_a_moment_is_told():
    assert drawing(final(0), unknown=[(opens(1), opens(1) + 7)]).unknown_name == "not fetched: 7 ms"


@pytest.mark.parametrize(
    ("low", "high", "axis"), [("10", "20", (9.5, 20.5)), ("5", "5", (4.995, 5.005)), ("0", "0", (-1.0, 1.0))]
)
def test_the_axis_of_prices_has_a_margin_even_where_there_is_one_price_only(low, high, axis):
    bar = final(0, low=Decimal(low), high=Decimal(high), open=Decimal(low), close=Decimal(low))
    assert drawing(bar).prices == pytest.approx(axis)


def test_the_axis_of_volumes_begins_at_nothing():
    assert drawing(final(0, volume=50)).volumes == pytest.approx((0, 54))
    assert drawing(attrs.evolve(final(0, volume=0), filled=True)).volumes == (0, 1)
