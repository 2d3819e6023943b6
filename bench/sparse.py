"""A market in which hardly anything is traded: how many pages its history takes, beside the fewest there can be.

In virtual time, from an exchange in memory that answers after 20 ms. A page holds the newest 200 bars before a moment;
only its answer tells how far down they reach, so that pages in flight together have to guess.
"""

from __future__ import annotations

import math
import random
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from functools import partial
from pathlib import Path

import attrs
import trio
from trio.testing import MockClock

from bench.collecting import folder
from bench.collector import PAGE, UNLIMITED
from bench.figures import Figure, Matrix, Outcome
from bench.ground import LATENCY_S
from bench.ledger import MINUTE_MS, proven_spans
from bench.memory import ready_exchange
from bench.scale import Scale
from marketpipe import Candle, CandleState, Collecting, Config, Limits, Market, Source, run_pipeline
from marketpipe.actors.writer import in_line
from marketpipe.clock import TrioClock
from marketpipe.core.requests import CandlesRequest, MarketsRequest, Reply, Request
from marketpipe.core.timeframes import Timeframe
from marketpipe.store.sqlite import SqliteStore

__all__ = ["in_bursts", "scattered", "sparse"]

# 2026-09-23T00:00:00Z.
TODAY_MS = 1_790_121_600_000
DAY_MS = 86_400_000
DAY_MINUTES = 1_440
NOON_MS = DAY_MS // 2
SHARE = 0.05
# Of the minutes of a burst, how many are traded; and how many minutes it lasts, on average.
BUSY, BURST = 0.6, 120
AT_ONCE = (1, 4, 20)
PACES = ((UNLIMITED, "no limit"), (10, "10 requests/s"))
SEED = 4
SOURCE = "http://thin"


async def sparse(scale: Scale) -> Outcome:
    """A market with a trade in 5 % of its minutes: pages that were asked, beside the fewest there can be."""
    days = scale.collecting.sparse_days
    return Outcome.joined([await trio.to_thread.run_sync(partial(_history, days, how, draw)) for how, draw in SHAPES])


def scattered(slots: int) -> Iterator[int]:
    """The minutes that were traded, if each was as likely as any other."""
    draw = random.Random(SEED).random
    return (slot for slot in range(slots) if draw() < SHARE)


def in_bursts(slots: int) -> Iterator[int]:
    """The minutes that were traded, if most of them lie close together, and days pass between."""
    dice, slot = random.Random(SEED), 0
    while slot < slots:
        ends = slot + 1 + int(dice.expovariate(1 / BURST))
        yield from (each for each in range(slot, min(ends, slots)) if dice.random() < BUSY)
        slot = ends + 1 + int(dice.expovariate(SHARE / (BURST * (BUSY - SHARE))))


SHAPES: tuple[tuple[str, Callable[[int], Iterator[int]]], ...] = (("scattered", scattered), ("in bursts", in_bursts))


def _history(days: int, how: str, draw: Callable[[int], Iterator[int]]) -> Outcome:
    slots, start_ms = days * DAY_MINUTES, TODAY_MS - days * DAY_MS
    # One bar of the year before, so that it did not begin with this one.
    opens = [start_ms - MINUTE_MS, *(start_ms + slot * MINUTE_MS for slot in draw(slots))]
    market = ready_exchange(1).markets
    bars, fewest = len(opens) - 1, math.ceil((len(opens) - 1) / PAGE)
    rows, figures, broken = [], [], list[str]()
    for per_second, pace in PACES:
        for at_once in AT_ONCE:
            exchange = ThinExchange(market, opens)
            took_s = _collected(exchange, start_ms, at_once, per_second, broken)
            rows.append((pace, str(at_once), str(exchange.pages), str(fewest), f"{took_s:.1f} s"))
            figures.append(Figure(what=f"{days} days, {how}, {pace}, {at_once} in flight", unit="requests",
                                  samples=[exchange.pages], baseline="the fewest there can be",
                                  baseline_samples=[fewest]))  # fmt: skip
    title = f"{how}: {bars:,} of {slots:,} minutes traded ({bars / slots:.1%}); pages of slots: {slots // PAGE:,}"
    return Outcome(figures, broken, [Matrix(title, ("limit", "in flight", "requests", "fewest", "virtual time"), rows)])


@attrs.define(eq=False)
class ThinExchange:
    """One market with minute bars at ``opens``, all alike."""

    markets: tuple[Market, ...]
    opens: Sequence[int]
    pages: int = 0

    @property
    def name(self) -> str:
        """Of its market."""
        return self.markets[0].market

    async def fetch(self, request: Request) -> Reply:
        """The market, or a page of bars, after the time that takes."""
        await trio.sleep(LATENCY_S)
        now_ms = TODAY_MS + NOON_MS + round(trio.current_time() * 1000)
        if isinstance(request, MarketsRequest):
            return Reply(self.markets, {}, now_ms, now_ms)
        if not isinstance(request, CandlesRequest) or request.to_ms is None:
            raise RuntimeError(f"a bench asked for {request}, which it does not have")
        self.pages += 1
        end = bisect_left(self.opens, request.to_ms)
        newest_first = self.opens[max(0, end - request.count) : end][::-1]
        return Reply(tuple(_bar(self.name, open_ms, now_ms) for open_ms in newest_first), {}, now_ms, now_ms)


def _bar(market: str, open_ms: int, now_ms: int) -> Candle:
    one = Decimal(1)
    return Candle(market, Timeframe.M1, open_ms, one, one, one, one, volume=one, quote_volume=one, exchange_ms=open_ms,
                  received_ms=now_ms, source=Source.REST, state=CandleState.FINAL)  # fmt: skip


def _collected(exchange: ThinExchange, start_ms: int, at_once: int, per_second: int, broken: list[str]) -> float:
    """Collect all from ``start_ms`` on, in a Trio run of its own; the seconds that took in its time."""

    async def main() -> float:
        clock = TrioClock(TODAY_MS + NOON_MS)
        config = Config(limits=Limits(per_second=per_second), collecting=Collecting(pages_at_once=at_once))
        with SqliteStore.open(path, source=SOURCE) as store:
            async with run_pipeline(config, exchange, clock=clock, store=store, runner=lambda: in_line) as client:
                await client.get_market()
                began_s = trio.current_time()
                job = await client.start_backfill(exchange.name, start=start_ms, end=TODAY_MS)
                await job.wait()
                return trio.current_time() - began_s

    with folder() as home:
        path = home / "bars.db"
        took_s: float = trio.run(main, clock=MockClock(autojump_threshold=0))
        broken += _wrong(path, exchange, start_ms)
    return took_s


def _wrong(path: Path, exchange: ThinExchange, start_ms: int) -> list[str]:
    with closing(sqlite3.connect(path)) as conn:
        stored = [open_ms for (open_ms,) in conn.execute("SELECT open_ms FROM candles ORDER BY open_ms")]
    true = [open_ms for open_ms in exchange.opens if open_ms >= start_ms]
    lines = [] if [each for each in stored if each >= start_ms] == true else ["sparse: other bars are stored than were"]
    proven = proven_spans(path, exchange.name)
    whole = len(proven) == 1 and proven[0][0] <= start_ms and proven[0][1] == TODAY_MS
    return lines if whole else [*lines, f"sparse: proven is {proven}"]
