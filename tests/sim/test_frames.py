"""Frames come out as recorded frames of the exchange have them: fields, order, abbreviations, spelling.

Values are read from the recorded frame, put into the simulator's own types and written again; the text must be the
same. The recordings are not part of the project: without them these tests are skipped.
"""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.sim import lexemes
from marketpipe.sim.books import Book
from marketpipe.sim.day import Bar, Deal
from marketpipe.sim.frames import candle_frame, orderbook_frame, ticker_frame, trade_frame
from marketpipe.sim.history import Extremes
from marketpipe.sim.universe import universe
from marketpipe.sim.world import Summary

PAYLOADS = Path(__file__).parents[3] / "shared" / "payloads"
RECORDING = "recorded_ws_simple_trade_orderbook_2021-04-17.jsonl"
EPOCH = date(1970, 1, 1).toordinal()
MARKETS = {market.code: market for market in universe(7, 3)}
E8 = 10**8
# Nobody has recorded all fields of all types abbreviated: this is the table of the documentation (2026-09-22).
ABBREVIATED = {
    "ticker": "ty cd op hp lp tp pcp atp c cp scp cr scr ab tv atv tdt ttm ttms aav abv h52wp h52wdt l52wp l52wdt ms "
    "its dd mw tms atp24h atv24h st",
    "trade": "ty cd tms td ttm ttms tp tv ab pcp c cp sid bap bas bbp bbs st",
    "candle.1m": "ty cd cdttmu cdttmk op hp lp tp catv catp tms st",
    "orderbook": "ty cd tms tas tbs obu st lv",
}


def recorded(name: str) -> list[str]:
    path = PAYLOADS / name
    if not path.exists():
        pytest.skip(f"no recording {name} here")
    return path.read_text().splitlines()


def read(text: str) -> dict[str, Any]:
    return json.loads(text, parse_float=Decimal)


def units(value: Decimal | int, digits: int = 8) -> int:
    scaled = Decimal(value).scaleb(digits)
    assert scaled == int(scaled)
    return int(scaled)


def day_of(text: str) -> int:
    return date.fromisoformat(text).toordinal() - EPOCH


def ticker_of(row: dict[str, Any]) -> Summary:
    last = Deal(
        row["trade_timestamp"], units(row["trade_price"]), units(row["trade_volume"]), row["ask_bid"] == "BID", 0
    )
    return Summary(
        row["code"],
        last,
        units(row["opening_price"]),
        units(row["high_price"]),
        units(row["low_price"]),
        units(row["prev_closing_price"]),
        units(row["acc_trade_volume"]),
        units(row["acc_trade_price"], 16),
        units(row["acc_trade_volume_24h"]),
        units(row["acc_trade_price_24h"], 16),
        Extremes(
            units(row["highest_52_week_price"]),
            day_of(row["highest_52_week_date"]),
            units(row["lowest_52_week_price"]),
            day_of(row["lowest_52_week_date"]),
        ),
        row["timestamp"],
    )


def bar_of(row: dict[str, Any]) -> Bar:
    hour, minute, second = map(int, row["candle_date_time_utc"][11:].split(":"))
    return Bar(
        day_of(row["candle_date_time_utc"][:10]) * 86_400_000 + ((hour * 60 + minute) * 60 + second) * 1000,
        units(row["opening_price"]),
        units(row["high_price"]),
        units(row["low_price"]),
        units(row["trade_price"]),
        units(row["candle_acc_trade_price"], 16),
        units(row["candle_acc_trade_volume"]),
        row["timestamp"],
    )


def book_of(row: dict[str, Any]) -> Book:
    return Book(
        row["code"],
        row["timestamp"],
        tuple((units(unit["ask_price"]), units(unit["ask_size"])) for unit in row["orderbook_units"]),
        tuple((units(unit["bid_price"]), units(unit["bid_size"])) for unit in row["orderbook_units"]),
        units(row["total_ask_size"]),
        units(row["total_bid_size"]),
        units(row["level"]),
    )


def trade_of(row: dict[str, Any]) -> tuple[Deal, Book, int, int]:
    deal = Deal(
        row["trade_timestamp"],
        units(row["trade_price"]),
        units(row["trade_volume"]),
        row["ask_bid"] == "BID",
        row["sequential_id"],
    )
    asks = ((units(row["best_ask_price"]), units(row["best_ask_size"])),)
    bids = ((units(row["best_bid_price"]), units(row["best_bid_size"])),)
    return deal, Book(row["code"], 0, asks, bids, 0, 0, 0), units(row["prev_closing_price"]), row["timestamp"]


def test_tickers():
    for text in recorded("ws_ticker.jsonl"):
        row = read(text)
        ticker, bought = ticker_of(row), units(row["acc_bid_volume"])
        assert ticker_frame(MARKETS[row["code"]], ticker, bought, row["stream_type"], simple=False) == text


