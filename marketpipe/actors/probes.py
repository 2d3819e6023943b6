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
from marketpipe.errors import BadPayload, ExchangeUnavailable, MarketPipeError, UnknownMarket
from marketpipe.models import Priority

__all__ = ["Probe"]

# A trade reaches the stream within some 130 ms, and a bar is only evaluated once a second (websocket-candle,
# 2025-05-19); what REST knows for that long, the stream should have shown.
SLACK_MS = {Line.CANDLE: 2_500}
ORDINARY_SLACK_MS = 1_000
LOOK_EVERY_S = 0.1


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

        News that may still be on their way are waited for, as long as they may take: where something happens all the
        time, there is nothing else. Raises `ExchangeUnavailable` if REST does not tell in time: a stream that nobody
        vouches for is not believed.
        """
        slack_ms = SLACK_MS.get(self._line, ORDINARY_SLACK_MS)
        answers = await self._ask(topics)
        # Whatever REST shows was made by now, whatever the clocks say.
        until_s = trio.current_time() + slack_ms / 1000
        told = {topic: self._moment_ms(value) for topic, value in answers.items() if not isinstance(value, BadPayload)}
        if answers and not told:
            raise ExchangeUnavailable(f"silent, and REST cannot be read: {next(iter(answers.values()))}")
        while unseen := {topic: ms for topic, ms in told.items() if ms > (shown_ms(topic) or 0)}:
            if trio.current_time() >= until_s:
                return list(unseen)
            late = [
                topic for topic, ms in unseen.items() if is_stalled(shown_ms(topic), ms, asked_ms, slack_ms=slack_ms)
            ]
            if late:
                return late
            await trio.sleep(LOOK_EVERY_S)
        return []

    async def known(self, topics: Collection[Topic]) -> dict[Topic, bool]:
        """Whether REST knows anything of each of ``topics``, apart from those of which it did not tell.

        Raises as `stalled` does.
        """
        return {topic: not isinstance(answer, BadPayload) for topic, answer in (await self._ask(topics)).items()}

    async def _ask(self, topics: Collection[Topic]) -> dict[Topic, object]:
        """What REST tells of each: a value, or that it has none which can be read."""
        group = Group.ORDERBOOK if self._line is Line.ORDERBOOK else Group.TICKER
        keys = {topic: Wanted(group, topic.market) for topic in topics}
        with trio.move_on_after(self._patience_s) as patience:
            answers = await self._asker.ask(tuple(dict.fromkeys(keys.values())), Priority.HIGH)
        if patience.cancelled_caught:
            raise ExchangeUnavailable(f"silent, and REST does not answer within {self._patience_s} s either")
        gone = {topic: answer for topic, key in keys.items() if isinstance(answer := answers[key], UnknownMarket)}
        for topic, error in gone.items():
            self._gone(topic, error)
        told = {topic: answers[key] for topic, key in keys.items() if _tells(answers[key])}
        if not told and not gone:
            raise ExchangeUnavailable(f"silent, and REST does not know better: {next(iter(answers.values()))}")
        return told

    def _moment_ms(self, value: object) -> int:
        stamp: int = getattr(value, "exchange_ms" if self._line is Line.ORDERBOOK else "trade_ms")
        return stamp


def _tells(answer: object) -> bool:
    # A flaw that names its market is one of that market's row, or the lack of it.
    if isinstance(answer, BadPayload):
        return answer.market is not None
    return not isinstance(answer, MarketPipeError)
