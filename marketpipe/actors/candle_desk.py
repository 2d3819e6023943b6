"""Bars: frames go to the deduplicator, and what a loss may have spoilt is read again from REST."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

import attrs
import trio

from marketpipe.actors.asker import Asker
from marketpipe.actors.deduplicator import BarMessage, BarPage, Cleared, Doubt, Forget, LiveBars, Proven
from marketpipe.actors.desks import Tally
from marketpipe.actors.hub import Hub
from marketpipe.core import timeframes
from marketpipe.core.bars import GRACE_MS
from marketpipe.core.candles import HELD_AT_MOST, SETTLE_MS
from marketpipe.core.history import Piece, is_possible
from marketpipe.core.live import is_overtaken
from marketpipe.core.paging import candle_walk
from marketpipe.core.topics import Frame, Topic
from marketpipe.errors import ExchangeError, UnknownMarket
from marketpipe.logs import fields, told
from marketpipe.models import Candle, CandleState, Gap, Priority, Ticker

__all__ = ["CandleDesk"]

logger = logging.getLogger("marketpipe.stream")

# A bar's last frame comes up to a second after its end, and the exchange's time is known to a second.
UNSURE_MS = 2_000
# A page that has not come is asked for again after so long; the batcher has backed off already.
AGAIN_S = 0.5
# Bars read again for one hole: over an hour of seconds, three days of minutes. As many as a series can hold up.
READ_AT_MOST = HELD_AT_MOST
# Topics read a second time after each audit: some of the exchange's ten requests a second, and nobody waits for them.
VERIFIED_AT_ONCE = 10


@attrs.frozen(eq=False)
class _Doubted:
    """From when until when (exchange time) frames may be missing; None: the stream is not back yet.

    ``due_ms``: when it can be read, since what was doubted first has settled at the exchange. Every further doubt
    replaces it by another, with the earliest beginning. It is due no later for that, unless something was lost: where
    subscriptions change every second, bars of a second are doubted without end.

    ``last``: the bar that was shown last, if that was before, so that all up to then is certain. What a subscription
    shows first is the latest bar there is (reference/websocket-candle, 2026-09-22): if it is
    this one, with the same volume, nothing was traded in between. None where that would prove nothing.
    """

    since_ms: int
    until_ms: int | None
    due_ms: int | None
    last: Candle | None


@attrs.define(eq=False)
class CandleDesk:
    """The bars of every market and timeframe that somebody wants; ``send`` puts a message to the deduplicator.

    ``archive`` gets what a second reading proves, for good: a bar that the stream alone has shown may lack a frame.
    """

    _asker: Asker
    _hub: Hub
    _send: Callable[[BarMessage], None]
    _exchange_ms: Callable[[], int]
    _archive: Callable[[Piece], object] | None = None
    tally: Tally = attrs.field(factory=Tally, init=False)
    _shown: dict[Topic, int] = attrs.field(factory=dict, init=False)
    _last: dict[Topic, Candle] = attrs.field(factory=dict, init=False)
    _gaps: dict[Topic, Gap] = attrs.field(factory=dict, init=False)
    _doubts: dict[Topic, _Doubted] = attrs.field(factory=dict, init=False)
    _verified: dict[Topic, int] = attrs.field(factory=dict, init=False)  # since when bars were not read a second time
    _unverified: list[Topic] = attrs.field(factory=list, init=False)  # to be read now
    _reading: set[Topic] = attrs.field(factory=set, init=False)
    _need: trio.Event = attrs.field(factory=trio.Event, init=False)

    def subscribing(self, new: Collection[Topic], kept: Collection[Topic], now_ms: int) -> None:
        # Where one message replaces another, the last frame of a bar may fall between them.
        ending = [topic for topic in kept if _ends_about(topic, now_ms)]
        for topic in ending:
            self._doubt(topic, now_ms - UNSURE_MS, now_ms + UNSURE_MS)
        self._read_what_is_doubted([*new, *ending], now_ms)

    def _read_what_is_doubted(self, topics: Collection[Topic], now_ms: int) -> None:
        doubted = tuple(topic for topic in topics if topic in self._doubts)
        if doubted:
            for topic in doubted:
                self._doubt(topic, now_ms, now_ms + UNSURE_MS)
            # Each from its own beginning: more than what is doubted here nothing would ever clear.
            by_start: dict[int, list[Topic]] = {}
            for topic in doubted:
                by_start.setdefault(self._doubts[topic].since_ms, []).append(topic)
            for start_ms, topics_of in by_start.items():
                self._send(Doubt(tuple(topics_of), start_ms, now_ms + UNSURE_MS))
            self._need.set()

    def _doubt(self, topic: Topic, since_ms: int, until_ms: int | None = None) -> None:
        held, last = self._doubts.get(topic), self._last.get(topic)
        due_ms = None if until_ms is None else until_ms + SETTLE_MS
        if held is not None:
            since_ms, last = min(since_ms, held.since_ms), held.last
            due_ms = due_ms and (held.due_ms or due_ms)
        elif last is not None and last.exchange_ms >= since_ms - UNSURE_MS:
            last = None
        self._doubts[topic] = _Doubted(since_ms, until_ms, due_ms, last)

    def take(self, frames: Sequence[Frame], now_s: float, read_s: float | None = None) -> None:
        candles = tuple(frame.value for frame in frames)
        shown, back = self._shown, []
        same: dict[Topic, None] = {}  # in order, and once: two subscriptions may be answered together
        for frame, candle in zip(frames, candles, strict=True):
            topic = Topic.of_candle(candle)
            shown_ms = shown.get(topic)
            if shown_ms is None:
                self._verified[topic] = self._exchange_ms()
            if shown_ms is None or not is_overtaken(candle.exchange_ms, shown_ms):
                shown[topic] = candle.exchange_ms
            doubted = self._doubts.get(topic)
            if doubted is not None:
                if frame.snapshot and doubted.last is not None and _is_same(candle, doubted.last):
                    same[topic] = None
                else:  # from here on the last bar is no longer the one before
                    self._doubts[topic] = attrs.evolve(doubted, last=None)
                if doubted.until_ms is None:
                    back.append(topic)
            self._last[topic] = candle
        if back:  # later than anybody had waited for it
            self._read_what_is_doubted(back, self._exchange_ms())
        self._send(LiveBars(candles, read_s))
        for topic in same:
            self._clear(topic)

    def _clear(self, topic: Topic) -> None:
        """What a subscription shows first is what was shown last."""
        doubted = self._doubts.pop(topic)
        assert doubted.until_ms is not None
        self._send(Cleared(topic, doubted.since_ms - UNSURE_MS, doubted.until_ms))
        gap = self._gaps.pop(topic, None)
        if gap is not None:
            self.tally.repaired += 1
            end_ms = max(gap.end_ms, self._exchange_ms())
            proof = "the newest bar is the one that was shown before, with the same volume"
            self._hub.tell(topic, [attrs.evolve(gap, end_ms=end_ms, repaired=True, proof=proof)])

    def spoiled(self, topic: Topic, start_ms: int, now_ms: int, cause: str) -> None:
        self.lost((topic,), start_ms, now_ms, cause)
        self._read_what_is_doubted((topic,), now_ms)

    def silent(self, topics: Collection[Topic]) -> None:
        # A market without a trade has no bar to show; one that had is read again, for the stream goes on without it.
        self._read_what_is_doubted(topics, self._exchange_ms())

    def suspend(self, topics: Collection[Topic], now_ms: int) -> None:
        """Nothing becomes final while nothing is proven."""

    def resume(self, topics: Collection[Topic]) -> None:
        """See `suspend`."""

    def lost(self, topics: Collection[Topic], start_ms: int, now_ms: int, cause: str) -> None:
        shown = tuple(topic for topic in topics if topic in self._shown)
        if not shown:
            return
        for topic in shown:
            self._doubt(topic, start_ms)
            if topic not in self._gaps:
                gap = self._gaps[topic] = Gap(topic.market, start_ms, max(start_ms, now_ms), cause)
                self.tally.gaps += 1
                self._hub.tell(topic, [gap])
        self._send(Doubt(shown, start_ms - UNSURE_MS, now_ms + UNSURE_MS))

    def gone(self, topic: Topic, reason: str) -> None:
        self._doubts.pop(topic, None)
        gap = self._gaps.pop(topic, None)
        if gap is not None:
            self._hub.tell(topic, [attrs.evolve(gap, proof=reason)])

    def release(self, topics: Collection[Topic], now_ms: int) -> None:
        for topic in topics:
            for held in (self._shown, self._last, self._gaps, self._doubts, self._verified):
                held.pop(topic, None)
        if topics:
            self._send(Forget(tuple(topics)))

    def proven(self, exchange_ms: int) -> None:
        self._send(Proven(tuple(self._shown), exchange_ms))

    def open_gap(self, topic: Topic) -> Gap | None:
        return self._gaps.get(topic)

    def shown_ms(self, topic: Topic) -> int | None:
        return self._shown.get(topic)

    def audited(self, values: Mapping[Topic, object], asked_ms: int) -> None:
        for topic, ticker in values.items():
            assert isinstance(ticker, Ticker)
            if ticker.trade_ms < self._verified.get(topic, 0) - UNSURE_MS:  # nothing was traded since
                self._verified[topic] = max(self._verified[topic], asked_ms - UNSURE_MS)
        due = [topic for topic in values if topic in self._verified and self._has_ended_since(topic, asked_ms)]
        self._unverified = sorted(due, key=self._verified.__getitem__)[:VERIFIED_AT_ONCE]
        self._need.set()

    def _has_ended_since(self, topic: Topic, asked_ms: int) -> bool:
        assert topic.timeframe is not None
        verified_ms = self._verified[topic]
        return timeframes.floor(topic.timeframe, asked_ms - UNSURE_MS) > verified_ms

    def distrust(self, topic: Topic, since_ms: int) -> None:
        """Bars of ``topic`` were read at ``since_ms``, before its stream flowed: what lies between is in doubt."""
        self._doubt(topic, since_ms)

    # -- mending ------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        self._reading.clear()
        async with trio.open_nursery() as nursery:
            while True:
                self._need = trio.Event()
                for topic in [topic for topic, doubted in self._doubts.items() if doubted.until_ms is not None]:
                    if topic not in self._reading:
                        self._reading.add(topic)
                        nursery.start_soon(self._read_again, topic, name=f"reading again {topic}")
                unverified, self._unverified = self._unverified, []
                for topic in unverified:
                    if topic not in self._reading and topic not in self._doubts:
                        self._reading.add(topic)
                        nursery.start_soon(self._verify, topic, name=f"verifying {topic}")
                await self._need.wait()

    async def _read_again(self, topic: Topic) -> None:
        while (doubted := self._doubts.get(topic)) is not None and doubted.due_ms is not None:
            wait_ms = doubted.due_ms - self._exchange_ms()
            if wait_ms > 0:
                await trio.sleep(wait_ms / 1000)
            elif not await self._has_read(topic, doubted):
                await trio.sleep(AGAIN_S)
        self._reading.discard(topic)

    async def _verify(self, topic: Topic) -> None:
        """Read the bars that have ended a second time: the stream may have lost a frame without a trace."""
        since_ms = self._verified[topic]
        try:
            page = await self._read(topic, since_ms, Priority.LOW)
        except ExchangeError as error:  # its turn comes again
            logger.info("verifying %s: %s", topic, told(error), extra=fields("not-verified", error, topic=topic))
        else:
            if self._verified.get(topic) == since_ms:
                self._keep(page)
        self._reading.discard(topic)
        self._need.set()  # it may have come in doubt meanwhile

    async def _has_read(self, topic: Topic, doubted: _Doubted) -> bool:
        try:
            page = await self._read(topic, doubted.since_ms - UNSURE_MS, Priority.NORMAL)
        except UnknownMarket as error:
            self.gone(topic, str(error))
            return True
        except ExchangeError as error:
            logger.info("reading %s again: %s", topic, told(error), extra=fields("not-read-again", error, topic=topic))
            return False
        if not self._settles(page, doubted):
            return False
        gap = self._gaps.pop(topic, None)
        if gap is not None:
            self.tally.repaired += 1
            self._hub.tell(topic, _closed(gap, page))
        self._keep(page)
        return True

    def _settles(self, page: BarPage, doubted: _Doubted) -> bool:
        """Whether ``page`` ends what was ``doubted`` when it was asked for; what was doubted anew since remains."""
        now = self._doubts.get(page.topic)
        if now is None or now.until_ms is None or now.due_ms != doubted.due_ms:
            return False  # released, or lost anew, meanwhile
        settled_ms = page.read_ms - SETTLE_MS
        del self._doubts[page.topic]
        if now.until_ms > settled_ms:
            self._doubt(page.topic, settled_ms, now.until_ms)
        return True

    async def _read(self, topic: Topic, since_ms: int, priority: Priority) -> BarPage:
        assert topic.timeframe is not None
        read_ms = self._exchange_ms()
        oldest_ms = timeframes.shift(topic.timeframe, timeframes.floor(topic.timeframe, read_ms), -READ_AT_MOST)
        start_ms = max(timeframes.floor(topic.timeframe, since_ms - SETTLE_MS), oldest_ms)
        walk = candle_walk(topic.market, topic.timeframe, start_ms=start_ms, end_ms=None)
        return BarPage(topic, await self._asker.walk(walk, priority), read_ms, from_ms=start_ms)

    def _keep(self, page: BarPage) -> None:
        since_ms = self._verified.get(page.topic)
        # A page that begins later leaves what is between to be verified, unless that is too long ago for any page.
        if since_ms is not None and (_begins_by(page, since_ms) or len(page.candles) >= READ_AT_MOST):
            self._verified[page.topic] = max(since_ms, page.read_ms - SETTLE_MS)
        self._send(page)
        if self._archive is not None:
            piece = _settled(page)
            if piece.start_ms < piece.end_ms and all(map(is_possible, piece.bars)):
                self._archive(piece)


def _settled(page: BarPage) -> Piece:
    timeframe = page.topic.timeframe
    assert timeframe is not None
    assert page.from_ms is not None
    end_ms = timeframes.floor(timeframe, page.read_ms - GRACE_MS)
    bars = tuple(
        attrs.evolve(bar, state=CandleState.FINAL)
        for bar in sorted(page.candles, key=lambda bar: bar.open_ms)
        if bar.open_ms < end_ms
    )
    # The walk may have ended with a page that lacked a row: that nothing is before its oldest bar is a conclusion.
    shown_ms = bars[0].open_ms if bars else end_ms
    return Piece(page.topic.market, timeframe, page.from_ms, end_ms, bars, shown_ms=shown_ms)


def _is_same(one: Candle, other: Candle) -> bool:
    return (one.open_ms, one.volume, one.quote_volume) == (other.open_ms, other.volume, other.quote_volume)


def _begins_by(page: BarPage, ms: int) -> bool:
    return page.from_ms is not None and page.from_ms <= ms


def _closed(gap: Gap, page: BarPage) -> list[Gap]:
    """The end of ``gap``; of what lies further back than the page, that it is not mended."""
    assert page.from_ms is not None
    end_ms = max(gap.end_ms, page.read_ms)
    proof = f"{len(page.candles)} bars read again, from {page.from_ms} on"
    if page.from_ms <= gap.start_ms:
        return [attrs.evolve(gap, end_ms=end_ms, repaired=True, proof=proof)]
    reason = f"of so many bars only the newest are read again, from {page.from_ms} on"
    return [attrs.evolve(gap, end_ms=page.from_ms, proof=reason)]


def _ends_about(topic: Topic, now_ms: int) -> bool:
    assert topic.timeframe is not None
    return timeframes.floor(topic.timeframe, now_ms - UNSURE_MS) != timeframes.floor(
        topic.timeframe, now_ms + UNSURE_MS
    )
