"""Moments as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from marketpipe.cli.moments import moment

NOW_MS = 1_790_166_896_789


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1790166896000", 1_790_166_896_000),
        ("2026-11-01T00:00Z", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T09:00+09:00", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01 00:00:30+00:00", datetime(2026, 11, 1, 0, 0, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_epoch_milliseconds_or_has_a_timezone(text, meant):
    assert moment("--start", text, NOW_MS) == meant


@pytest.mark.parametrize(
    ("text", "ago_s"),
    [("30d", 30 * 86_400), ("12h", 43_200), ("90m", 5_400), ("45s", 45), ("2w", 14 * 86_400), ("1y", 365 * 86_400),
     ("3 h ago", 10_800), ("0d", 0)],
)  # fmt: skip
def test_a_number_and_a_unit_is_so_long_ago(text, ago_s):
    assert moment("--start", text, NOW_MS) == NOW_MS - ago_s * 1000


def test_a_day_begins_where_the_exchange_s_days_do():
    assert moment("--start", "2026-11-01", NOW_MS) == datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-11-01T00:00", "2026-11-01 09:00"])
def test_a_moment_without_a_timezone_is_refused_by_the_option_s_name_with_the_cure(text):
    with pytest.raises(ValueError, match=rf"^--end must have a timezone, such as .*\+09:00 .*, was '{text}'$"):
        moment("--end", text, NOW_MS)


@pytest.mark.parametrize("text", ["banana", "", "2026-13-01T00:00Z", "2026-13-01", "30", "30 days", "1M", "-3d", "d"])
def test_what_is_no_moment_is_refused_by_the_option_s_name(text):
    with pytest.raises(ValueError, match=f"^--start must be .*, was '?{text}"):
        moment("--start", text, NOW_MS)


@pytest.mark.parametrize("text", ["1790166896", "-1", "99999999999999999", "100y", "999999999y"])
def test_a_number_that_cannot_be_milliseconds_is_refused_by_the_option_s_name(text):
    with pytest.raises(ValueError, match=r"^--start must .*, was "):
        moment("--start", text, NOW_MS)
