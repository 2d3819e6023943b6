"""Collecting a history: how fast it gets into the database, and what it takes of the limit while others read."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import attrs
import trio

import marketpipe
from bench.collector import DISK, OURS, PAGE, PLAIN, UNLIMITED, Task, Told
from bench.figures import Figure, Goal, Outcome, at_least, at_most
from bench.ground import Ground, open_ground
from bench.ledger import MINUTE_MS, held_against_truth, proven_spans
from bench.scale import Scale
from bench.timing import MICRO, MILLI, quiet
from marketpipe import Client, Priority, open_pipeline

__all__ = ["allowance", "backfill", "child_environment", "folder", "ratio_above"]

# Every minute of it was traded, so that pages of 200 are exactly as many as its bars fill.
SYMBOL = "KRW-BTC"
DAY_MS = 86_400_000
MEBI = 2**20
PLAIN_WORDS = "httpx, json.loads(parse_float=Decimal), executemany, page after page"
DISK_WORDS = "executemany alone"
SPARE_S = 120.0


def ratio_above(bound: float) -> Goal:
    """At least ``bound`` times the baseline."""
    return Goal(bound=bound, upper=False, of_ratio=True)


# -- how fast ---------------------------------------------------------------------------------------------------------


async def backfill(scale: Scale) -> Outcome:
    """Minute bars of one symbol into a file, no limit: beside httpx + json + executemany, and executemany alone."""
    size = scale.collecting
    parts = []
    for latency_s in size.latencies_s:
        async with open_ground(markets=scale.markets, limit=UNLIMITED, latency_s=latency_s) as ground:
            end_ms = ground.clock.now_ms() // DAY_MS * DAY_MS
            span = end_ms - size.bars * MINUTE_MS, end_ms
            parts += [await _turn(ground, span, turn, latency_s) for turn in range(size.turns)]
    return Outcome.merged(parts)


async def _turn(ground: Ground, span: tuple[int, int], turn: int, latency_s: float) -> Outcome:
    """Each way once, in its own process; which of them goes first, changes."""
    bars = (span[1] - span[0]) // MINUTE_MS
    what = f"{bars:,} bars, {latency_s * MILLI:g} ms"
    told: dict[str, Told] = {}
    broken: list[str] = []
    with folder() as home:
        for way in (*((OURS, PLAIN) if turn % 2 else (PLAIN, OURS)), DISK):
            path = home / f"{way}.db"
            await ground.settle()
            task = Task(base_url=ground.base_url, path=str(path), market=SYMBOL, start_ms=span[0], end_ms=span[1],
                        rows_from=str(home / f"{PLAIN}.db"))  # fmt: skip
            told[way] = await _collected(way, task)
            requests = (await ground.settle()).requests("candles")
            held = await trio.to_thread.run_sync(held_against_truth, ground.world, path, SYMBOL, *span)
            broken += held.broken(f"{what}, {way}")
            if held.bars != told[way].rows:
                broken.append(f"{what}, {way}: {told[way].rows} rows were written, the market had {held.bars} bars")
            if way == OURS:
                broken += _not_as_planned(what, proven_spans(path, SYMBOL), span, requests, held.bars)
    return Outcome(_backfill_figures(what, told), broken)


def _not_as_planned(
    what: str, proven: list[tuple[int, int]], span: tuple[int, int], requests: int, bars: int
) -> list[str]:
    lines = [] if proven == [span] else [f"{what}: proven is {proven}, asked was {span}"]
    needed = math.ceil(bars / PAGE)
    return lines if requests == needed else [*lines, f"{what}: {requests} pages were asked, {needed} are enough"]


def _backfill_figures(what: str, told: Mapping[str, Told]) -> list[Figure]:
    ours, plain, disk = told[OURS], told[PLAIN], told[DISK]
    speed = {way: each.rows / each.elapsed_s for way, each in told.items()}
    cost = {way: MICRO * each.cpu_s / each.rows for way, each in told.items()}
    return [
        Figure(what=f"{what}: into the store", unit="bars/s", samples=[speed[OURS]], baseline=PLAIN_WORDS,
               baseline_samples=[speed[PLAIN]], goal=ratio_above(2)),
        Figure(what=f"{what}: into the store, of what the disk takes", unit="bars/s", samples=[speed[OURS]],
               baseline=DISK_WORDS, baseline_samples=[speed[DISK]]),
        Figure(what=f"{what}: CPU of each bar", unit="us", samples=[cost[OURS]], baseline=PLAIN_WORDS,
               baseline_samples=[cost[PLAIN]]),
        Figure(what=f"{what}: peak memory", unit="MiB", samples=[ours.peak_bytes / MEBI], baseline=PLAIN_WORDS,
               baseline_samples=[plain.peak_bytes / MEBI]),
        Figure(what=f"{what}: peak memory of {DISK_WORDS}", unit="MiB", samples=[disk.peak_bytes / MEBI]),
    ]  # fmt: skip


async def _collected(way: str, task: Task) -> Told:
    command = [sys.executable, "-m", "bench.collector", way]
    with trio.fail_after(SPARE_S):
        done = await trio.run_process(command, stdin=json.dumps(attrs.asdict(task)).encode(), capture_stdout=True,
                                      env=child_environment())  # fmt: skip
    return Told(**json.loads(done.stdout))


def child_environment() -> dict[str, str]:
    """For a process that imports what this one has imported."""
    return {**os.environ, "PYTHONPATH": str(Path(marketpipe.__file__).parents[1])}


@contextmanager
def folder() -> Iterator[Path]:
    """A place for databases, for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="marketpipe-bench-") as home:
        yield Path(home)


