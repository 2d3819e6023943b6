"""What the demo shows, one function a step. A further step is a further function in `STEPS`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import attrs
import trio

from marketpipe.cli import figures, truth
from marketpipe.client import Client
from marketpipe.clock import Clock
from marketpipe.core import timeframes
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Gap, Source, Ticker, Trade
from marketpipe.sim import World

__all__ = ["STEPS", "Shown", "Simulated", "Stage", "Step"]

DISTINCT = 500
CALLERS = 250
TRADES = 1_000
CANDLES = 1_000
PAGES = 30
BOOK = TRADED = "KRW-BTC"
COLLECTED = ("KRW-BTC", "KRW-ETH")
MINUTE_MS, DAY_MS = 60_000, 86_400_000
SAMPLES = ("KRW-BTC", "KRW-ETH", "BTC-ETH")
LISTENERS = 200
LISTENED = 20
# Live trades before the loss and after the repair, how long nobody can connect, and when to give up.
LISTEN_S = 1.0
AWAY_S = 2.0
PATIENCE_S = 20.0


class Simulated(Protocol):
    """The simulator's own side."""

    async def statistics(self) -> Mapping[str, Any]:
        """What it has seen so far: ``/sim/stats``."""
        ...

    async def strike(self, fault: Mapping[str, Any]) -> None:
        """Let something go wrong: ``/sim/faults``."""
        ...


@attrs.frozen
class Stage:
    """What a step works with: the pipe, the truth, which markets there are, and whoever plays the exchange."""

    market: Client
    world: World
    clock: Clock
    names: Sequence[str]
    simulator: Simulated


@attrs.frozen(kw_only=True)
class Shown:
    """What came of a step. ``count`` of ``unit`` in ``elapsed_s``; ``wrong``: what differs from the truth.

    ``subscribes``: the subscribe messages it took, of a step that listens.
    """

    asked: str
    came: Sequence[str]
    count: int
    unit: str
    elapsed_s: float
    wrong: Sequence[str]
    subscribes: int | None = None


Step = Callable[[Stage], Awaitable[Shown]]


async def the_market_list(stage: Stage) -> Shown:
    """Every market there is."""
    began_s = trio.current_time()
    listed = await stage.market.get_market()
    elapsed_s = trio.current_time() - began_s
    quotes: dict[str, int] = {}
    for market in listed.values():
        quotes[market.quote] = quotes.get(market.quote, 0) + 1
    return Shown(
        asked="what is listed: get_market()",
        came=["   ".join(f"{count} in {quote}" for quote, count in quotes.items())],
        count=len(listed),
        unit="markets",
        elapsed_s=elapsed_s,
        wrong=truth.wrong_markets(stage.world, listed.values(), stage.clock.now_ms()),
    )


async def distinct_symbols(stage: Stage) -> Shown:
    """Many symbols in one call, none of them in memory."""
    names, asked_ms = stage.names[:DISTINCT], stage.clock.now_ms()
    batch = await stage.market.get_ticker(names)
    return Shown(
        asked=f"{len(names)} distinct symbols, none in memory: get_ticker([...])",
        came=_prices(batch.values()),
        count=len(batch),
        unit="symbols",
        elapsed_s=batch.elapsed_s,
        wrong=[*_failures(batch.failed), *truth.wrong_tickers(stage.world, batch.values(), asked_ms)],
    )


async def independent_callers(stage: Stage) -> Shown:
    """Callers who know nothing of each other, one symbol each, all at once, and none content with a value in memory."""
    names, asked_ms, began_s = stage.names[:CALLERS], stage.clock.now_ms(), trio.current_time()
    tickers: list[Ticker] = []

    async def caller(name: str) -> None:
        tickers.append(await stage.market.get_ticker(name, max_age_s=0))

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(caller, name, name=f"caller of {name}")
    elapsed_s = trio.current_time() - began_s
    return Shown(
        asked=f"{len(names)} independent callers, one symbol each, fresh: get_ticker(symbol, max_age_s=0)",
        came=_prices(tickers),
        count=len(tickers),
        unit="symbols",
        elapsed_s=elapsed_s,
        wrong=truth.wrong_tickers(stage.world, tickers, asked_ms),
    )


async def an_order_book(stage: Stage) -> Shown:
    """The whole book of one market."""
    began_s = trio.current_time()
    book = await stage.market.get_orderbook(BOOK)
    elapsed_s = trio.current_time() - began_s
    best = [
        f"{figures.exact(level.size)} at {figures.exact(level.price)}" for level in (*book.bids[:1], *book.asks[:1])
    ]
    return Shown(
        asked=f'the order book: get_orderbook("{BOOK}")',
        came=["best bid {}   best ask {}".format(*best), f"{len(book.bids)} bids and {len(book.asks)} asks"],
        count=1,
        unit="order book",
        elapsed_s=elapsed_s,
        wrong=truth.wrong_book(stage.world, book),
    )


