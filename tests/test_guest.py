"""The pipe inside a program whose event loop is another one: Trio as its guest."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import outcome
import pytest
import trio

from bench.leftovers import short_idling, take_inventory
from marketpipe import Gap, open_pipeline
from marketpipe.sim import open_simulator

HANG_S = 20.0
NAMES = ["KRW-BTC", "KRW-ETH", "KRW-XRP"]


@pytest.fixture
def base_url() -> Iterator[str]:
    """A simulator in a thread of its own: it must not share the loop that is looked at."""
    told: queue.Queue[Any] = queue.Queue()
    end = trio.Event()

    async def serve() -> None:
        async with open_simulator(markets=20) as sim:
            told.put((sim.base_url, trio.lowlevel.current_trio_token()))
            await end.wait()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    url, token = told.get(timeout=HANG_S)
    yield url
    token.run_sync_soon(end.set)
    thread.join()


async def use(base_url: str, path: Any) -> list[str]:
    """Every sort of verb, a stream, a collection, and out; what is left of it, in words."""
    before = take_inventory()
    with trio.fail_after(HANG_S):
        async with open_pipeline(base_url=base_url, store=path) as market:
            assert (await market.get_ticker("KRW-BTC")).market == "KRW-BTC"
            assert list(await market.get_orderbook(NAMES)) == NAMES
            bars = await market.get_candle("KRW-BTC", "1m", count=300, closed_only=True)
            assert len(bars) == 300
            job = await market.start_backfill("KRW-ETH", start=bars[0].open_ms, end=bars[-1].open_ms)
            assert (await job.wait()).parts[0].is_whole
            async with market.stream_trade(NAMES) as trades:
                event = await anext(trades)
                assert isinstance(event, Gap) or event.market in NAMES
    return before.since()


@pytest.mark.slow
@pytest.mark.socket
def test_asyncio_is_the_host_and_goes_on(base_url, tmp_path):
    async def host() -> Any:
        loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.ensure_future(tick())
        trio.lowlevel.start_guest_run(
            use,
            base_url,
            tmp_path / "bars.db",
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        ended = await done
        meanwhile = ticks
        await asyncio.sleep(0.01)
        assert ticks > meanwhile > 10  # it went on, beside it and after it
        ticking.cancel()
        return ended.unwrap()

    with short_idling():
        assert asyncio.run(host()) == []


@pytest.mark.slow
@pytest.mark.socket
def test_any_loop_that_takes_calls_is_host_enough_in_any_thread(base_url, tmp_path):
    calls: queue.Queue[Callable[[], object]] = queue.Queue()
    ended: list[outcome.Outcome[list[str]]] = []
    others: list[int] = []

    def host() -> None:
        trio.lowlevel.start_guest_run(
            use,
            base_url,
            tmp_path / "bars.db",
            run_sync_soon_threadsafe=calls.put,
            done_callback=ended.append,
        )
        while not ended:
            calls.get(timeout=HANG_S)()
        calls.put(lambda: others.append(1))
        calls.get_nowait()()

    with short_idling():
        thread = threading.Thread(target=host)
        thread.start()
        thread.join(HANG_S)
    assert not thread.is_alive()
    assert ended[0].unwrap() == []
    assert others == [1]


@pytest.mark.slow
@pytest.mark.socket
def test_the_block_s_exception_comes_out_bare_there_too(base_url):
    class Mine(Exception):
        pass

    async def fail() -> None:
        async with open_pipeline(base_url=base_url) as market:
            await market.get_ticker("KRW-BTC")
            raise Mine

    async def host() -> Any:
        done = asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            fail,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        return await done

    ended = asyncio.run(host())
    assert isinstance(ended, outcome.Error)
    assert isinstance(ended.error, Mine)
