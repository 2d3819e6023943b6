"""Third-party WebSocket clients as judges, unmodified but for the address, against a simulator in its own process.

They turn numbers into floats, so a number agrees if it is the float of the same decimal; ids and times agree exactly.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
import trio

from marketpipe.clock import SystemClock
from marketpipe.sim import SpawnedSimulator, World, spawn_simulator

pytestmark = [pytest.mark.socket, pytest.mark.slow, pytest.mark.long]

SAMPLE = ("KRW-BTC", "KRW-ETH", "KRW-XRP")
# How many trades of each market a judge wants to see, and how long it waits for that, or for anything: of a whole day
# (from every second of it) the longest wait was 55 s.
PATIENCE_S = 120.0
TRADES = 3


def e8(value: int) -> float:
    return float(Decimal(value).scaleb(-8))


def symbol(code: str) -> str:
    quote, base = code.split("-")
    return f"{base}/{quote}"


def true_ids(world: World, code: str, start_ms: int, end_ms: int) -> list[int]:
    return [deal.sequential_id for deal in world.trades(code, start_ms, end_ms, end_ms)]


# ccxt


async def judge_with_ccxt(sim: SpawnedSimulator, work: Callable[[Any], Awaitable[Any]]) -> Any:
    pro = pytest.importorskip("ccxt.pro")

    async def main() -> Any:
        client = pro.upbit({"hostname": sim.base_url.removeprefix("http://")})
        client.urls["api"]["public"] = client.urls["api"]["private"] = "http://{hostname}"
        client.urls["api"]["ws"] = "ws://{hostname}/websocket/v1"
        try:
            await client.load_markets()
            return await work(client)
        finally:
            await client.close()

    return await trio.to_thread.run_sync(asyncio.run, main())


def at_least(count: int) -> Callable[[list[Any]], bool]:
    return lambda seen: len(seen) >= count


async def watched(
    watch: Callable[[], Awaitable[Any]], pick: Callable[[Any], Any], is_enough: Callable[[list[Any]], bool]
) -> list[Any]:
    """What ``watch`` gives, over and over, until that is enough, or a judge has lost patience."""
    seen: list[Any] = []
    end_ms = SystemClock().now_ms() + PATIENCE_S * 1000
    while not is_enough(seen) and (left_s := (end_ms - SystemClock().now_ms()) / 1000) > 0:
        try:
            seen.append(pick(await asyncio.wait_for(watch(), left_s)))
        except TimeoutError:
            break
    return seen


async def test_ccxt_watches_trades_and_misses_none():
    """Whether something is missing shows only between two trades of one market that it has told.

    ccxt tells a trade that arrives in one breath with another no sooner than with that market's next trade, however
    long that takes: its future is settled while nobody awaits it, and the trade stays in its cache.
    """

    async def work(client: Any) -> list[Any]:
        symbols = [symbol(code) for code in SAMPLE]

        def pick(trades: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
            return [
                (t["symbol"], int(t["id"]), t["side"], t["price"], t["amount"], t["info"]["stream_type"])
                for t in trades
            ]

        def is_enough(pages: list[Any]) -> bool:
            told = [trade[0] for page in pages for trade in page]
            return all(told.count(name) > TRADES for name in symbols)

        seen = await watched(lambda: client.watch_trades_for_symbols(symbols), pick, is_enough)
        return [trade for page in seen for trade in page]

    async with spawn_simulator(markets=10) as sim:
        seen = await judge_with_ccxt(sim, work)
        assert sim.ws_url == f"ws{sim.base_url[4:]}/websocket/v1"
    for code in SAMPLE:
        told = [trade for trade in seen if trade[0] == symbol(code)]
        # The first frame shows the last trade before; what follows is complete, and may begin with that very trade,
        # or sooner, if it has happened since the request.
        assert len(told) > TRADES
        assert [trade[-1] for trade in told] == ["SNAPSHOT"] + ["REALTIME"] * (len(told) - 1)
        ids = [trade[1] for trade in told]
        assert ids[1:] == sorted(set(ids[1:]))
        run = sorted(set(ids))
        start_ms, end_ms = run[0] // 10_000, run[-1] // 10_000 + 1
        assert run == [each for each in true_ids(sim.world, code, start_ms, end_ms) if run[0] <= each <= run[-1]]
        deals = {
            (deal.sequential_id, "buy" if deal.buy else "sell", e8(deal.price), e8(deal.volume))
            for deal in sim.world.trades(code, start_ms, end_ms, end_ms)
        }
        assert {trade[1:-1] for trade in told} <= deals


async def test_ccxt_watches_tickers():
    names = ("last", "open", "high", "low", "previousClose", "baseVolume", "timestamp")

    async def work(client: Any) -> list[Any]:
        return await watched(
            lambda: client.watch_ticker("BTC/KRW"), lambda ticker: tuple(ticker[name] for name in names), at_least(4)
        )

    async with spawn_simulator(markets=10) as sim:
        seen = await judge_with_ccxt(sim, work)
    assert len(seen) == 4  # the snapshot, and changes
    for ticker in seen:
        true = sim.world.ticker("KRW-BTC", ticker[-1])
        prices = (true.last.price, true.opening, true.high, true.low, true.previous_close)
        assert ticker == (*map(e8, prices), e8(true.volume_24h), true.last.at_ms)


async def test_ccxt_watches_order_books():
    async def work(client: Any) -> list[Any]:
        def pick(book: dict[str, Any]) -> tuple[Any, ...]:
            return book["timestamp"], [list(level) for level in book["bids"]], [list(level) for level in book["asks"]]

        return await watched(lambda: client.watch_order_book("BTC/KRW"), pick, at_least(12))

    async with spawn_simulator(markets=10) as sim:
        seen = await judge_with_ccxt(sim, work)
    assert len(seen) == 12
    for at_ms, bids, asks in seen:
        true = sim.world.orderbook("KRW-BTC", at_ms)
        assert true.changed_ms == at_ms
        sides = [[[e8(price), e8(size)] for price, size in side if size] for side in (true.bids, true.asks)]
        # It keeps fifteen levels.
        assert [bids, asks] == [side[: len(bids)] for side in sides]
        assert len(bids) == len(asks) >= 15


# pyupbit, whose address is a literal, and whose processes and loops want a program of their own

PYUPBIT = """
import json, multiprocessing, sys
import pyupbit.websocket_api as api

