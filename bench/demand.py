"""Demand that never stops: how much of the limit is used, and how soon it is used again after refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from bench.figures import Figure, Goal, Outcome, at_least, at_most
from bench.ground import Ground, open_ground
from bench.pages import Answers, Page, candle_pages, candles_at_once, three_groups
from bench.scale import Habit, Scale
from marketpipe import Client, open_pipeline

__all__ = ["habits", "recovery", "steady_rate", "utilisation"]

# Enough that somebody always waits, also while a round of answers is on its way.
WORKERS = 40
USE_GOAL = at_least(95)
REFUSED_SHARE = 0.05
# Answers over which the pace of a moment is taken: three rounds of ten.
PACE = 30
RECOVERED = 0.95


async def utilisation(scale: Scale) -> Outcome:
    """The share of the limit that is used while there is always somebody waiting."""
    async with open_ground(markets=scale.markets) as ground:
        return await _use(ground, scale.demand_s, "20 ms, rolling", USE_GOAL if scale.demand_s >= 5 else None)


async def habits(scale: Scale) -> Outcome:
    """Pages, groups and utilisation again with late answers and with the other ways to count a second."""
    return Outcome.joined([await _habit(scale, habit) for habit in scale.habits])


async def recovery(scale: Scale) -> Outcome:
    """5 % of the requests refused at random for some seconds: the pace before, meanwhile and after."""
    async with open_ground(markets=scale.markets) as ground:
        return Outcome.merged([await _storm(ground, *scale.storm_s) for _ in range(scale.storms)])


def steady_rate(answered_s: Sequence[float], limit: int) -> float:
    """Answers per second over whole rounds of ``limit``, the first of which is the free burst at the start."""
    rounds = (len(answered_s) - limit) // limit
    if rounds < 1:
        raise ValueError(f"{len(answered_s)} answers are fewer than two rounds of {limit}")
    first, last = limit - 1, limit - 1 + rounds * limit
    return rounds * limit / (answered_s[last] - answered_s[first])


async def _habit(scale: Scale, habit: Habit) -> Outcome:
    async with open_ground(markets=scale.markets, window=habit.window, jitter_s=habit.jitter_s) as ground:
        parts = [
            await candles_at_once(ground, scale.pages),
            await three_groups(ground, scale.calls),
            await _use(ground, scale.habit_demand_s, "", None if habit.jitter_s else USE_GOAL),
        ]
    joined = Outcome.joined(parts)
    named = [attrs.evolve(figure, what=f"{habit}: {figure.what}") for figure in joined.figures]
    return Outcome(named, [f"{habit}: {line}" for line in joined.broken])


async def _use(ground: Ground, demand_s: float, what: str, goal: Goal | None) -> Outcome:
    async with _demand(ground) as demand:
        await _wait_for_rounds(demand, demand_s)
    account = await ground.settle()
    rate = steady_rate(demand.answered_s, account.limit)
    label = f"{demand_s:g} s of continuous demand{f', {what}' if what else ''}"
    figures = [
        Figure(what=f"{label}, use of the limit", unit="%", samples=[100 * rate / account.limit], goal=goal),
        Figure(what=f"{label}, greatest count in a second", unit="requests", samples=[account.greatest],
               goal=at_most(account.limit)),
    ]  # fmt: skip
    return Outcome(figures, demand.wrong() + account.broken(label))


@asynccontextmanager
async def _demand(ground: Ground) -> AsyncIterator[Answers]:
    """Ask for page after page, all different, for the length of the block."""
    answers, source = Answers(ground), candle_pages(ground)
    async with open_pipeline(base_url=ground.base_url) as market:
        await market.get_market()
        await ground.settle()
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(_worker, market, source, answers)
            yield answers
            nursery.cancel_scope.cancel()


async def _wait_for_rounds(demand: Answers, at_least_s: float) -> None:
    # Two rounds are the least that has a pace; on a machine that is not stuck they take a second.
    await trio.sleep(at_least_s)
    while len(demand.answered_s) < 2 * demand.ground.simulator.config.limit:
        await demand.wait_answer()


async def _worker(market: Client, source: Iterator[Page], answers: Answers) -> None:
    while True:
        await answers.candles(market, next(source))


async def _storm(ground: Ground, calm_s: float, refusing_s: float, patience_s: float) -> Outcome:
    async with _demand(ground) as demand:
        await _wait_for_rounds(demand, calm_s)
        began_s = trio.current_time()
        before = steady_rate(demand.answered_s, ground.simulator.config.limit)
        await ground.strike({"kind": "status", "status": 429, "groups": ["candles"], "probability": REFUSED_SHARE,
                             "for_s": refusing_s})  # fmt: skip
        await trio.sleep(refusing_s)
        ended_s = trio.current_time()
        recovered_s = await _recovered(demand, ended_s, before, patience_s)
    account = await ground.settle()
    return Outcome(_storm_figures(demand, account.faults.get("status", 0), before, began_s, ended_s, recovered_s),
                   demand.wrong() + account.broken("recovery"))  # fmt: skip


async def _recovered(demand: Answers, since_s: float, before: float, patience_s: float) -> float:
    """When the pace is what it was; seconds after ``since_s``, or ``patience_s`` if it does not come so soon."""
    while trio.current_time() < since_s + patience_s:
        moment = next((at for at, rate in _paces(demand.answered_s, since_s) if rate >= RECOVERED * before), None)
        if moment is not None:
            return moment - since_s
        await demand.wait_answer()
    return patience_s


def _paces(answered_s: Sequence[float], since_s: float) -> Iterator[tuple[float, float]]:
    """At each answer after ``since_s``, the rate of the next `PACE` answers."""
    for index in range(len(answered_s) - PACE):
        if answered_s[index] >= since_s:
            yield answered_s[index], PACE / (answered_s[index + PACE] - answered_s[index])


def _storm_figures(
    demand: Answers, struck: int, before: float, began_s: float, ended_s: float, recovered_s: float
) -> list[Figure]:
    after = [at for at in demand.answered_s if at >= ended_s]
    meanwhile = [at for at in demand.answered_s if began_s <= at < ended_s]
    per_second = [sum(second <= at - ended_s < second + 1 for at in after) for second in range(int(recovered_s) + 1)]
    return [
        Figure(what="before the refusals", unit="answers/s", samples=[before]),
        Figure(what="refused at random", unit="requests", samples=[struck]),
        Figure(what="meanwhile", unit="answers/s", samples=[len(meanwhile) / (ended_s - began_s)],
               baseline="before", baseline_samples=[before]),
        Figure(what="after, until recovered, second by second", unit="answers/s", samples=per_second or [0],
               baseline="before", baseline_samples=[before]),
        Figure(what="until 95 % of before is reached again", unit="s", samples=[recovered_s]),
    ]  # fmt: skip
