"""What the exchange's WebSocket says, in every format, and whatever bytes come instead."""

from __future__ import annotations

import decimal
import json
import re
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import Frame, Line, Topic
from marketpipe.errors import BadPayload, ExchangeError, RateLimited
from marketpipe.models import Candle, CandleState, Change, Level, Orderbook, Side, Source, Ticker, Trade
from marketpipe.upbit import wire
from marketpipe.upbit.wire_values import AHEAD_MS

NOW_MS = 1_790_000_000_000
# Tuesday, 2025-07-29, 12:00 UTC.
NOON_MS = 1_753_790_400_000

# The short names of reference/websocket-ticker, -trade, -candle (2026-09-22) and -orderbook (2026-09-09).
SHORT = {
    "type": "ty",
    "code": "cd",
    "timestamp": "tms",
    "stream_type": "st",
    "opening_price": "op",
    "high_price": "hp",
    "low_price": "lp",
    "trade_price": "tp",
    "prev_closing_price": "pcp",
    "change": "c",
    "change_price": "cp",
    "signed_change_price": "scp",
    "signed_change_rate": "scr",
    "trade_volume": "tv",
    "acc_trade_volume": "atv",
    "acc_trade_volume_24h": "atv24h",
    "acc_trade_price": "atp",
    "acc_trade_price_24h": "atp24h",
    "trade_timestamp": "ttms",
    "ask_bid": "ab",
    "highest_52_week_price": "h52wp",
    "highest_52_week_date": "h52wdt",
    "lowest_52_week_price": "l52wp",
    "lowest_52_week_date": "l52wdt",
    "market_state": "ms",
    "sequential_id": "sid",
    "best_ask_price": "bap",
    "candle_date_time_utc": "cdttmu",
    "candle_date_time_kst": "cdttmk",
    "candle_acc_trade_volume": "catv",
    "candle_acc_trade_price": "catp",
    "total_ask_size": "tas",
    "total_bid_size": "tbs",
    "orderbook_units": "obu",
    "ask_price": "ap",
    "ask_size": "as",
    "bid_price": "bp",
    "bid_size": "bs",
    "level": "lv",
}
FORMATS = ["DEFAULT", "SIMPLE", "JSON_LIST", "SIMPLE_LIST"]


def number(text: str) -> str:
    """A number that `written` writes with exactly these characters."""
    return f"<number {text}>"


def renamed(value: object) -> object:
    if isinstance(value, dict):
        return {SHORT.get(name, name): renamed(inner) for name, inner in value.items()}
    return [renamed(inner) for inner in value] if isinstance(value, list) else value


def text(value: object) -> bytes:
    return re.sub(r'"<number ([^">]*)>"', r"\1", json.dumps(value)).encode()


def written(message: dict, style: str = "DEFAULT") -> bytes:
    message = renamed(message) if style.startswith("SIMPLE") else message
    return text([message] if style.endswith("LIST") else message)


def ticker(code="KRW-BTC", **fields):
    message = {
        "type": "ticker",
        "code": code,
        "opening_price": number("158219000.00000000"),
        "high_price": number("159278000.00000000"),
        "low_price": number("157588000.00000000"),
        "trade_price": number("158201000.00000000"),
        "prev_closing_price": number("158200000.00000000"),
        "acc_trade_price": number("95078733694.3792000000000000"),
        "change": "FALL",
        "change_price": number("1000.00000000"),
        "signed_change_price": number("-1000.00000000"),
        "signed_change_rate": number("-0.0000063211"),
        "ask_bid": "BID",
        "trade_volume": number("0.00006321"),
        "acc_trade_volume": number("600.02894052"),
        "trade_timestamp": 1758875205145,
        "highest_52_week_price": number("169900000.00000000"),
        "highest_52_week_date": "2025-08-14",
        "lowest_52_week_price": number("80635000.00000000"),
        "lowest_52_week_date": "2024-10-10",
        "market_state": "ACTIVE",
        "delisting_date": None,
        "timestamp": 1758875205276,
        "acc_trade_price_24h": number("331187169240.21526"),
        "acc_trade_volume_24h": number("2092.15360145"),
        "stream_type": "SNAPSHOT",
    }
    return message | fields


def trade(code="KRW-BTC", **fields):
    message = {
        "type": "trade",
        "code": code,
        "timestamp": 1785395043831,
        "trade_timestamp": 1785395043779,
        "trade_price": number("91361000.0"),
        "trade_volume": number("0.01275549"),
        "ask_bid": "ASK",
        "change_price": number("63000.0"),
        "sequential_id": 17853950437790001,
        "best_ask_price": 91370000,
        "stream_type": "REALTIME",
    }
    return message | fields


