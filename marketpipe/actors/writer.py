"""The database writer: what is proven goes in, and is stored in small transactions, soon and for certain.

It owns the way to the database. Up to 200 rows and what they prove travel in one transaction; nothing waits for longer
than a second. What cannot be stored (a full disk, a database that is busy elsewhere) is kept and tried again, ever more
rarely, and can be read meanwhile. A backfill waits while too much is kept; reads and live bars do not.

The database itself is synchronous and runs in threads, one call at a time for writing and one for reading.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

import attrs
import trio

from marketpipe.actors.mailbox import LEFT
from marketpipe.clock import Clock
from marketpipe.config import Collecting as Options
from marketpipe.core.history import Piece
from marketpipe.core.pacing import full_jitter_s
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import PipelineClosed, StoreError
from marketpipe.logs import fields
from marketpipe.status import QueueStatus, StoreStatus

__all__ = ["Runner", "WritableStore", "Writer", "in_line", "in_threads"]

logger = logging.getLogger("marketpipe.store")

T = TypeVar("T")
# How synchronous calls are run.
Runner = Callable[..., Awaitable[Any]]


def in_threads() -> Runner:
    """In worker threads, as a file wants it: one call at a time, and one that has begun is waited for."""
    return partial(_in_thread, trio.CapacityLimiter(1))


async def _in_thread(limiter: trio.CapacityLimiter, call: Callable[..., T], *args: Any) -> T:
    return await trio.to_thread.run_sync(call, *args, limiter=limiter)


async def in_line(call: Callable[..., T], *args: Any) -> T:
    """Here and now: for databases in memory, and under a mock clock, which would run ahead of a thread."""
    await trio.lowlevel.checkpoint()
    return call(*args)


class _Written(Protocol):
    @property
    def rows(self) -> int: ...
    @property
    def amended(self) -> Sequence[object]: ...


class WritableStore(Protocol):
    """What is needed of the database. Everything raises `StoreError`."""

    path: str

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written."""
        ...

    @property
    def why(self) -> str:
        """Why not, in words."""
        ...

    @property
    def is_lost(self) -> bool:
        """Whether what is opened is not found under its name any more, so that nothing can be stored."""
        ...

    def write(self, pieces: Sequence[Piece], *, now_ms: int) -> _Written:
        """Store all of ``pieces`` or nothing, in one transaction."""
        ...

    def note_failure(
        self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int, code: str, message: str, now_ms: int
    ) -> None:
        """Remember that a span could not be fetched."""
        ...

    def tidy(self) -> None:
        """Put the ledger in order."""
        ...


@attrs.frozen
class _Failed:
    """A span that could not be fetched, on its way to the database."""

    market: str
    timeframe: Timeframe
    start_ms: int
    end_ms: int
    code: str
    message: str


