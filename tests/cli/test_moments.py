"""Moments as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from marketpipe.cli.moments import moment


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
    assert moment("--start", text) == meant


@pytest.mark.parametrize("text", ["2026-11-01", "2026-11-01T00:00"])
def test_a_moment_without_a_timezone_is_refused_by_the_option_s_name_with_the_cure(text):
    with pytest.raises(ValueError, match=rf"^--end must have a timezone, such as .*\+09:00 .*, was '{text}'$"):
        moment("--end", text)


@pytest.mark.parametrize("text", ["banana", "", "2026-13-01T00:00Z"])
def test_what_is_no_moment_is_refused_by_the_option_s_name(text):
    with pytest.raises(ValueError, match=f"^--start must be a time such as .*, was '{text}'$"):
        moment("--start", text)


@pytest.mark.parametrize("text", ["1790166896", "-1", "99999999999999999"])
def test_a_number_that_cannot_be_milliseconds_is_refused_by_the_option_s_name(text):
    with pytest.raises(ValueError, match=f"^--start must .*, was {text}"):
        moment("--start", text)
