"""Third-party clients as judges: what they make of the simulator is what the simulator's market really is.

ccxt and pyupbit run unmodified but for the address, against a simulator in its own process. They turn numbers into
floats, so a number agrees if it is the float of the same decimal; ids and times agree exactly. The market moves while
they ask: an answer agrees if it is that of one moment between question and answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
import trio

from marketpipe.clock import SystemClock
from marketpipe.core.timeframes import Timeframe, floor, shift
from marketpipe.sim import SpawnedSimulator, World, spawn_simulator
from marketpipe.sim.lexemes import rounded8

pytestmark = [pytest.mark.socket, pytest.mark.slow, pytest.mark.long]

DAY_MS = 86_400_000
# A busy, a middling and a thin market, and one whose book is padded with zeros.
SAMPLE = ("KRW-BTC", "KRW-XRP", "BTC-ETH", "USDT-BTC")


def e8(value: int) -> float:
    return float(Decimal(value).scaleb(-8))


def symbol(code: str) -> str:
    quote, base = code.split("-")
    return f"{base}/{quote}"


class Timed:
    """A client's answer, and the moments between which the simulator gave it."""

    def __init__(self, before_ms: int, after_ms: int, value: Any) -> None:
        self.before_ms = before_ms
        self.after_ms = after_ms
        self.value = value

    def agrees_with(self, truth: Callable[[int], Any]) -> bool:
        return any(truth(now_ms) == self.value for now_ms in range(self.before_ms, self.after_ms + 1))


def today_trades(world: World, code: str, count: int, now_ms: int) -> list[Any]:
    return world.trades(code, now_ms - now_ms % DAY_MS, now_ms + 1, now_ms)[-count:]


# ccxt


async def judge_with_ccxt(sim: SpawnedSimulator, work: Callable[[Any], Awaitable[Any]]) -> Any:
    ccxt = pytest.importorskip("ccxt.async_support")

    async def main() -> Any:
        client = ccxt.upbit({"hostname": sim.base_url.removeprefix("http://")})
        client.urls["api"]["public"] = client.urls["api"]["private"] = "http://{hostname}"
        try:
            return await work(client)
        finally:
            await client.close()

    return await trio.to_thread.run_sync(asyncio.run, main())


async def timed(answer: Awaitable[Any], pick: Callable[[Any], Any]) -> Timed:
    clock = SystemClock()
    before_ms = clock.now_ms()
    value = await answer
    return Timed(before_ms, clock.now_ms(), pick(value))


def ccxt_ticker(ticker: dict[str, Any]) -> tuple[Any, ...]:
    names = ("last", "open", "high", "low", "previousClose", "baseVolume", "quoteVolume", "timestamp")
    return (ticker["info"]["market"], ticker["symbol"], *(ticker[name] for name in names))


def true_ticker(world: World, code: str, now_ms: int) -> tuple[Any, ...]:
    summary = world.ticker(code, now_ms)
    prices = (summary.last.price, summary.opening, summary.high, summary.low, summary.previous_close)
    turnover = float(rounded8(summary.turnover_24h))
    return (code, symbol(code), *map(e8, prices), e8(summary.volume_24h), turnover, summary.last.at_ms)


async def test_ccxt_sees_every_market_and_every_ticker():
    async def work(client: Any) -> tuple[Any, Timed, Timed]:
        markets = await client.load_markets()
        one = await timed(client.fetch_ticker("BTC/KRW"), ccxt_ticker)
        many = await timed(client.fetch_tickers(), lambda tickers: set(map(ccxt_ticker, tickers.values())))
        return markets, one, many

    async with spawn_simulator(markets=300) as sim:
        markets, one, many = await judge_with_ccxt(sim, work)
    world = sim.world
    assert len(markets) == 300
    assert {(m["id"], m["quote"], m["base"]) for m in markets.values()} == {
        (code, *code.split("-")) for code in world.markets
    }
    assert one.agrees_with(partial(true_ticker, world, "KRW-BTC"))
    assert many.agrees_with(lambda now_ms: {true_ticker(world, code, now_ms) for code in world.markets})


async def test_ccxt_sees_chosen_tickers_across_the_length_of_a_url():
    codes = World(markets=855).markets

    async def work(client: Any) -> Timed:
        await client.load_markets()
        tickers = client.fetch_tickers([symbol(code) for code in codes])
        return await timed(tickers, lambda tickers: {ccxt_ticker(ticker)[0] for ticker in tickers.values()})

    async with spawn_simulator(markets=855) as sim:
        chosen = await judge_with_ccxt(sim, work)
    assert chosen.value == set(codes)


