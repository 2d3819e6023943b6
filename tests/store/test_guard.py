"""Opening: what is refused and left alone, what can only be read, and who may write."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlite_utils import Database
from store.paper_store import M1, MARKET, SOURCE, another, covered, full, opened, volumes

from marketpipe.errors import StoreError
from marketpipe.store import guard, reading
from marketpipe.store.sqlite import SqliteStore
from marketpipe.store.values import Finding, Flaw

POSIX = pytest.mark.skipif(os.name != "posix", reason="rights and links of POSIX")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with some bars, as a store left it."""
    path = tmp_path / "history.db"
    with opened(path) as store:
        store.write([full(0, 400)], now_ms=1)
    (tmp_path / "history.db.lock").unlink()
    return path


def edited(path: Path, *statements: str) -> None:
    conn = sqlite3.connect(path)
    for statement in statements:
        conn.execute(statement)
    conn.commit()
    conn.close()


def picture(folder: Path) -> dict[str, bytes | None]:
    """Every name in ``folder`` and what is in it."""
    return {str(each.relative_to(folder)): each.read_bytes() if each.is_file() else None for each in folder.rglob("*")}


# -- refusals ---------------------------------------------------------------------------------------------------------


def text(path: Path) -> None:
    path.write_text("market,open,high,low,close\n" * 500)


def short_text(path: Path) -> None:
    path.write_text("hello")


def of_another_program(path: Path) -> None:
    path.unlink()
    edited(path, "CREATE TABLE candles (market TEXT)", "PRAGMA user_version = 1")


def of_another_program_with_a_log(path: Path) -> None:
    path.unlink()
    edited(path, "PRAGMA journal_mode = WAL", "CREATE TABLE candles (market TEXT)", "PRAGMA application_id = 7")


def cut_at_a_page(path: Path) -> None:
    os.truncate(path, 3 * 4096)


def cut_within_the_last_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def cut_within_the_first_page(path: Path) -> None:
    os.truncate(path, 50)


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"x" * 8092)


def newer(path: Path) -> None:
    edited(path, "PRAGMA user_version = 7")


def without_a_source(path: Path) -> None:
    edited(path, "DELETE FROM meta")


def without_tables(path: Path) -> None:
    edited(path, "DROP TABLE meta")


def of_another_exchange(path: Path) -> None:
    edited(path, "UPDATE meta SET value = 'http://127.0.0.1:8600' WHERE key = 'source'")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def gone_but_for_its_log(path: Path) -> None:
    path.rename(path.with_name("history.db-wal"))


def emptied_but_for_its_log(path: Path) -> None:
    path.rename(path.with_name("history.db-wal"))
    path.touch()


REFUSED: dict[Callable[[Path], None], str] = {
    text: "the file is no database, or damaged",
    short_text: "the file is no database, or damaged",
    of_another_program: "is a database of another program; it was left as it is",
    of_another_program_with_a_log: "is a database of another program; it was left as it is",
    cut_at_a_page: "the file is damaged",
    cut_within_the_last_page: "is damaged: its end is missing",
    cut_within_the_first_page: "the file is damaged",
    overwritten: "the file is damaged",
    newer: "was made by a newer marketpipe (schema 7, this one knows 1)",
    without_a_source: f"holds the data of nobody, not of {SOURCE}",
    without_tables: "no such table: meta",
    of_another_exchange: f"holds the data of http://127.0.0.1:8600, not of {SOURCE}",
    folder: "is a folder",
    pipe: "is no ordinary file",
    gone_but_for_its_log: "is missing, but history.db-wal holds writes to it",
    emptied_but_for_its_log: "is empty, but history.db-wal holds writes to it",
}


@POSIX
@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: spoil.__name__)
def test_what_is_no_database_of_ours_is_refused_and_left_as_it_is(path: Path, spoil: Callable[[Path], None]):
    spoil(path)
    before = picture(path.parent)
    with pytest.raises(StoreError) as caught:
        opened(path)
    assert REFUSED[spoil] in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert picture(path.parent) == before


@POSIX
def test_a_folder_that_is_a_file_cannot_hold_a_database(path: Path):
    before = picture(path.parent)
    with pytest.raises(StoreError, match="cannot open: Not a directory"):
        opened(path / "deeper" / "history.db")
    assert picture(path.parent) == before


def test_an_older_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "LEAST_SQLITE", (99, 1, 0))
    with pytest.raises(StoreError, match=r"needs SQLite 99\.1\.0 or newer, was "):
        opened(path)


