"""What the cache keeps, and for how long."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
import trio
import trio.testing
from paper_streams import ticker

from marketpipe import CacheOptions, Orderbook, Side, Source, Trade
from marketpipe.actors.cache import Cache, CacheView
from marketpipe.actors.messages import Answered
from marketpipe.core.batching import Wanted
from marketpipe.core.expiring import MISSING
from marketpipe.core.freshness import Kind
from marketpipe.core.listing import MarketList
from marketpipe.core.requests import CandlesRequest, Group, MarketsRequest, TradesRequest
from marketpipe.core.timeframes import Timeframe

MINUTE_MS = 1_790_166_900_000


@asynccontextmanager
async def running(
    options: CacheOptions | None = None,
) -> AsyncIterator[tuple[CacheView, trio.MemorySendChannel[Answered]]]:
    async with streamed(options) as (cache, answered):
        yield cache.view, answered


@asynccontextmanager
async def streamed(
    options: CacheOptions | None = None,
) -> AsyncIterator[tuple[Cache, trio.MemorySendChannel[Answered]]]:
    """With the hand of whoever feeds it from a stream."""
    answered, answers = trio.open_memory_channel[Answered](math.inf)
    cache = Cache(answers, options or CacheOptions())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        with answered:
            yield cache, answered


async def keep(channel, key, value, exchange_ms=MINUTE_MS):
    channel.send_nowait(Answered(exchange_ms, ((key, value),)))
    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize(("after_ms", "kept"), [(1_999, False), (2_000, True)])
async def test_a_page_rests_once_no_late_bar_can_join_it(autojump_clock, after_ms, kept):
    """Until two seconds after its end a page is fresh for the fast tier's moment only, whatever its bars say."""
    page = CandlesRequest("KRW-BTC", Timeframe.M1, 5, MINUTE_MS)
    async with running() as (view, channel):
        await keep(channel, page, (), MINUTE_MS + after_ms)
        assert view.candles(page) == ()
        await trio.sleep(1)
        assert (view.candles(page) == ()) is kept


async def test_an_open_page_is_fresh_for_a_moment(autojump_clock):
    """It holds the running bar."""
    page = CandlesRequest("KRW-BTC", Timeframe.M1, 5)
    async with running() as (view, channel):
        await keep(channel, page, ())
        assert view.candles(page) == ()
        await trio.sleep(0.3)
        assert view.candles(page) is MISSING


async def test_only_a_first_page_of_today_is_a_markets_newest_trades(autojump_clock):
    """Pages of the past are not kept under the market's name."""
    async with running() as (view, channel):
        for past in (TradesRequest("KRW-BTC", 5, cursor=1), TradesRequest("KRW-BTC", 5, days_ago=1)):
            await keep(channel, past, ())
        assert view.trades("KRW-BTC") is MISSING
        await keep(channel, TradesRequest("KRW-BTC", 5), ())
        assert view.trades("KRW-BTC") == ()


async def test_the_market_list_is_kept(autojump_clock):
    """For its own time to live."""
    listed = MarketList((), {})
    async with running() as (view, channel):
        await keep(channel, MarketsRequest(), listed)
        await trio.sleep(10)
        assert view.markets(MarketsRequest()) is listed


def book(exchange_ms):
    zero = Decimal(0)
    return Orderbook("KRW-BTC", (), (), zero, zero, zero, exchange_ms, exchange_ms, Source.REST)


async def test_a_late_answer_does_not_take_memory_back(autojump_clock):
    """A slow request that was asked earlier brings an older state; what came in before it stays in memory."""
    key = Wanted(Group.ORDERBOOK, "KRW-BTC")
    async with running() as (view, channel):
        newer, older = book(MINUTE_MS), book(MINUTE_MS - 1)
        await keep(channel, key, newer)
        await keep(channel, key, older)
        assert view.orderbook("KRW-BTC") is newer
        await trio.sleep(60)
        await keep(channel, key, older)  # nothing fresh is there any more that it could take back
        assert view.orderbook("KRW-BTC") is older


async def test_late_trades_do_not_hide_those_already_shown(autojump_clock):
    """The page with the newest trade stays, however many an older page holds."""
    first, second = (
        Trade("KRW-BTC", Side.BUY, at_ms, at_ms, Decimal(1), Decimal(1), at_ms, at_ms, Source.REST)
        for at_ms in (MINUTE_MS - 2, MINUTE_MS - 1)
    )
    async with running() as (view, channel):
        await keep(channel, TradesRequest("KRW-BTC", 1), (second,))
        await keep(channel, TradesRequest("KRW-BTC", 2), (first,))
        assert view.trades("KRW-BTC") == (second,)


# -- kept current by a stream -----------------------------------------------------------------------------------


async def test_a_value_kept_current_by_a_stream_is_fresh_while_the_stream_is(autojump_clock):
    async with streamed() as (cache, _):
        value = book(MINUTE_MS)
        cache.live_orderbooks.streamed("KRW-BTC", value, trio.current_time())
        await trio.sleep(3600)
        assert cache.view.orderbook("KRW-BTC") is value
        assert cache.view.ticker("KRW-BTC") is MISSING


