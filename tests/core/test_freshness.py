"""The numbers of the policy, and the conditions detected from markets whose pace is known."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketpipe.core.freshness import Activities, Activity, Freshness, HourZone, Kind, MarketCondition, _Rate
from marketpipe.models import Change, Side, Source, Ticker, Trade

ACTIVE, NORMAL, QUIET = MarketCondition.ACTIVE, MarketCondition.NORMAL, MarketCondition.QUIET
CLOSED, UNKNOWN = MarketCondition.CLOSED, MarketCondition.UNKNOWN
POLICY = Freshness()
KST = timezone(timedelta(hours=9))
NOON_KST_MS = int(datetime(2026, 3, 2, 12, tzinfo=KST).timestamp() * 1000)  # 03:00 UTC
ONE = Decimal(1)


def at_hour(hour: int) -> int:
    return int(datetime(2026, 7, 15, hour, 59, 59, tzinfo=KST).timestamp() * 1000)


# By hour in Korea: US until 7, then nobody, Asia from 9, Europe from 18 (Asia is smaller until then), US from 22.
HOURS = [0.7] * 7 + [1.5] * 2 + [0.8] * 9 + [0.9] * 4 + [0.7] * 2


@pytest.mark.parametrize("hour", range(24))
def test_the_hour_in_korea_decides_with_the_smallest_factor(hour):
    assert POLICY.hour_factor(at_hour(hour)) == HOURS[hour]


@settings(deadline=None)
@given(st.integers(0, 2**42))
def test_korea_is_nine_hours_ahead_all_year(now_ms):
    assert POLICY.hour_factor(now_ms) == HOURS[datetime.fromtimestamp(now_ms // 1000, KST).hour]


@pytest.mark.parametrize(
    ("kind", "condition", "expected_s"),
    [
        (Kind.TICKER, NORMAL, 0.2 * 0.8),
        (Kind.TICKER, ACTIVE, 0.1),  # 0.08 is below the smallest
        (Kind.ORDERBOOK, ACTIVE, 0.3 * 0.5 * 0.8),
        (Kind.ORDERBOOK, UNKNOWN, 0.3 * 0.8),
        (Kind.TRADES, QUIET, 30 * 2 * 0.8),
        (Kind.CANDLES, CLOSED, 60 * 5 * 0.8),
        (Kind.MARKETS, NORMAL, 60 * 0.8),
    ],
)
def test_the_time_to_live_is_base_times_condition_times_hour(kind, condition, expected_s):
    assert POLICY.ttl_s(kind, condition, NOON_KST_MS) == pytest.approx(expected_s)


@settings(deadline=None)
@given(st.sampled_from(Kind), st.sampled_from(MarketCondition), st.integers(0, 2**42))
def test_the_time_to_live_stays_in_its_bounds_and_in_the_order_of_the_conditions(kind, condition, now_ms):
    ttl_s = POLICY.ttl_s(kind, condition, now_ms)
    assert 0.1 <= ttl_s <= 300.0
    in_order = [POLICY.ttl_s(kind, each, now_ms) for each in (ACTIVE, NORMAL, QUIET, CLOSED)]
    assert in_order == sorted(in_order)


def test_the_longest_is_cut():
    assert POLICY.ttl_s(Kind.CANDLES, CLOSED, at_hour(8)) == 300.0


def test_every_number_can_be_changed_and_must_make_sense():
    policy = Freshness(ticker_s=4.0, zones=(HourZone(0, 12, 3.0),), other_hours=1.0)
    assert policy.ttl_s(Kind.TICKER, NORMAL, at_hour(11)) == 12.0
    assert policy.ttl_s(Kind.TICKER, NORMAL, at_hour(12)) == 4.0
    assert policy == attrs.evolve(policy)
    for wrong in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"Freshness\.quiet must be above 0"):
            Freshness(quiet=wrong)


class Market:
    """A market whose pace the test sets, watched every `every_s`. Time begins at ten hours, which is no midnight."""

    def __init__(self, every_s: float = 5.0) -> None:
        self.activity = Activity()
        self.every_s = every_s
        self.now_s = 36_000.0
        self.volume = Decimal(1000)
        self.trade_ms = NOON_KST_MS
        self.turn = 0

    def run(self, seconds: float, *, per_s: int = 10, swing: int = 2) -> MarketCondition:
        """Trade `per_s` a second while the price swings by `swing`; the condition at the end."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += self.every_s
            self.turn += 1
            self.volume += Decimal(per_s) * Decimal(self.every_s)
            self.trade_ms += int(self.every_s * 1000) if per_s else 0
            price = Decimal(1000 + swing * (self.turn % 2))
            self.activity.observe_ticker(self.now_s, price, self.volume, self.trade_ms)
        return self.condition()

    def condition(self, later_s: float = 0.0) -> MarketCondition:
        return self.activity.condition(self.now_s + later_s, POLICY)


