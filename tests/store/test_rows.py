"""The one spelling of a number."""

from __future__ import annotations

from decimal import Context, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.store.rows import number_text, number_texts

finite = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False, places=8),
    st.builds(
        lambda sign, digits, exponent: Decimal((sign, tuple(digits), exponent)),
        st.integers(0, 1),
        st.lists(st.integers(0, 9), min_size=1, max_size=60),
        st.integers(-60, 20),
    ),
)


@pytest.mark.parametrize(
    ("spelled", "text"),
    [
        ("1.16539E8", "116539000"),
        ("116539000.00000000", "116539000"),
        ("1E-8", "0.00000001"),
        ("0.10", "0.1"),
        ("100", "100"),
        ("1E+2", "100"),
        ("0", "0"),
        ("-0", "0"),
        ("-0.00", "0"),
        ("0E+9", "0"),
        ("-0E-9", "0"),
        ("-1.50", "-1.5"),
        ("1.234567890123456789012345678901234567890E+41", "123456789012345678901234567890123456789000"),
        ("1.234567890123456789012345678901E-10", "0.0000000001234567890123456789012345678901"),
        ("123456789012345678901234567890.123456789", "123456789012345678901234567890.123456789"),
    ],
)
def test_a_number_has_one_spelling(spelled: str, text: str):
    assert number_text(Decimal(spelled)) == text
    assert number_texts([Decimal(spelled)]) == [text]
    assert number_texts([Decimal(2), Decimal(spelled)]) == ["2", text]


@given(finite)
def test_a_spelling_is_exact_and_plain(number: Decimal):
    text = number_text(number)
    assert Decimal(text) == number
    assert not set(text) - set("-0123456789.")
    assert "." not in text or text[-1] in "123456789"


@given(finite, st.integers(0, 12))
def test_equal_numbers_are_spelled_alike(number: Decimal, zeros: int):
    with localcontext(Context(prec=200)):
        longer = number.quantize(Decimal(1).scaleb(min(int(number.as_tuple().exponent), 0) - zeros))
    assert longer == number
    assert number_text(longer) == number_text(number)


@given(st.lists(finite))
def test_many_are_spelled_as_each_alone(numbers: list[Decimal]):
    assert number_texts(numbers) == [number_text(number) for number in numbers]


@pytest.mark.parametrize("odd", ["NaN", "-NaN", "sNaN", "NaN123", "Infinity", "-Infinity"])
def test_what_is_no_number_has_no_spelling(odd: str):
    with pytest.raises(ValueError, match=f"must be a number, was {odd}"):
        number_text(Decimal(odd))
    with pytest.raises(ValueError, match=f"must be a number, was {odd}"):
        number_texts([Decimal(1), Decimal(odd)])
