"""What the pipe says about itself is true: queues and their peaks, streams, consumers, memory, and at whose cost."""

from __future__ import annotations

import subprocess
import sys

import attrs
import psutil
import pytest
import trio
from rig import EPOCH_MS, open_rig

import marketpipe as mp
from marketpipe.config import Buffers
from marketpipe.core.requests import Group
from marketpipe.core.topics import Line
from marketpipe.sim import StatusFault, open_simulator, spawn_simulator
from marketpipe.status import CandleAnswers, ConsumersStatus, QueueStatus

STREAMS = {"ticker": mp.Ticker, "trade": mp.Trade, "orderbook": mp.Orderbook}
SYMBOLS = ["KRW-BTC", "KRW-ETH"]


async def test_what_waits_for_a_slot_is_counted_where_it_waits(autojump_clock):
    """Forty pages at once: ten go, thirty wait, and the peak is remembered when nobody waits any more."""
    async with open_rig() as rig:
        names = list(await rig.market.get_market())[:30]
        await trio.sleep(2)

        async def ask(name: str) -> None:
            await rig.market.get_trade(name, count=1)

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(ask, name)
            await trio.sleep(0.01)
            assert rig.market.status().queues["questions trade"] == QueueStatus(20, 20)
        queues = rig.market.status().queues
        assert queues["questions trade"] == QueueStatus(0, 20)
        assert queues["questions ticker"] == QueueStatus(0, 0)  # what goes at once has not waited


async def test_what_is_held_until_the_list_is_read_again_waits_too(autojump_clock):
    async with open_rig() as rig:
        await rig.market.get_market()
        await trio.sleep(3_600)
        with trio.move_on_after(0.01):
            await rig.market.get_ticker("KRW-NOSUCH")
        status = rig.market.status()
        assert status.queues["questions ticker"] == QueueStatus(1, 1)
        assert status.waiting["ticker"] == 1


async def test_a_pipe_tells_of_the_queues_it_has(autojump_clock):
    groups = {f"questions {group}" for group in ("market", "ticker", "orderbook", "trade", "candle")}
    async with open_rig() as rig:
        status = rig.market.status()
        assert {*groups, "answers"} >= status.queues.keys() >= {"questions ticker", "answers"}
        assert (status.streams, status.lag, status.consumers) == ({}, None, ConsumersStatus())
    async with open_rig(mp.Config(buffers=Buffers(frames=77)), streams=True, store=":memory:") as rig:
        status = rig.market.status()
        assert {f"frames {line}" for line in Line} | {"bars", "rows"} <= status.queues.keys()
        assert {status.queues[f"frames {line}"].capacity for line in Line} == {77}
        assert status.queues["rows"].capacity == mp.Config().collecting.kept_rows
        assert {each.depth for each in status.queues.values()} == {0}


async def test_bars_on_their_way_to_the_database_are_a_queue_with_a_peak(autojump_clock):
    async with open_rig(store=":memory:") as rig:
        await rig.market.get_candle("KRW-BTC", "1m", end=EPOCH_MS - 86_400_000, count=150)
        kept = rig.market.status().queues["rows"]
        assert kept.depth == kept.peak >= 150
        await trio.sleep(5)
        assert attrs.evolve(kept, depth=0) == rig.market.status().queues["rows"]


async def test_values_and_consumers_are_counted_by_line(autojump_clock):
    async with open_rig(streams=True) as rig, trio.open_nursery() as nursery:
        heard = dict.fromkeys(STREAMS, 0)

        async def listen(kind: str, *, task_status: trio.TaskStatus[None]) -> None:
            async with getattr(rig.market, f"stream_{kind}")(SYMBOLS, policy="cut-off", depth=10_000) as stream:
                task_status.started()
                async for value in stream:
                    heard[kind] += isinstance(value, STREAMS[kind])

        for kind in STREAMS:
            await nursery.start(listen, kind)
        await trio.sleep(30)
        await trio.testing.wait_all_tasks_blocked()
        status = rig.market.status()
        assert {kind: status.streams[Line(kind)].values for kind in STREAMS} == heard
        assert min(heard.values()) > 0
        assert status.consumers.subscribers == 3
        assert status.consumers.received == status.consumers.delivered == sum(heard.values())
        # No virtual time passes while a frame is decoded.
        assert {each.p99_s for each in status.streams.values()} == {0.0}
        nursery.cancel_scope.cancel()


