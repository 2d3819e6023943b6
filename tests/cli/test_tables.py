"""Tables for people."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rig import open_rig

from marketpipe.cli import figures, tables


def text_of(table, width: int = 160) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(table, crop=False)
    return out.getvalue()


def words_of(table, width: int) -> list[set[str]]:
    shown = text_of(table, width)
    assert "…" not in shown
    return [set(line.split()) for line in shown.splitlines()]


at_any_width = pytest.mark.parametrize("width", [120, 80, 40, 20])


@pytest.fixture
async def rig(autojump_clock):
    async with open_rig() as rig:
        yield rig


async def test_a_ticker_s_line_has_price_change_age_and_source(rig):
    batch = await rig.market.get_ticker(["KRW-BTC", "BTC-ETH"])
    shown = text_of(tables.ticker_table(batch.values(), batch["KRW-BTC"].received_ms + 1500))
    for name, ticker in batch.items():
        (line,) = (line for line in shown.splitlines() if line.startswith(f" {name}"))
        for part in (figures.exact(ticker.price), figures.percent(ticker.signed_change_rate), "1.5 s", "REST"):
            assert part in line


async def test_a_book_is_shown_with_the_best_levels_in_the_middle(rig):
    book = await rig.market.get_orderbook("KRW-BTC", depth=2)
    shown = text_of(tables.orderbook_table(book, book.received_ms + 7))
    asks, bids = ([figures.exact(level.price) for level in side] for side in (book.asks, book.bids))
    assert sorted([*asks, *bids], key=shown.index) == [asks[1], asks[0], bids[0], bids[1]]
    assert "7 ms old, from REST" in shown


async def test_a_filled_bar_and_a_running_bar_are_called_so(rig):
    series = await rig.market.get_candle("KRW-BTC", "1s", count=60, fill="forward")
    lines = text_of(tables.candle_table(series, rig.clock.now_ms())).splitlines()
    states = [candle.filled for candle in series]
    assert any(states)
    assert sum("filled" in line for line in lines) == sum(states)
    assert sum("running" in line for line in lines) == sum(candle.state == "RUNNING" for candle in series)


async def test_trades_are_shown_newest_first_to_the_millisecond(rig):
    trades = await rig.market.get_trade("KRW-BTC", count=3)
    shown = text_of(tables.trade_table(trades, rig.clock.now_ms()))
    times = [figures.utc(trade.trade_ms, digits="milliseconds") for trade in trades]
    assert sorted(times, key=shown.index) == times


async def test_a_market_s_line_has_its_names(rig):
    listed = await rig.market.get_market(["KRW-BTC"])
    shown = text_of(tables.market_table(listed.values(), 0))
    assert "비트코인" in shown
    assert "Bitcoin" in shown


async def test_nothing_is_shown_as_nothing(rig):
    series = (await rig.market.get_candle("KRW-BTC", "1d", count=1))[:0]
    assert "no bar there" in text_of(tables.candle_table(series, 0))
    assert "no trade is kept" in text_of(tables.trade_table((), 0))


@at_any_width
async def test_every_ticker_shows_its_code_and_price_whole_at_any_width(rig, width):
    batch = await rig.market.get_ticker(list(rig.sim.world.markets))
    lines = words_of(tables.ticker_table(batch.values(), rig.clock.now_ms()), width)
    for ticker in batch.values():
        assert any({ticker.market, figures.exact(ticker.price)} <= words for words in lines)


@at_any_width
async def test_every_level_of_a_book_is_whole_at_any_width(rig, width):
    book = await rig.market.get_orderbook("KRW-BTC")
    lines = words_of(tables.orderbook_table(book, 0), width)
    for level in (*book.bids, *book.asks):
        assert {figures.exact(level.price), figures.exact(level.size)} in lines


@at_any_width
async def test_every_trade_shows_its_time_and_price_whole_at_any_width(rig, width):
    trades = await rig.market.get_trade("KRW-BTC", count=20)
    lines = words_of(tables.trade_table(trades, 0), width)
    for trade in trades:
        time = figures.utc(trade.trade_ms, digits="milliseconds").split()
        assert any({*time, figures.exact(trade.price)} <= words for words in lines)


@at_any_width
async def test_every_bar_shows_its_time_and_close_whole_at_any_width(rig, width):
    series = await rig.market.get_candle("KRW-BTC", "1m", count=20)
    lines = words_of(tables.candle_table(series, 0), width)
    for candle in series:
        assert any({*figures.utc(candle.open_ms).split(), figures.exact(candle.close)} <= words for words in lines)


@at_any_width
async def test_every_market_shows_its_code_whole_at_any_width(rig, width):
    listed = await rig.market.get_market()
    lines = words_of(tables.market_table(listed.values(), 0), width)
    assert all(any(name in words for words in lines) for name in listed)


async def test_the_least_important_columns_go_first(rig):
    batch = await rig.market.get_ticker(["KRW-BTC"])
    now_ms = batch["KRW-BTC"].received_ms  # one moment for all: ages are wider or narrower as time passes

    def columns(width: int) -> str:
        return text_of(tables.ticker_table(batch.values(), now_ms), width).splitlines()[1].split()

    everything = ["market", "price", "change", "high", "low", "value", "24", "h", "traded", "age", "source"]
    assert columns(160) == everything
    assert columns(80) == everything[: len(columns(80))]
    assert columns(40) == everything[: len(columns(40))]
    assert len(columns(160)) > len(columns(80)) > len(columns(40)) >= 3
