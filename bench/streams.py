"""Live streams under load: what is lost (nothing), what a message costs, how late it is, and who delays whom.

Readers are processes of their own (`bench.listener`), and beside each of ours runs a bare one on the same flood. Two
cores carry the simulator, the reader and whatever else the machine does, so a rate is that of the machine's rest too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from bench.figures import Figure, Goal, Outcome, at_most, ratio_below
from bench.flooding import Listener, Slice, open_listener
from bench.ground import Ground, open_ground
from bench.listener import BARE, OURS, Wanted
from bench.scale import Scale, StreamScale
from marketpipe.core.topics import Line

__all__ = ["flatout", "flooded_ground", "ingest", "latency", "one"]

LINES = (Line.TICKER, Line.TRADE, Line.ORDERBOOK)
# Beyond what is listened to; some markets open later.
SPARE_MARKETS = 20
BASELINE = "trio-websocket and decode_frame, nothing else"
# When memory is looked at first: by then everything that is held for good is held.
EARLY_S = 5.0
MEGA = 2**20
# Later than this is no live stream any more.
LATE_MS = 250.0
# Of a rate that was asked of the simulator, what it must have sent to have kept it.
KEPT = 0.95


async def ingest(scale: Scale) -> Outcome:
    """5,000 messages a second of 240 symbols, three consumers, for a minute: losses, CPU and memory, delays."""
    size = scale.streams
    async with flooded_ground(size) as (ground, wanted):
        bare: list[Slice] = []
        ours: list[Slice] = []
        for _ in range(size.slices):
            bare.append(await one(ground, BARE, wanted, size.rate, size.slice_s))
            ours.append(await one(ground, OURS, wanted, size.rate, size.slice_s))
        async with open_listener(ground, OURS, wanted) as listener:
            early = (EARLY_S, size.ingest_s / 2) if size.ingest_s > 2 * EARLY_S else ()
            long = await listener.flood(size.rate, size.ingest_s, rss_at_s=early)
    what = f"{size.rate:,.0f}/s"
    figures = [
        Figure(what=f"{what}, CPU of each message", unit="us", samples=[each.cpu_us for each in ours],
               baseline=BASELINE, baseline_samples=[each.cpu_us for each in bare], goal=ratio_below(1.5)),
        Figure(what=f"{what}, sent to received, 99 of 100", unit="ms", samples=[each.p99_ms for each in ours],
               baseline=BASELINE, baseline_samples=[each.p99_ms for each in bare]),
        *_long_figures(f"{what} for {size.ingest_s:g} s", long),
    ]  # fmt: skip
    slices = enumerate([*ours, long], 1)
    return Outcome(figures, [line for number, each in slices for line in each.broken(f"{what}, run {number}")])


def _long_figures(what: str, long: Slice) -> list[Figure]:
    return [
        Figure(what=f"{what}: received", unit="messages", samples=[long.messages]),
        Figure(what=f"{what}: sent and not received", unit="messages", samples=[long.lost], goal=at_most(0)),
        Figure(what=f"{what}: trades delivered", unit="trades", samples=[long.trades]),
        Figure(what=f"{what}: trades sent and not delivered", unit="trades", samples=[long.sent.trades - long.trades],
               goal=at_most(0)),
        Figure(what=f"{what}: memory at the end", unit="MiB", samples=[long.rss[-1] / MEGA],
               baseline="after 5 s", baseline_samples=[long.rss[0] / MEGA]),
        Figure(what=f"{what}: memory gained since then", unit="MiB", samples=[(long.rss[-1] - long.rss[0]) / MEGA],
               goal=at_most(5)),
        *_second_half(what, long),
        Figure(what=f"{what}: use of a core", unit="%", samples=[100 * long.cpu_s / long.elapsed_s]),
        Figure(what=f"{what}: sent to received, median", unit="ms", samples=[long.p50_ms]),
        Figure(what=f"{what}: sent to received, 99 of 100", unit="ms", samples=[long.p99_ms]),
    ]  # fmt: skip


def _second_half(what: str, long: Slice) -> list[Figure]:
    # What is remembered of each market (its last hundred trades, the ids of half a minute) has filled up by then.
    if len(long.rss) < 3:
        return []
    gained = (long.rss[-1] - long.rss[1]) / MEGA
    return [Figure(what=f"{what}: memory gained in its second half", unit="MiB", samples=[gained])]


async def latency(scale: Scale) -> Outcome:
    """2,000 messages a second: from the simulator's send to the consumer's hands."""
    size = scale.streams
    async with flooded_ground(size) as (ground, wanted):
        bare: list[Slice] = []
        ours: list[Slice] = []
        for _ in range(2):
            bare.append(await one(ground, BARE, wanted, size.calm_rate, size.calm_s / 2))
            ours.append(await one(ground, OURS, wanted, size.calm_rate, size.calm_s / 2))
    what = f"{size.calm_rate:,.0f}/s, sent to received"

    def figure(share: str, attribute: str, goal: Goal | None = None) -> Figure:
        return Figure(
            what=f"{what}, {share}",
            unit="ms",
            samples=[getattr(each, attribute) for each in ours],
            baseline=BASELINE,
            baseline_samples=[getattr(each, attribute) for each in bare],
            goal=goal,
        )

    figures = [figure("median", "p50_ms"), figure("99 of 100", "p99_ms", at_most(10))]
    return Outcome(figures, [line for each in ours for line in each.broken(what)])


@attrs.frozen
class Climb:
    """How far one side came: the greatest rate that it kept, and what was wrong at the next."""

    rate: float
    why: str


async def flatout(scale: Scale) -> Outcome:
    """The greatest rate at which nothing is lost and 99 of 100 trades are in hand within 250 ms."""
    size = scale.streams
    async with flooded_ground(size) as (ground, wanted):
        climbs: dict[str, list[Climb]] = {BARE: [], OURS: []}
        for _ in range(size.climbs):
            for side, ends in climbs.items():
                async with open_listener(ground, side, wanted) as listener:
                    ends.append(await _climb(listener, size))
    why = ", ".join(dict.fromkeys(end.why for end in climbs[OURS]))
    figure = Figure(
        what=f"greatest rate (then: {why})",
        unit="messages/s",
        samples=[end.rate for end in climbs[OURS]],
        baseline=BASELINE,
        baseline_samples=[end.rate for end in climbs[BARE]],
    )
    # That something is lost beyond the greatest rate is what is measured.
    return Outcome([figure])


async def _climb(listener: Listener, size: StreamScale) -> Climb:
    kept = 0.0
    for rate in size.climb:
        try:
            taken = await listener.flood(rate, size.step_s)
        except RuntimeError as error:
            return Climb(kept, str(error))
        finally:
            await listener.ground.calm()
        why = _why_not(taken, rate)
        if why is not None:
            return Climb(kept, why)
        kept = taken.sent.rate
    return Climb(kept, "nothing, the climb ends here")


def _why_not(taken: Slice, rate: float) -> str | None:
    """Why ``rate`` was not kept; None if it was."""
    if taken.sent.rate < KEPT * rate:
        return "the simulator cannot send more"
    broken = taken.broken("")
    if broken:
        return broken[0].removeprefix(": ")
    return f"more than {LATE_MS:g} ms late" if taken.p99_ms > LATE_MS else None


async def one(ground: Ground, side: str, wanted: Wanted, per_second: float, for_s: float) -> Slice:
    """A flood for a reader that begins with it and ends with it."""
    async with open_listener(ground, side, wanted) as listener:
        return await listener.flood(per_second, for_s)


@asynccontextmanager
async def flooded_ground(size: StreamScale) -> AsyncIterator[tuple[Ground, Wanted]]:
    """A simulator to be flooded, and what is listened to there."""
    async with open_ground(markets=size.markets + SPARE_MARKETS, latency_s=0.0) as ground:
        names = ground.names()[: size.markets]
        yield ground, {line.value: names for line in LINES}