def unit(ask_price=101, bid_price=99, ask_size=2, bid_size=1):
    return {"ask_price": ask_price, "bid_price": bid_price, "ask_size": ask_size, "bid_size": bid_size}


def book(code="KRW-BTC", **fields):
    message = {
        "type": "orderbook",
        "code": code,
        "timestamp": NOON_MS,
        "total_ask_size": number("2.51469375"),
        "total_bid_size": number("1.63815297"),
        "orderbook_units": [
            unit(number("1.16539E8"), number("1.16538E8"), number("0.02054761"), number("0.08120946")),
            unit(number("1.16542E8"), number("1.16537E8"), number("0.00077720"), number("7.9276E-4")),
        ],
        "stream_type": "REALTIME",
        "level": 0,
    }
    return message | fields


def candle(code="KRW-BTC", **fields):
    message = {
        "type": "candle.1m",
        "code": code,
        "candle_date_time_utc": "2025-07-29T12:00:00",
        "candle_date_time_kst": "2025-07-29T21:00:00",
        "opening_price": number("91154000.00000000"),
        "high_price": number("91157000.00000000"),
        "low_price": number("91142000.00000000"),
        "trade_price": number("91157000.00000000"),
        "candle_acc_trade_volume": number("0.15511395"),
        "candle_acc_trade_price": number("14139448.26754000"),
        "timestamp": NOON_MS + 100,
        "stream_type": "SNAPSHOT",
    }
    return message | fields


KINDS = [ticker, trade, book, candle]


def decode(data: bytes | str):
    return wire.decode_frame(data, received_ms=NOW_MS)


def value_of(data: bytes | str):
    (frame,) = decode(data)
    return frame.value


def flaw_in(data: bytes) -> BadPayload:
    (frame,) = decode(data)
    assert isinstance(frame.value, BadPayload)
    assert frame.snapshot is False
    return frame.value


def digits(*texts: str) -> list[tuple]:
    return [Decimal(each).as_tuple() for each in texts]


def without(message: dict, field: str) -> dict:
    return {name: value for name, value in message.items() if name != field}


