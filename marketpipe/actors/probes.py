"""Asking REST whether a silent stream has anything to be silent about."""

from __future__ import annotations

from collections.abc import Callable, Collection

import attrs
import trio

from marketpipe.actors.asker import Asker
from marketpipe.core.batching import Wanted
from marketpipe.core.liveness import is_stalled
from marketpipe.core.requests import Group
from marketpipe.core.topics import Line, Topic
from marketpipe.errors import ExchangeUnavailable, MarketPipeError, UnknownMarket
from marketpipe.models import Priority

__all__ = ["Probe"]

# A trade reaches the stream within some 130 ms, and a bar is only evaluated once a second (websocket-candle,
# 2025-05-19); what REST knows for that long, the stream should have shown.
SLACK_MS = {Line.CANDLE: 2_500}
ORDINARY_SLACK_MS = 1_000


@attrs.frozen
class Probe:
    """Checks topics of one line.

    ``patience_s``: for how long an answer is awaited before silence counts. ``gone`` is called for each topic whose
    market the exchange does not list any more.
    """

    _line: Line
    _asker: Asker
    _patience_s: float
    _gone: Callable[[Topic, UnknownMarket], None]

    async def stalled(
        self, topics: Collection[Topic], shown_ms: Callable[[Topic], int | None], asked_ms: int
    ) -> list[Topic]:
        """Those of ``topics`` of which REST knows news that the stream, asked at ``asked_ms``, should have shown.

        Raises `ExchangeUnavailable` if REST does not tell in time: a stream that nobody vouches for is not believed.
        """
        slack_ms = SLACK_MS.get(self._line, ORDINARY_SLACK_MS)
        values = await self._ask(topics)
        return [
            topic
            for topic, value in values.items()
            if is_stalled(shown_ms(topic), self._moment_ms(value), asked_ms, slack_ms=slack_ms)
        ]

    async def known(self, topics: Collection[Topic]) -> frozenset[Topic]:
        """Those of ``topics`` of which REST knows anything at all; raises as `stalled` does."""
        return frozenset(await self._ask(topics))

    async def _ask(self, topics: Collection[Topic]) -> dict[Topic, object]:
        group = Group.ORDERBOOK if self._line is Line.ORDERBOOK else Group.TICKER
        keys = {topic: Wanted(group, topic.market) for topic in topics}
        with trio.move_on_after(self._patience_s) as patience:
            answers = await self._asker.ask(tuple(dict.fromkeys(keys.values())), Priority.HIGH)
        if patience.cancelled_caught:
            raise ExchangeUnavailable(f"silent, and REST does not answer within {self._patience_s} s either")
        gone = {topic: answer for topic, key in keys.items() if isinstance(answer := answers[key], UnknownMarket)}
        for topic, error in gone.items():
            self._gone(topic, error)
        values = {topic: answers[key] for topic, key in keys.items() if not isinstance(answers[key], MarketPipeError)}
        if not values and not gone:
            raise ExchangeUnavailable(f"silent, and REST does not know better: {next(iter(answers.values()))}")
        return values

    def _moment_ms(self, value: object) -> int:
        stamp: int = getattr(value, "exchange_ms" if self._line is Line.ORDERBOOK else "trade_ms")
        return stamp
