"""The candle deduplicator: live frames and pages go in, and every change of a bar comes out once, in order.

It is the only one that holds series; what a bar becomes is decided by `marketpipe.core.candles`. Messages are handled
in the order in which they came, each of them in one synchronous step with all that it tells, so that between two
messages whoever looks finds what was told, and nothing else.

Consumers are attached in band, by a message of its own (`Attach`), for the same reason: the bars they begin with and
the first change they are told lie on two sides of one step. There is nothing between them, and nothing in both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import attrs
import trio

from marketpipe.core.candles import LiveSeries
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import STREAMED, Topic
from marketpipe.models import Candle, CandleState

__all__ = [
    "Attach",
    "BarMessage",
    "BarPage",
    "BarsView",
    "Deduplicator",
    "DeduplicatorStatistics",
    "Doubt",
    "Forget",
    "LiveBars",
    "Proven",
]

# Readings handled before other tasks get their turn: some milliseconds. A scheduler pass for every message would cost
# more than the message.
AT_ONCE = 500


@attrs.frozen
class LiveBars:
    """Frames of the stream, of any series, in the order in which they came.

    ``read_s``: when they were read from the socket (monotonic), where that is to be measured.
    """

    candles: tuple[Candle, ...]
    read_s: float | None = attrs.field(default=None, eq=False)


@attrs.frozen
class BarPage:
    """A page of one series, without a hole. ``read_ms``: the exchange's time when it was read, at least.

    ``from_ms``, ``to_ms``: the open times it was asked to begin and to end with (exclusive), if it was; without them it
    begins with its oldest bar, and shows all bars that there were when it was read.
    """

    topic: Topic
    candles: tuple[Candle, ...]
    read_ms: int
    from_ms: int | None = None
    to_ms: int | None = None


@attrs.frozen
class Doubt:
    """Frames of ``topics`` may have been missed in ``[start_ms, end_ms)`` of exchange time."""

    topics: Collection[Topic]
    start_ms: int
    end_ms: int


@attrs.frozen
class Cleared:
    """Nothing of ``topic`` was missed in ``[start_ms, end_ms)``, which was doubted."""

    topic: Topic
    start_ms: int
    end_ms: int


@attrs.frozen
class Proven:
    """Every frame of ``topics`` up to ``exchange_ms`` was received, apart from doubts.

    None: of all that the exchange streams as bars. Bars made from tickers come over another connection, and are proven
    by name only.
    """

    topics: Collection[Topic] | None
    exchange_ms: int


@attrs.frozen
class Forget:
    """Nobody listens to ``topics`` any more, and nothing keeps them current. Frames must have stopped before."""

    topics: Collection[Topic]


@attrs.frozen(eq=False)
class Attach:
    """Merge a page, then hand ``attach`` the newest ``count`` bars, oldest first, as they now stand.

    What the page changes is told to the earlier consumers first. What is told after ``attach`` was called, and only
    that, is news to the new one. Without a page to merge, ``page`` is empty.
    """

    topic: Topic
    page: tuple[Candle, ...]
    read_ms: int
    count: int
    attach: Callable[[tuple[Candle, ...]], None]


BarMessage = LiveBars | BarPage | Doubt | Cleared | Proven | Forget | Attach


@attrs.frozen
class BarsView:
    """Read-only access to what is held. Synchronous.

    ``bars``: oldest first, () for what is not followed. ``whole_from_ms``: every bar that exists and opens at or after
    it is among them; None if that is not known.
    """

    bars: Callable[[Topic], tuple[Candle, ...]]
    whole_from_ms: Callable[[Topic], int | None]


@attrs.frozen
class DeduplicatorStatistics:
    """``series`` followed now, and since the start: bars told, and readings that changed nothing.

    ``running``: changes of bars that were not over. ``final``: bars, each counted once. ``amended``: changes of bars
    after that. ``ignored``: duplicates, older readings than what was held, and bars too old to be kept.
    """

    series: int
    running: int
    final: int
    amended: int
    ignored: int


@attrs.define(eq=False)
class Deduplicator:
    """State of the actor; `run` is the actor.

    ``publish`` is called with the bars that one message made news, in order, within the step that handles it; ``mend``
    in its place, where there is one, with those that a page has brought, for they are as many as a hole is long.
    Neither of them nor an `Attach.attach` may block or raise. ``keep``: bars held per series. ``timed`` is called with
    how many live readings were handled, and when they were read, once what they made news is told.
    """

    _inbox: trio.MemoryReceiveChannel[BarMessage]
    _publish: Callable[[Sequence[Candle]], None]
    _keep: int = 50
    _mend: Callable[[Topic, Sequence[Candle]], None] | None = None
    _timed: Callable[[int, float], None] | None = None
    _series: dict[Topic, LiveSeries] = attrs.field(init=False, factory=dict)
    _running: int = attrs.field(init=False, default=0)
    _final: int = attrs.field(init=False, default=0)
    _amended: int = attrs.field(init=False, default=0)
    _ignored: int = attrs.field(init=False, default=0)  # by series that are forgotten

    @property
    def view(self) -> BarsView:
        """What readers may touch."""
        return BarsView(self._bars, self._whole_from_ms)

    @property
    def amended(self) -> int:
        """Changes of bars that were final."""
        return self._amended

    def statistics(self) -> DeduplicatorStatistics:
        """What is followed, and what was told so far."""
        ignored = self._ignored + sum(series.ignored for series in self._series.values())
        return DeduplicatorStatistics(len(self._series), self._running, self._final, self._amended, ignored)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Handle messages until every sender's end of the inbox is closed."""
        task_status.started()
        with self._inbox:
            async for message in self._inbox:
                self._handle_burst(message)

    def _handle_burst(self, message: BarMessage) -> None:
        handled = self._handle(message)
        while handled < AT_ONCE:
            try:
                message = self._inbox.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return
            handled += self._handle(message)

    def _handle(self, message: BarMessage) -> int:
        """Do what ``message`` says; return about how many readings that was worth."""
        match message:
            case LiveBars(candles, read_s):
                self._tell([told for candle in candles for told in self._open(Topic.of_candle(candle)).live(candle)])
                if read_s is not None and self._timed is not None:
                    self._timed(len(candles), read_s)
                return 1 + len(candles)
            case BarPage(topic, candles, read_ms, from_ms, to_ms):
                self._merge(topic, candles, read_ms, from_ms, to_ms)
                return 1 + len(candles)
            case Attach(topic, page, read_ms, count, attach):
                series = self._open(topic)
                self._merge(topic, page, read_ms)
                attach(series.latest(count, page))
                return 1 + len(page)
            case Proven(topics, exchange_ms):
                followed = self._followed(topics)
                self._tell([told for series in followed for told in series.proven(exchange_ms)])
                return 1 + len(followed)
            case Doubt(topics, start_ms, end_ms):
                for topic in topics:
                    self._open(topic).doubt(start_ms, end_ms)
                return 1 + len(topics)
            case Cleared(topic, start_ms, end_ms):
                self._tell(self._open(topic).cleared(start_ms, end_ms))
                return 1
            case Forget(topics):
                for topic in topics:
                    self._forget(topic)
                return 1 + len(topics)

    def _merge(
        self,
        topic: Topic,
        page: Sequence[Candle],
        read_ms: int,
        from_ms: int | None = None,
        to_ms: int | None = None,
    ) -> None:
        # What is older than all that is held is history: whoever wants it asks for it, and gets it then. Of a page
        # that comes first of all, the newest bar is news, as a snapshot is.
        series = self._open(topic)
        begins_ms = series.begins_ms
        told = series.page(page, read_ms, from_ms=from_ms, to_ms=to_ms)
        news = told[-1:] if begins_ms is None else [bar for bar in told if bar.open_ms >= begins_ms]
        self._tell(news, topic)

    def _open(self, topic: Topic) -> LiveSeries:
        series = self._series.get(topic)
        if series is None:
            series = self._series[topic] = LiveSeries(topic.market, _timeframe(topic), keep=self._keep)
        return series

    def _followed(self, topics: Iterable[Topic] | None) -> list[LiveSeries]:
        if topics is None:
            return [series for series in self._series.values() if series.timeframe in STREAMED]
        return [self._series[topic] for topic in topics if topic in self._series]

    def _forget(self, topic: Topic) -> None:
        series = self._series.pop(topic, None)
        if series is not None:
            self._ignored += series.ignored

    def _tell(self, told: Sequence[Candle], mended: Topic | None = None) -> None:
        if not told:
            return
        for candle in told:
            if candle.state is CandleState.RUNNING:
                self._running += 1
            elif candle.revision:
                self._amended += 1
            else:
                self._final += 1
        if mended is None or self._mend is None:
            self._publish(told)
        else:
            self._mend(mended, told)

    def _bars(self, topic: Topic) -> tuple[Candle, ...]:
        series = self._series.get(topic)
        return () if series is None else series.bars

    def _whole_from_ms(self, topic: Topic) -> int | None:
        series = self._series.get(topic)
        return None if series is None else series.whole_from_ms


def _timeframe(topic: Topic) -> Timeframe:
    if topic.timeframe is None:
        raise ValueError(f"a series of bars has a timeframe, {topic!r} has none")
    return topic.timeframe
