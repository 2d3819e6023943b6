"""How numbers are spelt in whole answers and frames, field by field (upbit-api.md 8.1)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from conformance.desk import NOW_MS, WORLD, spelt

from marketpipe.sim.streams import Streams, Wanted

FIXED_8 = r"-?\d+\.\d{8}"
FIXED_16 = r"\d+\.\d{16}"
RATE = r"-?\d+\.\d{10}|0"
SHORTEST = r"0|[1-9]\d*|\d+\.\d*[1-9]"
DOUBLE = r"\d\.\d+E-?\d+|\d+\.\d+"
BIG_DECIMAL = r"-?\d+\.\d{8}|-?\d(\.\d+)?E-\d+"

EVERYTHING = "ticker/all?quote_currencies=KRW,BTC,USDT"
TRADES = "trades/ticks?market=KRW-BTC&count=500"
CANDLES = [f"candles/{kind}?market=BTC-ETH&count=200" for kind in ("seconds", "minutes/1", "days", "weeks")]
BOOKS = f"orderbook?markets={','.join(WORLD.markets)}"
OHLC = ["opening_price", "high_price", "low_price", "trade_price"]


class Spelling(NamedTuple):
    asked: Sequence[str]
    names: Sequence[str]
    pattern: str
    seen: str


REST = {
    "8.1/rest-prices": Spelling([EVERYTHING, *CANDLES], OHLC, FIXED_8, r"\d+\.0{8}"),
    "8.1/rest-trade-prices": Spelling([TRADES], ["trade_price", "prev_closing_price"], FIXED_8, r"\d+\.0{8}"),
    "8.1/volumes": Spelling([EVERYTHING, TRADES], ["trade_volume"], FIXED_8, r"0\.0\d+"),
    "8.1/candle-volumes": Spelling(CANDLES, ["candle_acc_trade_volume"], FIXED_8, r".*"),
    "8.1/turnover-today": Spelling([EVERYTHING], ["acc_trade_price"], FIXED_16, r".*[1-9]0+"),
    "8.1/turnover-24h": Spelling([EVERYTHING], ["acc_trade_price_24h"], FIXED_8, r".*"),
    "8.1/candle-turnover": Spelling(CANDLES, ["candle_acc_trade_price"], FIXED_8, r".*"),
    "8.1/rates": Spelling([EVERYTHING], ["change_rate", "signed_change_rate"], RATE, r"-0\.\d{10}"),
    "8.1/zero-change": Spelling([EVERYTHING], ["change_price", "change_rate"], rf"{FIXED_8}|{RATE}", r"0"),
    "8.1/rest-books": Spelling([BOOKS], ["bid_price", "bid_size", "ask_price", "ask_size"], SHORTEST, r"[1-9]\d*"),
}


@pytest.mark.parametrize("row", REST)
def test_a_number_of_rest_is_spelt_as_on_the_wire(row):
    spelling = REST[row]
    texts = []
    for target in spelling.asked:
        told: list[dict[str, Any]] = spelt(target)
        if "orderbook_units" in told[0]:
            told = [unit for book in told for unit in book["orderbook_units"]]
        texts += [each[name] for each in told for name in spelling.names]
    wrong = [text for text in texts if not re.fullmatch(spelling.pattern, text)]
    assert not wrong, wrong[:5]
    assert any(re.fullmatch(spelling.seen, text) for text in texts)


FRAMES = {
    "8.1/ws-default": ("ticker", "DEFAULT", [*OHLC, "trade_volume", "acc_trade_volume", "change_price"], BIG_DECIMAL),
    "8.1/ws-turnover": ("ticker", "DEFAULT", ["acc_trade_price"], rf"{FIXED_16}|\d(\.\d+)?E-\d+"),
    "8.1/ws-turnover-24h": ("ticker", "DEFAULT", ["acc_trade_price_24h", "acc_trade_volume_24h"], r"\d+\.(0|\d*[1-9])"),
    "8.1/ws-candle": ("candle.1m", "DEFAULT", [*OHLC, "candle_acc_trade_volume"], BIG_DECIMAL),
    "8.1/ws-trade": ("trade", "DEFAULT", ["trade_price", "trade_volume"], r"\d+\.(0|\d*[1-9])"),
    "8.1/ws-trade-touch": ("trade", "DEFAULT", ["best_ask_price", "best_bid_size"], SHORTEST),
    "8.1/ws-trade-close": ("trade", "DEFAULT", ["prev_closing_price", "change_price"], BIG_DECIMAL),
    "8.1/ws-book-prices": ("orderbook", "DEFAULT", ["ask_price", "bid_price"], DOUBLE),
    "8.1/ws-book-sizes": ("orderbook", "DEFAULT", ["ask_size", "bid_size"], BIG_DECIMAL),
    "8.1/ws-simple-book-prices": ("orderbook", "SIMPLE", ["ap", "bp"], SHORTEST),
    "8.1/ws-simple-book-sizes": ("orderbook", "SIMPLE", ["as", "bs"], DOUBLE),
    "8.1/ws-simple-change": ("ticker", "SIMPLE", ["cp", "scp"], BIG_DECIMAL),
}
# One of each that shows what is peculiar about it.
PECULIAR = {
    "8.1/ws-default": "0E-8",
    "8.1/ws-book-prices": r"\d\.\d+E8",
    "8.1/ws-book-sizes": r"0\.0\d+",
    "8.1/ws-simple-book-prices": r"\d{8,}",
    "8.1/ws-simple-book-sizes": r"\d\.\d+E-\d",
    "8.1/ws-trade": r"\d+\.0",
}


def frame_texts(stream: str, format: str, names: Sequence[str]) -> list[str]:
    subscription = Streams(WORLD).open([Wanted(stream, WORLD.markets)], NOW_MS)
    told = [json.loads(each.encode(format), parse_float=str, parse_int=str) for each in subscription.snapshots(NOW_MS)]
    units = [unit for frame in told for unit in frame.get("orderbook_units", frame.get("obu", ()))]
    return [each[name] for each in units or told for name in names]


@pytest.mark.parametrize("row", FRAMES)
def test_a_number_of_a_frame_is_spelt_as_on_the_wire(row):
    *asked, pattern = FRAMES[row]
    texts = frame_texts(*asked)
    wrong = [text for text in texts if not re.fullmatch(pattern, text)]
    assert texts
    assert not wrong, wrong[:5]
    assert any(re.fullmatch(PECULIAR.get(row, ".*"), text) for text in texts)