async def the_newest_trades(stage: Stage) -> Shown:
    """More trades than one page of the exchange holds."""
    began_s = trio.current_time()
    trades = await stage.market.get_trade(TRADED, count=TRADES)
    elapsed_s = trio.current_time() - began_s
    newest = [
        f"{figures.utc(trade.trade_ms, digits='milliseconds')} {trade.side} {figures.exact(trade.volume)}"
        f" at {figures.exact(trade.price)}"
        for trade in trades[:2]
    ]
    return Shown(
        asked=f'the newest {TRADES:,} trades: get_trade("{TRADED}", count={TRADES})',
        came=newest,
        count=len(trades),
        unit="trades",
        elapsed_s=elapsed_s,
        wrong=truth.wrong_trades(stage.world, trades, stage.clock.now_ms()),
    )


async def many_candles(stage: Stage) -> Shown:
    """More candles than one page of the exchange holds."""
    began_s = trio.current_time()
    series = await stage.market.get_candle(TRADED, "1m", count=CANDLES)
    elapsed_s = trio.current_time() - began_s
    last = series[-1]
    ohlc = "  ".join(f"{figures.exact(price)}" for price in (last.open, last.high, last.low, last.close))
    return Shown(
        asked=f'{CANDLES:,} one-minute candles: get_candle("{TRADED}", "1m", count={CANDLES})',
        came=[f"{figures.utc(series[0].open_ms)} to {figures.utc(last.open_ms)} UTC, the last one {ohlc}"],
        count=len(series),
        unit="candles",
        elapsed_s=elapsed_s,
        wrong=truth.wrong_candles(stage.world, series, stage.clock.now_ms()),
    )


async def more_pages_than_a_second_allows(stage: Stage) -> Shown:
    """So many requests that the limit is what decides how long it takes."""
    names = [name for name in stage.names if name.startswith("KRW-")][:PAGES]
    batch = await stage.market.get_candle(names, "1m", count=200)
    wrong = [
        line for series in batch.values() for line in truth.wrong_candles(stage.world, series, stage.clock.now_ms())
    ]
    return Shown(
        asked=f'200 candles each of {len(names)} markets, a request each unless in memory: get_candle([...], "1m")',
        came=[", ".join(f"{len(series)} {name}" for name, series in list(batch.items())[:4]) + ", ..."],
        count=sum(map(len, batch.values())),
        unit="candles",
        elapsed_s=batch.elapsed_s,
        wrong=[*_failures(batch.failed), *wrong],
    )


async def a_day_collected(stage: Stage) -> Shown:
    """A day of two markets into the database, and then once more, which has nothing left to ask for."""
    end_ms = timeframes.floor(Timeframe.M1, stage.clock.now_ms() - MINUTE_MS)
    start_ms = end_ms - DAY_MS
    began_s = trio.current_time()
    first = await (await stage.market.start_backfill(COLLECTED, "1m", start=start_ms, end=end_ms)).wait()
    elapsed_s = trio.current_time() - began_s
    again = await (await stage.market.start_backfill(COLLECTED, "1m", start=start_ms, end=end_ms)).wait()
    wrong = [f"{part.market}: {part.error or 'something is missing'}" for part in first.failed]
    if again.pages:
        wrong.append(f"{again.pages} pages were asked for twice")
    bars = empty = 0
    for name in COLLECTED:
        summary = await stage.market.collection_summary(name, "1m", start=start_ms, end=end_ms)
        bars, empty = bars + summary.collected, empty + summary.empty
        async for series in stage.market.iterate_candle(name, "1m", start=start_ms, end=end_ms, stored_only=True):
            wrong += truth.wrong_candles(stage.world, series, stage.clock.now_ms())
    return Shown(
        asked=f'a day of {len(COLLECTED)} markets into the database: start_backfill([...], "1m", start=..., end=...)',
        came=[
            f"{bars + empty:,} slots known: {bars:,} bars, {empty:,} proven to be without a trade",
            f"the same job once more: {again.pages} requests",
        ],
        count=bars,
        unit="bars",
        elapsed_s=elapsed_s,
        wrong=wrong,
    )


