"""What is known of a stretch of history, slot by slot, and what it would take to know the rest."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Protocol

import attrs

from marketpipe.core import timeframes
from marketpipe.core.planning import pages_at_most, slots_in
from marketpipe.core.spans import Span, SpanSet
from marketpipe.core.timeframes import Timeframe

__all__ = ["CollectionState", "CollectionSummary", "Explanation", "FailedSpan", "summed_up"]


class CollectionState(StrEnum):
    """What is known of a slot.

    COLLECTED: there was a trade, and its bar is stored. EMPTY: it is proven that there was none. PENDING: nobody has
    asked yet. FAILED: somebody has asked, and got no answer.
    """

    COLLECTED = "collected"
    EMPTY = "empty"
    PENDING = "pending"
    FAILED = "failed"


class FailedSpan(Protocol):
    """A span that could not be fetched: how often it was tried, why not, and when last (epoch ms)."""

    @property
    def start_ms(self) -> int: ...
    @property
    def end_ms(self) -> int: ...
    @property
    def attempts(self) -> int: ...
    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def last_ms(self) -> int: ...


@attrs.frozen
class Explanation:
    """What a question for candles would find and cost, before anything is asked.

    ``slots``: settled ones in the range, ``slots_missing`` and ``missing``: those, and the spans (half-open, epoch ms),
    that are not proven. ``bars_stored``: bars at hand. ``requests``: pages to ask for at most, the running bar's
    included; a market that skips slots needs fewer within one span, and one that hardly trades may need more to reach a
    count. ``seconds``: how long these take at the exchange's limit.
    """

    market: str
    timeframe: Timeframe
    start_ms: int
    end_ms: int
    bars_stored: int
    slots: int
    slots_missing: int
    missing: tuple[Span, ...]
    requests: int
    seconds: float


@attrs.frozen
class CollectionSummary:
    """What is known of the slots that open in ``[start_ms, end_ms)``.

    ``collected``, ``empty``, ``pending``, ``failed``: how many slots are in which state. ``failures``: the spans that
    could not be fetched. ``spans()`` lists the states as stretches, ``state_at(open_ms)`` tells that of one slot.
    """

    market: str
    timeframe: Timeframe
    start_ms: int
    end_ms: int
    collected: int
    empty: int
    pending: int
    failed: int
    failures: tuple[FailedSpan, ...]
    _proven: SpanSet = attrs.field(alias="proven", repr=False)
    _unfetched: SpanSet = attrs.field(alias="unfetched", repr=False)
    _opens: Sequence[int] = attrs.field(alias="opens", repr=False)

    @property
    def slots(self) -> int:
        """How many there are."""
        return self.collected + self.empty + self.pending + self.failed

    @property
    def is_whole(self) -> bool:
        """Whether all is known."""
        return not self.pending and not self.failed

    @property
    def unknown(self) -> tuple[Span, ...]:
        """The spans of which nothing is known, in order."""
        return tuple(SpanSet.of((self.start_ms, self.end_ms)) - self._proven)

    @property
    def requests(self) -> int:
        """Pages that fetch what is unknown, if every slot has a bar; a market that skips slots needs fewer."""
        return pages_at_most(self.timeframe, SpanSet.of(*self.unknown))

    def state_at(self, open_ms: int) -> CollectionState:
        """That of the slot which opens then. One outside of the range, or where no slot opens, is a ``ValueError``."""
        if not self.start_ms <= open_ms < self.end_ms or timeframes.floor(self.timeframe, open_ms) != open_ms:
            raise ValueError(f"no {self.timeframe} slot of [{self.start_ms}, {self.end_ms}) opens at {open_ms}")
        if open_ms not in self._proven:
            return CollectionState.FAILED if open_ms in self._unfetched else CollectionState.PENDING
        index = bisect_left(self._opens, open_ms)
        is_there = index < len(self._opens) and self._opens[index] == open_ms
        return CollectionState.COLLECTED if is_there else CollectionState.EMPTY

    def spans(self) -> Iterator[tuple[int, int, CollectionState]]:
        """Stretches of slots in one state, oldest first: start, end (exclusive) and state."""
        pending = SpanSet.of((self.start_ms, self.end_ms)) - self._proven - self._unfetched
        unknown = [(*span, CollectionState.PENDING) for span in pending]
        unknown += [(*span, CollectionState.FAILED) for span in self._unfetched]
        known = [span for proven in self._proven for span in self._known(*proven)]
        return iter(sorted(unknown + known))

    def _known(self, start_ms: int, end_ms: int) -> Iterator[tuple[int, int, CollectionState]]:
        from_ms = to_ms = start_ms  # of the run of bars that is being walked through
        for index in range(bisect_left(self._opens, start_ms), bisect_left(self._opens, end_ms)):
            open_ms = self._opens[index]
            if open_ms > to_ms:
                if from_ms < to_ms:
                    yield from_ms, to_ms, CollectionState.COLLECTED
                yield to_ms, open_ms, CollectionState.EMPTY
                from_ms = open_ms
            to_ms = timeframes.next_open(self.timeframe, open_ms)
        if from_ms < to_ms:
            yield from_ms, to_ms, CollectionState.COLLECTED
        if to_ms < end_ms:
            yield to_ms, end_ms, CollectionState.EMPTY


def summed_up(
    market: str,
    timeframe: Timeframe,
    span: Span,
    proven: SpanSet,
    opens: Sequence[int],
    failures: Iterable[FailedSpan],
) -> CollectionSummary:
    """The state of every slot in ``span``, read off what is ``proven`` and what has failed.

    ``opens``: when the stored bars open, oldest first; those outside of what is proven say nothing.
    """
    start_ms, end_ms = span
    asked = SpanSet.of(span)
    whole = _whole(timeframe, proven & asked)
    failed = tuple(failures)
    unfetched = _whole(timeframe, SpanSet.of(*((each.start_ms, each.end_ms) for each in failed)) & asked) - whole
    collected = sum(bisect_left(opens, end) - bisect_left(opens, start) for start, end in whole)
    known, lost = slots_in(timeframe, whole), slots_in(timeframe, unfetched)
    return CollectionSummary(
        market=market,
        timeframe=timeframe,
        start_ms=start_ms,
        end_ms=end_ms,
        collected=collected,
        empty=known - collected,
        pending=slots_in(timeframe, asked) - known - lost,
        failed=lost,
        failures=failed,
        proven=whole,
        unfetched=unfetched,
        opens=opens,
    )


def _whole(timeframe: Timeframe, spans: SpanSet) -> SpanSet:
    inwards = ((timeframes.ceil(timeframe, start), timeframes.floor(timeframe, end)) for start, end in spans)
    return SpanSet.of(*(span for span in inwards if span[0] < span[1]))
