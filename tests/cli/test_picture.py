"""The picture of a bar: as wide as asked, and each part of it where the prices are."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.cli.picture import picture
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleState, Source


def bar(opened, high, low, close) -> Candle:
    prices = [Decimal(price) for price in (opened, high, low, close)]
    one = Decimal(1)
    return Candle("KRW-BTC", Timeframe.M1, 0, *prices, one, one, 0, 0, Source.STREAM, CandleState.RUNNING)


@pytest.mark.parametrize(
    ("prices", "blocks", "plain"),
    [
        ((2, 9, 0, 7), "──█████►──", "--=====>--"),
        ((7, 9, 0, 2), "──◄█████──", "--<=====--"),
        ((0, 9, 0, 9), "█████████►", "=========>"),
        ((4, 9, 0, 4), "────┃─────", "----|-----"),
        ((5, 5, 5, 5), "    ┃     ", "    |     "),
    ],
)
def test_the_body_lies_between_open_and_close_and_its_end_shows_the_direction(prices, blocks, plain):
    assert picture(bar(*prices)) == blocks
    assert picture(bar(*prices), ascii_only=True) == plain


@given(st.lists(st.integers(-5, 2_000), min_size=4, max_size=4), st.integers(1, 30))
def test_any_bar_has_exactly_its_width_even_one_whose_parts_contradict_each_other(prices, width):
    shown = picture(bar(*prices), width=width)
    assert len(shown) == width
    assert sum(shown.count(end) for end in "►◄┃") == 1