def test_trades():
    for text in recorded("ws_trade.jsonl"):
        row = read(text)
        # These two were respelt by whoever wrote the recording down; raw frames have eight decimals (2021-04-17).
        for name in ("prev_closing_price", "change_price"):
            text = text.replace(f'"{name}":{row[name]}', f'"{name}":{row[name]:.8f}')
        assert trade_frame(*trade_of(row), row["stream_type"], simple=False) == text


@pytest.mark.parametrize("field", ["tp", "tv", "pcp", "cp", "td", "ttm", "ab", "c", "sid", "ttms"])
def test_abbreviated_trades_are_spelt_as_in_2021(field):
    texts = [json.loads(line, parse_float=str, parse_int=str)["frame"] for line in recorded(RECORDING)]
    trades = [frame for frame in texts if frame["ty"] == "trade"]
    assert trades
    for frame in trades:
        deal = Deal(
            int(frame["ttms"]),
            units(Decimal(frame["tp"])),
            units(Decimal(frame["tv"])),
            frame["ab"] == "BID",
            int(frame["sid"]),
        )
        book = Book(frame["cd"], 0, ((0, 0),), ((0, 0),), 0, 0, 0)
        written = trade_frame(deal, book, units(Decimal(frame["pcp"])), int(frame["tms"]), "REALTIME", simple=True)
        assert json.loads(written, parse_float=str, parse_int=str)[field] == frame[field]


def test_candles():
    raw = recorded("ws_candle.jsonl")[:7]
    for text in raw:
        row = read(text)
        assert candle_frame(row["type"], row["code"], bar_of(row), row["stream_type"], simple=False, kr=True) == text


def test_candles_whose_numbers_were_respelt_by_the_documentation():
    for text in recorded("ws_candle.jsonl")[7:]:
        row = read(text)
        written = candle_frame(row["type"], row["code"], bar_of(row), row["stream_type"], simple=False, kr=True)
        assert list(read(written).items()) == list(row.items())


def test_orderbooks():
    for text in recorded("ws_orderbook_trimmed_raw.jsonl")[:2]:
        row = read(text)
        assert orderbook_frame(book_of(row), 30, row["stream_type"], simple=False, kr=True) == text


def test_abbreviated_orderbooks_are_spelt_another_way():
    text = recorded("ws_orderbook_trimmed_raw.jsonl")[2]
    row = read(text)
    book = Book(
        row["cd"],
        row["tms"],
        tuple((units(unit["ap"]), units(unit["as"])) for unit in row["obu"]),
        tuple((units(unit["bp"]), units(unit["bs"])) for unit in row["obu"]),
        units(row["tas"]),
        units(row["tbs"]),
        units(row["lv"]),
    )
    assert orderbook_frame(book, 30, "SNAPSHOT", simple=True, kr=True) == text