# -- what it takes of the limit ---------------------------------------------------------------------------------------

# How long after each answer the ticker is read again, and what each reading may take.
EVERY_S = 0.1
BUDGET_MS = 100.0
READ = "KRW-ETH"


@attrs.define(eq=False)
class _Readings:
    """One reading after the other. Asked each 100 ms whatever comes, they would by themselves be the whole limit."""

    market: Client
    taken_ms: list[float] = attrs.field(factory=list)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read until cancelled."""
        task_status.started()
        while True:
            began_s = perf_counter()
            await self.market.get_ticker(READ, max_age_s=0, priority=Priority.HIGH)
            self.taken_ms.append(MILLI * (perf_counter() - began_s))
            await trio.sleep(EVERY_S)


async def allowance(scale: Scale) -> Outcome:
    """The limit on: what a backfill uses of it at 20 ms, and what it costs a ticker that is read all the time."""
    for_s = scale.collecting.allowance_s
    async with open_ground(markets=scale.markets) as ground:
        alone, _, _, broken = await _beside(ground, for_s, collecting=False)
        beside, pages, rate, more = await _beside(ground, for_s, collecting=True)
        limit = ground.simulator.config.limit
    what = f"{for_s:g} s"
    figures = [
        Figure(what=f"{what}: pages of a backfill, of {limit} allowed", unit="requests/s", samples=[rate],
               goal=at_least(0.95 * limit)),
        Figure(what=f"{what}: pages", unit="requests", samples=[pages]),
        *(
            Figure(what=f"{what}: a HIGH ticker each {EVERY_S * MILLI:g} ms beside it, p{percent}", unit="ms",
                   samples=[_quantile(beside, percent)], baseline="without the backfill",
                   baseline_samples=[_quantile(alone, percent)], goal=at_most(BUDGET_MS) if percent == 99 else None)
            for percent in (50, 99, 100)
        ),
    ]  # fmt: skip
    return Outcome(figures, broken + more)


async def _beside(ground: Ground, for_s: float, *, collecting: bool) -> tuple[list[float], int, float, list[str]]:
    """A ticker read for ``for_s``; how long each took, pages collected meanwhile and their rate, broken promises."""
    what = f"a ticker {'beside' if collecting else 'without'} a backfill"
    end_ms = ground.clock.now_ms() // DAY_MS * DAY_MS
    # More than is collected in that time.
    start_ms = end_ms - math.ceil(2 * for_s + 2) * ground.simulator.config.limit * PAGE * MINUTE_MS
    with folder() as home:
        path = home / "bars.db"
        async with open_pipeline(base_url=ground.base_url, store=path) as market:
            await market.get_market()
            await ground.settle()
            quiet()
            readings = _Readings(market)
            async with trio.open_nursery() as nursery:
                await nursery.start(readings.run)
                job = None
                if collecting:
                    job = await market.start_backfill(SYMBOL, start=start_ms, end=end_ms)
                await trio.sleep(for_s)
                pages = 0 if job is None else job.snapshot().pages
                if job is not None:
                    job.cancel()
                nursery.cancel_scope.cancel(reason="it has lasted long enough")
            if job is not None:
                await job.wait()
            account = await ground.settle()
        broken = account.broken(what)
        for low_ms, high_ms in proven_spans(path, SYMBOL):
            held = await trio.to_thread.run_sync(held_against_truth, ground.world, path, SYMBOL, low_ms, high_ms)
            broken += held.broken(what)
    # The first second's burst is free: what lasts, is what is left after it.
    limit = account.limit
    return readings.taken_ms, pages, (pages - limit) / (for_s - 1), broken


def _quantile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)]
