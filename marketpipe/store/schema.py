"""The tables, and the steps that lead a database from one version to the next.

Version n has gone through the first n of `STEPS`. To change the schema, add a step; never change one that was released.
A step runs in one transaction together with the note that it ran, so that it has happened wholly or not at all, and it
speaks plain SQL: sqlite-utils cannot rebuild tables that are WITHOUT ROWID.

- ``candles``: FINAL bars. Prices and volumes are canonical decimal text, exact to the last digit.
- ``coverage``: what is proven, as half-open spans that neither overlap nor touch. A slot with a row is *traded*, one
  that is covered and has no row is *proven empty*, any other is *unknown*.
- ``amendments``: how slots stood before a piece contradicted them; without prices, if they were proven empty.
- ``failures``: spans that could not be fetched.
- ``series``: how many rows each series has in ``candles`` and ``amendments``, so that nobody has to count millions.
- ``meta``: ``source`` is the exchange whose data this is.
- ``bars``: a view for people and their tools, with times to read and numbers to calculate with (floats, not exact).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlite_utils import Database

__all__ = ["APPLICATION_ID", "STEPS", "Step", "migrate"]

# "mpdb": says in the file's header whose database it is (https://www.sqlite.org/pragma.html#pragma_application_id).
APPLICATION_ID = 0x6D706462

Step = Callable[[Database], None]

_FIRST = (
    """
    CREATE TABLE candles (
        market TEXT NOT NULL,
        timeframe TEXT NOT NULL,
        open_ms INTEGER NOT NULL,
        open TEXT NOT NULL,
        high TEXT NOT NULL,
        low TEXT NOT NULL,
        close TEXT NOT NULL,
        volume TEXT NOT NULL,
        quote_volume TEXT NOT NULL,
        exchange_ms INTEGER NOT NULL,
        received_ms INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        PRIMARY KEY (market, timeframe, open_ms)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE coverage (
        market TEXT NOT NULL,
        timeframe TEXT NOT NULL,
        start_ms INTEGER NOT NULL,
        end_ms INTEGER NOT NULL CHECK (start_ms < end_ms),
        PRIMARY KEY (market, timeframe, start_ms)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE amendments (
        market TEXT NOT NULL,
        timeframe TEXT NOT NULL,
        open_ms INTEGER NOT NULL,
        open TEXT,
        high TEXT,
        low TEXT,
        close TEXT,
        volume TEXT,
        quote_volume TEXT,
        exchange_ms INTEGER,
        received_ms INTEGER,
        revision INTEGER NOT NULL,
        replaced_ms INTEGER NOT NULL,
        PRIMARY KEY (market, timeframe, open_ms, revision)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE failures (
        market TEXT NOT NULL,
        timeframe TEXT NOT NULL,
        start_ms INTEGER NOT NULL,
        end_ms INTEGER NOT NULL CHECK (start_ms < end_ms),
        attempts INTEGER NOT NULL,
        code TEXT NOT NULL,
        message TEXT NOT NULL,
        first_ms INTEGER NOT NULL,
        last_ms INTEGER NOT NULL,
        PRIMARY KEY (market, timeframe, start_ms, end_ms)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE series (
        market TEXT NOT NULL,
        timeframe TEXT NOT NULL,
        bars INTEGER NOT NULL,
        amended INTEGER NOT NULL,
        PRIMARY KEY (market, timeframe)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    """
    CREATE VIEW bars AS SELECT
        market,
        timeframe,
        strftime('%Y-%m-%dT%H:%M:%SZ', open_ms / 1000, 'unixepoch') AS open_time,
        CAST(open AS REAL) AS open,
        CAST(high AS REAL) AS high,
        CAST(low AS REAL) AS low,
        CAST(close AS REAL) AS close,
        CAST(volume AS REAL) AS volume,
        CAST(quote_volume AS REAL) AS quote_volume,
        revision,
        open_ms
    FROM candles
    """,
)


def _first(db: Database) -> None:
    for statement in _FIRST:
        db.execute(statement)


STEPS: tuple[Step, ...] = (_first,)


def migrate(db: Database, steps: Sequence[Step] = STEPS) -> None:
    """Take ``db`` through the ``steps`` that it has not seen yet, each in a transaction of its own."""
    (done,) = db.execute("PRAGMA user_version").fetchone()
    for version, step in enumerate(steps[done:], done + 1):
        with db.atomic():
            step(db)
            db.execute(f"PRAGMA user_version = {version}")
