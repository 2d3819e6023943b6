"""Leaving a busy pipeline at random instants: how long it takes, and that nothing of it stays behind.

Once while the exchange answers, and once while it does not. It has fallen silent then, its answers hang and its streams
stand still; or it never said a word: connections to it are made, and nothing follows, or not even the TLS handshake.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from bench.busy import FORMS, Form, Instant, Left, deaf, leave
from bench.collecting import folder
from bench.collector import UNLIMITED
from bench.figures import Figure, Outcome, at_most
from bench.ground import LATENCY_S, Ground, open_ground
from bench.leftovers import short_idling
from bench.scale import Scale
from bench.timing import MILLI

__all__ = ["LEAVE_S", "SILENCES", "Trial", "leaving", "outcome_of", "trials", "try_all"]

SEED = 5
LEAVE_S = 2.0
LIFE_S = 0.6
MARKETS = 40
# As fast as it goes, and at the exchange's pace.
PACES = (UNLIMITED, 10)
SILENCES = ("", "hangs", "is deaf", "is deaf to TLS")
HANG = ({"kind": "hang"}, {"kind": "ws-stall", "pongs": False})


@attrs.frozen
class Trial:
    """One instant, drawn: ``silence`` says how the exchange does not answer, "" that it does."""

    form: Form
    silence: str
    after_s: float
    silence_s: float
    per_second: int


def trials(count: int, silences: Sequence[str], seed: int = SEED, life_s: float = LIFE_S) -> list[Trial]:
    """``count`` of them, the same for the same seed: every form, silence and pace in turn, at random instants.

    Up to ``life_s`` after it was opened, and half as long after the exchange has fallen silent.
    """
    dice = random.Random(seed)
    ways = itertools.cycle(itertools.product(PACES, silences, FORMS))
    return [
        Trial(form, silence, dice.uniform(0, life_s), dice.uniform(0, life_s / 2), pace)
        for pace, silence, form in itertools.islice(ways, count)
    ]


async def leaving(scale: Scale) -> Outcome:
    """A busy pipeline is left at random instants: how long that takes, and what stays behind."""
    count = scale.instants
    tried = trials(count, SILENCES[:1]) + trials(count, SILENCES[1:])
    found = await try_all(tried)
    return Outcome.joined(
        [
            outcome_of(f"{count} instants, the exchange answers", tried[:count], found[:count]),
            outcome_of(f"{count} instants, it does not", tried[count:], found[count:]),
        ]
    )


async def try_all(tried: Iterable[Trial]) -> list[Left]:
    """Each of them, one after the other, with a new file each, against one simulator."""
    with short_idling():
        async with _places() as (ground, deaf_at):
            return [await _try(trial, ground, deaf_at) for trial in tried]


@asynccontextmanager
async def _places() -> AsyncIterator[tuple[Ground, str]]:
    limits = {"connect_limit": 1_000, "message_limit": 1_000, "minute_limit": UNLIMITED}
    async with open_ground(markets=MARKETS, limit=UNLIMITED, latency_s=LATENCY_S, **limits) as ground, deaf() as at:
        yield ground, at


async def _try(trial: Trial, ground: Ground, deaf_at: str) -> Left:
    where = {"is deaf": f"http://{deaf_at}", "is deaf to TLS": f"https://{deaf_at}"}
    instant = Instant(
        form=trial.form,
        base_url=where.get(trial.silence, ground.base_url),
        now_ms=ground.clock.now_ms(),
        after_s=trial.after_s,
        per_second=trial.per_second,
        meanwhile=partial(_hang, ground) if trial.silence == "hangs" else None,
        silence_s=trial.silence_s,
    )
    with folder() as home:
        try:
            return await leave(instant, home / "bars.db")
        finally:
            if trial.silence == "hangs":
                with trio.CancelScope(shield=True):
                    await ground.calm()


async def _hang(ground: Ground) -> None:
    for fault in HANG:
        await ground.strike(fault)


def outcome_of(what: str, tried: Sequence[Trial], found: Sequence[Left]) -> Outcome:
    """What came of all of them."""
    left_ms = [MILLI * each.left_s for each in found]
    told_ms = [MILLI * each.told_s for each in found]
    broken = [f"{what}: {trial}: {flaw}" for trial, each in zip(tried, found, strict=True) for flaw in each.flaws]
    flaws = sum(len(each.flaws) for each in found)
    return Outcome([
        Figure(what=f"{what}: until it was left, median", unit="ms", samples=left_ms),
        Figure(what=f"{what}: until it was left, p99", unit="ms", samples=[_quantile(left_ms, 99)]),
        Figure(what=f"{what}: until it was left, max", unit="ms", samples=[max(left_ms)],
               goal=at_most(LEAVE_S * MILLI)),
        Figure(what=f"{what}: until everybody was told, max", unit="ms", samples=[max(told_ms)],
               goal=at_most(LEAVE_S * MILLI)),
        Figure(what=f"{what}: left behind, or lost", unit="things", samples=[flaws], goal=at_most(0)),
        Figure(what=f"{what}: answers by then", unit="answers", samples=[sum(each.answers for each in found)]),
        Figure(what=f"{what}: bars stored by then", unit="bars", samples=[sum(each.stored for each in found)]),
    ], broken)  # fmt: skip


def _quantile(values: Iterable[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)]
