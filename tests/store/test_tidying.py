"""Putting a ledger in order that somebody else has had in his hands."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from store.paper_store import EVER, M1, MARKET, covered, full, opened, opens, piece, volumes

from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import StoreError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Forty bars in two proven spans: slots 0 to 29 and 50 to 59; and three months."""
    path = tmp_path / "history.db"
    with opened(path) as store:
        months = piece(0, 3, range(3), timeframe=Timeframe.MONTH)
        store.write([full(0, 30), full(50, 60), months], now_ms=1)
    return path


def edited(path: Path, *statements: str) -> None:
    conn = sqlite3.connect(path)
    for statement in statements:
        conn.execute(statement)
    conn.commit()
    conn.close()


def span(first: int, end: int) -> str:
    return f"INSERT INTO coverage VALUES ('{MARKET}', '1m', {opens(first)}, {opens(end)})"


def test_what_is_in_order_stays_as_it_is(path: Path):
    with opened(path) as store:
        before = covered(store), volumes(store), store.series()
        store.tidy()
        assert (covered(store), volumes(store), store.series()) == before
        assert store.integrity() == ()


def test_spans_that_touch_or_overlap_become_one(path: Path):
    edited(path, span(10, 20), span(30, 33), span(32, 50))
    with opened(path) as store:
        store.tidy()
        assert covered(store) == [(0, 60)]
        assert store.integrity() == ()


def test_a_span_is_cut_to_whole_slots_and_never_widened(path: Path):
    edited(path, f"UPDATE coverage SET start_ms = start_ms + 1, end_ms = end_ms - 1 WHERE start_ms = {opens(50)}")
    with opened(path) as store:
        store.tidy()
        assert covered(store) == [(0, 30), (51, 59)]
        assert [finding.kind for finding in store.integrity()] == ["UNCOVERED", "UNCOVERED"]


def test_a_span_within_one_slot_proves_nothing(path: Path):
    edited(path, f"INSERT INTO coverage VALUES ('{MARKET}', '1m', {opens(40) + 1}, {opens(41) - 1})")
    with opened(path) as store:
        store.tidy()
        assert covered(store) == [(0, 30), (50, 60)]


def test_the_beginning_of_all_history_is_a_boundary_and_what_lies_before_it_is_cut_off(path: Path):
    edited(
        path,
        f"INSERT INTO coverage VALUES ('{MARKET}', '1w', 0, 345600000)",
        f"INSERT INTO coverage VALUES ('{MARKET}', '1h', -3600000, 3600000)",
    )
    with opened(path) as store:
        store.tidy()
        assert store.coverage(MARKET, Timeframe.W1, *EVER).covers(0, 345_600_000)
        assert list(store.coverage(MARKET, Timeframe.H1, -(1 << 40), 1 << 50)) == [(0, 3_600_000)]


def test_where_a_bar_is_lost_or_slipped_in_nothing_is_proven_any_more(path: Path):
    """The slot of a bar that was deleted would look empty otherwise."""
    edited(path, f"DELETE FROM candles WHERE timeframe = '1m' AND open_ms = {opens(7)}")
    with opened(path) as store:
        store.tidy()
        assert covered(store) == []
        assert len(volumes(store)) == 39
        assert store.coverage(MARKET, Timeframe.MONTH, *EVER)
        assert [each.bars for each in store.series()] == [3, 39]
        assert {finding.kind for finding in store.integrity()} == {"UNCOVERED"}


def test_a_series_that_was_never_counted_is_counted(path: Path):
    edited(path, "DELETE FROM series")
    with opened(path) as store:
        store.tidy()
        assert [each.bars for each in store.series()] == [3, 40]


def test_what_stands_under_no_timeframe_is_left_alone(path: Path):
    edited(path, f"INSERT INTO coverage VALUES ('{MARKET}', '7m', 1, 3)")
    with opened(path) as store:
        store.tidy()
        assert [finding.timeframe for finding in store.integrity()] == ["7m"]


def test_a_database_that_is_only_read_is_not_tidied(path: Path):
    with opened(path), opened(path) as second, pytest.raises(StoreError, match="for reading only"):
        second.tidy()


def test_after_tidying_writing_goes_on(path: Path):
    edited(path, span(10, 20))
    with opened(path) as store:
        store.tidy()
        store.write([full(30, 50)], now_ms=2)
        assert covered(store) == [(0, 60)]
        assert store.bars(MARKET, M1, *EVER)
        assert store.integrity() == ()
