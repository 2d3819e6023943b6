"""The database of collected candles: a file of SQLite that one opener writes and any number read.

It takes in `Piece`s, and a piece whole or not at all: the bars, and that the span is proven, in one transaction. What
was acknowledged survives the death of the process at any instant. Where a piece contradicts what is stored, the piece
counts, and the old row is kept as evidence.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from marketpipe.core.history import Piece
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import StoreError
from marketpipe.logs import fields
from marketpipe.store.guard import MEMORY, Access, open_database
from marketpipe.store.reading import Reader, interrupt
from marketpipe.store.refusals import refusals
from marketpipe.store.rows import rows_of
from marketpipe.store.tidying import tidy
from marketpipe.store.values import Written
from marketpipe.store.writing import add_up, note, refuse_impossible, take

__all__ = ["MEMORY", "SqliteStore"]

logger = logging.getLogger("marketpipe.store")


class SqliteStore(Reader):
    """An open database. It reads over one connection and writes over another: a read may run beside a write.

    Calls may come from any thread, reads one at a time and writes one at a time: there is no lock in here.

    ``read_only`` is True for a file that cannot be written, or that another opener writes to; ``why`` says which. What
    the other one writes is seen.
    """

    def __init__(self, name: str, access: Access) -> None:
        self._access = access
        super().__init__(name, access.connect)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, source: str) -> SqliteStore:
        """Open the database at ``path``, or make a new one there, with its folder; ``":memory:"`` keeps it in memory.

        ``source`` names the exchange whose data it holds, such as ``https://api.upbit.com``; a file of another one is
        refused. So is, without being touched, whatever is no such database, is damaged, or was made by a newer version:
        `StoreError`, in one line. A file of an older version is brought up to date.
        """
        name = os.fspath(path)
        access = open_database(name, source)
        with ExitStack() as undo:
            undo.callback(_release, access)
            with refusals(name, "open"):
                store = cls(name, access)
            undo.pop_all()
            return store

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written."""
        return self._access.writer is None

    @property
    def why(self) -> str:
        """Why nothing can be written, in words; "" if it can be."""
        return self._access.why

    def write(self, pieces: Sequence[Piece], *, now_ms: int) -> Written:
        """Store ``pieces`` in one transaction, in their order: after a `StoreError` it is as if nothing had been asked.

        A bar that is stored already with the same values and the same stamp of the exchange changes nothing. A slot
        that is stored otherwise is amended: other values, a bar where there was proven to be none, or none where there
        was one. Its bar gets the next revision. What had failed and is proven now, is a failure no more.

        ``now_ms`` dates the amendments. A piece that cannot be is a ``ValueError``, before anything is written.
        """
        for piece in pieces:
            refuse_impossible(piece)
        rows = [rows_of(piece) for piece in pieces]
        with self._transaction() as conn:
            taken = [take(conn, piece, its, now_ms) for piece, its in zip(pieces, rows, strict=True)]
            add_up(
                conn,
                [
                    (piece.market, piece.timeframe.value, each.gained, len(each.amended))
                    for piece, each in zip(pieces, taken, strict=True)
                    if each.changed
                ],
            )
        return Written(
            rows=sum(each.rows for each in taken),
            unchanged=sum(each.unchanged for each in taken),
            amended=tuple(amendment for each in taken for amendment in each.amended),
        )

    def note_failure(
        self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int, code: str, message: str, now_ms: int
    ) -> None:
        """Remember that ``[start_ms, end_ms)`` could not be fetched, for the how-manieth time, and why.

        ``code`` and ``message`` are kept as they are: nothing secret may be in them. A span that is proven by now is
        not noted.
        """
        if start_ms >= end_ms:
            raise ValueError(f"a span must end after it starts, was [{start_ms}, {end_ms})")
        with self._transaction() as conn:
            note(conn, (market, timeframe.value), start_ms, end_ms, code, message, now_ms)

    def tidy(self) -> None:
        """Put the ledger in order: join proven spans that touch or overlap, cut them to whole slots, count anew.

        Only what came from outside can have brought it out of order, see `integrity`. No bar is touched; but of a
        series with more or fewer bars than were counted, nothing counts as proven any more.
        """
        with self._transaction() as conn:
            tidy(conn)

    def stop(self) -> None:
        """End what is read or written in another thread; of a write, nothing is stored then."""
        super().stop()
        if self._access.writer is not None:
            interrupt(self._access.writer.conn)

    def close(self) -> None:
        """Write the log back into the file, close every handle and let others write. A second time does nothing.

        If the log cannot be written back, as on a full disk, that is logged: nothing is lost, since it stays where it
        is, and whoever opens the file next reads it with it.
        """
        if self._is_open:
            super().close()
            try:
                with refusals(self.path, "write the log back"):
                    _release(self._access)
            except StoreError as error:
                about = fields("not-written-back", error, path=self.path)
                logger.warning("%s; nothing is lost, it stays beside the file", error, extra=about)

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be written any more, since the file is not found under its name: moved, or deleted."""
        return self._access.writer is not None and not self._access.is_in_place()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._ready("write"):
            db = self._access.writer
            if db is None:
                raise StoreError(f"{self.path}: cannot write: it is open for reading only, since {self.why}")
            if not self._access.is_in_place():
                # SQLite would go on, and write into a file that nobody finds any more.
                raise StoreError(f"{self.path}: cannot write: the file has been moved or deleted")
            with db.atomic():
                yield db.conn


def _release(access: Access) -> None:
    with ExitStack() as then:
        if access.lock is not None:
            then.callback(access.lock.release)
        if access.writer is not None:
            then.callback(access.writer.close)
            # Passive: it does not wait for readers. The last connection to close copies what is left.
            access.writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
