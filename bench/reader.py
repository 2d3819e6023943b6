"""One way to read stored bars, as a process: ``python -m bench.reader WAY``, the task as JSON on stdin.

``iterate`` is `Client.iterate_candle` of a pipeline, ``pages`` the store's own, ``fetchall`` is ``sqlite3`` and the
rows as they are. The first two make `Candle`s. ``newest`` asks for 2,000 bars before moments all over the history, of
the pipeline and of ``sqlite3`` by turns. Prints seconds, bars and the process's peak memory.

With ``check`` everything is read once more, unmeasured, and held against the rows.
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from time import perf_counter
from typing import Any

import attrs
import trio

from bench.collector import MINUTE_MS, peak_bytes
from bench.timing import quiet
from marketpipe import Candle, open_pipeline
from marketpipe.core.timeframes import Timeframe
from marketpipe.store.sqlite import SqliteStore

__all__ = ["COUNT", "FETCHALL", "ITERATE", "NEWEST", "PAGES", "Read", "Told"]

ITERATE, PAGES, FETCHALL, NEWEST = "iterate", "pages", "fetchall", "newest"
COUNT = 2_000
SEED = 4
_COLUMNS = "open_ms, open, high, low, close, volume, quote_volume, exchange_ms, received_ms, revision"
_ALL = f"SELECT {_COLUMNS} FROM candles WHERE market = ? AND timeframe = '1m' ORDER BY open_ms"
_NEWEST = f"""
    SELECT {_COLUMNS} FROM candles WHERE market = ? AND timeframe = '1m' AND open_ms < ? ORDER BY open_ms DESC LIMIT ?
"""


@attrs.frozen(kw_only=True)
class Read:
    """Read the minute bars of ``market`` in ``[start_ms, end_ms)``, all of which are stored; or some, ``reads`` times.

    ``base_url``: the exchange, which is asked for no candles.
    """

    base_url: str
    path: str
    market: str
    start_ms: int
    end_ms: int
    reads: int = 0
    check: bool = False


@attrs.frozen(kw_only=True)
class Told:
    """``wrong``: pages or answers that differ from the rows. ``taken_s`` and ``plain_s``: of each of the newest."""

    elapsed_s: float
    bars: int
    peak_bytes: int
    wrong: int = 0
    taken_s: Sequence[float] = ()
    plain_s: Sequence[float] = ()


def main() -> None:
    """Read, tell, leave."""
    way, task = sys.argv[1], Read(**json.load(sys.stdin))
    print(json.dumps(attrs.asdict(WAYS[way](task))))


def _iterate(task: Read) -> Told:
    return trio.run(_iterated, task)


async def _iterated(task: Read) -> Told:
    async with open_pipeline(base_url=task.base_url, store=task.path) as market:
        await market.get_market()

        def read() -> AsyncIterator[Sequence[Candle]]:
            return market.iterate_candle(task.market, "1m", start=task.start_ms, end=task.end_ms)

        count, began_s = 0, perf_counter()
        async for bars in read():
            count += len(bars)
        told = _told(began_s, count)
        if not task.check:
            return told
        with closing(sqlite3.connect(task.path)) as conn:
            rows, wrong = conn.execute(_ALL, (task.market,)), 0
            async for bars in read():
                wrong += not _are_next(rows, bars)
        return attrs.evolve(told, wrong=wrong)


def _pages(task: Read) -> Told:
    with SqliteStore.open(task.path, source=task.base_url) as store:

        def read() -> Iterator[Sequence[Candle]]:
            return store.pages(task.market, Timeframe.M1, task.start_ms, task.end_ms)

        count, began_s = 0, perf_counter()
        for bars in read():
            count += len(bars)
        told = _told(began_s, count)
        if not task.check:
            return told
        with closing(sqlite3.connect(task.path)) as conn:
            rows = conn.execute(_ALL, (task.market,))
            return attrs.evolve(told, wrong=sum(not _are_next(rows, bars) for bars in read()))


def _fetchall(task: Read) -> Told:
    with closing(sqlite3.connect(task.path)) as conn:
        began_s = perf_counter()
        return _told(began_s, len(conn.execute(_ALL, (task.market,)).fetchall()))


def _told(began_s: float, count: int) -> Told:
    return Told(elapsed_s=perf_counter() - began_s, bars=count, peak_bytes=peak_bytes())


def _are_next(rows: sqlite3.Cursor, bars: Sequence[Candle]) -> bool:
    return [*map(_as_row, bars)] == [_exact(row) for row in rows.fetchmany(len(bars))]


def _newest(task: Read) -> Told:
    return trio.run(_newest_by_turns, task)


async def _newest_by_turns(task: Read) -> Told:
    dice = random.Random(SEED)
    first_ms = task.start_ms + COUNT * MINUTE_MS
    ends = [dice.randrange(first_ms, task.end_ms + 1, MINUTE_MS) for _ in range(task.reads)]
    taken_s, plain_s, wrong, began_s = list[float](), list[float](), 0, perf_counter()
    async with open_pipeline(base_url=task.base_url, store=task.path) as market:
        await market.get_market()
        with closing(sqlite3.connect(f"file:{task.path}?mode=ro", uri=True)) as conn:
            quiet()
            for end_ms in ends:
                moment_s = perf_counter()
                bars = await market.get_candle(task.market, "1m", count=COUNT, end=end_ms)
                taken_s.append(perf_counter() - moment_s)
                moment_s = perf_counter()
                rows = conn.execute(_NEWEST, (task.market, end_ms, COUNT)).fetchall()
                plain_s.append(perf_counter() - moment_s)
                wrong += [*map(_as_row, bars)] != [_exact(row) for row in rows[::-1]]
    told = _told(began_s, COUNT * len(ends))
    return attrs.evolve(told, taken_s=taken_s, plain_s=plain_s, wrong=wrong)


def _as_row(bar: Candle) -> tuple[Any, ...]:
    return (bar.open_ms, bar.open, bar.high, bar.low, bar.close, bar.volume, bar.quote_volume, bar.exchange_ms,
            bar.received_ms, bar.revision)  # fmt: skip


def _exact(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return (row[0], *map(Decimal, row[1:7]), *row[7:])


WAYS: dict[str, Callable[[Read], Told]] = {
    ITERATE: _iterate,
    PAGES: _pages,
    FETCHALL: _fetchall,
    NEWEST: _newest,
}

if __name__ == "__main__":
    main()
