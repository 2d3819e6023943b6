"""Taking one piece into the database: what is new, what is known already, and what contradicts what was stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import attrs

from marketpipe.core import timeframes
from marketpipe.core.history import Piece
from marketpipe.core.spans import Span, SpanSet
from marketpipe.models import CandleState
from marketpipe.store.rows import COLUMNS, OPEN_MS, REVISION, Row, bar_or_none, content
from marketpipe.store.values import Amendment

__all__ = ["Taken", "add_up", "newest_proven", "note", "refuse_impossible", "take", "touching"]

_BARS = f"SELECT {COLUMNS} FROM candles WHERE market = ? AND timeframe = ? AND open_ms >= ? AND open_ms < ?"
_ADD_BAR = f"INSERT INTO candles ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_REMOVE_BAR = "DELETE FROM candles WHERE market = ? AND timeframe = ? AND open_ms = ?"
_KEEP_AS_EVIDENCE = f"INSERT INTO amendments ({COLUMNS}, replaced_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_NEXT_REVISION = """
    SELECT coalesce(max(revision) + 1, 0) FROM amendments WHERE market = ? AND timeframe = ? AND open_ms = ?
"""
# The last span that begins before the start may reach over it; of those before that one none does.
_TOUCHING = """
    SELECT start_ms, end_ms FROM coverage WHERE market = ?1 AND timeframe = ?2 AND start_ms <= ?4 AND start_ms >=
        coalesce((SELECT max(start_ms) FROM coverage WHERE market = ?1 AND timeframe = ?2 AND start_ms < ?3), ?3)
    ORDER BY start_ms
"""
_NEWEST_PROVEN = """
    SELECT open_ms FROM candles c WHERE market = ? AND timeframe = ? AND open_ms < ? AND EXISTS (
        SELECT 1 FROM coverage p WHERE p.market = c.market AND p.timeframe = c.timeframe
        AND p.start_ms <= c.open_ms AND p.end_ms > c.open_ms
    ) ORDER BY open_ms DESC LIMIT 1
"""
_UNPROVE = "DELETE FROM coverage WHERE market = ? AND timeframe = ? AND start_ms >= ? AND start_ms <= ?"
_PROVE = "INSERT INTO coverage (market, timeframe, start_ms, end_ms) VALUES (?, ?, ?, ?)"
_FORGET_FAILURES = "DELETE FROM failures WHERE market = ? AND timeframe = ? AND start_ms >= ? AND end_ms <= ?"
_NOTE = """
    INSERT INTO failures (market, timeframe, start_ms, end_ms, attempts, code, message, first_ms, last_ms)
    VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?7) ON CONFLICT DO UPDATE SET
        attempts = attempts + 1, code = excluded.code, message = excluded.message, last_ms = excluded.last_ms
"""
_ADD_UP = """
    INSERT INTO series (market, timeframe, bars, amended) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET bars = bars + excluded.bars, amended = amended + excluded.amended
