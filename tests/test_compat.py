"""The interface of the original provider: its names, its shapes, and none of its mistakes."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import trio
from from_threads import HANG_S, until
from rig import open_rig

from marketpipe import Batch, BlockingClient, CandleState, Config, Limits, Source, UnknownMarket
from marketpipe.compat import (
    AsyncSmartDataProvider,
    BatchProgress,
    BatchRequestResult,
    CacheItem,
    CacheMetrics,
    CacheSystem,
    CollectionStatus,
    CollectionStatusRecord,
    DataResponse,
    MarketCondition,
    PerformanceMetrics,
    Priority,
    ResponseMetadata,
    SmartDataProvider,
    SubscriptionStatus,
    TaskStatus,
    TimeZoneActivity,
    asking,
    callbacks,
    pipe,
    rows,
)
from marketpipe.core.progress import JobState, Outcome, Progress
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import ExchangeUnavailable, PipelineClosed
from marketpipe.models import Candle, Level, Market, Orderbook
from marketpipe.sim import StatusFault, WsDropFault, open_simulator
from marketpipe.status import SubscriptionState

MINUTE_MS = 60_000
NAMES = ["KRW-BTC", "KRW-ETH", "KRW-XRP"]
PAYLOADS = Path(__file__).parents[2] / "shared" / "payloads"


@attrs.define(eq=False)
class Over:
    """A provider over a simulator in memory, in real time."""

    options: dict[str, Any]
    configs: list[Config] = attrs.field(factory=list)
    rig: Any = None

    @asynccontextmanager
    async def open(self):
        async with open_rig(self.configs[-1], **self.options) as self.rig:
            yield self.rig.market

    def connect(self, config: Config) -> BlockingClient:
        self.configs.append(config)
        return BlockingClient(self.open)

    def requests(self) -> int:
        return len(self.rig.exchange.requests)


@pytest.fixture
def over(monkeypatch) -> Over:
    over = Over({"streams": True, "store": ":memory:", "latency_s": 0.001})
    monkeypatch.setattr(pipe, "connect", over.connect)
    return over


@pytest.fixture
def provider(over: Over) -> Iterator[SmartDataProvider]:
    with SmartDataProvider() as provider:
        yield provider


def in_there(provider: SmartDataProvider, function: Callable[[], Any]) -> Any:
    """Do something to the simulator, which lives in the pipeline's thread."""
    return provider._pipe.market._portal.call_sync(lambda _: function())


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("marketpipe")]


def payload(name: str) -> list[dict[str, Any]]:
    path = PAYLOADS / f"{name}.json"
    if not path.is_file():
        pytest.skip("no collection of payloads beside the repository")
    return json.loads(path.read_text("utf-8"))


HIGH, NORMAL = "priority=HIGH", "priority=NORMAL"
CANDLE = "symbols, timeframe='1m', count=None, start_time=None, end_time=None, priority=NORMAL"
CONTINUOUS = "symbol, timeframe, start_time, end_time, include_empty=True, priority=NORMAL"
SIGNATURES = {
    "get_ticker": f"symbols, {HIGH}",
    "get_orderbook": f"symbols, {HIGH}",
    "get_trade": f"symbols, count=100, {NORMAL}",
    "get_trades": f"symbols, count=100, {NORMAL}",
    "get_candle": CANDLE,
    "get_candles": CANDLE,
    "get_market": f"is_details=False, {NORMAL}",
    "get_markets": f"is_details=False, {NORMAL}",
    "get_tickers": f"symbols, {HIGH}",
    "get_continuous_candles": CONTINUOUS,
    "get_multiple_tickers": f"symbols, {NORMAL}",
    "get_multiple_orderbooks": f"symbols, {NORMAL}",
    "subscribe_realtime_data": "symbols, data_types=('ticker',), callback=None",
    "unsubscribe_realtime_data": "subscription_id",
    "get_performance_metrics": "",
    "get_comprehensive_status": "",
    "get_cache_status": "",
    "clear_memory_cache": "",
    "invalidate_symbol_cache": "symbol",
    "reset_stats": "",
    "close": "",
}
AWAITED = ["get_candles", "get_ticker", "get_tickers", "get_orderbook", "get_trades", "get_continuous_candles"]
AWAITED += ["get_markets"]


def signature(function: Any) -> str:
    def told(each: inspect.Parameter) -> str:
        if each.default is inspect.Parameter.empty:
            return each.name
        return f"{each.name}={each.default.name if isinstance(each.default, Priority) else repr(each.default)}"

    found = [each for each in inspect.signature(function).parameters.values() if each.name != "self"]
    assert all(each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for each in found)
    return ", ".join(map(told, found))


class TestNames:
    def test_the_blocking_provider_has_these_verbs(self):
        found = {name: signature(verb) for name, verb in vars(SmartDataProvider).items() if not name.startswith("_")}
        assert found == SIGNATURES

    def test_the_seven_that_were_awaited_are_awaited(self):
        verbs = {name: verb for name, verb in vars(AsyncSmartDataProvider).items() if not name.startswith("_")}
        assert verbs.pop("close")
        assert sorted(verbs) == sorted(AWAITED)
        for name, verb in verbs.items():
            assert inspect.iscoroutinefunction(verb)
            assert signature(verb) == SIGNATURES[name]

    @pytest.mark.parametrize("provider", [SmartDataProvider, AsyncSmartDataProvider])
    def test_both_are_made_alike(self, provider):
        made = str(inspect.signature(provider))
        assert made == "(max_workers: 'int' = 10, *, config: 'Config | None' = None) -> 'None'"

    @pytest.mark.parametrize(
        ("record", "fields"),
        [
            (
                PerformanceMetrics,
                "total_requests successful_requests failed_requests avg_response_time_ms min_response_time_ms"
                " max_response_time_ms p95_response_time_ms cache_metrics symbols_per_second data_volume_mb"
                " success_rate",
            ),
            (
                CacheMetrics,
                "total_requests cache_hits cache_misses fast_cache_hits memory_cache_hits store_hits exchange_calls"
                " hit_rate",
            ),
            (
                CollectionStatusRecord,
                "symbol timeframe target_time collection_status last_attempt_at attempt_count api_response_code",
            ),
            (
                BatchProgress,
                "task_id total_items completed_items failed_items percentage items_per_second eta_seconds current_item"
                " status",
            ),
            (ResponseMetadata, "priority_used source response_time_ms cache_hit records_count timestamp"),
        ],
    )
    def test_the_records_have_these_fields(self, record, fields):
        assert [field.name for field in attrs.fields(record)] == fields.split()

    def test_the_others_have_at_least_these(self):
        fields = {field.name for field in attrs.fields(BatchRequestResult)}
        assert fields >= {"successful_symbols", "failed_symbols", "total_response_time_ms", "symbols_per_second"}
        assert fields >= {"cache_hit_rate", "individual_responses"}
        assert {field.name for field in attrs.fields(CacheItem)} >= {
            "key",
            "data",
            "cached_at",
            "ttl_seconds",
            "source",
        }

    @pytest.mark.parametrize(
        ("enum", "values"),
        [
            (Priority, "CRITICAL=1 HIGH=2 NORMAL=3 LOW=4"),
            (MarketCondition, "ACTIVE=ACTIVE NORMAL=NORMAL QUIET=QUIET CLOSED=CLOSED UNKNOWN=UNKNOWN"),
            (
                TimeZoneActivity,
                "ASIA_PRIME=ASIA_PRIME EUROPE_PRIME=EUROPE_PRIME US_PRIME=US_PRIME OFF_HOURS=OFF_HOURS",
            ),
            (CollectionStatus, "COLLECTED=collected EMPTY=empty PENDING=pending FAILED=failed"),
            (
                TaskStatus,
                "PENDING=pending RUNNING=running PAUSED=paused COMPLETED=completed FAILED=failed CANCELLED=cancelled",
            ),
            (
                SubscriptionStatus,
                "PENDING=pending ACTIVE=active RECONNECTING=reconnecting RELEASED=released ERROR=error",
            ),
        ],
    )
    def test_the_enumerations_have_these_members(self, enum, values):
        assert " ".join(f"{each.name}={each.value}" for each in enum) == values

    @pytest.mark.xfail(
        not hasattr(Priority, "max_response_time_ms"), reason="the model has only budget_s so far", strict=True
    )
    def test_a_priority_knows_its_budget_in_milliseconds(self):
        assert [each.max_response_time_ms for each in Priority] == [50, 100, 500, 5000]

    @pytest.mark.parametrize(
        ("hour", "zone"),
        [(8, "OFF_HOURS"), (9, "ASIA_PRIME"), (16, "ASIA_PRIME"), (18, "EUROPE_PRIME"), (23, "US_PRIME")],
    )
    def test_the_hours_are_those_of_korea_wherever_this_runs(self, hour, zone):
        at = datetime(2026, 3, 1, hour, 30, tzinfo=timezone(timedelta(hours=9)))
        assert TimeZoneActivity.at(int(at.timestamp() * 1000)) is TimeZoneActivity[zone]

    def test_every_state_had_a_name(self):
        assert [TaskStatus.of(state) for state in JobState] == list(TaskStatus)
        assert {SubscriptionStatus.of(state) for state in SubscriptionState} == set(SubscriptionStatus)
        assert SubscriptionStatus.of(SubscriptionState.STALE) is SubscriptionStatus.RECONNECTING


