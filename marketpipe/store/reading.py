"""Reading the store, over a connection that cannot write."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import StoreError
from marketpipe.models import Candle
from marketpipe.store.guard import Reading
from marketpipe.store.health import findings
from marketpipe.store.refusals import refusals
from marketpipe.store.rows import COLUMNS, Row, bar_or_none, bars_of
from marketpipe.store.values import Amendment, Failure, Finding, StoredSeries
from marketpipe.store.writing import newest_proven, touching

__all__ = ["Reader"]

_SERIES = "market = ? AND timeframe = ?"
_BARS = f"SELECT {COLUMNS} FROM candles WHERE {_SERIES} AND open_ms >= ? AND open_ms < ? ORDER BY open_ms LIMIT ?"
_NEWEST = f"SELECT {COLUMNS} FROM candles WHERE {_SERIES} AND open_ms < ? ORDER BY open_ms DESC LIMIT ?"
_FAILURES = f"""
    SELECT market, timeframe, start_ms, end_ms, attempts, code, message, first_ms, last_ms FROM failures
    WHERE {_SERIES} AND start_ms < ? AND end_ms > ? ORDER BY start_ms, end_ms
"""
_AMENDMENTS = f"""
    SELECT {COLUMNS}, replaced_ms FROM amendments WHERE {_SERIES} AND open_ms >= ? AND open_ms < ?
    ORDER BY open_ms, revision
"""
_COUNTS = """
    SELECT market, timeframe, bars, amended,
        (SELECT min(open_ms) FROM candles c WHERE c.market = s.market AND c.timeframe = s.timeframe),
        (SELECT max(open_ms) FROM candles c WHERE c.market = s.market AND c.timeframe = s.timeframe),
        (SELECT count(*) FROM coverage c WHERE c.market = s.market AND c.timeframe = s.timeframe),
        (SELECT coalesce(sum(end_ms - start_ms), 0) FROM coverage c
            WHERE c.market = s.market AND c.timeframe = s.timeframe)
    FROM series s ORDER BY market, timeframe
