"""Every combination of count, start and end means one range; every misuse is told by name and value."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.core.ranges import DEFAULT_COUNT, MAX_MS, BarRange, bar_range, epoch_ms, positive_count

KST = timezone(timedelta(hours=9))
MIDNIGHT = datetime(2026, 9, 23, tzinfo=UTC)
MIDNIGHT_MS = 1_790_121_600_000
NAIVE = MIDNIGHT.replace(tzinfo=None)

moments = st.datetimes(
    NAIVE.replace(year=1974), NAIVE.replace(year=9998), timezones=st.just(UTC) | st.just(KST)
) | st.integers(100_000_000_000, 253_370_764_799_999)


@pytest.mark.parametrize(
    ("given_", "meant"),
    [
        ((None, None, None), (DEFAULT_COUNT, None, None)),
        ((7, None, None), (7, None, None)),
        ((1_000_000, None, None), (1_000_000, None, None)),
        ((None, MIDNIGHT, None), (None, MIDNIGHT_MS, None)),
        ((None, None, MIDNIGHT), (DEFAULT_COUNT, None, MIDNIGHT_MS)),
        ((7, MIDNIGHT, None), (7, MIDNIGHT_MS, None)),
        ((7, None, MIDNIGHT_MS), (7, None, MIDNIGHT_MS)),
        ((None, MIDNIGHT_MS, MIDNIGHT_MS + 1), (None, MIDNIGHT_MS, MIDNIGHT_MS + 1)),
    ],
)
def test_what_is_not_said_is_the_present_the_past_or_the_default_count(given_: tuple[Any, ...], meant: tuple[Any, ...]):
    assert bar_range(*given_) == BarRange(*meant)


@given(st.none() | st.integers(1, 10**9), st.none() | moments, st.none() | moments)
def test_a_range_is_always_bounded_and_never_empty(count: int | None, start: Any, end: Any):
    if None not in (count, start, end):
        with pytest.raises(ValueError, match="at most two of count, start and end"):
            bar_range(count, start, end)
    elif None not in (start, end) and epoch_ms("start", start) >= epoch_ms("end", end):
        with pytest.raises(ValueError, match="start must be before end"):
            bar_range(count, start, end)
    else:
        assert_bounded(bar_range(count, start, end), start, end)


def assert_bounded(asked: BarRange, start: Any, end: Any):
    assert asked.count is not None or asked.start_ms is not None
    assert asked.start_ms is None or asked.end_ms is None or asked.start_ms < asked.end_ms
    assert (asked.start_ms is None) == (start is None)
    assert (asked.end_ms is None) == (end is None)


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ((1, MIDNIGHT, MIDNIGHT + timedelta(1)), ["at most two of count, start and end"]),
        ((None, MIDNIGHT, MIDNIGHT), ["start must be before end", str(MIDNIGHT)]),
        ((None, MIDNIGHT_MS + 1, MIDNIGHT_MS), ["start must be before end", str(MIDNIGHT_MS + 1), str(MIDNIGHT_MS)]),
        ((None, MIDNIGHT, datetime(2026, 9, 23, 9, tzinfo=KST)), ["start must be before end"]),
        ((0, None, None), ["count", "at least 1", "was 0"]),
        ((-5, None, None), ["count", "at least 1", "was -5"]),
        ((None, NAIVE, None), ["start", "aware", "2026-09-23 00:00:00", "timezone"]),
        ((None, None, NAIVE), ["end", "aware", "timezone", "tzinfo=timezone.utc"]),
        ((None, MIDNIGHT_MS // 1000, None), ["start", "milliseconds", str(MIDNIGHT_MS // 1000), "seconds"]),
        ((None, 1, None), ["start", "was 1", "seconds"]),
        ((None, -1, None), ["start", "between 1970 and 9999", "was -1"]),
        ((None, None, MIDNIGHT_MS * 1000), ["end", "between 1970 and 9999", str(MIDNIGHT_MS * 1000)]),
        ((None, datetime(1969, 12, 31, tzinfo=UTC), None), ["start", "between 1970 and 9999", "1969"]),
        ((None, None, datetime(9999, 6, 1, tzinfo=UTC)), ["end", "between 1970 and 9999"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(given_: tuple[Any, ...], words: list[str]):
    with pytest.raises(ValueError, match=".*".join(["", *map(re.escape, words), ""])):
        bar_range(*given_)


@pytest.mark.parametrize("count", [True, False, 1.0, 2.5, "10", float("nan"), [1]])
def test_a_count_of_another_type_is_named(count: Any):
    with pytest.raises(TypeError, match=r"count must be a whole number of at least 1, was ") as misuse:
        positive_count(count)
    assert repr(count) in str(misuse.value)


@pytest.mark.parametrize("moment", [True, 1.5, "2026-09-23", date(2026, 9, 23), timedelta(1), float(MIDNIGHT_MS)])
@pytest.mark.parametrize("name", ["start", "end"])
def test_a_moment_of_another_type_is_named(name: str, moment: Any):
    with pytest.raises(TypeError, match=f"{name} must be an aware datetime or epoch milliseconds, was ") as misuse:
        bar_range(**{"count": None, "start": None, "end": None, name: moment})
    assert repr(moment) in str(misuse.value)


@pytest.mark.parametrize("count", [1, 200, 10**6])
def test_a_whole_number_above_zero_is_a_count(count: int):
    assert positive_count(count) == count


@given(moments)
def test_a_moment_is_the_same_in_every_zone_and_in_milliseconds(moment: datetime | int):
    at_ms = epoch_ms("start", moment)
    utc = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    if isinstance(moment, datetime):
        assert timedelta(0) <= moment - utc < timedelta(milliseconds=1)
    else:
        assert at_ms == moment
    assert epoch_ms("end", utc.astimezone(KST)) == epoch_ms("end", utc) == at_ms


def test_the_epoch_itself_is_no_number_of_seconds():
    assert epoch_ms("start", 0) == 0


def test_a_moment_must_lie_before_the_year_9999():
    assert epoch_ms("start", MAX_MS - 1) == MAX_MS - 1
    with pytest.raises(ValueError, match="between 1970 and 9999"):
        epoch_ms("start", MAX_MS)


def test_three_bounds_are_one_too_many():
    with pytest.raises(ValueError, match=r"^give at most two of count, start and end$"):
        bar_range(1, 0, MAX_MS - 1)