@attrs.define(eq=False)
class Writer:
    """State of the actor; `run` is the actor. ``draw`` gives uniform numbers in [0, 1) for the back-off."""

    _store: WritableStore
    _run: Runner
    _clock: Clock
    _options: Options
    _draw: Callable[[], float]
    _kept: deque[Piece] = attrs.field(factory=deque, init=False)  # oldest first; leaves when it is stored
    _failed: deque[_Failed] = attrs.field(factory=deque, init=False)
    _rows: int = attrs.field(default=0, init=False)  # of what is kept
    _due_s: float = attrs.field(default=0.0, init=False)
    _urgent: int = attrs.field(default=0, init=False)  # so many of the oldest are waited for
    _come: trio.Event = attrs.field(factory=trio.Event, init=False)
    _hurry: trio.Event = attrs.field(factory=trio.Event, init=False)
    _moved: trio.Event = attrs.field(factory=trio.Event, init=False)  # something was stored
    _feeders: int = attrs.field(default=0, init=False)  # who will be told that what they give is stored
    _has_ended: bool = attrs.field(default=False, init=False)
    _troubles: int = attrs.field(default=0, init=False)  # in a row
    _trouble: str = attrs.field(default="", init=False)
    _lost: StoreError | None = attrs.field(default=None, init=False)  # why waiting would be in vain
    _failures: int = attrs.field(default=0, init=False)
    _written: int = attrs.field(default=0, init=False)
    _amended: int = attrs.field(default=0, init=False)
    _transactions: int = attrs.field(default=0, init=False)
    _let_go: int = attrs.field(default=0, init=False)
    _peak: int = attrs.field(default=0, init=False)  # the most rows that were ever kept

    @property
    def can_write(self) -> bool:
        """Whether anything can be stored at all."""
        return not self._store.read_only

    @property
    def is_full(self) -> bool:
        """Whether so much is kept that whoever can wait should."""
        return self._rows >= self._options.kept_rows

    def offer(self, piece: Piece) -> bool:
        """Store ``piece`` soon; False if it will not be: nothing can be written, or too much is kept already.

        What was not taken can be fetched again.
        """
        if not self.can_write:
            return False
        if self.is_full:
            self._let_go += len(piece.bars)
            return False
        self._take(piece)
        return True

    async def put(self, piece: Piece) -> None:
        """Store ``piece`` soon, and wait as long as too much is kept.

        It is taken before that: whoever gives up waiting may have told others that it is proven. Raises `StoreError` if
        the file has been moved or deleted, so that no waiting helps.
        """
        self._take(piece)
        await trio.lowlevel.checkpoint()
        while self.is_full:
            await self._wait_for_room()

    def failed(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int, code: str, message: str) -> None:
        """Remember that the span could not be fetched, and why."""
        if self.can_write and start_ms < end_ms and len(self._failed) < self._options.kept_rows:
            self._failed.append(_Failed(market, timeframe, start_ms, end_ms, code, message))
            self._come.set()

    def kept(self, market: str, timeframe: Timeframe) -> tuple[Piece, ...]:
        """What is on its way to the database, oldest first."""
        return tuple(piece for piece in self._kept if piece.market == market and piece.timeframe is timeframe)

    async def stored(self) -> None:
        """Wait until all that is kept now is stored, and do not let it wait for company.

        Raises `StoreError` if the file has been moved or deleted, so that no waiting helps.
        """
        await trio.lowlevel.checkpoint()
        last = self._kept[-1] if self._kept else None
        self._urgent = len(self._kept)
        self._hurry.set()
        while last is not None and any(piece is last for piece in self._kept):
            await self._wait_for_room()

    async def tidy(self) -> None:
        """Put the ledger of the database in order, between two transactions; raises `StoreError`."""
        await self._run(self._store.tidy)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Store what comes, until cancelled; then what is kept, for as long as leaving may take."""
        self._has_ended = False
        task_status.started()
        try:
            while True:
                await self._wait_for_enough()
                await self._write_some()
        finally:
            self._troubles = 0  # one more try
            try:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + self._options.leave_s):
                    await self._write_the_last()
            finally:
                self._has_ended = True
                self._move()
            if self._kept:
                about = fields("not-stored", path=self._store.path, bars=self._rows)
                why = self._trouble or "late"
                logger.warning("%s: %d bars were not stored: %s", self._store.path, self._rows, why, extra=about)

    @contextmanager
    def feeding(self) -> Generator[None]:
        """While entered, the writer does not end: somebody has something in hand, and counts it as stored."""
        self._feeders += 1
        try:
            yield
        finally:
            self._feeders -= 1
            self._come.set()

    async def _write_the_last(self) -> None:
        while not self._troubles and (self._kept or self._failed or self._feeders):
            if self._kept or self._failed:
                await self._write_some()
            else:
                self._come = trio.Event()
                await self._come.wait()

    async def _wait_for_room(self) -> None:
        if self._lost is not None:
            raise self._lost.copy()
        if self._has_ended:
            raise PipelineClosed(LEFT)
        await self._moved.wait()

    def _take(self, piece: Piece) -> None:
        if not self._kept:
            self._due_s = trio.current_time() + self._options.flush_s
        self._kept.append(piece)
        self._rows += _weight(piece)
        self._peak = max(self._peak, self._rows)
        self._come.set()
        if self._rows >= self._options.batch_rows:
            self._hurry.set()

    async def _wait_for_enough(self) -> None:
        while not self._kept and not self._failed:
            self._come = trio.Event()
            await self._come.wait()
        if self._troubles:
            await trio.sleep(self._pause_s())
            return
        if self._rows < self._options.batch_rows and not self._urgent:
            self._hurry = trio.Event()
            with trio.move_on_at(self._due_s):
                await self._hurry.wait()

    def _pause_s(self) -> float:
        options = self._options
        return max(
            options.retry_base_s / 2,
            full_jitter_s(
                self._troubles - 1, base_s=options.retry_base_s, cap_s=options.retry_cap_s, draw=self._draw()
            ),
        )

    async def _write_some(self) -> None:
        # What comes from here on, and is not among what is written now, waits for company from now on.
        self._due_s = trio.current_time() + self._options.flush_s
        try:
            if self._kept:
                await self._write_pieces()
            await self._write_failures()
        except StoreError as error:
            self._troubles += 1
            self._failures += 1
            if str(error) != self._trouble:
                self._trouble = str(error)
                about = fields("not-written", error, path=self._store.path)
                logger.warning("%s; it is kept, and tried again", error, extra=about)
            # Nobody but a person can put it back; what is kept is stored if one does.
            self._lost = error if self._store.is_lost else None
            if self._lost is not None:
                self._move()
            return
        if self._trouble:
            about = fields("written-again", path=self._store.path)
            logger.info("%s: can be written again", self._store.path, extra=about)
        self._troubles, self._trouble, self._lost = 0, "", None

    async def _write_pieces(self) -> None:
        pieces, now_ms = self._batch(), self._clock.now_ms()
        written: _Written = await self._run(partial(self._store.write, pieces, now_ms=now_ms))
        for piece in pieces:
            self._kept.popleft()
            self._rows -= _weight(piece)
        self._urgent = max(0, self._urgent - len(pieces))
        self._transactions += 1
        self._written += written.rows
        self._amended += len(written.amended)
        if written.amended:
            logger.warning(
                "%s: %d slots were stored otherwise; what was there is kept as evidence",
                self._store.path,
                len(written.amended),
                extra=fields("amended", path=self._store.path, slots=len(written.amended)),
            )
        self._lost = None
        self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def _write_failures(self) -> None:
        # One by one: each is a transaction of its own, and is counted once though a later one be refused.
        for span in tuple(self._failed):
            where, why = (span.market, span.timeframe, span.start_ms, span.end_ms), (span.code, span.message)
            await self._run(self._store.note_failure, *where, *why, self._clock.now_ms())
            self._failed.popleft()

    def _batch(self) -> tuple[Piece, ...]:
        rows, pieces = 0, list[Piece]()
        for piece in self._kept:
            if pieces and rows + _weight(piece) > self._options.batch_rows:
                break
            pieces.append(piece)
            rows += _weight(piece)
        return tuple(pieces)

    def queue(self) -> QueueStatus:
        """The rows that are kept."""
        return QueueStatus(self._rows, self._peak, self._options.kept_rows)

    def status(self) -> StoreStatus:
        """What it has done, and how it is."""
        return StoreStatus(
            path=self._store.path,
            read_only=self._store.read_only,
            why=self._store.why,
            rows_written=self._written,
            rows_amended=self._amended,
            transactions=self._transactions,
            rows_kept=self._rows,
            rows_let_go=self._let_go,
            failures=self._failures,
            trouble=self._trouble,
        )


def _weight(piece: Piece) -> int:
    # That a slot is empty takes no row, and yet its place.
    return max(1, len(piece.bars))
