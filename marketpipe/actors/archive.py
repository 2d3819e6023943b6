"""All that is proven of the past: what is stored, and what is on its way there.

Whoever reads gets both as one, and never waits for a write. What is proven while somebody still plans to ask for it is
told to him at once (`Archive.follow`), so that no two ask the exchange for the same.

A caller reads in a thread, and is not cancelled when the pipeline is left. So leaving closes the archive: nobody reads
any more once the database is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Protocol

import attrs
import trio

from marketpipe.actors.mailbox import LEFT
from marketpipe.actors.writer import Runner, WritableStore, Writer
from marketpipe.core.checkup import StoreCheck, checked
from marketpipe.core.history import Piece
from marketpipe.core.shelf import Shelf
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import PipelineClosed, StoreError
from marketpipe.models import Candle

__all__ = ["Archive", "ReadableStore"]

Series = tuple[str, Timeframe]

DAMAGED = "DAMAGED"
END_OF_TIME_MS = 1 << 62
# How often reading is ended that goes on: between two statements there was nothing to end.
STOP_EVERY_S = 0.02


class ReaderBeside(Protocol):
    """A connection that reads, to be closed by whoever asked for it."""

    def close(self) -> None:
        """Close the connection."""
        ...

    def coverage(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> SpanSet:
        """What is proven."""
        ...

    def series(self) -> tuple[Any, ...]:
        """How much is stored of each."""
        ...

    def integrity(self) -> tuple[Any, ...]:
        """What is wrong with it."""
        ...

    def stop(self) -> None:
        """End what is read, from another thread; it raises `StoreError` then."""
        ...


class ReadableStore(WritableStore, Protocol):
    """What is needed of the database to read it: see `marketpipe.store`. Everything raises `StoreError`."""

    def coverage(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> SpanSet:
        """What is proven."""
        ...

    def bars(
        self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int, *, limit: int | None = None
    ) -> tuple[Candle, ...]:
        """What is stored, oldest first."""
        ...

    def newest(self, market: str, timeframe: Timeframe, count: int, before_ms: int = ...) -> tuple[Candle, ...]:
        """The newest that are stored, oldest first."""
        ...

    def newest_proven(self, market: str, timeframe: Timeframe, before_ms: int) -> int | None:
        """Where the newest proven bar opens of those before a moment."""
        ...

    def failures(self, market: str, timeframe: Timeframe, start_ms: int = ..., end_ms: int = ...) -> tuple[Any, ...]:
        """Spans that could not be fetched."""
        ...

    def series(self) -> tuple[Any, ...]:
        """How much is stored of each."""
        ...

    def integrity(self) -> tuple[Any, ...]:
        """What is wrong with it."""
        ...

    def reader(self) -> ReaderBeside:
        """Another connection, to read beside this one."""
        ...

    def stop(self) -> None:
        """End what is done, from another thread; it raises `StoreError` then."""
        ...


@attrs.define(eq=False)
class Archive:
    """Reading is through ``run`` (see `marketpipe.actors.writer.Runner`), one call at a time.

    ``run_beside``: the same for what takes long, so that reads go on; without it, they wait.
    """

    _store: ReadableStore
    _run: Runner
    writer: Writer
    _run_beside: Runner | None = None
    _followers: dict[Series, dict[object, Callable[[Piece, bool], None]]] = attrs.field(factory=dict, init=False)
    _under_way: set[object] = attrs.field(factory=set, init=False)  # what would be left behind if it were closed now
    _checking: set[ReaderBeside] = attrs.field(factory=set, init=False)
    _quiet: trio.Event = attrs.field(factory=trio.Event, init=False)  # nothing is under way any more
    _is_closed: bool = attrs.field(default=False, init=False)

    async def coverage(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> SpanSet:
        """What is proven of ``[start_ms, end_ms)``."""
        with self._on_its_way(market, timeframe) as kept:
            stored: SpanSet = await self._read(self._store.coverage, market, timeframe, start_ms, end_ms)
        return (stored | SpanSet.of(*((piece.start_ms, piece.end_ms) for piece in kept))).clip(start_ms, end_ms)

    async def shelf(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> Shelf:
        """What is proven of ``[start_ms, end_ms)``, with its bars."""
        with self._on_its_way(market, timeframe) as kept:
            shelf = await self._read(self._laid, market, timeframe, start_ms, end_ms)
        shelf.lay_pieces(kept)
        assert isinstance(shelf, Shelf)
        return shelf

    async def newest(self, market: str, timeframe: Timeframe, count: int, end_ms: int) -> Shelf:
        """What is proven right before ``end_ms``, as far down as the newest ``count`` bars before it reach."""
        with self._on_its_way(market, timeframe) as kept:
            shelf = await self._read(self._laid_newest, market, timeframe, count, end_ms)
        shelf.lay_pieces(kept)
        assert isinstance(shelf, Shelf)
        return shelf

    async def oldest(self, market: str, timeframe: Timeframe, count: int, start_ms: int, end_ms: int) -> Shelf:
        """What is proven from ``start_ms`` on and before ``end_ms``, as far up as the oldest ``count`` bars reach."""
        with self._on_its_way(market, timeframe) as kept:
            shelf = await self._read(self._laid_oldest, market, timeframe, count, start_ms, end_ms)
        shelf.lay_pieces(kept)
        assert isinstance(shelf, Shelf)
        return shelf

    async def newest_proven(self, market: str, timeframe: Timeframe, before_ms: int) -> int | None:
        """Where the newest bar opens of those that are proven and open before ``before_ms``; None without any."""
        with self._on_its_way(market, timeframe) as kept:
            stored: int | None = await self._read(self._store.newest_proven, market, timeframe, before_ms)
        opens = [bar.open_ms for piece in kept for bar in piece.bars if bar.open_ms < before_ms]
        return max(opens if stored is None else [*opens, stored], default=None)

    async def failures(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> tuple[Any, ...]:
        """The spans that could not be fetched, in order."""
        found: tuple[Any, ...] = await self._read(self._store.failures, market, timeframe, start_ms, end_ms)
        return found

    async def check(self) -> StoreCheck:
        """Everything that is stored, and whatever is wrong with it; raises `StoreError`.

        It takes seconds for each million of bars; cancelled, it ends at once.
        """
        run = self._run_beside or self._run
        with self._keeping_open():
            reader: ReaderBeside = await run(self._store.reader)
            outcome: StoreCheck | StoreError | None = None
            self._checking.add(reader)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_stop_when_cancelled, reader, name="interrupter")
                    try:
                        outcome = await run(self._check, reader)
                    except StoreError as error:
                        outcome = error
                    nursery.cancel_scope.cancel(reason="the check has ended")
            finally:
                self._checking.discard(reader)
                reader.close()  # here: cancelled before there was a thread, that would never do it
            await trio.lowlevel.checkpoint_if_cancelled()
            if isinstance(outcome, StoreError):
                raise outcome
            assert outcome is not None
            return outcome

    async def tidy(self) -> None:
        """Put the ledger of the database in order; raises `StoreError`."""
        with self._keeping_open():
            await self.writer.tidy()

    async def close(self) -> None:
        """Answer nobody any more: who reads, and who comes later, gets `PipelineClosed`. Nobody reads afterwards."""
        self._is_closed = True
        while self._under_way:
            self._store.stop()
            for reader in self._checking:
                reader.stop()
            with trio.move_on_after(STOP_EVERY_S):
                await self._quiet.wait()
        await trio.lowlevel.checkpoint()

    def add(self, piece: Piece) -> bool:
        """Keep ``piece``, if there is room; false if it will not be stored. See `Writer.offer`."""
        taken = self.writer.offer(piece)
        self._tell(piece, taken)
        return taken

    async def put(self, piece: Piece) -> None:
        """Keep ``piece``, and wait for room. See `Writer.put`."""
        self._tell(piece, True)
        await self.writer.put(piece)

    @contextmanager
    def follow(self, market: str, timeframe: Timeframe, tell: Callable[[Piece, bool], None]) -> Generator[None]:
        """Call ``tell`` with every piece of the series that is proven meanwhile, by whomever, and if it is kept."""
        series, key = (market, timeframe), object()
        self._followers.setdefault(series, {})[key] = tell
        try:
            yield
        finally:
            del self._followers[series][key]
            if not self._followers[series]:
                del self._followers[series]

    def _tell(self, piece: Piece, is_kept: bool) -> None:
        for tell in list(self._followers.get((piece.market, piece.timeframe), {}).values()):
            tell(piece, is_kept)

    @contextmanager
    def _on_its_way(self, market: str, timeframe: Timeframe) -> Generator[list[Piece]]:
        """What is kept, and what comes to that while entered: it may be stored after the database has been read."""
        pieces = list(self.writer.kept(market, timeframe))

        def hear(piece: Piece, is_kept: bool) -> None:
            if is_kept:
                pieces.append(piece)

        with self.follow(market, timeframe, hear):
            yield pieces

    async def _read(self, call: Callable[..., Any], *args: Any) -> Any:
        with self._keeping_open():
            return await self._run(call, *args)

    @contextmanager
    def _keeping_open(self) -> Generator[None]:
        if self._is_closed:
            raise PipelineClosed(LEFT)
        key = object()
        self._under_way.add(key)
        try:
            yield
        except StoreError:
            if self._is_closed:  # it was ended
                raise PipelineClosed(LEFT) from None
            raise
        finally:
            self._under_way.remove(key)
            if not self._under_way:
                self._quiet.set()

    def _check(self, reader: ReaderBeside) -> StoreCheck:
        findings = reader.integrity()
        # What SQLite cannot read cannot be counted either.
        is_readable = all(finding.kind != DAMAGED for finding in findings)
        series = [
            checked(each, reader.coverage(each.market, each.timeframe, 0, END_OF_TIME_MS))
            for each in (reader.series() if is_readable else ())
        ]
        return StoreCheck(self._store.path, tuple(series), findings)

    def _laid(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> Shelf:
        # Coverage first: what is added in between has bars that it does not know of, never the other way round.
        shelf = Shelf(timeframe)
        proven = self._store.coverage(market, timeframe, start_ms, end_ms)
        if proven:
            bars = self._store.bars(market, timeframe, start_ms, end_ms)
            shelf.lay(proven, [bar for bar in bars if bar.open_ms in proven] if len(proven) > 1 else bars)
        return shelf

    def _laid_oldest(self, market: str, timeframe: Timeframe, count: int, start_ms: int, end_ms: int) -> Shelf:
        shelf = Shelf(timeframe)
        span = self._store.coverage(market, timeframe, start_ms, end_ms).at(start_ms)
        if span is not None:
            bars = self._store.bars(market, timeframe, start_ms, span[1], limit=count)
            up_to_ms = bars[-1].close_ms if len(bars) == count else span[1]
            shelf.lay(SpanSet.of((start_ms, up_to_ms)), bars)
        return shelf

    def _laid_newest(self, market: str, timeframe: Timeframe, count: int, end_ms: int) -> Shelf:
        shelf = Shelf(timeframe)
        span = self._store.coverage(market, timeframe, 0, end_ms).at(end_ms - 1)
        if span is not None:
            bars = self._store.newest(market, timeframe, count, end_ms)
            start_ms = max(span[0], bars[0].open_ms) if len(bars) == count else span[0]
            shelf.lay(SpanSet.of((start_ms, end_ms)), [bar for bar in bars if bar.open_ms >= start_ms])
        return shelf


async def _stop_when_cancelled(reader: ReaderBeside) -> None:
    # A thread cannot be cancelled, but what it waits for can be ended.
    try:
        await trio.sleep_forever()
    finally:
        reader.stop()
