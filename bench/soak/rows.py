"""Conservation of stored rows: what a database holds, of every series and timeframe, against what the market was."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import attrs

from bench.soak.bars import UNIT, Shown
from marketpipe.core.timeframes import Timeframe
from marketpipe.sim import World

__all__ = ["Held", "held"]

DAY_MS = 86_400_000
_SPANS = "SELECT market, timeframe, start_ms, end_ms FROM coverage ORDER BY market, timeframe, start_ms"
_ROWS = """
    SELECT open_ms, open, high, low, close, volume, quote_volume FROM candles
    WHERE market = ? AND timeframe = ? AND open_ms >= ? AND open_ms < ? ORDER BY open_ms
"""


@attrs.define
class Held:
    """How many rows were compared, of how many spans that are proven, and a line for each that differs."""

    rows: int = 0
    spans: int = 0
    series: int = 0
    words: list[str] = attrs.field(factory=list)


def held(world: World, path: Path, *, days: int | None = None, seed: int = 0) -> Held:
    """Compare everything that ``path`` claims to be proven, or ``days`` pieces of at most a day drawn by ``seed``."""
    told = Held()
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as conn:
        # One transaction: spans and rows are those of one moment, while the subject goes on writing.
        conn.execute("BEGIN")
        spans = conn.execute(_SPANS).fetchall()
        told.series = len({(market, timeframe) for market, timeframe, *_ in spans})
        pieces = [(market, timeframe, low_ms, min(low_ms + DAY_MS, end_ms))
                  for market, timeframe, start_ms, end_ms in spans
                  for low_ms in range(start_ms, end_ms, DAY_MS)]  # fmt: skip
        if days is not None and len(pieces) > days:
            pieces = random.Random(seed).sample(pieces, days)
        for piece in pieces:
            told.words += _compared(conn, world, told, *piece)
        if days is None:
            told.words += _strays(conn)
    return told


def _compared(
    conn: sqlite3.Connection, world: World, told: Held, market: str, timeframe: str, start_ms: int, end_ms: int
) -> Iterator[str]:
    rows = {row[0]: _shown(*row) for row in conn.execute(_ROWS, (market, timeframe, start_ms, end_ms))}
    told.rows += len(rows)
    told.spans += 1
    for bar in world.candles(market, Timeframe(timeframe), start_ms, end_ms, end_ms - 1):
        row = rows.pop(bar.open_ms, None)
        flaw = "is missing" if row is None else row.flaw(bar)
        if flaw:
            yield f"{market} {timeframe} at {bar.open_ms} {flaw}"
    for open_ms in rows:
        yield f"{market} {timeframe} at {open_ms} never was"


def _strays(conn: sqlite3.Connection) -> Iterator[str]:
    """Rows of which nothing says that they are proven."""
    found = conn.execute(
        """
        SELECT market, timeframe, open_ms FROM candles AS bar WHERE NOT EXISTS (
            SELECT 1 FROM coverage AS span WHERE span.market = bar.market AND span.timeframe = bar.timeframe
            AND span.start_ms <= bar.open_ms AND span.end_ms > bar.open_ms) LIMIT 5
        """
    )
    for market, timeframe, open_ms in found:
        yield f"{market} {timeframe} at {open_ms} is stored and not proven"


def _shown(open_ms: int, *numbers: str) -> Shown:
    opening, high, low, close, volume, turnover = (Decimal(number) * UNIT for number in numbers)
    return Shown(open_ms, (int(opening), int(high), int(low), int(close)), int(volume), turnover, True, 0)
