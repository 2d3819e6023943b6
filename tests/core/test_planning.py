"""Few pages, and everything proven, whatever the history looks like and in whatever order the answers come."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_exchange import CandleExchange, bar, final

from marketpipe.core import planning, timeframes
from marketpipe.core.answers import Page
from marketpipe.core.bars import GRACE_MS
from marketpipe.core.history import Piece, first_slot
from marketpipe.core.planning import Planner, missing, pages_at_most, slots_in
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.spans import SpanSet
from marketpipe.core.timeframes import DAY_MS, Timeframe
from marketpipe.errors import BadPayload
from marketpipe.models import Candle

M1, S1 = Timeframe.M1, Timeframe.S1
MARKET = "KRW-BTC"
MINUTE_MS = 60_000
NOW_MS = 1_790_166_896_000  # 2026-09-23 12:34:56 UTC
# Small pages, so that a few dozen slots already need several in flight.
PAGE = 4


@attrs.frozen
class Past:
    """What was traded and what is missing, in slots counted from the first one there is here; ``settled`` likewise."""

    timeframe: Timeframe
    traded: frozenset[int]
    missing: frozenset[int]
    settled: int

    def at(self, slot: int) -> int:
        settled_ms = timeframes.floor(self.timeframe, NOW_MS)
        return timeframes.shift(self.timeframe, settled_ms, slot - self.settled)

    def spans(self, slots: Iterable[int]) -> SpanSet:
        return SpanSet.of(*((self.at(slot), self.at(slot + 1)) for slot in slots))

    @property
    def settled_ms(self) -> int:
        return self.at(self.settled)

    @property
    def wanted(self) -> frozenset[int]:
        return frozenset(slot for slot in self.missing if slot < self.settled)

    def exchange(self, page: int = PAGE) -> CandleExchange:
        return CandleExchange([bar(self.timeframe, self.at(slot), NOW_MS) for slot in sorted(self.traded)], page)

    def planner(self, page: int = PAGE, reach: int | None = None) -> Planner:
        return Planner(MARKET, self.timeframe, self.spans(self.missing), self.settled_ms, page=page, reach=reach)

    def assert_true(self, piece: Piece) -> None:
        """`piece` is all there was in its time, and FINAL; what is not settled is not in it."""
        assert (piece.market, piece.timeframe) == (MARKET, self.timeframe)
        assert piece.start_ms < piece.end_ms <= self.settled_ms
        bars = self.exchange().bars
        assert list(piece.bars) == [final(each) for each in bars if piece.start_ms <= each.open_ms < piece.end_ms]


@st.composite
def pasts(draw: st.DrawFn, slots: int = 120, timeframes_: Iterable[Timeframe] = tuple(Timeframe)) -> Past:
    """Dense and thin stretches and none at all, holes of every size; some of it not settled yet."""
    timeframe = draw(st.sampled_from(tuple(timeframes_)))
    slots = min(slots, 50) if timeframe is Timeframe.Y1 else slots
    stretch = st.tuples(st.integers(1, slots), st.sampled_from([1, 1, 1, 2, 7, 1000]))
    traded, at = set[int](), 0
    for length, every in draw(st.lists(stretch, max_size=6)):
        traded |= set(range(at, at + length, every))
        at += length
    hole = st.tuples(st.integers(0, slots), st.integers(1, slots) | st.integers(1, 3))
    wanted = set[int]()
    for start, length in draw(st.lists(hole, max_size=6)):
        wanted |= set(range(start, start + length))
    settled = draw(st.sampled_from([slots, slots - 3]))
    return Past(
        timeframe,
        frozenset(slot for slot in traded if slot <= settled),
        frozenset(slot for slot in wanted if slot < slots),
        settled,
    )


def one_by_one(planner: Planner, exchange: CandleExchange) -> list[CandlesRequest]:
    """The requests it takes, one in flight at a time."""
    asked = []
    while (request := planner.next()) is not None:
        asked.append(request)
        planner.took(request, exchange.page(request))
        assert len(asked) <= 10_000, "it does not end"
    assert planner.is_done
    return asked


def several_at_once(planner: Planner, exchange: CandleExchange, at_once: int, seed: int = 0) -> int:
    """How many requests it takes with so many in flight; the answers come in any order."""
    dice = random.Random(seed)
    flying: list[CandlesRequest] = []
    asked = 0
    while True:
        while len(flying) < at_once and (request := planner.next()) is not None:
            flying.append(request)
            asked += 1
        if not flying:
            assert planner.is_done
            return asked
        request = flying.pop(dice.randrange(len(flying)))
        planner.took(request, exchange.page(request))


def fewest(past: Past) -> int:
    """By trying all sets of pages, each before any slot, knowing in advance what each of them would prove."""
    proves: dict[int, frozenset[int]] = {}
    for to in range(1, past.settled + 1):
        rows = sorted(slot for slot in past.traded if slot < to)[-PAGE:]
        first = rows[0] if len(rows) == PAGE else 0
        proves[to] = frozenset(range(first, to)) & past.wanted
    for pages in itertools.count():
        for chosen in itertools.combinations(proves, pages):
            if frozenset[int]().union(*(proves[to] for to in chosen)) == past.wanted:
                return pages
    raise AssertionError


# -- what is missing ------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(Timeframe), st.integers(0, 30), st.integers(0, 30), st.lists(st.tuples(*[st.integers(0, 30)] * 2))
)
def test_missing_is_what_was_asked_without_what_is_covered(timeframe, first, last, covered):
    past = Past(timeframe, frozenset(), frozenset(), 40)
    known = {slot for start, length in covered for slot in range(start, start + length)}
    found = missing(timeframe, past.at(first), past.at(last), past.spans(known))
    assert found == past.spans(set(range(first, last)) - known)


@given(st.sampled_from(Timeframe), st.data())
def test_missing_has_whole_slots_even_if_neither_question_nor_cover_do(timeframe: Timeframe, data: st.DataObject):
    """A slot belongs to a question if it opens within, and is covered if all of it is."""
    past = Past(timeframe, frozenset(), frozenset(), 40)
    edges = st.integers(0, 12).flatmap(lambda slot: st.integers(past.at(slot) - 2, past.at(slot) + 2))
    start_ms, end_ms = data.draw(edges), data.draw(edges)
    covered = SpanSet.of(*(sorted(pair) for pair in data.draw(st.lists(st.tuples(edges, edges), max_size=4))))
    opening = [slot for slot in range(-1, 14) if start_ms <= past.at(slot) < end_ms]
    uncovered = [slot for slot in opening if not covered.covers(past.at(slot), past.at(slot + 1))]
    assert missing(timeframe, start_ms, end_ms, covered) == past.spans(uncovered)


@given(pasts())
def test_slots_are_counted_over_all_spans(past: Past):
    assert slots_in(past.timeframe, past.spans(past.missing)) == len(past.missing)


# -- few pages ------------------------------------------------------------------------------------------------------


@given(pasts(slots=16, timeframes_=[M1, Timeframe.MONTH]))
def test_one_at_a_time_no_history_is_read_in_fewer_pages_even_by_who_knows_it(past: Past):
    assert len(one_by_one(past.planner(), past.exchange())) == fewest(past)


@given(pasts(slots=16, timeframes_=[M1]), st.integers(1, 6))
def test_where_every_slot_is_traded_the_pages_are_foretold_and_no_way_is_shorter(past: Past, at_once: int):
    dense = attrs.evolve(past, traded=frozenset(range(-40, past.settled)))
    foretold = pages_at_most(M1, dense.spans(dense.wanted), PAGE)
    assert foretold == fewest(attrs.evolve(dense, traded=frozenset(range(past.settled))))
    assert several_at_once(dense.planner(), dense.exchange(), at_once) == foretold


@given(pasts())
def test_no_history_needs_more_pages_than_one_that_was_traded_in_every_slot(past: Past):
    spans = past.spans(past.wanted)
    at_most = pages_at_most(past.timeframe, spans, PAGE)
    asked = one_by_one(past.planner(), past.exchange())
    assert len(asked) <= at_most <= len(past.wanted) / PAGE + len(spans)
    assert all(math.ceil(slots_in(past.timeframe, SpanSet.of(span)) / PAGE) <= at_most for span in spans)


@given(pasts(), st.integers(1, 12), st.integers())
def test_several_at_once_cost_hardly_more_than_a_market_that_was_traded_in_every_slot(
    past: Past, at_once: int, seed: int
):
    """The stretches that are walked at once end where they please: one page for each of them."""
    at_most = pages_at_most(past.timeframe, past.spans(past.wanted), PAGE)
    asked = several_at_once(past.planner(), past.exchange(), at_once, seed)
    assert asked <= at_most + at_most // planning.AHEAD + 1


def minutes(traded: Iterable[int], slots: int) -> Past:
    """All of ``slots`` is missing, and before them there are a page's bars that nobody asks for."""
    return Past(M1, frozenset(traded) | frozenset(range(-200, 0)), frozenset(range(slots)), slots)


