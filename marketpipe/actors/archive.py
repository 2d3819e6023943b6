"""All that is proven of the past: what is stored, and what is on its way there.

Whoever reads gets both as one, and never waits for a write. What is proven while somebody still plans to ask for it is
told to him at once (`Archive.follow`), so that no two ask the exchange for the same.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Protocol

import attrs

from marketpipe.actors.writer import Runner, WritableStore, Writer
from marketpipe.core.history import Piece
from marketpipe.core.shelf import Shelf
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle

__all__ = ["Archive", "ReadableStore"]

Series = tuple[str, Timeframe]


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

    def failures(self, market: str, timeframe: Timeframe, start_ms: int = ..., end_ms: int = ...) -> tuple[Any, ...]:
        """Spans that could not be fetched."""
        ...

    def series(self) -> tuple[Any, ...]:
        """How much is stored of each."""
        ...

    def integrity(self) -> tuple[Any, ...]:
        """What is wrong with it."""
        ...


@attrs.define(eq=False)
class Archive:
    """Reading is through ``run`` (see `marketpipe.actors.writer.Runner`), one call at a time."""

    _store: ReadableStore
    _run: Runner
    writer: Writer
    _followers: dict[Series, dict[object, Callable[[Piece], None]]] = attrs.field(factory=dict, init=False)

    async def coverage(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> SpanSet:
        """What is proven of ``[start_ms, end_ms)``."""
        kept = self.writer.kept(market, timeframe)
        stored: SpanSet = await self._run(self._store.coverage, market, timeframe, start_ms, end_ms)
        return (stored | SpanSet.of(*((piece.start_ms, piece.end_ms) for piece in kept))).clip(start_ms, end_ms)

    async def shelf(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> Shelf:
        """What is proven of ``[start_ms, end_ms)``, with its bars."""
        # First what is kept: it may be stored while the database is read, and is then in both.
        kept = self.writer.kept(market, timeframe)
        shelf = await self._run(self._read, market, timeframe, start_ms, end_ms)
        shelf.lay_pieces(kept)
        assert isinstance(shelf, Shelf)
        return shelf

    async def newest(self, market: str, timeframe: Timeframe, count: int, end_ms: int) -> Shelf:
        """What is proven right before ``end_ms``, as far down as the newest ``count`` bars before it reach."""
        kept = self.writer.kept(market, timeframe)
        shelf = await self._run(self._read_newest, market, timeframe, count, end_ms)
        shelf.lay_pieces(kept)
        assert isinstance(shelf, Shelf)
        return shelf

    async def failures(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> tuple[Any, ...]:
        """The spans that could not be fetched, in order."""
        found: tuple[Any, ...] = await self._run(self._store.failures, market, timeframe, start_ms, end_ms)
        return found

    def add(self, piece: Piece) -> bool:
        """Keep ``piece``, if there is room; false if it will not be stored. See `Writer.offer`."""
        taken = self.writer.offer(piece)
        self._tell(piece)
        return taken

    async def put(self, piece: Piece) -> None:
        """Keep ``piece``, and wait for room. See `Writer.put`."""
        self._tell(piece)
        await self.writer.put(piece)

    @contextmanager
    def follow(self, market: str, timeframe: Timeframe, tell: Callable[[Piece], None]) -> Generator[None]:
        """Call ``tell`` with every piece of the series that is proven meanwhile, by whomever."""
        series, key = (market, timeframe), object()
        self._followers.setdefault(series, {})[key] = tell
        try:
            yield
        finally:
            del self._followers[series][key]
            if not self._followers[series]:
                del self._followers[series]

    def _tell(self, piece: Piece) -> None:
        for tell in list(self._followers.get((piece.market, piece.timeframe), {}).values()):
            tell(piece)

    def _read(self, market: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> Shelf:
        # Coverage first: what is added in between has bars that it does not know of, never the other way round.
        shelf = Shelf(timeframe)
        proven = self._store.coverage(market, timeframe, start_ms, end_ms)
        if proven:
            bars = self._store.bars(market, timeframe, start_ms, end_ms)
            shelf.lay(proven, [bar for bar in bars if bar.open_ms in proven] if len(proven) > 1 else bars)
        return shelf

    def _read_newest(self, market: str, timeframe: Timeframe, count: int, end_ms: int) -> Shelf:
        shelf = Shelf(timeframe)
        span = self._store.coverage(market, timeframe, 0, end_ms).at(end_ms - 1)
        if span is not None:
            bars = self._store.newest(market, timeframe, count, end_ms)
            start_ms = max(span[0], bars[0].open_ms) if len(bars) == count else span[0]
            shelf.lay(SpanSet.of((start_ms, end_ms)), [bar for bar in bars if bar.open_ms >= start_ms])
        return shelf
