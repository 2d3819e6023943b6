"""Real answers of the exchange, where a collection of them lies beside the repository; skipped elsewhere.

The judge is the standard library's own parser, which shares no line with the decoder under test.
"""

from __future__ import annotations

import json
import re
from datetime import date, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from marketpipe.core.requests import (
    CandlesRequest,
    MarketsRequest,
    OrderbooksRequest,
    QuoteTickersRequest,
    RemainingReq,
    TickersRequest,
    TradesRequest,
)
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import ExchangeError, UnknownMarket
from marketpipe.models import Candle, CandleState, Orderbook, Side, Source, Ticker, Trade
from marketpipe.upbit import wire

PAYLOADS = Path(__file__).parents[2].parent / "shared" / "payloads"

pytestmark = pytest.mark.skipif(not PAYLOADS.is_dir(), reason="no collection of payloads beside the repository")

NOW_MS = 1_800_000_000_000

TICKER_DECIMALS = {
    "open": "opening_price",
    "high": "high_price",
    "low": "low_price",
    "price": "trade_price",
    "prev_close": "prev_closing_price",
    "signed_change": "signed_change_price",
    "signed_change_rate": "signed_change_rate",
    "last_volume": "trade_volume",
    "quote_volume": "acc_trade_price",
    "quote_volume_24h": "acc_trade_price_24h",
    "volume": "acc_trade_volume",
    "volume_24h": "acc_trade_volume_24h",
    "high_52w": "highest_52_week_price",
    "low_52w": "lowest_52_week_price",
}
CANDLE_DECIMALS = {
    "open": "opening_price",
    "high": "high_price",
    "low": "low_price",
    "close": "trade_price",
    "volume": "candle_acc_trade_volume",
    "quote_volume": "candle_acc_trade_price",
}
TRADE_DECIMALS = {"price": "trade_price", "volume": "trade_volume"}
CANDLE_FILES = {
    "candles_seconds.json": Timeframe.S1,
    "candles_minutes_1_doc.json": Timeframe.M1,
    "candles_minutes_5.json": Timeframe.M5,
    "candles_minutes_5_in_progress.json": Timeframe.M5,
    "candles_days.json": Timeframe.D1,
    "candles_days_doc.json": Timeframe.D1,
    "candles_weeks.json": Timeframe.W1,
    "candles_years.json": Timeframe.Y1,
    "candles_years_doc.json": Timeframe.Y1,
}
CHECKED = {
    *CANDLE_FILES,
    "ticker.json",
    "ticker_2026-07-30.json",
    "ticker_doc_2025-07-04.json",
    "trades_ticks.json",
    "trades_ticks_2026-07-30.json",
    "trades_ticks_doc.json",
    "trades_ticks_same_ms.json",
    "orderbook_count2.json",
    "orderbook_level10000_30units_doc.json",
    "orderbook_instruments.json",
    "market_all_details.json",
    "market_all_global_region.json",
    "recorded_market_all_2021-04-17.json",
    "ccxt_static_response_upbit_public.json",
    # The order book levels of an endpoint that is deprecated, and not asked.
    "orderbook_supported_levels_deprecated.json",
}


def read(name: str) -> tuple[bytes, list[dict]]:
    text = (PAYLOADS / name).read_text(encoding="utf-8")
    return text.encode(), json.loads(text, parse_float=Decimal, parse_int=int)


def decode(request, body: bytes):
    rows, failed = wire.decode(request, body, received_ms=NOW_MS, exchange_ms=None)
    assert failed == {}
    return rows


def assert_exact(value: object, row: dict, names: dict[str, str]) -> None:
    """Same digits, same exponent: 1.50 is not 1.5."""
    for name, wire_name in names.items():
        read, expected = getattr(value, name), Decimal(row[wire_name])
        assert read.as_tuple() == expected.as_tuple(), name


def assert_ticker(ticker, row: dict) -> None:
    assert_exact(ticker, row, TICKER_DECIMALS)
    assert ticker.market == row["market"]
    assert ticker.change == row["change"]
    assert ticker.high_52w_date == date.fromisoformat(row["highest_52_week_date"])
    assert ticker.low_52w_date == date.fromisoformat(row["lowest_52_week_date"])
    assert (ticker.trade_ms, ticker.exchange_ms) == (int(row["trade_timestamp"]), int(row["timestamp"]))
    assert ticker.received_ms == NOW_MS