def one_in(often: int, slots: int, seed: int = 1) -> Past:
    dice = random.Random(seed)
    return minutes((slot for slot in range(slots) if dice.random() < 1 / often), slots)


@pytest.mark.parametrize("at_once", [2, 4, 10])
def test_a_market_with_one_minute_in_twenty_costs_a_tenth_more_than_its_bars_fill_however_many_are_in_flight(
    at_once: int,
):
    past = one_in(20, 250_000)
    exchange = past.exchange(200)
    at_best = len(one_by_one(past.planner(200), exchange))
    assert at_best <= math.ceil(len(past.traded) / 200)
    assert several_at_once(past.planner(200), exchange, at_once) <= 1.1 * at_best


@pytest.mark.parametrize("at_once", [2, 4, 10])
def test_small_holes_in_a_thin_market_share_their_pages_however_many_are_in_flight(at_once: int):
    past = one_in(20, 90_000)
    past = attrs.evolve(past, missing=frozenset(slot for slot in past.missing if slot % 50 < 15))
    exchange = past.exchange(200)
    at_best = len(one_by_one(past.planner(200), exchange))
    assert several_at_once(past.planner(200), exchange, at_once) <= at_best + 2


@pytest.mark.parametrize("at_once", [1, 4, 10])
def test_hours_of_maintenance_in_a_dense_market_cost_no_more_than_if_they_had_been_traded(at_once: int):
    past = minutes((slot for slot in range(40_000) if slot % 10_000 >= 300), 40_000)
    asked = several_at_once(past.planner(200), past.exchange(200), at_once)
    assert asked <= pages_at_most(M1, past.spans(past.wanted))


