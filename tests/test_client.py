"""The verbs over the simulator: answers equal to the truth, misuse named, memory used."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

import pytest
import trio
from rig import EPOCH_MS, open_rig

import marketpipe as mp
from marketpipe import CandleState, Change, Side, Source, Timeframe
from marketpipe.core.requests import CandlesRequest, TickersRequest, TradesRequest
from marketpipe.sim import EditFault, StatusFault
from marketpipe.sim.limiter import GROUPS

UNIT = Decimal("0.00000001")


def exact(units):
    return units * UNIT


async def test_a_ticker_equals_the_truth(autojump_clock):
    """Every field is the exchange's, digit for digit, with its times and its source."""
    async with open_rig() as rig:
        ticker = await rig.market.get_ticker("krw-btc ")
        truth = rig.sim.world.ticker("KRW-BTC", ticker.exchange_ms)
        assert ticker.market == "KRW-BTC"
        assert ticker.price == exact(truth.last.price)
        assert (ticker.open, ticker.high, ticker.low) == tuple(map(exact, (truth.opening, truth.high, truth.low)))
        assert ticker.prev_close == exact(truth.previous_close)
        assert ticker.volume == exact(truth.volume)
        assert ticker.volume_24h == exact(truth.volume_24h)
        assert ticker.signed_change == ticker.price - ticker.prev_close
        assert ticker.change is (
            Change.EVEN if not ticker.signed_change else Change.RISE if ticker.signed_change > 0 else Change.FALL
        )
        assert ticker.source is Source.REST
        assert ticker.exchange_ms == truth.stored_ms
        assert 0 <= ticker.age_ms(rig.clock.now_ms()) < 100


async def test_many_are_a_mapping_in_the_order_asked(autojump_clock):
    """Duplicates are asked and counted once; lower case is understood; what failed stands beside."""
    async with open_rig() as rig:
        batch = await rig.market.get_ticker(["KRW-XRP", "krw-btc", "KRW-NOPE", "KRW-XRP", "not a market"])
        assert list(batch) == ["KRW-XRP", "KRW-BTC"]
        assert all(symbol == ticker.market for symbol, ticker in batch.items())
        assert list(batch.failed) == ["KRW-NOPE", "NOT A MARKET"]
        assert "not" in str(batch.failed["NOT A MARKET"]).lower()
        assert batch.symbols_per_second == pytest.approx(2 / batch.elapsed_s)
        with pytest.raises(KeyError, match="KRW-NOPE failed"):
            batch["KRW-NOPE"]
        with pytest.raises(ExceptionGroup):
            batch.raise_for_failed()


async def test_nothing_asked_is_nothing_answered(autojump_clock):
    """An empty list is an empty batch, at no cost."""
    async with open_rig() as rig:
        await trio.sleep(1)
        requests = len(rig.exchange.requests)
        for verb in (rig.market.get_ticker, rig.market.get_orderbook, rig.market.get_trade, rig.market.get_candle):
            batch = await verb([])
            assert len(batch) == 0
            assert not batch.failed
        assert len(rig.exchange.requests) == requests


async def test_ten_thousand_symbols(autojump_clock):
    """Far more symbols than exist: those that exist are answered, the others fail by name, the limit holds."""
    async with open_rig(markets=200) as rig:
        listed = list(await rig.market.get_market())
        symbols = [*listed, *(f"KRW-X{i}" for i in range(10_000 - len(listed)))]
        batch = await rig.market.get_ticker(symbols)
        assert list(batch) == listed
        assert len(batch.failed) == 10_000 - len(listed)
        assert rig.greatest() <= 10


