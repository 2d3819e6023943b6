"""Independent callers of one symbol each, all at the same instant, who know nothing of each other."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import attrs
import trio

from bench.figures import Figure, Goal, Outcome, at_least
from bench.ground import Ground, open_ground
from bench.scale import Scale
from bench.timing import MILLI, quiet
from bench.truth import wrong_tickers
from marketpipe import Client, MarketPipeError, Ticker, UnknownMarket, open_pipeline

__all__ = ["callers"]

# One caller in a hundred asks for what is not listed.
UNKNOWN_EACH = 100
GOALS: dict[int, Goal] = {250: at_least(5_000)}


@attrs.define
class _Crowd:
    """What became of everybody who asked at once."""

    answers: dict[str, Ticker | MarketPipeError] = attrs.field(factory=dict)
    waited_s: list[float] = attrs.field(factory=list)
    elapsed_s: float = 0.0


@attrs.define
class _Samples:
    rates: list[float] = attrs.field(factory=list)
    median_ms: list[float] = attrs.field(factory=list)
    requests: list[int] = attrs.field(factory=list)
    batch_rates: list[float] = attrs.field(factory=list)


async def callers(scale: Scale) -> Outcome:
    """1, 250, 1,000 and 5,000 callers of one symbol each at the same instant, cold values; with 1 % unknown symbols."""
    # A market of the usual size where it is large enough: the list of all markets, too, is read while callers wait.
    usual = [size for size in scale.crowds if size <= scale.markets]
    large = [size for size in scale.crowds if size > scale.markets]
    parts = [
        await _crowds(sizes, markets, scale.repeats)
        for sizes, markets in ((usual, scale.markets), (large, scale.crowd_markets))
        if sizes
    ]
    return Outcome.joined(parts)


async def _crowds(sizes: Sequence[int], markets: int, repeats: int) -> Outcome:
    async with open_ground(markets=markets) as ground:
        parts = [
            await _outcome(ground, size, repeats, unknown=unknown)
            for size in sizes
            for unknown in dict.fromkeys((0, _share(size)))
        ]
    return Outcome.joined(parts)


def _share(size: int) -> int:
    return max(1, size // UNKNOWN_EACH) if size > 1 else 0


async def _outcome(ground: Ground, size: int, repeats: int, *, unknown: int) -> Outcome:
    cold, warm = _Samples(), _Samples()
    broken: list[str] = []
    listed = ground.names()
    names = _mixed(listed[: size - unknown], unknown)
    for _ in range(repeats):
        async with open_pipeline(base_url=ground.base_url) as market:
            broken += await _measure(ground, market, names, cold)
            await _warm_up(market, listed)
            await ground.settle()
            broken += await _measure(ground, market, names, warm)
            broken += await _measure_batch(ground, market, names, warm)
    cold.batch_rates = warm.batch_rates
    what = f"{size:,} {'callers' if size > 1 else 'caller'}{f', {unknown} of an unknown symbol' if unknown else ''}"
    goal = None if unknown else GOALS.get(size)
    return Outcome([*_figures(f"{what}, cold", cold, goal), *_figures(f"{what}, warm", warm, goal)], broken)


def _mixed(listed: Sequence[str], unknown: int) -> list[str]:
    # Spread among the others, so that they spoil as many batches as they can.
    names = list(listed)
    for number in range(unknown):
        names.insert(number * len(listed) // unknown, _unknown(number))
    return names


def _unknown(number: int) -> str:
    return f"KRW-UNLISTED{number}"


async def _warm_up(market: Client, listed: Sequence[str]) -> None:
    # The market list is known, and as many connections are open as a large question can use.
    await market.get_market()
    async with trio.open_nursery() as nursery:
        for name in listed[:8]:
            nursery.start_soon(market.get_candle, name)


async def _measure(ground: Ground, market: Client, names: Sequence[str], samples: _Samples) -> list[str]:
    quiet()
    asked_ms = ground.clock.now_ms()
    crowd = await _at_once(market, names)
    account = await ground.settle()
    ordered = sorted(crowd.waited_s)
    samples.rates.append(len(names) / crowd.elapsed_s)
    samples.median_ms.append(ordered[len(ordered) // 2] * MILLI)
    samples.requests.append(account.requests("ticker"))
    during = f"{len(names)} callers"
    return _judged(ground, crowd, names, asked_ms) + account.broken(during)


async def _at_once(market: Client, names: Sequence[str]) -> _Crowd:
    crowd = _Crowd()

    async def caller(name: str) -> None:
        began_s = perf_counter()
        try:
            crowd.answers[name] = await market.get_ticker(name)
        except MarketPipeError as error:
            crowd.answers[name] = error
        crowd.waited_s.append(perf_counter() - began_s)

    began_s = perf_counter()
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(caller, name)
    crowd.elapsed_s = perf_counter() - began_s
    return crowd


def _judged(ground: Ground, crowd: _Crowd, names: Sequence[str], asked_ms: int) -> list[str]:
    broken: list[str] = []
    tickers: list[Ticker] = []
    for name in names:
        answer = crowd.answers[name]
        expected = Ticker if ground.world.is_listed(name, asked_ms) else UnknownMarket
        if not isinstance(answer, expected) or getattr(answer, "market", None) != name:
            broken.append(f"{name}: expected {expected.__name__}, got {answer!r}")
        elif isinstance(answer, Ticker):
            tickers.append(answer)
    return broken + wrong_tickers(ground.world, tickers, asked_ms)


async def _measure_batch(ground: Ground, market: Client, names: Sequence[str], samples: _Samples) -> list[str]:
    quiet()
    asked_ms = ground.clock.now_ms()
    batch = await market.get_ticker(names)
    samples.batch_rates.append(len(names) / batch.elapsed_s)
    broken = wrong_tickers(ground.world, batch.values(), asked_ms)
    return broken + (await ground.settle()).broken(f"a batch of {len(names)}")


def _figures(what: str, samples: _Samples, goal: Goal | None) -> list[Figure]:
    return [
        Figure(
            what=what,
            unit="symbols/s",
            samples=samples.rates,
            baseline="the same symbols in one call, warm",
            baseline_samples=samples.batch_rates,
            goal=goal,
        ),
        Figure(what=f"{what}: median caller", unit="ms", samples=samples.median_ms),
        Figure(what=f"{what}: requests", unit="requests", samples=samples.requests),
    ]
