"""From version to version: every step happens wholly or not at all, and nothing that was stored is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlite_utils import Database
from store.paper_store import SOURCE, full, volumes

from marketpipe.errors import StoreError
from marketpipe.store.guard import open_database
from marketpipe.store.schema import APPLICATION_ID, STEPS, Step
from marketpipe.store.sqlite import SqliteStore


def second(db: Database) -> None:
    db.execute("CREATE TABLE markets (market TEXT PRIMARY KEY, name TEXT) STRICT")
    db.execute("ALTER TABLE candles ADD COLUMN origin TEXT NOT NULL DEFAULT 'REST'")
    db.execute("INSERT INTO markets SELECT DISTINCT market, 'Bitcoin' FROM candles")


def third(db: Database) -> None:
    db.execute("UPDATE markets SET name = 'BTC'")


def failing(db: Database) -> None:
    db.execute("DROP TABLE candles")
    db.execute("DROP TABLE what_is_not_there")


def opened_as(path: Path, steps: Sequence[Step]) -> SqliteStore:
    """Opened by a program that knows these steps."""
    return SqliteStore(str(path), open_database(str(path), SOURCE, steps))


def asked(path: Path, sql: str) -> list[tuple[object, ...]]:
    conn = sqlite3.connect(path)
    rows = conn.execute(sql).fetchall()
    conn.close()
    return rows


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database as the first version made it, from its statements."""
    path = tmp_path / "history.db"
    with opened_as(path, STEPS[:1]) as store:
        store.write([full(0, 300)], now_ms=1)
    assert asked(path, "PRAGMA user_version") == [(1,)]
    return path


def test_a_new_database_has_gone_through_every_step(tmp_path: Path):
    path = tmp_path / "history.db"
    with opened_as(path, [*STEPS, second, third]):
        pass
    assert asked(path, "PRAGMA user_version") == [(3,)]
    assert asked(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert asked(path, "SELECT * FROM markets") == []


def test_an_old_database_is_brought_up_to_date_once_with_all_that_is_in_it(old: Path):
    for bars in (300, 301):
        with opened_as(old, [*STEPS, second, third]) as store:
            assert len(volumes(store)) == bars
            assert store.integrity() == ()
            store.write([full(0, bars + 1)], now_ms=1)
    assert asked(old, "PRAGMA user_version") == [(3,)]
    assert asked(old, "SELECT * FROM markets") == [("KRW-BTC", "BTC")]
    assert asked(old, "SELECT DISTINCT origin FROM candles") == [("REST",)]


def test_a_step_that_fails_leaves_the_version_before_it(old: Path):
    with pytest.raises(StoreError, match="no such table: what_is_not_there"):
        opened_as(old, [*STEPS, second, failing])
    assert asked(old, "PRAGMA user_version") == [(2,)]
    with opened_as(old, [*STEPS, second, third]) as store:
        assert not store.read_only
        assert len(volumes(store)) == 300


def test_a_creation_that_fails_leaves_nothing(tmp_path: Path):
    with pytest.raises(StoreError, match="no such table: what_is_not_there"):
        opened_as(tmp_path / "history.db", [*STEPS, failing])
    assert [each.name for each in tmp_path.iterdir()] == ["history.db.lock"]


def test_a_program_that_does_not_know_a_step_leaves_the_database_alone(old: Path):
    opened_as(old, [*STEPS, second]).close()
    before = old.read_bytes()
    with pytest.raises(StoreError, match=r"was made by a newer marketpipe \(schema 2, this one knows 1\)"):
        opened_as(old, STEPS)
    assert old.read_bytes() == before


def test_an_old_database_that_another_one_writes_to_cannot_be_brought_up_to_date(old: Path):
    with (
        opened_as(old, STEPS),
        pytest.raises(StoreError, match="has schema 1 and must be brought to 2 first, but another program"),
    ):
        opened_as(old, [*STEPS, second])
    assert asked(old, "PRAGMA user_version") == [(1,)]