@pytest.mark.parametrize("at_once", [1, 4, 10])
def test_a_market_that_was_thin_long_ago_wastes_no_more_than_what_was_in_flight_when_that_began(at_once: int):
    past = minutes([*range(0, 70_000, 30), *range(70_000, 90_000)], 90_000)
    exchange = past.exchange(200)
    at_best = len(one_by_one(past.planner(200), exchange))
    assert several_at_once(past.planner(200), exchange, at_once) <= at_best + at_once


@pytest.mark.parametrize("at_once", [1, 4, 10])
def test_years_before_the_listing_cost_no_more_than_what_was_in_flight(at_once: int):
    past = Past(M1, frozenset(range(90_000, 100_000)), frozenset(range(100_000)), 100_000)
    asked = several_at_once(past.planner(200), past.exchange(200), at_once)
    assert asked <= 10_000 / 200 + 1 + at_once


def test_polled_bars_are_asked_for_one_by_one():
    """Rows that can prove nothing are not asked for."""
    past = Past(M1, frozenset(range(300)), frozenset({299}), 300)
    assert past.planner(200).next() == CandlesRequest(MARKET, M1, 1, past.settled_ms)


def test_two_hundred_with_three_of_them_stored_are_one_request_for_the_rest():
    past = Past(M1, frozenset(range(300)), frozenset(range(100, 297)), 300)
    assert one_by_one(past.planner(200), past.exchange(200)) == [CandlesRequest(MARKET, M1, 197, past.at(297))]


def test_two_holes_that_one_page_spans_are_one_request():
    past = Past(M1, frozenset(range(300)), frozenset({100, 101, 250}), 300)
    assert one_by_one(past.planner(200), past.exchange(200)) == [CandlesRequest(MARKET, M1, 151, past.at(251))]


def test_a_hole_of_a_year_in_a_market_that_hardly_trades_is_one_page():
    past = one_in(5000, 525_600)
    assert len(one_by_one(past.planner(200), past.exchange(200))) == 1


# -- any order of answers, failures and restarts ----------------------------------------------------------------------


