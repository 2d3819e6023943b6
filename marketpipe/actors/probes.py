"""Asking REST whether a silent stream has anything to be silent about."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import attrs
import trio

from marketpipe.actors.asker import Asker
from marketpipe.actors.messages import Answers
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
# A line that flows is not waited for without end, nor one that has ceased to.
PATIENCE_S = 1.0


# The batcher calls a market unknown by a list that is at most 10 s old.
ANOTHER_LIST_S = 15.0


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
    _missing: dict[Topic, float] = attrs.field(factory=dict, init=False)  # not listed, and since when

    async def stalled(
        self,
        topics: Collection[Topic],
        shown_ms: Callable[[Topic], int | None],
        asked_ms: int,
        heard_ms: Callable[[], int] | None = None,
    ) -> list[Topic]:
        """Those of ``topics`` of which REST knows news that the stream, asked at ``asked_ms``, should have shown.

        News that may still be on their way are waited for, as long as they may take: where something happens all the
        time, there is nothing else. ``heard_ms``, for a line that flows, is the newest that it has shown of anything:
        it may be late, because this machine or the way is slow, and says nothing yet of what is newer.

        Raises `ExchangeUnavailable` if REST does not tell in time: a stream that nobody vouches for is not believed.
        """
        return await self.late(await self.values(topics), shown_ms, asked_ms, heard_ms)

    async def late(
        self,
        values: Mapping[Topic, object],
        shown_ms: Callable[[Topic], int | None],
        asked_ms: int,
        heard_ms: Callable[[], int] | None = None,
    ) -> list[Topic]:
        """As `stalled`, for ``values`` that have just been asked for."""
        slack_ms = SLACK_MS.get(self._line, ORDINARY_SLACK_MS)
        told = {topic: self._moment_ms(value) for topic, value in values.items()}
        answered_s = trio.current_time()
        line = None if heard_ms is None else _Flow(heard_ms, answered_s + slack_ms / 1000 + PATIENCE_S)
        while unseen := {topic: ms for topic, ms in told.items() if ms > (shown_ms(topic) or 0)}:
            now_s = trio.current_time()
            due_ms = asked_ms + round((now_s - answered_s) * 1000)
            if line is not None:
                due_ms = min(due_ms, line.look(now_s))
            late = [topic for topic, ms in unseen.items() if is_stalled(shown_ms(topic), ms, due_ms, slack_ms=slack_ms)]
            if late:
                return late
            if line is None and now_s >= answered_s + slack_ms / 1000:
                return list(unseen)  # what REST has shown was made by then, whatever the clocks say
            if line is not None and now_s >= line.until_s:
                return []
            await trio.sleep(LOOK_EVERY_S)
        return []

    def forget(self, topics: Iterable[Topic]) -> None:
        """Nobody wants ``topics`` any more: what lists lacked then says nothing of later."""
        for topic in topics:
            self._missing.pop(topic, None)

    async def known(self, topics: Collection[Topic]) -> dict[Topic, bool]:
        """Whether REST knows anything of each of ``topics``, apart from those of which it did not tell.

        Raises as `stalled` does.
        """
        return {topic: not isinstance(answer, BadPayload) for topic, answer in (await self._ask(topics)).items()}

    async def values(self, topics: Collection[Topic]) -> dict[Topic, object]:
        """What REST tells of ``topics``, as far as it can be read: their tickers, or order books for that line.

        Raises as `stalled` does.
        """
        answers = await self._ask(topics)
        told = {topic: value for topic, value in answers.items() if not isinstance(value, BadPayload)}
        if answers and not told:
            raise ExchangeUnavailable(f"silent, and REST cannot be read: {next(iter(answers.values()))}")
        return told

    async def _ask(self, topics: Collection[Topic]) -> dict[Topic, object]:
        """What REST tells of each: a value, or that it has none which can be read."""
        group = Group.ORDERBOOK if self._line is Line.ORDERBOOK else Group.TICKER
        keys = {topic: Wanted(group, topic.market) for topic in topics}
        answers: Answers | None = None
        with trio.move_on_after(self._patience_s):
            answers = await self._asker.ask(tuple(dict.fromkeys(keys.values())), Priority.HIGH)
        if answers is None:
            raise ExchangeUnavailable(f"silent, and REST does not answer within {self._patience_s} s either")
        gone = {topic: answer for topic, key in keys.items() if isinstance(answer := answers[key], UnknownMarket)}
        self._note_the_gone(gone, keys)
        told = {topic: answers[key] for topic, key in keys.items() if _tells(answers[key])}
        if not told and not gone:
            flaw = next(iter(answers.values()))
            raise ExchangeUnavailable(f"silent, and REST does not know better: {flaw}") from flaw
        return told

    def _note_the_gone(self, gone: Mapping[Topic, UnknownMarket], asked: Iterable[Topic]) -> None:
        # One list may lack a market by mistake: it takes a later one that agrees.
        now_s = trio.current_time()
        for topic in asked:
            if topic not in gone:
                self._missing.pop(topic, None)
            elif now_s - self._missing.setdefault(topic, now_s) >= ANOTHER_LIST_S:
                self._gone(topic, gone[topic])

    def _moment_ms(self, value: object) -> int:
        stamp: int = getattr(value, "exchange_ms" if self._line is Line.ORDERBOOK else "trade_ms")
        return stamp


@attrs.define
class _Flow:
    """A line while it is waited for: the newest that it has shown, and until when it may show something newer."""

    _heard_ms: Callable[[], int]
    _longest_s: float
    _newest_ms: int = -1
    until_s: float = 0.0

    def look(self, now_s: float) -> int:
        newest_ms = self._heard_ms()
        if newest_ms > self._newest_ms:
            self._newest_ms, self.until_s = newest_ms, min(now_s + PATIENCE_S, self._longest_s)
        return newest_ms


def _tells(answer: object) -> bool:
    # A flaw that names its market is one of that market's row, or the lack of it.
    if isinstance(answer, BadPayload):
        return answer.market is not None
    return not isinstance(answer, MarketPipeError)
