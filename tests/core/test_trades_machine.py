"""A day at the market: whatever is lost on the way, every trade is delivered once or lies in a gap that was told.

The market is a list of trades, each with the moment it was made, the moment the exchange published it, and an id. The
stream tells what is published while it is connected; REST shows what was published up to some moments ago.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Generator, Iterator
from typing import Any
from unittest import mock

import attrs
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from paper_exchange import DAY_MS, NOW_MS, PAGE, trade

from marketpipe.core import delivered, mending, trades
from marketpipe.core.mending import SLACK_MS
from marketpipe.core.requests import TradesRequest
from marketpipe.core.trades import TradeFlow
from marketpipe.models import Gap, Trade

MIDNIGHT_MS = NOW_MS // DAY_MS * DAY_MS
LATE_MS = 300  # how far out of order a stream tells
STAMP_MS = 60  # from made to published
WIRE_MS = 20
SNAPSHOT_MS = 170
NO_SNAPSHOT_MS = 5_000
COUNT_EVERY_MS = 10_000
LAST_COUNTS = 60  # after false alarms they are looked at more rarely
SETTLE_MS = 500  # how long the mender waits before each look at REST


@attrs.frozen
class Deal:
    """``repeated_ms``: how long after the first time the stream tells it again; None: it does not."""

    trade: Trade
    published_ms: int
    repeated_ms: int | None


@attrs.frozen
class Break:
    """Nothing that is published from ``at_ms`` on is told, until ``again_ms``.

    A *loss* is noticed ``stall_ms`` later, and whoever notices it takes a moment ``early_ms`` before the break for the
    last certain one. The other kind is a subscribe message that replaces another.
    """

    is_loss: bool
    at_ms: int
    stall_ms: int
    early_ms: int
    down_ms: int

    @property
    def noticed_ms(self) -> int:
        return self.at_ms + self.stall_ms

    @property
    def again_ms(self) -> int:
        return self.noticed_ms + self.down_ms


@attrs.frozen
class Plot:
    """``lags_ms``, ``rounds_ms``: how far behind REST is and how long it takes, page by page, over and over. On a later
    page of a walk it is never further behind than to the view of the page before.

    ``by_id``: REST orders and continues by id, otherwise by time. ``by_time``: a snapshot shows the trade that was made
    last, otherwise the one that was published last. ``patience``: looks at REST before a doubt is given up.
    ``unheard``: when the stream tells nothing that is published, and goes on as if nothing was.
    """

    start_ms: int
    deals: tuple[Deal, ...]
    breaks: tuple[Break, ...]
    lags_ms: tuple[int, ...]
    rounds_ms: tuple[int, ...]
    by_id: bool
    by_time: bool
    patience: int | None
    unheard: tuple[tuple[int, int], ...] = ()


@st.composite
def tapes(draw: st.DrawFn, start_ms: int, *, disorder: bool) -> tuple[Deal, ...]:
    """Bursts, ties and silences. With ``disorder``, some are published late, and ids run ahead of time or behind it."""
    late = st.just(0) | st.integers(0, LATE_MS) if disorder else st.just(0)
    gap = st.sampled_from([0, 7, 40, 150, 400, 400, 900, 1_900, 2_100, 5_000]) | st.sampled_from([400, 10_000, 70_000])
    ties = st.lists(st.tuples(late, late, st.none() | late), min_size=1, max_size=4)
    rows = st.lists(st.tuples(gap, ties), min_size=4, max_size=40)
    at_ms = start_ms - draw(st.sampled_from([0, 500, 3_000]))
    old = [(-draw(st.sampled_from([0, 3_600_000])), [(0, 0, None)]), (3_600_000, [])]
    deals: dict[int, Deal] = {}
    for gap_ms, ties in [*old, *draw(rows)]:
        at_ms += gap_ms
        for late_ms, id_ms, repeated_ms in ties:
            free = (i for i in itertools.count((at_ms + id_ms) * 10_000) if i not in deals)
            deal = trade(at_ms, next(free))
            deals[deal.sequential_id] = Deal(deal, at_ms + STAMP_MS + late_ms, repeated_ms)
    return tuple(deals.values())


@st.composite
def plots(draw: st.DrawFn) -> Plot:
    start_ms = MIDNIGHT_MS + draw(st.sampled_from([DAY_MS // 2, -1_500, -30_000, -100_000]))
    disorder = draw(st.booleans())
    tape = draw(tapes(start_ms, disorder=disorder))
    published = sorted(deal.published_ms for deal in tape)
    breaks: list[Break] = []
    for is_loss, after, around_ms, stall_ms, early_ms, down_ms in draw(
        st.lists(
            st.tuples(
                st.sampled_from([True, True, False]),
                st.integers(0, 20),
                st.sampled_from([-2_500, -30, -1, 0, 5, 600, 2_500]),
                st.sampled_from([0, 0, 10, 900, 4_000]),
                st.sampled_from([0, 50, 700]),
                st.sampled_from([0, 30, 500, 500, 8_000, 100_000]),
            ),
            max_size=5,
        )
    ):
        least_ms = (breaks[-1].again_ms if breaks else start_ms) + 200
        later = [ms for ms in published if ms + around_ms >= least_ms] or [least_ms]
        at_ms = max(least_ms, later[min(after, len(later) - 1)] + around_ms)
        void_ms = down_ms if is_loss else min(down_ms, 150)
        breaks.append(Break(is_loss, at_ms, stall_ms if is_loss else 0, early_ms, void_ms))
    # What was published late, just before the snapshot, is sure to be shown only if REST is no further behind than the
    # mender waits. Where nothing is late, it may be behind by any time.
    lag = st.integers(0, SETTLE_MS - SNAPSHOT_MS) if disorder else st.sampled_from([0, 100, 400, 1_500, 3_000])
    return Plot(
        start_ms,
        tape,
        tuple(breaks),
        lags_ms=tuple(draw(st.lists(lag, min_size=1, max_size=6))),
        rounds_ms=tuple(draw(st.lists(st.sampled_from([20, 60, 300, 2_500]), min_size=1, max_size=6))),
        by_id=draw(st.booleans()),
        by_time=draw(st.booleans()),
        patience=draw(st.sampled_from([None, None, None, 0, 1])),
        unheard=tuple(
            (published[first], published[first] + lasts_ms)
            for first, lasts_ms in draw(
                st.lists(st.tuples(st.integers(0, len(published) - 1), st.integers(1, 2_500)), max_size=3)
            )
        ),
    )


@attrs.define(eq=False)
class Market:
    """Plays a plot to a `TradeFlow`; notes what is delivered, a tuple for each time, and the pages of each walk.

    ``born_ms``: when the subscription began whose first frame (``first``) began it all; None while there is none.
    """

    plot: Plot
    flow: TradeFlow = attrs.field(factory=lambda: TradeFlow("KRW-BTC"))
    told: list[tuple[Trade | Gap, ...]] = attrs.field(factory=list)
    first: Trade | None = None
    born_ms: int | None = None
    _agenda: list[tuple[int, int, Callable[[int], None]]] = attrs.field(factory=list)
    _numbers: Iterator[int] = attrs.field(factory=itertools.count)
    _lags: Iterator[int] = attrs.field(init=False)
    _rounds: Iterator[int] = attrs.field(init=False)
    _mending: bool = False

    def play(self) -> None:
        self._lags, self._rounds = itertools.cycle(self.plot.lags_ms), itertools.cycle(self.plot.rounds_ms)
        self._join(self.plot.start_ms, subscribe=True)
        for item in self.plot.breaks:
            self._at(item.noticed_ms, self._losing(item) if item.is_loss else self.flow.resubscribed)
            self._join(item.again_ms, subscribe=item.is_loss)
        for deal in self.plot.deals:
            if self.is_streamed(deal):
                for after_ms in {0, deal.repeated_ms or 0}:
                    self._frame(deal.published_ms, deal.published_ms + WIRE_MS + after_ms, deal.trade, snapshot=False)
        last_ms = max([deal.published_ms for deal in self.plot.deals] + [item.again_ms for item in self.plot.breaks])
        for at_ms in range(self.plot.start_ms + 1_000, last_ms + LAST_COUNTS * COUNT_EVERY_MS, COUNT_EVERY_MS):
            self._at(at_ms, self._count)
        while self._agenda:
            now_ms, _, act = heapq.heappop(self._agenda)
            act(now_ms)
            if self.flow.needs is not None and not self._mending:
                self._mending = True
                self._at(now_ms + SETTLE_MS, lambda now_ms: self._look(now_ms, looks=0))

    def is_streamed(self, deal: Deal) -> bool:
        """Whether it is published while a subscription runs and reaches us before that connection breaks."""
        sent_ms = deal.published_ms
        down = any(item.at_ms < sent_ms <= item.again_ms for item in self.plot.breaks)
        down = down or any(start_ms <= sent_ms < end_ms for start_ms, end_ms in self.plot.unheard)
        return sent_ms > self.plot.start_ms and not down and self._arrives(sent_ms, sent_ms + WIRE_MS)

    # -- the stream

    def _join(self, at_ms: int, *, subscribe: bool) -> None:
        if subscribe:
            self._at(at_ms, self.flow.subscribed)
        shown = [deal for deal in self.plot.deals if deal.published_ms <= at_ms]
        if shown:
            last = max(shown, key=lambda deal: rank(deal.trade) if self.plot.by_time else self._published(deal))
            self._frame(at_ms + 1, at_ms + SNAPSHOT_MS, last.trade, snapshot=True)
        elif self._arrives(at_ms + 1, at_ms + NO_SNAPSHOT_MS):
            self._at(at_ms + NO_SNAPSHOT_MS, self._lack_snapshot)

    def _published(self, deal: Deal) -> tuple[int, int]:
        return deal.published_ms, self.plot.deals.index(deal)

    def _lack_snapshot(self, now_ms: int) -> None:
        self._begin(now_ms - NO_SNAPSHOT_MS)
        self.flow.no_snapshot()

    def _frame(self, sent_ms: int, at_ms: int, shown: Trade, *, snapshot: bool) -> None:
        def take(now_ms: int) -> None:
            self._begin(sent_ms)
            self.first = self.first or shown
            self._tell(self.flow.live(shown, snapshot=snapshot))

        if self._arrives(sent_ms, at_ms):
            self._at(at_ms, take)

    def _begin(self, sent_ms: int) -> None:
        if self.born_ms is None:
            joins = [self.plot.start_ms, *(item.again_ms for item in self.plot.breaks if item.is_loss)]
            self.born_ms = max(join_ms for join_ms in joins if join_ms <= sent_ms)

    def _arrives(self, sent_ms: int, at_ms: int) -> bool:
        # What is on the wire when the connection breaks never comes.
        return not any(item.is_loss and sent_ms <= item.again_ms and item.at_ms < at_ms for item in self.plot.breaks)

    def _losing(self, item: Break) -> Callable[[int], None]:
        # Certain is what was published before the last frame that came: not what was on the wire.
        start_ms = item.at_ms - WIRE_MS - LATE_MS - item.early_ms
        return lambda now_ms: self._tell(self.flow.lost(start_ms, now_ms, "closed 1006"))

    def _at(self, at_ms: int, act: Callable[[int], None]) -> None:
        heapq.heappush(self._agenda, (at_ms, next(self._numbers), act))

    def _tell(self, events: tuple[Trade | Gap, ...]) -> None:
        if events:
            self.told.append(events)

    # -- REST

    def _count(self, asked_ms: int) -> None:
        # A count that is further behind would be taken for one of a moment in which nothing was traded yet.
        view_ms = asked_ms - min(next(self._lags), SLACK_MS - LATE_MS - STAMP_MS)
        shown = [deal for deal in self.plot.deals if deal.published_ms <= view_ms]
        if shown:
            last = max(shown, key=self._published).trade
            day = last.trade_ms // DAY_MS
            volume = sum(deal.trade.volume for deal in shown if deal.trade.trade_ms // DAY_MS == day)
            self._at(asked_ms + SLACK_MS, lambda _: self.flow.counted(last.trade_ms, volume, asked_ms))

    def _look(self, now_ms: int, looks: int) -> None:
        if self.flow.needs is None:
            self._mending = False
        elif looks == self.plot.patience:
            event(f"given up: {self.flow.needs}")
            self._mending = False
            self._tell(self.flow.unrepairable("REST is out of order"))
        else:
            event(f"looked: {self.flow.needs}")
            self._step(self.flow.repair(), None, now_ms, looks, pages=0, view_ms=0)

    def _step(
        self, walk: Generator[Any, Any, Any], answer: Any, now_ms: int, looks: int, pages: int, view_ms: int
    ) -> None:
        assert pages < 200, "the walk does not end"
        assert looks < 100, "the looks do not end"
        try:
            (request,) = walk.send(answer)
        except StopIteration as stop:
            self._tell(stop.value or ())
            self._at(now_ms + SETTLE_MS, lambda now_ms: self._look(now_ms, looks + 1))
            return
        half_ms = next(self._rounds) // 2
        view_ms = max(view_ms, now_ms + half_ms - next(self._lags))
        page = (self._page(request, now_ms + half_ms, view_ms),)
        self._at(now_ms + 2 * half_ms, lambda now_ms: self._step(walk, page, now_ms, looks, pages + 1, view_ms))

    def _page(self, request: TradesRequest, now_ms: int, view_ms: int) -> tuple[Trade, ...]:
        assert 1 <= request.count <= PAGE
        assert 0 <= request.days_ago <= 7
        day = now_ms // DAY_MS - request.days_ago
        shown = [deal.trade for deal in self.plot.deals if deal.published_ms <= view_ms]
        cursor = next((self._order(row) for row in shown if row.sequential_id == request.cursor), None)
        rows = [row for row in shown if row.trade_ms // DAY_MS == day]
        rows = [row for row in rows if cursor is None or self._order(row) < cursor]
        return tuple(sorted(rows, key=self._order, reverse=True)[: request.count])

    def _order(self, row: Trade) -> tuple[int, int]:
        return (row.sequential_id, 0) if self.plot.by_id else (row.trade_ms, row.sequential_id)


def played(plot: Plot) -> Market:
    # Little pages, and a memory that forgets within the plot.
    limits = [mock.patch.object(module, "TRADES_LIMIT", PAGE) for module in (mending, trades)]
    forgets = [mock.patch.object(delivered, name, kept) for name, kept in (("KEEP", 10), ("KEEP_MORE", 10))]
    with limits[0], limits[1], forgets[0], forgets[1]:
        market = Market(plot)
        market.play()
    return market


def rank(row: Trade) -> tuple[int, int]:
    return row.trade_ms, row.sequential_id


def promised(market: Market) -> list[Trade]:
    """Every trade since the first certain moment."""
    first, born_ms = market.first, market.born_ms
    if born_ms is None:
        return []
    rows = [deal.trade for deal in market.plot.deals if deal.published_ms > born_ms]
    return [row for row in rows if first is None or rank(row) >= rank(first)]


def gaps(market: Market) -> list[Gap]:
    return [item for events in market.told for item in events if isinstance(item, Gap)]


lots = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@lots
@given(plots())
def test_every_trade_is_delivered_exactly_once_or_lies_in_a_gap_that_was_not_repaired(plot: Plot):
    market = played(plot)
    ids = [item.sequential_id for events in market.told for item in events if isinstance(item, Trade)]
    assert len(ids) == len(set(ids))
    holes = [gap for gap in gaps(market) if not gap.repaired and not gap.is_open]
    lost = [row for row in promised(market) if row.sequential_id not in ids]
    event(f"in a gap: {bool(lost)}")
    slack = LATE_MS + STAMP_MS
    assert [row for row in lost if not any(g.start_ms - slack <= row.trade_ms <= g.end_ms + slack for g in holes)] == []


@lots
@given(plots())
def test_nothing_is_delivered_while_a_hole_is_open_and_each_that_opens_is_closed_with_reasons(plot: Plot):
    open_gap = None
    for events in played(plot).told:
        for item in events:
            if isinstance(item, Trade):
                assert open_gap is None
            elif item.is_open:
                assert open_gap is None
                open_gap = item
            elif open_gap is not None:
                assert (item.start_ms, item.cause) == (open_gap.start_ms, open_gap.cause)
                assert item.end_ms >= item.start_ms
                open_gap = None
    assert open_gap is None


@lots
@given(plots())
def test_what_follows_a_closed_gap_is_in_order(plot: Plot):
    for events in played(plot).told:
        rows = [item for item in events if isinstance(item, Trade)]
        assert [type(item) for item in events] == sorted(map(type, events), key=lambda kind: kind is Trade)
        assert rows == sorted(rows, key=rank)


@lots
@given(plots())
def test_a_gap_that_was_not_open_before_tells_of_trades_that_did_fall_between_two_subscriptions(plot: Plot):
    market = played(plot)
    streamed = {deal.trade.sequential_id for deal in plot.deals if market.is_streamed(deal)}
    hole = False
    for events in market.told:
        closes = [item for item in events if isinstance(item, Gap) and not item.is_open]
        if closes and not hole and closes[0].repaired:
            missing = [item.sequential_id for item in events if isinstance(item, Trade)]
            assert missing
            assert streamed.isdisjoint(missing)
        hole = any(isinstance(item, Gap) and item.is_open for item in events) or (hole and not closes)


@lots
@given(plots())
def test_the_newest_trades_are_those_that_the_exchange_has_made(plot: Plot):
    market = played(plot)
    made = sorted((deal.trade for deal in plot.deals), key=rank, reverse=True)
    for count in range(1, 40):
        newest = market.flow.newest(count)
        assert newest is None or list(newest) == made[:count]
