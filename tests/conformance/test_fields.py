"""Every field of every REST answer: it is there, it has its JSON type and form, and it is absent where it should be."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from conformance.desk import WORLD, rows, utc_ms

from marketpipe.sim.universe import CAUTIONS

Rows = list[dict[str, Any]]

SOME = "KRW-BTC,BTC-ETH,USDT-BTC,KRW-XRP"
MARKETS, DETAILS = "market/all", "market/all?is_details=true"
TICKERS = f"ticker?markets={SOME}"
BOOKS = f"orderbook?markets={SOME}"
TRADES = "trades/ticks?market=KRW-BTC&count=200"
MINUTES = "candles/minutes/5?market=KRW-BTC&count=200"
SECONDS = "candles/seconds?market=KRW-BTC&count=200"
DAYS = "candles/days?market=KRW-BTC&count=60"
WEEKS, MONTHS, YEARS = (f"candles/{kind}?market=KRW-BTC&count=40" for kind in ("weeks", "months", "years"))
CANDLES = (SECONDS, MINUTES, DAYS, WEEKS, MONTHS, YEARS)


class Fields(NamedTuple):
    """``good`` holds for each of ``names`` in every row of ``asked``; no row of ``without`` has any of them."""

    asked: Sequence[str]
    names: Sequence[str]
    good: Callable[[Any], bool]
    without: Sequence[str] = ()
    not_abroad: bool = False


def number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def positive(value: Any) -> bool:
    return number(value) and value > 0


def not_negative(value: Any) -> bool:
    return number(value) and value >= 0


def epoch_ms(value: Any) -> bool:
    return isinstance(value, int) and 1_500_000_000_000 < value < 1_900_000_000_000


def text(pattern: str) -> Callable[[Any], bool]:
    whole = re.compile(pattern)
    return lambda value: isinstance(value, str) and whole.fullmatch(value) is not None


def a_bool(value: Any) -> bool:
    return isinstance(value, bool)


code = text(r"(KRW|BTC|USDT)-[A-Z0-9]+")
date, compact_date = text(r"\d{4}-\d\d-\d\d"), text(r"\d{8}")
CASES = {
    "1.1/market": Fields([MARKETS, DETAILS], ["market"], code),
    "1.1/names": Fields([MARKETS], ["korean_name"], text(".+"), not_abroad=True),
    "1.1/english-name": Fields([MARKETS], ["english_name"], text(".+")),
    "1.1/warning": Fields([DETAILS], ["market_event.warning"], a_bool, [MARKETS], not_abroad=True),
    "1.1/caution": Fields([DETAILS], [f"market_event.caution.{name}" for name in CAUTIONS], a_bool, [MARKETS]),
    "1.2/field-market": Fields(CANDLES, ["market"], text("KRW-BTC")),
    "1.2/field-utc": Fields(CANDLES, ["candle_date_time_utc"], text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")),
    "1.2/field-kst": Fields(
        CANDLES, ["candle_date_time_kst"], text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"), not_abroad=True
    ),
    "1.2/field-prices": Fields(CANDLES, ["opening_price", "high_price", "low_price", "trade_price"], positive),
    "1.2/field-timestamp": Fields(CANDLES, ["timestamp"], epoch_ms),
    "1.2/field-turnover": Fields(CANDLES, ["candle_acc_trade_price"], positive),
    "1.2/field-volume": Fields(CANDLES, ["candle_acc_trade_volume"], positive),
    "1.2/field-unit": Fields([MINUTES], ["unit"], lambda value: value == 5, [SECONDS, DAYS, WEEKS, MONTHS, YEARS]),
    "1.2/field-prev-close": Fields([DAYS], ["prev_closing_price"], positive, [SECONDS, MINUTES, WEEKS, MONTHS, YEARS]),
    "1.2/field-change-price": Fields([DAYS], ["change_price"], number, [SECONDS, MINUTES, WEEKS, MONTHS, YEARS]),
    "1.2/field-change-rate": Fields([DAYS], ["change_rate"], number, [SECONDS, MINUTES, WEEKS, MONTHS, YEARS]),
    "1.2/field-first-day": Fields([WEEKS, MONTHS, YEARS], ["first_day_of_period"], date, [SECONDS, MINUTES, DAYS]),
    "1.3/field-market": Fields([TRADES], ["market"], text("KRW-BTC")),
    "1.3/field-date": Fields([TRADES], ["trade_date_utc"], date),
    "1.3/field-time": Fields([TRADES], ["trade_time_utc"], text(r"\d\d:\d\d:\d\d")),
    "1.3/field-timestamp": Fields([TRADES], ["timestamp"], epoch_ms),
    "1.3/field-numbers": Fields([TRADES], ["trade_price", "trade_volume", "prev_closing_price"], positive),
    "1.3/field-change-price": Fields([TRADES], ["change_price"], number),
    "1.3/field-side": Fields([TRADES], ["ask_bid"], text("ASK|BID")),
    "1.3/field-id": Fields([TRADES], ["sequential_id"], lambda value: isinstance(value, int) and len(str(value)) == 17),
    "1.3/no-change-no-stream-type": Fields([TRADES], ["market"], code),
    "1.4/field-market": Fields([TICKERS], ["market"], code),
    "1.4/field-date": Fields([TICKERS], ["trade_date"], compact_date),
    "1.4/field-time": Fields([TICKERS], ["trade_time"], text(r"\d{6}")),
    "1.4/field-kst": Fields([TICKERS], ["trade_date_kst"], compact_date, not_abroad=True),
    "1.4/field-trade-timestamp": Fields([TICKERS], ["trade_timestamp"], epoch_ms),
    "1.4/field-prices": Fields([TICKERS], ["opening_price", "high_price", "low_price", "trade_price"], positive),
    "1.4/field-prev-close": Fields([TICKERS], ["prev_closing_price"], positive),
    "1.4/field-change": Fields([TICKERS], ["change"], text("RISE|EVEN|FALL")),
    "1.4/field-absolute": Fields([TICKERS], ["change_price", "change_rate"], not_negative),
    "1.4/field-signed": Fields([TICKERS], ["signed_change_price", "signed_change_rate"], number),
    "1.4/field-volume": Fields([TICKERS], ["trade_volume"], positive),
    "1.4/field-today": Fields([TICKERS], ["acc_trade_price", "acc_trade_volume"], not_negative),
    "1.4/field-24h": Fields([TICKERS], ["acc_trade_price_24h", "acc_trade_volume_24h"], positive),
    "1.4/field-52-weeks": Fields([TICKERS], ["highest_52_week_price", "lowest_52_week_price"], positive),
    "1.4/field-52-week-days": Fields([TICKERS], ["highest_52_week_date", "lowest_52_week_date"], date),
    "1.4/field-timestamp": Fields([TICKERS], ["timestamp"], epoch_ms),
    "1.5/field-numbers": Fields([BOOKS], ["timestamp", "total_ask_size", "total_bid_size"], not_negative),
    "1.5/field-level": Fields([BOOKS], ["level"], lambda value: value == 0, not_abroad=True),
    "1.6/field-tick": Fields([f"orderbook/instruments?markets={SOME}"], ["tick_size"], text(r"\d+(\.\d+)?")),
}
ABSENT = {
    "1.1/no-status": (
        [MARKETS, DETAILS],
        ["status", "market_state", "tick_size", "lot_size", "listing_date", "market_warning"],
    ),
    "1.3/no-change-no-stream-type": ([TRADES], ["change", "stream_type"]),
    "1.4/not-of-websocket": ([TICKERS], ["acc_ask_volume", "acc_bid_volume", "market_state", "ask_bid", "stream_type"]),
    "2/no-closed-flag": (CANDLES, ["closed", "is_closed", "confirm", "is_final"]),
}


def has(row: dict[str, Any], name: str) -> bool:
    return name.partition(".")[0] in row


def value_of(row: dict[str, Any], name: str) -> Any:
    value: Any = row
    for part in name.split("."):
        value = value[part]
    return value


@pytest.mark.parametrize("row", CASES)
def test_a_field_is_of_its_type_where_it_belongs_and_nowhere_else(row):
    fields = CASES[row]
    for target in fields.asked:
        told = rows(target)
        assert told
        for name in fields.names:
            assert all(fields.good(value_of(each, name)) for each in told), (target, name)
    for target in fields.without:
        assert not [name for each in rows(target) for name in fields.names if has(each, name)], target
    for target in fields.asked if fields.not_abroad else ():
        assert not [name for each in rows(target, abroad=True) for name in fields.names if has(each, name)], target


@pytest.mark.parametrize("row", ABSENT)
def test_a_field_that_does_not_exist_is_not_there(row):
    asked, names = ABSENT[row]
    for target in asked:
        assert not [name for each in rows(target) for name in names if name in each], target


ORDERS = {
    "1.2/key-order": {
        SECONDS: "market candle_date_time_utc candle_date_time_kst opening_price high_price low_price trade_price "
        "timestamp candle_acc_trade_price candle_acc_trade_volume",
        MINUTES: "market candle_date_time_utc candle_date_time_kst opening_price high_price low_price trade_price "
        "timestamp candle_acc_trade_price candle_acc_trade_volume unit",
        DAYS: "market candle_date_time_utc candle_date_time_kst opening_price high_price low_price trade_price "
        "timestamp candle_acc_trade_price candle_acc_trade_volume prev_closing_price change_price change_rate",
        WEEKS: "market candle_date_time_utc candle_date_time_kst opening_price high_price low_price trade_price "
        "timestamp candle_acc_trade_price candle_acc_trade_volume first_day_of_period",
    },
    "1.5/units": {BOOKS: "market timestamp total_ask_size total_bid_size orderbook_units level"},
}


@pytest.mark.parametrize("row", ORDERS)
def test_keys_stand_in_the_order_of_the_wire(row):
    for target, names in ORDERS[row].items():
        assert {" ".join(each) for each in rows(target)} == {names}


def kst_is_nine_hours_ahead() -> None:
    for target in CANDLES:
        for row in rows(target):
            assert utc_ms(row["candle_date_time_kst"]) - utc_ms(row["candle_date_time_utc"]) == 9 * 3_600_000


def no_nulls() -> None:
    assert not [row for target in CANDLES for row in rows(target) if None in row.values()]


def high_and_low_enclose_the_others() -> None:
    for target in CANDLES:
        for row in rows(target):
            inside = (row["opening_price"], row["trade_price"])
            assert row["low_price"] <= min(inside) <= max(inside) <= row["high_price"]


def first_day_is_that_of_the_period() -> None:
    for target in (WEEKS, MONTHS, YEARS):
        assert all(row["candle_date_time_utc"] == f"{row['first_day_of_period']}T00:00:00" for row in rows(target))


def changes_are_differences() -> None:
    for row in [*rows(DAYS), *rows(TRADES)]:
        assert row["change_price"] == row["trade_price"] - row["prev_closing_price"]
    for row in rows(DAYS):
        assert abs(row["change_rate"] - row["change_price"] / row["prev_closing_price"]) <= Decimal("5E-11")
    assert {row["change_price"] > 0 for row in rows(DAYS)} == {True, False}


def ticker_changes_agree_with_its_word() -> None:
    for row in rows("ticker/all?quote_currencies=KRW,BTC,USDT"):
        change = row["trade_price"] - row["prev_closing_price"]
        assert row["signed_change_price"] == change
        assert row["change_price"] == abs(change)
        assert row["change_rate"] == abs(row["signed_change_rate"])
        assert row["change"] == ("RISE" if change > 0 else "FALL" if change < 0 else "EVEN")


def times_of_a_trade_are_one() -> None:
    for row in rows(TRADES):
        assert utc_ms(f"{row['trade_date_utc']}T{row['trade_time_utc']}") == row["timestamp"] // 1000 * 1000


def times_of_a_ticker_are_one() -> None:
    for row in rows(TICKERS):
        for suffix, hours in (("", 0), ("_kst", 9)):
            day, clock = row[f"trade_date{suffix}"], row[f"trade_time{suffix}"]
            at_ms = utc_ms(f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}")
            assert at_ms - hours * 3_600_000 == row["trade_timestamp"] // 1000 * 1000


def tickers_are_stored_30_to_54_ms_after_the_trade() -> None:
    for row in rows("ticker/all?quote_currencies=KRW"):
        today_began_ms = row["timestamp"] // 86_400_000 * 86_400_000
        assert 30 <= row["timestamp"] - max(row["trade_timestamp"], today_began_ms) <= 54


def units_are_sorted_and_padded_with_nothing() -> None:
    padded = 0
    for row in rows(f"orderbook?markets={','.join(WORLD.markets)}"):
        assert len(row["orderbook_units"]) == 30
        for price, size, sign in (("ask_price", "ask_size", 1), ("bid_price", "bid_size", -1)):
            side = [(unit[price] * sign, unit[size]) for unit in row["orderbook_units"]]
            real = [level for level in side if level[1]]
            assert side == real + [(0, 0)] * (30 - len(real))
            assert all(one[0] < other[0] for one, other in pairwise(real))
            padded += len(real) < 30
    assert padded


def units_have_their_keys_bid_first() -> None:
    units = [unit for row in rows(BOOKS) for unit in row["orderbook_units"]]
    assert {" ".join(unit) for unit in units} == {"bid_price bid_size ask_price ask_size"}


AGREE = {
    "1.2/field-kst": kst_is_nine_hours_ahead,
    "1.2/no-nulls": no_nulls,
    "1.2/field-prices": high_and_low_enclose_the_others,
    "1.2/field-first-day": first_day_is_that_of_the_period,
    "1.2/field-change-price": changes_are_differences,
    "1.3/field-date": times_of_a_trade_are_one,
    "1.4/field-change": ticker_changes_agree_with_its_word,
    "1.4/field-date": times_of_a_ticker_are_one,
    "1.4/field-timestamp": tickers_are_stored_30_to_54_ms_after_the_trade,
    "1.5/sorted-and-padded": units_are_sorted_and_padded_with_nothing,
    "1.5/spelling": units_have_their_keys_bid_first,
}


@pytest.mark.parametrize("row", AGREE)
def test_fields_agree_with_each_other(row):
    AGREE[row]()