def ccxt_book(book: dict[str, Any]) -> tuple[Any, ...]:
    sides = ([(price, size) for price, size in book[side] if size] for side in ("bids", "asks"))
    return (book["symbol"], book["timestamp"], *sides)


def true_book(world: World, code: str, now_ms: int) -> tuple[Any, ...]:
    book = world.orderbook(code, now_ms)
    sides = ([(e8(price), e8(size)) for price, size in side if size] for side in (book.bids, book.asks))
    return (symbol(code), book.changed_ms, *sides)


async def test_ccxt_sees_order_books():
    async def work(client: Any) -> list[Timed]:
        return [await timed(client.fetch_order_book(symbol(code)), ccxt_book) for code in SAMPLE]

    async with spawn_simulator(markets=10) as sim:
        books = await judge_with_ccxt(sim, work)
    world = sim.world
    for code, seen in zip(SAMPLE, books, strict=True):
        assert all(seen.value)
        assert seen.agrees_with(partial(true_book, world, code)), code


def ccxt_trades(trades: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(trade["id"], trade["timestamp"], trade["side"], trade["price"], trade["amount"]) for trade in trades]


def true_trades(world: World, code: str, count: int, now_ms: int) -> list[tuple[Any, ...]]:
    return [
        (str(deal.sequential_id), deal.at_ms, "buy" if deal.buy else "sell", e8(deal.price), e8(deal.volume))
        for deal in today_trades(world, code, count, now_ms)
    ]


async def test_ccxt_sees_trades():
    async def work(client: Any) -> list[Timed]:
        return [await timed(client.fetch_trades(symbol(code), limit=200), ccxt_trades) for code in SAMPLE]

    async with spawn_simulator(markets=10) as sim:
        trades = await judge_with_ccxt(sim, work)
    world = sim.world
    assert any(seen.value for seen in trades)
    for code, seen in zip(SAMPLE, trades, strict=True):
        assert seen.agrees_with(partial(true_trades, world, code, 200)), code


TIMEFRAMES = (Timeframe.S1, Timeframe.M1, Timeframe.M15, Timeframe.H4, Timeframe.D1, Timeframe.W1)
PAGES = 3


async def test_ccxt_pages_through_candles_of_every_kind():
    now_ms = SystemClock().now_ms()
    starts = {timeframe: shift(timeframe, floor(timeframe, now_ms), -60 * PAGES) for timeframe in TIMEFRAMES}
    series = [(code, timeframe) for code in ("KRW-BTC", "BTC-ETH") for timeframe in TIMEFRAMES]

    async def fetch(client: Any, code: str, timeframe: Timeframe) -> list[list[Any]]:
        pages = [shift(timeframe, starts[timeframe], 60 * page) for page in range(PAGES)]
        fetched = [await client.fetch_ohlcv(symbol(code), timeframe, since, 60) for since in pages]
        return [bar for page in fetched for bar in page]

    async def work(client: Any) -> list[list[list[Any]]]:
        return [await fetch(client, code, timeframe) for code, timeframe in series]

    async with spawn_simulator(markets=10) as sim:
        seen = await judge_with_ccxt(sim, work)
    world = sim.world
    for (code, timeframe), bars in zip(series, seen, strict=True):
        start_ms, end_ms = starts[timeframe], shift(timeframe, starts[timeframe], 60 * PAGES)
        true = world.candles(code, timeframe, start_ms, end_ms, SystemClock().now_ms())
        assert true or timeframe is Timeframe.S1
        assert bars == [
            [bar.open_ms, *map(e8, (bar.opening, bar.high, bar.low, bar.close, bar.volume))] for bar in true
        ], (code, timeframe)


async def test_ccxt_understands_a_refusal():
    ccxt = pytest.importorskip("ccxt")

    async def work(client: Any) -> set[str]:
        await client.load_markets()
        client.enableRateLimit = False
        tickers = [client.fetch_ticker("BTC/KRW") for _ in range(40)]
        answers = await asyncio.gather(*tickers, return_exceptions=True)
        return {type(answer).__name__ for answer in answers}

    async with spawn_simulator(markets=3) as sim:
        seen = await judge_with_ccxt(sim, work)
    assert seen == {"dict", ccxt.RateLimitExceeded.__name__}


# pyupbit


