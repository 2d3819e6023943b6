"""The bars of one market and timeframe as they grow: live frames and pages in, each change told once.

A *reading* is one showing of a bar: a frame of the stream, or a row of a page. Every reading is the whole bar as it
was at some moment, so two readings of a bar need no arithmetic: the greater one counts, by `rank`. A reading of a page
that was read after the bar's end is *settled* and ranks above every other. Taking the maximum of a total order is
commutative, associative and idempotent, and therefore it makes no difference in what order readings arrive, how often,
or in how many pages.

What happens to a bar, and what is told of it::

    held      a greater reading     it is over (1)   a settled reading      fifty newer ones are held (2)
    ───────   ───────────────────   ──────────────   ────────────────────   ─────────────────────────────
    no        RUNNING               FINAL            FINAL                  as beside, then let go of
    RUNNING   RUNNING               FINAL            FINAL                  let go of, nothing is told
    FINAL     FINAL, revision + 1   nothing          FINAL, revision + 1,   let go of, nothing is told
                                                     if that changes it

    (1) A later bar is held, or every frame was received until two seconds after its end, and it is not in doubt.
    (2) And neither it nor anything before it is in doubt: what a page has yet to mend must still have its place. A
        doubt without end, and one that would have more than `HELD_AT_MOST` bars held, holds nothing up.

What is told is what is held: `LiveSeries.bars` is the last telling of each bar. A bar is told FINAL once with revision
0; every later change of it is an amendment with the next revision. A reading with equal content changes nothing.
Content is every value and the exchange's stamp; when the reading was received, and over which way, is none.

*Doubt.* Where frames may have been missed, neither a later bar nor the time proves that a bar's last frame was
received. A bar is in doubt if any of its time, or of the second after its end in which its last frame may come,
is doubted. A page takes the doubt away from the bars it shows, up to a second before it was read: what was traded by
then is in them. So it makes the bars FINAL that have ended, and the running bar is not in doubt any more either: each
frame after it is whole. It does not matter whether the doubt or the page is told first.

*Whole.* A page has no hole: from its oldest bar on, every bar that exists is in it, and later ones come with the live
flow. `LiveSeries.whole_from_ms` is since when that has been so without a doubt.

*The oldest.* Once more bars are known than are kept, the oldest is let go of, and whatever opens at or before it is
ignored for ever: it could not be told without claiming once more that it has just become FINAL. All that a page shows
is told first, however many bars it has. What is shown of a series (`LiveSeries.bars`) is never more than is kept.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from decimal import Decimal

import attrs

from marketpipe.core import timeframes
from marketpipe.core.bars import GRACE_MS
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleState

__all__ = ["SETTLE_MS", "LiveSeries", "Rank", "rank"]

# How long after a bar's end its last frame or trade may come: the stream evaluates bars once a second, and a trade is
# stored up to 54 ms after it happened (reference/websocket-candle, 2026-09-22; seen 2026-07-30 and 2026-09-13).
SETTLE_MS = 1_000

Rank = tuple[bool, Decimal, int, Decimal, Decimal, Decimal, Decimal, Decimal]
# Half-open, in epoch milliseconds; in a list of them they are in order and do not touch.
Span = tuple[int, int]
Spans = list[Span]

# Of one second each, over an hour of outage: what a doubt may hold up before it is given up.
HELD_AT_MOST = 5_000

NEVER_MS = 0
NO_END_MS = 1 << 62  # a doubt that ends here or later has no end


def rank(reading: Candle, *, settled: bool) -> Rank:
    """Where ``reading`` stands among the readings of its bar: authority first, then its content.

    A bar's volume only grows, so the greater volume has seen more of it, whatever the stamps say: the exchange's clock
    may be wrong, and then be put right. Of one volume the newer stamp. The other values only make the order total:
    readings of one volume and one stamp have not been seen to differ, and if they do, all must take the same.
    """
    return (
        settled,
        reading.volume,
        reading.exchange_ms,
        reading.quote_volume,
        reading.high,
        reading.low,
        reading.open,
        reading.close,
    )


@attrs.define(eq=False)
class _Bar:
    """What is held of one bar. ``told`` is None until it is told for the first time, in the step that adds it."""

    end_ms: int
    rank: Rank
    told: Candle | None = None

    @property
    def is_final(self) -> bool:
        return self.told is not None and self.told.state is CandleState.FINAL

    @property
    def is_settled(self) -> bool:
        return self.rank[0]

    def differs(self) -> bool:
        """Whether its content is not what was told."""
        return self.told is None or rank(self.told, settled=self.is_settled) != self.rank


class LiveSeries:
    """The newest ``keep`` bars of one market and timeframe. All times are those of the exchange.

    `live`, `page` and `proven` return the bars to tell, in the order of their time.
    """

    def __init__(self, market: str, timeframe: Timeframe, *, keep: int = 50) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, was {keep!r}")
        self.market = market
        self.timeframe = timeframe
        self._keep = keep
        self._held: dict[int, _Bar] = {}
        self._opens: list[int] = []
        self._running: set[int] = set()
        self._floor_ms = NEVER_MS  # what opens before it is ignored
        self._proven_ms = NEVER_MS
        self._doubted: Spans = []  # and shown by no page; from a second earlier on, for the bars that ended then
        self._shown: Spans = []  # by pages
        self._paged_from_ms: int | None = None  # the oldest bar of the pages that reach to the moment they were read
        self._ignored = 0

    @property
    def bars(self) -> tuple[Candle, ...]:
        """The newest bars, as many as are kept, oldest first, each as it was last told."""
        return self._all()[-self._keep :]

    @property
    def begins_ms(self) -> int | None:
        """The open time of the oldest bar that is held; None if there is none."""
        return self._opens[0] if self._opens else None

    @property
    def ignored(self) -> int:
        """Readings that did not count: duplicates, lesser ones than what is held, and of bars no longer kept."""
        return self._ignored

    @property
    def whole_from_ms(self) -> int | None:
        """Every bar that exists and opens at or after this is held; None: no page has shown that, or all is doubted.

        It may lie in the future, when frames have just been missed.
        """
        if self._paged_from_ms is None:
            return None
        known: Spans = [(self._paged_from_ms, NO_END_MS)]
        for span in self._doubted:
            known = _without(known, span)
        for span in self._shown:
            known = _with(known, span)
        lasting = [start_ms for start_ms, end_ms in known if end_ms >= NO_END_MS]
        # What is held beyond what is kept, for a doubt, counts as let go: then it would have come before the doubt.
        beyond = len(self._opens) - self._keep
        shown_ms = self._held[self._opens[beyond - 1]].end_ms if beyond > 0 else self._floor_ms
        return max(timeframes.ceil(self.timeframe, lasting[0]), shown_ms) if lasting else None

    def live(self, reading: Candle) -> Sequence[Candle]:
        """A frame came in, in any order."""
        return self._merge((reading,), NEVER_MS)

    def page(
        self, readings: Sequence[Candle], read_ms: int, *, from_ms: int | None = None, to_ms: int | None = None
    ) -> Sequence[Candle]:
        """A page came in: in any order, without a hole between its oldest bar and the moment it was read.

        ``read_ms`` is a lower bound of when that was. If all bars from an open time on were asked for, the page begins
        there (``from_ms``), whatever its oldest bar; without it an empty page shows nothing. If it was asked for with
        ``to``, it ends there (``to_ms``). ``ValueError``: a bar is not of this series.
        """
        for reading in readings:
            if reading.market != self.market or reading.timeframe != self.timeframe:
                of = f"{reading.market} {reading.timeframe}"
                raise ValueError(f"a page of {self.market} {self.timeframe} holds a bar of {of}")
        settled_ms = read_ms - SETTLE_MS
        if from_ms is None:
            from_ms = min((reading.open_ms for reading in readings), default=None)
        if from_ms is not None:
            self._show(from_ms, settled_ms, to_ms)
        return self._merge(readings, settled_ms)

    def doubt(self, start_ms: int, end_ms: int) -> None:
        """Frames may have been missed in ``[start_ms, end_ms)``. What was told FINAL before stays so.

        Whoever reads a page before the live flow has begun tells the time between the two as a doubt.
        """
        if start_ms >= end_ms:
            return
        doubted: Spans = [(start_ms - SETTLE_MS, end_ms)]
        for span in self._shown:
            doubted = _without(doubted, span)
        for span in doubted:
            self._doubted = _with(self._doubted, span)

    def cleared(self, start_ms: int, end_ms: int) -> Sequence[Candle]:
        """What was doubted in ``[start_ms, end_ms)`` turned out to be all there is: nothing was missed."""
        self._doubted = _without(self._doubted, (start_ms - SETTLE_MS, end_ms))
        return self._tell({}) if self._running else ()

    def proven(self, exchange_ms: int) -> Sequence[Candle]:
        """Every frame up to ``exchange_ms`` was received, apart from what is doubted."""
        if exchange_ms <= self._proven_ms:
            return ()
        self._proven_ms = exchange_ms
        return self._tell({}) if self._running else ()

    def latest(self, count: int, page: Iterable[Candle] = ()) -> tuple[Candle, ...]:
        """The newest ``count`` of the bars that are held and of those in ``page`` that are older, oldest first.

        The page must have been merged. Bars older than what is kept are FINAL, and have no revision any more.
        """
        older: dict[int, Candle] = {}
        for reading in page:
            known = older.get(reading.open_ms)
            better = known is None or rank(known, settled=True) < rank(reading, settled=True)
            if reading.open_ms < self._floor_ms and better:
                older[reading.open_ms] = reading
        finals = (_as(older[open_ms], CandleState.FINAL, 0) for open_ms in sorted(older))
        bars = (*finals, *self._all())
        return bars[max(0, len(bars) - count) :]

    def _all(self) -> tuple[Candle, ...]:
        return tuple(told for open_ms in self._opens if (told := self._held[open_ms].told) is not None)

    def _show(self, start_ms: int, settled_ms: int, to_ms: int | None) -> None:
        end_ms = settled_ms if to_ms is None else min(to_ms, settled_ms)
        if start_ms >= end_ms:
            return
        self._shown = _with(self._shown, (start_ms, end_ms))
        self._doubted = _without(self._doubted, (start_ms, end_ms))
        if to_ms is None:
            self._paged_from_ms = start_ms if self._paged_from_ms is None else min(self._paged_from_ms, start_ms)

    def _merge(self, readings: Iterable[Candle], settled_ms: int) -> Sequence[Candle]:
        changed: dict[int, Candle] = {}
        for reading in readings:
            if self._take(reading, settled_ms):
                changed[reading.open_ms] = reading
            else:
                self._ignored += 1
        told = self._tell(changed)
        self._let_go()
        return told

    def _take(self, reading: Candle, settled_ms: int) -> bool:
        """Whether it counts."""
        open_ms = reading.open_ms
        bar = self._held.get(open_ms)
        if bar is None:
            if open_ms < self._floor_ms:
                return False
            end_ms = reading.close_ms
            self._held[open_ms] = _Bar(end_ms, rank(reading, settled=end_ms <= settled_ms))
            self._running.add(open_ms)
            insort(self._opens, open_ms)
            return True
        greater = rank(reading, settled=bar.end_ms <= settled_ms)
        if greater <= bar.rank:
            return False
        bar.rank = greater
        return True

    def _let_go(self) -> None:
        while len(self._opens) > self._keep and not self._is_held_up(self._held[self._opens[0]].end_ms):
            open_ms = self._opens.pop(0)
            self._floor_ms = self._held.pop(open_ms).end_ms
            self._running.discard(open_ms)
            # What ends by now touches no bar that can still be held.
            self._doubted = [span for span in self._doubted if span[1] > self._floor_ms]
            self._shown = [span for span in self._shown if span[1] > self._floor_ms]

    def _is_held_up(self, end_ms: int) -> bool:
        if len(self._opens) > max(self._keep, HELD_AT_MOST):
            return False
        return any(start < end_ms and self._floor_ms < end < NO_END_MS for start, end in self._doubted)

    def _tell(self, changed: dict[int, Candle]) -> Sequence[Candle]:
        told: list[Candle] = []
        for open_ms in sorted(self._running.union(changed)):
            telling = self._telling(open_ms, changed.get(open_ms))
            if telling is not None:
                self._held[open_ms].told = telling
                told.append(telling)
        return told

    def _telling(self, open_ms: int, reading: Candle | None) -> Candle | None:
        """The bar as it is to be told now, or None if there is nothing new. ``reading`` has just come to count."""
        bar = self._held[open_ms]
        # A settled reading may confirm what was told, and two rows of one page may leave it and come back.
        content = reading if reading is not None and bar.differs() else bar.told
        if bar.is_final:
            assert bar.told is not None
            return None if content is bar.told else _as(content, CandleState.FINAL, bar.told.revision + 1)
        if self._is_over(open_ms, bar):
            self._running.discard(open_ms)
            return _as(content, CandleState.FINAL, 0)
        return None if content is bar.told else _as(content, CandleState.RUNNING, 0)

    def _is_over(self, open_ms: int, bar: _Bar) -> bool:
        if bar.is_settled:
            return True
        if open_ms == self._opens[-1] and bar.end_ms + GRACE_MS > self._proven_ms:
            return False
        return not any(start < bar.end_ms and open_ms < end for start, end in self._doubted)


def _as(reading: Candle | None, state: CandleState, revision: int) -> Candle:
    assert reading is not None  # a bar without a telling has a reading
    if reading.state is state and reading.revision == revision:
        return reading
    return attrs.evolve(reading, state=state, revision=revision)


def _with(spans: Spans, added: Span) -> Spans:
    """``spans`` and ``added``, joined where they touch."""
    start, end = added
    apart = [span for span in spans if span[1] < start or end < span[0]]
    touching = [span for span in spans if not (span[1] < start or end < span[0])]
    joined = (min([start, *(span[0] for span in touching)]), max([end, *(span[1] for span in touching)]))
    return sorted([*apart, joined])


def _without(spans: Spans, removed: Span) -> Spans:
    """What of ``spans`` lies outside ``removed``."""
    start, end = removed
    pieces = [piece for span in spans for piece in ((span[0], min(span[1], start)), (max(span[0], end), span[1]))]
    return [piece for piece in pieces if piece[0] < piece[1]]