def test_a_file_system_that_cannot_keep_a_log_is_refused():
    with pytest.raises(StoreError, match=r"h\.db: cannot have a write-ahead log on this file system, only 'memory'"):
        guard._set_up("h.db", Database(memory=True))


def test_errors_say_what_went_wrong_and_keep_their_cause(path: Path):
    text(path)
    with pytest.raises(StoreError, match="file is not a database") as caught:
        opened(path)
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)


# -- new files --------------------------------------------------------------------------------------------------------


@POSIX
def test_a_new_database_and_its_folders_are_nobody_elses_business(tmp_path: Path):
    path = tmp_path / "deep" / "deeper" / "history.db"
    mask = os.umask(0)
    try:
        with opened(path) as store:
            store.write([full(0, 3)], now_ms=1)
            files = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    finally:
        os.umask(mask)
    assert files == dict.fromkeys(["history.db", "history.db-wal", "history.db-shm", "history.db.lock"], 0o600)
    assert {stat.S_IMODE(each.stat().st_mode) for each in (path.parent, path.parent.parent)} == {0o700}


def test_an_empty_file_is_a_new_database(tmp_path: Path):
    path = tmp_path / "history.db"
    path.touch()
    with opened(path) as store:
        assert not store.read_only
        store.write([full(0, 3)], now_ms=1)
    with opened(path) as store:
        assert len(volumes(store)) == 3


def test_what_a_creation_left_behind_that_was_killed_is_in_nobodys_way(tmp_path: Path):
    for ending in (".new", ".new-wal", ".new-journal"):
        (tmp_path / f"history.db{ending}").write_text("half a database")
    with opened(tmp_path / "history.db") as store:
        store.write([full(0, 3)], now_ms=1)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["history.db", "history.db.lock"]


@pytest.mark.parametrize(
    "name", ["with space.db", "what?mode=memory.db", "50%.db", "a#b.db", "비트코인.db", "a&b=c.db"]
)
def test_any_name_will_do(tmp_path: Path, name: str):
    with opened(str(tmp_path / name)) as store:
        store.write([full(0, 3)], now_ms=1)
    assert {each.name for each in tmp_path.iterdir()} == {name, f"{name}.lock"}
    with opened(tmp_path / name) as store:
        assert len(volumes(store)) == 3


# -- one writes, any number read --------------------------------------------------------------------------------------

WRITER = """
import sys
sys.path.insert(0, "tests")
from store.paper_store import *
with opened(sys.argv[1]) as store:
    print("read only" if store.read_only else "writes", flush=True)
    for number, line in enumerate(sys.stdin):
        store.write([full(number * 10, number * 10 + 10)], now_ms=1)
        print("written", flush=True)
"""


@pytest.mark.slow
def test_a_second_process_reads_while_the_first_one_writes(tmp_path: Path):
    path = tmp_path / "history.db"
    with another(WRITER, path) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None

        def written() -> None:
            writer.stdin.write("more\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "written\n"

        assert writer.stdout.readline() == "writes\n"
        written()
        with opened(path) as view:
            assert view.read_only
            assert view.why == "another program, or another pipeline of this one, writes to it"
            for slots in (10, 20, 30):
                assert len(volumes(view)) == slots
                assert covered(view) == [(0, slots)]
                with pytest.raises(StoreError, match="it is open for reading only, since another program"):
                    view.write([full(0, 1)], now_ms=1)
                with pytest.raises(StoreError, match="it is open for reading only"):
                    view.note_failure(MARKET, M1, 0, 1, "503", "", 1)
                written()
            assert view.integrity() == ()
            writer.kill()
            writer.wait()
            assert len(volumes(view)) == 40
            with opened(path) as store:  # the lock of a process that was killed is free
                assert not store.read_only
                store.write([full(40, 50)], now_ms=1)
                assert len(volumes(view)) == 50
        with opened(path) as store:
            assert len(volumes(store)) == 50
            assert store.integrity() == ()


@pytest.mark.slow
def test_a_second_process_gets_a_view_and_the_first_one_goes_on_writing(tmp_path: Path):
    path = tmp_path / "history.db"
    with opened(path) as store:
        with another(WRITER, path) as view:
            assert view.stdout is not None
            assert view.stdout.readline() == "read only\n"
            store.write([full(0, 10)], now_ms=1)
        store.write([full(10, 20)], now_ms=1)
        assert store.integrity() == ()
    with opened(path) as store:
        assert len(volumes(store)) == 20


def test_the_second_opener_of_one_process_gets_a_view_and_takes_no_lock_away(tmp_path: Path):
    path = tmp_path / "history.db"
    with opened(path) as store:
        for slots in (10, 20):
            store.write([full(slots - 10, slots)], now_ms=1)
            with opened(path) as view:
                assert (view.read_only, len(volumes(view))) == (True, slots)
        outsider = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)  # as the last one, it would remove the log
        outsider.close()
        store.write([full(20, 30)], now_ms=1)
    with opened(path) as store:
        assert (store.read_only, store.why, len(volumes(store))) == (False, "", 30)