def test_a_market_is_unknown_until_ten_minutes_were_watched():
    market = Market()
    assert market.condition() is UNKNOWN
    assert market.run(9 * 60) is UNKNOWN
    assert market.run(2 * 60) is NORMAL


def test_a_steady_market_is_normal_at_every_moment():
    market = Market()
    market.run(20 * 60)
    for _ in range(200):
        assert market.run(5) is NORMAL


def test_three_times_the_volume_makes_it_active():
    market = Market()
    market.run(40 * 60)
    assert market.run(60, per_s=30) is ACTIVE
    assert market.run(3 * 60) is NORMAL


def test_three_times_the_price_range_makes_it_active():
    market = Market()
    market.run(40 * 60)
    assert market.run(60, swing=6) is ACTIVE


def test_a_quarter_of_everything_makes_it_quiet():
    market = Market()
    market.run(40 * 60)
    assert market.run(120, per_s=2, swing=0) is QUIET


def test_a_lively_price_alone_keeps_it_from_being_quiet():
    market = Market()
    market.run(40 * 60)
    assert market.run(120, per_s=2) is NORMAL


def test_a_market_that_never_trades_is_quiet_and_wakes_up_active():
    market = Market()
    assert market.run(30 * 60, per_s=0, swing=0) is QUIET
    assert market.run(5, per_s=1, swing=0) is ACTIVE


def test_a_market_nobody_has_looked_at_for_a_minute_is_unknown():
    market = Market()
    market.run(20 * 60)
    assert market.condition(later_s=60) is NORMAL, "nothing seen is not nothing done"
    assert market.condition(later_s=61) is UNKNOWN


@pytest.mark.parametrize("every_s", [30.0, 90.0, 400.0])
def test_a_market_that_is_rarely_read_is_not_taken_for_an_active_one(every_s):
    """What nobody watched is spread over the time in which it must have happened."""
    market = Market(every_s)
    market.run(90 * 60)
    for _ in range(20):
        assert market.run(every_s) is NORMAL


def test_a_new_day_counts_from_zero_again():
    """The volume falls back at 00:00 UTC, with the first trade or before it; neither is a burst nor a silence."""
    for with_trade in (True, False):
        market = Market()
        market.run(30 * 60)
        market.volume = Decimal(0)
        if with_trade:
            market.trade_ms += 24 * 3_600_000
        else:
            market.activity.observe_ticker(market.now_s, Decimal(1000), market.volume, market.trade_ms)
        assert market.run(60) is NORMAL


def test_a_new_day_whose_volume_is_already_larger_is_no_burst():
    """The day tells, not the direction: only what the new day has counted was traded since."""
    market = Market()
    market.run(30 * 60)
    market.trade_ms += 24 * 3_600_000
    market.volume = Decimal(20_000)
    assert market.run(5) is ACTIVE  # 20,000 within five seconds, whichever day it is
    rate = market.activity._volume
    assert 20_000 < rate._running + rate._past[-1] < 21_000


def test_an_older_ticker_is_ignored():
    """Answers may overtake each other; a late one is neither a new day nor a trade."""
    market = Market()
    market.run(30 * 60)
    market.activity.observe_ticker(market.now_s, Decimal(5000), Decimal(10), market.trade_ms - 60_000)
    assert market.condition() is NORMAL
    assert market.run(60) is NORMAL


def trade(trade_ms: int, price: int = 1000) -> Trade:
    return Trade("KRW-BTC", Side.BUY, trade_ms, trade_ms, Decimal(price), ONE, trade_ms, trade_ms, Source.REST)


