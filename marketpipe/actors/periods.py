"""Bars of a day and more, which the exchange does not stream: made from the day's tickers and REST's closed days.

The tickers of a market that somebody wants such bars of come by here (`Periods.take`); what
`marketpipe.core.periods` makes of them goes to the deduplicator like any live bar. REST is asked for the period's
closed days, once a day, and for the bar itself when it begins to be wanted and when a day has ended: only a page that
was read after its end makes such a bar FINAL, for no ticker says that it is the day's last.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import attrs
import trio

from marketpipe.actors.asker import Asker
from marketpipe.actors.deduplicator import BarMessage, BarPage, Doubt, Forget, LiveBars
from marketpipe.actors.hub import Hub
from marketpipe.core import timeframes
from marketpipe.core.bars import GRACE_MS
from marketpipe.core.paging import candle_walk
from marketpipe.core.periods import PeriodBars
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import STREAMED, Topic
from marketpipe.errors import ExchangeError, UnknownMarket
from marketpipe.logs import fields, told
from marketpipe.models import Candle, Gap, Priority, Ticker

__all__ = ["Periods"]

R = TypeVar("R")
T = TypeVar("T")

logger = logging.getLogger("marketpipe.stream")

# The running bar and the one that has just ended.
NEWEST = 2
AGAIN_S = 1.0
# How often it is looked whether midnight has come.
LOOK_EVERY_S = 60.0
# A day's bar has settled a second after its end, and the exchange's time is known to a second only.
SETTLED_MS = GRACE_MS + 1_000
ALL_TIME = (0, 1 << 62)


@attrs.define(eq=False)
class Periods:
    """The running bars of 1d, 1w, 1M and 1y that somebody wants. ``send`` puts a message to the deduplicator."""

    _asker: Asker
    _hub: Hub
    _send: Callable[[BarMessage], None]
    _exchange_ms: Callable[[], int]
    _wanted: Counter[Topic] = attrs.field(factory=Counter, init=False)
    _bars: dict[str, dict[Topic, PeriodBars]] = attrs.field(factory=dict, init=False)
    _scopes: dict[Topic, trio.CancelScope] = attrs.field(factory=dict, init=False)
    _nursery: trio.Nursery = attrs.field(init=False)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read what is needed, for ever."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def want(self, topics: Iterable[Topic]) -> None:
        """Make the bars of those of ``topics`` that are not streamed."""
        for topic in topics:
            if topic.timeframe is None or topic.timeframe in STREAMED:
                continue
            self._wanted[topic] += 1
            if self._wanted[topic] == 1:
                bars = PeriodBars(topic.market, topic.timeframe)
                self._bars.setdefault(topic.market, {})[topic] = bars
                scope = self._scopes[topic] = trio.CancelScope()
                self._send(Doubt((topic,), *ALL_TIME))
                self._nursery.start_soon(self._follow, topic, bars, scope, name=f"following {topic}")

    def release(self, topics: Iterable[Topic]) -> None:
        """One who wanted ``topics`` does no more."""
        for topic in topics:
            if topic not in self._wanted:
                continue
            self._wanted[topic] -= 1
            if not self._wanted[topic]:
                del self._wanted[topic]
                self._scopes.pop(topic).cancel(reason="nobody wants it any more")
                of_market = self._bars[topic.market]
                del of_market[topic]
                if not of_market:
                    del self._bars[topic.market]
                self._send(Forget((topic,)))

    def gap(self, gap: Gap) -> None:
        """There is a hole in the tickers of a market, or it is mended: so it is for what is made of them."""
        for topic in self._bars.get(gap.market, {}):
            self._hub.tell(topic, [gap])

    def gone(self, market: str, error: UnknownMarket) -> None:
        """The exchange does not list ``market`` any more."""
        for topic in self._bars.get(market, {}):
            self._hub.fail(topic, error, self._exchange_ms())

    def take(self, tickers: Sequence[Ticker]) -> None:
        """Tickers came in."""
        if not self._bars:
            return
        made = [
            candle
            for ticker in tickers
            for bars in self._bars.get(ticker.market, {}).values()
            if (candle := bars.ticker(ticker)) is not None
        ]
        self._tell(made)

    def _tell(self, candles: Sequence[Candle]) -> None:
        if candles:
            self._send(LiveBars(tuple(candles)))

    async def _follow(self, topic: Topic, bars: PeriodBars, scope: trio.CancelScope) -> None:
        with scope:
            try:
                while True:
                    read_ms = await self._until_it_works(self._read_bars, topic)
                    await self._until_it_works(self._read_days, bars)
                    # The midnight after that reading: it may have passed while the question stood in the queue.
                    await self._until(_after_midnight_ms(read_ms))
            except UnknownMarket as error:
                self._hub.fail(topic, error, self._exchange_ms())

    async def _until(self, at_ms: int) -> None:
        # In steps: a machine that is suspended meanwhile wakes up when its own clock says so, hours after midnight.
        while (left_ms := at_ms - self._exchange_ms()) > 0:  # noqa: ASYNC110  the clock that counts wakes nobody
            await trio.sleep(min(left_ms / 1000, LOOK_EVERY_S))

    async def _until_it_works(self, read: Callable[[T], Awaitable[R]], about: T) -> R:
        while True:
            try:
                return await read(about)
            except UnknownMarket:
                raise
            except ExchangeError as error:
                logger.info("reading %s: %s", about, told(error), extra=fields("not-read", error, about=about))
                await trio.sleep(AGAIN_S)

    async def _read_bars(self, topic: Topic) -> int:
        assert topic.timeframe is not None
        read_ms = self._exchange_ms()
        walk = candle_walk(topic.market, topic.timeframe, count=NEWEST, end_ms=None)
        page = await self._asker.walk(walk, Priority.NORMAL)
        self._send(BarPage(topic, page, read_ms))
        return read_ms

    async def _read_days(self, bars: PeriodBars) -> None:
        while (span := bars.wants_days(self._exchange_ms())) is not None:
            read_ms = self._exchange_ms()
            walk = candle_walk(bars.market, Timeframe.D1, start_ms=span.start_ms, end_ms=span.end_ms)
            candle = bars.days(span, await self._asker.walk(walk, Priority.NORMAL), read_ms)
            self._tell([] if candle is None else [candle])


def _after_midnight_ms(read_ms: int) -> int:
    """When a day that was not over at ``read_ms`` has ended, and REST has had the time to say so."""
    day_ms = timeframes.floor(Timeframe.D1, read_ms - SETTLED_MS)
    return timeframes.next_open(Timeframe.D1, day_ms) + SETTLED_MS
