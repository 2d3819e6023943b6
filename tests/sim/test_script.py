"""A market that is written by hand is one market like any other: all that is told of it is a sum over its trades."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketpipe.clock import TrioClock
from marketpipe.core.timeframes import Timeframe, floor
from marketpipe.sim import ScriptedTrade, SimConfig, SimExchange, SimRequest, World

NOW_MS = 1_790_166_896_000  # 2026-09-23T12:34:56Z
DAY_MS = 86_400_000
MIDNIGHT_MS = NOW_MS - NOW_MS % DAY_MS
MARKET = "KRW-XRP"

scripted = st.builds(
    ScriptedTrade,
    st.integers(MIDNIGHT_MS - DAY_MS, NOW_MS),
    st.integers(100, 9_000).map(Decimal),
    st.decimals("0.00000001", "9", places=8),
    st.booleans(),
)
scripts = st.lists(scripted, min_size=1, max_size=40)


def units(value: Decimal) -> int:
    return int(value * 100_000_000)


def world_of(trades: list[ScriptedTrade]) -> World:
    world = World(7, 3)
    world.script(MARKET, trades)
    return world


@given(scripts)
def test_what_is_written_is_traded_and_nothing_else(trades):
    first_ms = min(trade.at_ms for trade in trades) // DAY_MS * DAY_MS
    last_ms = max(trade.at_ms for trade in trades) // DAY_MS * DAY_MS + DAY_MS
    deals = world_of(trades).trades(MARKET, first_ms, last_ms, NOW_MS + DAY_MS)
    told = [(deal.at_ms, deal.price, deal.volume, deal.buy) for deal in deals]
    ordered = sorted(trades, key=lambda trade: trade.at_ms)
    assert told == [(trade.at_ms, units(trade.price), units(trade.volume), trade.buy) for trade in ordered]
    assert len({deal.sequential_id for deal in deals}) == len(deals)


@given(scripts, st.sampled_from([Timeframe.S1, Timeframe.M1, Timeframe.H1, Timeframe.D1]))
def test_bars_are_sums_over_what_is_written(trades, timeframe):
    world = world_of(trades)
    ordered = sorted(trades, key=lambda trade: trade.at_ms)
    first_ms = ordered[0].at_ms // DAY_MS * DAY_MS
    bars = world.candles(MARKET, timeframe, first_ms, ordered[-1].at_ms + 1, NOW_MS)
    assert [bar.open_ms for bar in bars] == sorted({floor(timeframe, trade.at_ms) for trade in trades})
    for bar in bars:
        inside = [trade for trade in ordered if floor(timeframe, trade.at_ms) == bar.open_ms]
        priced = [units(trade.price) for trade in inside]
        assert (bar.opening, bar.high, bar.low, bar.close) == (priced[0], max(priced), min(priced), priced[-1])
        assert bar.volume == sum(units(trade.volume) for trade in inside)
        assert bar.turnover == sum(units(trade.price) * units(trade.volume) for trade in inside)


@given(scripts)
def test_the_ticker_is_a_sum_over_what_is_written(trades):
    trades = [*trades, ScriptedTrade(NOW_MS, Decimal(1000))]  # today is written in any case
    world = world_of(trades)
    ticker = world.ticker(MARKET, NOW_MS)
    today = [trade for trade in trades if trade.at_ms >= MIDNIGHT_MS]
    assert ticker.volume == sum(units(trade.volume) for trade in today)
    assert world.bought(MARKET, NOW_MS) == sum(units(trade.volume) for trade in today if trade.buy)
    assert ticker.last == world.newest_trades(MARKET, 0, NOW_MS + 1, NOW_MS, 1)[0]
    assert ticker.year.high >= max(units(trade.price) for trade in trades)
    assert ticker.year.low <= min(units(trade.price) for trade in trades)


def test_all_other_days_and_markets_stay_as_they_are():
    world, other = world_of([ScriptedTrade(NOW_MS, Decimal(1000))]), World(7, 3)
    after_ms = MIDNIGHT_MS + 2 * DAY_MS
    for market, start_ms, end_ms in (
        (MARKET, MIDNIGHT_MS - DAY_MS, MIDNIGHT_MS),
        (MARKET, MIDNIGHT_MS + DAY_MS, after_ms),
        ("KRW-BTC", MIDNIGHT_MS, after_ms),
    ):
        bars = [each.candles(market, Timeframe.M1, start_ms, end_ms, after_ms) for each in (world, other)]
        assert bars[0] == bars[1]
        assert bars[0]


def test_what_was_worked_out_before_is_worked_out_anew():
    world = World(7, 3)
    before = world.ticker(MARKET, NOW_MS), world.orderbook(MARKET, NOW_MS)
    week = world.candles(MARKET, Timeframe.W1, NOW_MS - 14 * DAY_MS, NOW_MS, NOW_MS)
    world.script(MARKET, [ScriptedTrade(NOW_MS - 7 * DAY_MS, Decimal(9_000)), ScriptedTrade(NOW_MS, Decimal(1000))])
    assert world.ticker(MARKET, NOW_MS).last.price == units(Decimal(1000)) != before[0].last.price
    assert world.orderbook(MARKET, NOW_MS) != before[1]
    assert world.candles(MARKET, Timeframe.W1, NOW_MS - 14 * DAY_MS, NOW_MS, NOW_MS) != week
    assert world.ticker(MARKET, NOW_MS).year.high == units(Decimal(9_000))


@pytest.mark.parametrize(
    ("trades", "words"),
    [
        ([], "at least one trade"),
        ([ScriptedTrade(NOW_MS, Decimal("1000.5"))], "price must be a multiple of 1 above 0"),
        ([ScriptedTrade(NOW_MS, Decimal(0))], "price must be"),
        ([ScriptedTrade(NOW_MS, Decimal(1000), Decimal("1e-9"))], "volume must be a multiple of 0.00000001"),
        ([ScriptedTrade(NOW_MS, Decimal(1000), Decimal(v)) for v in ("1e-8", "100")], "must not differ that much"),
        ([ScriptedTrade(0, Decimal(1000))], "after the day of the listing"),
    ],
)
def test_what_a_market_cannot_have_is_refused(trades, words):
    with pytest.raises(ValueError, match=words):
        world_of(trades)


async def test_what_was_told_is_not_taken_back(autojump_clock):
    exchange = SimExchange(SimConfig(markets=3), TrioClock(NOW_MS))
    await exchange.handle(SimRequest("GET", "/v1/market/all"))
    exchange.script(MARKET, [ScriptedTrade(NOW_MS, Decimal(1000))])
    await exchange.handle(SimRequest("GET", "/v1/ticker?markets=KRW-BTC"))
    with pytest.raises(RuntimeError, match="has been told"):
        exchange.script(MARKET, [ScriptedTrade(NOW_MS, Decimal(1000))])