async def test_a_second_look_is_from_memory(autojump_clock):
    """Within 200 ms nothing is asked twice; max_age_s=0 always asks; nowait takes what is there."""
    async with open_rig() as rig:
        first = await rig.market.get_ticker("KRW-BTC")
        assert await rig.market.get_ticker("KRW-BTC") is first
        assert rig.market.get_ticker_nowait("KRW-BTC") is first
        assert (await rig.market.get_ticker(["KRW-BTC"])).cache_hit_rate == 1.0
        assert len(rig.exchange.of(TickersRequest)) == 1
        assert await rig.market.get_ticker("KRW-BTC", max_age_s=0) is not first
        assert len(rig.exchange.of(TickersRequest)) == 2
        await trio.sleep(1)
        with pytest.raises(trio.WouldBlock):
            rig.market.get_ticker_nowait("KRW-BTC")


async def test_a_hundred_readers_cost_five_requests_a_second(autojump_clock):
    """One request for each window of 200 ms, however many read."""
    async with open_rig() as rig:

        async def read():
            while True:
                await rig.market.get_ticker("KRW-BTC")
                await trio.sleep(0.01)

        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(read)
        assert 10 <= len(rig.exchange.of(TickersRequest)) <= 50


async def test_an_orderbook_is_best_first_and_without_padding(autojump_clock):
    """Both sides ordered, no zero levels, depth cut on request, totals those of the exchange."""
    async with open_rig(markets=100) as rig:
        symbols = list(await rig.market.get_market())
        books = await rig.market.get_orderbook(symbols)
        assert list(books) == symbols
        for book in books.values():
            assert all(upper.price > lower.price for upper, lower in pairwise(book.bids))
            assert all(upper.price < lower.price for upper, lower in pairwise(book.asks))
            assert all(level.price > 0 and level.size > 0 for level in (*book.bids, *book.asks))
        shallow = await rig.market.get_orderbook("KRW-BTC", depth=5)
        assert shallow.bids == books["KRW-BTC"].bids[:5]
        assert shallow.total_bid_size == books["KRW-BTC"].total_bid_size
        assert rig.market.get_orderbook_nowait("KRW-BTC", depth=1).asks == shallow.asks[:1]


async def test_trades_are_paged_without_gap_or_double(autojump_clock):
    """More than a page, more than a day: the newest trades equal the truth, newest first."""
    async with open_rig() as rig:
        trades = await rig.market.get_trade("KRW-XRP", count=1700)
        now_ms = rig.clock.now_ms()
        truth = rig.sim.world.trades("KRW-XRP", EPOCH_MS - 7 * 86_400_000, now_ms, now_ms)
        known = {(deal.at_ms, exact(deal.price)) for deal in truth}
        assert len(trades) == 1700
        assert len({trade.sequential_id for trade in trades}) == 1700
        assert all(later.trade_ms >= earlier.trade_ms for later, earlier in pairwise(trades))
        assert {(trade.trade_ms, trade.price) for trade in trades} <= known
        assert all(trade.side in Side for trade in trades)
        span = [deal for deal in truth if trades[-1].trade_ms < deal.at_ms < trades[0].trade_ms]
        assert len(span) == sum(trades[-1].trade_ms < trade.trade_ms < trades[0].trade_ms for trade in trades)


async def test_trades_end_where_the_exchange_ends(autojump_clock):
    """A thin market: all that is kept of eight days comes back, fewer than asked, and that is no error."""
    async with open_rig(markets=100) as rig:
        listed = await rig.market.get_market(quote="BTC")
        thin = list(listed)[-1]
        trades = await rig.market.get_trade(thin, count=100_000)
        day_ms = rig.clock.now_ms() // 86_400_000 * 86_400_000
        truth = rig.sim.world.trades(thin, day_ms - 7 * 86_400_000, rig.clock.now_ms(), rig.clock.now_ms())
        assert len(trades) == len(truth)


async def test_a_second_look_at_trades_is_from_memory(autojump_clock):
    """Fewer trades than are held cost nothing; more do."""
    async with open_rig() as rig:
        first = await rig.market.get_trade("KRW-BTC", count=50)
        assert await rig.market.get_trade("KRW-BTC", count=20) == first[:20]
        assert len(rig.exchange.of(TradesRequest)) == 1
        await rig.market.get_trade("KRW-BTC", count=60)
        assert len(rig.exchange.of(TradesRequest)) == 2