"""
NO_LIMIT = -1
END_OF_TIME_MS = 1 << 62
# A view of a file without a log is made anew when the file has changed: mostly once, then there is a log, or quiet.
TRIES = 5
# Steps of SQLite between two looks at whether to go on: some tenths of a millisecond.
STOP_AFTER_OPS = 10_000

T = TypeVar("T")


class Reader:
    """What is stored, read over a connection of its own.

    Each call sees the state after some whole write; in a file it never waits for one that is under way, in memory it
    does. Calls may come from any thread, one at a time: there is no lock in here. Whoever reads for long beside others
    takes a `reader` of his own. Every method raises `StoreError`.
    """

    def __init__(self, name: str, connect: Callable[[], Reading]) -> None:
        self.path = name
        self._connect = connect
        self._reading = _opened(connect)
        self._is_open = True
        self._is_stopped = False
        self._checking: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. A second time does nothing."""
        self._is_open = False
        self._reading.conn.close()

    def reader(self) -> Reader:
        """Another one, to be used beside this one and to be closed by whoever asked for it."""
        with self._ready("open"):
            return Reader(self.path, self._connect)

    def coverage(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> SpanSet:
        """What is proven of ``[start_ms, end_ms)``.

        Whoever needs the bars too reads them after it: a slot proven in between would look empty the other way round.
        """
        spans = self._read(lambda conn: touching(conn, (market, timeframe.value), start_ms, end_ms))
        return SpanSet.of(*spans).clip(start_ms, end_ms)

    def bars(
        self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int, *, limit: int | None = None
    ) -> tuple[Candle, ...]:
        """The stored bars that open in ``[start_ms, end_ms)``, oldest first; only the first ``limit`` of them.

        What is missing among them may be empty or unknown: `coverage` tells.
        """
        return self._bars(_BARS, market, timeframe, start_ms, end_ms, NO_LIMIT if limit is None else limit)

    def newest(
        self, market: str, timeframe: Timeframe, count: int, before_ms: int = END_OF_TIME_MS
    ) -> tuple[Candle, ...]:
        """The newest ``count`` stored bars that open before ``before_ms``, oldest first.

        What lies between them may be unknown: `coverage` tells.
        """
        return self._bars(_NEWEST, market, timeframe, before_ms, count)[::-1]

    def newest_proven(self, market: str, timeframe: Timeframe, before_ms: int) -> int | None:
        """The open time of the newest stored bar that opens before ``before_ms`` and is proven; None without any.

        The bar itself is not read: its row may be damaged.
        """
        return self._read(lambda conn: newest_proven(conn, (market, timeframe.value), before_ms))

    def pages(
        self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int, *, size: int = 1_000
    ) -> Iterator[tuple[Candle, ...]]:
        """As `bars`, in pages of ``size`` bars, so that any number of them takes little memory.

        Each page is read when it is asked for and holds nothing up between two of them; what is written meanwhile
        further on is in the pages to come.
        """
        while page := self.bars(market, timeframe, start_ms, end_ms, limit=size):
            yield page
            start_ms = page[-1].open_ms + 1

    def series(self) -> tuple[StoredSeries, ...]:
        """How much is stored of every series there is anything of, by market and timeframe."""
        return self._read(
            lambda conn: tuple(
                StoredSeries(market, msgspec.convert(timeframe, Timeframe), *rest)
                for market, timeframe, *rest in conn.execute(_COUNTS).fetchall()
            )
        )

    def failures(
        self, market: str, timeframe: Timeframe, start_ms: int = 0, end_ms: int = END_OF_TIME_MS
    ) -> tuple[Failure, ...]:
        """The spans that overlap ``[start_ms, end_ms)`` and could not be fetched, in order."""
        rows = self._read(lambda conn: conn.execute(_FAILURES, (market, timeframe.value, end_ms, start_ms)).fetchall())
        return tuple(Failure(market, timeframe, *rest) for _, _, *rest in rows)

    def amendments(
        self, market: str, timeframe: Timeframe, start_ms: int = 0, end_ms: int = END_OF_TIME_MS
    ) -> tuple[Amendment, ...]:
        """What was replaced of the slots in ``[start_ms, end_ms)``: by slot, and of one slot in order of revision."""
        rows = self._read(
            lambda conn: conn.execute(_AMENDMENTS, (market, timeframe.value, start_ms, end_ms)).fetchall()
        )
        return tuple(_amendment(market, timeframe, row) for row in rows)

    def integrity(self) -> tuple[Finding, ...]:
        """Everything that is wrong with the database, read row by row: seconds for each million of bars.

        Reads over a connection of its own, so other calls may go on beside it. `stop` ends it early, with a
        `StoreError`.
        """
        with self._ready("check"):
            for _ in range(TRIES):
                reading = self._connect()
                try:
                    found = self._findings(reading)
                finally:
                    reading.conn.close()
                if found is not None:
                    return found
            raise self._restless("check")

    def _findings(self, reading: Reading) -> tuple[Finding, ...] | None:
        # None: they count nothing.
        self._checking = reading.conn
        # What is between two statements when it is stopped, runs into this.
        reading.conn.set_progress_handler(lambda: self._is_stopped, STOP_AFTER_OPS)
        try:
            found = tuple(findings(reading.conn))
        except sqlite3.Error:
            if self._is_stopped or reading.is_current():
                raise
            return None
        finally:
            self._checking = None
        return found if reading.is_current() else None

    def stop(self) -> None:
        """End what is read in another thread within milliseconds, with a `StoreError`; there is no way back."""
        self._is_stopped = True
        for conn in (self._checking, self._reading.conn):
            interrupt(conn)

    def _bars(self, sql: str, market: str, timeframe: Timeframe, *rest: int) -> tuple[Candle, ...]:
        return self._read(lambda conn: bars_of(conn.execute(sql, (market, timeframe.value, *rest))))

    def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What ``read`` finds over a connection that is current when it is done; else it counts nothing."""
        with self._ready("read"):
            for _ in range(TRIES):
                if self._is_stopped:
                    raise StoreError(f"{self.path}: cannot read: it was stopped")
                try:
                    found = read(self._reading.conn)
                except (sqlite3.Error, msgspec.ValidationError):
                    if self._reading.is_current():
                        raise
                else:
                    if self._reading.is_current():
                        return found
                stale, self._reading = self._reading, _opened(self._connect)
                stale.conn.close()
            raise self._restless("read")

    def _restless(self, doing: str) -> StoreError:
        return StoreError(f"{self.path}: cannot {doing}: it keeps changing")

    def _ready(self, doing: str) -> AbstractContextManager[None]:
        if not self._is_open:
            raise StoreError(f"{self.path}: cannot {doing}: it has been closed")
        return refusals(self.path, doing)


def interrupt(conn: sqlite3.Connection | None) -> None:
    """End the statement that runs over ``conn`` in another thread, if one does."""
    if conn is not None:
        # It may have ended by itself and been closed at this very moment.
        with suppress(sqlite3.ProgrammingError):
            conn.interrupt()


def _opened(connect: Callable[[], Reading]) -> Reading:
    reading = connect()
    try:
        reading.conn.execute("PRAGMA schema_version").fetchone()  # opens the log too, while it is under its name
    except sqlite3.Error:
        reading.conn.close()
        raise
    return reading


def _amendment(market: str, timeframe: Timeframe, row: Row) -> Amendment:
    *old, replaced_ms = row
    _, _, open_ms, *_, revision = old
    return Amendment(market, timeframe, open_ms, revision, replaced_ms, bar_or_none(tuple(old)))
