"""Reading trades back over a hole: page after page from REST, newest first, until it lies between what is known.

A page never crosses its UTC day, days are counted back from the exchange's own today (0 to 7), and the next page's
cursor is the last id of the one before (reference/list-pair-trades, 2026-07-28). Nothing here knows the time: which day
a page is of, its trades tell. As in `marketpipe.core.paging`, the walk yields requests and is sent their pages.

Two things are asked of the pages. On the left they must go back beyond the last certain moment, by `SLACK_MS`. On the
right they must show the *edge*: a trade that the new connection has shown. REST shows a trade some moments after it was
made; without the edge, trades from just before the connection came back might not be there yet, and nobody would know.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping

import attrs

from marketpipe.core.paging import TRADE_DAYS
from marketpipe.core.requests import TRADES_LIMIT, TradesRequest
from marketpipe.core.timeframes import DAY_MS
from marketpipe.errors import BadPayload
from marketpipe.models import Trade

__all__ = ["READ_AT_MOST", "SLACK_MS", "Reading", "ReadingWalk", "read_back"]

# How late a trade may be told. Streams have told trades some 300 ms out of order (recording of 2021), and a trade 50 to
# 130 ms after it was made, formerly up to 1,100 ms: the sum, and as much again as a third of it.
SLACK_MS = 2_000
# Trades read for one hole, and the memory of one repair: some hours of the busiest market. The stream's consumers wait.
READ_AT_MOST = 100_000


@attrs.frozen
class Reading:
    """What was read, by id.

    ``reaches_stream``: the edge is among it, or nothing had to be. If not, REST is behind the stream: read again in a
    moment. ``whole_from_ms``: no trade since then is left out; at or before the moment asked for, or ``shortfall`` says
    in words why not.
    """

    trades: Mapping[int, Trade]
    pages: int
    reaches_stream: bool
    whole_from_ms: int
    shortfall: str = ""


ReadingWalk = Generator[tuple[TradesRequest, ...], tuple[tuple[Trade, ...], ...], Reading]


def read_back(market: str, newest: tuple[Trade, ...], *, left_ms: int, edge: Trade | None) -> ReadingWalk:
    """Yield the pages that hold every trade since ``left_ms`` (exchange time), and return all that was read.

    ``newest``: the page that has just been read, of today and without a cursor.
    ``edge`` is the trade that shows where the stream goes on; without one, or with one from before ``left_ms`` (nothing
    was traded since), whatever is shown is taken as all there is. As soon as it is clear that REST does not show the
    edge yet, the walk ends. Raises `BadPayload` for a page that shows nothing new, where going on would never end.
    """
    trail = _Trail(market, left_ms, edge if edge is not None and edge.trade_ms >= left_ms else None)
    request = trail.after(TradesRequest(market, TRADES_LIMIT), newest)
    while request is not None:
        (page,) = yield (request,)
        request = trail.after(request, page)
    return trail.reading()


@attrs.define(eq=False)
class _Trail:
    """How far the walk has come.

    ``last``: the last trade of the last page that was taken. ``today``: the UTC day (since 1970) that was the
    exchange's today at the last page that showed a trade. ``read_out``: the day that a page shorter than asked has
    shown to its beginning. ``whole_from_ms``, ``shortfall``: as in `Reading`; None while it is not known.
    """

    market: str
    left_ms: int
    edge: Trade | None
    trades: dict[int, Trade] = attrs.field(factory=dict)
    pages: int = 0
    last: Trade | None = None
    today: int | None = None
    read_out: int | None = None
    whole_from_ms: int | None = None
    shortfall: str = ""

    def after(self, asked: TradesRequest, page: tuple[Trade, ...]) -> TradesRequest | None:
        """Take the page; the request for the next one, or None if nothing more is to be asked."""
        self.pages += 1
        if page:
            day = _day(page[-1])
            self.today = day + asked.days_ago
            if self._is_midnight(asked, day):
                return self._again(asked, day)
            self._take(asked, page)
            if self._is_enough():
                return None
            if len(page) == asked.count:
                return attrs.evolve(asked, cursor=page[-1].sequential_id)
            self.read_out = day
        return self._day_before(asked, read_to=self.read_out if page else self._least_read(asked))

    def reading(self) -> Reading:
        """The result."""
        whole_from_ms = self.left_ms if self.whole_from_ms is None else self.whole_from_ms
        # An edge from before what the exchange keeps cannot be shown any more.
        reaches = self.edge is None or self._shows_edge() or self.edge.trade_ms < whole_from_ms
        return Reading(self.trades, self.pages, reaches, whole_from_ms, self.shortfall)

    def _is_midnight(self, asked: TradesRequest, day: int) -> bool:
        # Days are counted from the exchange's today, so at midnight each number means the day after. Then the day
        # before the one that was being read is that day again; and a cursor's page may be of the day after.
        if self.last is None or day < _day(self.last):
            return False
        return day > _day(self.last) or asked.cursor is None

    def _again(self, asked: TradesRequest, day: int) -> TradesRequest | None:
        # The day that is being read, under its new number: go on where the walk was. Trades of the new day stay out:
        # they were made after the edge was, and the stream tells them.
        if self.last is not None and day == _day(self.last) != self.read_out:
            return attrs.evolve(asked, cursor=self.last.sequential_id)
        return self._day_before(asked, read_to=self.read_out)

    def _take(self, asked: TradesRequest, page: tuple[Trade, ...]) -> None:
        before = len(self.trades)
        self.trades.update((trade.sequential_id, trade) for trade in page)
        self.last = page[-1]
        if len(self.trades) == before:
            raise BadPayload(f"the page after cursor {asked.cursor} shows nothing new", market=self.market)

    def _is_enough(self) -> bool:
        assert self.last is not None
        if self.last.trade_ms < self.left_ms:
            return True
        if len(self.trades) >= READ_AT_MOST:
            self.whole_from_ms = self.last.trade_ms + 1  # of its own millisecond there may be more
            self.shortfall = f"no more than the newest {len(self.trades):,} trades were read"
            return True
        # Beyond the edge by more than any disorder, and it was not there.
        return self.edge is not None and not self._shows_edge() and self.last.trade_ms < self.edge.trade_ms - SLACK_MS

    def _shows_edge(self) -> bool:
        return self.edge is not None and self.edge.sequential_id in self.trades

    def _least_read(self, asked: TradesRequest) -> int | None:
        # An empty page does not say which day it is of. If midnight has passed since the last page that did, this one
        # belongs to the day after the one meant: so much is certain to have been read.
        return None if self.today is None else self.today - asked.days_ago + 1

    def _day_before(self, asked: TradesRequest, read_to: int | None) -> TradesRequest | None:
        """The first page of the day before, unless all was read back to the day ``read_to`` and that is enough."""
        if read_to is not None and read_to * DAY_MS <= self.left_ms:
            return None
        if asked.days_ago + 1 < TRADE_DAYS:
            return TradesRequest(self.market, TRADES_LIMIT, days_ago=asked.days_ago + 1)
        if read_to is not None:
            self.whole_from_ms = read_to * DAY_MS
            self.shortfall = f"the exchange keeps trades of {TRADE_DAYS} days only"
        return None


def _day(trade: Trade) -> int:
    return trade.trade_ms // DAY_MS
