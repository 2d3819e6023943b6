"""Numbers and times are spelt as the exchange spells them, digit for digit."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.sim import lexemes

amounts = st.integers(0, 10**27)


@given(value=st.integers(-(10**20), 10**20))
def test_eight_decimals_are_exact(value):
    text = lexemes.fixed8(value)
    assert Decimal(text) == Decimal(value).scaleb(-8)
    assert len(text.partition(".")[2]) == 8
    assert lexemes.price8(value) == text


@given(value=amounts)
def test_sixteen_decimals_are_exact_and_eight_are_rounded_half_up(value):
    exact = Decimal(value).scaleb(-16)
    assert Decimal(lexemes.fixed16(value)) == exact
    assert len(lexemes.fixed16(value).partition(".")[2]) == 16
    assert lexemes.rounded8(value) == f"{exact.quantize(Decimal('1.00000000'), ROUND_HALF_UP):f}"


@given(value=st.integers(0, 10**20))
def test_the_shortest_spelling_is_exact_plain_and_has_no_digit_to_spare(value):
    text = lexemes.shortest(value)
    assert Decimal(text) == Decimal(value).scaleb(-8)
    assert not text.endswith(".")
    assert "." not in text or not text.endswith("0")
    assert "E" not in text.upper()


@given(change=st.integers(-(10**16), 10**16), base=st.integers(1, 10**16))
def test_rates_have_ten_decimals_rounded_half_up_and_zero_has_none(change, base):
    text = lexemes.rate10(change, base)
    if change == 0:
        assert text == "0"
        return
    numerator, denominator = abs(change) * 10**10 * 2 + base, 2 * base
    assert abs(Decimal(text)) == Decimal(numerator // denominator).scaleb(-10)
    assert text.startswith("-") == (change < 0)
    assert len(text.partition(".")[2]) == 10


@pytest.mark.parametrize(
    ("spelt", "text"),
    [
        (lexemes.fixed8(162_876_000 * 10**8), "162876000.00000000"),
        (lexemes.fixed8(-282_000 * 10**8), "-282000.00000000"),
        (lexemes.fixed8(-5), "-0.00000005"),
        (lexemes.change8(0), "0"),
        (lexemes.fixed16(1_377_281_558_329_616 * 10**12), "137728155832.9616000000000000"),
        (lexemes.rounded8(24_263_497_684_002_426 * 10**11), "242634976840.02426000"),
        (lexemes.rounded8(49_999_999), "0.00000000"),
        (lexemes.rounded8(50_000_000), "0.00000001"),
        (lexemes.rate10(-282_000, 163_158_000), "-0.0017283860"),
        (lexemes.shortest(116_233_000 * 10**8), "116233000"),
        (lexemes.shortest(689), "0.00000689"),
        (lexemes.shortest(0), "0"),
        (lexemes.shortest(31_370), "0.0003137"),
    ],
)
def test_numbers_seen_on_the_wire(spelt, text):
    assert spelt == text


@given(at_ms=st.integers(0, 4_102_444_800_000))
def test_times_are_those_of_the_calendar(at_ms):
    when = datetime.fromtimestamp(at_ms // 1000, UTC)
    assert lexemes.moment(at_ms) == when.strftime("%Y-%m-%dT%H:%M:%S")
    assert lexemes.clock(at_ms) == when.strftime("%H:%M:%S")
    assert lexemes.compact_date(at_ms) == when.strftime("%Y%m%d")
    assert lexemes.compact_clock(at_ms) == when.strftime("%H%M%S")
    assert lexemes.day_text(at_ms // 86_400_000) == when.strftime("%Y-%m-%d")
