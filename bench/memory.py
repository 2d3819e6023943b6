"""The pipe by itself: a whole pipeline over an exchange that answers at once, from memory, with values ready made."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from bench.figures import Figure, Goal, Outcome, at_most, ratio_below
from bench.scale import Scale
from bench.timing import MICRO, AsyncSpin, quiet, seconds_per_call_async
from marketpipe import CacheOptions, Client, Config, Freshness, Limits, Market, Ticker, run_pipeline
from marketpipe.clock import SystemClock
from marketpipe.core.requests import (
    BATCH_LIMIT,
    MarketsRequest,
    QuoteTickersRequest,
    Reply,
    Request,
    TickersRequest,
)
from marketpipe.sim import World
from marketpipe.sim.quotation import answer
from marketpipe.upbit import wire

__all__ = ["ReadyExchange", "hit", "memory", "ready_exchange"]

SYMBOL = "KRW-BTC"
UNLIMITED = 100_000
CHECKPOINT = "trio.lowlevel.checkpoint()"


@attrs.define(eq=False)
class ReadyExchange:
    """Answers market lists and tickers at once. What it costs is the pipe's, and next to nothing of its own."""

    markets: tuple[Market, ...]
    tickers: dict[str, Ticker]
    requests: int = 0

    async def fetch(self, request: Request) -> Reply:
        """The values asked for, after one turn of the scheduler."""
        await trio.lowlevel.checkpoint()
        self.requests += 1
        return Reply(self._rows(request), {}, 0)

    def _rows(self, request: Request) -> tuple[Market, ...] | tuple[Ticker, ...]:
        match request:
            case MarketsRequest():
                return self.markets
            case TickersRequest(markets):
                return tuple(self.tickers[market] for market in markets)
            case QuoteTickersRequest(quotes):
                return tuple(row for name, row in self.tickers.items() if name.partition("-")[0] in quotes)
        raise RuntimeError(f"a bench asked for {request}, which it does not have")


def ready_exchange(count: int) -> ReadyExchange:
    """An exchange that lists ``count`` markets."""
    now_ms = SystemClock().now_ms()
    world = World(markets=count)
    names = tuple(world.listed(now_ms))
    listing = answer(world, "/v1/market/all", [("is_details", "true")], now_ms).body
    tickers = answer(world, "/v1/ticker", [("markets", ",".join(names))], now_ms).body
    markets, _ = wire.decode(MarketsRequest(), listing, received_ms=now_ms, exchange_ms=now_ms)
    rows, _ = wire.decode(TickersRequest(names), tickers, received_ms=now_ms, exchange_ms=now_ms)
    return ReadyExchange(markets, {row.market: row for row in rows})


async def hit(scale: Scale) -> Outcome:
    """A value in memory: awaited, and at once, beside a bare checkpoint of Trio."""
    lasting = CacheOptions(freshness=Freshness(ticker_s=300.0))
    async with run_pipeline(Config(cache=lasting), ready_exchange(scale.markets), clock=SystemClock()) as market:
        await market.get_ticker(SYMBOL)
        quiet()
        awaited, at_once, bare = await seconds_per_call_async(
            scale.turns, scale.loops, _awaiting(market), _at_once(market), _checkpoints
        )
    checkpoints = [taken * MICRO for taken in bare]
    return Outcome(
        [
            _beside("await market.get_ticker(), a hit", awaited, checkpoints, ratio_below(4)),
            _beside("market.get_ticker_nowait()", at_once, checkpoints, at_most(3)),
        ]
    )


async def memory(scale: Scale) -> Outcome:
    """Many symbols through the whole pipe with no exchange to wait for: as one batch, and as independent callers."""
    exchange = ready_exchange(scale.markets)
    names = list(exchange.tickers)[: scale.distinct]
    broken: list[str] = []
    config = Config(limits=Limits(per_second=UNLIMITED))  # no limit is under test here, and none may slow it down
    async with run_pipeline(config, exchange, clock=SystemClock()) as market:
        await market.get_market()
        quiet()
        asked = exchange.requests
        batch, callers, bare = await seconds_per_call_async(
            scale.turns,
            1,
            _batches(market, names, exchange, broken),
            _callers(market, names, exchange, broken),
            _requests(exchange, names),
        )
        if exchange.requests == asked:
            broken.append("memory: nothing was asked of the exchange")
    direct = [taken * MICRO / len(names) for taken in bare]
    return Outcome(
        [
            _per_symbol(f"get_ticker([{len(names)} symbols])", batch, len(names), direct),
            _per_symbol(f"{len(names)} callers of get_ticker(symbol)", callers, len(names), direct),
        ],
        broken,
    )


def _beside(what: str, taken: Sequence[float], checkpoints: Sequence[float], goal: Goal) -> Figure:
    return Figure(
        what=what,
        unit="us",
        samples=[each * MICRO for each in taken],
        baseline=CHECKPOINT,
        baseline_samples=checkpoints,
        goal=goal,
    )


def _per_symbol(what: str, taken: Sequence[float], count: int, direct: Sequence[float]) -> Figure:
    return Figure(
        what=what,
        unit="us/symbol",
        samples=[each * MICRO / count for each in taken],
        baseline="the exchange in memory asked directly",
        baseline_samples=direct,
    )


def _awaiting(market: Client) -> AsyncSpin:
    async def spin(loops: int) -> None:
        for _ in range(loops):
            await market.get_ticker(SYMBOL)

    return spin


def _at_once(market: Client) -> AsyncSpin:
    async def spin(loops: int) -> None:
        for _ in range(loops):
            market.get_ticker_nowait(SYMBOL)

    return spin


async def _checkpoints(loops: int) -> None:
    for _ in range(loops):
        await trio.lowlevel.checkpoint()


def _batches(market: Client, names: list[str], exchange: ReadyExchange, broken: list[str]) -> AsyncSpin:
    async def spin(loops: int) -> None:
        batch = await market.get_ticker(names, max_age_s=0)
        if dict(batch) != {name: exchange.tickers[name] for name in names}:
            broken.append("memory: a batch differs from what the exchange answered")

    return spin


def _callers(market: Client, names: list[str], exchange: ReadyExchange, broken: list[str]) -> AsyncSpin:
    async def caller(name: str) -> None:
        if await market.get_ticker(name, max_age_s=0) is not exchange.tickers[name]:
            broken.append(f"memory: {name} differs from what the exchange answered")

    async def spin(loops: int) -> None:
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(caller, name)

    return spin


def _requests(exchange: ReadyExchange, names: list[str]) -> AsyncSpin:
    async def spin(loops: int) -> None:
        for start in range(0, len(names), BATCH_LIMIT):
            await exchange.fetch(TickersRequest(tuple(names[start : start + BATCH_LIMIT])))

    return spin