@pytest.mark.parametrize("style", FORMATS)
class TestValues:
    def test_a_ticker(self, style):
        assert decode(written(ticker(), style)) == (
            Frame(
                Ticker(
                    market="KRW-BTC",
                    change=Change.FALL,
                    high_52w_date=date(2025, 8, 14),
                    low_52w_date=date(2024, 10, 10),
                    trade_ms=1758875205145,
                    exchange_ms=1758875205276,
                    open=Decimal(158219000),
                    high=Decimal(159278000),
                    low=Decimal(157588000),
                    price=Decimal(158201000),
                    prev_close=Decimal(158200000),
                    signed_change=Decimal(-1000),
                    signed_change_rate=Decimal("-0.0000063211"),
                    last_volume=Decimal("0.00006321"),
                    quote_volume=Decimal("95078733694.3792"),
                    quote_volume_24h=Decimal("331187169240.21526"),
                    volume=Decimal("600.02894052"),
                    volume_24h=Decimal("2092.15360145"),
                    high_52w=Decimal(169900000),
                    low_52w=Decimal(80635000),
                    received_ms=NOW_MS,
                    source=Source.STREAM,
                ),
                True,
            ),
        )

    def test_a_trade_has_the_times_of_its_execution_and_of_its_telling(self, style):
        assert decode(written(trade(), style)) == (
            Frame(
                Trade(
                    market="KRW-BTC",
                    side=Side.SELL,
                    trade_ms=1785395043779,
                    sequential_id=17853950437790001,
                    price=Decimal(91361000),
                    volume=Decimal("0.01275549"),
                    exchange_ms=1785395043831,
                    received_ms=NOW_MS,
                    source=Source.STREAM,
                ),
                False,
            ),
        )

    def test_the_side_of_a_trade_is_its_takers(self, style):
        assert value_of(written(trade(ask_bid="BID"), style)).side is Side.BUY

    def test_a_book(self, style):
        assert decode(written(book(), style)) == (
            Frame(
                Orderbook(
                    market="KRW-BTC",
                    bids=(
                        Level(Decimal(116538000), Decimal("0.08120946")),
                        Level(Decimal(116537000), Decimal("0.00079276")),
                    ),
                    asks=(
                        Level(Decimal(116539000), Decimal("0.02054761")),
                        Level(Decimal(116542000), Decimal("0.0007772")),
                    ),
                    total_bid_size=Decimal("1.63815297"),
                    total_ask_size=Decimal("2.51469375"),
                    level=Decimal(0),
                    exchange_ms=NOON_MS,
                    received_ms=NOW_MS,
                    source=Source.STREAM,
                ),
                False,
            ),
        )

    def test_a_candle(self, style):
        assert decode(written(candle(), style)) == (
            Frame(
                Candle(
                    market="KRW-BTC",
                    timeframe=Timeframe.M1,
                    open_ms=NOON_MS,
                    open=Decimal(91154000),
                    high=Decimal(91157000),
                    low=Decimal(91142000),
                    close=Decimal(91157000),
                    volume=Decimal("0.15511395"),
                    quote_volume=Decimal("14139448.26754"),
                    exchange_ms=NOON_MS + 100,
                    received_ms=NOW_MS,
                    source=Source.STREAM,
                    state=CandleState.RUNNING,
                    revision=0,
                    filled=False,
                ),
                True,
            ),
        )

    @pytest.mark.parametrize(
        ("stream", "timeframe"),
        [
            ("candle.1s", "1s"),
            ("candle.1m", "1m"),
            ("candle.3m", "3m"),
            ("candle.5m", "5m"),
            ("candle.10m", "10m"),
            ("candle.15m", "15m"),
            ("candle.30m", "30m"),
            ("candle.60m", "1h"),
            ("candle.240m", "4h"),
        ],
    )
    def test_the_type_of_a_candle_is_its_timeframe(self, style, stream, timeframe):
        value = value_of(written(candle(type=stream), style))

        assert value.timeframe is Timeframe(timeframe)
        assert value.state is CandleState.RUNNING

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(("stream_type", "snapshot"), [("SNAPSHOT", True), ("REALTIME", False), ("NEWTYPE", False)])
    def test_a_snapshot_is_told_from_what_is_new(self, style, kind, stream_type, snapshot):
        (frame,) = decode(written(kind(stream_type=stream_type), style))

        assert frame.snapshot is snapshot

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_text_says_the_same_as_its_bytes(self, style, kind):
        data = written(kind(), style)

        assert decode(data.decode()) == decode(data)

    @pytest.mark.parametrize("kind", KINDS)
    def test_neither_order_nor_blanks_nor_what_is_unknown_matter(self, style, kind):
        message = dict(reversed(kind().items())) | {"brand_new": [{"type": 1}], "status": 5, "method": {}}
        data = written(message, style).replace(b":", b" : ").replace(b"12 : 00 : 00", b"12:00:00")

        assert decode(b"\n " + data.replace(b"21 : 00 : 00", b"21:00:00")) == decode(written(kind(), style))

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_old_messages_lack_is_not_missed(self, style, kind):
        old = without(without(kind(), "stream_type"), "level")
        (frame,) = decode(written(old, style))

        assert frame == Frame(value_of(written(kind(), style)), False)

    @pytest.mark.parametrize("kind", KINDS)
    def test_stamps_in_microseconds_become_milliseconds(self, style, kind):
        message = kind()
        micro = {name: message[name] * 1000 + 7 for name in ("timestamp", "trade_timestamp") if name in message}

        assert value_of(written(message | micro, style)) == value_of(written(message, style))

    def test_a_book_loses_its_padding_and_keeps_its_order(self, style):
        units = [
            unit(101, 99, 2, 1),
            unit(number("102.50"), 0, 3, 0),
            unit(0, 98, 0, number("3.0")),
            unit(0, number("0E-8"), number("0.00000000"), number("-0.0")),
        ]
        value = value_of(written(book(orderbook_units=units), style))

        assert value.asks == (Level(Decimal(101), Decimal(2)), Level(Decimal("102.50"), Decimal(3)))
        assert value.bids == (Level(Decimal(99), Decimal(1)), Level(Decimal(98), Decimal("3.0")))

    def test_an_empty_book_and_a_level_without_size_are_no_flaws(self, style):
        empty = value_of(written(book(orderbook_units=[], total_ask_size=0, total_bid_size=0), style))
        hollow = value_of(written(book(orderbook_units=[unit(ask_size=0)]), style))

        assert (empty.asks, empty.bids, empty.best_ask) == ((), (), None)
        assert hollow.asks == (Level(Decimal(101), Decimal(0)),)

    def test_numbers_in_quotes_are_numbers(self, style):
        quoted = [unit("1.16539E8", "1.16538E8", "0.02054761", "0.08120946")]
        value = value_of(written(book(orderbook_units=quoted), style))

        assert value.asks[0].price.as_tuple() == Decimal("1.16539E8").as_tuple()
        assert value.bids[0].size.as_tuple() == Decimal("0.08120946").as_tuple()

    def test_a_price_that_did_not_change_is_no_flaw(self, style):
        value = value_of(written(ticker(signed_change_price=number("0E-8"), signed_change_rate=0), style))

        assert (value.signed_change, value.signed_change_rate) == (0, 0)


