"""Rows come out as recorded answers of the exchange have them: fields, order, spelling.

Values are read from the recorded answer, put into the simulator's own types and written again; the text must be the
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

from marketpipe.core.timeframes import Timeframe, floor
from marketpipe.sim import rows
from marketpipe.sim.books import Book
from marketpipe.sim.day import Bar, Deal
from marketpipe.sim.history import Extremes
from marketpipe.sim.universe import CAUTIONS, universe
from marketpipe.sim.world import Summary

PAYLOADS = Path(__file__).parents[3] / "shared" / "payloads"
EPOCH = date(1970, 1, 1).toordinal()
MARKETS = {market.code: market for market in universe(7, 3)}


def recorded(name: str) -> tuple[str, list[dict[str, Any]]]:
    path = PAYLOADS / name
    if not path.exists():
        pytest.skip(f"no recording {name} here")
    text = path.read_text().strip()
    return text, json.loads(text, parse_float=Decimal)


def units(value: Decimal | int, digits: int = 8) -> int:
    scaled = Decimal(value).scaleb(digits)
    assert scaled == int(scaled)
    return int(scaled)


def day_of(text: str) -> int:
    return date.fromisoformat(text).toordinal() - EPOCH


def bar_of(timeframe: Timeframe, row: dict[str, Any]) -> Bar:
    open_ms = day_of(row["candle_date_time_utc"][:10]) * 86_400_000
    hour, minute, second = map(int, row["candle_date_time_utc"][11:].split(":"))
    open_ms += ((hour * 60 + minute) * 60 + second) * 1000
    assert floor(timeframe, open_ms) == open_ms
    return Bar(
        open_ms,
        units(row["opening_price"]),
        units(row["high_price"]),
        units(row["low_price"]),
        units(row["trade_price"]),
        units(row["candle_acc_trade_price"], 16),
        units(row["candle_acc_trade_volume"]),
        row["timestamp"],
    )


def ticker_of(row: dict[str, Any]) -> Summary:
    last = Deal(row["trade_timestamp"], units(row["trade_price"]), units(row["trade_volume"]), True, 0)
    return Summary(
        row["market"],
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


def test_tickers():
    text, given = recorded("ticker.json")
    assert f"[{','.join(rows.ticker_row(ticker_of(row), True) for row in given)}]" == text


def test_tickers_of_global_regions_have_no_seoul_time():
    text, given = recorded("ticker.json")
    kst = {"trade_date_kst", "trade_time_kst"}
    expected = [{name: value for name, value in row.items() if name not in kst} for row in given]
    written = [json.loads(rows.ticker_row(ticker_of(row), False), parse_float=Decimal) for row in given]
    assert written == expected
    assert all(name in text for name in kst)


@pytest.mark.parametrize(
    ("name", "timeframe"), [("candles_minutes_5.json", Timeframe.M5), ("candles_years.json", Timeframe.Y1)]
)
def test_candles(name, timeframe):
    text, given = recorded(name)
    written = [rows.candle_row(row["market"], timeframe, bar_of(timeframe, row), kr=True) for row in given]
    assert f"[{','.join(written)}]" == text


@pytest.mark.parametrize(
    ("name", "timeframe"), [("candles_seconds.json", Timeframe.S1), ("candles_weeks.json", Timeframe.W1)]
)
def test_candles_whose_numbers_were_respelt_by_the_documentation(name, timeframe):
    _, given = recorded(name)
    for row in given:
        written = rows.candle_row(row["market"], timeframe, bar_of(timeframe, row), kr=True)
        assert list(json.loads(written, parse_float=Decimal).items()) == list(row.items())


def test_day_candles():
    text, given = recorded("candles_days.json")
    written = [
        rows.day_row(row["market"], bar_of(Timeframe.D1, row), units(row["prev_closing_price"]), kr=True)
        for row in given
    ]
    assert f"[{','.join(written)}]" == text


def test_trades():
    text, given = recorded("trades_ticks.json")
    written = [
        rows.trade_row(
            row["market"],
            Deal(
                row["timestamp"],
                units(row["trade_price"]),
                units(row["trade_volume"]),
                row["ask_bid"] == "BID",
                row["sequential_id"],
            ),
            units(row["prev_closing_price"]),
        )
        for row in given
    ]
    assert f"[{','.join(written)}]" == text


def test_orderbooks():
    _, given = recorded("orderbook_level10000_30units_doc.json")
    for row in given:
        book = Book(
            row["market"],
            row["timestamp"],
            tuple((units(unit["ask_price"]), units(unit["ask_size"])) for unit in row["orderbook_units"]),
            tuple((units(unit["bid_price"]), units(unit["bid_size"])) for unit in row["orderbook_units"]),
            units(row["total_ask_size"]),
            units(row["total_bid_size"]),
            units(row["level"]),
        )
        written = rows.orderbook_row(book, 30, with_level=True)
        assert json.loads(written, parse_float=Decimal) == row


def test_instruments():
    text, given = recorded("orderbook_instruments.json")
    prices = {"KRW-BTC": 154_000_000, "KRW-ETH": 4_000_000}
    written = [rows.instrument_row(MARKETS[row["market"]], units(prices[row["market"]])) for row in given]
    assert f"[{','.join(written)}]" == text


def test_supported_levels():
    text, given = recorded("orderbook_supported_levels_deprecated.json")
    assert f"[{','.join(rows.levels_row(MARKETS[row['market']]) for row in given)}]" == text


def test_markets_with_details():
    text, given = recorded("market_all_details.json")
    written = []
    for row in given:
        event = row["market_event"]
        market = attrs.evolve(
            MARKETS[row["market"]],
            warning=event["warning"],
            cautions=frozenset(name for name in CAUTIONS if event["caution"][name]),
        )
        written.append(rows.market_row(market, details=True, kr=True))
    assert f"[{','.join(written)}]" == text


def test_markets_of_global_regions():
    text, given = recorded("market_all_global_region.json")
    written = []
    for row in given:
        warned = row["market_warning"] == "CAUTION"
        market = attrs.evolve(MARKETS["KRW-BTC"], code=row["market"], english_name=row["english_name"], warning=warned)
        written.append(rows.market_row(market, details=True, kr=False))
    assert f"[{','.join(written)}]" == text