@attrs.define(eq=False)
class Run:
    """Drives a planner, and holds everything it says against what is true."""

    past: Past
    planner: Planner
    flying: list[CandlesRequest] = attrs.field(factory=list)
    proven: SpanSet = attrs.field(factory=SpanSet)
    asked: int = 0

    def ask(self) -> bool:
        before = self.planner.missing
        request = self.planner.next()
        if request is None:
            return False
        self.asked += 1
        assert request.to_ms is not None
        assert request.to_ms <= self.past.settled_ms
        assert 1 <= request.count <= self.planner.page
        # The slot right below its end is still missing, and no page in flight is certain to prove it.
        slot = timeframes.shift(self.past.timeframe, request.to_ms, -1)
        assert before.covers(slot, request.to_ms)
        assert not any(self.window(other).covers(slot, request.to_ms) for other in self.flying)
        self.flying.append(request)
        assert self.planner.in_flight == len(self.flying)
        return True

    def window(self, request: CandlesRequest) -> SpanSet:
        assert request.to_ms is not None
        return SpanSet.of((timeframes.shift(self.past.timeframe, request.to_ms, -request.count), request.to_ms))

    def answer(self, which: int) -> None:
        request = self.flying.pop(which % len(self.flying))
        piece = self.planner.took(request, self.past.exchange().page(request))
        assert piece is not None
        self.past.assert_true(piece)
        self.proven |= SpanSet.of((piece.start_ms, piece.end_ms))
        # Every slot it was certain to prove is proven.
        assert not self.window(request).clip(first_slot(self.past.timeframe), request.to_ms or 0) - self.proven
        self.check()

    def drop(self, which: int) -> None:
        request = self.flying.pop(which % len(self.flying))
        before = self.planner.missing
        assert self.planner.dropped(request) == before & self.window(request)
        assert self.planner.missing == before
        self.check()

    def spoil(self, which: int) -> None:
        request = self.flying.pop(which % len(self.flying))
        before = self.planner.missing
        with pytest.raises(BadPayload):
            self.planner.took(request, (bar(self.past.timeframe, request.to_ms or 0),))
        assert self.planner.missing == before
        self.check()

    def check(self) -> None:
        wanted = self.past.spans(self.past.wanted)
        assert self.planner.missing == wanted - self.proven
        assert self.planner.is_done is (not self.planner.missing)
        assert self.planner.in_flight == len(self.flying)
        assert self.planner.slots == len(self.past.wanted)
        assert self.planner.slots_missing == slots_in(self.past.timeframe, self.planner.missing)
        # Unless all is proven, there is always something to wait for or to ask for.
        assert self.planner.is_done or self.flying or self.planner.pages_missing


# What happens next, and to which of the pages in flight.
doings = st.tuples(st.sampled_from(["ask", "ask", "ask", "answer", "answer", "drop", "spoil"]), st.integers(0, 50))


@given(pasts(), st.lists(doings, max_size=60), st.none() | st.integers(1, 60))
def test_whatever_answers_and_fails_in_whatever_order_all_is_proven_in_the_end_and_nothing_but_the_truth(
    past: Past, story: list[tuple[str, int]], reach: int | None
):
    run = Run(past, past.planner(reach=reach))
    for doing, which in story:
        if doing == "ask":
            run.ask()
        elif run.flying:
            getattr(run, doing)(which)
    asked, left = run.asked, pages_at_most(past.timeframe, run.planner.missing, PAGE)
    while run.ask() or run.flying:
        if run.planner.in_flight:
            run.answer(-1)
    assert run.planner.is_done
    assert run.planner.next() is None
    # In whatever state all that has left it, the rest costs little more than it would have anyway.
    assert run.asked - asked <= left + left // planning.AHEAD + 1


@given(pasts(), st.lists(st.integers(0, 50), max_size=30))
def test_a_restart_asks_for_nothing_that_was_proven_before(past: Past, order: list[int]):
    """What was in flight is lost with the planner."""
    first = Run(past, past.planner())
    for which in order:
        if not first.ask() and first.flying:
            first.answer(which)
    rest = attrs.evolve(past, missing=frozenset(slot for slot in past.wanted if past.at(slot) not in first.proven))
    second = one_by_one(rest.planner(), past.exchange())
    for request in second:
        assert request.to_ms is not None
        assert timeframes.shift(past.timeframe, request.to_ms, -1) not in first.proven


def test_a_page_that_failed_is_asked_for_again_and_first():
    planner = DENSE.planner(200, reach=200)
    first, second = planner.next(), planner.next()
    assert first is not None
    assert planner.dropped(first) == SpanSet.of((DENSE.at(19_800), DENSE.at(20_000)))
    assert planner.in_flight == 1
    assert planner.next() == first != second