"""

Series = tuple[str, str]


@attrs.frozen
class Taken:
    """What one piece did: rows that are new or changed, rows that were there, what it replaced.

    ``gained``: how many more rows there are than before. ``changed``: whether anything is different at all.
    """

    rows: int
    unchanged: int
    amended: tuple[Amendment, ...]
    gained: int
    changed: bool


def refuse_impossible(piece: Piece) -> None:
    """Raise ``ValueError`` for a piece that would harm the ledger: not aligned, out of order, or with bars not FINAL.

    0 is a boundary in every timeframe: it stands for the beginning of all history.
    """
    timeframe, start_ms, end_ms = piece.timeframe, piece.start_ms, piece.end_ms
    name = f"piece of {piece.market} {timeframe} [{start_ms}, {end_ms})"
    if start_ms >= end_ms:
        raise ValueError(f"{name} must end after it starts")
    if not start_ms <= piece.shown_ms <= end_ms:
        raise ValueError(f"{name} must have been shown from a moment in it on, was {piece.shown_ms}")
    for moment in (start_ms, piece.shown_ms, end_ms):
        if moment and timeframes.floor(timeframe, moment) != moment:
            raise ValueError(f"{name} must begin and end where a slot does")
    before_ms = piece.shown_ms - 1
    for bar in piece.bars:
        if bar.market != piece.market or bar.timeframe != timeframe:
            raise ValueError(f"{name} must have bars of its own series, was {bar.market} {bar.timeframe}")
        if bar.state is not CandleState.FINAL or bar.filled:
            raise ValueError(f"{name} must have FINAL bars that were traded; the one at {bar.open_ms} is not")
        if not before_ms < bar.open_ms < end_ms or timeframes.floor(timeframe, bar.open_ms) != bar.open_ms:
            raise ValueError(f"{name} must have its slots in order, oldest first; {bar.open_ms} is out of place")
        before_ms = bar.open_ms


def take(conn: sqlite3.Connection, piece: Piece, rows: Iterable[Row], now_ms: int) -> Taken:
    """Write ``piece``, whose bars are ``rows``, inside the caller's transaction.

    What it concludes without having been shown it, is left out if a bar is proven there.
    """
    series = (piece.market, piece.timeframe.value)
    start_ms, end_ms = _taken_span(conn, series, piece)
    if start_ms == end_ms:
        return Taken(0, 0, (), 0, False)
    spans = touching(conn, series, start_ms, end_ms)
    fresh = {row[OPEN_MS]: row for row in rows}
    contradicted: list[tuple[Row | None, Row | None]] = []
    unchanged = 0
    for old in conn.execute(_BARS, (*series, start_ms, end_ms)):
        new = fresh.pop(old[OPEN_MS], None)
        if new is not None and content(new) == content(old):
            unchanged += 1
        else:
            contradicted.append((old, new))
    if known := SpanSet.of(*spans).clip(start_ms, end_ms):
        contradicted += [(None, fresh.pop(open_ms)) for open_ms in [*fresh] if open_ms in known]
    conn.executemany(_ADD_BAR, fresh.values())
    amended = tuple(_amend(conn, old, new, now_ms) for old, new in contradicted)
    proved = _prove(conn, series, spans, start_ms, end_ms)
    written = len(fresh) + sum(new is not None for _, new in contradicted)
    lost = sum(old is not None for old, _ in contradicted)
    return Taken(written, unchanged, amended, written - lost, proved or bool(written or lost))


def _taken_span(conn: sqlite3.Connection, series: Series, piece: Piece) -> Span:
    if piece.is_concluded:
        known_ms = newest_proven(conn, series, piece.shown_ms)
        if known_ms is not None and known_ms >= piece.start_ms:
            return piece.shown_ms, piece.end_ms
    return piece.start_ms, piece.end_ms


def newest_proven(conn: sqlite3.Connection, series: Series, before_ms: int) -> int | None:
    """Where the newest bar opens of those that open before ``before_ms`` and are proven; None if there is none."""
    row = conn.execute(_NEWEST_PROVEN, (*series, before_ms)).fetchone()
    return None if row is None else int(row[0])


def touching(conn: sqlite3.Connection, series: Series, start_ms: int, end_ms: int) -> list[Span]:
    """The proven spans that overlap ``[start_ms, end_ms)`` or touch it, in order."""
    found = conn.execute(_TOUCHING, (*series, start_ms, end_ms)).fetchall()
    return found if not found or found[0][1] >= start_ms else found[1:]


def add_up(conn: sqlite3.Connection, counts: Iterable[tuple[str, str, int, int]]) -> None:
    """Count bars gained and slots amended: ``(market, timeframe, bars, amended)``."""
    conn.executemany(_ADD_UP, counts)


def note(
    conn: sqlite3.Connection, series: Series, start_ms: int, end_ms: int, code: str, message: str, now_ms: int
) -> None:
    """Count one more failure of exactly this span, unless all of it is proven."""
    if not SpanSet.of(*touching(conn, series, start_ms, end_ms)).covers(start_ms, end_ms):
        conn.execute(_NOTE, (*series, start_ms, end_ms, code, message, now_ms))


def _amend(conn: sqlite3.Connection, old: Row | None, new: Row | None, now_ms: int) -> Amendment:
    row = old or new
    assert row is not None
    slot = row[: OPEN_MS + 1]
    (revision,) = conn.execute(_NEXT_REVISION, slot).fetchone()
    if old is None:
        evidence: Row = (*slot, *(None,) * (REVISION - OPEN_MS - 1), revision)
    else:
        revision = max(revision, old[REVISION])
        evidence = (*old[:REVISION], revision)
        conn.execute(_REMOVE_BAR, slot)
    conn.execute(_KEEP_AS_EVIDENCE, (*evidence, now_ms))
    if new is not None:
        conn.execute(_ADD_BAR, (*new[:REVISION], max(revision + 1, new[REVISION])))
    market, timeframe, open_ms = slot
    return Amendment(market, timeframes.Timeframe(timeframe), open_ms, revision, now_ms, bar_or_none(evidence))


def _prove(conn: sqlite3.Connection, series: Series, spans: list[Span], start_ms: int, end_ms: int) -> bool:
    """Add the span to the coverage, joined with those it touches; whether that is new."""
    joined = min([start_ms, *(start for start, _ in spans)]), max([end_ms, *(end for _, end in spans)])
    if spans == [joined]:
        return False
    if spans:
        conn.execute(_UNPROVE, (*series, spans[0][0], spans[-1][0]))
    conn.execute(_PROVE, (*series, *joined))
    conn.execute(_FORGET_FAILURES, (*series, *joined))
    return True
