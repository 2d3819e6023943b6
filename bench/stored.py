"""Reading what is stored: a million bars through, and the newest 2,000 before a moment."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import attrs
import trio

from bench.collecting import child_environment, folder
from bench.figures import Figure, Outcome
from bench.ground import Ground, open_ground
from bench.ledger import MINUTE_MS
from bench.reader import COUNT, FETCHALL, ITERATE, NEWEST, PAGES, Read, Told
from bench.scale import Scale
from bench.timing import MILLI
from marketpipe import Candle, CandleState, Source
from marketpipe.core.history import Piece
from marketpipe.core.timeframes import Timeframe
from marketpipe.store.sqlite import SqliteStore

__all__ = ["stored"]

SYMBOL = "KRW-BTC"
DAY_MS = 86_400_000
MEBI = 2**20
MARKETS = 3
# Rows of one transaction while the database is made, which is not measured.
PIECE = 5_000
SPARE_S = 180.0
FETCHED = "sqlite3 fetchall of the same rows, as text"


async def stored(scale: Scale) -> Outcome:
    """Stored bars: all of them through iterate_candle and the store's pages, the newest 2,000 by get_candle."""
    size = scale.collecting
    with folder() as home:
        async with open_ground(markets=MARKETS, latency_s=0.0) as ground:
            task = await trio.to_thread.run_sync(_made, ground, home / "bars.db", size.stored, size.reads)
            parts = [await _through(task, size.stored, turn) for turn in range(size.turns)]
            parts.append(await _newest(task, size.stored))
            requests = (await ground.settle()).requests("candles")
    outcome = Outcome.merged(parts)
    asked = [f"stored: {requests} pages were asked for what is stored"] if requests else []
    return attrs.evolve(outcome, broken=[*outcome.broken, *asked])


def _made(ground: Ground, path: Path, bars: int, reads: int) -> Read:
    """A database with so many bars of one market."""
    end_ms = ground.clock.now_ms() // DAY_MS * DAY_MS
    task = Read(base_url=ground.base_url, path=str(path), market=SYMBOL, start_ms=end_ms - bars * MINUTE_MS,
                end_ms=end_ms, reads=reads)  # fmt: skip
    with SqliteStore.open(path, source=ground.base_url) as store:
        for low_ms in range(task.start_ms, end_ms, PIECE * MINUTE_MS):
            high_ms = min(low_ms + PIECE * MINUTE_MS, end_ms)
            piece = Piece(SYMBOL, Timeframe.M1, low_ms, high_ms, tuple(_bars(low_ms, high_ms)))
            store.write([piece], now_ms=end_ms)
    return task


def _bars(start_ms: int, end_ms: int) -> Iterator[Candle]:
    """Every minute, with as many digits as the exchange's own have."""
    for open_ms in range(start_ms, end_ms, MINUTE_MS):
        minute = open_ms // MINUTE_MS
        price, volume = Decimal(100_000_000 + minute % 40_013 * 1_000), Decimal(minute % 99_991 + 1).scaleb(-8) + 3
        yield Candle(SYMBOL, Timeframe.M1, open_ms, price, price + 7_000, price - 5_000, price + 1_000, volume=volume,
                     quote_volume=volume * price, exchange_ms=open_ms + 59_123, received_ms=open_ms + 61_000,
                     source=Source.REST, state=CandleState.FINAL)  # fmt: skip


async def _through(task: Read, bars: int, turn: int) -> Outcome:
    ways = (ITERATE, PAGES, FETCHALL)
    task = attrs.evolve(task, check=not turn)
    told = {way: await _read(way, task) for way in (ways if turn % 2 else ways[::-1])}
    speed = {way: each.bars / each.elapsed_s for way, each in told.items()}
    what = f"{bars:,} stored bars"
    names = {ITERATE: "iterate_candle", PAGES: "the store's pages"}
    figures = [
        *(Figure(what=f"{what}, {name}", unit="bars/s", samples=[speed[way]], baseline=FETCHED,
                 baseline_samples=[speed[FETCHALL]]) for way, name in names.items()),
        *(Figure(what=f"{what}, {name}: peak memory", unit="MiB", samples=[told[way].peak_bytes / MEBI],
                 baseline=FETCHED, baseline_samples=[told[FETCHALL].peak_bytes / MEBI])
          for way, name in names.items()),
    ]  # fmt: skip
    broken = [f"{what}, {way}: {each.bars} were read" for way, each in told.items() if each.bars != bars]
    broken += [f"{what}, {way}: {each.wrong} pages differ from what is stored"
               for way, each in told.items() if each.wrong]  # fmt: skip
    return Outcome(figures, broken)


async def _newest(task: Read, bars: int) -> Outcome:
    told = await _read(NEWEST, task)
    what = f"get_candle(count={COUNT}) of {bars:,} stored bars"
    figures = [
        Figure(what=f"{what}, p{percent}", unit="ms", samples=[MILLI * _quantile(told.taken_s, percent)],
               baseline=FETCHED, baseline_samples=[MILLI * _quantile(told.plain_s, percent)])
        for percent in (50, 99)
    ]  # fmt: skip
    return Outcome(figures, [f"{what}: {told.wrong} answers differ from what is stored"] if told.wrong else [])


def _quantile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


async def _read(way: str, task: Read) -> Told:
    command = [sys.executable, "-m", "bench.reader", way]
    with trio.fail_after(SPARE_S):
        done = await trio.run_process(command, stdin=json.dumps(attrs.asdict(task)).encode(), capture_stdout=True,
                                      env=child_environment())  # fmt: skip
    return Told(**json.loads(done.stdout))