def test_a_page_that_cannot_be_the_answer_is_asked_for_again_and_first():
    planner = DENSE.planner(200, reach=200)
    first, _ = planner.next(), planner.next()
    assert first is not None
    with pytest.raises(BadPayload):
        planner.took(first, (bar(M1, DENSE.at(20_000)),))
    assert planner.in_flight == 1
    assert planner.missing == DENSE.spans(DENSE.missing)
    assert planner.next() == first


# -- how many are in flight -------------------------------------------------------------------------------------------


def in_flight_after(past: Past, pages: int, reach: int | None = None) -> list[CandlesRequest]:
    """All that the planner gives at once, after so many pages."""
    planner, exchange = past.planner(200, reach), past.exchange(200)
    for _ in range(pages):
        request = planner.next()
        assert request is not None
        planner.took(request, exchange.page(request))
    return list(iter(planner.next, None))


DENSE = minutes(range(20_000), 20_000)


def test_one_page_is_in_flight_until_it_is_known_how_far_pages_reach():
    assert len(in_flight_after(DENSE, 0)) == 1


def test_more_and_more_are_in_flight_after_that_but_never_too_many():
    assert [len(in_flight_after(DENSE, pages)) for pages in [1, 2, 5, 10, 20]] == [4, 8, 20, 40, 40]


def test_who_knows_from_before_how_far_pages_reach_begins_with_several():
    assert [request.to_ms for request in in_flight_after(DENSE, 0, reach=200)] == [
        DENSE.at(20_000 - 200 * window) for window in range(4)
    ]


def test_no_page_can_reach_less_far_than_it_has_rows():
    assert DENSE.planner(200, reach=1).reach == 200


def test_pages_of_a_dense_market_lie_side_by_side():
    assert [request.to_ms for request in in_flight_after(DENSE, 1)] == [
        DENSE.at(19_800 - 200 * window) for window in range(4)
    ]


def test_pages_of_a_thin_market_lie_several_pages_apart_and_each_walks_its_stretch():
    thin = minutes(range(0, 100_000, 10), 100_000)  # a page reaches back 1991 slots, but 2000 from its end
    first, *others = in_flight_after(thin, 1)
    assert first.to_ms == thin.at(100_000 - 2000)
    assert [request.to_ms for request in others] == [
        thin.at(98_000 - planning.AHEAD * 2000 * stretch) for stretch in [1, 2, 3]
    ]
    planner, exchange = thin.planner(200), thin.exchange(200)
    for _ in range(5):
        request = planner.next()
        assert request is not None
        planner.took(request, exchange.page(request))
    assert planner.reach == 2000


def test_the_furthest_of_the_last_pages_foretells_how_far_the_next_may_reach():
    past = minutes([*range(10_000), *range(10_000, 20_000, 10)], 20_000)
    planner, exchange = past.planner(200), past.exchange(200)
    assert planner.reach is None
    reaches = []
    for _ in range(12):
        request = planner.next()
        assert request is not None
        planner.took(request, exchange.page(request))
        reaches.append(planner.reach)
    assert reaches == [2000] * 9 + [200] * 3


def test_holes_further_apart_than_a_page_reaches_are_asked_for_at_once():
    thin = minutes(range(0, 100_000, 10), 100_000)
    holes = frozenset({10_000, 50_000, 60_000, 90_000, 99_999})
    planner = attrs.evolve(thin, missing=holes).planner(200, reach=2000)
    assert [request.to_ms for request in iter(planner.next, None)] == [
        thin.at(slot + 1) for slot in [99_999, 90_000, 60_000, 50_000]
    ]


# -- the rest of its words --------------------------------------------------------------------------------------------


def page_of(past: Past, request: CandlesRequest) -> tuple[Candle, ...]:
    return past.exchange(200).page(request)


def test_progress_is_told_in_slots_and_pages():
    planner = DENSE.planner(200)
    assert (planner.slots, planner.slots_missing, planner.pages_missing, planner.full_pages) == (20_000, 20_000, 100, 0)
    request = planner.next()
    assert request is not None
    planner.took(request, page_of(DENSE, request))
    assert (planner.slots, planner.slots_missing, planner.pages_missing, planner.full_pages) == (20_000, 19_800, 99, 1)


