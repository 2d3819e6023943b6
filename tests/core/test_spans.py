"""The algebra of spans against plain sets of integers."""

from __future__ import annotations

import itertools

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketpipe.core.spans import Span, SpanSet

# Small enough that spans overlap, touch and miss each other all the time.
UNIVERSE = SpanSet.of((0, 40))


@st.composite
def some_spans(draw: st.DrawFn) -> list[Span]:
    starts = st.integers(0, 40)
    return draw(st.lists(st.tuples(starts, starts).map(lambda ends: (min(ends), max(ends))), max_size=8))


sets = some_spans().map(lambda spans: SpanSet.of(*spans))


def members(spans: SpanSet) -> set[int]:
    return {moment for start, end in spans for moment in range(start, end)}


def of_members(moments: set[int]) -> SpanSet:
    return SpanSet.of(*((moment, moment + 1) for moment in moments))


def assert_canonical(spans: SpanSet) -> None:
    assert all(start < end for start, end in spans), spans
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans)), spans


@given(some_spans(), st.randoms())
def test_a_set_is_all_that_its_spans_cover_in_whatever_order_they_come(spans: list[Span], random):
    made = SpanSet.of(*spans)
    assert_canonical(made)
    assert members(made) == {moment for start, end in spans for moment in range(start, end)}
    random.shuffle(spans)
    assert SpanSet.of(*spans, *spans[:2]) == made


@given(sets, sets)
def test_the_operators_are_those_of_sets_and_give_canonical_sets(a: SpanSet, b: SpanSet):
    for made, model in [
        (a | b, members(a) | members(b)),
        (a & b, members(a) & members(b)),
        (a - b, members(a) - members(b)),
    ]:
        assert_canonical(made)
        assert members(made) == model


@given(sets, sets)
def test_sets_with_the_same_members_are_equal_and_look_the_same(a: SpanSet, b: SpanSet):
    assert (a == b) is (members(a) == members(b))
    assert of_members(members(a)) == a
    assert hash(of_members(members(a))) == hash(a)
    assert eval(repr(a)) == a


@given(sets, sets, sets)
def test_union_and_intersection_may_be_taken_in_any_order_and_repeated(a: SpanSet, b: SpanSet, c: SpanSet):
    assert a | b == b | a
    assert a & b == b & a
    assert (a | b) | c == a | (b | c)
    assert (a & b) & c == a & (b & c)
    assert a | a == a & a == a
    assert a | (a & b) == a & (a | b) == a


@given(sets, sets, sets)
def test_each_is_distributed_over_the_other(a: SpanSet, b: SpanSet, c: SpanSet):
    assert a & (b | c) == (a & b) | (a & c)
    assert a | (b & c) == (a | b) & (a | c)
    assert (a | b) - c == (a - c) | (b - c)


@given(sets, sets)
def test_what_is_left_of_a_universe_follows_de_morgan(a: SpanSet, b: SpanSet):
    assert UNIVERSE - (a | b) == (UNIVERSE - a) & (UNIVERSE - b)
    assert UNIVERSE - (a & b) == (UNIVERSE - a) | (UNIVERSE - b)
    assert UNIVERSE - (UNIVERSE - a) == a


@given(sets, sets)
def test_a_difference_is_what_the_other_does_not_have(a: SpanSet, b: SpanSet):
    assert a - b == a & (UNIVERSE - b)
    assert (a - b) | (a & b) == a
    assert (a - b) & b == a - a == SpanSet()


@given(sets)
def test_the_empty_set_adds_nothing_and_takes_nothing(a: SpanSet):
    empty = SpanSet()
    assert a | empty == empty | a == a - empty == a
    assert a & empty == empty & a == empty - a == empty
    assert bool(a) is (a != empty)


@given(sets)
def test_a_set_counts_its_spans_and_measures_its_members(a: SpanSet):
    assert len(a) == len(list(a))
    assert a.length == len(members(a))
    assert list(reversed(a)) == list(a)[::-1]


@given(sets)
def test_a_moment_is_in_the_span_that_holds_it(a: SpanSet):
    for moment in range(-1, 42):
        holding = [span for span in a if span[0] <= moment < span[1]]
        assert a.at(moment) == (holding[0] if holding else None)
        assert (moment in a) is (moment in members(a))


@given(sets, some_spans())
@example(SpanSet.of((3, 5)), [(5, 5), (3, 3), (0, 0)])
def test_a_stretch_is_covered_if_every_moment_of_it_is(a: SpanSet, spans: list[Span]):
    for start, end in spans:
        assert a.covers(start, end) is (set(range(start, end)) <= members(a))


@given(sets, some_spans())
@example(SpanSet.of((0, 10)), [(5, 5)])
def test_a_clip_is_what_lies_within(a: SpanSet, spans: list[Span]):
    for start, end in spans:
        clipped = a.clip(start, end)
        assert_canonical(clipped)
        assert clipped == a & SpanSet.of((start, end))


def test_spans_that_touch_are_one():
    assert repr(SpanSet.of((5, 9), (1, 3), (3, 5), (20, 21))) == "SpanSet.of((1, 9), (20, 21))"
    assert SpanSet.of((0, 1)) | SpanSet.of((1, 2)) == SpanSet.of((0, 2))


def test_a_span_without_length_has_no_members():
    assert SpanSet.of((7, 7)) == SpanSet.of() == SpanSet()
    assert SpanSet.of((1, 3), (7, 7)) == SpanSet.of((1, 3))


def test_a_span_that_ends_before_it_starts_is_refused_by_name():
    spans = SpanSet.of((0, 10))
    for misuse in [lambda: SpanSet.of((1, 2), (5, 4)), lambda: spans.covers(5, 4), lambda: spans.clip(5, 4)]:
        with pytest.raises(ValueError, match=r"must not end before it starts, was \[5, 4\)"):
            misuse()


def test_something_else_than_a_moment_is_in_no_set():
    assert "3" not in SpanSet.of((0, 10))
    assert None not in SpanSet.of((0, 10))


def test_a_set_cannot_be_changed():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        SpanSet.of((0, 10))._spans = ()


def test_a_page_cut_out_of_many_holes_touches_only_those_it_meets():
    """By identity: the spans beside the cut are the very same objects."""
    holes = SpanSet.of(*((start, start + 5) for start in range(0, 100_000, 10)))
    left = holes - SpanSet.of((50_002, 50_013))
    assert len(left) == len(holes)
    assert left.at(50_000) == (50_000, 50_002)
    assert left.at(50_013) == (50_013, 50_015)
    changed = [span for span in left if span not in {(50_000, 50_002), (50_013, 50_015)}]
    kept = {id(span) for span in holes}
    assert all(id(span) in kept for span in changed)