class TestLists:
    def test_a_list_holds_any_number_of_messages_of_any_kind(self):
        assert decode(b"[]") == decode(b" [ ] ") == ()
        frames = decode(text([ticker(), renamed(trade()), {"status": "UP"}, book("KRW-ETH")]))

        assert [type(frame.value) for frame in frames] == [Ticker, Trade, Orderbook]
        assert frames == (*decode(written(ticker())), *decode(written(trade())), *decode(written(book("KRW-ETH"))))

    @pytest.mark.parametrize("bad", [None, number("NaN"), number("-1"), "x"])
    def test_the_nonsense_of_one_market_harms_no_other(self, bad):
        frames = decode(text([ticker(trade_price=bad), trade("KRW-ETH"), trade("KRW-XRP", ask_bid=7)]))

        assert [frame.value.market for frame in frames] == ["KRW-BTC", "KRW-ETH", "KRW-XRP"]
        assert (frames[0].value.field, frames[2].value.field) == ("trade_price", "ask_bid")
        assert isinstance(frames[1].value, Trade)

    def test_a_list_in_a_list_is_no_message(self):
        with pytest.raises(BadPayload):
            decode(text([[trade()]]))

    def test_an_error_in_a_list_is_raised(self):
        with pytest.raises(ExchangeError, match=r"^NO_TICKET: x$"):
            decode(text([{"error": {"name": "NO_TICKET", "message": "x"}}]))


FIELDS = [
    (ticker, "trade_price"),
    (ticker, "change"),
    (ticker, "timestamp"),
    (ticker, "trade_timestamp"),
    (ticker, "lowest_52_week_date"),
    (trade, "ask_bid"),
    (trade, "trade_volume"),
    (trade, "timestamp"),
    (trade, "trade_timestamp"),
    (trade, "sequential_id"),
    (book, "timestamp"),
    (book, "total_bid_size"),
    (book, "orderbook_units"),
    (candle, "candle_date_time_utc"),
    (candle, "candle_acc_trade_price"),
]
NUMBERS = [
    (ticker, "low_price"),
    (ticker, "acc_trade_volume_24h"),
    (trade, "trade_price"),
    (trade, "trade_volume"),
    (book, "total_ask_size"),
    (book, "level"),
    (candle, "trade_price"),
    (candle, "candle_acc_trade_volume"),
]
SIDES = ["ask_price", "ask_size", "bid_price", "bid_size"]
IMPOSSIBLE = ["1e400", "1e41", "-1e41", "1e-400", "0e999", "1e-999999999", "-0.1", "9" * 100_000, "1e" + "9" * 30]
WORDS = ["NaN", "-Infinity", "Infinity"]