def run_trades(activity: Activity, start_s: float, seconds: int, step_s: float, *, price: int = 1000) -> float:
    """One execution each `step_s`, read as a page of the last 20 every 5 s, newest first."""
    now_s = start_s
    while now_s < start_s + seconds:
        now_s += 5.0
        newest = int(now_s / step_s)
        page = [trade(int(n * step_s * 1000), price) for n in range(newest, newest - 20, -1)]
        activity.observe_trades(now_s, page)
    return now_s


def test_executions_are_counted_once_however_often_they_are_read():
    """Overlapping pages of a steady market are a steady market; four times as many trades are an active one."""
    activity = Activity()
    now_s = run_trades(activity, 36_000.0, 30 * 60, 2.0)
    assert activity.condition(now_s, POLICY) is NORMAL
    assert sum(activity._executions._past) == pytest.approx(15 * 60, rel=0.05)
    now_s = run_trades(activity, now_s, 60, 0.5)
    assert activity.condition(now_s, POLICY) is ACTIVE


def test_trades_of_one_instant_are_one_execution_and_their_order_does_not_matter():
    pages = [[trade(1000)], [trade(3000), trade(2000), trade(2000)]]
    counts = []
    for order in (1, -1):
        activity = Activity()
        for number, page in enumerate(pages):
            activity.observe_trades(60.0 + number, page[::order])
        activity.observe_trades(63.0, [])
        counts.append((activity._executions._running, activity._price))
    assert counts == [(2.0, 1000.0)] * 2


def test_the_prices_of_the_first_page_are_of_the_past():
    """A page of old trades says nothing about the range of the minute in which it was read."""
    activity = Activity()
    activity.observe_trades(60.0, [trade(3000, 1000), trade(2000, 500), trade(1000, 2000)])
    assert (activity._low, activity._high) == (1000.0, 1000.0)
    activity.observe_trades(61.0, [trade(5000, 1010), trade(4000, 990)])
    assert (activity._low, activity._high) == (990.0, 1010.0)
    assert activity._range._running == 20.0


def test_memory_stays_bounded():
    """A week of tickers keeps an hour of minutes."""
    market = Market(every_s=120.0)
    market.run(7 * 24 * 3600)
    rates = (market.activity._volume, market.activity._executions, market.activity._range)
    assert max(len(rate._past) for rate in rates) == 60


steps = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 20.0, 60.0, 61.0, 150.0, 4000.0]) | st.floats(0, 200), st.integers(0, 100)),
    min_size=2,
    max_size=40,
)