@pytest.mark.parametrize("timeframe", list(Timeframe))
async def test_candles_of_every_timeframe_equal_the_truth(autojump_clock, timeframe):
    """The newest bars, oldest first, exact, the last one running."""
    async with open_rig() as rig:
        series = await rig.market.get_candle("KRW-BTC", timeframe, count=12)
        now_ms = rig.clock.now_ms()
        truth = rig.sim.world.newest_candles("KRW-BTC", timeframe, now_ms, 12, now_ms)
        truth = sorted(truth, key=lambda bar: bar.open_ms)
        assert series.timeframe is timeframe
        assert [bar.open_ms for bar in series[:-1]] == [bar.open_ms for bar in truth[:-1]]
        for bar, true in zip(series[:-1], truth[:-1], strict=True):
            assert (bar.open, bar.high, bar.low, bar.close) == tuple(
                map(exact, (true.opening, true.high, true.low, true.close))
            )
            assert bar.volume == exact(true.volume)
        assert all(bar.state is CandleState.FINAL for bar in series[:-1])


async def test_a_thousand_bars_are_joined_in_parallel(autojump_clock):
    """Five pages without seam: every bar once, in order; two round trips, not five."""
    async with open_rig() as rig:
        await rig.market.get_market()
        began_s = trio.current_time()
        series = await rig.market.get_candle("KRW-BTC", "1m", count=1000)
        assert trio.current_time() - began_s < 0.07
        assert len(series) == 1000
        assert all(after.open_ms - before.open_ms == 60_000 for before, after in pairwise(series))
        assert len(rig.exchange.of(CandlesRequest)) == 5


async def test_a_range_is_half_open(autojump_clock):
    """start is in, end is not; closed bars of the past are all FINAL."""
    async with open_rig() as rig:
        start, end = datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 9, 2, tzinfo=UTC)
        series = await rig.market.get_candle("KRW-BTC", "1h", start=start, end=end)
        assert [bar.open_time.hour for bar in series] == list(range(24))
        assert all(bar.state is CandleState.FINAL for bar in series)
        again = await rig.market.get_candle("KRW-BTC", "1h", start=start, end=end)
        assert again.candles == series.candles
        assert len(rig.exchange.of(CandlesRequest)) == 1


async def test_a_range_in_the_future_is_empty(autojump_clock):
    """There are no bars yet, and none are invented."""
    async with open_rig() as rig:
        series = await rig.market.get_candle(
            "KRW-BTC", start=datetime(2027, 1, 1, tzinfo=UTC), end=datetime(2027, 1, 2, tzinfo=UTC)
        )
        assert len(series) == 0


async def test_a_million_bars_of_a_young_market_are_all_there_are(autojump_clock):
    """Asking for more than exists gives what exists, back to the first bar."""
    async with open_rig(markets=100) as rig:
        series = await rig.market.get_candle("KRW-BTC", "1d", count=1_000_000)
        assert series[0].open_time.date().isoformat() == "2017-09-25"
        assert all(after.open_ms > before.open_ms for before, after in pairwise(series))


async def test_closed_only_leaves_the_running_bar_out(autojump_clock):
    """As many bars as asked, none of them running."""
    async with open_rig() as rig:
        series = await rig.market.get_candle("KRW-BTC", "5m", count=10, closed_only=True)
        assert len(series) == 10
        assert all(bar.state is CandleState.FINAL for bar in series)


async def test_fill_forward_makes_every_slot_a_bar(autojump_clock):
    """A thin market, filled: contiguous, synthetic bars marked, flat at the previous close, without volume."""
    async with open_rig(markets=100) as rig:
        thin = list(await rig.market.get_market(quote="BTC"))[-1]
        series = await rig.market.get_candle(thin, "1m", count=120, fill="forward")
        assert len(series) == 120
        assert all(after.open_ms - before.open_ms == 60_000 for before, after in pairwise(series))
        assert any(bar.filled for bar in series)
        for before, after in pairwise(series):
            if after.filled:
                assert {after.open, after.high, after.low, after.close} == {before.close}
                assert after.volume == after.quote_volume == 0