class TestRows:
    """Every field of the exchange's rows, by name, but those that the pipe does not keep."""

    def test_a_ticker(self, provider):
        row = provider.get_ticker("KRW-BTC").data
        assert list(row) == list(payload("ticker")[0])
        assert {type(row[name]) for name in row if name.endswith(("_price", "_rate", "_volume", "24h"))} == {Decimal}
        assert row["change_price"] == abs(row["signed_change_price"])
        assert row["signed_change_price"] == row["trade_price"] - row["prev_closing_price"]

    def test_an_order_book(self, provider):
        row = provider.get_orderbook("KRW-BTC").data
        (theirs,) = payload("orderbook_count2")
        assert list(row) == list(theirs)
        assert list(row["orderbook_units"][0]) == list(theirs["orderbook_units"][0])
        asks = [unit["ask_price"] for unit in row["orderbook_units"]]
        assert asks == sorted(asks)

    def test_the_shorter_side_of_a_book_is_padded_as_the_exchange_pads_it(self):
        one, size = Level(Decimal(1), Decimal(2)), Decimal(2)
        book = Orderbook("BTC-LWP", (one,), (), size, size, Decimal(0), 1, 1, Source.REST)
        (unit,) = rows.orderbook_row(book)["orderbook_units"]
        assert unit == {"ask_price": 0, "bid_price": 1, "ask_size": 0, "bid_size": 2}

    def test_a_trade(self, provider):
        found = provider.get_trade("KRW-BTC", 50).data
        row = found[0]
        theirs = [name for name in payload("trades_ticks")[0] if name not in ("prev_closing_price", "change_price")]
        assert list(row) == theirs
        at = datetime.fromtimestamp(row["timestamp"] // 1000, UTC)
        assert (row["trade_date_utc"], row["trade_time_utc"]) == (f"{at:%Y-%m-%d}", f"{at:%H:%M:%S}")
        ours = {trade.sequential_id: trade for trade in provider._pipe.market.get_trade("KRW-BTC", count=100)}
        sides = {(each["ask_bid"], str(ours[each["sequential_id"]].side)) for each in found}
        assert sides == {("BID", "BUY"), ("ASK", "SELL")}

    @pytest.mark.parametrize(
        ("timeframe", "name", "unknown"),
        [
            ("1s", "candles_seconds", ()),
            ("5m", "candles_minutes_5", ()),
            ("1d", "candles_days", ("prev_closing_price", "change_price", "change_rate")),
            ("1w", "candles_weeks", ()),
            ("1y", "candles_years", ()),
        ],
    )
    def test_a_candle(self, provider, timeframe, name, unknown):
        row = provider.get_candle("KRW-BTC", timeframe, 1).data[0]
        assert list(row) == [field for field in payload(name)[0] if field not in unknown]

    @pytest.mark.parametrize(("timeframe", "unit"), [("1h", 60), ("4h", 240), ("15m", 15)])
    def test_the_unit_of_a_bar_is_minutes(self, provider, timeframe, unit):
        assert provider.get_candle("KRW-BTC", timeframe, 1).data[0]["unit"] == unit

    def test_a_week_begins_on_monday_and_a_month_is_no_minute(self, provider):
        week, month = provider.get_candle("KRW-BTC", "1w", 1).data[0], provider.get_candle("KRW-BTC", "1M", 1).data[0]
        assert datetime.fromisoformat(week["first_day_of_period"]).weekday() == 0
        assert month["first_day_of_period"].endswith("-01")
        assert "unit" not in month

    def test_the_korean_time_of_a_bar_is_nine_hours_ahead_and_its_boundary_is_not(self, provider):
        row = provider.get_candle("KRW-BTC", "4h", 1).data[0]
        utc, kst = (datetime.fromisoformat(row[f"candle_date_time_{zone}"]) for zone in ("utc", "kst"))
        assert kst - utc == timedelta(hours=9)
        assert utc.hour % 4 == 0

    def test_a_market_and_its_warnings(self, provider):
        plain, full = provider.get_market().data, provider.get_market(is_details=True).data
        assert {tuple(row) for row in plain} == {("market", "korean_name", "english_name")}
        theirs = payload("market_all_details")[0]
        assert list(full[0]) == [*theirs, "market_warning"]
        assert list(full[0]["market_event"]["caution"]) == list(theirs["market_event"]["caution"])

    def test_what_is_raised_is_told(self):
        market = Market("KRW-ETH", "이더리움", "Ethereum", True, frozenset({"PRICE_FLUCTUATIONS", "NEW_ONE"}), 1, 1)
        row = rows.market_row(market, is_details=True)
        assert row["market_warning"] == "CAUTION"
        assert [name for name, flag in row["market_event"]["caution"].items() if flag] == [
            "PRICE_FLUCTUATIONS",
            "NEW_ONE",
        ]


class TestVerbs:
    def test_one_symbol_gives_a_response_and_a_list_never_does(self, provider):
        for verb in (provider.get_ticker, provider.get_orderbook, provider.get_trade, provider.get_candle):
            one, many, list_of_one = verb("krw-btc"), verb(NAMES), verb(["KRW-BTC"])
            assert isinstance(one, DataResponse)
            assert one.success
            assert isinstance(many, BatchRequestResult)
            assert many.successful_symbols == NAMES
            assert isinstance(list_of_one, BatchRequestResult)
            assert list(list_of_one.individual_responses) == ["KRW-BTC"]

    def test_each_symbol_gets_its_own_answer(self, provider):
        names = [row["market"] for row in provider.get_market().data]
        result = provider.get_multiple_tickers(names[::-1])
        assert {name: each["market"] for name, each in result.individual_responses.items()} == {n: n for n in names}
        books = provider.get_multiple_orderbooks(names[::-1])
        assert [each["market"] for each in books.individual_responses.values()] == names[::-1]

    def test_duplicates_count_once(self, provider):
        result = provider.get_multiple_tickers(NAMES * 100)
        assert result.successful_symbols == NAMES
        assert result.symbols_per_second == pytest.approx(3000 / result.total_response_time_ms)

    def test_trades_and_candles_come_newest_first(self, provider):
        ids = [row["timestamp"] for row in provider.get_trades("KRW-BTC", 50).data]
        assert len(ids) == 50
        assert ids == sorted(ids, reverse=True)
        opens = [row["candle_date_time_utc"] for row in provider.get_candles("KRW-BTC", "1m", 20).data]
        assert len(set(opens)) == 20
        assert opens == sorted(opens, reverse=True)
        many = provider.get_candles(["KRW-BTC"], "1m", 20).individual_responses["KRW-BTC"].data
        assert [row["candle_date_time_utc"] for row in many] == opens

    def test_a_request_for_200_is_not_answered_with_what_happens_to_be_stored(self, provider):
        assert len(provider.get_candle("KRW-BTC", "1m", 3).data) == 3
        assert len(provider.get_candle("KRW-BTC", "1m", 450).data) == 450
        assert len(provider.get_candle("KRW-BTC").data) == 200

    @pytest.mark.parametrize(
        "written",
        [
            lambda at: at,
            lambda at: at.replace(tzinfo=None),
            lambda at: at.astimezone(timezone(timedelta(hours=9))),
            lambda at: f"{at:%Y-%m-%dT%H:%M:%SZ}",
            lambda at: f"{at:%Y-%m-%d %H:%M:%S}",
            lambda at: at.astimezone(timezone(timedelta(hours=9))).isoformat(),
        ],
    )
    def test_times_without_a_zone_are_utc_whatever_this_host_thinks(self, provider, written, monkeypatch):
        monkeypatch.setenv("TZ", "Asia/Seoul")
        time.tzset()
        try:
            newest = provider.get_candle("KRW-BTC", "5m", 1).data[0]["candle_date_time_utc"]
            end = datetime.fromisoformat(newest).replace(tzinfo=UTC) - timedelta(hours=2)
            start = end - timedelta(minutes=20)
            found = provider.get_candle("KRW-BTC", "5m", start_time=written(start), end_time=written(end))
            assert [row["candle_date_time_utc"] for row in found.data] == [
                f"{end - timedelta(minutes=5 * back):%Y-%m-%dT%H:%M:%S}" for back in (1, 2, 3, 4)
            ]
            two = provider.get_candle("KRW-BTC", "5m", 2, written(start), written(end))
            assert two.data == found.data[:2]
            assert provider.get_candle("KRW-BTC", "5m", 9, written(start), written(end)).data == found.data
        finally:
            monkeypatch.undo()
            time.tzset()

    @pytest.mark.slow
    def test_empty_minutes_are_filled_for_charts_and_absent_for_indicators(self, provider):
        newest = provider.get_candle("KRW-BTC", "1m", 1).data[0]["candle_date_time_utc"]
        end = datetime.fromisoformat(newest) - timedelta(minutes=10)
        span = (end - timedelta(hours=3), end)
        names = [row["market"] for row in provider.get_markets().data]
        counts = {name: len(provider.get_continuous_candles(name, "1m", *span, False).data) for name in names}
        quiet = min((name for name in names if counts[name]), key=counts.__getitem__)
        real = provider.get_continuous_candles(quiet, "1m", *span, include_empty=False).data
        chart = provider.get_continuous_candles(quiet, "1m", *span).data
        assert 0 < len(real) < len(chart) <= 180
        flat = [row for row in chart if not row["candle_acc_trade_volume"]]
        assert [row for row in chart if row not in flat] == real
        assert all(row["high_price"] == row["low_price"] == row["trade_price"] for row in flat)
        opens = [row["candle_date_time_utc"] for row in chart]
        assert opens == sorted(opens, reverse=True)

    def test_where_an_answer_came_from(self, provider):
        first = provider.get_trade("KRW-BTC", 5, Priority.CRITICAL)
        assert (first.cache_hit, first.data_source, first.metadata.priority_used) == (False, "api", Priority.CRITICAL)
        again = provider.get_trade("KRW-BTC", 5)
        assert (again.cache_hit, again.data_source) == (True, "cache")
        mixed = provider.get_trade(["KRW-ETH", "KRW-BTC", "KRW-NOPE"], 5)
        assert mixed.cache_hit_rate == pytest.approx(100 / 3)
        hits = {name: each.cache_hit for name, each in mixed.individual_responses.items()}
        assert hits == {"KRW-ETH": False, "KRW-BTC": True, "KRW-NOPE": False}
        with_stream = provider.subscribe_realtime_data("KRW-BTC")
        until(lambda: provider.get_ticker("KRW-BTC").data_source == "stream")
        assert provider.unsubscribe_realtime_data(with_stream)

    def test_bars_that_are_stored_come_from_the_database(self, provider):
        newest = provider.get_candle("KRW-BTC", "1m", 100).data[0]["candle_date_time_utc"]
        end = datetime.fromisoformat(newest) - timedelta(minutes=20)
        span = (end - timedelta(minutes=30), end)
        until(lambda: provider.get_candle("KRW-BTC", "1m", None, *span).data_source == "database")
        assert provider.get_performance_metrics().cache_metrics.store_hits == 1

    def test_a_count_and_a_range_cost_what_the_lesser_of_them_costs(self, provider, over):
        def asked(*words: Any) -> list[Any]:
            before = len(over.rig.exchange.of(CandlesRequest))
            assert provider.get_candle("KRW-BTC", "1m", *words).success
            return over.rig.exchange.of(CandlesRequest)[before:]

        newest = datetime.fromisoformat(provider.get_candle("KRW-BTC", "1m", 1).data[0]["candle_date_time_utc"])
        end = newest - timedelta(hours=50)
        assert len(asked(3000, end - timedelta(minutes=10), end)) == 1
        assert len(asked(3, end - timedelta(days=30), end - timedelta(days=9))) == 1

    @pytest.mark.parametrize("minutes", [10, 10_000])
    def test_a_count_and_a_beginning_are_the_newest_until_now(self, provider, minutes, monkeypatch):
        newest = provider.get_candle("KRW-BTC", "1m", 12).data
        start = datetime.fromisoformat(newest[0]["candle_date_time_utc"]) - timedelta(minutes=minutes)
        monkeypatch.setattr(asking, "moment", lambda *_: start.replace(tzinfo=UTC) + timedelta(minutes=minutes))
        opens = [row["candle_date_time_utc"] for row in newest]
        for count in (3, 500):
            got = provider.get_candle("KRW-BTC", "1m", count, start).data
            assert len(got) == min(count, minutes + 1)
            told = [row["candle_date_time_utc"] for row in got]
            assert told[:3] == opens[:3]

    def test_what_was_in_memory_is_told_by_the_batch_and_not_guessed_from_dates(self, provider):
        provider.get_trade("KRW-BTC", 5)
        batch = provider._pipe.market.get_trade(["KRW-ETH", "KRW-BTC", "KRW-NOPE"], count=5)
        assert set(batch.from_memory) == {"KRW-BTC"}
        tickers = provider._pipe.market.get_ticker(["KRW-ETH"])
        assert not tickers.from_memory
        question = asking.trades(["A", "B", "C"], 5, Priority.NORMAL)
        old, new = (attrs.evolve(batch["KRW-BTC"][0], received_ms=at_ms) for at_ms in (1, 2))
        mixed = question.each(Batch({"A": (), "B": (old,), "C": (new,)}, {}, 0.1, 1 / 3, frozenset("C")))
        told = {name: (each.cache_hit, each.data_source) for name, each in mixed.individual_responses.items()}
        assert told == {"A": (False, "api"), "B": (False, "api"), "C": (True, "cache")}


class TestErrors:
    @pytest.mark.parametrize(
        ("ask", "words"),
        [
            (lambda p: p.get_ticker("KRW-NOPE"), "KRW-NOPE"),
            (lambda p: p.get_ticker(""), "''"),
            (lambda p: p.get_orderbook("nonsense"), "NONSENSE"),
            (lambda p: p.get_tickers([]), r"symbols must name at least one market, was \[\]"),
            (lambda p: p.get_tickers(5), "symbols must be a str or an iterable of str, was 5"),
            (lambda p: p.get_tickers([None]), "None"),
            (lambda p: p.get_trade("KRW-BTC", 0), "count must be .*, was 0"),
            (lambda p: p.get_trade("KRW-BTC", 501), "count must be .* from 1 to 500, was 501"),
            (lambda p: p.get_trade("KRW-BTC", "7"), "count must be .*, was '7'"),
            (lambda p: p.get_candle("KRW-BTC", "1m", -1), "count must be .*, was -1"),
            (lambda p: p.get_candle("KRW-BTC", "7m"), "unknown timeframe '7m'"),
            (lambda p: p.get_candle("KRW-BTC", "1m", start_time="yesterday"), "start_time must be .* 'yesterday'"),
            (lambda p: p.get_candle("KRW-BTC", "1m", end_time=5), "end_time must be .*, was 5"),
            (lambda p: p.get_candle("KRW-BTC", "1m", 5, "2026-01-02", "2026-01-01"), "start_time=2026-01-02"),
            (lambda p: p.get_continuous_candles(NAMES, "1m", "2026-01-01", "2026-01-02"), "symbol must be .*KRW-ETH"),
            (lambda p: p.get_continuous_candles("KRW-BTC", "1m", None, None), "start_time must be .*, was None"),
            (lambda p: p.get_candle("KRW-BTC", "1m", 0, "2026-01-01", "2026-01-02"), "count must be .*, was 0"),
            (lambda p: p.get_tickers(["KRW-NOPE"]), "^unknown market .KRW-NOPE."),
            (lambda p: p.get_ticker("KRW-BTC", "HIGH"), "priority must be .*, was 'HIGH'"),
            (lambda p: p.get_markets(True, None), "priority must be .*, was None"),
        ],
    )
    def test_no_verb_raises_and_the_value_is_named(self, provider, ask, words):
        response = ask(provider)
        assert isinstance(response, DataResponse)
        assert not response
        assert response.success is False
        assert re.search(words, response.error)
        assert response.error_message == response.error
        assert response.exception is not None
        assert (response.data, response.data_source, response.cache_hit) == (None, "error", False)
        assert response.metadata["records_count"] == 0

    @pytest.mark.parametrize("symbols", [[], (), None, {}, 5, iter(())])
    def test_no_symbols_are_no_success(self, provider, symbols):
        for verb in (provider.get_ticker, provider.get_multiple_orderbooks, provider.get_candles):
            result = verb(symbols)
            assert isinstance(result, BatchRequestResult)
            assert not result.success
            assert "symbols must" in result.error
            assert result.successful_symbols == []

    def test_a_question_for_many_that_is_wrong_as_a_whole_fails_for_each(self, provider):
        result = provider.get_trades([*NAMES, "KRW-BTC", None], 501)
        assert result.failed_symbols == NAMES
        assert {each.error for each in result.individual_responses.values()} == {result.error}

    def test_one_that_fails_does_not_hide_and_does_not_take_the_others_with_it(self, provider):
        result = provider.get_ticker(["KRW-BTC", "KRW-NOPE"])
        assert result.success
        assert (result.successful_symbols, result.failed_symbols) == (["KRW-BTC"], ["KRW-NOPE"])
        assert isinstance(result.individual_responses["KRW-NOPE"].exception, UnknownMarket)
        listed = provider.get_tickers(["KRW-BTC", "KRW-NOPE"])
        assert listed.success
        assert [row["market"] for row in listed.data] == ["KRW-BTC"]
        assert "1 of 2 symbols failed (KRW-NOPE: " in listed.error
        none = provider.get_tickers(["KRW-NOPE", "KRW-NONE"])
        assert not none
        assert re.fullmatch(r"2 of 2 symbols failed \(KRW-NOPE: .*; KRW-NONE: .*\)", none.error)
        assert "sub-exception" not in none.error
        assert isinstance(provider.get_tickers(["KRW-NOPE"]).exception, UnknownMarket)
        assert isinstance(none.exception, ExceptionGroup)

    def test_a_failure_of_the_exchange_is_no_data(self, provider, over):
        in_there(provider, lambda: over.rig.sim.add_fault(StatusFault(status=503)))
        for response in (
            provider.get_ticker("KRW-BTC", Priority.CRITICAL),
            provider.get_candle("KRW-BTC"),
            provider.get_tickers(NAMES),
        ):
            assert not response
            assert response.data is None
            assert "503" in response.error
        assert isinstance(provider.get_ticker("KRW-ETH").exception, ExchangeUnavailable)

    @pytest.mark.parametrize("workers", [0, -3, 2.5, "10", True, None])
    def test_a_number_of_workers_that_is_none(self, over, workers):
        with pytest.raises((ValueError, TypeError), match=f"^max_workers must be .*, was {workers!r}$"):
            SmartDataProvider(workers)
        assert over.configs == []

    @pytest.mark.slow
    def test_workers_bound_the_requests_in_flight_and_not_their_rate(self, over):
        over.options["latency_s"] = 0.01
        with SmartDataProvider(2) as provider:
            assert over.configs[0].limits == Limits(in_flight=2)
            result = provider.get_trade([row["market"] for row in provider.get_market().data][:4])
            assert result.success
            assert in_there(provider, over.rig.greatest) > 2
            assert provider.get_comprehensive_status()["system_info"]["max_workers"] == 2
        with SmartDataProvider(50, config=Config(limits=Limits(per_second=7))):
            assert over.configs[1].limits == Limits(per_second=7, in_flight=50)
        with SmartDataProvider(50, config=Config(limits=Limits(in_flight=3))):
            assert over.configs[2].limits == Limits(in_flight=3)

    def test_after_the_end_every_answer_says_so(self, provider):
        provider.close()
        provider.close()
        response = provider.get_ticker("KRW-BTC")
        assert isinstance(response.exception, PipelineClosed)
        assert provider.get_multiple_tickers(NAMES).failed_symbols == NAMES
        with pytest.raises(PipelineClosed):
            provider.subscribe_realtime_data("KRW-BTC")


class CoinList:
    """The one consumer there was, as it is written: it takes the tickers as a dict by symbol or as a list."""

    def __init__(self, provider: SmartDataProvider, read: Callable[[DataResponse], Any]) -> None:
        self.provider = provider
        self.read = read

    def coins(self) -> list[dict[str, Any]]:
        response = self.provider.get_markets(is_details=True)
        if not response.success:
            raise RuntimeError(response.error)
        assert response.metadata.source in ("api", "cache")
        assert response.metadata.response_time_ms >= 0
        markets = [row for row in response.data if row["market"].startswith("KRW-")]
        tickers = self.provider.get_tickers(symbols=[row["market"] for row in markets], priority=Priority.HIGH)
        if not tickers.success:
            raise RuntimeError(tickers.error)
        data = self.read(tickers)
        by_market = data if isinstance(data, dict) else {row["market"]: row for row in data}
        coins = [self.coin(row, by_market[row["market"]]) for row in markets]
        return sorted(coins, key=lambda coin: coin["acc_trade_price_24h"], reverse=True)

    def coin(self, market: dict[str, Any], ticker: dict[str, Any]) -> dict[str, Any]:
        names = ["market", "korean_name", "english_name", "market_warning"]
        values = ["trade_price", "change_rate", "change_price", "change", "acc_trade_price_24h"]
        return {name: market[name] for name in names} | {name: ticker[name] for name in values}


class TestConsumer:
    @pytest.mark.parametrize(
        "read", [lambda response: response.data, lambda response: response.get_all()], ids=["list", "dict"]
    )
    def test_the_coin_list_works_with_both_readings(self, provider, read):
        coins = CoinList(provider, read).coins()
        listed = {row["market"] for row in provider.get_market().data if row["market"].startswith("KRW-")}
        assert {coin["market"] for coin in coins} == listed
        assert len(coins) == len(listed) > 5
        values = [coin["acc_trade_price_24h"] for coin in coins]
        assert values == sorted(values, reverse=True)
        assert all(coin["change"] in ("RISE", "EVEN", "FALL") for coin in coins)
        assert all(coin["market_warning"] in ("NONE", "CAUTION") for coin in coins)

    def test_it_sees_a_failure_and_no_list(self, provider, over):
        in_there(provider, lambda: over.rig.sim.add_fault(StatusFault(status=500, groups=("ticker",))))
        with pytest.raises(RuntimeError, match="500"):
            CoinList(provider, lambda response: response.data).coins()


class TestResponse:
    def test_one_row_is_read_by_its_fields_and_by_its_symbol(self):
        row = {"market": "KRW-BTC", "trade_price": Decimal(5)}
        response = DataResponse.create_success(row, symbol="KRW-BTC", data_source="cache", cache_hit=True)
        assert response
        assert response["trade_price"] == response.get("trade_price") == 5
        assert response.get() is response.data
        assert response["KRW-BTC"] == response.get_single("KRW-BTC") == row
        assert dict(response) == row
        assert len(response) == 2
        assert response.get_list() == [row]
        assert response.get_all() == {"KRW-BTC": row}
        assert "KRW-BTC" in response
        assert "nothing" not in response
        assert response.get("nothing") == response.get_single("KRW-ETH") == {}
        with pytest.raises(KeyError, match="nothing"):
            response["nothing"]
        assert response.data_source == "cache"

    def test_rows_of_many_are_read_by_symbol(self):
        rows_of_two = [{"market": "KRW-BTC"}, {"market": "KRW-ETH"}]
        response = DataResponse.create_success(rows_of_two)
        assert dict(response) == {"KRW-BTC": rows_of_two[0], "KRW-ETH": rows_of_two[1]}
        assert response.metadata.records_count == 2

    def test_rows_of_one_market_stay_together(self):
        bars = [{"market": "KRW-BTC", "trade_price": 1}, {"market": "KRW-BTC", "trade_price": 2}]
        assert DataResponse.create_success(bars, symbol="KRW-BTC").get_single("KRW-BTC") == bars

    def test_a_dict_by_symbol_is_one(self):
        by_symbol = {"KRW-BTC": {"market": "KRW-BTC"}}
        response = DataResponse.create_success(by_symbol)
        assert response.get_all() == by_symbol
        assert response.get_list() == [{"market": "KRW-BTC"}]
        assert DataResponse.create_success({"market": "KRW-BTC"}).get_all() == by_symbol

    def test_a_falsy_payload_is_an_answer(self):
        response = DataResponse.create_success([])
        assert response
        assert response.get() == []
        assert response.metadata.records_count == 0

    def test_where_there_is_none_a_key_says_why(self):
        response = DataResponse.create_error("the exchange is away", priority_used=Priority.LOW)
        assert not response
        assert response.exception is None
        assert (response.get(), response.get_all(), response.get_list(), response.keys()) == (None, {}, [], [])
        with pytest.raises(KeyError, match="the exchange is away"):
            response["trade_price"]
        assert DataResponse.create_error(ValueError()).error == "ValueError"

    def test_metadata_is_attributes_and_a_mapping(self):
        metadata = DataResponse.create_success({}, response_time_ms=1.5).metadata
        assert dict(metadata) == {name: getattr(metadata, name) for name in metadata}
        assert metadata["response_time_ms"] == metadata.response_time_ms == 1.5
        assert len(metadata) == 6
        assert metadata.timestamp.tzinfo is UTC
        with pytest.raises(KeyError):
            metadata["keys"]

    def test_when_the_newest_row_was_stamped(self):
        def bar(at_ms: int, source: Source) -> Candle:
            one = Decimal(1)
            prices = dict.fromkeys(("open", "high", "low", "close", "volume", "quote_volume"), one)
            return Candle("A", Timeframe.M1, at_ms, **prices, exchange_ms=at_ms, received_ms=at_ms, source=source,
                          state=CandleState.FINAL)  # fmt: skip

        question = asking.candles("A", "1m", None, None, None, Priority.NORMAL)
        mixed = (bar(0, Source.STORE), bar(MINUTE_MS, Source.STREAM))
        response = question.one(Batch({"A": mixed}, {}, 0.1, 1.0, frozenset("A")))
        assert response.data_timestamp == datetime.fromtimestamp(60, UTC)
        assert (response.data_source, response.cache_hit) == ("database", True)
        empty = question.one(Batch({"A": ()}, {}, 0.1, 0.0))
        assert empty.success
        assert (empty.data, empty.data_timestamp, empty.data_source) == ([], None, "api")


class TestCallbacks:
    def test_each_subscriber_gets_its_own_symbols_and_types_in_a_thread_of_its_own(self, provider):
        seen: dict[str, list[tuple[str, str, Any]]] = {"one": [], "two": []}
        where: dict[str, set[str]] = {"one": set(), "two": set()}

        def note(who: str, symbol: str, data_type: str, row: Any) -> None:
            seen[who].append((symbol, data_type, row))
            where[who].add(threading.current_thread().name)

        provider.subscribe_realtime_data(["KRW-BTC"], ["ticker", "trade"], partial(note, "one"))
        provider.subscribe_realtime_data("KRW-ETH", "candle.5m", partial(note, "two"))
        until(lambda: len({each[1] for each in seen["one"]}) == 2 and seen["two"])
        assert {(symbol, row["market"]) for symbol, _, row in seen["one"]} == {("KRW-BTC", "KRW-BTC")}
        assert {(symbol, data_type) for symbol, data_type, _ in seen["two"]} == {("KRW-ETH", "candle.5m")}
        assert seen["two"][0][2]["unit"] == 5
        assert [len(names) for names in where.values()] == [1, 1]
        assert where["one"] != where["two"]
        assert threading.current_thread().name not in where["one"]

    def test_it_is_gone_after_unsubscribing(self, provider):
        calls: list[str] = []
        names = [row["market"] for row in provider.get_market().data]
        name = provider.subscribe_realtime_data(names, ["trade", "orderbook"], lambda *event: calls.append(event[0]))
        until(lambda: calls)
        assert provider.unsubscribe_realtime_data(name) is True
        count = len(calls)
        assert not any("callback" in thread for thread in threads())
        other = provider.subscribe_realtime_data(names, ["trade"], lambda *_: done.set())
        done = threading.Event()
        assert done.wait(HANG_S)
        assert len(calls) == count
        assert provider.unsubscribe_realtime_data(name) is False
        assert provider.unsubscribe_realtime_data("nothing") is False
        assert provider.unsubscribe_realtime_data(other)
        assert threads() == ["marketpipe"]

    def test_a_callback_may_end_its_own_subscription(self, provider):
        calls: list[bool] = []
        names = [row["market"] for row in provider.get_market().data]
        told: list[str] = []
        known = threading.Event()

        def once(*_: Any) -> None:
            known.wait(HANG_S)
            calls.append(provider.unsubscribe_realtime_data(told[0]))

        told.append(provider.subscribe_realtime_data(names, ("trade", "ticker"), once))
        known.set()
        until(lambda: threads() == ["marketpipe"])
        assert calls == [True]

    def test_one_that_raises_is_logged_and_goes_on_and_so_do_the_others(self, provider, caplog):
        calls: list[str] = []
        well: list[str] = []

        def fail(symbol: str, data_type: str, row: Any) -> None:
            calls.append(symbol)
            raise SystemExit if len(calls) == 2 else ZeroDivisionError("on purpose")

        names = [row["market"] for row in provider.get_market().data]
        with caplog.at_level(logging.ERROR, "marketpipe.compat"):
            bad = provider.subscribe_realtime_data(names, ["trade"], fail)
            good = provider.subscribe_realtime_data(names, ["trade"], lambda *event: well.append(event[0]))
            until(lambda: len(calls) >= 4 and len(well) >= 4)
            provider.unsubscribe_realtime_data(bad)
            provider.unsubscribe_realtime_data(good)
        failed = [record for record in caplog.records if record.name == "marketpipe.compat"]
        assert len(failed) == len(calls)
        assert "the callback failed on a trade of" in failed[0].getMessage()
        assert "on purpose" in str(failed[0].exc_info)

    def test_a_slow_one_delays_nobody_and_does_not_outlive_its_subscription(self, provider, monkeypatch):
        monkeypatch.setattr(callbacks, "LEAVE_S", 0.05)
        entered, release = threading.Event(), threading.Event()
        calls: list[str] = []
        quick: list[str] = []
        names = [row["market"] for row in provider.get_market().data]

        def slow(*_: Any) -> None:
            calls.append("")
            entered.set()
            release.wait(HANG_S)

        name = provider.subscribe_realtime_data(names, ["trade", "ticker"], slow)
        assert entered.wait(HANG_S)
        provider.subscribe_realtime_data(names, ["trade"], lambda *event: quick.append(event[0]))
        until(lambda: len(quick) > 10)
        assert provider.unsubscribe_realtime_data(name)
        release.set()
        until(lambda: not any(name in thread for thread in threads()))
        assert len(calls) == 1

    def test_without_a_callback_the_symbols_are_kept_current(self, provider):
        name = provider.subscribe_realtime_data(NAMES, ["ticker", "trade"])
        status = provider.get_comprehensive_status()["layer_2_realtime"]["subscriptions"]
        assert status["callbacks"] == {name: {"symbols": NAMES, "data_types": ["ticker", "trade"]}}
        assert set(status["active"]) >= {f"ticker {symbol}" for symbol in NAMES}
        assert {each["status"] for each in status["active"].values()} <= {str(each) for each in SubscriptionStatus}
        assert threads() == ["marketpipe"]

    @pytest.mark.parametrize(
        ("arguments", "error", "words"),
        [
            (("KRW-NOPE",), UnknownMarket, "KRW-NOPE"),
            (([],), ValueError, "at least one symbol"),
            (("KRW-BTC", ["ticker", "candel"]), ValueError, "was 'candel'"),
            (("KRW-BTC", ["ticker", "candle.7m"]), ValueError, "'7m'"),
            (("KRW-BTC", []), ValueError, r"was \[\]"),
            (("KRW-BTC", ["ticker"], "print"), TypeError, "callback must be callable, was 'print'"),
        ],
    )
    def test_what_cannot_be_subscribed_to_is_an_error_and_leaves_nothing_open(self, provider, arguments, error, words):
        with pytest.raises(error, match=words):
            provider.subscribe_realtime_data(*arguments)
        left = provider.get_comprehensive_status()["layer_2_realtime"]["subscriptions"]
        assert left["callbacks"] == {}
        assert {name: topic["leases"] for name, topic in left["active"].items() if topic["leases"]} == {}
        assert threads() == ["marketpipe"]

    def test_one_market_of_several_that_is_unknown_is_told_in_the_log(self, provider, caplog):
        got = threading.Event()
        with caplog.at_level(logging.WARNING, "marketpipe.compat"):
            provider.subscribe_realtime_data(["KRW-BTC", "KRW-NOPE"], ["ticker"], lambda *_: got.set())
        assert "no ticker of KRW-NOPE" in caplog.text
        assert got.wait(HANG_S)

    @pytest.mark.slow
    def test_a_lost_connection_is_told_in_the_log_and_the_calls_go_on(self, provider, over, caplog):
        calls: list[str] = []
        names = [row["market"] for row in provider.get_market().data]
        with caplog.at_level(logging.INFO, "marketpipe.compat"):
            provider.subscribe_realtime_data(names, ["trade"], lambda *event: calls.append(event[0]))
            until(lambda: calls)
            in_there(provider, lambda: over.rig.sim.add_fault(WsDropFault()))
            until(lambda: "a gap in trade: Gap(" in caplog.text)
            before = len(calls)
            until(lambda: len(calls) > before)

    def test_a_stream_that_ends_for_good_ends_with_its_reason_in_the_log(self, caplog):
        class Delisted:
            failed: ClassVar[dict[str, Exception]] = {}
            markets = ("KRW-OLD",)

            def __iter__(self) -> Iterator[Any]:
                raise UnknownMarket("KRW-OLD")

            def close(self) -> None:
                pass

        with caplog.at_level(logging.WARNING, "marketpipe.compat"):
            listener = callbacks.Listener("a", {"ticker": Delisted()}, lambda *_: None)
            until(lambda: threads() == [])
        assert "a: ticker ended: unknown market 'KRW-OLD'" in caplog.text
        listener.close()

    def test_leaving_ends_them_all(self, over):
        with SmartDataProvider() as provider:
            calls = threading.Event()
            provider.subscribe_realtime_data("KRW-BTC", ["ticker", "orderbook"], lambda *_: calls.set())
            assert calls.wait(HANG_S)
        until(lambda: threads() == [])

    def test_when_the_pipeline_ends_they_end(self, provider):
        provider.subscribe_realtime_data("KRW-BTC", ["ticker", "orderbook"], lambda *_: None)
        provider._pipe.market.close()
        until(lambda: threads() == [])


class TestMemory:
    def test_the_users_own_values_are_what_was_put_there(self):
        cache = CacheSystem()
        for value in ({"data": 100}, 0, "", None, [], False):
            cache.set("key", value)
            assert cache.get("key", "missing") == value
            assert "key" in cache
        assert cache.get("nothing") is None
        assert cache.get("nothing", 5) == 5
        item = cache.item("key")
        assert isinstance(item, CacheItem)
        assert (item.key, item.data, item.ttl_seconds, item.is_expired) == ("key", False, 60.0, False)
        assert 0 <= item.age_seconds < 60
        cache.clear()
        assert len(cache) == 0

    def test_they_last_as_long_as_was_said_by_a_clock_that_cannot_step(self, monkeypatch):
        now_s = [100.0]
        monkeypatch.setattr(pipe, "monotonic_s", lambda: now_s[0])
        monkeypatch.setattr("marketpipe.compat.records.monotonic_s", lambda: now_s[0])
        cache = CacheSystem()
        cache.set("short", 1, ttl_seconds=5)
        cache.set("long", 2)
        now_s[0] += 5
        assert (cache.get("short"), cache.get("long")) == (None, 2)
        now_s[0] += 55
        assert "long" not in cache
        expired = CacheItem("a", 1, datetime(2026, 1, 1, tzinfo=UTC), 5.0, "user", 100.0)
        assert expired.is_expired
        with pytest.raises(ValueError, match="ttl_seconds must be above 0, was 0"):
            cache.set("never", 3, 0)

    def test_there_is_an_end_to_them(self):
        cache = CacheSystem()
        for number in range(3000):
            cache.set(f"test_{number}", number)
        assert len(cache) == 1000
        assert cache.get("test_2999") == 2999

    def test_what_was_cleared_is_not_served(self, provider):
        def hit(symbol: str) -> bool:
            return provider.get_trade(symbol, 5).cache_hit

        assert [hit(name) for name in NAMES] == [False] * 3
        assert [hit(name) for name in NAMES] == [True] * 3
        provider.invalidate_symbol_cache("krw-eth")
        assert [hit(name) for name in NAMES] == [True, False, True]
        # Where the way to the pipe takes longer than the answer took, it is asked for once more.
        assert any([hit(name) for name in NAMES] == [True] * 3 for _ in range(50))
        assert provider.get_market().cache_hit
        provider.cache_system.set("mine", 1)
        provider.clear_memory_cache()
        assert not provider.get_market().cache_hit
        assert any(provider.get_market().cache_hit for _ in range(50))
        assert [hit(name) for name in NAMES] == [False] * 3
        assert any([hit(name) for name in NAMES] == [True] * 3 for _ in range(50))
        assert provider.cache_system.get("mine") == 1

    def test_forgetting_is_over_when_nothing_could_be_left_of_it(self, monkeypatch):
        now_s = [100.0]
        monkeypatch.setattr(pipe, "monotonic_s", lambda: now_s[0])
        forgotten = pipe.Forgotten(300.0)
        assert forgotten.max_age_s(["KRW-BTC"]) is None
        forgotten.symbol("KRW-BTC")
        now_s[0] += 10
        assert forgotten.max_age_s([" krw-btc", 5]) == 10
        assert forgotten.max_age_s(["KRW-ETH"]) is None
        assert forgotten.max_age_s(None) is None
        forgotten.all()
        now_s[0] += 20
        assert forgotten.max_age_s(["KRW-ETH"]) == forgotten.max_age_s(["KRW-BTC"]) == forgotten.max_age_s(None) == 20
        now_s[0] += 280
        assert forgotten.max_age_s(["KRW-ETH"]) is None


class TestStatus:
    def test_the_counters_count(self, provider):
        provider.get_trade("KRW-BTC", 5)
        provider.get_trade("KRW-BTC", 5)
        provider.get_trade("KRW-NOPE", 5)
        metrics = provider.get_performance_metrics()
        assert (metrics.total_requests, metrics.successful_requests, metrics.failed_requests) == (3, 2, 1)
        assert metrics.success_rate == pytest.approx(200 / 3)
        assert 0 < metrics.min_response_time_ms <= metrics.avg_response_time_ms <= metrics.p95_response_time_ms
        assert metrics.p95_response_time_ms <= metrics.max_response_time_ms
        assert metrics.cache_metrics.cache_hits >= 1
        assert metrics.cache_metrics.exchange_calls >= 1
        assert metrics.cache_metrics.total_requests == (
            metrics.cache_metrics.cache_hits + metrics.cache_metrics.cache_misses
        )
        assert metrics.data_volume_mb is None
        provider.reset_stats()
        fresh = provider.get_performance_metrics()
        assert (fresh.total_requests, fresh.max_response_time_ms, fresh.success_rate) == (0, 0.0, 0.0)
        assert (fresh.cache_metrics.total_requests, fresh.cache_metrics.exchange_calls) == (0, 0)

    def test_three_symbols_asked_a_hundred_times_are_three(self, provider, over):
        provider.get_markets()
        provider.reset_stats()
        before = over.requests()
        for _ in range(100):
            assert provider.get_multiple_tickers(NAMES).success
        asked = over.requests() - before
        assert asked < 50
        # What was in memory is no throughput: at most three symbols for each request that was made.
        assert 0 < provider._pipe.tally._fetched <= 3 * asked
        metrics = provider.get_performance_metrics()
        assert metrics.total_requests == 100
        assert metrics.symbols_per_second == pytest.approx(
            1000 * provider._pipe.tally._fetched / (100 * metrics.avg_response_time_ms)
        )

    def test_everything_has_its_old_key(self, provider):
        provider.get_tickers(NAMES)
        provider.get_candle("KRW-BTC", "1m", 300)
        status = provider.get_comprehensive_status()
        keys = ["system_info", "performance", "layer_1_api", "layer_2_cache", "layer_2_realtime", "layer_3_data"]
        assert list(status) == [*keys, "timestamp"]
        told = "version uptime_seconds max_workers batch_threshold max_batch_size"
        assert list(status["system_info"]) == told.split()
        assert list(status["performance"]) == ["total_requests", "symbols_per_second", "target_symbols_per_second"]
        assert list(status["layer_2_cache"]) == ["fast_cache", "memory_cache", "adaptive_ttl", "performance"]
        assert list(status["layer_2_realtime"]) == ["subscriptions", "candle_deduplication"]
        assert list(status["layer_3_data"]) == ["batch_stats", "overlap_stats", "active_tasks", "db_path"]
        assert status["performance"]["symbols_per_second"] > 0
        assert status["layer_3_data"]["db_path"] == ":memory:"
        assert datetime.fromisoformat(status["timestamp"]).utcoffset() == timedelta(0)
        assert json.loads(json.dumps(status)) == status

    def test_a_collection_is_one_of_its_tasks(self, provider):
        market = provider._pipe.market
        newest = market.get_candle("KRW-BTC", "1m", count=1, closed_only=True)[0].open_ms
        job = market.start_backfill(NAMES, "1m", start=newest - 500 * MINUTE_MS, end=newest)
        job.pause()
        (task,) = provider.get_comprehensive_status()["layer_3_data"]["active_tasks"]
        assert (task["status"], task["task_id"]) == ("paused", "KRW-BTC 1m and 2 more")
        job.resume()
        job.wait()
        assert provider.get_comprehensive_status()["layer_3_data"]["active_tasks"] == []
        summary = market.collection_summary("KRW-BTC", "1m", start=newest - 500 * MINUTE_MS, end=newest)
        record = CollectionStatusRecord.of(summary, newest - MINUTE_MS)
        assert record.collection_status is CollectionStatus.COLLECTED
        assert (record.target_time, record.attempt_count) == (
            datetime.fromtimestamp((newest - MINUTE_MS) / 1000, UTC),
            0,
        )

    def test_what_failed_is_told_with_its_attempts(self):
        @attrs.frozen
        class Failure:
            start_ms: int = 0
            end_ms: int = MINUTE_MS
            attempts: int = 3
            code: str = "503"
            message: str = "away"
            last_ms: int = 5000

        @attrs.frozen
        class Summary:
            market: str = "KRW-BTC"
            timeframe: str = "1m"
            failures: tuple[Failure, ...] = (Failure(),)

            def state_at(self, open_ms: int) -> CollectionStatus:
                return CollectionStatus.FAILED if open_ms < MINUTE_MS else CollectionStatus.PENDING

        failed = CollectionStatusRecord.of(Summary(), 0)
        assert (failed.attempt_count, failed.api_response_code) == (3, "503")
        assert failed.last_attempt_at == datetime.fromtimestamp(5, UTC)
        assert CollectionStatusRecord.of(Summary(), MINUTE_MS).attempt_count == 0

    def test_progress_is_told_in_items(self):
        part = Outcome("KRW-BTC", Timeframe.M1, 10, 4, 0, 4, 1)
        progress = Progress(JobState.FAILED, 10, 4, 4, 1, 2.0, 1.0, None, 3.0, "KRW-BTC", (part,))
        told = BatchProgress.of(progress)
        assert (told.task_id, told.percentage, told.failed_items, told.status) == ("KRW-BTC 1m", 40.0, 6, "failed")
        planning = attrs.evolve(progress, state=JobState.PLANNING, total=0, done=0, parts=())
        assert (BatchProgress.of(planning).percentage, BatchProgress.of(planning).task_id) == (0.0, "")

    def test_the_caches_are_told_by_kind_and_together(self, provider):
        provider.get_ticker("KRW-BTC")
        told = provider.get_cache_status()
        assert told["ticker"]["misses"] >= 1
        assert told["total"]["cache_misses"] == sum(each["misses"] for kind, each in told.items() if kind != "total")


class TestAwaited:
    async def test_on_trio(self, over):
        async with AsyncSmartDataProvider() as provider:
            await self.seven(provider)
            with pytest.raises(trio.TooSlowError):
                with trio.fail_after(0):
                    await provider.get_ticker("KRW-BTC")
            assert repr(provider) == "<AsyncSmartDataProvider over <BlockingClient open>>"
        assert repr(provider) == "<AsyncSmartDataProvider over <BlockingClient closed>>"
        assert isinstance((await provider.get_ticker("KRW-BTC")).exception, PipelineClosed)

    def test_on_asyncio(self, over):
        async def main() -> None:
            async with AsyncSmartDataProvider() as provider:
                await self.seven(provider)
                answers = await asyncio.gather(*(provider.get_ticker(name) for name in NAMES * 50))
                assert [each["market"] for each in answers] == NAMES * 50
                in_there(provider, lambda: None)
            assert "marketpipe" not in threads()

        asyncio.run(main())

    async def seven(self, provider: AsyncSmartDataProvider) -> None:
        assert (await provider.get_ticker("KRW-BTC")).metadata.priority_used is Priority.HIGH
        assert [row["market"] for row in (await provider.get_tickers(NAMES)).data] == NAMES
        assert (await provider.get_orderbook(NAMES)).successful_symbols == NAMES
        assert len((await provider.get_trades("KRW-BTC", 7)).data) == 7
        assert len((await provider.get_candles("KRW-BTC", "5m", 3)).data) == 3
        newest = (await provider.get_candles("KRW-BTC", "1m", 1)).data[0]["candle_date_time_utc"]
        end = datetime.fromisoformat(newest) - timedelta(minutes=10)
        bars = await provider.get_continuous_candles("KRW-BTC", "1m", end - timedelta(minutes=9), end)
        assert len(bars.data) == 9
        assert len((await provider.get_markets(is_details=True)).data) == 40
        wrong = [
            await provider.get_trades("KRW-BTC", 501),
            await provider.get_tickers([]),
            await provider.get_ticker("KRW-NOPE"),
            await provider.get_candles("KRW-BTC", "9m"),
        ]
        assert not any(wrong)
        assert all(each.error for each in wrong)

    async def test_giving_up_gives_the_question_up(self, over):
        over.options["latency_s"] = 30.0
        async with AsyncSmartDataProvider() as provider:
            with trio.move_on_after(0.05) as scope:
                await provider.get_ticker("KRW-BTC")
            assert scope.cancelled_caught

    async def test_it_is_closed_on_the_way_out_of_what_was_cancelled(self, over):
        with trio.CancelScope() as scope:
            async with AsyncSmartDataProvider() as provider:
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert "closed" in repr(provider)


def test_many_threads_may_share_one(provider):
    answers: list[Any] = []

    def ask() -> None:
        answers.extend(provider.get_ticker(name)["market"] for name in NAMES * 10)

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(HANG_S)
    assert sorted(answers) == sorted(NAMES * 80)
    assert provider.get_performance_metrics().total_requests == 240
    assert repr(provider) == "<SmartDataProvider over <BlockingClient open>>"


# As the original brief has it, word for word.
SCRIPT = """\
provider = SmartDataProvider(max_workers=10)
response = provider.get_ticker("KRW-BTC", Priority.HIGH)          # .success, .cache_hit
result = provider.get_multiple_tickers(symbols)                    # .symbols_per_second
status = provider.get_comprehensive_status()                       # ['system_info']['version'], ['performance']['symbols_per_second']
provider.cache_system.set("test_1", {"data": 100})                 # and .get(key); used for its memory check
"""  # noqa: E501

PROGRAM = """
from functools import partial
from marketpipe import Config, compat
from marketpipe.compat import Priority
symbols = ["KRW-BTC", "KRW-ETH", "KRW-XRP"] * 100
SmartDataProvider = partial(compat.SmartDataProvider, config=Config(base_url={url!r}))
{script}
{more}
print(response.success, response.cache_hit, result.successful_symbols, result.symbols_per_second > 0)
print(status["system_info"]["version"], status["performance"]["symbols_per_second"] > 0)
print(provider.cache_system.get("test_1"))
"""


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize(
    "more",
    [
        "provider.close()",
        "",
        "provider.subscribe_realtime_data('KRW-BTC', ['ticker', 'trade'], lambda *event: None)",
    ],
)
async def test_the_briefs_own_script_runs_and_the_interpreter_exits_whether_it_was_closed_or_not(more):
    async with open_simulator(markets=40) as sim:
        program = PROGRAM.format(url=sim.base_url, script=SCRIPT, more=more)
        with trio.fail_after(HANG_S):
            done = await trio.run_process(
                [sys.executable, "-W", "error", "-c", program],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert done.stdout.decode().splitlines() == [
        "True False ['KRW-BTC', 'KRW-ETH', 'KRW-XRP'] True",
        "0.1.0 True",
        "{'data': 100}",
    ]


@pytest.mark.slow
def test_importing_it_is_no_heavier_than_the_package():
    program = (
        "import sys, marketpipe; before = set(sys.modules); import marketpipe.compat; "
        "print([name for name in sys.modules if name not in before and not name.startswith('marketpipe.compat')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
