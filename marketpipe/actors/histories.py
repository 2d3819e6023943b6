"""History first, then live: what a subscriber to bars has asked for to begin with.

The history is read when the live stream of the bar flows already, and handed over in one step with the first live bar
after it (`marketpipe.actors.deduplicator.Attach`): no seam, no duplicate, no hole. Until then the subscriber hears
nothing of that bar.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import attrs
import trio

from marketpipe.actors.asker import Asker
from marketpipe.actors.deduplicator import Attach, BarMessage
from marketpipe.actors.hub import Hub, Subscription
from marketpipe.config import Subscriptions as Options
from marketpipe.core.paging import candle_walk
from marketpipe.core.timeframes import Timeframe
from marketpipe.core.topics import STREAMED, Topic
from marketpipe.errors import ExchangeError, UnknownMarket
from marketpipe.logs import fields, told
from marketpipe.models import Candle, Gap, Priority

__all__ = ["Histories"]

logger = logging.getLogger("marketpipe.stream")

AGAIN_S = 1.0


@attrs.define(eq=False)
class Histories:
    """The subscribers that wait for their history. ``send`` puts a message to the deduplicator."""

    _asker: Asker
    _hub: Hub
    _send: Callable[[BarMessage], None]
    _exchange_ms: Callable[[], int]
    _wait_shown: Callable[[Topic], Awaitable[None]]
    _distrust: Callable[[Topic, int], None]
    _open_gap: Callable[[Topic], Gap | None]
    _options: Options
    _scopes: dict[Subscription[Any], trio.CancelScope] = attrs.field(factory=dict, init=False)
    _nursery: trio.Nursery = attrs.field(init=False)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read what is wanted, for ever."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def want(self, subscription: Subscription[Any], topics: Sequence[Topic], count: int) -> None:
        """Let ``subscription`` begin with the newest ``count`` bars of each of ``topics``."""
        scope = self._scopes[subscription] = trio.CancelScope()
        self._nursery.start_soon(self._begin_all, subscription, topics, count, scope, name="history")

    def cancel(self, subscription: Subscription[Any]) -> None:
        """``subscription`` has ended."""
        scope = self._scopes.pop(subscription, None)
        if scope is not None:
            scope.cancel(reason="the subscription was closed")

    async def _begin_all(
        self, subscription: Subscription[Any], topics: Sequence[Topic], count: int, scope: trio.CancelScope
    ) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                for topic in topics:
                    nursery.start_soon(self._begin, subscription, topic, count, name=f"history of {topic}")

    async def _begin(self, subscription: Subscription[Any], topic: Topic, count: int) -> None:
        options = self._options
        with trio.move_on_after(options.handshake_s + options.snapshot_s) as patience:
            await self._wait_shown(topic)
        if patience.cancelled_caught and topic.timeframe in STREAMED:
            # The stream is down: what it will not have shown must be read again.
            self._distrust(topic, self._exchange_ms())
        while True:
            read_ms = self._exchange_ms()
            walk = candle_walk(topic.market, _timeframe(topic), count=count, end_ms=None)
            try:
                page = await self._asker.walk(walk, Priority.NORMAL)
            except UnknownMarket as error:
                self._hub.fail_one(subscription, topic, error, read_ms)
                return
            except ExchangeError as error:
                logger.info("history of %s: %s", topic, told(error), extra=fields("no-history", error, topic=topic))
                await trio.sleep(AGAIN_S)
            else:
                attach = partial(self._attach, subscription, topic)
                self._send(Attach(topic, page, read_ms, count, attach))
                return

    def _attach(self, subscription: Subscription[Any], topic: Topic, history: tuple[Candle, ...]) -> None:
        gap = self._open_gap(topic)
        self._hub.join(subscription, topic, history if gap is None else (*history, gap))


def _timeframe(topic: Topic) -> Timeframe:
    assert topic.timeframe is not None  # only bars have a history
    return topic.timeframe
