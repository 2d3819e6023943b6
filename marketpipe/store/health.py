"""Looking for what is wrong with a database. It can only come from outside: no write of ours leaves any of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from operator import itemgetter

import msgspec

from marketpipe.core import timeframes
from marketpipe.core.history import is_possible
from marketpipe.core.spans import Span, SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle
from marketpipe.store.rows import COLUMNS, EXCHANGE_MS, OPEN_MS, Row, bar_or_none, bars_of, texts_of
from marketpipe.store.values import Finding, Flaw

__all__ = ["LATEST_MS", "all_series", "findings"]

# Nobody reads more of them, and a file that is broken in one place is broken in many.
DAMAGE_TOLD = 20
ROWS_AT_ONCE = 5_000
LATEST_MS = 253_370_764_800_000  # the year 9999: calendars end there

_NEXT_SERIES = """
    SELECT market, timeframe FROM {table} WHERE (market, timeframe) > (?, ?) ORDER BY market, timeframe LIMIT 1
"""
_SPANS = "SELECT start_ms, end_ms FROM coverage WHERE market = ? AND timeframe = ? ORDER BY start_ms"
_ROWS = f"""
    SELECT {COLUMNS} FROM candles WHERE market = ? AND timeframe = ? AND open_ms > ?
    ORDER BY open_ms LIMIT {ROWS_AT_ONCE}
"""
_COUNTED = "SELECT bars, amended FROM series WHERE market = ? AND timeframe = ?"
_AMENDED = "SELECT count(*) FROM amendments WHERE market = ? AND timeframe = ?"
BEFORE_ALL_MS = -(1 << 62)

_WORDS = {
    Flaw.UNREADABLE: "what is stored is no bar",
    Flaw.MISALIGNED: "no slot begins there",
    Flaw.UNCOVERED: "stored without being proven",
    Flaw.IMPOSSIBLE: "the low is not the lowest, or the high not the highest, or a number is below 0",
}

Series = tuple[str, str]


def findings(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Everything that is wrong, the file first, then series by series. ``conn`` is used for nothing else meanwhile."""
    try:
        yield from _damage(conn)
        for series in all_series(conn):
            conn.execute("BEGIN")  # rows, spans and counts of one moment
            try:
                yield from _of_series(conn, series)
            finally:
                conn.rollback()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        yield Finding(Flaw.DAMAGED, f"SQLite cannot read on: {error}")


def _damage(conn: sqlite3.Connection) -> Iterator[Finding]:
    for (words,) in conn.execute(f"PRAGMA integrity_check({DAMAGE_TOLD})").fetchall():
        if words != "ok":
            yield Finding(Flaw.DAMAGED, " ".join(words.removeprefix("*** in database main ***").split()))


def all_series(conn: sqlite3.Connection) -> list[Series]:
    """Market and timeframe of every series there is anything of, as they stand there."""
    # From one to the next by the key: DISTINCT would read every row of every table.
    found: set[Series] = set()
    for table in ("series", "candles", "coverage"):
        last: Series = ("", "")
        while row := conn.execute(_NEXT_SERIES.format(table=table), last).fetchone():
            last = row
            found.add(last)
    return sorted(found)


def _of_series(conn: sqlite3.Connection, series: Series) -> Iterator[Finding]:
    market, name = series
    if name not in [*Timeframe]:
        yield Finding(Flaw.UNREADABLE, f"there is no timeframe {name!r}", market, name)
        return
    timeframe = Timeframe(name)
    spans = conn.execute(_SPANS, series).fetchall()
    for flaw, words, start_ms, end_ms in _of_spans(timeframe, spans):
        yield Finding(flaw, words, market, name, start_ms, end_ms)
    bars = 0
    for flaws, run in groupby(_judged(conn, series, timeframe, SpanSet.of(*spans)), itemgetter(0)):
        (first_ms, last_ms, count) = _extent(run)
        bars += count
        for flaw in flaws:
            words = f"{count} bar{'s' if count > 1 else ''}: {_WORDS[flaw]}"
            yield Finding(flaw, words, market, name, first_ms, _end_ms(timeframe, last_ms))
    (amended,) = conn.execute(_AMENDED, series).fetchone()
    counted = conn.execute(_COUNTED, series).fetchone() or (0, 0)
    if counted != (bars, amended):
        words = f"{bars} bars and {amended} amendments, {counted[0]} and {counted[1]} were counted"
        yield Finding(Flaw.MISCOUNTED, words, market, name)


def _of_spans(timeframe: Timeframe, spans: list[Span]) -> Iterator[tuple[Flaw, str, int, int]]:
    for start_ms, end_ms in spans:
        if not all(moment == 0 or _is_aligned(timeframe, moment) for moment in (start_ms, end_ms)):
            yield Flaw.MISALIGNED, "the proven span does not begin and end where slots do", start_ms, end_ms
    for (_, end_ms), (start_ms, _) in pairwise(spans):
        if start_ms <= end_ms:
            yield Flaw.COVERAGE, "proven spans touch or overlap", min(start_ms, end_ms), max(start_ms, end_ms)


def _judged(
    conn: sqlite3.Connection, series: Series, timeframe: Timeframe, proven: SpanSet
) -> Iterator[tuple[tuple[Flaw, ...], int]]:
    after_ms = BEFORE_ALL_MS
    while rows := conn.execute(_ROWS, (*series, after_ms)).fetchall():
        after_ms = rows[-1][OPEN_MS]
        for row, bar in zip(rows, _readable(rows), strict=True):
            yield tuple(_flaws(row, bar, timeframe, proven)), row[OPEN_MS]


def _readable(rows: Sequence[Row]) -> Iterable[Candle | None]:
    try:
        return bars_of(rows)
    except msgspec.ValidationError:
        return [bar_or_none(row) for row in rows]


def _flaws(row: Row, bar: Candle | None, timeframe: Timeframe, proven: SpanSet) -> Iterator[Flaw]:
    open_ms = row[OPEN_MS]
    if not _is_aligned(timeframe, open_ms):
        yield Flaw.MISALIGNED
    if open_ms not in proven:
        yield Flaw.UNCOVERED
    if bar is None or not _is_as_spelled(bar, row):
        yield Flaw.UNREADABLE
    elif not is_possible(bar):
        yield Flaw.IMPOSSIBLE


def _is_as_spelled(bar: Candle, row: Row) -> bool:
    # Another spelling of the same number would be taken for another number.
    try:
        return texts_of(bar) == row[OPEN_MS + 1 : EXCHANGE_MS]
    except ValueError:  # no number
        return False


def _is_aligned(timeframe: Timeframe, moment_ms: int) -> bool:
    return 0 <= moment_ms < LATEST_MS and timeframes.floor(timeframe, moment_ms) == moment_ms


def _end_ms(timeframe: Timeframe, open_ms: int) -> int:
    return timeframes.next_open(timeframe, open_ms) if 0 <= open_ms < LATEST_MS else open_ms + 1


def _extent(run: Iterable[tuple[object, int]]) -> tuple[int, int, int]:
    # Most of a series is one long run without a flaw.
    first_ms = last_ms = None
    count = 0
    for _, last_ms in run:
        first_ms = last_ms if first_ms is None else first_ms
        count += 1
    assert first_ms is not None
    assert last_ms is not None
    return first_ms, last_ms, count
