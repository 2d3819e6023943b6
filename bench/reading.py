"""Many tasks that read one symbol over and over: what the exchange sees of it, and what a reader pays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter

import attrs
import trio

from bench.figures import Figure, Outcome, at_most, ratio_below
from bench.ground import open_ground
from bench.scale import Scale
from bench.timing import MICRO, quiet
from bench.truth import wrong_tickers
from marketpipe import Client, Ticker, open_pipeline

__all__ = ["reading"]

SYMBOL = "KRW-BTC"
SLICES = 5
# Of the time of a slice, how much the bare checkpoints take.
BARE_SHARE = 0.2


@attrs.define
class _Reading:
    """Every value that was read, once, and how often any was."""

    calls: int = 0
    seen: list[Ticker] = attrs.field(factory=list)
    last: Ticker | None = None


async def reading(scale: Scale) -> Outcome:
    """100 tasks reading one symbol for 10 s: requests upstream, answers per second, microseconds per hit."""
    read, slice_s = _Reading(), scale.reading_s / SLICES
    rates: list[float] = []
    bare: list[float] = []
    async with open_ground(markets=scale.markets) as ground, open_pipeline(base_url=ground.base_url) as market:
        await market.get_market()
        await ground.settle()
        quiet()
        asked_ms = ground.clock.now_ms()
        for _ in range(SLICES):
            bare.append(1 / await _rate(scale.readers, slice_s * BARE_SHARE, _checkpoint))
            calls = read.calls
            rates.append(await _rate(scale.readers, slice_s, _reader(market, read)))
            if read.calls == calls:
                raise RuntimeError("nobody has read anything")
        account = await ground.settle()
    upstream = account.requests("ticker") / scale.reading_s
    broken = account.broken("reading") + wrong_tickers(ground.world, read.seen, asked_ms)
    return Outcome(_figures(scale.readers, upstream, rates, bare), broken)


def _figures(readers: int, upstream: float, rates: list[float], bare: list[float]) -> list[Figure]:
    who = f"{readers} tasks reading {SYMBOL}"
    return [
        Figure(what=f"{who}, requests upstream", unit="requests/s", samples=[upstream], goal=at_most(5)),
        Figure(what=f"{who}, answers", unit="answers/s", samples=rates),
        Figure(what=f"{who}, each answer", unit="us", samples=[MICRO / rate for rate in rates],
               baseline=f"trio.lowlevel.checkpoint() in {readers} tasks",
               baseline_samples=[each * MICRO for each in bare], goal=ratio_below(4)),
    ]  # fmt: skip


async def _rate(tasks: int, for_s: float, once: Callable[[], Awaitable[object]]) -> float:
    """How often per second ``once`` ends while that many tasks repeat it."""
    done = 0
    began_s = perf_counter()
    ends_s = began_s + for_s

    async def repeat() -> None:
        nonlocal done
        while True:
            await once()
            done += 1
            if perf_counter() >= ends_s:
                return

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(repeat)
    return done / (perf_counter() - began_s)


async def _checkpoint() -> None:
    await trio.lowlevel.checkpoint()


def _reader(market: Client, read: _Reading) -> Callable[[], Awaitable[None]]:
    async def once() -> None:
        ticker = await market.get_ticker(SYMBOL)
        read.calls += 1
        if ticker is not read.last:
            read.last = ticker
            read.seen.append(ticker)

    return once