@pytest.mark.parametrize("style", ["DEFAULT", "SIMPLE"])
class TestFlaws:
    def told(self, field: str, style: str) -> str:
        return SHORT[field] if style.startswith("SIMPLE") else field

    @pytest.mark.parametrize(("kind", "field"), FIELDS)
    def test_a_missing_field_is_named_with_its_market(self, style, kind, field):
        flaw = flaw_in(written(without(kind(), field), style))

        assert (flaw.field, flaw.market) == (self.told(field, style), "KRW-BTC")
        assert "missing" in str(flaw)

    @pytest.mark.parametrize(("kind", "field"), FIELDS)
    @pytest.mark.parametrize("value", [None, True, {}, "x", number("1" + "0" * 100_000)])
    def test_a_mistyped_field_is_named_with_its_market(self, style, kind, field, value):
        flaw = flaw_in(written(kind(**{field: value}), style))

        assert (flaw.field, flaw.market) == (self.told(field, style), "KRW-BTC")
        assert len(str(flaw)) < 300

    @pytest.mark.parametrize(("kind", "field"), NUMBERS)
    @pytest.mark.parametrize("lexeme", [*IMPOSSIBLE, *WORDS])
    def test_an_impossible_number_is_named_with_its_market(self, style, kind, field, lexeme):
        for value in (number(lexeme), lexeme):
            flaw = flaw_in(written(kind(**{field: value}), style))

            assert (flaw.field, flaw.market) == (self.told(field, style), "KRW-BTC")
            assert len(str(flaw)) < 300

    @pytest.mark.parametrize("field", SIDES)
    @pytest.mark.parametrize("lexeme", [*IMPOSSIBLE, *WORDS])
    def test_an_impossible_number_inside_a_book_is_named_with_its_market(self, style, field, lexeme):
        for value in (number(lexeme), lexeme):
            flaw = flaw_in(written(book(orderbook_units=[unit(), unit(**{field: value}), unit()]), style))

            assert (flaw.field, flaw.market) == (self.told(field, style), "KRW-BTC")
            assert len(str(flaw)) < 300

    @pytest.mark.parametrize("field", SIDES)
    def test_a_missing_number_inside_a_book_is_named_with_its_market(self, style, field):
        flaw = flaw_in(written(book(orderbook_units=[unit(), without(unit(), field)]), style))

        assert (flaw.field, flaw.market) == (self.told(field, style), "KRW-BTC")

    @pytest.mark.parametrize("side", ["ask", "bid"])
    def test_a_price_of_zero_beside_a_size_is_refused(self, style, side):
        flaw = flaw_in(written(book(orderbook_units=[unit(), unit(**{f"{side}_price": 0})]), style))

        assert (flaw.field, flaw.market) == (self.told(f"{side}_price", style), "KRW-BTC")
        assert "was 0" in str(flaw)

    @pytest.mark.parametrize(
        ("field", "value"), [("signed_change_price", "NaN"), ("signed_change_rate", "-1e41"), ("change", "SIDEWAYS")]
    )
    def test_what_may_be_negative_may_not_be_anything(self, style, field, value):
        flaw = flaw_in(written(ticker(**{field: value}), style))

        assert (flaw.field, flaw.market) == (self.told(field, style), "KRW-BTC")

    @pytest.mark.parametrize(
        ("stream", "opens"),
        [
            ("candle.1m", "2025-07-29T12:00:01"),
            ("candle.240m", "2025-07-29T13:00:00"),
            ("candle.1s", "1969-12-31T23:59:59"),
            ("candle.1s", "9999-01-01T00:00:00"),
            ("candle.1s", "0001-01-01T00:00:00+09:00"),
        ],
    )
    def test_a_bar_that_opens_off_the_grid_is_refused(self, style, stream, opens):
        flaw = flaw_in(written(candle(type=stream, candle_date_time_utc=opens), style))

        assert (flaw.field, flaw.market) == (self.told("candle_date_time_utc", style), "KRW-BTC")
        assert "bar opens" in str(flaw)

    def test_a_bar_that_opens_long_after_its_own_stamp_is_refused(self, style):
        opens_ms = 1_785_395_040_000
        told = {"type": "candle.1m", "candle_date_time_utc": "2026-07-30T07:04:00"}

        (frame,) = decode(written(candle(**told, timestamp=opens_ms - AHEAD_MS), style))
        assert frame.value.open_ms == opens_ms
        flaw = flaw_in(written(candle(**told, timestamp=opens_ms - AHEAD_MS - 1), style))
        assert (flaw.field, flaw.market) == (self.told("candle_date_time_utc", style), "KRW-BTC")
        assert "long after its own timestamp" in str(flaw)

    @pytest.mark.parametrize("stream", ["candle.1d", "candle.1h", "candle", "myOrder", ""])
    def test_a_stream_that_is_unknown_is_a_flaw_of_its_market(self, style, stream):
        flaw = flaw_in(written(trade(type=stream), style))

        assert (flaw.field, flaw.market) == (self.told("type", style), "KRW-BTC")

    @pytest.mark.parametrize("trapped", [True, False])
    def test_no_context_of_decimals_lets_a_number_slip_through(self, style, trapped):
        with decimal.localcontext() as context:
            context.prec = 3
            context.traps[decimal.InvalidOperation] = trapped
            for message in (trade(trade_price="NaN"), trade(trade_price="sNaN"), ticker(signed_change_price="NaN")):
                assert flaw_in(written(message, style)).market == "KRW-BTC"
            assert str(value_of(written(trade(trade_volume=number("1.23456789")), style)).volume) == "1.23456789"

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("field", ["type", "code"])
    @pytest.mark.parametrize("value", [None, 5, [], {}])
    def test_a_message_that_does_not_name_its_stream_and_market_is_raised(self, style, kind, field, value):
        for message in (kind() | {field: value}, without(kind(), field)):
            with pytest.raises(BadPayload) as info:
                decode(written(message, style))

            assert info.value.market is None

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_message_of_two_formats_is_none(self, style, kind):
        own, other = ("code", "cd") if style == "DEFAULT" else ("cd", "code")
        with pytest.raises(BadPayload, match="names no stream and no market"):
            decode(written(kind(), style).replace(f'"{own}"'.encode(), f'"{other}"'.encode()))