def test_a_view_made_while_the_writer_is_still_opening_sees_what_it_writes(path: Path):
    lock = guard.FileLock(f"{path}.lock", thread_local=False)
    lock.acquire()
    with opened(path) as view:
        assert view.read_only
        lock.release()
        with opened(path) as store:
            store.write([full(400, 410)], now_ms=1)
            assert len(volumes(view)) == 410


def test_one_thread_may_open_and_another_close(path: Path):
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        store = one.submit(opened, path).result()
        other.submit(store.close).result()
    with opened(path) as store:
        assert not store.read_only


@POSIX
def test_a_link_is_the_file_it_leads_to(path: Path):
    link = path.parent / "link.db"
    link.symlink_to(path)
    with opened(path), opened(link) as view:
        assert view.read_only
    with opened(link), opened(path) as view:
        assert view.read_only
    assert not (path.parent / "link.db.lock").exists()


def test_a_view_is_of_the_same_exchange_too(path: Path):
    with opened(path), pytest.raises(StoreError, match="holds the data of https"):
        opened(path, source="http://127.0.0.1:1")


def test_a_database_that_is_being_made_cannot_be_viewed_yet(tmp_path: Path):
    path = tmp_path / "history.db"
    lock = guard.FileLock(str(path) + ".lock", thread_local=False)
    with lock, pytest.raises(StoreError, match="does not exist yet, and cannot be made: another program"):
        opened(path)
    with opened(path) as store:
        assert not store.read_only


# -- rights -----------------------------------------------------------------------------------------------------------

# Root may write everywhere, so this becomes somebody else.
ATTEMPT = """
import json, os, sys
sys.path.insert(0, "tests")
from store.paper_store import *
from marketpipe.errors import StoreError
if os.geteuid() == 0:
    nobody = int(sys.argv[2])
    os.setgroups([])
    os.setresgid(nobody, nobody, nobody)
    os.setresuid(nobody, nobody, nobody)
try:
    store = opened(sys.argv[1])
except StoreError as error:
    print(json.dumps({"refused": str(error)}))
    sys.exit()
told = {"why": store.why, "bars": len(volumes(store)), "findings": len(store.integrity())}
try:
    store.write([full(500, 501)], now_ms=1)
except StoreError as error:
    told["written"] = str(error)
else:
    told["written"] = "yes"
store.close()
print(json.dumps(told))
"""
NOBODY = 65534


def attempted(path: Path) -> dict[str, object]:
    with another(ATTEMPT, path, NOBODY) as process:
        told, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(told)


@pytest.fixture
def theirs(path: Path) -> Iterator[Path]:
    """The database in a folder that is open to whom `attempted` runs as."""
    folder = Path(tempfile.mkdtemp(prefix="marketpipe-rights-"))
    mine = Path(shutil.copy(path, folder))
    if os.geteuid() == 0:
        for each in (folder, mine):
            os.chown(each, NOBODY, NOBODY)
    yield mine
    folder.chmod(0o700)
    shutil.rmtree(folder)


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize(
    ("of_file", "of_folder", "why"),
    [
        (0o400, 0o700, "the file is read-only"),
        (0o600, 0o500, "its folder is read-only"),
        (0o400, 0o500, "the file is read-only"),
    ],
)
def test_what_may_not_be_written_is_read(theirs: Path, of_file: int, of_folder: int, why: str):
    before = picture(theirs.parent)
    theirs.chmod(of_file)
    theirs.parent.chmod(of_folder)
    refused = f"{theirs}: cannot write: it is open for reading only, since {why}"
    assert attempted(theirs) == {"why": why, "bars": 400, "findings": 0, "written": refused}
    assert picture(theirs.parent) == before


@POSIX
@pytest.mark.slow
def test_what_may_be_written_is_written(theirs: Path):
    assert attempted(theirs) == {"why": "", "bars": 400, "findings": 0, "written": "yes"}