async def test_an_age_that_is_demanded_is_demanded_of_a_live_value_too(autojump_clock):
    """It was received when it was received, however current it is; what REST shows then is younger."""
    key = Wanted(Group.ORDERBOOK, "KRW-BTC")
    async with streamed() as (cache, channel):
        live, asked = book(MINUTE_MS), book(MINUTE_MS)
        cache.live_orderbooks.streamed("KRW-BTC", live, trio.current_time())
        await trio.sleep(5)
        assert cache.view.orderbook("KRW-BTC", 5) is MISSING
        assert cache.view.orderbook("KRW-BTC", 5.1) is live
        await keep(channel, key, asked)
        assert cache.view.orderbook("KRW-BTC", 5) is asked
        assert cache.view.orderbook("KRW-BTC") is live


async def test_what_rest_shows_of_a_live_market_is_never_taken_back(autojump_clock):
    """A stream may be behind: whoever saw the answer of REST must not see an older value after it."""
    async with streamed() as (cache, channel):
        cache.live_orderbooks.streamed("KRW-BTC", book(MINUTE_MS), trio.current_time())
        cache.live_tickers.streamed("KRW-BTC", ticker(at_ms=MINUTE_MS), trio.current_time())
        newer, newer_ticker = book(MINUTE_MS + 10), ticker(at_ms=MINUTE_MS + 10)
        await keep(channel, Wanted(Group.ORDERBOOK, "KRW-BTC"), newer)
        await keep(channel, Wanted(Group.TICKER, "KRW-BTC"), newer_ticker)
        cache.live_orderbooks.streamed("KRW-BTC", book(MINUTE_MS + 5), trio.current_time())
        assert cache.view.orderbook("KRW-BTC") is newer
        assert cache.view.ticker("KRW-BTC") is newer_ticker


async def test_a_demoted_value_is_as_old_as_its_receipt(autojump_clock):
    """The time to live of an order book is 0.3 s at the most here: what was received before that is gone at once."""
    async with streamed() as (cache, _):
        live = cache.live_orderbooks
        live.streamed("KRW-BTC", book(MINUTE_MS), trio.current_time())
        await trio.sleep(0.1)
        cache.demote(Kind.ORDERBOOK, live.suspend(["KRW-BTC"]), MINUTE_MS)
        assert cache.view.orderbook("KRW-BTC") is not MISSING
        assert cache.view.orderbook("KRW-BTC", 0.1) is MISSING
        await trio.sleep(1)
        assert cache.view.orderbook("KRW-BTC") is MISSING
        live.streamed("KRW-ETH", book(MINUTE_MS), trio.current_time())
        await trio.sleep(10)
        cache.demote(Kind.ORDERBOOK, live.suspend(["KRW-ETH"]), MINUTE_MS)
        assert cache.view.orderbook("KRW-ETH") is MISSING


@pytest.mark.parametrize(("behind_ms", "kept"), [(-1, "live"), (0, "live"), (1, "fetched")])
async def test_a_demoted_value_takes_memory_back_no_more_than_a_late_answer_does(autojump_clock, behind_ms, kept):
    async with streamed() as (cache, channel):
        values = {"live": book(MINUTE_MS), "fetched": book(MINUTE_MS + behind_ms)}
        cache.live_orderbooks.streamed("KRW-BTC", values["live"], trio.current_time())
        entries = cache.live_orderbooks.forget(["KRW-BTC"])
        await keep(channel, Wanted(Group.ORDERBOOK, "KRW-BTC"), values["fetched"])
        cache.demote(Kind.ORDERBOOK, entries, MINUTE_MS)
        assert cache.view.orderbook("KRW-BTC") is values[kept]


async def test_answers_from_a_stream_are_counted_beside_the_others(autojump_clock):
    async with streamed() as (cache, _):
        cache.live_tickers.streamed("KRW-BTC", ticker(), trio.current_time())
        cache.view.ticker("KRW-BTC")
        cache.view.ticker("KRW-BTC", 0)
        cache.view.ticker("KRW-ETH")
        statistics = cache.statistics()
        assert (statistics[Kind.TICKER].live, statistics[Kind.TICKER].live_hits) == (1, 1)
        assert (statistics[Kind.TICKER].entries, statistics[Kind.TICKER].misses) == (0, 2)
        assert statistics[Kind.TICKER].hit_rate == pytest.approx(1 / 3)
        assert (statistics[Kind.ORDERBOOK].live, statistics[Kind.ORDERBOOK].live_hits) == (0, 0)


@pytest.mark.slow
async def test_the_pace_of_a_market_is_learnt_from_its_live_ticker(autojump_clock):
    """After an hour of even trade a book is kept for a while; in a minute of far more it is so for the least time."""
    async with streamed() as (cache, _):

        def trade(total: int) -> None:
            value = ticker(at_ms=MINUTE_MS + total, volume=Decimal(total))
            cache.live_tickers.streamed("KRW-BTC", value, trio.current_time())
            cache.learn_from_live(MINUTE_MS + total)

        async def is_kept() -> bool:
            books = cache.live_orderbooks
            books.streamed("KRW-BTC", book(MINUTE_MS), trio.current_time())
            await trio.sleep(0.22)
            cache.demote(Kind.ORDERBOOK, books.suspend(["KRW-BTC"]), MINUTE_MS)
            return cache.view.orderbook("KRW-BTC") is not MISSING

        for second in range(70 * 60):
            trade(second)
            await trio.sleep(1)
        assert await is_kept()
        for second in range(60):
            trade(70 * 60 + 50 * second)
            await trio.sleep(1)
        assert not await is_kept()
