"""Callers without Trio: many threads that block, and an asyncio program, over one pipeline in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter

import trio

from bench.figures import Figure, Outcome
from bench.ground import Ground, open_ground
from bench.scale import Scale
from bench.timing import MILLI, quiet
from bench.truth import wrong_tickers
from marketpipe import BlockingClient, Ticker, connect, open_pipeline

__all__ = ["threads"]

BASELINE = "one Trio task after the other, in one thread"


async def threads(scale: Scale) -> Outcome:
    """32 threads x 1,000 blocking ``get_ticker`` over 200 symbols; 500 answers that asyncio awaits at once."""
    async with open_ground(markets=scale.markets) as ground:
        names = ground.names()[: scale.thread_symbols]
        asked_ms = ground.clock.now_ms()
        base_rate = await _in_trio(ground, names, min(scale.thread_calls, 100))  # each waits for the limit
        await ground.settle()
        market = await trio.to_thread.run_sync(partial(connect, base_url=ground.base_url))
        try:
            await trio.to_thread.run_sync(market.get_market)
            await ground.settle()
            tickers, elapsed_s = await trio.to_thread.run_sync(_ask_from_threads, market, names, scale)
            account = await ground.settle()
            awaited, awaited_s = await trio.to_thread.run_sync(_await_at_once, market, names, scale.awaits)
            at_once = await ground.settle()
        finally:
            market.close()
    calls = scale.threads * scale.thread_calls
    what = f"{scale.threads} threads x {scale.thread_calls:,} calls over {len(names)} symbols"
    broken = account.broken(what) + at_once.broken("asyncio")
    # Most of them are the same object out of memory.
    broken += wrong_tickers(ground.world, {id(ticker): ticker for ticker in (*tickers, *awaited)}.values(), asked_ms)
    if len(tickers) != calls:
        broken.append(f"{what}: {len(tickers):,} answers")
    return Outcome([
        Figure(what=what, unit="calls/s", samples=[calls / elapsed_s], baseline=BASELINE, baseline_samples=[base_rate]),
        Figure(what=f"{what}: upstream", unit="requests", samples=[account.requests("ticker")]),
        Figure(what=f"asyncio, {scale.awaits} awaits at once", unit="ms", samples=[awaited_s * MILLI]),
        Figure(what=f"asyncio, {scale.awaits} awaits at once: upstream", unit="requests",
               samples=[at_once.requests("ticker")]),
    ], broken)  # fmt: skip


async def _in_trio(ground: Ground, names: Sequence[str], calls: int) -> float:
    async with open_pipeline(base_url=ground.base_url) as market:
        await market.get_market()
        quiet()
        began_s = perf_counter()
        for number in range(calls):
            await market.get_ticker(names[number % len(names)])
        return calls / (perf_counter() - began_s)


def _ask_from_threads(market: BlockingClient, names: Sequence[str], scale: Scale) -> tuple[list[Ticker], float]:
    def ask(thread: int) -> list[Ticker]:
        # Each begins at another symbol.
        shift = thread * len(names) // scale.threads
        return [market.get_ticker(names[(shift + number) % len(names)]) for number in range(scale.thread_calls)]

    quiet()
    with ThreadPoolExecutor(scale.threads) as pool:
        began_s = perf_counter()
        answers = list(pool.map(ask, range(scale.threads)))
        elapsed_s = perf_counter() - began_s
    return [ticker for of_thread in answers for ticker in of_thread], elapsed_s


def _await_at_once(market: BlockingClient, names: Sequence[str], awaits: int) -> tuple[list[Ticker], float]:
    async def main() -> tuple[list[Ticker], float]:
        began_s = perf_counter()
        futures = [market.submit.get_ticker(names[number % len(names)], max_age_s=0.05) for number in range(awaits)]
        tickers = await asyncio.gather(*map(asyncio.wrap_future, futures))
        return list(tickers), perf_counter() - began_s

    return asyncio.run(main())