async def test_the_fullest_buffer_is_that_of_the_slowest_consumer(autojump_clock):
    async with open_rig(streams=True) as rig:
        async with (
            rig.market.stream_orderbook(SYMBOLS, policy="drop-oldest", depth=4) as small,
            rig.market.stream_orderbook(SYMBOLS, policy="drop-oldest", depth=9) as large,
        ):
            await trio.sleep(60)
            consumers = rig.market.status().consumers
            queued = [stream.statistics().queued for stream in (small, large)]
            assert consumers.fullest == max(queued) >= 9
            assert consumers.queued == sum(queued)
        assert rig.market.status().consumers.fullest == 0


async def test_answers_with_candles_are_counted_by_where_they_came_from(autojump_clock):
    past = {"end": EPOCH_MS - 86_400_000, "count": 150}
    async with open_rig(store=":memory:", streams=True) as rig:
        await rig.market.get_candle(SYMBOLS, "1m", **past)
        assert rig.market.status().candles == CandleAnswers(exchange=2)
        await trio.sleep(5)
        for _ in range(3):
            await rig.market.get_candle("KRW-BTC", "1m", **past)
        assert rig.market.status().candles == CandleAnswers(store=3, exchange=2)
        async with rig.market.stream_candle("KRW-BTC", "1m", history=5):
            await trio.sleep(120)
            await rig.market.get_candle("KRW-BTC", "1m", count=2)
        told = rig.market.status().candles
        assert told == CandleAnswers(memory=1, store=3, exchange=2)
        assert told.hit_rate == 4 / 6
        with pytest.raises(mp.UnknownMarket):
            await rig.market.get_candle("KRW-NOSUCH", "1m", **past)
        assert rig.market.status().candles == told
    async with open_rig() as rig:  # without a database, pages are kept
        for _ in range(2):
            await rig.market.get_candle("KRW-BTC", "1m", **past)
        assert rig.market.status().candles == CandleAnswers(memory=1, exchange=1)
        assert CandleAnswers().hit_rate == 0.0


async def test_reading_a_stream_twice_is_no_reconnect(autojump_clock):
    async with open_rig(streams=True) as rig:
        for _ in range(2):
            async with rig.market.stream_ticker("KRW-BTC") as tickers:
                await anext(tickers)
            await trio.sleep(5)
        connection = rig.market.status().connections[Line.TICKER]
        assert (connection.connects, connection.losses) == (2, 0)
        assert rig.market.status().reconnects == 0


@pytest.mark.slow
@pytest.mark.socket
async def test_requests_are_those_of_this_pipeline_and_the_limit_is_that_of_all():
    """Two pipelines to one exchange share its limit; who sent what, and who was refused, is told of each alone."""
    async with (
        open_simulator(markets=5) as sim,
        mp.open_pipeline(base_url=sim.base_url) as one,
        mp.open_pipeline(base_url=sim.base_url) as other,
    ):
        for market in (one, other):
            await market.get_market()
        sim.exchange.add_fault(StatusFault(status=429, groups=("crix-trades",), count=1))
        await other.get_trade("KRW-BTC", count=1)
        for count in (2, 3, 4):
            await one.get_trade("KRW-BTC", count=count)
        ours, theirs = (market.status().budgets[Group.TRADE] for market in (one, other))
        assert (ours.sent, ours.refused) == (3, 0)
        assert (theirs.sent, theirs.refused) == (2, 1)
        assert ours.ceiling == theirs.ceiling < ours.limit


async def test_memory_and_time_are_those_of_the_process(autojump_clock):
    async with open_rig() as rig:
        await trio.sleep(5)
        status = rig.market.status()
        assert status.at_ms == rig.clock.now_ms() == EPOCH_MS + 5_000
        assert status.memory_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)


@pytest.mark.socket
async def test_an_open_pipeline_measures_how_late_its_loop_is():
    with trio.fail_after(30):
        async with spawn_simulator(markets=10) as simulator, mp.open_pipeline(base_url=simulator.base_url) as market:
            while market.status().lag.max_s == 0.0:  # noqa: ASYNC110  the clock says nothing when it is late
                await trio.sleep(0.1)
            lag = market.status().lag
            assert 0 <= lag.p50_s <= lag.p99_s * 1.02
            assert lag.p99_s <= lag.max_s * 1.02


@pytest.mark.slow
def test_importing_the_package_does_not_import_what_only_a_look_needs():
    words = "import sys, marketpipe; print({'psutil', 'prometheus_client', 'rich'} & sys.modules.keys() or 'none')"
    told = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "none"