def assert_trade(trade, row: dict) -> None:
    assert_exact(trade, row, TRADE_DECIMALS)
    assert trade.side is {"BID": Side.BUY, "ASK": Side.SELL}[row["ask_bid"]]
    assert trade.sequential_id == int(row["sequential_id"])
    assert trade.trade_ms == trade.exchange_ms == int(row["timestamp"])


def assert_candle(candle, row: dict) -> None:
    assert_exact(candle, row, CANDLE_DECIMALS)
    opened = datetime.fromisoformat(row["candle_date_time_utc"] + "+00:00")
    assert candle.open_time == opened
    assert candle.exchange_ms == int(row["timestamp"])


def test_no_rest_answer_in_the_collection_is_left_out():
    files = {path.name for path in PAYLOADS.glob("*.json")}

    assert {name for name in files if "ws_" not in name} == CHECKED


@pytest.mark.parametrize("name", ["ticker.json", "ticker_2026-07-30.json", "ticker_doc_2025-07-04.json"])
def test_tickers_are_exact(name):
    body, rows = read(name)

    for request in (TickersRequest(tuple(row["market"] for row in rows)), QuoteTickersRequest(("KRW",))):
        tickers = decode(request, body)
        assert len(tickers) == len(rows) > 0
        for ticker, row in zip(tickers, rows, strict=True):
            assert_ticker(ticker, row)


@pytest.mark.parametrize(("name", "timeframe"), CANDLE_FILES.items())
def test_candles_are_exact(name, timeframe):
    body, rows = read(name)

    candles = decode(CandlesRequest("KRW-BTC", timeframe, 200), body)

    assert len(candles) == len(rows) > 0
    for candle, row in zip(candles, rows, strict=True):
        assert_candle(candle, row)
        assert candle.state is CandleState.FINAL or timeframe is Timeframe.Y1


@pytest.mark.parametrize(
    "name",
    ["trades_ticks.json", "trades_ticks_2026-07-30.json", "trades_ticks_doc.json", "trades_ticks_same_ms.json"],
)
def test_trades_are_exact(name):
    body, rows = read(name)

    trades = decode(TradesRequest("KRW-BTC", 500), body)

    assert len(trades) == len(rows) > 0
    for trade, row in zip(trades, rows, strict=True):
        assert_trade(trade, row)


@pytest.mark.parametrize("name", ["orderbook_count2.json", "orderbook_level10000_30units_doc.json"])
def test_orderbooks_are_exact(name):
    body, [row] = read(name)

    [book] = decode(OrderbooksRequest(("KRW-BTC",)), body)

    assert_exact(book, row, {"total_ask_size": "total_ask_size", "total_bid_size": "total_bid_size", "level": "level"})
    assert book.exchange_ms == row["timestamp"]
    assert len(book.asks) == len(book.bids) == len(row["orderbook_units"])
    for ask, bid, unit in zip(book.asks, book.bids, row["orderbook_units"], strict=True):
        assert_exact(ask, unit, {"price": "ask_price", "size": "ask_size"})
        assert_exact(bid, unit, {"price": "bid_price", "size": "bid_size"})


def test_instruments_are_exact():
    body, rows = read("orderbook_instruments.json")

    instruments = wire.decode_instruments(body)

    assert [(each.market, each.quote_currency) for each in instruments] == [
        (row["market"], row["quote_currency"]) for row in rows
    ]
    for each, row in zip(instruments, rows, strict=True):
        assert_exact(each, row, {"tick_size": "tick_size"})
        assert each.supported_levels == tuple(map(Decimal, row["supported_levels"]))


@pytest.mark.parametrize(
    "name", ["market_all_details.json", "market_all_global_region.json", "recorded_market_all_2021-04-17.json"]
)
def test_markets_are_complete(name):
    body, rows = read(name)

    markets = decode(MarketsRequest(), body)

    assert [(each.market, each.korean_name, each.english_name) for each in markets] == [
        (row["market"], row.get("korean_name", ""), row["english_name"]) for row in rows
    ]
    for each, row in zip(markets, rows, strict=True):
        event = row.get("market_event", {})
        assert each.warning == (event.get("warning", False) or row.get("market_warning") == "CAUTION")
        assert each.cautions == {flag for flag, raised in event.get("caution", {}).items() if raised}


