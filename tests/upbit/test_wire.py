"""The edge in bytes: every request as it is written, every answer and refusal as it is read, whatever comes in."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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
from marketpipe.errors import (
    BadPayload,
    Banned,
    ExchangeError,
    ExchangeUnavailable,
    RateLimited,
    UnknownMarket,
)
from marketpipe.models import CandleState, Change, Level, Side, Source
from marketpipe.upbit import wire

NOW_MS = 1_790_000_000_000
TICKERS = TickersRequest(("KRW-BTC", "KRW-ETH"))
BOOKS = OrderbooksRequest(("KRW-BTC", "KRW-ETH"))
TRADES = TradesRequest("KRW-BTC", 500)
MINUTES = CandlesRequest("KRW-BTC", Timeframe.M1, 200)
# Tuesday, 2025-07-29, 12:00 UTC.
NOON_MS = 1_753_790_400_000


def number(text: str) -> str:
    """A number that `body` writes with exactly these characters."""
    return f"<number {text}>"


def body(*rows: object) -> bytes:
    return re.sub(r'"<number ([^">]*)>"', r"\1", json.dumps(rows)).encode()


def ticker(market="KRW-BTC", **fields):
    row = {
        "market": market,
        "trade_date": "20250730",
        "trade_timestamp": 1753894995076,
        "opening_price": number("163248000.00000000"),
        "high_price": number("163708000.00000000"),
        "low_price": number("162248000.00000000"),
        "trade_price": number("162876000.00000000"),
        "prev_closing_price": number("163158000.00000000"),
        "change": "FALL",
        "change_price": number("282000.00000000"),
        "signed_change_price": number("-282000.00000000"),
        "signed_change_rate": number("-0.0017283860"),
        "trade_volume": number("0.02543652"),
        "acc_trade_price": number("137728155832.9616000000000000"),
        "acc_trade_price_24h": number("167740032580.71786000"),
        "acc_trade_volume": number("844.94369319"),
        "acc_trade_volume_24h": number("1029.27369910"),
        "highest_52_week_price": number("166800000.00000000"),
        "highest_52_week_date": "2025-07-14",
        "lowest_52_week_price": number("72100000.00000000"),
        "lowest_52_week_date": "2024-08-05",
        "timestamp": 1753894995113,
    }
    return row | fields


def unit(bid_price=99, bid_size=1, ask_price=101, ask_size=2):
    return {"bid_price": bid_price, "bid_size": bid_size, "ask_price": ask_price, "ask_size": ask_size}


def book(market="KRW-BTC", **fields):
    row = {
        "market": market,
        "timestamp": NOON_MS,
        "total_ask_size": number("1.50"),
        "total_bid_size": 3,
        "orderbook_units": [unit()],
        "level": 0,
    }
    return row | fields


def trade(sequential_id=17539127999450000, **fields):
    row = {
        "market": "KRW-BTC",
        "timestamp": 1753912799945,
        "trade_price": number("162806000.00000000"),
        "trade_volume": number("0.00012284"),
        "change_price": number("-352000.00000000"),
        "ask_bid": "BID",
        "sequential_id": sequential_id,
    }
    return row | fields


def candle(opens="2025-07-29T12:00:00", **fields):
    row = {
        "market": "KRW-BTC",
        "candle_date_time_utc": opens,
        "opening_price": 10,
        "high_price": 12,
        "low_price": 9,
        "trade_price": 11,
        "candle_acc_trade_volume": number("1.50000000"),
        "candle_acc_trade_price": number("16.00000000"),
        "timestamp": NOON_MS + 100,
        "unit": 1,
    }
    return row | fields


def market(name="KRW-BTC", **fields):
    return {"market": name, "korean_name": "비트코인", "english_name": "Bitcoin"} | fields


def without(row: dict, field: str) -> dict:
    return {name: value for name, value in row.items() if name != field}


def decode(request, answer: bytes, received_ms: int = NOW_MS, exchange_ms: int | None = None):
    return wire.decode(request, answer, received_ms=received_ms, exchange_ms=exchange_ms)


def error_of(request=TICKERS, status=400, answer: bytes = b"", now_ms: int = NOW_MS, **headers: str):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return wire.error_of(request, status, named, answer, now_ms=now_ms)


def refusal(message: str, name: object = 400) -> bytes:
    return json.dumps({"error": {"name": name, "message": message}}).encode()


ONE_OF_EACH = [
    (MarketsRequest(), market(), "english_name", 5),
    (TICKERS, ticker(), "trade_price", "x"),
    (TICKERS, ticker(), "change", "SIDEWAYS"),
    (TICKERS, ticker(), "timestamp", "1753894995113"),
    (TICKERS, ticker(), "highest_52_week_date", "never"),
    (QuoteTickersRequest(("KRW",)), ticker(), "acc_trade_volume", None),
    (BOOKS, book(), "total_ask_size", []),
    (TRADES, trade(), "ask_bid", "BUY"),
    (TRADES, trade(), "sequential_id", 1.5),
    (TRADES, trade(), "timestamp", 0),
    (MINUTES, candle(), "candle_date_time_utc", "yesterday"),
    (MINUTES, candle(), "candle_acc_trade_price", True),
]


def failure_of(request, *rows) -> BadPayload:
    """The one failure of a batch, or what a page raises."""
    try:
        values, failed = decode(request, body(*rows))
    except BadPayload as exc:
        return exc
    assert values == ()
    [flaw] = failed.values()
    return flaw


class TestEncode:
    @pytest.mark.parametrize(
        ("request_", "path", "params"),
        [
            (MarketsRequest(), "/v1/market/all", {"is_details": "true"}),
            (TICKERS, "/v1/ticker", {"markets": "KRW-BTC,KRW-ETH"}),
            (QuoteTickersRequest(("KRW", "BTC")), "/v1/ticker/all", {"quote_currencies": "KRW,BTC"}),
            (BOOKS, "/v1/orderbook", {"markets": "KRW-BTC,KRW-ETH", "count": "30"}),
            (TradesRequest("KRW-BTC", 5), "/v1/trades/ticks", {"market": "KRW-BTC", "count": "5"}),
            (
                TradesRequest("KRW-BTC", 500, cursor=17539127999450000, days_ago=7),
                "/v1/trades/ticks",
                {"market": "KRW-BTC", "count": "500", "cursor": "17539127999450000", "days_ago": "7"},
            ),
            (MINUTES, "/v1/candles/minutes/1", {"market": "KRW-BTC", "count": "200"}),
            (
                CandlesRequest("KRW-BTC", Timeframe.D1, 1, to_ms=NOON_MS),
                "/v1/candles/days",
                {"market": "KRW-BTC", "count": "1", "to": "2025-07-29T12:00:00Z"},
            ),
        ],
    )
    def test_a_request_reads_back_as_path_and_parameters(self, request_, path, params):
        url = urlsplit(wire.encode(request_))

        assert url.path == path
        assert parse_qs(url.query, strict_parsing=True) == {name: [value] for name, value in params.items()}

    @pytest.mark.parametrize(
        ("timeframe", "path"),
        [
            ("1s", "seconds"),
            ("1m", "minutes/1"),
            ("3m", "minutes/3"),
            ("5m", "minutes/5"),
            ("10m", "minutes/10"),
            ("15m", "minutes/15"),
            ("30m", "minutes/30"),
            ("1h", "minutes/60"),
            ("4h", "minutes/240"),
            ("1d", "days"),
            ("1w", "weeks"),
            ("1M", "months"),
            ("1y", "years"),
        ],
    )
    def test_every_timeframe_has_its_path(self, timeframe, path):
        encoded = wire.encode(CandlesRequest("KRW-BTC", Timeframe(timeframe), 1))

        assert urlsplit(encoded).path == f"/v1/candles/{path}"

    def test_every_timeframe_is_covered(self):
        assert len({wire.encode(CandlesRequest("KRW-BTC", each, 1)) for each in Timeframe}) == len(Timeframe)

    @pytest.mark.parametrize(("to_ms", "text"), [(0, "00:00:00"), (1, "00:00:01"), (1000, "00:00:01")])
    def test_to_is_rounded_up_as_it_excludes_the_bar_that_opens_then(self, to_ms, text):
        encoded = wire.encode(CandlesRequest("KRW-BTC", Timeframe.S1, 1, to_ms=to_ms))

        assert parse_qs(urlsplit(encoded).query)["to"] == [f"1970-01-01T{text}Z"]

    @example("a b+c,d:e#f")
    @given(st.text(min_size=1).filter(lambda text: max(text) < "\ud800"))
    def test_whatever_is_asked_is_encoded_so_that_it_reads_back(self, name):
        encoded = wire.encode(TickersRequest((name,)))

        assert encoded.isascii()
        assert not set(encoded) & set(" +,:#")
        assert parse_qs(urlsplit(encoded).query)["markets"] == [name]


class TestRows:
    def test_a_market_of_korea(self):
        caution = {"PRICE_FLUCTUATIONS": True, "TRADING_VOLUME_SOARING": False, "NEW_FLAG": True}
        answer = body(market(market_event={"warning": True, "caution": caution}))

        ((row,), failed) = decode(MarketsRequest(), answer)

        assert failed == {}
        assert (row.market, row.korean_name, row.english_name) == ("KRW-BTC", "비트코인", "Bitcoin")
        assert (row.warning, row.cautions) == (True, {"PRICE_FLUCTUATIONS", "NEW_FLAG"})
        assert (row.exchange_ms, row.received_ms, row.source) == (NOW_MS, NOW_MS, Source.REST)

    @pytest.mark.parametrize(
        ("fields", "warning"),
        [
            ({"market_warning": "CAUTION"}, True),
            ({"market_warning": "NONE"}, False),
            ({}, False),
            ({"market_event": None}, False),
            ({"market_event": {"warning": False}}, False),
        ],
    )
    def test_a_market_elsewhere(self, fields, warning):
        ((row,), failed) = decode(MarketsRequest(), body(without(market(), "korean_name") | fields))

        assert failed == {}
        assert (row.korean_name, row.warning, row.cautions) == ("", warning, frozenset())

    def test_a_ticker(self):
        ((row,), failed) = decode(TICKERS, body(ticker()))

        assert failed == {}
        assert row.change is Change.FALL
        assert str(row.quote_volume) == "137728155832.9616000000000000"
        assert str(row.signed_change_rate) == "-0.0017283860"
        assert (row.trade_ms, row.exchange_ms, row.received_ms) == (1753894995076, 1753894995113, NOW_MS)
        assert row.source is Source.REST

    def test_a_book_loses_its_padding_and_keeps_its_order(self):
        units = [unit(99, 1, 101, 2), unit(0, 0, 102, number("0.50")), unit(98, 3, 0, 0), unit(0, number("0E-8"), 0, 0)]
        ((row,), failed) = decode(BOOKS, body(book(orderbook_units=units)))

        assert failed == {}
        assert row.bids == (Level(Decimal(99), Decimal(1)), Level(Decimal(98), Decimal(3)))
        assert row.asks == (Level(Decimal(101), Decimal(2)), Level(Decimal(102), Decimal("0.50")))
        assert (row.total_ask_size, row.total_bid_size, row.level) == (Decimal("1.50"), 3, 0)
        assert (row.exchange_ms, row.received_ms, row.source) == (NOON_MS, NOW_MS, Source.REST)

    def test_a_book_without_a_level_is_not_grouped(self):
        ((row,), _) = decode(BOOKS, body(without(book(orderbook_units=[]), "level")))

        assert (row.level, row.bids, row.asks) == (0, (), ())

    def test_a_trade_has_one_time_and_the_side_of_its_taker(self):
        rows, failed = decode(TRADES, body(trade(2), trade(1, ask_bid="ASK")))

        assert failed == {}
        assert [row.side for row in rows] == [Side.BUY, Side.SELL]
        assert (rows[0].trade_ms, rows[0].exchange_ms) == (1753912799945, 1753912799945)
        assert rows[0].source is Source.REST

    def test_a_candle(self):
        ((row,), _) = decode(MINUTES, body(candle()))

        assert (row.open_ms, row.timeframe, row.market) == (NOON_MS, Timeframe.M1, "KRW-BTC")
        assert (row.open, row.high, row.low, row.close) == (10, 12, 9, 11)
        assert (str(row.volume), str(row.quote_volume)) == ("1.50000000", "16.00000000")
        assert (row.revision, row.filled, row.source) == (0, False, Source.REST)

    @pytest.mark.parametrize("spelling", ["2025-07-29T12:00:00", "2025-07-29T12:00:00Z", "2025-07-29T21:00:00+09:00"])
    def test_an_open_time_without_a_zone_is_utc(self, spelling):
        ((row,), _) = decode(MINUTES, body(candle(spelling)))

        assert row.open_ms == NOON_MS

    def test_an_instrument(self):
        levels = {"supported_levels": ["0", "10000"]}
        row = {"market": "KRW-BTC", "quote_currency": "KRW", "tick_size": "1000"}

        assert wire.decode_instruments(body(row | levels, row)) == (
            wire.Instrument("KRW-BTC", "KRW", Decimal(1000), (Decimal(0), Decimal(10000))),
            wire.Instrument("KRW-BTC", "KRW", Decimal(1000), ()),
        )

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"tick_size": "NaN"}, "tick_size"),
            ({"tick_size": None}, "tick_size"),
            ({"supported_levels": ["1", "Infinity"]}, "supported_levels"),
        ],
    )
    def test_a_bad_instrument_is_named(self, fields, field):
        row = {"market": "KRW-BTC", "quote_currency": "KRW", "tick_size": "1000"}
        with pytest.raises(BadPayload, match=f"KRW-BTC field '{field}'") as info:
            wire.decode_instruments(body(row, row | fields))

        assert (info.value.field, info.value.market) == (field, "KRW-BTC")

    @pytest.mark.parametrize("request_", [MarketsRequest(), TICKERS, BOOKS, TRADES, MINUTES])
    def test_an_empty_list_is_an_answer(self, request_):
        assert decode(request_, b" [ ] ") == ((), {})

    @pytest.mark.parametrize(
        "text", ["1.16539E8", "7.9276E-4", "0E-8", "100", "0.1000", "123456789012345678901.123456789012345678901"]
    )
    def test_every_spelling_of_a_number_keeps_its_digits(self, text):
        ((row,), _) = decode(TICKERS, body(ticker(trade_price=number(text), signed_change_price=text)))

        assert row.price.as_tuple() == row.signed_change.as_tuple() == Decimal(text).as_tuple()

    @given(st.decimals(allow_nan=False, allow_infinity=False, min_value=0, max_value=10**38, places=8))
    def test_decimals_survive_to_the_last_digit(self, value):
        ((row,), _) = decode(TRADES, body(trade(trade_price=number(f"{value:f}"), trade_volume=number(f"{value:E}"))))

        assert row.price.as_tuple() == value.as_tuple()
        assert row.volume == value

    def test_stamps_in_microseconds_become_milliseconds(self):
        micro = {"timestamp": NOON_MS * 1000 + 7}
        ((row,), _) = decode(TICKERS, body(ticker(trade_timestamp=NOON_MS * 1000, **micro)))
        ((late,), _) = decode(TICKERS, body(ticker(trade_timestamp=NOON_MS * 1000)))
        ((bar,), _) = decode(MINUTES, body(candle(**micro)))
        ((deal,), _) = decode(TRADES, body(trade(**micro)))
        ((levels,), _) = decode(BOOKS, body(book(**micro)))

        assert {row.exchange_ms, row.trade_ms, late.trade_ms} == {NOON_MS}
        assert {bar.exchange_ms, deal.trade_ms, levels.exchange_ms} == {NOON_MS}


class TestPages:
    def test_candles_come_out_newest_first(self):
        answer = body(
            candle("2025-07-29T11:58:00"),
            candle("2025-07-29T12:00:00", trade_price=2),
            candle("2025-07-29T11:59:00"),
        )
        rows, _ = decode(MINUTES, answer)

        assert [row.open_ms for row in rows] == [NOON_MS, NOON_MS - 60_000, NOON_MS - 120_000]
        assert rows[0].close == 2

    def test_a_page_that_repeats_a_bar_is_refused_for_its_length_would_lie(self):
        answer = body(candle("2025-07-29T12:00:00"), candle("2025-07-29T12:00:00", timestamp=NOON_MS + 9))
        with pytest.raises(BadPayload, match=r"KRW-BTC.*candle_date_time_utc.*twice"):
            decode(MINUTES, answer)

    def test_trades_come_out_in_their_order(self):
        rows, _ = decode(TRADES, body(trade(5), trade(7), trade(6)))

        assert [row.sequential_id for row in rows] == [5, 7, 6]

    def test_a_page_that_repeats_a_trade_is_refused(self):
        with pytest.raises(BadPayload, match=r"KRW-BTC.*sequential_id.*twice"):
            decode(TRADES, body(trade(5), trade(7), trade(5)))

    @pytest.mark.parametrize(
        ("exchange_ms", "received_ms", "state"),
        [
            (NOON_MS + 61_999, NOON_MS + 99_999, CandleState.RUNNING),
            (NOON_MS + 62_000, NOON_MS, CandleState.FINAL),
            (None, NOON_MS + 61_999, CandleState.RUNNING),
            (None, NOON_MS + 62_000, CandleState.FINAL),
        ],
    )
    def test_the_newest_bar_is_final_two_seconds_after_its_end_by_the_clock_of_the_exchange(
        self, exchange_ms, received_ms, state
    ):
        rows, _ = decode(MINUTES, body(candle(), candle("2025-07-29T11:59:00")), received_ms, exchange_ms)

        assert [row.state for row in rows] == [state, CandleState.FINAL]

    def test_a_bar_with_a_later_one_beside_it_is_final_whatever_the_clock_says(self):
        rows, _ = decode(MINUTES, body(candle("2025-07-29T12:01:00"), candle()), NOON_MS, NOON_MS)

        assert [row.state for row in rows] == [CandleState.RUNNING, CandleState.FINAL]

    @pytest.mark.parametrize(
        ("timeframe", "opens"),
        [
            ("1m", "2025-07-29T12:00:01"),
            ("4h", "2025-07-29T13:00:00"),
            ("1d", "2025-07-29T09:00:00"),
            ("1w", "2025-07-29T00:00:00"),
            ("1M", "2025-07-29T00:00:00"),
            ("1y", "2025-07-01T00:00:00"),
            ("1s", "1969-12-31T23:59:59"),
            ("1y", "9999-01-01T00:00:00"),
            ("1d", "0001-01-01T00:00:00+09:00"),
        ],
    )
    def test_a_bar_that_opens_off_the_grid_is_refused(self, timeframe, opens):
        with pytest.raises(BadPayload, match=f"where no {timeframe} bar opens") as info:
            decode(CandlesRequest("KRW-BTC", Timeframe(timeframe), 200), body(candle(opens)))

        assert (info.value.field, info.value.market) == ("candle_date_time_utc", "KRW-BTC")

    @pytest.mark.parametrize(("request_", "row"), [(MINUTES, candle), (TRADES, trade)])
    def test_a_row_of_another_market_fails_the_page(self, request_, row):
        with pytest.raises(BadPayload, match="was 'KRW-ETH' in an answer about KRW-BTC") as info:
            decode(request_, body(row(), row(market="KRW-ETH")))

        assert (info.value.field, info.value.market) == ("market", "KRW-BTC")

    @pytest.mark.parametrize(("request_", "good"), [(MINUTES, candle()), (TRADES, trade())])
    def test_one_bad_row_fails_the_page(self, request_, good):
        with pytest.raises(BadPayload) as info:
            decode(request_, body(good, without(good, "trade_price")))

        assert (info.value.field, info.value.market) == ("trade_price", "KRW-BTC")


class TestBatches:
    def test_one_bad_row_harms_no_other(self):
        rows, failed = decode(TICKERS, body(ticker(trade_price=None), ticker("KRW-ETH")))

        assert [row.market for row in rows] == ["KRW-ETH"]
        assert list(failed) == ["KRW-BTC"]
        assert (failed["KRW-BTC"].field, failed["KRW-BTC"].market) == ("trade_price", "KRW-BTC")

    def test_an_impossible_number_harms_no_other(self):
        rows, failed = decode(BOOKS, body(book(), book("KRW-ETH", orderbook_units=[unit(), unit(bid_size="NaN")])))

        assert [row.market for row in rows] == ["KRW-BTC"]
        assert (failed["KRW-ETH"].field, failed["KRW-ETH"].market) == ("bid_size", "KRW-ETH")

    def test_bad_letters_harm_no_other(self):
        answer = body(market(), market("KRW-ETH")).replace(b"KRW-BTC", b"KRW-BTC", 1)
        bad = answer.replace(b"Bitcoin", b"\xff\xfe", 1)
        rows, failed = decode(MarketsRequest(), bad)

        assert [row.market for row in rows] == ["KRW-ETH"]
        assert failed["KRW-BTC"].market == "KRW-BTC"

    @pytest.mark.parametrize("row", [7, None, [], {}, {"market": 5}, {"market": None}])
    def test_a_row_that_does_not_name_its_market_fails_the_answer(self, row):
        with pytest.raises(BadPayload):
            decode(TICKERS, body(ticker(), row))

    @pytest.mark.parametrize("order", [1, -1])
    def test_of_two_rows_of_a_market_the_newest_is_kept_in_the_place_of_the_first(self, order):
        pair = [ticker(timestamp=NOON_MS, trade_price=1), ticker(timestamp=NOON_MS + 1, trade_price=2)][::order]
        rows, _ = decode(TICKERS, body(pair[0], ticker("KRW-ETH"), pair[1]))

        assert [row.market for row in rows] == ["KRW-BTC", "KRW-ETH"]
        assert rows[0].price == 2

    def test_a_market_with_a_good_and_a_bad_row_is_answered(self):
        rows, failed = decode(TICKERS, body(ticker(), ticker(trade_price=None)))

        assert [row.market for row in rows] == ["KRW-BTC"]
        assert failed == {}

    @pytest.mark.parametrize(
        "request_", [TickersRequest(("KRW-BTC",)), OrderbooksRequest(("KRW-BTC",)), QuoteTickersRequest(("KRW",))]
    )
    def test_rows_that_nobody_asked_for_are_dropped_and_told_to_the_log(self, request_, caplog):
        row = book if isinstance(request_, OrderbooksRequest) else ticker
        rows, failed = decode(request_, body(row("BTC-ETH"), row(), row("BTC-XRP", timestamp=None)))

        assert [each.market for each in rows] == ["KRW-BTC"]
        assert failed == {}
        [record] = caplog.records
        assert (record.name, record.levelname) == ("marketpipe.wire", "WARNING")
        assert "BTC-ETH" in record.getMessage()

    def test_the_rows_keep_the_order_of_the_answer(self):
        rows, _ = decode(TICKERS, body(ticker("KRW-ETH"), ticker("KRW-BTC")))

        assert [row.market for row in rows] == ["KRW-ETH", "KRW-BTC"]


class TestNonsense:
    @pytest.mark.parametrize(("request_", "row", "field", "value"), ONE_OF_EACH)
    def test_a_missing_field_is_named_with_its_market(self, request_, row, field, value):
        flaw = failure_of(request_, without(row, field))

        assert (flaw.field, flaw.market) == (field, "KRW-BTC")
        assert "missing" in str(flaw)

    @pytest.mark.parametrize(("request_", "row", "field", "value"), ONE_OF_EACH)
    def test_a_mistyped_field_is_named_with_its_market(self, request_, row, field, value):
        flaw = failure_of(request_, row | {field: value})

        assert (flaw.field, flaw.market) == (field, "KRW-BTC")
        assert str(flaw).startswith(f"KRW-BTC field '{field}': ")

    def test_a_mistyped_field_within_a_field_is_named(self):
        flaw = failure_of(MarketsRequest(), market(market_event={"warning": 1}))

        assert (flaw.field, flaw.market) == ("warning", "KRW-BTC")

    @pytest.mark.parametrize(
        "text", ["NaN", "sNaN", "-NaN", "NaN123", "Infinity", "-Infinity", "inf", "", "abc", "0x1", "1,5"]
    )
    @pytest.mark.parametrize(
        ("request_", "row", "field"),
        [
            (TICKERS, ticker(), "trade_price"),
            (TICKERS, ticker(), "signed_change_rate"),
            (BOOKS, book(), "total_bid_size"),
            (TRADES, trade(), "trade_volume"),
            (MINUTES, candle(), "low_price"),
        ],
    )
    def test_a_string_that_is_no_plain_number_is_refused(self, request_, row, field, text):
        flaw = failure_of(request_, row | {field: text})

        assert (flaw.field, flaw.market) == (field, "KRW-BTC")

    @pytest.mark.parametrize(
        "text", ["1e400", "1e41", "-1e41", "1e-400", "0e999", "1e999999999", "1e-999999999", "9" * 60, "1e" + "9" * 30]
    )
    @pytest.mark.parametrize(
        ("request_", "row", "field"),
        [
            (TICKERS, ticker(), "acc_trade_price"),
            (TICKERS, ticker(), "signed_change_price"),
            (TRADES, trade(), "trade_price"),
            (MINUTES, candle(), "candle_acc_trade_volume"),
        ],
    )
    def test_a_number_beyond_all_bounds_is_refused_briefly(self, request_, row, field, text):
        flaw = failure_of(request_, row | {field: number(text)})

        assert (flaw.field, flaw.market) == (field, "KRW-BTC")
        assert len(str(flaw)) < 300

    @pytest.mark.parametrize(
        ("request_", "row", "field"),
        [
            (TICKERS, ticker(), "low_price"),
            (TICKERS, ticker(), "acc_trade_volume_24h"),
            (BOOKS, book(), "total_ask_size"),
            (BOOKS, book(), "level"),
            (TRADES, trade(), "trade_volume"),
            (MINUTES, candle(), "candle_acc_trade_price"),
        ],
    )
    def test_a_negative_price_or_size_is_refused_and_minus_zero_is_zero(self, request_, row, field):
        flaw = failure_of(request_, row | {field: number("-0.1")})
        (rows, failed) = decode(request_, body(row | {field: "-0.0"}))

        assert (flaw.field, flaw.market) == (field, "KRW-BTC")
        assert "cannot be negative" in str(flaw)
        assert (len(rows), failed) == (1, {})

    @pytest.mark.parametrize("side", ["bid", "ask"])
    def test_a_level_of_price_zero_with_a_size_is_refused(self, side):
        flaw = failure_of(BOOKS, book(orderbook_units=[unit(), unit(**{f"{side}_price": 0})]))

        assert (flaw.field, flaw.market) == (f"{side}_price", "KRW-BTC")

    @pytest.mark.parametrize("request_", [MarketsRequest(), TICKERS, BOOKS, TRADES, MINUTES])
    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"null",
            b"{}",
            b'{"error":{"name":404,"message":"Code not found"}}',
            b'[{"market":"KRW-B',
            body(ticker())[:-1],
            body(ticker()) + b"]",
            b"<html><body>503 Service Temporarily Unavailable</body></html>",
            b"\xff\xfe\x00",
            b"[" * 100_000,
            b'[{"market":"KRW-BTC","x":' + b"[" * 100_000,
            b"[ \x1b[2J\n" + b"x" * 1000,
        ],
    )
    def test_what_is_no_list_of_rows_is_refused_with_a_short_excerpt(self, request_, answer):
        with pytest.raises(BadPayload) as info:
            decode(request_, answer)

        text = str(info.value)
        assert len(text) < 300
        assert text.isprintable()

    def test_the_excerpt_shows_what_came(self):
        with pytest.raises(BadPayload, match="<html> 503 Service") as info:
            decode(TICKERS, b"<html>\n 503 Service" + b"!" * 500)

        assert "!" * 80 not in str(info.value)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "request_", [MarketsRequest(), TICKERS, QuoteTickersRequest(("KRW",)), BOOKS, TRADES, MINUTES]
    )
    @given(answer=st.binary())
    def test_any_bytes_are_rows_or_bad_payload(self, request_, answer):
        self.decode_or_refuse(request_, answer)

    @pytest.mark.slow
    @given(data=st.data())
    def test_any_json_is_rows_or_bad_payload(self, data):
        """Whatever was asked."""
        answer = json.dumps(data.draw(ANY_JSON)).encode()
        for request in (MarketsRequest(), TICKERS, QuoteTickersRequest(("KRW",)), BOOKS, TRADES, MINUTES):
            self.decode_or_refuse(request, answer)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("request_", "good"),
        [
            (MarketsRequest(), market(market_event={"warning": True, "caution": {"X": True}})),
            (TICKERS, ticker()),
            (BOOKS, book()),
            (TRADES, trade()),
            *[(CandlesRequest("KRW-BTC", timeframe, 200), candle()) for timeframe in Timeframe],
        ],
    )
    @given(data=st.data())
    def test_any_change_to_a_good_row_leaves_a_row_or_bad_payload(self, request_, good, data):
        changes = data.draw(st.dictionaries(st.sampled_from(sorted(good)), ANY_VALUE, min_size=1, max_size=3))

        self.decode_or_refuse(request_, body(good | changes))

    @staticmethod
    def decode_or_refuse(request, answer: bytes) -> None:
        try:
            rows, failed = decode(request, answer)
        except BadPayload:
            return
        assert isinstance(rows, tuple)
        assert all(isinstance(flaw, BadPayload) and flaw.market == name for name, flaw in failed.items())


NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.from_regex(r"\A-?[1-9][0-9]{0,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,25})?\Z").map(number),
)
STRINGS = st.one_of(
    st.text(),
    st.sampled_from(["NaN", "sNaN", "Infinity", "1e400", "1", "-1", "RISE", "BID", "KRW-BTC", "KRW-ETH"]),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.datetimes().map(lambda moment: moment.replace(microsecond=0).isoformat() + "+14:00"),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.dates().map(lambda day: f"{day.isoformat()}T00:00:00"),
    st.just("9999-12-31T23:59:59.9999999"),
)
ANY_VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, STRINGS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
ROW = st.dictionaries(st.sampled_from(["market", *ticker(), *book(), *market()]), ANY_VALUE, max_size=8)
ANY_JSON = st.one_of(ANY_VALUE, st.lists(st.one_of(ROW, ANY_VALUE), max_size=4))


class TestErrorOf:
    @pytest.mark.parametrize("name", [404, "404", "code_not_found"])
    def test_a_code_not_found_is_an_unknown_market(self, name):
        error = error_of(TRADES, 404, refusal("Code not found", name))

        assert type(error) is UnknownMarket
        assert (error.market, error.status) == ("KRW-BTC", 404)
        assert str(error) == (
            "unknown market 'KRW-BTC': the exchange does not list it "
            "(HTTP 404 from /v1/trades/ticks for KRW-BTC: Code not found)"
        )

    @pytest.mark.parametrize("answer", [b"Code not found", refusal("code not found!", "x"), refusal("", 404)])
    def test_an_unknown_market_in_a_batch_names_the_batch(self, answer):
        error = error_of(BOOKS, 404, answer)

        assert type(error) is UnknownMarket
        assert error.market == "KRW-BTC,KRW-ETH"
        assert "one or more of 2 markets unknown" in str(error)

    @pytest.mark.parametrize(
        ("request_", "answer"),
        [
            (TICKERS, refusal("no Route matched with those values", "not_found")),
            (TICKERS, b"<html>404 Not Found</html>"),
            (TICKERS, b""),
            (MarketsRequest(), refusal("Code not found", 404)),
            (QuoteTickersRequest(("XYZ",)), refusal("Code not found", 404)),
        ],
    )
    def test_another_404_is_no_unknown_market(self, request_, answer):
        error = error_of(request_, 404, answer)

        assert type(error) is ExchangeError
        assert error.status == 404

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, ExchangeError),
            (401, ExchangeError),
            (301, ExchangeError),
            (204, ExchangeError),
            (499, ExchangeError),
            (500, ExchangeUnavailable),
            (503, ExchangeUnavailable),
            (599, ExchangeUnavailable),
            (600, ExchangeError),
            (429, RateLimited),
            (418, Banned),
        ],
    )
    @pytest.mark.parametrize(
        "answer",
        [
            refusal("Something"),
            refusal("Something", "too_many_requests"),
            b'{"error":{"name":null,"message":"Something"}}',
            b"Something",
            b"<html>\n<h1>Something</h1></html>",
        ],
    )
    def test_the_status_alone_decides_the_kind(self, status, kind, answer):
        error = error_of(MINUTES, status, answer)

        assert type(error) is kind
        assert error.status == status
        assert str(error) == f"HTTP {status} from /v1/candles/minutes/1 for KRW-BTC: Something"

    @pytest.mark.parametrize(
        ("request_", "place"),
        [(MarketsRequest(), "/v1/market/all"), (TICKERS, "/v1/ticker for 2 markets")],
    )
    def test_the_message_names_the_place(self, request_, place):
        assert str(error_of(request_, 500, b"")) == f"HTTP 500 from {place}: no reason given"

    @pytest.mark.parametrize("answer", [b'{"error":{}}', b'{"error":{"name":"","message":""}}', b"   ", b"<br>"])
    def test_an_answer_without_words_is_said_so(self, answer):
        assert str(error_of(TICKERS, 500, answer)).endswith(": no reason given")

    def test_an_error_with_a_name_alone_speaks_by_it(self):
        assert str(error_of(TICKERS, 400, b'{"error":{"name":"invalid_query"}}')).endswith(": invalid_query")

    def test_the_message_is_one_short_line(self):
        error = error_of(TICKERS, 500, "차단\x1b[31m\n\n".encode() * 5000)

        assert str(error).isprintable()
        assert len(str(error)) < 200

    @pytest.mark.parametrize(
        ("answer", "headers", "retry_after_s"),
        [
            (b"Too many API requests.", {}, 1.0),
            (b"", {}, 1.0),
            (refusal("Too many API requests.", 429), {}, 1.0),
            (refusal("Too many API requests. Limit: 10/sec, 10 per second", 429), {}, 1.0),
            (b"", {"Retry_After": "3"}, 3.0),
            (b"", {"retry_after": " 0.5 "}, 0.5),
            (b"", {"retry_after": "0"}, 1.0),
            (b"", {"retry_after": "soon"}, 1.0),
            (b"", {"retry_after": "86400"}, 1.0),
            (b"", {"retry_after": "Mon, 21 Sep 2026 14:13:25 GMT"}, 5.0),
            (b"try again in 2 seconds", {"retry_after": "-1"}, 2.0),
            (b"try again in 250ms", {}, 0.25),
            (b"try again in 2 hours", {}, 1.0),
        ],
    )
    def test_a_429_says_how_long_to_wait(self, answer, headers, retry_after_s):
        assert error_of(TICKERS, 429, answer, **headers).retry_after_s == retry_after_s

    @pytest.mark.parametrize(
        ("words", "wait_ms"),
        [
            ("Try again in 30 seconds", 30_000),
            ("blocked for 5 minutes.", 300_000),
            ("blocked for 1 minute 30 seconds", 90_000),
            ("blocked for 1.5 h", 5_400_000),
            ("blocked for 2 days", 172_800_000),
            ("30초 후에 다시 시도", 30_000),
            ("5분 동안 차단", 300_000),
            ("1시간 차단", 3_600_000),
            (f"until {NOW_MS + 7_000}", 7_000),
            (f"until {NOW_MS // 1000 + 9}", 9_000),
            ("until 2026-09-21T14:14:20Z", 60_000),
            ("until 2026-09-21 23:14:20+09:00", 60_000),
            ("until 2026-09-21T14:14:20", 60_000),
        ],
    )
    def test_a_418_says_until_when_if_its_words_do(self, words, wait_ms):
        # NOW_MS is 2026-09-21T14:13:20Z.
        for answer in (words.encode(), refusal(words, 418)):
            assert error_of(TICKERS, 418, answer).until_ms == NOW_MS + wait_ms

    def test_a_418_believes_its_header_first(self):
        assert error_of(TICKERS, 418, b"30 seconds", retry_after="60").until_ms == NOW_MS + 60_000

    @pytest.mark.parametrize(
        "words",
        [
            "",
            "I'm a teapot",
            "418",
            "blocked for 0 seconds",
            "blocked for 900000000 hours",
            f"since {NOW_MS - 1}",
            "until 2026-99-99T12:00:00Z",
            "since 2020-01-01T00:00:00Z",
            "order 12345678901234567890",
        ],
    )
    def test_a_418_that_does_not_say_until_when_has_zero(self, words):
        assert error_of(TICKERS, 418, words.encode()).until_ms == 0

    @pytest.mark.slow
    @given(
        status=st.integers(100, 999),
        answer=st.one_of(
            st.binary(), st.text().map(str.encode), ANY_JSON.map(lambda value: json.dumps(value).encode())
        ),
        retry_after=st.one_of(st.text(), st.integers().map(str)),
    )
    def test_any_refusal_is_an_error(self, status, answer, retry_after):
        error = error_of(TICKERS, status, answer, retry_after=retry_after)

        assert isinstance(error, ExchangeError)
        assert error.status == status
        assert str(error).isprintable()

    @given(st.from_regex(r"\A[0-9]{4}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](Z|[+-][0-9]{4})?\Z"))
    def test_any_point_in_time_can_be_named(self, moment):
        until_ms = error_of(TICKERS, 418, moment.encode()).until_ms

        assert until_ms == 0 or until_ms > NOW_MS

    @pytest.mark.parametrize("letters", [b"\xff\xfe", b"\xe2\x82", b"\\ud800", b"\xed\xa0\x80"])
    def test_bad_letters_in_a_refusal_are_no_harm(self, letters):
        error = error_of(TICKERS, 500, refusal("LETTERS").replace(b"LETTERS", letters))

        assert type(error) is ExchangeUnavailable
        assert str(error).isprintable()

    def test_a_body_nested_without_end_is_no_harm(self):
        assert type(error_of(TICKERS, 500, b'{"error":{"x":' + b"[" * 100_000)) is ExchangeUnavailable


class TestHeaders:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("group=candles; min=600; sec=9", RemainingReq("candles", 9)),
            ("group=crix-trades; min=600; sec=0", RemainingReq("crix-trades", 0)),
            ("group=order;min=199;sec=29", RemainingReq("order", 29)),
            ("sec=3; group=ticker", RemainingReq("ticker", 3)),
            ("group = market ; sec = 7", RemainingReq("market", 7)),
            ("group=market", None),
            ("sec=9", None),
            ("group=market; sec=-1", None),
            ("group=market; sec=9999999999", None),
            ("", None),
            (None, None),
        ],
    )
    def test_remaining_req(self, value, expected):
        assert wire.remaining_req(value) == expected

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("Wed, 30 Jul 2025 17:03:15 GMT", 1_753_894_995_000),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Wed, 32 Jul 2025 17:03:15 GMT", None),
            ("Wed, 30 Abc 2025 17:03:15 GMT", None),
            ("2025-07-30T17:03:15Z", None),
            ("yesterday", None),
            ("", None),
            (None, None),
        ],
    )
    def test_date_ms(self, value, expected):
        assert wire.date_ms(value) == expected

    @given(st.one_of(st.text(), st.from_regex(r"\A[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\Z")))
    def test_any_header_can_be_read(self, value):
        left, at_ms = wire.remaining_req(value), wire.date_ms(value)

        assert left is None or left.left >= 0
        assert at_ms is None or isinstance(at_ms, int)


class TestBareWords:
    """NaN and Infinity are no JSON; they are refused by the name of their field, not as an unreadable answer."""

    @pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity"])
    def test_in_a_page(self, word):
        answer = body(candle("2025-07-29T12:00:00", trade_price=7.5)).replace(b"7.5", b" " + word)
        with pytest.raises(BadPayload, match=r"KRW-BTC field 'trade_price'"):
            decode(MINUTES, answer)

    def test_beside_other_damage_the_answer_stays_unreadable(self):
        with pytest.raises(BadPayload, match="cannot be read"):
            decode(TICKERS, b'[{"market":"KRW-BTC","trade_price":NaN,')
