"""What the cache keeps, and for how long."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
import trio
import trio.testing

from marketpipe import CacheOptions, Orderbook, Side, Source, Trade
from marketpipe.actors.cache import Cache, CacheView
from marketpipe.actors.messages import Answered
from marketpipe.core.batching import Wanted
from marketpipe.core.expiring import MISSING
from marketpipe.core.listing import MarketList
from marketpipe.core.requests import CandlesRequest, Group, MarketsRequest, TradesRequest
from marketpipe.core.timeframes import Timeframe

MINUTE_MS = 1_790_166_900_000


@asynccontextmanager
async def running(
    options: CacheOptions | None = None,
) -> AsyncIterator[tuple[CacheView, trio.MemorySendChannel[Answered]]]:
    answered, answers = trio.open_memory_channel[Answered](math.inf)
    cache = Cache(answers, options or CacheOptions())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        with answered:
            yield cache.view, answered


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