def test_numbers_that_another_client_has_put_in_quotes_are_exact():
    text = (PAYLOADS / "ccxt_static_response_upbit_public.json").read_text(encoding="utf-8")
    # That client's fixtures quote every number; times and ids have to be integers here.
    text = re.sub(r'"(timestamp|trade_timestamp|sequential_id|unit)": ?"(\d+)"', r'"\1":\2', text)
    recorded = json.loads(text)

    [trade] = decode(TradesRequest("USDT-BTC", 1), json.dumps(recorded["fetchTrades"]).encode())
    [ticker] = decode(TickersRequest(("USDT-BTC",)), json.dumps(recorded["fetchTicker"]).encode())
    [candle] = decode(CandlesRequest("USDT-BTC", Timeframe.H1, 1), json.dumps(recorded["fetchOHLCV"]).encode())

    assert_trade(trade, recorded["fetchTrades"][0])
    assert_ticker(ticker, recorded["fetchTicker"][0])
    assert_candle(candle, recorded["fetchOHLCV"][0])


def test_a_book_stamped_in_microseconds_is_brought_to_milliseconds():
    text = (PAYLOADS / "ws_orderbook_usdt_etc_microsecond_ts_2023-08.json").read_text(encoding="utf-8")

    [book] = decode(OrderbooksRequest(("USDT-ETC",)), f"[{text.replace('code', 'market', 1)}]".encode())

    assert book.exchange_ms == 1_691_530_805_062


def test_every_recorded_refusal_becomes_the_right_error():
    lines = (PAYLOADS / "rest_errors.jsonl").read_text(encoding="utf-8").splitlines()

    for recorded in map(json.loads, lines):
        error = wire.error_of(
            TickersRequest(("KRW-BTC", "KRW-NOPE")),
            recorded["status"],
            {},
            json.dumps(recorded["body"]).encode(),
            now_ms=NOW_MS,
        )
        words = recorded["body"]["error"]["message"]
        assert type(error) is (UnknownMarket if words == "Code not found" else ExchangeError)
        assert words in str(error)
        assert error.status == recorded["status"]


def test_the_recorded_headers_are_read():
    lines = (PAYLOADS / "rest_response_headers_ticker.txt").read_text(encoding="utf-8").splitlines()
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)

    assert wire.remaining_req(headers["remaining-req"]) == RemainingReq("ticker", 9)
    assert wire.date_ms(headers["date"]) == parsedate_to_datetime(headers["date"]).timestamp() * 1000


WS_ALL = ("ws_ticker.jsonl", "ws_trade.jsonl", "ws_candle.jsonl", "ws_orderbook_trimmed_raw.jsonl")
WS_MICRO = "ws_orderbook_usdt_etc_microsecond_ts_2023-08.json"
WS_2021 = "recorded_ws_simple_trade_orderbook_2021-04-17.jsonl"
# The short names that the recordings of the stream use, as the long ones.
LONG = {
    "ty": "type",
    "cd": "code",
    "tms": "timestamp",
    "ttms": "trade_timestamp",
    "tp": "trade_price",
    "tv": "trade_volume",
    "ab": "ask_bid",
    "sid": "sequential_id",
    "st": "stream_type",
    "tas": "total_ask_size",
    "tbs": "total_bid_size",
    "obu": "orderbook_units",
    "ap": "ask_price",
    "as": "ask_size",
    "bp": "bid_price",
    "bs": "bid_size",
    "lv": "level",
}


def heard(text: str) -> tuple[object, dict]:
    """One message of the stream as it is decoded, and as the standard library reads it, with the long names."""
    message = json.loads(
        text,
        parse_float=Decimal,
        parse_int=int,
        object_pairs_hook=lambda pairs: {LONG.get(name, name): value for name, value in pairs},
    )
    (frame,) = wire.decode_frame(text.encode(), received_ms=NOW_MS)
    assert frame.snapshot is (message["stream_type"] == "SNAPSHOT")
    assert frame.value.market == message["code"]
    assert (frame.value.source, frame.value.received_ms) == (Source.STREAM, NOW_MS)
    return frame.value, message


