"""Bars at hand, held against a list of slots of each of which is known what is in it."""

from __future__ import annotations

from decimal import Decimal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_exchange import NOW_MS, bar, final

from marketpipe.core import timeframes
from marketpipe.core.history import Piece, first_slot
from marketpipe.core.requests import CandlesRequest
from marketpipe.core.shelf import Shelf
from marketpipe.core.spans import Span, SpanSet
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle

MARKET = "KRW-BTC"
SLOTS = 40

# What is laid at once: stretches of slots, the slots in which there is a bar, and by what it is told from others.
Lot = tuple[list[Span], set[int], int]


@st.composite
def lots(draw: st.DrawFn) -> Lot:
    edges = sorted(draw(st.lists(st.integers(0, SLOTS), max_size=6, unique=True)))
    spans = list(zip(edges[::2], edges[1::2], strict=False))
    return spans, draw(st.sets(st.integers(0, SLOTS - 1))), draw(st.integers(0, 3))


@attrs.frozen
class Scale:
    """Slots counted from one early in history, or from its first."""

    timeframe: Timeframe
    first: int

    def ms(self, slot: int) -> int:
        return timeframes.shift(self.timeframe, first_slot(self.timeframe), self.first + slot)

    def candle(self, slot: int, mark: int) -> Candle:
        return final(bar(self.timeframe, self.ms(slot), NOW_MS, volume=Decimal(mark)))

    def spans(self, spans: list[Span]) -> SpanSet:
        return SpanSet.of(*((self.ms(start), self.ms(end)) for start, end in spans))


scales = st.builds(Scale, st.sampled_from(Timeframe), st.sampled_from([0, 0, 3]))


@attrs.define(eq=False)
class Model:
    """Of each slot that is proven, the bar in it or None."""

    known: dict[int, Candle | None] = attrs.field(factory=dict)

    def lay(self, scale: Scale, lot: Lot) -> None:
        spans, traded, mark = lot
        for start, end in spans:
            for slot in range(start, end):
                self.known[slot] = scale.candle(slot, mark) if slot in traded else None

    def bars(self, start: int, end: int) -> tuple[Candle, ...]:
        return tuple(each for slot in range(start, end) if (each := self.known.get(slot)) is not None)

    def proven_from(self, slot: int) -> int:
        while slot - 1 in self.known:
            slot -= 1
        return slot


def lay(scale: Scale, shelf: Shelf, lot: Lot, how: str) -> None:
    spans, traded, mark = lot
    bars = tuple(scale.candle(slot, mark) for slot in sorted(traded))  # those elsewhere too: they are left out
    if how == "pieces":
        pieces = [
            Piece(MARKET, scale.timeframe, *span, tuple(each for each in bars if span[0] <= each.open_ms < span[1]))
            for span in scale.spans(spans)
        ]
        shelf.lay_pieces(pieces)
    elif how == "shelf":
        other = Shelf(scale.timeframe)
        other.lay(scale.spans(spans), bars)
        shelf.lay_shelf(other)
    else:
        shelf.lay(scale.spans(spans), bars)


@given(scales, st.lists(st.tuples(lots(), st.sampled_from(["spans", "pieces", "shelf"])), max_size=6), st.data())
def test_a_shelf_is_what_was_laid_on_it_the_last_counting(
    scale: Scale, laid: list[tuple[Lot, str]], data: st.DataObject
):
    shelf, model = Shelf(scale.timeframe), Model()
    for lot, how in laid:
        lay(scale, shelf, lot, how)
        model.lay(scale, lot)
    assert shelf.proven == scale.spans([(slot, slot + 1) for slot in model.known])
    start = data.draw(st.integers(0, SLOTS))
    end = data.draw(st.integers(start, SLOTS))
    count = data.draw(st.integers(1, 8))
    low = model.proven_from(end)
    newest = model.bars(low, end)[-count:]
    assert shelf.bars(scale.ms(start), scale.ms(end)) == model.bars(start, end)
    assert shelf.proven_from(scale.ms(end)) == scale.ms(low)
    assert shelf.newest(count, scale.ms(end)) == newest
    page = shelf.page(CandlesRequest(MARKET, scale.timeframe, count, scale.ms(end)))
    is_at_hand = len(newest) == count or scale.first + low == 0
    assert page == (newest[::-1] if is_at_hand else None)


@given(scales, lots(), lots())
def test_laying_the_same_again_changes_nothing_and_stretches_apart_do_not_touch(scale: Scale, one: Lot, other: Lot):
    shelf, twice = Shelf(scale.timeframe), Shelf(scale.timeframe)
    for each in (one, other):
        lay(scale, shelf, each, "spans")
    for each in (one, one, other, other):
        lay(scale, twice, each, "spans")
    ever = scale.ms(0), scale.ms(SLOTS)
    assert (shelf.proven, shelf.bars(*ever)) == (twice.proven, twice.bars(*ever))
    if not scale.spans(one[0]) & scale.spans(other[0]):
        reversed_ = Shelf(scale.timeframe)
        for each in (other, one):
            lay(scale, reversed_, each, "spans")
        assert (shelf.proven, shelf.bars(*ever)) == (reversed_.proven, reversed_.bars(*ever))


def test_an_empty_shelf_has_nothing_at_hand():
    shelf = Shelf(Timeframe.M1)
    assert (shelf.proven, shelf.bars(0, NOW_MS), shelf.newest(3, NOW_MS)) == (SpanSet(), (), ())
    assert shelf.proven_from(NOW_MS) == NOW_MS
    assert shelf.page(CandlesRequest(MARKET, Timeframe.M1, 1, NOW_MS)) is None


@pytest.mark.parametrize("timeframe", Timeframe)
def test_where_history_begins_a_page_is_shorter_than_asked(timeframe: Timeframe):
    shelf, scale = Shelf(timeframe), Scale(timeframe, 0)
    shelf.lay(scale.spans([(0, 5)]), (scale.candle(3, 1),))
    request = CandlesRequest(MARKET, timeframe, 2, scale.ms(5))
    assert shelf.page(request) == (scale.candle(3, 1),)
    later = Shelf(timeframe)
    later.lay(scale.spans([(1, 5)]), (scale.candle(3, 1),))
    assert later.page(request) is None


def test_a_page_is_newest_first_as_the_exchange_gives_it():
    scale = Scale(Timeframe.M1, 100)
    shelf = Shelf(Timeframe.M1)
    bars = [scale.candle(slot, 1) for slot in range(5)]
    shelf.lay(scale.spans([(0, 5)]), bars)
    assert shelf.page(CandlesRequest(MARKET, Timeframe.M1, 3, scale.ms(5))) == tuple(bars[:1:-1])
    assert shelf.page(CandlesRequest(MARKET, Timeframe.M1, 5, scale.ms(5))) == tuple(bars[::-1])
    assert shelf.page(CandlesRequest(MARKET, Timeframe.M1, 1, scale.ms(0) + 1)) == (bars[0],)
    assert shelf.page(CandlesRequest(MARKET, Timeframe.M1, 6, scale.ms(5))) is None


def test_what_is_proven_of_a_single_moment_is_proven():
    shelf = Shelf(Timeframe.M1)
    shelf.lay(SpanSet.of((60_000, 60_001)), [])
    assert shelf.proven_from(60_001) == 60_000
