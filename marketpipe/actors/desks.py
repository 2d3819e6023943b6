"""What becomes of the frames of a line: one desk for each kind of line.

The connection (`marketpipe.actors.connection`) reads, watches and reconnects; it tells its desk what arrived, what was
lost and what is doubtful. The desk knows what that means for its kind of value:

============  ==========================================  =======================================================
line          a frame                                     a loss
============  ==========================================  =======================================================
ticker, book  is the newest value: cache, hub             values age again; the first frame afterwards heals
trade         goes through its market's `TradeFlow`: hub  REST is read until it overlaps both sides
candle        goes to the deduplicator                    bars are in doubt until a page of REST is read
============  ==========================================  =======================================================

Frames may also be lost while the connection goes on, and nothing tells of it. Therefore REST is held against what was
shown every few seconds (`Desk.audited`): the trades of a market add up to the volume that its ticker counts, and bars
that have ended are read a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import attrs

from marketpipe.actors.cache import Cache
from marketpipe.actors.hub import Hub
from marketpipe.core.freshness import Kind
from marketpipe.core.live import LiveValues, is_overtaken
from marketpipe.core.topics import Frame, Line, Topic
from marketpipe.models import Gap

__all__ = ["Desk", "SnapshotDesk", "Tally"]


@attrs.define
class Tally:
    """What a line counts."""

    gaps: int = 0
    repaired: int = 0
    trades_repaired: int = 0


class Desk(Protocol):
    """One line's values. Nothing here waits; times are the exchange's, in epoch milliseconds, unless they end in _s."""

    tally: Tally

    def subscribing(self, new: Collection[Topic], kept: Collection[Topic], now_ms: int) -> None:
        """A subscribe message goes out: ``new`` are on this connection for the first time, ``kept`` were before."""
        ...

    def take(self, frames: Sequence[Frame], now_s: float, read_s: float | None = None) -> None:
        """Frames arrived together, oldest first; each is of a topic that is subscribed.

        ``read_s``: when the oldest was read from the socket, where that is to be measured.
        """
        ...

    def spoiled(self, topic: Topic, start_ms: int, now_ms: int, cause: str) -> None:
        """A frame of ``topic`` cannot be read."""
        ...

    def silent(self, topics: Collection[Topic]) -> None:
        """These have shown nothing within the time in which the exchange sends its snapshots."""
        ...

    def suspend(self, topics: Collection[Topic], now_ms: int) -> None:
        """These are silent for longer than they should be, and being checked."""
        ...

    def resume(self, topics: Collection[Topic]) -> None:
        """These have been checked, and are well."""
        ...

    def lost(self, topics: Collection[Topic], start_ms: int, now_ms: int, cause: str) -> None:
        """The connection is gone. What it showed until ``start_ms`` is certain."""
        ...

    def gone(self, topic: Topic, reason: str) -> None:
        """The exchange does not list the market of ``topic`` any more: an open gap is closed, for that ``reason``."""
        ...

    def release(self, topics: Collection[Topic], now_ms: int) -> None:
        """Nobody wants these any more."""
        ...

    def proven(self, exchange_ms: int) -> None:
        """Every frame up to ``exchange_ms`` has arrived."""
        ...

    def audited(self, values: Mapping[Topic, object], asked_ms: int) -> None:
        """What REST tells of some topics now, asked at ``asked_ms``: what is lost without a trace may show in it."""
        ...

    def shown_ms(self, topic: Topic) -> int | None:
        """The newest moment that ``topic`` has shown, comparable with what `probe` reads; None before the first."""
        ...

    def open_gap(self, topic: Topic) -> Gap | None:
        """The hole in ``topic`` that was told and not closed yet."""
        ...

    async def work(self) -> None:
        """Mend what is broken, for as long as the connection lasts."""
        ...


@attrs.define(eq=False)
class SnapshotDesk:
    """Tickers and order books: the newest value is all there is to know.

    ``also`` gets every batch too, and ``also_gap`` every gap.
    """

    _line: Literal[Line.TICKER, Line.ORDERBOOK]
    _cache: Cache
    _hub: Hub
    _also: Callable[[Sequence[Any]], None] | None = None
    _also_gap: Callable[[Gap], None] | None = None
    tally: Tally = attrs.field(factory=Tally, init=False)
    _kind: Literal[Kind.TICKER, Kind.ORDERBOOK] = attrs.field(init=False)
    _live: LiveValues[Any] = attrs.field(init=False)
    _shown: dict[str, int] = attrs.field(factory=dict, init=False)
    _gaps: dict[str, Gap] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        tickers = self._line is Line.TICKER
        self._kind = Kind.TICKER if tickers else Kind.ORDERBOOK
        self._live = self._cache.live_tickers if tickers else self._cache.live_orderbooks

    def subscribing(self, new: Collection[Topic], kept: Collection[Topic], now_ms: int) -> None:
        """Every frame is whole in itself: nothing to prepare."""

    def take(self, frames: Sequence[Frame], now_s: float, read_s: float | None = None) -> None:
        values = [value for value, _ in frames]
        for value in values:
            self._live.streamed(value.market, value, now_s)
        # What the stream itself has shown: the cache also holds what REST shows, also when it is asked for a check.
        shown = self._shown
        for market, stamp_ms in self._stamps(values):
            if not is_overtaken(stamp_ms, shown.get(market, 0)):
                shown[market] = stamp_ms
        if self._gaps:
            self._close_gaps(values)
        self._hub.publish(self._line, values, read_s)
        if self._also is not None:
            self._also(values)

    def _tell(self, gap: Gap) -> None:
        self._hub.tell(Topic(self._line, gap.market), [gap])
        if self._also_gap is not None:
            self._also_gap(gap)

    def open_gap(self, topic: Topic) -> Gap | None:
        return self._gaps.get(topic.market)

    def _stamps(self, values: Iterable[Any]) -> Iterable[tuple[str, int]]:
        if self._line is Line.TICKER:
            return ((value.market, value.trade_ms) for value in values)
        return ((value.market, value.exchange_ms) for value in values)

    def _close_gaps(self, values: Iterable[Any]) -> None:
        for value in values:
            gap = self._gaps.pop(value.market, None)
            if gap is not None:
                end_ms = max(gap.start_ms, value.exchange_ms)
                closed = attrs.evolve(gap, end_ms=end_ms, repaired=True, proof="the stream shows the newest state")
                self.tally.repaired += 1
                self._tell(closed)

    def spoiled(self, topic: Topic, start_ms: int, now_ms: int, cause: str) -> None:
        self.lost((topic,), start_ms, now_ms, cause)

    def silent(self, topics: Collection[Topic]) -> None:
        """Nothing was ever shown, so nothing is held."""

    def suspend(self, topics: Collection[Topic], now_ms: int) -> None:
        self._cache.demote(self._kind, self._live.suspend([topic.market for topic in topics]), now_ms)

    def resume(self, topics: Collection[Topic]) -> None:
        self._live.resume([topic.market for topic in topics])

    def lost(self, topics: Collection[Topic], start_ms: int, now_ms: int, cause: str) -> None:
        markets = [topic.market for topic in topics]
        self._cache.demote(self._kind, self._live.forget(markets), now_ms)
        for topic in topics:
            if topic.market in self._shown and topic.market not in self._gaps:
                gap = self._gaps[topic.market] = Gap(topic.market, start_ms, max(start_ms, now_ms), cause)
                self.tally.gaps += 1
                self._tell(gap)

    def gone(self, topic: Topic, reason: str) -> None:
        gap = self._gaps.pop(topic.market, None)
        if gap is not None:
            self._tell(attrs.evolve(gap, proof=reason))

    def release(self, topics: Collection[Topic], now_ms: int) -> None:
        markets = [topic.market for topic in topics]
        self._cache.demote(self._kind, self._live.forget(markets), now_ms)
        for market in markets:
            self._shown.pop(market, None)
            self._gaps.pop(market, None)

    def proven(self, exchange_ms: int) -> None:
        if self._line is Line.TICKER:
            self._cache.learn_from_live(exchange_ms)

    def audited(self, values: Mapping[Topic, object], asked_ms: int) -> None:
        """What is newest is all there is to know, and whether it was shown is the keeper's question."""

    def shown_ms(self, topic: Topic) -> int | None:
        return self._shown.get(topic.market)

    async def work(self) -> None:
        """Nothing is ever broken here that the next frame does not heal."""