async def test_a_running_bar_is_not_kept_for_a_minute(autojump_clock):
    """The newest page is fresh for the fast tier's moment only."""
    async with open_rig() as rig:
        await rig.market.get_candle("KRW-BTC", count=3)
        await rig.market.get_candle("KRW-BTC", count=3)
        assert len(rig.exchange.of(CandlesRequest)) == 1
        await trio.sleep(0.3)
        await rig.market.get_candle("KRW-BTC", count=3)
        assert len(rig.exchange.of(CandlesRequest)) == 2


async def test_one_bad_symbol_never_fails_the_others(autojump_clock):
    """Candles and trades of several symbols: the unknown one fails by itself."""
    async with open_rig() as rig:
        candles = await rig.market.get_candle(["KRW-BTC", "KRW-NOPE", "KRW-ETH"], "1m", count=5)
        trades = await rig.market.get_trade(["KRW-NOPE", "KRW-ETH"], count=5)
        assert list(candles) == ["KRW-BTC", "KRW-ETH"]
        assert list(candles.failed) == list(trades.failed) == ["KRW-NOPE"]
        assert list(trades) == ["KRW-ETH"]


async def test_markets(autojump_clock):
    """All, by quote, one, and an unknown one; an unknown quote names the known ones."""
    async with open_rig() as rig:
        everything = await rig.market.get_market()
        assert len(everything) == 40
        krw = await rig.market.get_market(quote="krw")
        assert {market.quote for market in krw.values()} == {"KRW"}
        one = await rig.market.get_market("KRW-BTC")
        assert (one.base, one.quote, one.market) == ("BTC", "KRW", "KRW-BTC")
        with pytest.raises(mp.UnknownMarket, match="KRW-NOPE"):
            await rig.market.get_market("KRW-NOPE")
        assert list((await rig.market.get_market(["KRW-BTC", "KRW-NOPE"])).failed) == ["KRW-NOPE"]
        with pytest.raises(ValueError, match="BTC, KRW, USDT"):
            await rig.market.get_market(quote="EUR")


async def test_a_market_whose_row_cannot_be_read_is_not_called_unknown(autojump_clock):
    """It fails by name in the list, and its ticker, which is fine, is answered."""
    async with open_rig() as rig:
        rig.sim.add_fault(EditFault(groups=("market",), change="remove", field="english_name", market="KRW-ETH"))
        listed = await rig.market.get_market()
        assert list(listed.failed) == ["KRW-ETH"]
        assert len(listed) == 39
        with pytest.raises(mp.BadPayload, match="KRW-ETH"):
            await rig.market.get_market("KRW-ETH")
        assert (await rig.market.get_ticker("KRW-ETH")).market == "KRW-ETH"