def test_pages_to_come_are_foretold_by_how_far_the_last_ones_reached():
    thin = minutes(range(0, 100_000, 10), 100_000)
    planner = thin.planner(200)
    assert planner.pages_missing == 500
    request = planner.next()
    assert request is not None
    planner.took(request, page_of(thin, request))
    assert planner.pages_missing == 49


def test_what_is_not_settled_is_neither_asked_for_nor_proven():
    past = Past(M1, frozenset(range(100)), frozenset(range(90, 110)), 95)
    planner = past.planner(200)
    assert planner.slots == 5
    request = planner.next()
    assert request == CandlesRequest(MARKET, M1, 5, past.at(95))
    piece = planner.took(CandlesRequest(MARKET, M1, 20), tuple(reversed(past.exchange().bars[-20:])))
    assert piece is not None
    assert (piece.start_ms, piece.end_ms) == (past.at(80), past.at(95))
    assert planner.is_done


def test_what_an_answer_says_has_not_settled_is_left_to_whoever_asks_later():
    """The planner had it later than it was. What is below is fetched, and nothing is asked for twice."""
    past = Past(M1, frozenset(range(100)), frozenset(range(50, 100)), 100)
    planner = past.planner(20)
    request = planner.next()
    assert request is not None
    at_ms = past.at(95) + GRACE_MS + 30_000
    piece = planner.took(request, Page(page_of(past, request), at_ms))
    assert piece is not None
    assert (piece.start_ms, piece.end_ms, len(piece.bars)) == (past.at(80), past.at(95), 15)
    assert planner.settled_ms == past.at(95)
    assert (planner.slots, planner.slots_missing) == (45, 30)
    request = planner.next()
    assert request == CandlesRequest(MARKET, M1, 20, past.at(80))
    piece = planner.took(request, Page(page_of(past, request), at_ms))
    assert piece is not None
    assert (piece.start_ms, piece.end_ms) == (past.at(60), past.at(80))
    assert planner.settled_ms == past.at(95)


def test_nothing_missing_is_done_at_once():
    planner = Planner(MARKET, M1, SpanSet(), 0)
    assert planner.is_done
    assert planner.next() is None
    assert planner.pages_missing == 0


def test_a_page_that_nobody_planned_counts_too():
    """Such as one that another question asked for at the same time."""
    planner = DENSE.planner(200)
    request = CandlesRequest(MARKET, M1, 50)
    piece = planner.took(request, page_of(DENSE, request))
    assert piece is not None
    assert planner.missing == SpanSet.of((DENSE.at(0), DENSE.at(19_950)))
    assert planner.reach is None
    assert planner.took(CandlesRequest(MARKET, M1, 1), (bar(M1, DENSE.settled_ms, NOW_MS),)) is None


def test_a_request_that_nobody_planned_may_fail_too():
    planner = DENSE.planner(200)
    assert planner.dropped(CandlesRequest(MARKET, M1, 50)) == SpanSet.of((DENSE.at(19_950), DENSE.at(20_000)))
    assert planner.next() is not None


@pytest.mark.parametrize("wrong", [CandlesRequest("KRW-ETH", M1, 1), CandlesRequest(MARKET, S1, 1)])
def test_a_page_of_another_series_is_refused(wrong: CandlesRequest):
    planner = DENSE.planner(200)
    with pytest.raises(ValueError, match=r"this planner is for 1m bars of KRW-BTC, was given CandlesRequest\("):
        planner.took(wrong, ())
    assert planner.missing == DENSE.spans(DENSE.missing)


def test_the_running_bar_makes_no_page_reach_less_far_than_it_has_rows():
    planner = DENSE.planner(200)
    running = bar(M1, DENSE.settled_ms, NOW_MS)
    planner.took(CandlesRequest(MARKET, M1, 200), (running, *page_of(DENSE, CandlesRequest(MARKET, M1, 199))))
    assert planner.reach == 200


def test_a_page_that_failed_leaves_missing_what_is_missing_of_it_alone():
    past = Past(M1, frozenset(range(300)), frozenset({100, 101, 250}), 300)
    planner = past.planner(200)
    request = planner.next()
    assert request is not None
    assert planner.dropped(request) == past.spans({100, 101, 250})