async def independent_listeners(stage: Stage) -> Shown:
    """Listeners who know nothing of each other, one symbol each, all at once."""
    names, asked_ms, before = stage.names[:LISTENERS], stage.clock.now_ms(), await _subscribes(stage)
    firsts: dict[str, Ticker] = {}
    everybody = trio.Event()

    async def listener(name: str) -> None:
        async with stage.market.stream_ticker(name) as tickers:
            async for ticker in tickers:
                if isinstance(ticker, Ticker):
                    firsts[name] = ticker
                    break
            if len(firsts) == len(names):
                everybody.set()
            await everybody.wait()

    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(listener, name, name=f"listener to {name}")
        with trio.move_on_after(PATIENCE_S):
            await everybody.wait()
        elapsed_s, subscribes = trio.current_time() - began_s, await _subscribes(stage) - before
        nursery.cancel_scope.cancel(reason="everybody has heard something")
    return Shown(
        asked=f"{len(names)} independent listeners, one symbol each: stream_ticker(symbol), until each has a value",
        came=_prices(firsts.values()),
        count=len(firsts),
        unit="first values",
        elapsed_s=elapsed_s,
        wrong=[*_failures(set(names) - set(firsts)), *truth.wrong_tickers(stage.world, firsts.values(), asked_ms)],
        subscribes=subscribes,
    )


async def a_lost_connection(stage: Stage) -> Shown:
    """Live trades while the connection is dropped, and cannot be made again for a while."""
    names, before, heard = _busiest(stage), await _subscribes(stage), _Heard()
    began_s = trio.current_time()
    async with stage.market.stream_trade(names) as stream, trio.open_nursery() as nursery:

        async def listen() -> None:
            async for event in stream:
                heard.take(event)

        nursery.start_soon(listen, name="listener")
        await trio.sleep(LISTEN_S)
        await stage.simulator.strike({"kind": "ws-down", "for_s": AWAY_S})
        with trio.move_on_after(PATIENCE_S):
            await heard.mended.wait()
            await trio.sleep(LISTEN_S)
        nursery.cancel_scope.cancel(reason="enough was heard")
    elapsed_s = trio.current_time() - began_s
    missed = sum(trade.source is Source.REST for trade in heard.trades)
    return Shown(
        asked=f"live trades of the {len(names)} busiest markets, while the connection is lost: stream_trade([...])",
        came=[heard.told(), f"{missed} missed trades fetched, and put where they belong"],
        count=len(heard.trades),
        unit="trades",
        elapsed_s=elapsed_s,
        wrong=[*heard.unmended(), *truth.wrong_streams(stage.world, heard.trades, stage.clock.now_ms())],
        subscribes=await _subscribes(stage) - before,
    )


@attrs.define(eq=False)
class _Heard:
    """Trades in the order in which they came, and by market the gap between them."""

    trades: list[Trade] = attrs.field(factory=list)
    mended: trio.Event = attrs.field(factory=trio.Event)
    _gaps: dict[str, Gap] = attrs.field(factory=dict)

    def take(self, event: Trade | Gap) -> None:
        if isinstance(event, Trade):
            self.trades.append(event)
            return
        self._gaps[event.market] = event
        if all(gap.repaired for gap in self._gaps.values()):
            self.mended.set()

    def told(self) -> str:
        causes = {gap.cause: None for gap in self._gaps.values()}
        longest_s = max((gap.end_ms - gap.start_ms for gap in self._gaps.values()), default=0) / 1000
        return f"a gap of up to {longest_s:.1f} s told in {len(self._gaps)} markets: {', '.join(causes)}"

    def unmended(self) -> list[str]:
        if not self._gaps:
            return ["no gap was told"]
        return [f"{name}: not mended, {gap.proof}" for name, gap in self._gaps.items() if not gap.repaired]


STEPS: tuple[Step, ...] = (
    the_market_list,
    distinct_symbols,
    independent_callers,
    an_order_book,
    the_newest_trades,
    many_candles,
    more_pages_than_a_second_allows,
    a_day_collected,
    independent_listeners,
    a_lost_connection,
)


def _busiest(stage: Stage) -> list[str]:
    # Not asked of the pipe: what is read often gets a live stream by itself, and that would be counted here.
    names, now_ms = (name for name in stage.names if name.startswith("KRW-")), stage.clock.now_ms()
    return sorted(names, key=lambda name: stage.world.ticker(name, now_ms).turnover_24h, reverse=True)[:LISTENED]


async def _subscribes(stage: Stage) -> int:
    """Subscribe messages that the exchange has received so far."""
    return int((await stage.simulator.statistics())["streams"]["subscribes"])


def _prices(tickers: Iterable[Ticker]) -> list[str]:
    by_market = {ticker.market: ticker for ticker in tickers}
    shown = [by_market[name] for name in SAMPLES if name in by_market]
    return ["   ".join(f"{ticker.market} {figures.exact(ticker.price)}" for ticker in shown)]


def _failures(failed: Iterable[str]) -> list[str]:
    return [f"{symbol}: not answered" for symbol in failed]