async def test_count_before_a_minute_that_has_just_begun(autojump_clock):
    """The exchange's clock is known to a second only; as many bars come back as were asked all the same."""
    symbols = ["KRW-BTC", "KRW-ETH", "KRW-XRP"]
    async with open_rig() as rig:
        for _ in range(4):
            minute_ms = (rig.clock.now_ms() // 60_000 + 1) * 60_000
            await trio.sleep((minute_ms - 70 - rig.clock.now_ms()) / 1000)
            await rig.market.get_market(max_age_s=0)  # dated almost a second before it arrives
            await trio.sleep((minute_ms + 850 - rig.clock.now_ms()) / 1000)
            for fill in ("none", "forward"):
                bars = await rig.market.get_candle(symbols, "1m", count=20, end=minute_ms, fill=fill)
                assert [len(series) for series in bars.values()] == [20, 20, 20]
                assert all(series[-1].open_ms < minute_ms for series in bars.values())


@pytest.mark.parametrize("behind_s", [5, 3600])
async def test_a_wrong_clock_here_is_not_believed(autojump_clock, behind_s):
    """Before the first answer this machine's clock is all there is, so the exchange is asked before it matters."""
    async with open_rig(behind_s=behind_s) as rig:
        now_ms = rig.clock.now_ms()
        assert len(await rig.market.get_candle("KRW-BTC", start=now_ms - 1_800_000, count=5)) == 5
    async with open_rig(behind_s=behind_s) as rig:
        now_ms = rig.clock.now_ms()
        assert len(await rig.market.get_candle("KRW-BTC", count=50, end=now_ms - 600_000)) == 50


async def test_leaving_is_no_failure_of_a_symbol(autojump_clock):
    """Whoever still waits for many symbols when the pipe is left gets PipelineClosed, whatever the verb."""
    outcomes = []

    async def outsider(verb):
        with pytest.raises(mp.PipelineClosed):
            await verb(["KRW-BTC", "KRW-ETH"])
        outcomes.append(verb)

    async with trio.open_nursery() as nursery, open_rig(latency_s=1.0) as rig:
        for verb in (rig.market.get_ticker, rig.market.get_candle, rig.market.get_trade):
            nursery.start_soon(outsider, verb)
        await trio.sleep(0.5)
    assert len(outcomes) == 3


@pytest.mark.parametrize("symbol", ["", "  ", "not a market"])
async def test_what_is_no_market_code_is_unknown_to_every_verb(autojump_clock, symbol):
    """When it is awaited or entered, as any other unknown market; and nothing is asked or connected for it."""
    async with open_rig(streams=True) as rig:
        market = rig.market
        await market.get_market()
        requests = len(rig.exchange.requests)
        for verb in (market.get_ticker, market.get_orderbook, market.get_trade, market.get_candle, market.get_market):
            with pytest.raises(mp.UnknownMarket):
                await verb(symbol)
            assert list((await verb([symbol])).failed) == [symbol.strip().upper()]
        for verb in (market.stream_ticker, market.stream_orderbook, market.stream_trade, market.stream_candle):
            for symbols in (symbol, [symbol]):
                with pytest.raises(mp.UnknownMarket):
                    async with verb(symbols):
                        pytest.fail("listening to what is no market")
        assert len(rig.exchange.requests) == requests
        assert rig.sim.statistics().streams.connections["total"] == 0


# -- streams while REST is in trouble ---------------------------------------------------------------------------


async def test_streams_can_be_listened_to_while_rest_is_in_trouble(autojump_clock):
    """What was listed last is good enough for that, however long ago it was."""
    async with open_rig(streams=True) as rig:
        async with rig.market.stream_trade("KRW-BTC"):
            await trio.sleep(1)
        await trio.sleep(600)  # no list is fresh any more
        rig.sim.add_fault(StatusFault(status=503, groups=GROUPS))
        with pytest.raises(mp.ExchangeUnavailable):
            await rig.market.get_market("KRW-ETH")
        async with rig.market.stream_ticker(["KRW-ETH", "KRW-BTC"]) as tickers:
            with trio.fail_after(5):
                assert {(await anext(tickers)).market for _ in range(2)} == {"KRW-ETH", "KRW-BTC"}
            assert tickers.failed == {}


async def test_where_nothing_was_ever_listed_a_stream_says_that_rest_is_in_trouble(autojump_clock):
    """Nobody could tell a market from what does not exist; and nothing is connected for it."""
    async with open_rig(streams=True) as rig:
        rig.sim.add_fault(StatusFault(status=503, groups=GROUPS))
        await trio.sleep(60)
        with pytest.raises(mp.ExchangeUnavailable):
            async with rig.market.stream_ticker("KRW-BTC"):
                pytest.fail("listening to what nobody has listed")
        assert rig.sim.statistics().streams.connections["total"] == 0
        rig.sim.clear_faults()
        async with rig.market.stream_ticker("KRW-BTC") as tickers:
            with trio.fail_after(5):
                assert (await anext(tickers)).market == "KRW-BTC"


async def test_what_was_listed_last_is_believed_only_until_rest_tells_better(autojump_clock, monkeypatch):
    async with open_rig(streams=True) as rig:
        async with rig.market.stream_trade("KRW-BTC"):
            await trio.sleep(600)
        rig.sim.add_fault(StatusFault(status=503, groups=GROUPS))
        async with rig.market.stream_trade("KRW-ETH"):
            await trio.sleep(1)
        rig.sim.clear_faults()
        # One row fewer: KRW-ETH is delisted.
        rig.sim.add_fault(EditFault(groups=("market",), change="drop", market="KRW-ETH"))
        with pytest.raises(mp.UnknownMarket, match="KRW-ETH"):
            async with rig.market.stream_trade("KRW-ETH"):
                pytest.fail("listening to what is not listed any more")


MISUSE = [
    (lambda m: m.get_ticker(None), TypeError, "None"),
    (lambda m: m.get_ticker(5), TypeError, "5"),
    (lambda m: m.get_ticker(["KRW-BTC", 7]), TypeError, "7"),
    (lambda m: m.get_ticker(b"KRW-BTC"), TypeError, "str"),
    (lambda m: m.get_ticker("KRW-BTC", max_age_s=-1), ValueError, "-1"),
    (lambda m: m.get_market(quote=5), TypeError, "5"),
    (lambda m: m.get_ticker("KRW-BTC", max_age_s="5"), TypeError, "'5'"),
    (lambda m: m.get_ticker("KRW-BTC", priority=2), TypeError, "CRITICAL, HIGH, NORMAL, LOW"),
    (lambda m: m.get_orderbook("KRW-BTC", depth=31), ValueError, "1 to 30"),
    (lambda m: m.get_trade("KRW-BTC", count=0), ValueError, "at least 1"),
    (lambda m: m.get_candle("KRW-BTC", "2m"), ValueError, "1s 1m 3m"),
    (lambda m: m.get_candle("KRW-BTC", "1m", count=-5), ValueError, "-5"),
    (lambda m: m.get_candle("KRW-BTC", "1m", count=1.5), TypeError, "1.5"),
    (lambda m: m.get_candle("KRW-BTC", fill="back"), ValueError, "'back'"),
    (lambda m: m.get_candle("KRW-BTC", start=datetime(2026, 1, 1)), ValueError, "timezone"),  # noqa: DTZ001
    (
        lambda m: m.get_candle("KRW-BTC", start=datetime(2026, 2, 1, tzinfo=UTC), end=datetime(2026, 1, 1, tzinfo=UTC)),
        ValueError,
        "start must be before end",
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), MISUSE)
async def test_misuse_is_named_before_anything_is_asked(autojump_clock, call, kind, text):
    """A wrong value is an error that names it and what is allowed, and costs no request."""
    async with open_rig() as rig:
        await trio.sleep(1)
        requests = len(rig.exchange.requests)
        with pytest.raises(kind, match=text):
            await call(rig.market)
        assert len(rig.exchange.requests) == requests


async def test_the_status_counts(autojump_clock):
    """Verbs, symbols, caches, budgets and lateness are real counts."""
    async with open_rig(latency_s=0.3) as rig:
        await rig.market.get_ticker("KRW-BTC", priority=mp.Priority.CRITICAL)
        await rig.market.get_ticker("KRW-BTC")
        status = rig.market.status()
        assert status.verbs["get_ticker"].calls == 2
        assert status.verbs["get_ticker"].p95_s == pytest.approx(0.3, abs=0.01)
        assert status.late[mp.Priority.CRITICAL] == 1
        assert status.late[mp.Priority.HIGH] == 0
        assert status.caches["ticker"].fast_hits == 1
        assert status.budgets["ticker"].sent == 1
        assert status.requests == 2
        assert status.symbols_per_second > 0
        with trio.move_on_after(0.15):
            await rig.market.get_ticker("KRW-ETH", priority=mp.Priority.HIGH)
        assert rig.market.status().given_up[mp.Priority.HIGH] == 1
        assert rig.market.status().late[mp.Priority.HIGH] == 1
