"""What the values can say about themselves, and what the errors carry."""

from __future__ import annotations

import inspect
from datetime import UTC, date, datetime
from decimal import Decimal

import attrs
import pytest

from marketpipe import errors
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import (
    BadPayload,
    Banned,
    ExchangeError,
    ExchangeUnavailable,
    MarketPipeError,
    RateLimited,
    UnknownMarket,
)
from marketpipe.models import (
    Batch,
    Candle,
    CandleSeries,
    CandleState,
    Change,
    Level,
    Market,
    Orderbook,
    Priority,
    Side,
    Source,
    Ticker,
    Trade,
)

OPEN_MS = 1_767_225_600_000  # 2026-01-01 00:00 UTC
ONE = Decimal(1)


def candle(minute: int = 0, close: str = "101.5", **changes: object) -> Candle:
    bar = Candle(
        market="KRW-BTC",
        timeframe=Timeframe.M1,
        open_ms=OPEN_MS + minute * 60_000,
        open=Decimal("100"),
        high=Decimal("102"),
        low=Decimal("99.5"),
        close=Decimal(close),
        volume=Decimal("0.12345678"),
        quote_volume=Decimal("12.3"),
        exchange_ms=OPEN_MS,
        received_ms=OPEN_MS + 50,
        source=Source.REST,
        state=CandleState.FINAL,
    )
    return attrs.evolve(bar, **changes)


def orderbook(bids: tuple[Level, ...], asks: tuple[Level, ...]) -> Orderbook:
    return Orderbook("KRW-BTC", bids, asks, Decimal(5), Decimal(6), Decimal(0), OPEN_MS, OPEN_MS + 7, Source.REST)


def listed(market: str) -> Market:
    return Market(market, "비트코인", "Bitcoin", False, frozenset(), OPEN_MS, OPEN_MS)


def series(bars: int) -> CandleSeries:
    return CandleSeries("KRW-BTC", Timeframe.M1, tuple(candle(minute) for minute in range(bars)))


def ticker() -> Ticker:
    return Ticker(
        "KRW-BTC",
        Change.RISE,
        date(2026, 1, 1),
        date(2026, 1, 1),
        OPEN_MS,
        OPEN_MS,
        *[ONE] * 14,
        OPEN_MS + 5,
        Source.STREAM,
    )