class TestNonsense:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b" ",
            b"null",
            b"5",
            b'"KRW-BTC"',
            b"{}",
            b"[null]",
            b'{"status":"DOWN"}',
            b'{"status":5}',
            b'{"type":"trade","code":"KRW-B',
            b'[{"type":"trade","code":"KRW-BTC"}',
            written(trade())[:-1],
            written(trade()) + b"}",
            b"\xff\xfe\x00",
            written(trade("KRW-\N{REPLACEMENT CHARACTER}")).replace(b"\\ufffd", b"\xff"),
            b"[" * 100_000,
            b"{" * 100_000,
            b'{"type":"trade","code":"KRW-BTC","x":' + b"[" * 100_000,
            b'[{"x":' + b'{"x":' * 100_000,
            b"9" * 100_000,
            b'{"type":NaN}',
            b"[NaN,",
            b"<html>503 \x1b[2J\n" + b"x" * 1000,
            b'{"method":"LIST_SUBSCRIPTIONS"}',
            b'{"method":"UNSUBSCRIBE","result":[],"ticket":"x"}',
            b'{"mthd":"LIST_SUBSCRIPTIONS","rslt":[{"ty":"trade","cds":"KRW-BTC"}]}',
            "PONG",
            '{"type":"trade","code":"\ud800"}',
        ],
    )
    def test_what_names_no_market_is_refused_with_a_short_excerpt(self, data):
        with pytest.raises(BadPayload) as info:
            decode(data)

        assert info.value.market is None
        assert len(str(info.value)) < 300
        assert str(info.value).isprintable()

    def test_the_excerpt_shows_what_came(self):
        with pytest.raises(BadPayload, match=r'names no stream and no market: \{"hello": 1\}'):
            decode(b'{"hello": 1}')

    def test_bad_letters_where_nobody_looks_are_no_harm(self):
        data = written(trade(change="EVEN")).replace(b"EVEN", b"\xff\xfe")

        assert value_of(data) == value_of(written(trade()))


class TestControl:
    def test_the_sign_of_life_says_nothing(self):
        assert decode(b'{"status":"UP"}') == decode('[{"status":"UP"}]') == ()

    @pytest.mark.parametrize(
        ("name", "message", "kind", "words"),
        [
            ("NO_TICKET", "티켓이 존재하지 않거나", ExchangeError, "NO_TICKET: 티켓이 존재하지 않거나"),
            ("INVALID_PARAM", "nope 은", ExchangeError, "INVALID_PARAM: nope 은"),
            ("TOO_MANY_REQUEST", "slow\ndown", RateLimited, "TOO_MANY_REQUEST: slow down"),
            ("Too Many Requests", "", RateLimited, "Too Many Requests"),
            ("I'm a teapot", None, ExchangeError, "I'm a teapot"),
            (None, "no name", ExchangeError, "no name"),
            (500, "a number", ExchangeError, "500: a number"),
            ("", "", ExchangeError, "an error without a name"),
        ],
    )
    def test_an_error_is_raised_in_the_words_of_the_exchange(self, name, message, kind, words):
        with pytest.raises(ExchangeError) as info:
            decode(text({"error": {"message": message, "name": name}}))

        assert type(info.value) is kind
        assert str(info.value) == words

    def test_too_many_requests_are_over_in_a_second(self):
        with pytest.raises(RateLimited) as info:
            decode(text({"error": {"name": "TOO_MANY_REQUEST", "message": "x"}}))

        assert info.value.retry_after_s == 1.0

    @pytest.mark.parametrize("error", [5, None, "odd", [], {"name": []}, {"message": {}}])
    def test_an_error_of_odd_shape_is_still_an_error(self, error):
        with pytest.raises(ExchangeError) as info:
            decode(text({"error": error}))

        assert type(info.value) is ExchangeError
        assert str(info.value)

    @pytest.mark.parametrize("letters", [b"\xff\xfe", b"\xe2\x82", b"\\ud800", b"[" * 100_000])
    def test_an_error_that_cannot_be_read_is_still_an_error(self, letters):
        with pytest.raises(ExchangeError) as info:
            decode(text({"error": {"name": "NO_TICKET", "message": "LETTERS"}}).replace(b"LETTERS", letters))

        assert str(info.value).isprintable()
        assert len(str(info.value)) < 300

    @pytest.mark.parametrize(
        "listed",
        [
            {
                "method": "LIST_SUBSCRIPTIONS",
                "result": [
                    {"type": "ticker", "codes": ["KRW-BTC", "KRW-ETH"]},
                    {"type": "orderbook", "codes": ["KRW-BTC.15"], "level": 0},
                    {"type": "candle.60m", "codes": ["KRW-BTC"]},
                    {"type": "candle", "codes": ["KRW-BTC"]},
                    {"type": "myOrder"},
                ],
                "ticket": "unique uuid",
            },
            {
                "mthd": "LIST_SUBSCRIPTIONS",
                "rslt": [
                    {"ty": "ticker", "cds": ["KRW-BTC", "KRW-ETH"]},
                    {"ty": "orderbook", "cds": ["KRW-BTC.15"], "lv": 0},
                    {"ty": "candle.60m", "cds": ["KRW-BTC"]},
                    {"ty": "candle", "cds": ["KRW-BTC"]},
                    {"ty": "myOrder"},
                ],
                "tckt": "unique uuid",
            },
        ],
    )
    def test_what_is_subscribed_to_is_told_as_topics(self, listed):
        topics = {
            Topic(Line.TICKER, "KRW-BTC"),
            Topic(Line.TICKER, "KRW-ETH"),
            Topic(Line.ORDERBOOK, "KRW-BTC"),
            Topic(Line.CANDLE, "KRW-BTC", Timeframe.H1),
        }
        subscribed = Frame(wire.Subscribed("unique uuid", frozenset(topics)), False)

        assert decode(text(listed)) == decode(text([listed])) == (subscribed,)