LAST = Deal(1_791_379_294_567, 5 * E8, 3, True, 17_913_792_945_670_000)
TICKER = Summary(
    "KRW-BTC", LAST, 5 * E8, 6 * E8, 4 * E8, 7 * E8, 9 * E8, 8 * E8 * E8, 0, 0, Extremes(1, 2, 3, 4), LAST.at_ms + 40
)
BAR = Bar(LAST.at_ms // 60_000 * 60_000, E8, E8, E8, E8, E8 * E8, E8, LAST.at_ms + 40)
BOOK = Book("KRW-BTC", LAST.at_ms, ((6 * E8, E8),), ((5 * E8, 2 * E8),), E8, 2 * E8, 0)


@pytest.mark.parametrize("type", ABBREVIATED)
def test_abbreviations_are_those_of_the_documentation(type):
    def written(simple: bool) -> dict[str, Any]:
        match type:
            case "ticker":
                return read(ticker_frame(MARKETS["KRW-BTC"], TICKER, 4 * E8, "REALTIME", simple=simple))
            case "trade":
                return read(trade_frame(LAST, BOOK, 7 * E8, LAST.at_ms + 60, "REALTIME", simple=simple))
            case "orderbook":
                return read(orderbook_frame(BOOK, 30, "REALTIME", simple=simple, kr=True))
        return read(candle_frame("candle.1m", "KRW-BTC", BAR, "REALTIME", simple=simple, kr=True))

    assert " ".join(written(True)) == ABBREVIATED[type]
    full, short = written(False), written(True)
    assert len(full) == len(short)
    if type == "orderbook":
        assert list(short.pop("obu")[0].items()) == [("ap", 6), ("bp", 5), ("as", 1), ("bs", 2)]
        assert list(full.pop("orderbook_units")[0].items()) == [
            ("ask_price", 6),
            ("bid_price", 5),
            ("ask_size", 1),
            ("bid_size", 2),
        ]
    assert list(full.values()) == list(short.values())


def test_what_takers_sold_and_bought_is_what_was_traded():
    row = read(ticker_frame(MARKETS["KRW-BTC"], TICKER, 4 * E8, "REALTIME", simple=False))
    assert (row["acc_ask_volume"], row["acc_bid_volume"], row["acc_trade_volume"]) == (5, 4, 9)


def test_a_trades_change_is_absolute():
    row = read(trade_frame(LAST, BOOK, 7 * E8, LAST.at_ms + 60, "REALTIME", simple=False))
    assert (row["change"], row["change_price"]) == ("FALL", 2)
    row = read(ticker_frame(MARKETS["KRW-BTC"], TICKER, 4 * E8, "REALTIME", simple=False))
    assert (row["change_price"], row["signed_change_price"]) == (2, -2)
    assert (row["change_rate"], row["signed_change_rate"]) == (Decimal("0.2857142857"), Decimal("-0.2857142857"))


def test_a_market_with_a_warning_says_so():
    market = attrs.evolve(MARKETS["KRW-BTC"], warning=True)
    assert read(ticker_frame(market, TICKER, 0, "REALTIME", simple=False))["market_warning"] == "CAUTION"


def test_global_regions_have_no_seoul_time_and_no_level():
    row = read(candle_frame("candle.1m", "KRW-BTC", BAR, "REALTIME", simple=False, kr=False))
    assert "candle_date_time_kst" not in row
    for simple in (False, True):
        full, without = (read(orderbook_frame(BOOK, 30, "REALTIME", simple=simple, kr=kr)) for kr in (True, False))
        assert full.keys() - without.keys() == {"lv" if simple else "level"}


amounts = st.integers(0, 10**18) | st.integers(0, 10**6)


@given(value=amounts)
def test_every_spelling_is_exact(value):
    exact = Decimal(value).scaleb(-8)
    for spelt in (lexemes.plain, lexemes.double, lexemes.price_double, lexemes.decimal8, lexemes.price_shortest):
        assert Decimal(spelt(value)) == exact
    assert Decimal(lexemes.decimal8(-value)) == -exact
    assert Decimal(lexemes.decimal16(value)) == Decimal(value).scaleb(-16)


@given(value=amounts)
def test_decimals_are_spelt_as_a_bigdecimal(value):
    # Python's Decimal follows the same rules but for the sign of an exponent, which it never needs here.
    assert lexemes.decimal8(value) == str(Decimal(value).scaleb(-8))
    assert lexemes.decimal16(value) == str(Decimal(value).scaleb(-16))
    if value:
        assert lexemes.decimal8(-value) == str(Decimal(-value).scaleb(-8))


@given(change=st.integers(-(10**13), 10**13) | st.integers(-50, 50), base=st.integers(1, 10**15))
def test_rates_are_those_of_rest_as_a_bigdecimal(change, base):
    rest = Decimal(lexemes.rate10(change, base))
    text = lexemes.rate_decimal(change, base)
    assert Decimal(text) == rest
    assert text == (str(rest) if change and rest else "0" if not change else "0E-10")


@pytest.mark.parametrize(
    ("spelt", "text"),
    [
        (lexemes.double(116_539_000 * E8), "1.16539E8"),
        (lexemes.double(100_000_000 * E8), "1.0E8"),
        (lexemes.double(9_999_999 * E8), "9999999.0"),
        (lexemes.double(10_000_000 * E8), "1.0E7"),
        (lexemes.double(127 * E8), "127.0"),
        (lexemes.double(1_129_382), "0.01129382"),
        (lexemes.double(100_000), "0.001"),
        (lexemes.double(79_276), "7.9276E-4"),
        (lexemes.double(50_000), "5.0E-4"),
        (lexemes.double(1), "1.0E-8"),
        (lexemes.double(0), "0.0"),
        (lexemes.plain(109_847_000 * E8), "109847000.0"),
        (lexemes.plain(33_118_716_924_021_526 * 1_000), "331187169240.21526"),
        (lexemes.plain(0), "0.0"),
        (lexemes.decimal8(0), "0E-8"),
        (lexemes.decimal8(6), "6E-8"),
        (lexemes.decimal8(12), "1.2E-7"),
        (lexemes.decimal8(123), "0.00000123"),
        (lexemes.decimal8(-50), "-5.0E-7"),
        (lexemes.decimal8(-1_000 * E8), "-1000.00000000"),
        (lexemes.decimal16(0), "0E-16"),
        (lexemes.rate_decimal(1_000, 158_200_000), "0.0000063211"),
        (lexemes.rate_decimal(0, 158_200_000), "0"),
    ],
)
def test_spellings_seen_in_frames(spelt, text):
    assert spelt == text