VALUES = [
    ticker(),
    Trade("KRW-BTC", Side.SELL, OPEN_MS, 17, ONE, ONE, OPEN_MS, OPEN_MS + 5, Source.REST),
    candle(received_ms=OPEN_MS + 5),
    attrs.evolve(orderbook((), ()), received_ms=OPEN_MS + 5),
    attrs.evolve(listed("KRW-BTC"), received_ms=OPEN_MS + 5),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_every_dated_value_is_frozen_slotted_and_knows_its_age(value):
    """Age counts from the receipt."""
    assert value.age_ms(OPEN_MS + 1005) == 1000
    assert value.exchange_ms == OPEN_MS
    assert isinstance(value.source, Source)
    assert not hasattr(value, "__dict__")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        value.received_ms = 0
    assert hash(value) == hash(attrs.evolve(value))


def test_a_market_names_its_two_currencies():
    assert (listed("KRW-BTC").quote, listed("KRW-BTC").base) == ("KRW", "BTC")
    assert listed("BTC-ETH").quote == "BTC"


def test_an_order_book_knows_its_best_levels():
    book = orderbook((Level(Decimal("99.5"), ONE), Level(Decimal(99), ONE)), (Level(Decimal(101), ONE),))
    assert book.best_bid == Level(Decimal("99.5"), ONE)
    assert book.best_ask == Level(Decimal(101), ONE)
    assert book.spread == Decimal("1.5")
    assert book.mid == Decimal("100.25")


@pytest.mark.parametrize("sides", [((), ()), ((Level(ONE, ONE),), ()), ((), (Level(ONE, ONE),))])
def test_an_empty_side_has_no_best_level_and_the_book_no_spread(sides):
    book = orderbook(*sides)
    assert (book.best_bid is None, book.best_ask is None) == (not sides[0], not sides[1])
    assert book.spread is None
    assert book.mid is None


def test_a_candle_knows_its_time():
    bar = candle()
    assert bar.open_time == datetime(2026, 1, 1, tzinfo=UTC)
    assert bar.close_ms == OPEN_MS + 60_000
    assert candle(timeframe=Timeframe.MONTH).close_ms == OPEN_MS + 31 * 86_400_000
    assert (bar.revision, bar.filled) == (0, False)


def test_a_series_is_a_sequence_of_bars():
    bars = series(3)
    assert len(bars) == 3
    assert list(bars) == [candle(0), candle(1), candle(2)]
    assert bars[-1] == candle(2)
    assert candle(1) in bars
    assert bars.index(candle(1)) == 1
    assert bars == series(3)
    assert next(reversed(bars)) == candle(2)


def test_a_slice_of_a_series_is_a_series():
    assert series(4)[:2] == series(2)
    assert isinstance(series(4)[1:], CandleSeries)
    with pytest.raises(IndexError):
        series(4)[4]


def test_a_series_shows_its_extent():
    assert repr(series(2)) == "<CandleSeries KRW-BTC 1m: 2 bars, 2026-01-01 00:00 .. 2026-01-01 00:01 UTC>"
    assert repr(series(0)) == "<CandleSeries KRW-BTC 1m: 0 bars>"


def test_ohlcv_is_a_list_of_lists_oldest_first():
    assert series(2).to_ohlcv() == [
        [OPEN_MS, 100.0, 102.0, 99.5, 101.5, 0.12345678],
        [OPEN_MS + 60_000, 100.0, 102.0, 99.5, 101.5, 0.12345678],
    ]


COLUMNS = ["open", "high", "low", "close", "volume", "quote_volume"]


@pytest.mark.slow
@pytest.mark.parametrize("bars", [0, 3])
def test_a_pandas_frame_has_a_utc_index_and_floats(bars):
    pytest.importorskip("pandas")
    frame = series(bars).to_pandas()
    assert list(frame.columns) == COLUMNS
    assert frame.index.name == "time"
    assert str(frame.index.tz) == "UTC"
    assert [time.to_pydatetime() for time in frame.index] == [bar.open_time for bar in series(bars)]
    assert frame["close"].tolist() == [101.5] * bars
    if bars:
        assert frame["close"].dtype == float


@pytest.mark.slow
def test_a_pandas_frame_can_keep_the_decimals():
    pytest.importorskip("pandas")
    frame = series(2).to_pandas(exact=True)
    assert frame["volume"].tolist() == [Decimal("0.12345678")] * 2
    assert all(isinstance(price, Decimal) for price in frame["open"])


@pytest.mark.slow
@pytest.mark.parametrize("bars", [0, 3])
def test_a_polars_frame_has_a_utc_time_and_floats(bars):
    polars = pytest.importorskip("polars")
    frame = series(bars).to_polars()
    assert frame.columns == ["time", *COLUMNS]
    assert frame["time"].dtype == polars.Datetime("ms", "UTC")
    assert frame["time"].dt.timestamp("ms").to_list() == [bar.open_ms for bar in series(bars)]
    assert frame["close"].to_list() == [101.5] * bars
    if bars:
        assert frame["close"].dtype == polars.Float64


@pytest.mark.slow
def test_a_polars_frame_can_keep_the_decimals():
    """Also where prices of very different precision meet in one column."""
    pytest.importorskip("polars")
    prices = ["163000000", "0.00000001", "1.16539E8"]
    bars = tuple(candle(minute, price) for minute, price in enumerate(prices))
    frame = CandleSeries("KRW-BTC", Timeframe.M1, bars).to_polars(exact=True)
    assert frame["close"].to_list() == [Decimal(price) for price in prices]


def batch(*failed: str) -> Batch[int]:
    failures = {symbol: UnknownMarket(symbol) for symbol in failed}
    return Batch({"KRW-BTC": 1, "KRW-ETH": 2}, failures, elapsed_s=0.5, cache_hit_rate=0.25)


def test_a_batch_is_a_mapping_of_what_succeeded_in_the_order_asked():
    answers = batch("KRW-DEAD")
    assert dict(answers) == {"KRW-BTC": 1, "KRW-ETH": 2}
    assert list(answers) == ["KRW-BTC", "KRW-ETH"]
    assert "KRW-DEAD" not in answers
    assert answers.get("KRW-DEAD") is None
    assert repr(answers) == "<Batch 2 answered, 1 failed, 500.0 ms>"


def test_a_failed_symbol_says_why_it_is_missing():
    """Its error is the cause; a symbol that was never asked is a plain KeyError."""
    answers = batch("KRW-DEAD")
    with pytest.raises(KeyError, match="KRW-DEAD failed: unknown market") as caught:
        answers["KRW-DEAD"]
    assert caught.value.__cause__ is answers.failed["KRW-DEAD"]
    with pytest.raises(KeyError, match="KRW-OTHER") as caught:
        answers["KRW-OTHER"]
    assert caught.value.__cause__ is None


def test_a_batch_counts_what_was_answered_per_second():
    assert batch().symbols_per_second == 4.0
    assert attrs.evolve(batch(), elapsed_s=0.0).symbols_per_second == 0.0


def test_the_failures_of_a_batch_are_raised_alone_or_as_a_group():
    batch().raise_for_failed()
    with pytest.raises(UnknownMarket):
        batch("KRW-DEAD").raise_for_failed()
    with pytest.raises(ExceptionGroup, match="2 of 4 symbols failed") as caught:
        batch("KRW-DEAD", "KRW-GONE").raise_for_failed()
    assert [error.market for error in caught.value.exceptions] == ["KRW-DEAD", "KRW-GONE"]


def test_priorities_are_ordered_and_have_budgets():
    assert sorted(Priority, reverse=True)[-1] is Priority.CRITICAL
    assert [priority.budget_s for priority in Priority] == [0.05, 0.1, 0.5, 5.0]


def test_the_tree_of_errors_is_the_one_that_is_drawn():
    """Each exported error is in the drawing of the module, and none is missing."""
    classes = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert classes == set(errors.__all__)
    assert all(issubclass(getattr(errors, name), MarketPipeError) for name in classes)
    assert all(name in (errors.__doc__ or "") for name in classes)


@pytest.mark.parametrize("exchange_error", [UnknownMarket, RateLimited, Banned, ExchangeUnavailable, BadPayload])
def test_what_the_exchange_did_is_an_exchange_error(exchange_error):
    assert issubclass(exchange_error, ExchangeError)


def test_an_unknown_market_is_named():
    error = UnknownMarket("KRW-DEAD")
    assert (error.market, error.status) == ("KRW-DEAD", 404)
    assert str(error) == "unknown market 'KRW-DEAD': the exchange does not list it"
    assert str(UnknownMarket("KRW-DEAD", "delisted yesterday")) == "delisted yesterday"


def test_refusals_say_when_to_come_back():
    limited, banned = RateLimited("refused 8 times", retry_after_s=1.5), Banned("blocked", until_ms=OPEN_MS)
    assert (limited.status, limited.retry_after_s) == (429, 1.5)
    assert (banned.status, banned.until_ms) == (418, OPEN_MS)


def test_an_unavailable_exchange_says_whether_the_request_may_have_arrived():
    error = ExchangeUnavailable("no answer in 5 s", abandoned=True)
    assert (error.status, error.sent, error.abandoned) == (None, True, True)
    assert ExchangeUnavailable("no such host", sent=False).sent is False
    assert ExchangeUnavailable("maintenance", status=503).status == 503


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "not a number"),
        ({"field": "trade_price"}, "field 'trade_price': not a number"),
        ({"market": "KRW-BTC"}, "KRW-BTC: not a number"),
        ({"market": "KRW-BTC", "field": "trade_price"}, "KRW-BTC field 'trade_price': not a number"),
    ],
)
def test_a_bad_payload_names_the_place(place, text):
    error = BadPayload("not a number", **place)
    assert str(error) == text
    assert (error.market, error.field) == (place.get("market"), place.get("field"))


def test_a_copy_of_an_error_is_equal_and_has_a_traceback_of_its_own():
    """For several callers that fail for one reason: each raises its own."""
    with pytest.raises(RateLimited) as caught:
        raise RateLimited("refused 8 times", retry_after_s=1.5) from TimeoutError()
    original = caught.value
    twin = original.copy()
    assert type(twin) is RateLimited
    assert (str(twin), twin.status, twin.retry_after_s) == ("refused 8 times", 429, 1.5)
    assert twin.__cause__ is original.__cause__
    assert twin.__traceback__ is None
