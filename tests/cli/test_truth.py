"""The demo's judge: it accepts what the market was, and nothing else."""

from __future__ import annotations

from decimal import Decimal

import attrs
import pytest
from rig import open_rig

from marketpipe.cli import truth
from marketpipe.models import Source

ONE = Decimal("0.00000001")


@pytest.fixture
async def rig(autojump_clock):
    async with open_rig() as rig:
        yield rig


async def test_true_tickers_pass_and_one_digit_more_does_not(rig):
    asked_ms = rig.clock.now_ms()
    ticker = await rig.market.get_ticker("KRW-BTC")
    assert truth.wrong_tickers(rig.sim.world, [ticker], asked_ms) == []
    for name in ("price", "open", "high", "low", "prev_close", "volume", "volume_24h"):
        forged = attrs.evolve(ticker, **{name: getattr(ticker, name) + ONE})
        (line,) = truth.wrong_tickers(rig.sim.world, [forged], asked_ms)
        assert line.startswith(f"KRW-BTC: {name} is ")


async def test_a_ticker_from_before_the_last_trade_is_wrong(rig):
    ticker = await rig.market.get_ticker("KRW-BTC")
    later_ms = rig.clock.now_ms() + 3_600_000
    assert "KRW-BTC: older than the question" in truth.wrong_tickers(rig.sim.world, [ticker], later_ms)


async def test_a_true_book_passes_and_a_changed_or_missing_level_does_not(rig):
    book = await rig.market.get_orderbook("KRW-BTC")
    assert truth.wrong_book(rig.sim.world, book) == []
    forged = attrs.evolve(book.bids[0], size=book.bids[0].size + ONE)
    assert truth.wrong_book(rig.sim.world, attrs.evolve(book, bids=(forged, *book.bids[1:]))) == [
        "KRW-BTC: bids differ"
    ]
    assert truth.wrong_book(rig.sim.world, attrs.evolve(book, asks=book.asks[1:])) == ["KRW-BTC: asks differ"]


async def test_true_trades_pass_and_gaps_doubles_and_forgeries_do_not(rig):
    trades = await rig.market.get_trade("KRW-BTC", count=600)
    now_ms = rig.clock.now_ms()
    assert len(trades) == 600
    assert truth.wrong_trades(rig.sim.world, trades, now_ms) == []
    forged = attrs.evolve(trades[5], price=trades[5].price + ONE)
    for wrong in ((*trades[:5], *trades[6:]), (*trades[:5], *trades[4:]), (*trades[:5], forged, *trades[6:]), ()):
        assert truth.wrong_trades(rig.sim.world, wrong, now_ms)


async def test_true_candles_pass_and_gaps_and_forgeries_do_not(rig):
    series = await rig.market.get_candle("KRW-BTC", "1m", count=250)
    now_ms = rig.clock.now_ms()
    assert truth.wrong_candles(rig.sim.world, series, now_ms) == []
    bars = series.candles
    gap = attrs.evolve(series, candles=(*bars[:5], *bars[6:]))
    assert truth.wrong_candles(rig.sim.world, gap, now_ms) == ["KRW-BTC: 1 bars more or less than the market had"]
    forged = attrs.evolve(series, candles=(*bars[:5], attrs.evolve(bars[5], close=bars[5].close + ONE), *bars[6:]))
    assert truth.wrong_candles(rig.sim.world, forged, now_ms) == [f"KRW-BTC: the bar of {bars[5].open_time} differs"]


async def test_a_true_list_passes_and_a_missing_or_invented_market_does_not(rig):
    listed = (await rig.market.get_market()).values()
    now_ms = rig.clock.now_ms()
    assert truth.wrong_markets(rig.sim.world, listed, now_ms) == []
    first, *rest = listed
    assert truth.wrong_markets(rig.sim.world, rest, now_ms) == [f"{first.market}: listed on one side only"]
    invented = attrs.evolve(first, market="KRW-NOPE")
    assert truth.wrong_markets(rig.sim.world, [*listed, invented], now_ms) == ["KRW-NOPE: listed on one side only"]


async def test_a_stream_s_trades_pass_by_market_and_a_missing_or_double_one_does_not(rig):
    names = ["KRW-BTC", "KRW-ETH"]
    pages = [(await rig.market.get_trade(name, count=20))[::-1] for name in names]
    woven = [trade for pair in zip(*pages, strict=True) for trade in pair]
    now_ms = rig.clock.now_ms()
    assert truth.wrong_streams(rig.sim.world, woven, now_ms) == []
    for wrong in ([*woven[:4], *woven[5:]], [*woven, woven[-2]]):
        assert truth.wrong_streams(rig.sim.world, wrong, now_ms) == ["KRW-BTC: the trades differ"]
    assert truth.wrong_streams(rig.sim.world, [], now_ms) == ["no trade came"]


async def test_trades_of_a_gap_must_be_in_order_and_those_of_the_stream_come_as_they_come(rig):
    fetched = (await rig.market.get_trade("KRW-BTC", count=5))[::-1]
    streamed = [attrs.evolve(trade, source=Source.STREAM) for trade in fetched]
    now_ms = rig.clock.now_ms()

    def wrong(trades) -> list[str]:
        return truth.wrong_streams(rig.sim.world, [trades[1], trades[0], *trades[2:]], now_ms)

    assert wrong(streamed) == []
    assert wrong(fetched) == ["KRW-BTC: the trades of the gap are not in order"]
