"""What a run is like: its length, its markets, and everything that happens in it, drawn from a seed.

Every virtual second that the pipeline is awake costs real work, most of all its audits, of which there is one for each
line every ten seconds. So there are few markets, of which three are busy, and the machine sleeps for half of the day.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import attrs

from bench.soak.strikes import Strike, strikes
from marketpipe.sim import World, universe
from marketpipe.sim.tape import DUST, MID, THIN, Activity

__all__ = ["Absences", "Nap", "Plan", "Step", "absences", "clock_steps", "naps", "outages", "struck", "worlds"]

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
# 2026-12-25T00:00Z, a Friday: within thirty days end days, weeks, a month and a year.
START_MS = int(datetime(2026, 12, 25, tzinfo=UTC).timestamp() * 1000)
# Each day at this hour everything is calm for a while, and it is looked how much there is of what must not grow.
LOOK_HOUR, CALM_MS = 22, 20 * MINUTE_MS
# Nothing changes so shortly before the end, and everything must be whole then.
LAST_MS = 80 * MINUTE_MS
# What was traded so shortly before a delisting would still be on its way.
SETTLED_MS = 5_000
STEPS_MS = (-6 * HOUR_MS, -HOUR_MS, -MINUTE_MS, -2 * SECOND_MS, 0, 2 * SECOND_MS, MINUTE_MS, HOUR_MS, 6 * HOUR_MS)

Span = tuple[int, int]
Absences = Mapping[str, Sequence[Span]]


@attrs.frozen(kw_only=True)
class Plan:
    """One run of ``days`` days. ``markets``, of which the last ``unsteady`` ones are delisted and listed again.

    ``fault_every_s``: the least and the longest time from one fault to the next. ``lose_every``: a defect to be found:
    the consumer forgets one in so many trades. ``sleeps``: when the machine sleeps each day, and for how long, in
    hours, instead of what is drawn.
    """

    days: float
    seed: int = 7
    markets: int = 28
    unsteady: int = 20
    minutes: int = 9
    fault_every_s: tuple[float, float] = (150.0, 600.0)
    lose_every: int | None = None
    sleeps: tuple[tuple[float, float], ...] | None = None

    @property
    def end_ms(self) -> int:
        """When it is over."""
        return START_MS + round(self.days * DAY_MS)


@attrs.frozen
class Nap:
    """The machine sleeps from ``at_ms`` on for ``lasts_ms``. ``counted``: its monotonic clock goes on meanwhile."""

    at_ms: int
    lasts_ms: int
    counted: bool


@attrs.frozen
class Step:
    """At ``at_ms`` this machine's clock is set: it is off by ``off_ms`` from then on."""

    at_ms: int
    off_ms: int


def worlds(plan: Plan) -> tuple[World, Absences]:
    """The market, and when which of its markets are not listed."""
    with _calm_markets():
        steady = World(plan.seed, plan.markets)
        unlisted = absences(plan, steady)
        return World(plan.seed, plan.markets, absences=unlisted), unlisted


def absences(plan: Plan, steady: World) -> dict[str, list[Span]]:
    """When each unsteady market is not listed; all are at the beginning and at the end."""
    names = steady.markets[plan.markets - plan.unsteady :]
    return {name: spans for name in names if (spans := list(_absent(plan, steady, name)))}


def _absent(plan: Plan, steady: World, name: str) -> Iterator[Span]:
    # A longer run begins as a shorter one does.
    dice = random.Random(f"{plan.seed} {name} is away")
    at_ms = START_MS + round(dice.uniform(0.2, 20) * HOUR_MS)
    while True:
        while steady.trades(name, at_ms - SETTLED_MS, at_ms, at_ms):
            at_ms += SETTLED_MS
        # One in ten is back before anybody can be sure that it was away.
        hours = dice.uniform(0.005, 0.1) if dice.random() < 0.1 else dice.uniform(0.2, 14)
        end_ms = at_ms + round(hours * HOUR_MS)
        if end_ms > plan.end_ms - LAST_MS:
            return
        yield at_ms, end_ms
        at_ms = end_ms + round(dice.uniform(0.5, 30) * HOUR_MS)


def naps(plan: Plan) -> Iterator[Nap]:
    """When the machine sleeps: at night, twice in the daytime, and now and then over midnight."""
    dice = random.Random(f"{plan.seed} naps")
    for day in range(int(plan.days) + 1):
        drawn = [(dice.uniform(1, 2), dice.uniform(5, 8)), (dice.uniform(10.5, 11.5), dice.uniform(0.02, 4.5)),
                 (dice.uniform(16, 17), dice.uniform(2, 4.4))]  # fmt: skip
        if plan.sleeps is not None:
            drawn = list(plan.sleeps)
        elif day % 6 == 4:
            drawn.append((23.7, dice.uniform(0.4, 1.0)))
        for begin, hours in drawn:
            nap = Nap(START_MS + day * DAY_MS + round(begin * HOUR_MS), round(hours * HOUR_MS), dice.random() < 0.5)
            if nap.at_ms + nap.lasts_ms < plan.end_ms - LAST_MS:
                yield nap


def clock_steps(plan: Plan) -> Iterator[Step]:
    """When this machine's clock is set, and to what."""
    dice = random.Random(f"{plan.seed} steps")
    at_ms = START_MS
    while (at_ms := at_ms + round(dice.uniform(0.5, 5) * HOUR_MS)) < plan.end_ms - LAST_MS:
        yield Step(at_ms, dice.choice(STEPS_MS))


def struck(plan: Plan, names: Sequence[str]) -> Iterator[Strike]:
    """What the simulator does to us; ``at_s`` counts from the beginning."""
    last_s = (plan.end_ms - LAST_MS - START_MS) / 1000
    for strike in strikes(plan.seed, names, first_s=120, last_s=last_s, every_s=plan.fault_every_s):
        if not is_calm(START_MS + round(strike.at_s * 1000)):
            yield strike


def outages(plan: Plan) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """When the exchange is not to be reached at all, for minutes."""
    dice = random.Random(f"{plan.seed} outages")
    at_ms = START_MS
    while (at_ms := at_ms + round(dice.uniform(2, 14) * HOUR_MS)) < plan.end_ms - LAST_MS - HOUR_MS:
        if not is_calm(at_ms):
            for_s = round(dice.uniform(30, 1_500))
            yield at_ms, [{"kind": "ws-down", "for_s": for_s}, {"kind": dice.choice(("down", "dns")), "for_s": for_s}]


def is_calm(at_ms: int) -> bool:
    """Whether nothing may go wrong at ``at_ms``, since it will be looked soon; outages take half an hour to be over."""
    before_ms = LOOK_HOUR * HOUR_MS - at_ms % DAY_MS
    return -SECOND_MS <= before_ms < CALM_MS + 30 * MINUTE_MS


@contextmanager
def _calm_markets() -> Iterator[None]:
    before = universe._activity  # type: ignore[attr-defined]
    universe._activity = _activity  # type: ignore[attr-defined]
    try:
        yield
    finally:
        universe._activity = before  # type: ignore[attr-defined]


def _activity(quote: str, rank: int) -> Activity:
    if quote == "KRW":
        return MID if rank < 3 else THIN
    return THIN if rank % 2 else DUST
