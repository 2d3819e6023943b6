"""Opening a database without harming it: what the file is, who else writes to it, and what may be done with it.

Whose file it is, is found out over connections that cannot write, and never by opening the file ourselves: closing it
again would drop the locks that another connection of this process holds (https://www.sqlite.org/howtocorrupt.html,
2.2). Only then one opener at a time gets to write, by a lock on ``<file>.lock`` that the system takes back from a
process that is killed. There is one connection that writes and checkpoints: two of them would meet the WAL-reset bug of
SQLite before 3.51.3 (https://www.sqlite.org/wal.html).

A new file is made beside its place and put there when it is whole, so that what lies there is a database or nothing.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import attrs
from filelock import FileLock, Timeout
from sqlite_utils import Database

from marketpipe.errors import StoreError
from marketpipe.store.refusals import refusals
from marketpipe.store.schema import APPLICATION_ID, STEPS, Step, migrate

__all__ = ["MEMORY", "Access", "Reading", "open_database"]

MEMORY = ":memory:"
HELD = "another program, or another pipeline of this one, writes to it"

# STRICT tables came with 3.37, the shared memory databases of the "memdb" file system with 3.36.
LEAST_SQLITE = (3, 37, 0)
# How long a connection waits for another. Ours never wait in a file (WAL), but people's tools may lock it; in memory a
# reader waits for the writer.
FILE_WAIT_S = 5.0
MEMORY_WAIT_S = 60.0
# What of the log is kept on disk once it has been copied into the database.
JOURNAL_LIMIT_BYTES = 16 * 1024 * 1024

_numbers = itertools.count(1)


@attrs.frozen
class Reading:
    """A connection that reads. What came over it counts if ``is_current`` is true afterwards; if not, make another."""

    conn: sqlite3.Connection
    is_current: Callable[[], bool] = lambda: True


@attrs.frozen
class Access:
    """What opening gave: ``writer``, or None and ``why`` not, and how to make a connection that reads, see `Reading`.

    ``is_in_place`` tells whether what is written still goes to the file that is found under its name.
    """

    writer: Database | None
    why: str
    connect: Callable[[], Reading]
    lock: FileLock | None = None
    is_in_place: Callable[[], bool] = lambda: False  # a view writes nowhere


def open_database(name: str, source: str, steps: Sequence[Step] = STEPS) -> Access:
    """Open or create the database ``name``, a path or ``":memory:"``, of the exchange ``source``.

    A file that cannot be written, or that another opener writes to, is opened for reading. `StoreError` for whatever is
    no such database; it is left as it is.
    """
    if sqlite3.sqlite_version_info < LEAST_SQLITE:
        least = ".".join(map(str, LEAST_SQLITE))
        raise StoreError(f"{name}: needs SQLite {least} or newer, was {sqlite3.sqlite_version}")
    with refusals(name, "open"):
        return _in_memory(name, source, steps) if name == MEMORY else _File(name, source, steps).open()


def _in_memory(name: str, source: str, steps: Sequence[Step]) -> Access:
    # Two connections to one database, as with a file, and as safe. (SQLite's older way to share one, the shared cache,
    # answers a reader beside a writer with "table is locked".)
    uri = f"file:/marketpipe-{next(_numbers)}?vfs=memdb"
    with ExitStack() as undo:
        writer = Database(_connection(uri, MEMORY_WAIT_S), execute_plugins=False)
        undo.callback(writer.close)
        _lay_out(writer, source, steps)
        undo.pop_all()
        return Access(
            writer, "", lambda: Reading(_connection(f"{uri}&mode=ro", MEMORY_WAIT_S)), is_in_place=lambda: True
        )


class _File:
    def __init__(self, name: str, source: str, steps: Sequence[Step]) -> None:
        self._name = name
        self._source = source
        self._steps = steps
        # The lock and the log belong to the file itself, whatever links lead to it.
        self._path = Path(os.path.realpath(name))

    def open(self) -> Access:
        if self._is_there():
            with closing(self._looking().conn) as conn:
                self._identify(conn)
        else:
            _make_folder(self._path.parent)
        why = self._why_unwritable()
        try:
            lock = None if why else self._locked()
        except PermissionError:
            lock, why = None, "its lock file may not be written"
        if lock is None:
            return self._view(why or HELD, self._looking if why else self._reading)
        with ExitStack() as undo:
            undo.callback(lock.release)
            if not self._is_there():
                self._create()
            writer = Database(self._connection("rw"), execute_plugins=False)
            undo.callback(writer.close)
            self._identify(writer.conn)  # again: before we held the lock, somebody else may have
            _set_up(self._name, writer)
            migrate(writer, self._steps)
            undo.pop_all()
            return Access(writer, "", self._reading, lock, partial(self._is_still, self._path.stat()))

    def _view(self, why: str, connect: Callable[[], Reading]) -> Access:
        if not self._is_there():
            raise self._refused(f"does not exist yet, and cannot be made: {why}")
        with closing(connect().conn) as conn:
            version = self._identify(conn)
        if version < len(self._steps):
            raise self._refused(f"has schema {version} and must be brought to {len(self._steps)} first, but {why}")
        return Access(None, why, connect)

    def _is_there(self) -> bool:
        """Whether there is something at the path; nothing but an empty file is as good as nothing."""
        found = self._path.stat() if self._path.exists() else None
        if found is not None:
            if not stat.S_ISREG(found.st_mode):
                raise self._refused("is a folder" if stat.S_ISDIR(found.st_mode) else "is no ordinary file")
            if not os.access(self._path, os.R_OK):
                raise self._refused("may not be read by this user")
            if found.st_size:
                return True
        for log in (self._beside("-wal"), self._beside("-journal")):
            if log.exists() and log.stat().st_size:
                state = "is missing" if found is None else "is empty"
                raise self._refused(f"{state}, but {log.name} holds writes to it: put it back, or remove that as well")
        return False

    def _identify(self, conn: sqlite3.Connection) -> int:
        """The version of the database; `StoreError` if it is none of ours, or not of our exchange."""
        ((page_bytes,), (pages,)) = (conn.execute(f"PRAGMA {name}").fetchone() for name in ("page_size", "page_count"))
        if not self._beside("-wal").exists() and self._path.stat().st_size < page_bytes * pages:
            raise self._refused("is damaged: its end is missing")
        (application,) = conn.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION_ID:
            raise self._refused("is a database of another program; it was left as it is")
        version: int = conn.execute("PRAGMA user_version").fetchone()[0]
        if version > len(self._steps):
            raise self._refused(f"was made by a newer marketpipe (schema {version}, this one knows {len(self._steps)})")
        ((source,),) = conn.execute("SELECT value FROM meta WHERE key = 'source'").fetchall() or [("nobody",)]
        if source != self._source:
            raise self._refused(f"holds the data of {source}, not of {self._source}")
        return version

    def _is_still(self, opened: os.stat_result) -> bool:
        try:
            return os.path.samestat(opened, self._path.stat())
        except FileNotFoundError:
            return False

    def _why_unwritable(self) -> str:
        if self._path.exists() and not os.access(self._path, os.W_OK):
            return "the file is read-only"
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            return "its folder is read-only"
        return ""

    def _locked(self) -> FileLock | None:
        """The lock, if nobody holds it. A soft lock, left behind by a process that was killed, would never be free."""
        lock = FileLock(self._beside(".lock"), mode=0o600, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return lock

    def _create(self) -> None:
        new = self._beside(".new")
        leftovers = [new.with_name(new.name + ending) for ending in ("", "-journal", "-wal", "-shm")]
        with ExitStack() as undo:
            for leftover in leftovers:
                leftover.unlink(missing_ok=True)
                undo.callback(leftover.unlink, missing_ok=True)
            os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # SQLite gives its files the same mode
            with closing(_connection(f"{new.as_uri()}?mode=rw", FILE_WAIT_S)) as conn:
                db = Database(conn, execute_plugins=False)
                _lay_out(db, self._source, self._steps)
                _set_up(self._name, db)
            new.replace(self._path)
        _settle(self._path.parent)

    def _looking(self) -> Reading:
        # Without a log there is no writer, and to look at the file itself needs no right to write beside it and leaves
        # nothing there; what others may have left there, under their name, would keep the owner from writing. But then
        # SQLite looks for no changes: as soon as there may be some, what it has read is good for nothing.
        seen = self._as_seen()
        if seen is None:
            return self._reading()
        return Reading(self._connection("ro&immutable=1"), lambda: self._as_seen() == seen)

    def _as_seen(self) -> tuple[int, ...] | None:
        """What is different once the file has changed; None while it has a log, or is gone."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        if self._beside("-wal").exists():
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _reading(self) -> Reading:
        return Reading(self._connection("ro"))

    def _connection(self, mode: str) -> sqlite3.Connection:
        return _connection(f"{self._path.as_uri()}?mode={mode}", FILE_WAIT_S)

    def _beside(self, ending: str) -> Path:
        return self._path.with_name(self._path.name + ending)

    def _refused(self, words: str) -> StoreError:
        return StoreError(f"{self._name}: {words}")


def _connection(uri: str, wait_s: float) -> sqlite3.Connection:
    # Transactions are sqlite-utils' business: without an isolation level the driver opens none of its own.
    return sqlite3.connect(uri, wait_s, uri=True, isolation_level=None, check_same_thread=False)


def _lay_out(db: Database, source: str, steps: Sequence[Step]) -> None:
    with db.atomic():
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrate(db, steps)
        db.execute("INSERT INTO meta (key, value) VALUES ('source', ?)", [source])


def _set_up(name: str, db: Database) -> None:
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(f"{name}: cannot have a write-ahead log on this file system, only {mode!r}")
    # A process that is killed loses nothing; a machine that loses power may lose the last transactions, but no more.
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA journal_size_limit = {JOURNAL_LIMIT_BYTES}")


def _make_folder(folder: Path) -> None:
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)


def _settle(folder: Path) -> None:
    # A new name is in its folder for good only when the folder is written.
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