def assert_heard(value: object, message: dict) -> None:
    """Every kind by the words it was told in."""
    match value:
        case Ticker():
            assert_ticker(value, message | {"market": message["code"]})
        case Candle():
            assert_candle(value, message)
            assert f"candle.{value.timeframe}" == message["type"]
            assert (value.state, value.revision, value.filled) == (CandleState.RUNNING, 0, False)
        case Trade():
            assert_exact(value, message, TRADE_DECIMALS)
            assert value.side is {"BID": Side.BUY, "ASK": Side.SELL}[message["ask_bid"]]
            assert value.sequential_id == message["sequential_id"]
            assert (value.trade_ms, value.exchange_ms) == (message["trade_timestamp"], message["timestamp"])
        case Orderbook():
            assert_book(value, message | {"level": message.get("level", 0)})
        case _:
            pytest.fail(f"{value!r} is no value")


def assert_book(book: Orderbook, message: dict) -> None:
    assert_exact(book, message, {name: name for name in ("total_ask_size", "total_bid_size", "level")})
    assert book.exchange_ms == message["timestamp"]
    for side, levels in (("ask", book.asks), ("bid", book.bids)):
        for level, unit in zip(levels, message["orderbook_units"], strict=True):
            assert_exact(level, unit, {"price": f"{side}_price", "size": f"{side}_size"})


def test_no_message_of_the_stream_in_the_collection_is_left_out():
    files = {path.name for path in PAYLOADS.iterdir() if "ws_" in path.name}

    assert files == {*WS_ALL, WS_MICRO, WS_2021, "ws_list_subscriptions.json", "ws_status_and_errors.jsonl"} | {
        # What others wrote, not what they heard.
        "ws_requests.jsonl"
    }


@pytest.mark.parametrize("name", WS_ALL)
def test_messages_of_the_stream_are_exact(name):
    lines = (PAYLOADS / name).read_text(encoding="utf-8").splitlines()

    assert lines
    for line in lines:
        assert_heard(*heard(line))


def test_every_message_of_the_recording_of_2021_is_exact():
    lines = (PAYLOADS / WS_2021).read_text(encoding="utf-8").splitlines()
    # Cut out of its line, so that no number is written anew.
    messages = [line[line.index('"frame":') + len('"frame":') : -1] for line in lines]

    kinds = {Trade: 0, Orderbook: 0}
    for message in messages:
        value, told = heard(message)
        assert_heard(value, told)
        kinds[type(value)] += 1
    assert kinds == {Trade: 304, Orderbook: 145}


def test_a_book_of_the_stream_stamped_in_microseconds_is_brought_to_milliseconds():
    book, message = heard((PAYLOADS / WS_MICRO).read_text(encoding="utf-8"))

    assert book.exchange_ms == 1_691_530_805_062
    assert_book(book, message | {"timestamp": 1_691_530_805_062, "level": 0})


def test_the_recorded_list_of_subscriptions_is_told_as_topics():
    (frame,) = wire.decode_frame((PAYLOADS / "ws_list_subscriptions.json").read_bytes(), received_ms=NOW_MS)

    topics = {Topic(line, market) for line in (Line.TICKER, Line.ORDERBOOK) for market in ("KRW-BTC", "KRW-ETH")}
    assert frame.value == wire.Subscribed("unique uuid", frozenset(topics))


def test_every_recorded_status_and_error_of_the_stream_is_told():
    life, *errors = (PAYLOADS / "ws_status_and_errors.jsonl").read_text(encoding="utf-8").splitlines()

    assert wire.decode_frame(life, received_ms=NOW_MS) == ()
    for recorded in errors:
        said = json.loads(recorded)["error"]
        with pytest.raises(ExchangeError) as info:
            wire.decode_frame(recorded, received_ms=NOW_MS)
        assert type(info.value) is ExchangeError
        assert str(info.value) == f"{said['name']}: {said['message']}"
