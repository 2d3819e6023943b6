"""Two pipelines in one process, to two exchanges: nothing of one is seen by the other."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from bench.truth import wrong_tickers, wrong_trades
from marketpipe import Client, Config, ExchangeError, Gap, PipelineCrashed, StoreError, connect, open_pipeline
from marketpipe.config import REGIONS
from marketpipe.core.requests import Group
from marketpipe.sim import Simulator, open_simulator
from marketpipe.sim.faults import DownFault, StatusFault
from marketpipe.store.sqlite import SqliteStore
from marketpipe.upbit.rest import UpbitRest

HANG_S = 30.0
PAIR = "KRW-BTC", "KRW-ETH"
LIMIT = 10


@attrs.frozen
class Side:
    """One exchange, and the pipeline to it."""

    sim: Simulator
    market: Client
    path: Any


@asynccontextmanager
async def both(tmp_path, **options: Any) -> AsyncIterator[tuple[Side, Side]]:
    """Two of them, whose markets have the same names and nothing else in common."""
    async with AsyncExitStack() as stack:
        sides = []
        for seed in (1, 2):
            path = tmp_path / f"{seed}.db"
            sim = await stack.enter_async_context(open_simulator(seed=seed, markets=10, window="rolling"))
            market = await stack.enter_async_context(open_pipeline(base_url=sim.base_url, store=path, **options))
            sides.append(Side(sim, market, path))
        yield sides[0], sides[1]


def now_ms(side: Side) -> int:
    return side.sim.exchange.clock.now_ms()


@pytest.mark.slow
@pytest.mark.socket
async def test_values_and_bars_are_those_of_their_own_exchange(tmp_path):
    """Asked, listened to and collected at once; each is what its own market was, and not what the other one was."""
    with trio.fail_after(HANG_S):
        async with both(tmp_path) as sides, trio.open_nursery() as nursery:
            for side, other in (sides, sides[::-1]):
                nursery.start_soon(use, side, other)
    stored = []
    for side in sides:
        with SqliteStore.open(side.path, source=side.sim.base_url) as store:
            series = store.series()
            assert {each.market for each in series} == {PAIR[0]}
            bars = store.bars(series[0].market, series[0].timeframe, 0, 1 << 60)
            stored.append({bar.open_ms: bar.close for bar in bars})
    common = stored[0].keys() & stored[1].keys()
    assert len(common) >= 290
    assert all(stored[0][open_ms] != stored[1][open_ms] for open_ms in common)


async def use(side: Side, other: Side) -> None:
    began_ms, market = now_ms(side), side.market
    tickers = list((await market.get_ticker(PAIR)).values())
    assert wrong_tickers(side.sim.world, tickers, began_ms) == []
    assert wrong_tickers(other.sim.world, tickers, began_ms) != []
    trades = await market.get_trade(PAIR[1], count=50)
    assert wrong_trades(side.sim.world, PAIR[1], trades, began_ms, 50) == []
    assert wrong_trades(other.sim.world, PAIR[1], trades, began_ms, 50) != []
    await market.get_candle(PAIR[0], "1m", count=300)
    async with market.stream_ticker(PAIR) as stream:
        seen = [await anext(stream) for _ in range(6)]
        tickers = [each for each in seen if not isinstance(each, Gap)]
    assert wrong_tickers(side.sim.world, tickers, began_ms) == []
    assert wrong_tickers(other.sim.world, tickers, began_ms) != []


@pytest.mark.slow
@pytest.mark.socket
async def test_each_has_the_whole_limit(tmp_path):
    """The exchange counts by its own address: what is asked of one costs the other nothing."""
    with trio.fail_after(HANG_S):
        async with both(tmp_path) as sides:
            for side, sent in zip(sides, [(LIMIT, 0), (LIMIT, LIMIT)], strict=True):
                async with trio.open_nursery() as nursery:
                    for count in range(1, LIMIT + 1):
                        nursery.start_soon(partial(side.market.get_trade, PAIR[0], count=count))
                # By its own account, too.
                assert tuple(each.market.status().budgets[Group.TRADE].sent for each in sides) == sent
            seen = [side.sim.exchange.statistics().groups["crix-trades"] for side in sides]
    assert [(group.accepted, group.refused) for group in seen] == [(LIMIT, 0)] * 2


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.parametrize("fault", [
    StatusFault(status=418, body='{"error":{"name":"x","message":"blocked for 60 seconds"}}'),
    DownFault(),
], ids=["a ban", "an outage"])  # fmt: skip
async def test_what_befalls_one_does_not_touch_the_other(tmp_path, fault):
    with trio.fail_after(HANG_S):
        async with both(tmp_path) as (struck, well):
            for side in (struck, well):
                await side.market.get_market()
            struck.sim.exchange.add_fault(fault)
            with pytest.raises(ExchangeError):
                await struck.market.get_ticker(PAIR[0], max_age_s=0)
            assert (struck.market.status().banned_for_s > 0) == isinstance(fault, StatusFault)
            for _ in range(3):
                assert (await well.market.get_ticker(PAIR[0], max_age_s=0)).market == PAIR[0]
            assert well.market.status().banned_for_s == 0


@pytest.mark.slow
@pytest.mark.socket
async def test_a_crash_of_one_does_not_touch_the_other(tmp_path, monkeypatch):
    async with AsyncExitStack() as stack:
        sims = [await stack.enter_async_context(open_simulator(seed=seed, markets=5)) for seed in (1, 2)]
        well = await stack.enter_async_context(open_pipeline(base_url=sims[1].base_url))
        original = UpbitRest.fetch

        async def fetch(rest: UpbitRest, request: Any) -> Any:
            if rest._base_url == sims[0].base_url:
                raise ZeroDivisionError("a bug")
            return await original(rest, request)

        monkeypatch.setattr(UpbitRest, "fetch", fetch)
        with pytest.raises(PipelineCrashed):
            async with open_pipeline(base_url=sims[0].base_url):
                await trio.sleep_forever()
        assert (await well.get_ticker(PAIR[0])).market == PAIR[0]


@pytest.mark.slow
@pytest.mark.socket
async def test_two_in_threads_do_not_touch_each_other_either(tmp_path):
    """Each in its own thread, asked by many; one is closed while the other goes on."""
    async with AsyncExitStack() as stack:
        sims = [await stack.enter_async_context(open_simulator(seed=seed, markets=10)) for seed in (1, 2)]
        began_ms = sims[0].exchange.clock.now_ms()
        closed = threading.Event()

        def ask() -> tuple[list[Any], list[Any]]:
            with (
                connect(base_url=sims[0].base_url, store=tmp_path / "1.db") as one,
                connect(base_url=sims[1].base_url, store=tmp_path / "2.db") as other,
                ThreadPoolExecutor(8) as pool,
            ):
                firsts = [pool.submit(one.get_ticker, PAIR, max_age_s=0) for _ in range(8)]
                seconds = [pool.submit(other.get_ticker, PAIR, max_age_s=0) for _ in range(8)]
                tickers = [[each for future in asked for each in future.result(HANG_S).values()]
                           for asked in (firsts, seconds)]  # fmt: skip
                one.close()
                closed.set()
                tickers[1] += other.get_ticker(PAIR, max_age_s=0).values()
                return tickers[0], tickers[1]

        with trio.fail_after(HANG_S):
            found = await trio.to_thread.run_sync(ask)
        for sim, other, tickers in ((sims[0], sims[1], found[0]), (sims[1], sims[0], found[1])):
            assert wrong_tickers(sim.world, tickers, began_ms) == []
            assert wrong_tickers(other.world, tickers, began_ms) != []


def test_each_region_has_its_own_file_by_default():
    paths = {Config(region=region).store_path for region in REGIONS}
    assert len(paths) == len(REGIONS) > 1
    assert all(f"upbit-{region}.db" in Config(region=region).store_path for region in REGIONS)


def test_a_file_of_one_region_is_refused_by_another(tmp_path):
    path = tmp_path / "bars.db"
    SqliteStore.open(path, source=Config(region="kr").rest_url).close()
    with pytest.raises(StoreError, match=r"holds the data of https://api\.upbit\.com"):
        SqliteStore.open(path, source=Config(region="sg").rest_url)
