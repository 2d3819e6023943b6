"""One way to collect a history, as a process: ``python -m bench.collector WAY``, the task as JSON on stdin.

``marketpipe`` is a backfill. ``plain`` is what one writes without it: page after page with ``httpx``, read exactly by
``json``, stored with ``executemany``. ``disk`` stores the rows of another database and asks nobody: as fast as it goes.
All three write the same table with the same care, one transaction a page. Prints seconds, rows and the process's peak
memory as JSON; starting and ending the process and its imports are not in the seconds.
"""

from __future__ import annotations

import json
import resource
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import attrs
import httpx
import trio

from marketpipe import Client, Collecting, Config, Limits, open_pipeline
from marketpipe.clock import SystemClock
from marketpipe.core.progress import JobState

__all__ = ["DISK", "OURS", "PAGE", "PLAIN", "UNLIMITED", "Task", "Told", "peak_bytes"]

OURS, PLAIN, DISK = "marketpipe", "plain", "disk"
PAGE = 200
UNLIMITED = 100_000
MINUTE_MS = 60_000
SECOND_MS = 1_000

# As `marketpipe.store.schema` has it.
_TABLE = """
    CREATE TABLE candles (
        market TEXT NOT NULL, timeframe TEXT NOT NULL, open_ms INTEGER NOT NULL, open TEXT NOT NULL, high TEXT NOT NULL,
        low TEXT NOT NULL, close TEXT NOT NULL, volume TEXT NOT NULL, quote_volume TEXT NOT NULL,
        exchange_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL, revision INTEGER NOT NULL,
        PRIMARY KEY (market, timeframe, open_ms)
    ) STRICT, WITHOUT ROWID
"""
_ADD = "INSERT INTO candles VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

Row = tuple[Any, ...]


@attrs.frozen(kw_only=True)
class Task:
    """Collect the minute bars of ``market`` in ``[start_ms, end_ms)`` into the new database ``path``.

    ``rows_from``: the database that `DISK` takes its rows from. ``pages_at_once``: of `OURS`.
    """

    base_url: str
    path: str
    market: str
    start_ms: int
    end_ms: int
    rows_from: str = ""
    pages_at_once: int = 20


@attrs.frozen(kw_only=True)
class Told:
    """What a way says of itself: the seconds from its first question until the last bar was stored."""

    elapsed_s: float
    cpu_s: float
    rows: int
    peak_bytes: int


def main() -> None:
    """Collect, tell, leave."""
    way, task = sys.argv[1], Task(**json.load(sys.stdin))
    elapsed_s, cpu_s, rows = WAYS[way](task)
    told = Told(elapsed_s=elapsed_s, cpu_s=cpu_s, rows=rows, peak_bytes=peak_bytes())
    print(json.dumps(attrs.asdict(told)))


def peak_bytes() -> int:
    """The most memory that this process has had resident."""
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage tells on Linux is not below what the process had that this one was forked from.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _ours(task: Task) -> tuple[float, float, int]:
    return trio.run(_backfill, task)


async def _backfill(task: Task) -> tuple[float, float, int]:
    config = Config(base_url=task.base_url, store=task.path, limits=Limits(per_second=UNLIMITED),
                    collecting=Collecting(pages_at_once=task.pages_at_once))  # fmt: skip
    async with open_pipeline(config) as market:
        await market.get_market()
        began_s, began_cpu_s = perf_counter(), process_time()
        rows = await _collect(market, task)
        return perf_counter() - began_s, process_time() - began_cpu_s, rows


async def _collect(market: Client, task: Task) -> int:
    job = await market.start_backfill(task.market, "1m", start=task.start_ms, end=task.end_ms)
    report = await job.wait()
    if report.state is not JobState.DONE:
        raise RuntimeError(f"the backfill ended as {report}")
    written = market.status().store
    assert written is not None
    return written.rows_written


def _plain(task: Task) -> tuple[float, float, int]:
    with httpx.Client(base_url=task.base_url, trust_env=False) as client:
        client.get("/v1/market/all")
        with closing(_new_database(task.path)) as conn:
            return _stored(conn, _pages(client, task))


def _pages(client: httpx.Client, task: Task) -> Iterator[list[Row]]:
    to_ms, clock = task.end_ms, SystemClock()
    while to_ms > task.start_ms:
        count = min(PAGE, (to_ms - task.start_ms) // MINUTE_MS)
        to = datetime.fromtimestamp(to_ms // SECOND_MS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        answer = client.get("/v1/candles/minutes/1", params={"market": task.market, "count": count, "to": to})
        answer.raise_for_status()
        received_ms = clock.now_ms()
        rows = [_row(row, received_ms) for row in json.loads(answer.content, parse_float=Decimal)]
        yield rows
        to_ms = rows[-1][2]


def _row(row: dict[str, Any], received_ms: int) -> Row:
    opened = datetime.strptime(row["candle_date_time_utc"], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    prices = (str(row[name]) for name in ("opening_price", "high_price", "low_price", "trade_price",
                                          "candle_acc_trade_volume", "candle_acc_trade_price"))  # fmt: skip
    return (row["market"], "1m", int(opened.timestamp()) * SECOND_MS, *prices, row["timestamp"], received_ms, 0)


def _disk(task: Task) -> tuple[float, float, int]:
    with closing(sqlite3.connect(task.rows_from)) as source, closing(_new_database(task.path)) as conn:
        newest_first = source.execute("SELECT * FROM candles ORDER BY open_ms DESC")
        elapsed_s, cpu_s, rows = 0.0, 0.0, 0
        while page := newest_first.fetchmany(PAGE):
            one = _stored(conn, [page])
            elapsed_s, cpu_s, rows = elapsed_s + one[0], cpu_s + one[1], rows + one[2]
        return elapsed_s, cpu_s, rows


def _new_database(path: str) -> sqlite3.Connection:
    conn = sqlite3.connect(path)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = NORMAL")
    conn.execute(_TABLE)
    return conn


def _stored(conn: sqlite3.Connection, pages: Iterable[list[Row]]) -> tuple[float, float, int]:
    began_s, began_cpu_s, rows = perf_counter(), process_time(), 0
    for page in pages:
        with conn:
            conn.executemany(_ADD, page)
        rows += len(page)
    return perf_counter() - began_s, process_time() - began_cpu_s, rows


WAYS: dict[str, Callable[[Task], tuple[float, float, int]]] = {OURS: _ours, PLAIN: _plain, DISK: _disk}

if __name__ == "__main__":
    main()
