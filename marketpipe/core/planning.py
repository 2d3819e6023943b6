"""Overlap analysis: what of a history is missing, and the fewest pages that fetch it.

Pages can only be asked backwards, and each proves everything from its oldest bar up to its ``to``
(`marketpipe.core.history.proven`). How far that reaches, only the answer tells: 200 slots at least, years in a market
that hardly trades. Asked one after the other, each page right below what the one before has proven, no history can be
read in fewer. With several in flight that takes foresight, see `Planner`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence

import attrs

from marketpipe.core import timeframes
from marketpipe.core.answers import settled_ms
from marketpipe.core.history import Piece, first_slot, proven
from marketpipe.core.paging import DENSE, GROWTH, PAGES_AT_ONCE
from marketpipe.core.requests import CANDLES_LIMIT, CandlesRequest
from marketpipe.core.spans import Span, SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle

__all__ = ["Planner", "missing", "pages_at_most", "slots_in"]

# Where pages reach further than foretold, so many of them are left for each page in flight to walk through: the last
# one of such a stretch runs into what is proven below it, half of it in vain on average.
AHEAD = 8
# The furthest of so many pages foretells how far the next may reach. To expect too much costs some pages in flight, to
# expect too little, requests.
REMEMBERED = 5


def missing(timeframe: Timeframe, start_ms: int, end_ms: int, covered: SpanSet) -> SpanSet:
    """The slots opening in ``[start_ms, end_ms)`` that are not wholly ``covered``; slot boundaries, epoch ms."""
    start_ms, end_ms = timeframes.ceil(timeframe, start_ms), timeframes.ceil(timeframe, end_ms)
    if end_ms <= start_ms:
        return SpanSet()
    return SpanSet.of((start_ms, end_ms)) - _whole_slots(timeframe, covered.clip(start_ms, end_ms))


def slots_in(timeframe: Timeframe, spans: SpanSet) -> int:
    """How many slots open in ``spans``."""
    return sum(timeframes.bars_between(timeframe, start_ms, end_ms) for start_ms, end_ms in spans)


def pages_at_most(timeframe: Timeframe, missing: SpanSet, page: int = CANDLES_LIMIT) -> int:
    """The fewest pages of ``page`` rows that prove ``missing`` if every slot has a bar.

    A market that skips slots needs fewer, and one page may be enough for any of them. At most one more than its slots
    fill for each of its holes; near holes share pages.
    """
    pages, low_ms = 0, None
    for start_ms, end_ms in reversed(missing):
        top_ms = end_ms if low_ms is None else min(low_ms, end_ms)
        here = math.ceil(timeframes.bars_between(timeframe, start_ms, top_ms) / page)
        pages, low_ms = pages + here, _back(timeframe, top_ms, here * page)
    return pages


@attrs.define(eq=False)
class Planner:
    """Which pages to ask for, for one market and timeframe, until everything ``missing`` is proven, newest first.

    ``settled_ms`` is a slot boundary before which nothing can change any more; what is missing at or after it is left
    out, and nothing there is ever proven. An answer that says that it was not reached yet lowers it. ``page`` is how
    many rows a page holds. ``reach`` is how many slots a full page proves, if that is known from before.

    Whoever drives it asks `next` for as many requests as are to be in flight, and for each of them calls `took` with
    its page or `dropped`. One at a time, no history is read in fewer pages. Several at a time, each page in flight
    claims what it is expected to prove, and the next is laid below that. Where every slot has a bar, the claim is
    certain. Elsewhere it is a stretch of several pages, which one page in flight at a time then walks through, so that
    nothing is asked twice but at the stretch's end. Until it is known how far a page reaches, one is in flight; after
    that, more and more.

    Others may plan for the same series at the same time (``beside``, itself may be among them). What one of them has in
    flight is joined: `next` gives that very request, which is asked once for all who wait for it. Nobody depends on the
    others that way: where one fails or gives up, the rest have asked for themselves.

    ``slots`` is how many were missing at first, ``gone`` what can never be proven, because the exchange does not keep
    it: bars of a second, of long ago.

    ``missing`` or ``settled_ms`` off the slot boundaries is a ``ValueError``.
    """

    market: str
    timeframe: Timeframe
    _missing: SpanSet = attrs.field(alias="missing")
    settled_ms: int
    page: int = attrs.field(default=CANDLES_LIMIT, kw_only=True)
    _hint: int | None = attrs.field(default=None, kw_only=True, alias="reach")
    slots: int = attrs.field(init=False)
    full_pages: int = attrs.field(init=False, default=0)
    gone: SpanSet = attrs.field(init=False, default=SpanSet())
    beside: Sequence[Planner] = attrs.field(init=False, default=())
    _claims: dict[CandlesRequest, Span] = attrs.field(init=False, factory=dict)
    _tops: dict[CandlesRequest, int] = attrs.field(init=False, factory=dict)  # the end of the slot that each is for
    _reaches: deque[int] = attrs.field(init=False, factory=lambda: deque[int](maxlen=REMEMBERED))

    def __attrs_post_init__(self) -> None:
        for edge_ms in (self.settled_ms, *(edge_ms for span in self._missing for edge_ms in span)):
            if timeframes.floor(self.timeframe, edge_ms) != edge_ms:
                raise ValueError(
                    f"no {self.timeframe} bar opens at {edge_ms}, so nothing missing can begin or end there"
                )
        first_ms = first_slot(self.timeframe)
        self._missing = self._missing.clip(first_ms, max(first_ms, self.settled_ms))
        self.slots = slots_in(self.timeframe, self._missing)
        if self._hint is not None:
            self._reaches.append(max(self.page, self._hint))

    @property
    def missing(self) -> SpanSet:
        """What is not proven yet."""
        return self._missing

    @property
    def is_done(self) -> bool:
        """Whether nothing is missing any more. Pages may still be in flight then; they are not needed."""
        return not self._missing

    @property
    def in_flight(self) -> int:
        """How many requests are out: given by `next` and not answered yet."""
        return len(self._claims)

    @property
    def reach(self) -> int | None:
        """How many slots a full page may be expected to prove; None if nothing is known about that."""
        return max(self._reaches, default=None)

    @property
    def slots_missing(self) -> int:
        """How many of its ``slots`` are not proven yet."""
        return slots_in(self.timeframe, self._missing)

    @property
    def pages_missing(self) -> int:
        """How many more pages that is likely to take, judging by the last ones."""
        return pages_at_most(self.timeframe, self._missing, self.reach or self.page)

    def next(self) -> CandlesRequest | None:
        """Another page that should be asked for now; None if there is none, until one in flight is answered.

        It holds more rows than slots are missing only if there may be something to prove with them further down.
        """
        if self._claims and len(self._claims) >= self._at_once:
            return None
        unclaimed = self._missing - SpanSet.of(*self._claims.values())
        if not unclaimed:
            return None
        (lowest_ms, _), (_, to_ms) = next(iter(unclaimed)), next(reversed(unclaimed))
        joined = self._in_flight_beside(to_ms)
        if joined is None:
            count = min(self.page, timeframes.bars_between(self.timeframe, lowest_ms, to_ms))
            joined = CandlesRequest(self.market, self.timeframe, count, to_ms), (self._claim_from(to_ms), to_ms)
        request, self._claims[request] = joined
        self._tops[request] = to_ms
        return request

    def is_needed(self, request: CandlesRequest) -> bool:
        """Whether the slot is still missing for which `next` has given ``request``: others may have proven it."""
        return self._missing.at(self._tops[request] - 1) is not None

    def took(self, request: CandlesRequest, page: tuple[Candle, ...]) -> Piece | None:
        """What ``page`` proves, which is not missing any more; None if that is nothing before ``settled_ms``.

        Requests that were not given by `next` may be answered too, but one for another market or timeframe is a
        ``ValueError``. Raises `BadPayload` for a page that cannot be the answer; it is then as if the request had been
        `dropped`.
        """
        if (request.market, request.timeframe) != (self.market, self.timeframe):
            raise ValueError(f"this planner is for {self.timeframe} bars of {self.market}, was given {request}")
        self._take_back(request)
        self._settle(settled_ms(request, page, self.settled_ms))
        piece = proven(request, page, self.settled_ms)
        if piece is not None:
            self._missing -= SpanSet.of((piece.start_ms, piece.end_ms))
            if len(page) >= self.page:
                self._learn(piece)
        if len(page) < request.count:
            self._give_up_before(request.to_ms)
        return piece

    def dropped(self, request: CandlesRequest) -> SpanSet:
        """The request came to nothing, and `next` will give it again. Returns what it would have proven at least."""
        self._take_back(request)
        to_ms = self.settled_ms if request.to_ms is None else request.to_ms
        return self._missing.clip(_back(self.timeframe, to_ms, request.count), to_ms)

    def skip(self, spans: SpanSet) -> None:
        """Leave ``spans`` out from now on: they were proven elsewhere, or have been given up."""
        self._missing -= _whole_slots(self.timeframe, spans)

    def _take_back(self, request: CandlesRequest) -> None:
        self._claims.pop(request, None)
        self._tops.pop(request, None)

    def _settle(self, before_ms: int) -> None:
        # What had not settled by then is left to whoever asks later.
        if before_ms < self.settled_ms:
            self.settled_ms = before_ms
            self.slots -= slots_in(self.timeframe, self._missing - self._missing.clip(0, before_ms))
            self._missing = self._missing.clip(0, before_ms)

    def _learn(self, full: Piece) -> None:
        slots = timeframes.bars_between(self.timeframe, full.start_ms, full.end_ms)
        self._reaches.append(max(self.page, slots))
        self.full_pages += 1

    def _give_up_before(self, to_ms: int | None) -> None:
        # Nothing older is shown any more, whether it was traded or not.
        gone = self._missing if to_ms is None else self._missing.clip(0, to_ms)
        self.gone |= gone
        self._missing -= gone

    @property
    def _at_once(self) -> int:
        if not self._reaches:
            return 1
        return min(PAGES_AT_ONCE, GROWTH * max(1, self.full_pages))

    def _claim_from(self, to_ms: int) -> int:
        # Where the claim of a page before `to_ms` begins.
        reach = self.reach or self.page
        if reach * DENSE <= self.page:
            return _back(self.timeframe, to_ms, self.page)
        claims = (span for planner in (self, *self.beside) for span in planner._claims.values())
        return max((self._near(to_ms, reach), *(below_ms for _, below_ms in claims if below_ms < to_ms)))

    def _in_flight_beside(self, to_ms: int) -> tuple[CandlesRequest, Span] | None:
        # What somebody else has in flight that is likely to prove the slot right before `to_ms`, and its claim.
        for other in self.beside:
            for request, (low_ms, high_ms) in other._claims.items() if other is not self else ():
                reached_ms = _back(self.timeframe, high_ms, max(request.count, other.reach or 0))
                if max(low_ms, reached_ms) < to_ms <= high_ms and request not in self._claims:
                    return request, (low_ms, high_ms)
        return None

    def _near(self, to_ms: int, reach: int) -> int:
        # Where the stretch of `AHEAD` pages before `to_ms` ends: sooner if nothing is missing for longer than one page
        # reaches, since whoever begins below that gets in nobody's way.
        low_ms = to_ms
        for start_ms, end_ms in reversed(self._missing.clip(_back(self.timeframe, to_ms, AHEAD * reach), to_ms)):
            if timeframes.bars_between(self.timeframe, end_ms, low_ms) > reach:
                break
            low_ms = start_ms
        return low_ms


def _back(timeframe: Timeframe, to_ms: int, slots: int) -> int:
    # Never before 1970: no calendar goes back as far as a thin page of years might be thought to.
    return timeframes.shift(timeframe, to_ms, -min(slots, timeframes.bars_between(timeframe, 0, to_ms)))


def _whole_slots(timeframe: Timeframe, spans: SpanSet) -> SpanSet:
    return SpanSet.of(*_rounded_inwards(timeframe, spans))


def _rounded_inwards(timeframe: Timeframe, spans: SpanSet) -> Iterator[Span]:
    for start_ms, end_ms in spans:
        first_ms, last_ms = timeframes.ceil(timeframe, start_ms), timeframes.floor(timeframe, end_ms)
        if first_ms < last_ms:
            yield first_ms, last_ms
