"""What it costs to be watched: a look at everything the pipe knows of itself, and one every second during a flood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from time import process_time
from typing import Any

import trio

from bench.figures import Figure, Goal, Outcome, at_most, ratio_below
from bench.flooding import Slice
from bench.listener import OURS, WATCHED
from bench.scale import Scale
from bench.stages import open_virtual_stage
from bench.streams import flooded_ground, one
from bench.timing import MICRO, Spin, quiet, seconds_per_call
from marketpipe import Client
from marketpipe.actors.hub import Subscription
from marketpipe.metrics.exposition import exposition

__all__ = ["status", "watched"]

# What a look may cost.
GOAL_US = 1_000
STREAMS = ("stream_ticker", "stream_trade", "stream_orderbook")
# Verbs are called so often before anybody looks, each by itself.
CALLS = 2_000
SHOWN_S = 60.0
LOOKS = 20
# A bar that is kept in memory once it was asked for: nothing is asked of the exchange for the sake of a look.
LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)
NOBODY = "the same, and nobody looks"


async def status(scale: Scale) -> Outcome:
    """One look at the whole pipe, with three streams of every symbol and many calls behind it."""
    async with open_virtual_stage(markets=scale.markets) as stage, AsyncExitStack() as stack:
        market = stage.market
        names = list(await market.get_market())
        streams = [await stack.enter_async_context(getattr(market, verb)(names)) for verb in STREAMS]
        for stream in streams:
            await _all_shown(stream)
        all_new = _seconds(market.status)
        await _call_verbs(market, names)
        quiet()
        moved = [await _moved(market, names) for _ in range(scale.turns)]
        calm, text = seconds_per_call(
            scale.turns, LOOKS, _looks(market.status), _looks(lambda: exposition(market.status()))
        )
        topics = len(market.status().subscriptions)
    what = f"status(), {topics:,} topics"

    def figure(words: str, taken: Sequence[float], goal: Goal | None) -> Figure:
        return Figure(what=words, unit="us", samples=[each * MICRO for each in taken], goal=goal)

    return Outcome(
        [
            figure(f"{what}, all of them new since the last", [all_new], None),
            figure(f"{what}, while they and the verbs move", moved, at_most(GOAL_US)),
            figure(f"{what}, again at once", calm, at_most(GOAL_US)),
            figure(f"{what}, and the text for Prometheus", text, None),
        ]
    )


def _seconds(look: Callable[[], object]) -> float:
    began_s = process_time()
    look()
    return process_time() - began_s


async def _moved(market: Client, names: Sequence[str]) -> float:
    """What a look costs after other tasks have run, and every verb was called."""
    taken_s = 0.0
    for name in names[:LOOKS]:
        await _call_each_verb(market, name, names[0])
        await trio.lowlevel.checkpoint()
        taken_s += _seconds(market.status)
    return taken_s / len(names[:LOOKS])


def _looks(look: Callable[[], object]) -> Spin:
    def spin(loops: int) -> None:
        for _ in range(loops):
            look()

    return spin


async def _all_shown(stream: Subscription[Any]) -> None:
    missing = set(stream.markets)
    with trio.fail_after(SHOWN_S):
        while missing:
            missing.discard((await anext(stream)).market)


async def _call_verbs(market: Client, names: Sequence[str]) -> None:
    for number in range(CALLS):
        name = names[number % len(names)]
        await market.get_ticker(name)
        await market.get_orderbook(name)
    await _call_each_verb(market, names, names[0])


async def _call_each_verb(market: Client, names: str | Sequence[str], some: str) -> None:
    await market.get_ticker(names)
    await market.get_orderbook(names)
    await market.get_trade(some, count=1)
    await market.get_candle(some, "1m", end=LONG_AGO, count=1)
    await market.get_market(some)


async def watched(scale: Scale) -> Outcome:
    """5,000 messages a second: what a message costs while a metrics port is read every second, and while not."""
    size = scale.streams
    slices: dict[str, list[Slice]] = {OURS: [], WATCHED: []}
    async with flooded_ground(size) as (ground, wanted):
        for number in range(size.slices):
            for side in (OURS, WATCHED) if number % 2 else (WATCHED, OURS):
                slices[side].append(await one(ground, side, wanted, size.rate, size.slice_s))
    what = f"{size.rate:,.0f}/s, read every second"
    figures = [
        Figure(what=f"{what}: CPU of each message", unit="us", samples=[each.cpu_us for each in slices[WATCHED]],
               baseline=NOBODY, baseline_samples=[each.cpu_us for each in slices[OURS]], goal=ratio_below(1.05)),
        Figure(what=f"{what}: sent to received, 99 of 100", unit="ms",
               samples=[each.p99_ms for each in slices[WATCHED]],
               baseline=NOBODY, baseline_samples=[each.p99_ms for each in slices[OURS]]),
    ]  # fmt: skip
    return Outcome(figures, [line for side, taken in slices.items() for each in taken for line in each.broken(side)])
