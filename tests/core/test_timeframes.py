"""Bar boundaries against the calendar: a naive model that walks through `datetime`, for every timeframe."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketpipe.core.timeframes import Timeframe, bars_between, ceil, floor, next_open, opens_between, parse, shift

ALL = list(Timeframe)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SPAN = (datetime(1950, 1, 1, tzinfo=UTC), datetime(2110, 1, 1, tzinfo=UTC))

UNITS = {
    "1s": timedelta(seconds=1),
    "1m": timedelta(minutes=1),
    "3m": timedelta(minutes=3),
    "5m": timedelta(minutes=5),
    "10m": timedelta(minutes=10),
    "15m": timedelta(minutes=15),
    "30m": timedelta(minutes=30),
    "1h": timedelta(hours=1),
    "4h": timedelta(hours=4),
}


def ms(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def moment(at_ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=at_ms)


def naive_open(timeframe: Timeframe, at: datetime) -> datetime:
    """The open time of the bar that holds `at`, by the words of the rule."""
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    match timeframe.value:
        case "1y":
            return midnight.replace(month=1, day=1)
        case "1M":
            return midnight.replace(day=1)
        case "1w":
            return midnight - timedelta(days=at.weekday())  # Monday is 0
        case "1d":
            return midnight
        case name:
            return midnight + (at - midnight) // UNITS[name] * UNITS[name]


def naive_next(timeframe: Timeframe, opened: datetime) -> datetime:
    match timeframe.value:
        case "1y":
            return opened.replace(year=opened.year + 1)
        case "1M":
            return naive_open(timeframe, opened + timedelta(days=31))
        case "1w":
            return opened + timedelta(days=7)
        case "1d":
            return opened + timedelta(days=1)
        case name:
            return opened + UNITS[name]


moments = st.integers(ms(SPAN[0]), ms(SPAN[1]))
timeframes = st.sampled_from(ALL)


@settings(deadline=None)
@given(timeframe=timeframes, at_ms=moments)
@example(timeframe=Timeframe.W1, at_ms=0)  # a Thursday
@example(timeframe=Timeframe.MONTH, at_ms=ms(datetime(2024, 2, 29, 23, 59, tzinfo=UTC)))
@example(timeframe=Timeframe.Y1, at_ms=-1)
def test_a_bar_opens_where_the_calendar_says(timeframe, at_ms):
    assert floor(timeframe, at_ms) == ms(naive_open(timeframe, moment(at_ms)))


@settings(deadline=None)
@given(timeframe=timeframes, at_ms=moments)
def test_a_bar_ends_where_the_calendar_says(timeframe, at_ms):
    """And its last millisecond still belongs to it."""
    opened = naive_open(timeframe, moment(at_ms))
    end_ms = next_open(timeframe, ms(opened))
    assert end_ms == ms(naive_next(timeframe, opened))
    assert floor(timeframe, end_ms - 1) == ms(opened)
    assert floor(timeframe, end_ms) == end_ms


@settings(deadline=None)
@given(timeframe=timeframes, at_ms=moments, bars=st.integers(0, 40))
def test_shifting_walks_bar_by_bar_in_both_directions(timeframe, at_ms, bars):
    """Forward by as many steps of the calendar, and back again to where it began; 0 stays."""
    opened = naive_open(timeframe, moment(at_ms))
    walked = opened
    for _ in range(bars):
        walked = naive_next(timeframe, walked)
    assert shift(timeframe, ms(opened), bars) == ms(walked)
    assert shift(timeframe, ms(walked), -bars) == ms(opened)


@settings(deadline=None)
@given(timeframe=timeframes, start_ms=moments, bars=st.integers(0, 40), into=st.floats(0, 1), before=st.integers(0, 1))
@example(timeframe=Timeframe.M1, start_ms=0, bars=0, into=0.0, before=0)
@example(timeframe=Timeframe.M1, start_ms=60_000, bars=1, into=0.0, before=0)
@example(timeframe=Timeframe.M1, start_ms=60_000, bars=0, into=0.0, before=1)
def test_the_bars_that_open_in_a_half_open_range_are_counted(timeframe, start_ms, bars, into, before):
    """Against a walk from one open time to the next; ranges end at, before and anywhere between open times."""
    end = naive_open(timeframe, moment(start_ms))
    for _ in range(bars):
        end = naive_next(timeframe, end)
    width_ms = ms(naive_next(timeframe, end)) - ms(end)
    end_ms = ms(end) + int(into * (width_ms - 1)) + before
    count, opened = 0, naive_open(timeframe, moment(start_ms))
    while ms(opened) < end_ms:
        count += start_ms <= ms(opened)
        opened = naive_next(timeframe, opened)
    assert bars_between(timeframe, start_ms, end_ms) == count


@settings(deadline=None)
@given(timeframe=timeframes, start_ms=moments, backwards_ms=st.integers(0, 10**11))
def test_a_range_that_ends_before_it_starts_holds_no_bar(timeframe, start_ms, backwards_ms):
    assert bars_between(timeframe, start_ms, start_ms - backwards_ms) == 0
    assert list(opens_between(timeframe, start_ms, start_ms - backwards_ms)) == []


@settings(deadline=None)
@given(timeframe=timeframes, at_ms=moments)
@example(timeframe=Timeframe.W1, at_ms=0)  # a Thursday
@example(timeframe=Timeframe.W1, at_ms=-3 * 86_400_000)  # a Monday
@example(timeframe=Timeframe.MONTH, at_ms=ms(datetime(2024, 2, 29, 0, 0, tzinfo=UTC)))
@example(timeframe=Timeframe.Y1, at_ms=-1)
def test_the_first_open_time_from_a_moment_on_is_the_one_the_calendar_has_next(timeframe, at_ms):
    """An open time is its own; any other moment has that of the bar after its own."""
    opened = naive_open(timeframe, moment(at_ms))
    expected = opened if opened == moment(at_ms) else naive_next(timeframe, opened)
    assert ceil(timeframe, at_ms) == ms(expected)


@settings(deadline=None)
@given(timeframe=timeframes, start_ms=moments, bars=st.integers(0, 40), into=st.floats(0, 1))
def test_open_times_in_a_range_are_those_a_walk_through_the_calendar_passes(timeframe, start_ms, bars, into):
    """The end itself does not belong to it."""
    end = opened = naive_open(timeframe, moment(start_ms))
    for _ in range(bars):
        end = naive_next(timeframe, end)
    end_ms = ms(end) + int(into * (ms(naive_next(timeframe, end)) - ms(end)))
    passed = []
    while ms(opened) < end_ms:
        passed.append(ms(opened))
        opened = naive_next(timeframe, opened)
    found = opens_between(timeframe, start_ms, end_ms)
    assert list(found) == [open_ms for open_ms in passed if open_ms >= start_ms]
    assert len(found) == bars_between(timeframe, start_ms, end_ms)


@settings(deadline=None)
@given(day=st.integers(-7305, 7305))
def test_days_weeks_months_and_years_are_told_apart_day_by_day(day):
    """Twenty years before and after 1990 in the plainest words there are: the fields of the date."""
    at = datetime(1990, 1, 1, tzinfo=UTC) + timedelta(days=day)
    begins = {
        Timeframe.D1: True,
        Timeframe.W1: at.isoweekday() == 1,
        Timeframe.MONTH: at.day == 1,
        Timeframe.Y1: (at.month, at.day) == (1, 1),
    }
    for timeframe, is_open in begins.items():
        assert (floor(timeframe, ms(at)) == ms(at)) is is_open
        assert (ceil(timeframe, ms(at)) == ms(at)) is is_open
        assert bars_between(timeframe, ms(at), ms(at) + 86_400_000) == is_open


@pytest.mark.parametrize(
    ("timeframe", "opened", "days"),
    [
        ("1M", (2024, 2, 1), 29),
        ("1M", (2023, 2, 1), 28),
        ("1M", (2100, 2, 1), 28),
        ("1M", (2000, 2, 1), 29),
        ("1M", (2026, 4, 1), 30),
        ("1M", (2026, 12, 1), 31),
        ("1y", (2024, 1, 1), 366),
        ("1y", (2026, 1, 1), 365),
        ("1w", (2026, 10, 5), 7),
    ],
)
def test_months_and_years_have_their_length(timeframe, opened, days):
    opened_ms = ms(datetime(*opened, tzinfo=UTC))
    assert floor(parse(timeframe), opened_ms) == opened_ms
    assert next_open(parse(timeframe), opened_ms) - opened_ms == days * 86_400_000


def test_weeks_begin_on_monday():
    """Sunday 4 October 2026 belongs to the week of Monday 28 September."""
    sunday_ms = ms(datetime(2026, 10, 4, 23, 59, 59, tzinfo=UTC))
    assert moment(floor(Timeframe.W1, sunday_ms)) == datetime(2026, 9, 28, tzinfo=UTC)
    assert moment(floor(Timeframe.W1, sunday_ms + 1000)) == datetime(2026, 10, 5, tzinfo=UTC)


def test_days_and_four_hours_are_those_of_utc_and_not_of_korea():
    """09:00 in Seoul is midnight UTC."""
    nine_in_seoul_ms = ms(datetime(2026, 3, 2, 0, 0, tzinfo=UTC))
    for timeframe in (Timeframe.D1, Timeframe.H4):
        assert floor(timeframe, nine_in_seoul_ms) == nine_in_seoul_ms
        assert floor(timeframe, nine_in_seoul_ms - 1) < nine_in_seoul_ms


def test_every_timeframe_is_found_by_its_name():
    names = ["1s", "1m", "3m", "5m", "10m", "15m", "30m", "1h", "4h", "1d", "1w", "1M", "1y"]
    assert [str(timeframe) for timeframe in ALL] == names
    assert [parse(name) for name in names] == ALL
    assert [parse(timeframe) for timeframe in ALL] == ALL


def test_a_minute_is_no_month():
    assert parse("1m") is Timeframe.M1
    assert parse("1M") is Timeframe.MONTH


def test_the_exchanges_own_spellings_of_hours_are_understood():
    assert parse("60m") is Timeframe.H1
    assert parse("240m") is Timeframe.H4


@pytest.mark.parametrize("name", ["", "2m", "1H", "1D", "1 m", " 1m", "minute", "1mo", "M1"])
def test_an_unknown_name_is_refused_with_the_names_that_are_allowed(name):
    with pytest.raises(ValueError, match=r"unknown timeframe .*; allowed: 1s 1m .* 1M 1y 60m 240m") as caught:
        parse(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("wrong", [None, 1, 60.0, b"1m", ["1m"]])
def test_something_else_than_a_name_is_a_type_error(wrong):
    with pytest.raises(TypeError, match="timeframe must be a str"):
        parse(wrong)