URL, WAY, TYPE, COUNT = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
CODES = sys.argv[5:]


class Connect(api.websockets.connect):
    def __init__(self, uri, **options):
        super().__init__(URL, **options)


class Enough(Exception):
    pass


class Collected(list):
    def put(self, frame):
        self.append(frame)
        if len(self) == COUNT:
            raise Enough


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    api.websockets.connect = Connect
    if WAY == "manager":
        manager = api.WebSocketManager(TYPE, CODES)
        seen = [manager.get() for _ in range(COUNT)]
        manager.terminate()
    else:
        seen = Collected()
        try:
            api.WebSocketClient(TYPE, CODES, seen)
        except Enough:
            pass
    print(json.dumps(seen))
"""


async def judge_with_pyupbit(sim: SpawnedSimulator, way: str, stream: str, count: int) -> list[dict[str, Any]]:
    pytest.importorskip("pyupbit")
    command = [sys.executable, "-W", "ignore", "-c", PYUPBIT, sim.ws_url, way, stream, str(count), *SAMPLE]
    with trio.fail_after(60):
        done = await trio.run_process(
            command, capture_stdout=True, stderr=subprocess.STDOUT, env={**os.environ, "NO_PROXY": "*"}
        )
    return json.loads(done.stdout)


async def test_pyupbit_streams_trades_and_misses_none():
    """Both ways at once, since most of the time passes until so much was traded."""
    seen: dict[str, list[dict[str, Any]]] = {}

    async def judge(way: str) -> None:
        seen[way] = await judge_with_pyupbit(sim, way, "trade", 15)

    async with spawn_simulator(markets=10) as sim, trio.open_nursery() as nursery:
        for way in ("manager", "client"):
            nursery.start_soon(judge, way)
    assert len(seen) == 2
    for told in seen.values():
        is_what_was_traded(sim, told)


def is_what_was_traded(sim: SpawnedSimulator, seen: list[dict[str, Any]]) -> None:
    now_ms = SystemClock().now_ms()
    for code in SAMPLE:
        told = [frame for frame in seen if frame["code"] == code]
        if len(told) < 2:
            continue
        first_ms, last_ms = told[0]["trade_timestamp"], told[-1]["trade_timestamp"]
        ids = [frame["sequential_id"] for frame in told]
        true = true_ids(sim.world, code, first_ms, last_ms + 1)
        # The first that was told may be the second of its millisecond.
        assert ids == true[true.index(ids[0]) :][: len(ids)]
        deals = {deal.sequential_id: deal for deal in sim.world.trades(code, first_ms, last_ms + 1, now_ms)}
        for frame in told:
            deal = deals[frame["sequential_id"]]
            assert (frame["trade_price"], frame["trade_volume"]) == (e8(deal.price), e8(deal.volume))
            assert frame["stream_type"] == "REALTIME"


async def test_pyupbit_streams_tickers():
    async with spawn_simulator(markets=10) as sim:
        seen = await judge_with_pyupbit(sim, "manager", "ticker", 10)
    for frame in seen:
        true = sim.world.ticker(frame["code"], frame["trade_timestamp"])
        assert frame["trade_timestamp"] == true.last.at_ms
        assert frame["trade_price"] == e8(true.last.price)
        assert frame["acc_trade_volume"] == e8(true.volume)
        assert frame["signed_change_price"] == e8(true.change)


async def test_pyupbit_streams_order_books():
    async with spawn_simulator(markets=10) as sim:
        seen = await judge_with_pyupbit(sim, "client", "orderbook", 30)
    for frame in seen:
        true = sim.world.orderbook(frame["code"], frame["timestamp"])
        assert true.changed_ms == frame["timestamp"]
        assert [(unit["ask_price"], unit["ask_size"]) for unit in frame["orderbook_units"]] == [
            (e8(price), e8(size)) for price, size in true.asks
        ]