# What JSON may hold, numbers written in any way.
LEXEMES = st.from_regex(r"\A-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,25})?\Z").map(number)
STRINGS = st.one_of(
    st.text(),
    st.sampled_from(["NaN", "sNaN", "Infinity", "1e400", "1", "-1", "RISE", "BID", "KRW-ETH", "SNAPSHOT", "ticker"]),
    st.sampled_from(["trade", "orderbook", "candle.1s", "candle.240m", "LIST_SUBSCRIPTIONS", "UP"]),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.datetimes().map(lambda moment: moment.replace(microsecond=0).isoformat() + "+14:00"),
    st.dates().map(lambda day: f"{day.isoformat()}T00:00:00"),
)
ANY_VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), LEXEMES, STRINGS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(sorted(unit())), inner, max_size=4),
    max_leaves=8,
)
NAMES = sorted({*ticker(), *trade(), *book(), *candle(), "status", "error", "method", "result", "ticket", "name"})
ANY_MESSAGE = st.dictionaries(st.sampled_from(NAMES), ANY_VALUE, max_size=8)
REAL = [written(kind(), style) for kind in KINDS for style in FORMATS]
REAL += [b'{"status":"UP"}', b'{"error":{"name":"NO_TICKET","message":"x"}}']
REAL += [b'{"method":"LIST_SUBSCRIPTIONS","result":[{"type":"ticker","codes":["KRW-BTC"]}],"ticket":"x"}']
SNIPPETS = st.one_of(
    st.binary(max_size=4),
    st.sampled_from(
        [b"NaN", b"-", b"0", b"1e400", b'"', b"[", b"]", b"{", b"}", b",", b":", b"null", b"E9", b"\xff", b"\\ud800"]
    ),
)


@st.composite
def damaged(draw) -> bytes:
    """A real message with pieces cut out and others put in."""
    data = draw(st.sampled_from(REAL))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        data = data[:start] + draw(SNIPPETS) + data[start + draw(st.integers(0, 6)) :]
    return data


def frames_or_error(data: bytes | str) -> None:
    """Whatever comes is frames whose values are in order, or one of the errors that are promised."""
    try:
        frames = decode(data)
    except ExchangeError:
        return
    for frame in frames:
        if isinstance(frame.value, BadPayload):
            assert isinstance(frame.value.market, str)
        elif not isinstance(frame.value, wire.Subscribed):
            assert isinstance(frame.value.market, str)
            assert_possible(frame.value)


def assert_possible(value) -> None:
    assert value.source is Source.STREAM
    assert value.received_ms == NOW_MS
    assert 0 < value.exchange_ms < 10**14
    levels = (*value.asks, *value.bids) if isinstance(value, Orderbook) else ()
    for each in (value, *levels):
        for name in each.__slots__:
            if isinstance(amount := getattr(each, name, None), Decimal):
                assert amount.is_finite()
                assert abs(amount.adjusted()) <= 40
                assert amount >= 0 or name.startswith("signed")
    assert all(level.price for level in levels)


