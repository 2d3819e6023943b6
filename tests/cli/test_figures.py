"""Numbers as people read them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.cli import figures


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("117404000.00000000", "117,404,000"),
        ("1.16539E8", "116,539,000"),
        ("8E-8", "0.00000008"),
        ("100", "100"),
        ("0.02589000", "0.02589"),
        ("-12.50", "-12.5"),
        ("0", "0"),
    ],
)
def test_a_price_is_shown_without_needless_zeros_and_without_exponent(number, text):
    assert figures.exact(Decimal(number)) == text


@given(st.decimals(min_value=-(10**15), max_value=10**15, places=8))
def test_no_digit_of_a_price_is_lost(number):
    assert Decimal(figures.exact(number).replace(",", "")) == number


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("999", "999"),
        ("1234", "1.234K"),
        ("302618658763", "302.6B"),
        ("2.5E12", "2.5T"),
        ("0.3", "0.3"),
        ("0.00001234567", "0.00001235"),
        ("8E-8", "0.00000008"),
        ("6E+10", "60B"),
        ("1E+3", "1K"),
        ("-2E+5", "-200K"),
        ("0E+7", "0"),
        ("0.00000000", "0"),
        ("100.00000000", "100"),
        ("999.96", "1K"),
        ("999960000", "1B"),
        ("1234567E12", "1,235,000T"),
    ],
)
def test_a_sum_is_shown_in_four_digits(number, text):
    assert figures.amount(Decimal(number)) == text


@given(st.decimals(min_value=-(10**16), max_value=10**16, places=8), st.integers(0, 3))
def test_a_sum_is_shown_alike_however_its_zeros_are_written(number, exponent):
    text = figures.amount(number)
    assert set(text) <= set("-0123456789,.KMBT")
    assert figures.amount(number.normalize()) == text
    assert figures.amount(number.quantize(Decimal(1).scaleb(-8 - exponent))) == text


@given(st.decimals(min_value=-(10**16), max_value=10**16, places=8))
def test_a_sum_loses_no_more_than_its_fifth_digit(number):
    text = figures.amount(number).replace(",", "")
    scales = {"K": 3, "M": 6, "B": 9, "T": 12}
    shown = Decimal(text.rstrip("KMBT")).scaleb(scales.get(text[-1], 0))
    assert abs(shown - number) <= abs(number) * Decimal("0.0005")


@pytest.mark.parametrize(("fraction", "text"), [("-0.0112", "-1.12 %"), ("0.5", "+50.00 %"), ("0", "0.00 %")])
def test_a_change_carries_its_sign(fraction, text):
    assert figures.percent(Decimal(fraction)) == text


@pytest.mark.parametrize(
    ("age_ms", "text"),
    [
        (12, "12 ms"),
        (3_400, "3.4 s"),
        (420_000, "7 min"),
        (5 * 3_600_000, "5 h"),
        (9 * 86_400_000, "9 d"),
        (-5, "-5 ms"),
    ],
)
def test_an_age_is_shown_in_the_unit_that_fits(age_ms, text):
    assert figures.age(age_ms) == text


def test_a_rate_counts_per_second_and_does_not_divide_by_zero():
    assert figures.rate(500, "symbols", 0.05) == "10,000 symbols/s"
    assert figures.rate(500, "symbols", 0.0) == "at once"


def test_times_are_shown_in_utc():
    assert figures.utc(1_790_166_896_789) == "2026-09-23 12:34"
    assert figures.utc(1_790_166_896_789, digits="milliseconds") == "2026-09-23 12:34:56.789"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.2, "less than 1 s"),
        (44.4, "44 s"),
        (59.9, "1 min"),
        (83, "1 min 20 s"),
        (3_599, "59 min 50 s"),
        (3_961, "1 h 6 min"),
        (7_200, "2 h"),
        (86_400 * 2 + 3_600 * 3 + 59, "2 d 3 h"),
        (86_400 * 2 + 59, "2 d"),
    ],
)
def test_a_duration_has_the_two_units_that_fit_and_no_more_digits_than_one_can_rely_on(seconds, text):
    assert figures.duration(seconds) == text


def test_one_thing_is_no_plural():
    assert figures.counted(1, "request") == "1 request"
    assert figures.counted(1_440, "request") == "1,440 requests"
    assert figures.counted(0, "request") == "0 requests"


def test_a_span_is_told_in_utc_with_seconds_where_they_matter():
    assert figures.span(1_790_166_900_000, 1_790_170_500_000) == "2026-09-23 12:35 to 2026-09-23 13:35"
    assert figures.span(1_790_166_900_000, 1_790_166_901_000) == "2026-09-23 12:35:00 to 2026-09-23 12:35:01"


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0, "0.0 %"), (0.00001, "0.1 %"), (0.5, "50.0 %"), (0.98765, "98.8 %"), (0.99999, "99.9 %"), (1, "100.0 %")],
)
def test_a_share_looks_whole_or_empty_only_if_it_is(fraction, text):
    assert figures.share(fraction) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 ms"),
        (0.000021, "0.02 ms"),
        (0.0045, "4.5 ms"),
        (0.127, "127 ms"),
        (3.2, "3.20 s"),
        (1234.5, "1,234.50 s"),
    ],
)
def test_what_a_call_took_is_shown_in_the_unit_that_fits(seconds, text):
    assert figures.took(seconds) == text


def test_memory_is_shown_in_mebibytes():
    assert figures.mebibytes(149_735_629) == "142.8 MiB"