def test_what_was_proven_elsewhere_is_not_asked_for():
    planner = DENSE.planner(200)
    planner.skip(DENSE.spans(range(200, 20_000)))
    assert planner.next() == CandlesRequest(MARKET, M1, 200, DENSE.at(200))
    assert planner.slots_missing == 200


def test_a_slot_that_was_proven_elsewhere_in_part_is_still_missing():
    planner = DENSE.planner(200)
    planner.skip(SpanSet.of((DENSE.at(1) + 1, DENSE.at(20_000) + 1)))
    assert planner.missing == SpanSet.of((DENSE.at(0), DENSE.at(2)))


def test_seconds_that_the_exchange_no_longer_keeps_are_neither_proven_nor_asked_for_again():
    settled_ms = timeframes.floor(S1, NOW_MS)
    wanted = SpanSet.of((settled_ms - 100 * DAY_MS, settled_ms - 80 * DAY_MS), (settled_ms - 1000, settled_ms))
    planner = Planner(MARKET, S1, wanted, settled_ms)
    asked = one_by_one(planner, CandleExchange([bar(S1, settled_ms - 1000)]))
    assert len(asked) == 1
    assert planner.is_done
    assert planner.gone == SpanSet.of((settled_ms - 100 * DAY_MS, settled_ms - 88 * DAY_MS))


def test_seconds_of_long_ago_alone_cost_one_request_and_prove_nothing():
    settled_ms = timeframes.floor(S1, NOW_MS)
    wanted = SpanSet.of((settled_ms - 100 * DAY_MS, settled_ms - 95 * DAY_MS))
    planner = Planner(MARKET, S1, wanted, settled_ms)
    request = planner.next()
    assert request is not None
    assert planner.took(request, ()) is None
    assert planner.gone == wanted
    assert planner.is_done


def test_a_short_page_that_nobody_planned_ends_the_history_too():
    settled_ms = timeframes.floor(S1, NOW_MS)
    wanted = SpanSet.of((settled_ms - 100 * DAY_MS, settled_ms))
    planner = Planner(MARKET, S1, wanted, settled_ms)
    assert planner.took(CandlesRequest(MARKET, S1, 200), ()) is not None
    assert planner.is_done
    assert planner.gone.length == 12 * DAY_MS


def test_all_that_is_gone_is_kept_in_mind():
    settled_ms = timeframes.floor(S1, NOW_MS)
    wanted = SpanSet.of((settled_ms - 100 * DAY_MS, settled_ms - 90 * DAY_MS))
    planner = Planner(MARKET, S1, wanted, settled_ms)
    planner.took(CandlesRequest(MARKET, S1, 200, settled_ms - 95 * DAY_MS), ())
    assert planner.gone == wanted.clip(0, settled_ms - 95 * DAY_MS)
    planner.took(CandlesRequest(MARKET, S1, 200, settled_ms - 92 * DAY_MS), ())
    assert planner.gone == wanted.clip(0, settled_ms - 92 * DAY_MS)
    assert planner.missing == wanted - planner.gone


@pytest.mark.parametrize("timeframe", [Timeframe.W1, Timeframe.MONTH, Timeframe.Y1])
def test_a_history_is_read_back_to_1970_and_not_beyond(timeframe: Timeframe):
    settled_ms = timeframes.floor(timeframe, NOW_MS)
    everything = SpanSet.of((timeframes.floor(timeframe, -10 * DAY_MS), settled_ms))
    planner = Planner(MARKET, timeframe, everything, settled_ms, reach=100_000)
    assert next(iter(planner.missing))[0] == first_slot(timeframe)
    opens = timeframes.opens_between(timeframe, settled_ms - 3000 * DAY_MS, settled_ms)
    assert one_by_one(planner, CandleExchange([bar(timeframe, open_ms) for open_ms in opens]))


def test_before_1970_nothing_is_missing():
    planner = Planner(MARKET, M1, SpanSet.of((-2 * MINUTE_MS, -MINUTE_MS)), -MINUTE_MS)
    assert planner.is_done


@pytest.mark.parametrize(
    ("wanted", "settled_ms"),
    [(SpanSet.of((1, MINUTE_MS)), 0), (SpanSet.of((0, MINUTE_MS + 1)), 0), (SpanSet.of((0, MINUTE_MS)), 1)],
)
def test_parts_of_a_slot_are_refused(wanted: SpanSet, settled_ms: int):
    with pytest.raises(ValueError, match=r"no 1m bar opens at \d+, so nothing missing can begin or end there"):
        Planner(MARKET, M1, wanted, settled_ms)