class TestLaws:
    @given(st.one_of(st.binary(), st.text(st.characters())))
    @example("\ud800")
    def test_any_bytes_are_frames_or_an_error_that_is_promised(self, data):
        frames_or_error(data)

    @pytest.mark.slow
    @given(damaged())
    def test_a_damaged_message_is_frames_or_an_error_that_is_promised(self, data):
        frames_or_error(data)

    @pytest.mark.slow
    @given(message=ANY_MESSAGE)
    def test_any_message_is_frames_or_an_error_that_is_promised(self, message):
        for style in ("DEFAULT", "SIMPLE"):
            frames_or_error(written(message, style))

    @pytest.mark.slow
    @pytest.mark.parametrize("style", ["DEFAULT", "SIMPLE"])
    @pytest.mark.parametrize("kind", KINDS)
    @given(data=st.data())
    def test_any_change_to_a_good_message_leaves_its_market_named(self, style, kind, data):
        good = kind()
        fields = sorted({*good} - {"type", "code"})
        changes = data.draw(st.dictionaries(st.sampled_from(fields), ANY_VALUE, min_size=1, max_size=3))
        encoded = written(good | changes, style)
        frames_or_error(encoded)
        (frame,) = decode(encoded)

        assert frame.value.market == "KRW-BTC"

    @pytest.mark.slow
    @pytest.mark.parametrize("style", ["DEFAULT", "SIMPLE"])
    @given(data=st.data())
    def test_a_good_number_comes_out_with_the_digits_it_was_written_with(self, style, data):
        kind = data.draw(st.sampled_from(KINDS))
        (field, name) = data.draw(st.sampled_from(DECIMALS[kind]))
        lexeme = data.draw(GOOD_LEXEMES)

        value = value_of(written(kind(**{field: number(lexeme)}), style))

        assert getattr(value, name).as_tuple() == Decimal(lexeme).as_tuple()

    @pytest.mark.slow
    @pytest.mark.parametrize("style", ["DEFAULT", "SIMPLE"])
    @given(data=st.data())
    def test_a_book_comes_out_with_the_digits_it_was_written_with_padded_or_not(self, style, data):
        amounts = st.tuples(*[GOOD_LEXEMES.filter(lambda lexeme: Decimal(lexeme) > 0)] * 4)
        slots = data.draw(st.lists(amounts, max_size=30))
        units = [unit(*map(number, slot)) for slot in slots]
        zero = data.draw(st.sampled_from(["0", "0.00000000", "0E-8", "-0.0"]))
        padded = [*units, unit(*[number(zero)] * 4)]
        plain = value_of(written(book(orderbook_units=units), style))

        assert value_of(written(book(orderbook_units=padded), style)) == plain
        for side, price, size in ((plain.asks, 0, 2), (plain.bids, 1, 3)):
            spelled = [(level.price.as_tuple(), level.size.as_tuple()) for level in side]
            assert spelled == [tuple(digits(slot[price], slot[size])) for slot in slots]


GOOD_LEXEMES = st.one_of(
    st.decimals(min_value=0, max_value=10**20, places=8).map(lambda value: f"{value:f}"),
    st.decimals(min_value=0, max_value=10**20, places=16).map(lambda value: f"{value:f}"),
    st.decimals(min_value=0, max_value=10**10, places=8).map(lambda value: f"{value:E}"),
    st.integers(0, 10**39).map(str),
    st.tuples(st.integers(1, 9), st.integers(-40, 39)).map(lambda parts: f"{parts[0]}E{parts[1]}"),
)
DECIMALS = {
    ticker: [
        ("trade_price", "price"),
        ("opening_price", "open"),
        ("signed_change_rate", "signed_change_rate"),
        ("acc_trade_price_24h", "quote_volume_24h"),
        ("lowest_52_week_price", "low_52w"),
    ],
    trade: [("trade_price", "price"), ("trade_volume", "volume")],
    book: [("total_ask_size", "total_ask_size"), ("total_bid_size", "total_bid_size"), ("level", "level")],
    candle: [
        ("opening_price", "open"),
        ("high_price", "high"),
        ("low_price", "low"),
        ("trade_price", "close"),
        ("candle_acc_trade_volume", "volume"),
        ("candle_acc_trade_price", "quote_volume"),
    ],
}
