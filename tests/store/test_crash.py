"""Killed at any instant, on a full disk, locked out by a tool: what was acknowledged is there, nothing in halves."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from full_disk import disk_of, filled
from store.paper_store import EVER, M1, MARKET, another, covered, full, opened, opens, volumes

from marketpipe.errors import StoreError
from marketpipe.store.refusals import refusals
from marketpipe.store.sqlite import SqliteStore

KILLS = 10
PIECE = 10

# Writes on from where the coverage ends, several pieces at a time, and says after each write how far it is.
ON_AND_ON = """
import sys
sys.path.insert(0, "tests")
from store.paper_store import *
with opened(sys.argv[1]) as store:
    ((_, at),) = covered(store) or [(0, 0)]
    while True:
        store.write([full(at + step, at + step + 10) for step in (20, 0, 10)], now_ms=1)
        at += 30
        print(at, flush=True)
"""


@pytest.mark.slow
def test_what_was_acknowledged_before_a_kill_is_there(tmp_path: Path):
    path = tmp_path / "history.db"
    chance = random.Random(2026)
    done = 0
    for _ in range(KILLS):
        with another(ON_AND_ON, path) as writer:
            assert writer.stdout is not None
            for _ in range(chance.randint(1, 12)):
                done = int(writer.stdout.readline())
            writer.kill()
            # What it said before it died counts too.
            done = max([done, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        with opened(path) as store:
            assert not store.read_only
            ((first, end),) = covered(store)
            assert first == 0
            # At most the write that was under way, and that one whole.
            assert end in (done, done + 3 * PIECE)
            assert [c.open_ms for c in store.bars(MARKET, M1, *EVER)] == [opens(slot) for slot in range(end)]
            assert store.integrity() == ()


# Dies before its first statement, before its second, and so on, until it comes to its end; creation is part of it. Then
# it looks at what that one left.
AT_EVERY_STATEMENT = """
import json, os, signal, sys
sys.path.insert(0, "tests")
from store.paper_store import *
from marketpipe.store import guard

connection = guard._connection

def die_before(number, path, said):
    left = [number]

    def step(statement):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(*args):
        conn = connection(*args)
        conn.set_trace_callback(step)
        return conn

    guard._connection = watched
    with opened(path) as store:
        for at in (0, 6):
            store.write([full(at + 3, at + 6), full(at, at + 3)], now_ms=1)
            os.write(said, b"w")
        store.write([piece(0, 3, [0, bar(1, 2)])], now_ms=1)
        os.write(said, b"a")
    os._exit(0)