@POSIX
@pytest.mark.slow
def test_what_may_not_be_read_is_refused(theirs: Path):
    theirs.chmod(0o000)
    (words,) = attempted(theirs).values()
    assert words == f"{theirs}: may not be read by this user"


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("name", ["new.db", "deep/new.db"])
def test_where_nothing_may_be_made_nothing_is(theirs: Path, name: str):
    theirs.parent.chmod(0o500)
    (words,) = attempted(theirs.parent / name).values()
    assert str(words).startswith(f"{theirs.parent / name}: ")
    assert ("its folder is read-only" if name == "new.db" else "Permission denied") in str(words)


@POSIX
@pytest.mark.slow
def test_a_lock_file_of_somebody_else_leaves_a_view(theirs: Path):
    lock = theirs.with_name("history.db.lock")
    lock.touch()
    lock.chmod(0o000)
    told = attempted(theirs)
    assert told["why"] == "its lock file may not be written"
    assert told["bars"] == 400


@pytest.fixture
def view(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    """What somebody sees who may write neither the file nor beside it, while others may."""
    with monkeypatch.context() as rights:
        rights.setattr(guard._File, "_why_unwritable", lambda self: "the file is read-only")
        store = opened(path)
    with store:
        assert (store.read_only, store.why) == (True, "the file is read-only")
        assert (len(volumes(store)), covered(store)) == (400, [(0, 400)])
        yield store


def test_a_view_of_a_file_that_may_not_be_written_sees_what_its_owner_writes(path: Path, view: SqliteStore):
    with opened(path) as owner:
        for slots in range(500, 1_500, 100):
            owner.write([full(slots - 100, slots)], now_ms=1)
            assert (len(volumes(view)), covered(view)) == (slots, [(0, slots)])
            assert view.integrity() == ()
    assert len(volumes(view)) == 1_400


def test_a_view_sees_what_its_owner_wrote_while_nobody_looked(path: Path, view: SqliteStore):
    for slots in (500, 1_500):
        with opened(path) as owner:
            owner.write([full(400, slots)], now_ms=1)
        assert not Path(f"{path}-wal").exists()
        assert len(volumes(view)) == slots
        assert view.integrity() == ()


def test_a_view_does_not_keep_what_it_read_while_the_file_changed(path: Path, view: SqliteStore):
    """Half of it may be from before and half from after."""
    looks = 0

    def read(conn: sqlite3.Connection) -> int:
        nonlocal looks
        looks += 1
        (count,) = conn.execute("SELECT count(*) FROM candles").fetchone()
        if looks == 1:
            with opened(path) as owner:
                owner.write([full(400, 500)], now_ms=1)
        return count

    assert view._read(read) == 500
    assert looks == 2


def test_what_is_damaged_in_a_file_that_is_quiet_is_told(path: Path, view: SqliteStore):
    def read(conn: sqlite3.Connection) -> None:
        raise sqlite3.DatabaseError("malformed")

    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        view._read(read)


def test_a_view_of_a_file_that_never_rests_gives_up(path: Path, view: SqliteStore):
    def read(conn: sqlite3.Connection) -> None:
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000_000))

    with pytest.raises(StoreError, match="cannot read: it keeps changing"):
        view._read(read)


def test_a_view_of_a_file_that_has_gone_says_so(path: Path, view: SqliteStore):
    path.unlink()
    with pytest.raises(StoreError, match="cannot read: the file cannot be opened"):
        volumes(view)


@pytest.mark.parametrize("fails", [True, False])
def test_a_check_does_not_keep_what_it_found_while_the_file_changed(
    fails: bool, path: Path, view: SqliteStore, monkeypatch: pytest.MonkeyPatch
):
    checked: list[int] = []

    def findings(conn: sqlite3.Connection) -> Iterator[Finding]:
        checked.extend(conn.execute("SELECT count(*) FROM candles").fetchone())
        if len(checked) == 1:
            with opened(path) as owner:
                owner.write([full(400, 500)], now_ms=1)
            if fails:
                raise sqlite3.OperationalError("disk I/O error")
            yield Finding(Flaw.DAMAGED, "torn")

    monkeypatch.setattr(reading, "findings", findings)
    assert view.integrity() == ()
    assert checked == [400, 500]


def test_a_check_of_a_file_that_never_rests_gives_up(path: Path, view: SqliteStore, monkeypatch: pytest.MonkeyPatch):
    def findings(conn: sqlite3.Connection) -> Iterator[Finding]:
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000_000))
        yield from ()

    monkeypatch.setattr(reading, "findings", findings)
    with pytest.raises(StoreError, match="cannot check: it keeps changing"):
        view.integrity()
