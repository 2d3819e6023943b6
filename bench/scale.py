"""How large a bench is run: in full, quickly at the desk, or so small that a test can see that it still runs."""

from __future__ import annotations

import attrs

from marketpipe.sim.config import Window

__all__ = ["FULL", "QUICK", "TINY", "CollectingScale", "Habit", "Scale", "StreamScale"]


@attrs.frozen
class Habit:
    """How a simulator counts its seconds, and how much its answers may be late."""

    window: Window
    jitter_s: float

    def __str__(self) -> str:
        return f"{self.window}, {f'jitter 0-{self.jitter_s * 1000:.0f} ms' if self.jitter_s else 'no jitter'}"


JITTERY = (Habit("rolling", 0.3), Habit("fixed", 0.3), Habit("first", 0.3))
PUNCTUAL = (Habit("fixed", 0.0), Habit("first", 0.0))


@attrs.frozen(kw_only=True)
class StreamScale:
    """Sizes of the benches of live streams.

    ``rate``: messages per second of the flood, of which ``slices`` of ``slice_s`` each are compared before it lasts
    ``ingest_s``. ``climb``: the rates that are tried one after the other, for ``step_s`` each, ``climbs`` times.
    ``calm_rate``: at which delays are measured, for ``calm_s`` in two halves. ``trades``: per second beside a slow
    consumer, for ``slow_s``. ``outages``: how many rows of the table of outages, in real time and in virtual time.
    """

    markets: int
    rate: float
    slices: int
    slice_s: float
    ingest_s: float
    climb: tuple[float, ...]
    climbs: int
    step_s: float
    calm_rate: float
    calm_s: float
    subscribers: int
    rounds: int
    trades: float
    slow_s: float
    outages: tuple[int, int]


@attrs.frozen(kw_only=True)
class CollectingScale:
    """Sizes of the benches of collecting.

    ``bars`` of one symbol are collected ``turns`` times for each of ``latencies_s``; a backfill is watched at its limit
    for ``allowance_s``; a thin market is collected for ``sparse_days``. ``stored`` bars are read through, and the
    newest of some moment ``reads`` times. A collection is killed ``kills`` times, about each ``pages_per_kill`` pages.
    """

    bars: int
    turns: int
    latencies_s: tuple[float, ...]
    allowance_s: float
    sparse_days: int
    stored: int
    reads: int
    kills: int
    pages_per_kill: int


@attrs.frozen(kw_only=True)
class Scale:
    """Sizes. ``loops`` and ``turns`` are of the benches without a network, ``repeats`` of those with one.

    ``crowds``: how many callers at once; ``calls``: of each of three groups; ``storm_s``: how long nothing is wrong,
    how long requests are refused at random, and how long to wait at most until all is well again. ``threads`` of
    ``thread_calls`` each over ``thread_symbols``; ``awaits`` of asyncio at once. A busy pipeline is left at so many
    ``instants`` while the exchange answers, and at as many while it does not.
    """

    loops: int
    turns: int
    imports: int
    repeats: int
    markets: int
    distinct: int
    crowds: tuple[int, ...]
    crowd_markets: int
    pages: int
    calls: int
    demand_s: float
    habits: tuple[Habit, ...]
    habit_demand_s: float
    storm_s: tuple[float, float, float]
    storms: int
    readers: int
    reading_s: float
    rival_callers: int
    rival_batch: int
    threads: int
    thread_calls: int
    thread_symbols: int
    awaits: int
    instants: int
    streams: StreamScale
    collecting: CollectingScale


ALL = 1_000
STREAMS = StreamScale(
    markets=240,
    rate=5_000,
    slices=4,
    slice_s=6.0,
    ingest_s=60.0,
    climb=(2_500, *(round(5_000 * 1.2**step, -2) for step in range(11))),
    climbs=2,
    step_s=4.0,
    calm_rate=2_000,
    calm_s=20.0,
    subscribers=200,
    rounds=3,
    trades=500,
    slow_s=12.0,
    outages=(ALL, ALL),
)
COLLECTING = CollectingScale(
    bars=100_000,
    turns=5,
    latencies_s=(0.0, 0.02),
    allowance_s=30.0,
    sparse_days=365,
    stored=1_000_000,
    reads=500,
    kills=50,
    pages_per_kill=10,
)
FULL = Scale(
    loops=2_000,
    turns=15,
    imports=9,
    repeats=7,
    markets=855,
    distinct=500,
    crowds=(1, 250, 1_000, 5_000),
    crowd_markets=5_000,
    pages=60,
    calls=40,
    demand_s=30.0,
    habits=(*PUNCTUAL, *JITTERY),
    habit_demand_s=10.0,
    storm_s=(8.0, 8.0, 60.0),
    storms=2,
    readers=100,
    reading_s=10.0,
    rival_callers=250,
    rival_batch=500,
    threads=32,
    thread_calls=1_000,
    thread_symbols=200,
    awaits=500,
    instants=200,
    streams=STREAMS,
    collecting=COLLECTING,
)
QUICK = attrs.evolve(
    FULL,
    loops=500,
    turns=7,
    imports=3,
    repeats=3,
    demand_s=5.0,
    habits=JITTERY,
    habit_demand_s=5.0,
    storm_s=(4.0, 4.0, 30.0),
    storms=1,
    reading_s=2.0,
    instants=20,
    streams=attrs.evolve(
        STREAMS, slices=2, slice_s=4.0, ingest_s=8.0, climbs=1, step_s=3.0, calm_s=8.0, rounds=2, slow_s=6.0
    ),
    collecting=attrs.evolve(
        COLLECTING, bars=20_000, turns=2, allowance_s=6.0, sparse_days=60, stored=100_000, reads=100, kills=5
    ),
)
TINY = attrs.evolve(
    FULL,
    loops=3,
    turns=2,
    imports=1,
    repeats=1,
    markets=60,
    distinct=20,
    crowds=(1, 12),
    crowd_markets=60,
    pages=11,
    calls=4,
    demand_s=2.5,
    habits=JITTERY[:1],
    habit_demand_s=2.5,
    storm_s=(2.2, 1.0, 2.0),
    storms=1,
    readers=3,
    reading_s=0.3,
    rival_callers=3,
    rival_batch=5,
    threads=3,
    thread_calls=10,
    thread_symbols=5,
    awaits=10,
    instants=1,
    streams=StreamScale(
        markets=12,
        rate=300,
        slices=1,
        slice_s=0.5,
        ingest_s=0.5,
        climb=(200, 400),
        climbs=1,
        step_s=0.5,
        calm_rate=200,
        calm_s=1.0,
        subscribers=12,
        rounds=1,
        trades=1_000,
        slow_s=1.5,
        outages=(0, 2),
    ),
    collecting=CollectingScale(
        bars=1_000,
        turns=1,
        latencies_s=(0.02,),
        allowance_s=2.0,
        sparse_days=5,
        stored=3_000,
        reads=5,
        kills=1,
        pages_per_kill=5,
    ),
)