@pytest.fixture
def pyupbit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """pyupbit, whose addresses are literals: its one funnel is pointed at ``pyupbit.base_url``."""
    module = pytest.importorskip("pyupbit")
    call_get = module.request_api._call_get

    def call_simulator(url: str, **options: Any) -> Any:
        return call_get(url.replace("https://api.upbit.com", module.base_url), **options)

    monkeypatch.setattr(module.request_api, "_call_get", call_simulator)
    monkeypatch.setattr(module, "base_url", None, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return module


async def judge_with_pyupbit(pyupbit: Any, sim: SpawnedSimulator, work: Callable[[], Any]) -> Timed:
    pyupbit.base_url = sim.base_url
    clock = SystemClock()
    before_ms = clock.now_ms()
    value = await trio.to_thread.run_sync(work)
    return Timed(before_ms, clock.now_ms(), value)


async def test_pyupbit_sees_every_market_and_its_prices(pyupbit):
    async with spawn_simulator(markets=120) as sim:
        markets = await judge_with_pyupbit(pyupbit, sim, pyupbit.get_tickers)
        one = await judge_with_pyupbit(pyupbit, sim, partial(pyupbit.get_current_price, "KRW-BTC"))
        many = await judge_with_pyupbit(pyupbit, sim, partial(pyupbit.get_current_price, list(sim.world.markets)))
    world = sim.world

    def price(code: str, now_ms: int) -> float:
        return e8(world.ticker(code, now_ms).last.price)

    assert sorted(markets.value) == sorted(world.markets)
    assert one.agrees_with(partial(price, "KRW-BTC"))
    assert many.agrees_with(lambda now_ms: {code: price(code, now_ms) for code in world.markets})


async def test_pyupbit_sees_order_books(pyupbit):
    async with spawn_simulator(markets=10) as sim:
        books = [await judge_with_pyupbit(pyupbit, sim, partial(pyupbit.get_orderbook, code)) for code in SAMPLE]
    world = sim.world

    def units(code: str, now_ms: int) -> list[tuple[float, ...]]:
        book = world.orderbook(code, now_ms)
        return [(*map(e8, bid), *map(e8, ask)) for bid, ask in zip(book.bids, book.asks, strict=True)]

    names = ("bid_price", "bid_size", "ask_price", "ask_size")
    for code, seen in zip(SAMPLE, books, strict=True):
        seen.value = [tuple(unit[name] for name in names) for unit in seen.value["orderbook_units"]]
        assert len(seen.value) == 30
        assert seen.agrees_with(partial(units, code)), code


async def test_pyupbit_sees_trades(pyupbit):
    ask = partial(pyupbit.request_api._call_public_api, "https://api.upbit.com/v1/trades/ticks", count=500)
    async with spawn_simulator(markets=10) as sim:
        trades = [await judge_with_pyupbit(pyupbit, sim, partial(ask, market=code)) for code in SAMPLE]
    world = sim.world
    names = ("sequential_id", "timestamp", "trade_price", "trade_volume")

    def true(code: str, now_ms: int) -> list[tuple[Any, ...]]:
        deals = reversed(today_trades(world, code, 500, now_ms))
        return [(deal.sequential_id, deal.at_ms, e8(deal.price), e8(deal.volume)) for deal in deals]

    for code, seen in zip(SAMPLE, trades, strict=True):
        rows, remaining = seen.value
        assert (remaining["group"], remaining["min"]) == ("crix-trades", 600)
        seen.value = [tuple(row[name] for name in names) for row in rows]
        assert seen.agrees_with(partial(true, code)), code


INTERVALS = {"minute1": Timeframe.M1, "minute60": Timeframe.H1, "day": Timeframe.D1, "week": Timeframe.W1}


async def test_pyupbit_pages_through_candles(pyupbit):
    to_ms = floor(Timeframe.W1, SystemClock().now_ms())  # no bar that opens before it is still running
    to = f"{datetime.fromtimestamp(to_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
    series = [(code, interval) for code in ("KRW-BTC", "BTC-ETH") for interval in INTERVALS]
    async with spawn_simulator(markets=10, limit=1000) as sim:
        frames = [
            (await judge_with_pyupbit(pyupbit, sim, partial(pyupbit.get_ohlcv, *one, count=450, to=to, period=0))).value
            for one in series
        ]
    world = sim.world
    for (code, interval), frame in zip(series, frames, strict=True):
        bars = world.newest_candles(code, INTERVALS[interval], to_ms, 450, SystemClock().now_ms())[::-1]
        assert len(bars) > 200
        seoul = timedelta(hours=9)
        opened = [(datetime.fromtimestamp(bar.open_ms / 1000, UTC) + seoul).replace(tzinfo=None) for bar in bars]
        assert list(frame.index.to_pydatetime()) == opened
        columns = [frame[name].tolist() for name in ("open", "high", "low", "close", "volume", "value")]
        assert list(zip(*columns, strict=True)) == [
            (*map(e8, (bar.opening, bar.high, bar.low, bar.close, bar.volume)), float(rounded8(bar.turnover)))
            for bar in bars
        ], (code, interval)
