"""JSON for programs keeps every digit."""

from __future__ import annotations

import json
from decimal import Decimal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig import open_rig

from marketpipe.cli.rows import json_line, row


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_is_a_json_number_with_all_its_digits(number):
    read = json.loads(json_line({"n": number}), parse_float=Decimal, parse_int=Decimal)["n"]
    assert read.as_tuple() == number.as_tuple()


async def test_a_value_s_row_has_its_fields_under_their_names_and_its_age(autojump_clock):
    async with open_rig() as rig:
        ticker = await rig.market.get_ticker("KRW-BTC")
    read = json.loads(json_line(row(ticker, ticker.received_ms + 42)), parse_float=Decimal)
    assert set(read) == {field.name for field in attrs.fields(type(ticker))} | {"age_ms"}
    assert read["age_ms"] == 42
    assert read["source"] == "REST"
    assert read["price"].as_tuple() == ticker.price.as_tuple()
    assert read["high_52w_date"] == ticker.high_52w_date.isoformat()


async def test_a_candle_s_row_says_its_open_time_and_a_market_s_row_its_currencies(autojump_clock):
    async with open_rig() as rig:
        (candle,) = await rig.market.get_candle("KRW-BTC", "1d", count=1)
        market = await rig.market.get_market("USDT-BTC")
    assert json.loads(json_line(row(candle, 0)))["open_time"] == "2026-09-23T00:00:00Z"
    read = json.loads(json_line(row(market, 0)))
    assert (read["quote"], read["base"], read["cautions"]) == ("USDT", "BTC", [])


async def test_an_order_book_s_row_has_its_levels_as_objects(autojump_clock):
    async with open_rig() as rig:
        book = await rig.market.get_orderbook("KRW-BTC", depth=2)
    read = json.loads(json_line(row(book, 0)), parse_float=Decimal, parse_int=Decimal)
    assert read["bids"] == [{"price": level.price, "size": level.size} for level in book.bids]


def test_what_has_no_place_in_json_is_refused():
    with pytest.raises(TypeError):
        json_line(object())