# -- beside others ------------------------------------------------------------------------------------------------


def together(*planners: Planner) -> list[Planner]:
    """They know of each other."""
    beside = list(planners)
    for planner in planners:
        planner.beside = beside
    return beside


def page_given_by(planner: Planner) -> CandlesRequest:
    request = planner.next()
    assert request is not None
    return request


def test_what_another_has_in_flight_is_joined_and_not_asked_again():
    one, other = together(
        DENSE.planner(200, reach=200), attrs.evolve(DENSE, missing=frozenset(range(19_000, 19_950))).planner(200, 200)
    )
    ours = [page_given_by(one) for _ in range(3)]
    theirs = [page_given_by(other) for _ in range(4)]
    assert theirs[:3] == ours
    assert theirs[3] == CandlesRequest(MARKET, M1, 200, DENSE.at(19_400))
    assert page_given_by(one) == theirs[3]


def test_what_another_asks_for_further_down_is_joined_once_that_is_next():
    one, other = together(
        DENSE.planner(200, reach=200), attrs.evolve(DENSE, missing=frozenset(range(19_700))).planner(200)
    )
    lower = page_given_by(other)
    assert lower.to_ms == DENSE.at(19_700)
    assert [page_given_by(one).to_ms for _ in range(2)] == [DENSE.at(20_000), DENSE.at(19_800)]
    # Half of that page is below: it is laid where it would have been without the other.
    assert page_given_by(one) == lower


def test_what_another_failed_to_get_is_asked_for_by_whoever_still_needs_it():
    one, other = together(DENSE.planner(200), DENSE.planner(200))
    request = page_given_by(one)
    assert page_given_by(other) == request
    one.dropped(request)
    assert other.in_flight == 1
    assert page_given_by(one) == request
    one.dropped(request)
    other.dropped(request)
    assert (one.in_flight, other.in_flight) == (0, 0)
    assert page_given_by(other) == request


def test_a_request_is_needed_until_others_have_proven_what_it_is_for():
    planner = DENSE.planner(200)
    request = page_given_by(planner)
    planner.skip(SpanSet.of((DENSE.at(19_800), DENSE.at(19_999))))
    assert planner.is_needed(request)
    planner.skip(SpanSet.of((DENSE.at(19_999), DENSE.at(20_000))))
    assert not planner.is_needed(request)


def test_far_down_in_what_another_claims_nobody_waits_for_its_pages_to_get_there():
    """Where pages reach far, one in flight walks through several; who needs the last of them has a way of his own."""
    thin = minutes(range(0, 100_000, 10), 100_000)
    one, other = together(
        thin.planner(200, reach=2_000), attrs.evolve(thin, missing=frozenset(range(80_000, 90_000))).planner(200)
    )
    request = page_given_by(one)
    assert page_given_by(other).to_ms == thin.at(90_000)
    assert request.to_ms == thin.at(100_000)
    # And where the other one's stretch begins, this one's ends.
    one.took(request, page_of(thin, request))
    assert page_given_by(one).to_ms == thin.at(98_000)
    assert page_given_by(one) == CandlesRequest(MARKET, M1, 200, thin.at(90_000))


@given(pasts(), st.lists(st.integers(0, 3), max_size=400), st.integers(1, 4))
def test_however_several_take_turns_each_has_all_it_wants_and_no_page_is_asked_twice(
    past: Past, turns: list[int], at_once: int
):
    """Each page is answered to all who wait for it, and told to all the others."""
    planners = together(*(past.planner() for _ in range(3)))
    exchange, asked, flying = past.exchange(), [], []
    for turn in (*turns, *[0, 3, 1, 3, 2, 3] * 400):
        if turn < 3 and planners[turn].in_flight < at_once:
            request = planners[turn].next()
            if request is not None and request not in flying:
                asked.append(request)
                flying.append(request)
        elif flying:
            request = flying.pop(0)
            for planner in planners:
                if request in planner._claims:
                    piece = planner.took(request, exchange.page(request))
                    if piece is not None:
                        for each in planners:
                            each.skip(SpanSet.of((piece.start_ms, piece.end_ms)))
    assert all(planner.is_done for planner in planners)
    assert len(asked) == len(set(asked))
