"""What SQLite and the file system refuse, as `StoreError` in one line that names the file.

Neither statements nor values are in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from marketpipe.errors import StoreError

__all__ = ["refusals"]

# By primary result code (https://www.sqlite.org/rescode.html); the extended one is in the name beside the words.
_WORDS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "another program keeps it locked",
    sqlite3.SQLITE_LOCKED: "another program keeps it locked",
    sqlite3.SQLITE_IOERR: "the disk fails",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_PERM: "it is read-only",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_NOTADB: "the file is no database, or damaged",
}


@contextmanager
def refusals(name: str, doing: str) -> Iterator[None]:
    """Tell what is refused inside as a `StoreError`: ``name``, what could not be done, and why.

    An error without a result code of SQLite is a mistake in our own statement, and stays what it is.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            raise
        words = _WORDS.get(code & 0xFF, "SQLite refuses")
        raise StoreError(f"{name}: cannot {doing}: {words} ({error.sqlite_errorname}: {error})") from error
    except msgspec.ValidationError as error:
        raise StoreError(f"{name}: cannot {doing}: a row says what nothing can mean ({error})") from error
    except OSError as error:
        raise StoreError(f"{name}: cannot {doing}: {error.strerror or error}") from error
