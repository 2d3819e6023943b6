"""Putting the ledger in order where something from outside has brought it out of order.

Nothing is proven by it that was not, and no bar is touched. A series that has more or fewer bars than were counted when
they were written is proven no more: which slots were tampered with, nobody can tell.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from marketpipe.core import timeframes
from marketpipe.core.spans import Span, SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.store.health import LATEST_MS, all_series

__all__ = ["tidy"]

_SPANS = "SELECT start_ms, end_ms FROM coverage WHERE market = ? AND timeframe = ? ORDER BY start_ms"
_UNPROVE = "DELETE FROM coverage WHERE market = ? AND timeframe = ?"
_PROVE = "INSERT INTO coverage (market, timeframe, start_ms, end_ms) VALUES (?, ?, ?, ?)"
_ROWS = "SELECT count(*) FROM candles WHERE market = ? AND timeframe = ?"
_COUNTED = "SELECT bars FROM series WHERE market = ? AND timeframe = ?"
_COUNT = """
    INSERT OR REPLACE INTO series (market, timeframe, bars, amended) VALUES (
        ?1, ?2,
        (SELECT count(*) FROM candles WHERE market = ?1 AND timeframe = ?2),
        (SELECT count(*) FROM amendments WHERE market = ?1 AND timeframe = ?2)
    )
"""

Series = tuple[str, str]


def tidy(conn: sqlite3.Connection) -> None:
    """Join proven spans that touch or overlap, cut them to whole slots, drop those of miscounted series, count anew.

    Inside the caller's transaction. What stands under a timeframe that does not exist is left as it is.
    """
    for series in all_series(conn):
        market, name = series
        if name in [*Timeframe]:
            spans = conn.execute(_SPANS, series).fetchall()
            is_counted = (conn.execute(_COUNTED, series).fetchone() or (0,)) == conn.execute(_ROWS, series).fetchone()
            tidied = [*SpanSet.of(*_inwards(Timeframe(name), spans))] if is_counted else []
            if tidied != spans:
                conn.execute(_UNPROVE, series)
                conn.executemany(_PROVE, ((market, name, *span) for span in tidied))
            conn.execute(_COUNT, series)


def _inwards(timeframe: Timeframe, spans: Iterable[Span]) -> Iterable[Span]:
    for start_ms, end_ms in spans:
        # 0 stands for the beginning of all history, in every timeframe.
        start_ms = timeframes.ceil(timeframe, start_ms) if 0 < start_ms < LATEST_MS else max(0, start_ms)
        end_ms = timeframes.floor(timeframe, min(end_ms, LATEST_MS))
        if start_ms < end_ms:
            yield start_ms, end_ms