number, status = 0, None
while status != 0:
    number += 1
    path = f"{sys.argv[1]}/{number}.db"
    heard, said = os.pipe()
    child = os.fork()
    if not child:
        die_before(number, path, said)
    _, status = os.waitpid(child, 0)
    os.close(said)
    with opened(path) as store, open(heard) as words:
        print(json.dumps([words.read(), store.read_only, covered(store), volumes(store), len(store.integrity())]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_whatever_the_statement_before_which_it_dies_a_write_happened_wholly_or_not_at_all(tmp_path: Path):
    plain = [[slot, "1", 0] for slot in range(12)]
    states: list[tuple[list[list[int]], list[list[object]]]] = [
        ([], []),
        ([[0, 6]], plain[:6]),
        ([[0, 12]], plain),
        ([[0, 12]], [[0, "1", 0], [1, "2", 1], *plain[3:]]),
    ]
    with another(AT_EVERY_STATEMENT, tmp_path) as process:
        lines, _ = process.communicate()
    deaths = [json.loads(line) for line in lines.splitlines()]
    assert process.returncode == 0
    assert len(deaths) > 50
    seen = set()
    for words, read_only, spans, bars, findings in deaths:
        assert (read_only, findings) == (False, 0)
        done = states.index((spans, bars))
        assert done in (len(words), len(words) + 1)
        seen.add((len(words), done))
    assert {done for _, done in seen} == {0, 1, 2, 3}
    assert deaths[-1][0] == "wwa"


# -- a full disk ------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_state_and_later_writes_work(tmp_path: Path):
    with opened(tmp_path / "history.db") as store:
        store.write([full(0, 50)], now_ms=1)
        before = volumes(store), covered(store), store.series()
        writer = store._access.writer
        assert writer is not None
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        with pytest.raises(StoreError, match="cannot write: the disk is full") as caught:
            store.write([full(50, 60), full(60, 2_000)], now_ms=1)
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        assert (volumes(store), covered(store), store.series()) == before
        writer.execute("PRAGMA max_page_count = 1000000").fetchone()
        assert store.write([full(50, 60), full(60, 2_000)], now_ms=1).rows == 1_950
        assert store.integrity() == ()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    with disk_of(1, tmp_path) as folder:
        yield folder


def write_until_full(store: SqliteStore) -> int:
    slot = 0
    with pytest.raises(StoreError, match="the disk is full"):
        while True:
            store.write([full(slot, slot + 50)], now_ms=1)
            slot += 50
    return slot


def test_a_disk_that_fills_up_loses_nothing(small_disk: Path):
    path = small_disk / "history.db"
    with opened(path) as store:
        store.write([full(0, 50)], now_ms=1)
        filler = filled(small_disk)
        end = write_until_full(store)
        for _ in range(3):
            with pytest.raises(StoreError, match="the disk is full"):
                store.write([full(end, end + 50)], now_ms=1)
        assert covered(store) == [(0, max(end, 50))]
        assert len(volumes(store)) == max(end, 50)
        filler.unlink()
        store.write([full(end, end + 50)], now_ms=1)
        assert covered(store) == [(0, end + 50)]
        assert store.integrity() == ()


def test_a_store_that_is_closed_on_a_full_disk_is_closed_and_whole(small_disk: Path, caplog: pytest.LogCaptureFixture):
    path = small_disk / "history.db"
    process = psutil.Process()
    handles = process.num_fds()
    store = opened(path)
    store.write([full(0, 1_000)], now_ms=1)
    filler = filled(small_disk)
    store.close()
    assert "cannot write the log back: the disk is full" in caplog.text
    assert process.num_fds() == handles
    filler.unlink()
    with opened(path) as store:
        assert not store.read_only
        assert len(volumes(store)) == 1_000
        assert store.integrity() == ()


def test_nothing_can_be_made_on_a_full_disk(small_disk: Path):
    filler = filled(small_disk)
    with pytest.raises(StoreError, match="the disk is full"):
        opened(small_disk / "history.db")
    filler.unlink()
    assert not [each for each in small_disk.iterdir() if each.name != "history.db.lock"]
    with opened(small_disk / "history.db") as store:
        assert not store.read_only


# -- others at the file -----------------------------------------------------------------------------------------------


def test_a_tool_that_keeps_the_file_locked_is_named_and_later_writes_work(tmp_path: Path):
    path = tmp_path / "history.db"
    with opened(path) as store:
        store.write([full(0, 5)], now_ms=1)
        assert store._access.writer is not None
        store._access.writer.execute("PRAGMA busy_timeout = 1").fetchone()  # it would wait for seconds
        tool = sqlite3.connect(path, isolation_level=None)
        tool.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="cannot write: another program keeps it locked"):
            store.write([full(5, 10)], now_ms=1)
        assert len(volumes(store)) == 5
        tool.execute("ROLLBACK")
        tool.close()
        store.write([full(5, 10)], now_ms=1)
        assert covered(store) == [(0, 10)]


@pytest.mark.skipif(os.name != "posix", reason="an open file can be moved")
@pytest.mark.parametrize("other", [False, True])
def test_a_file_that_was_taken_away_is_not_written_to(tmp_path: Path, other: bool):
    path = tmp_path / "history.db"
    with opened(path) as store:
        store.write([full(0, 5)], now_ms=1)
        path.rename(tmp_path / "moved.db")
        if other:
            path.write_text("something else")
        with pytest.raises(StoreError, match="cannot write: the file has been moved or deleted"):
            store.write([full(5, 10)], now_ms=1)
        assert len(volumes(store)) == 5
        (tmp_path / "moved.db").replace(path)
        store.write([full(5, 10)], now_ms=1)
    with opened(path) as store:
        assert len(volumes(store)) == 10


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SQLITE_FULL", "the disk is full"),
        ("SQLITE_BUSY_SNAPSHOT", "another program keeps it locked"),
        ("SQLITE_LOCKED_SHAREDCACHE", "another program keeps it locked"),
        ("SQLITE_IOERR_WRITE", "the disk fails"),
        ("SQLITE_READONLY_DBMOVED", "it is read-only"),
        ("SQLITE_CANTOPEN_FULLPATH", "the file cannot be opened"),
        ("SQLITE_CORRUPT_VTAB", "the file is damaged"),
        ("SQLITE_NOTADB", "the file is no database, or damaged"),
        ("SQLITE_NOMEM", "SQLite refuses"),
    ],
)
def test_trouble_has_a_name(name: str, words: str):
    trouble = sqlite3.OperationalError("as SQLite says it")
    trouble.sqlite_errorcode, trouble.sqlite_errorname = getattr(sqlite3, name), name
    with pytest.raises(StoreError) as caught, refusals("history.db", "write"):
        raise trouble
    assert str(caught.value) == f"history.db: cannot write: {words} ({name}: as SQLite says it)"
    assert caught.value.__cause__ is trouble


def test_a_mistake_in_our_own_statement_is_no_trouble_of_the_database(tmp_path: Path):
    with opened(tmp_path / "history.db") as store, pytest.raises(sqlite3.ProgrammingError):
        store.note_failure(MARKET, M1, 0, 60_000, object(), "no text", 1)  # type: ignore[arg-type]