def cut_at_minutes(since_s: float, until_s: float, amount: float) -> dict[int, float]:
    """How much of an amount that came in evenly falls into each minute."""
    if until_s == since_s:
        return {int(until_s // 60): amount}
    overlaps = {
        minute: min(until_s, minute * 60 + 60) - max(since_s, minute * 60)
        for minute in range(int(since_s // 60), int(until_s // 60) + 1)
    }
    return {minute: amount * length / (until_s - since_s) for minute, length in overlaps.items()}


@settings(deadline=None)
@given(steps)
def test_a_rate_is_what_a_plain_sum_over_the_minutes_says(steps):
    """Against a model that cuts each amount at the edges of the minutes and keeps them all."""
    rate, now_s = _Rate(), 1000.0
    rate.add(12345, now_s)  # only starts the clock
    minutes: dict[int, float] = defaultdict(float)
    for passed_s, amount in steps:
        for minute, part in cut_at_minutes(now_s, now_s + passed_s, amount).items():
            minutes[minute] += part
        now_s += passed_s
        rate.add(amount, now_s)
    now_minute = int(now_s // 60)
    before = [minutes[minute] for minute in range(max(16, now_minute - 60), now_minute)]
    ratio = rate.ratio(now_s, 1)
    assert (ratio is None) == (not before)
    if before and sum(before) > 1e-6:
        last_minute = minutes[now_minute] + before[-1] * (1 - now_s % 60 / 60)
        assert ratio == pytest.approx(last_minute / (sum(before) / len(before)), rel=1e-6, abs=1e-6)


def ticker(market: str, trade_ms: int) -> Ticker:
    zeros = [ONE] * 14
    day = date(2026, 1, 1)
    return Ticker(market, Change.EVEN, day, day, trade_ms, trade_ms, *zeros, trade_ms, Source.REST)


class Exchange:
    def __init__(self) -> None:
        self.activities = Activities()
        self.now_s = 1000.0
        self.now_ms = NOON_KST_MS

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.now_ms += int(seconds * 1000)

    def refresh(self, markets: int, traded_ms_ago: int) -> None:
        for number in range(markets):
            self.activities.observe(ticker(f"KRW-{number}", self.now_ms - traded_ms_ago), self.now_s, self.now_ms)

    def closed(self) -> bool:
        return self.activities.closed(self.now_s, self.now_ms)


def test_an_exchange_where_nothing_trades_anywhere_is_closed():
    """Twenty markets were read within a minute, and their newest trade is more than three minutes old."""
    exchange = Exchange()
    exchange.refresh(20, 180_000)
    assert not exchange.closed()
    exchange.wait(1)
    assert exchange.closed()
    for market in ("KRW-0", "KRW-NEVERSEEN"):
        assert exchange.activities.condition(market, exchange.now_s, exchange.now_ms) is CLOSED
    ttl_s = exchange.activities.ttl_s(Kind.ORDERBOOK, "KRW-0", exchange.now_s, exchange.now_ms)
    assert ttl_s == pytest.approx(0.3 * 5 * 0.8)


def test_one_trade_anywhere_opens_it_again():
    exchange = Exchange()
    exchange.refresh(30, 500_000)
    assert exchange.closed()
    exchange.activities.observe(ticker("KRW-29", exchange.now_ms), exchange.now_s, exchange.now_ms)
    assert not exchange.closed()


def test_too_few_markets_prove_nothing():
    """Nineteen are not twenty, and the same one twenty times is one."""
    exchange = Exchange()
    exchange.refresh(19, 500_000)
    for _ in range(20):
        exchange.refresh(1, 500_000)
    assert not exchange.closed()


def test_markets_that_were_read_more_than_a_minute_ago_prove_nothing():
    exchange = Exchange()
    exchange.refresh(25, 500_000)
    exchange.wait(60)
    assert exchange.closed()
    exchange.wait(1)
    exchange.refresh(10, 500_000)
    assert not exchange.closed()
    assert len(exchange.activities._refreshed) == 10


def test_a_stamp_from_the_future_does_not_keep_the_exchange_open():
    exchange = Exchange()
    exchange.refresh(25, -3_600_000)
    exchange.wait(181)
    exchange.refresh(25, 400_000)
    assert exchange.closed()


def test_an_unwatched_market_is_unknown_and_keeps_the_base():
    activities = Activities(Freshness(trades_s=10.0))
    assert activities.condition("KRW-BTC", 0.0, NOON_KST_MS) is UNKNOWN
    assert activities.ttl_s(Kind.TRADES, "KRW-BTC", 0.0, NOON_KST_MS) == pytest.approx(8.0)
    assert activities.ttl_s(Kind.MARKETS, None, 0.0, NOON_KST_MS) == pytest.approx(48.0)


def test_a_market_is_watched_through_the_tickers_and_trades_that_pass():
    """The same conditions come out at the front door."""
    activities = Activities()
    quote = ticker("KRW-BTC", NOON_KST_MS)
    for second in range(0, 1200, 5):
        activities.observe(attrs.evolve(quote, volume=Decimal(second)), 60.0 + second, NOON_KST_MS)
    assert activities.condition("KRW-BTC", 1255.0, NOON_KST_MS) is NORMAL
    burst = [trade(NOON_KST_MS + n, 1 + n) for n in range(50)]
    activities.observe_trades("KRW-BTC", burst[:1], 1255.0)
    activities.observe_trades("KRW-BTC", burst, 1256.0)
    assert activities.condition("KRW-BTC", 1256.0, NOON_KST_MS) is ACTIVE


def test_after_nothing_at_all_anything_is_infinitely_more():
    rate = _Rate()
    for minute in range(12):
        rate.add(0.0, minute * 60.0)
    assert rate.ratio(660.0, 10) == 0.0
    rate.add(0.5, 661.0)
    assert rate.ratio(661.0, 10) == math.inf


def test_the_range_of_a_minute_is_from_its_lowest_to_its_highest_price():
    activity = Activity()
    for number, price in enumerate((100, 110, 105, 120, 115, 99)):
        activity.observe_ticker(60.0 + number, Decimal(price), Decimal(number), number)
    assert activity._range._running == 120 - 99
