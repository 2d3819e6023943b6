"""Many distinct symbols asked in one call, none of them in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from time import perf_counter, process_time

import attrs
import httpx
import trio

from bench.figures import Figure, Outcome, at_least, at_most
from bench.ground import Ground, open_ground
from bench.rivals import OURS, run_client
from bench.scale import Scale
from bench.timing import MICRO, MILLI, quiet
from bench.truth import wrong_tickers
from marketpipe import Client, open_pipeline
from marketpipe.core.requests import BATCH_LIMIT

__all__ = ["symbols"]

BY_HAND = "httpx and json, requests of 200 in parallel, warm"


@attrs.define
class _Taken:
    """Samples of one way to ask."""

    elapsed_s: list[float] = attrs.field(factory=list)
    cpu_s: list[float] = attrs.field(factory=list)
    requests: list[int] = attrs.field(factory=list)


async def symbols(scale: Scale) -> Outcome:
    """500 distinct symbols in one call, cold values: the first thing after opening, and over warm connections."""
    cold, warm, fresh, by_hand = _Taken(), _Taken(), _Taken(), _Taken()
    broken: list[str] = []
    async with open_ground(markets=scale.markets) as ground:
        names = ground.names()
        for _ in range(scale.repeats):
            async with open_pipeline(base_url=ground.base_url) as market:
                broken += await _ask(ground, market, names[: scale.distinct], cold, "cold")
                await market.get_market()
                await market.get_ticker(names[scale.distinct :])
                broken += (await ground.settle()).broken("warming up")
                broken += await _ask(ground, market, names[: scale.distinct], warm, "warm")
            broken += await _ask_by_hand(ground, names, scale.distinct, by_hand)
            broken += await _ask_in_fresh_process(ground, names[: scale.distinct], fresh)
    count = scale.distinct
    hand = [count / taken for taken in by_hand.elapsed_s]
    first = Figure(
        what=f"{count} symbols, the first question of a fresh process (which also collects its garbage)",
        unit="symbols/s",
        samples=[count / taken for taken in fresh.elapsed_s],
        baseline=BY_HAND,
        baseline_samples=hand,
    )
    return Outcome([*_figures("cold", count, cold, hand), *_figures("warm", count, warm, hand), first], broken)


def _figures(state: str, count: int, taken: _Taken, by_hand: Sequence[float]) -> list[Figure]:
    what = f"{count} symbols, {state}"
    return [
        Figure(
            what=what,
            unit="symbols/s",
            samples=[count / each for each in taken.elapsed_s],
            baseline=BY_HAND,
            baseline_samples=by_hand,
            goal=at_least(10_000),
        ),
        Figure(what=what, unit="ms", samples=[each * MILLI for each in taken.elapsed_s], goal=at_most(1_000)),
        Figure(what=f"{what}, CPU of this process", unit="us/symbol", samples=[c * MICRO / count for c in taken.cpu_s]),
        Figure(what=f"{what}, requests for tickers", unit="requests", samples=taken.requests),
    ]


async def _ask(ground: Ground, market: Client, names: list[str], taken: _Taken, state: str) -> list[str]:
    quiet()
    asked_ms, cpu_s, began_s = ground.clock.now_ms(), process_time(), perf_counter()
    batch = await market.get_ticker(names)
    taken.elapsed_s.append(perf_counter() - began_s)
    taken.cpu_s.append(process_time() - cpu_s)
    broken = [f"{state}: {name} failed: {error}" for name, error in batch.failed.items()]
    if list(batch) != names:
        broken.append(f"{state}: {len(batch)} of {len(names)} symbols came, or in another order")
    if batch.cache_hit_rate:
        broken.append(f"{state}: {batch.cache_hit_rate:.0%} came from memory, so this measures nothing")
    broken += wrong_tickers(ground.world, batch.values(), asked_ms)
    account = await ground.settle()
    taken.requests.append(account.requests("ticker"))
    return broken + account.broken(state)


async def _ask_by_hand(ground: Ground, names: list[str], count: int, taken: _Taken) -> list[str]:
    async with httpx.AsyncClient(base_url=ground.base_url, trust_env=False) as client:
        # As many connections as will be needed, each used once.
        await _fetch(client, names[-3:], 1)
        await ground.settle()
        quiet()
        began_s = perf_counter()
        rows = await _fetch(client, names[:count], BATCH_LIMIT)
        taken.elapsed_s.append(perf_counter() - began_s)
    await ground.settle()
    return [] if rows == count else [f"by hand: {rows} of {count} rows came"]


async def _ask_in_fresh_process(ground: Ground, names: list[str], taken: _Taken) -> list[str]:
    told = await run_client(OURS, "batch", ground.base_url, names)
    taken.elapsed_s.append(told["elapsed_s"])
    account = await ground.settle()
    missing = [] if len(told["prices"]) == len(names) else [f"a fresh process: {len(told['prices'])} prices came"]
    return missing + account.broken("a fresh process")


async def _fetch(client: httpx.AsyncClient, names: Sequence[str], chunk: int) -> int:
    rows: list[object] = []

    async def one(part: Sequence[str]) -> None:
        reply = await client.get("/v1/ticker", params={"markets": ",".join(part)})
        rows.extend(json.loads(reply.raise_for_status().content, parse_float=Decimal))

    async with trio.open_nursery() as nursery:
        for start in range(0, len(names), chunk):
            nursery.start_soon(one, names[start : start + chunk])
    return len(rows)
