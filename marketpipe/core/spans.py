"""Sets of moments as half-open spans of integers: the arithmetic of what is asked, what is proven and what is missing.

A `SpanSet` is canonical: its spans are sorted, not empty, and neither overlap nor touch. Two sets with the same members
are therefore equal, and their ``repr`` is the same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from operator import itemgetter

import attrs

__all__ = ["Span", "SpanSet"]

# Start and end, the end exclusive.
Span = tuple[int, int]
_start, _end = itemgetter(0), itemgetter(1)


@attrs.frozen(repr=False)
class SpanSet:
    """A frozen set of integers (epoch ms), held as spans ``[start, end)``. ``SpanSet()`` is empty, `of` makes others.

    ``a | b``, ``a & b`` and ``a - b`` are those of sets, each in time linear in the spans they have to look at.
    Iteration gives the spans in order, ``len`` counts them, ``in`` asks for a single moment.
    """

    _spans: tuple[Span, ...] = ()

    @classmethod
    def of(cls, *spans: Span) -> SpanSet:
        """The set of everything within ``spans``, which may come in any order, touch and overlap.

        A span that ends where it starts has no members. One that ends before it starts is a ``ValueError`` naming it.
        """
        for start, end in spans:
            _refuse_reversed(start, end)
        return SpanSet(tuple(_joined(sorted(span for span in spans if span[0] < span[1]))))

    def __or__(self, other: SpanSet) -> SpanSet:
        if not self._spans or not other._spans:
            return self if self._spans else other
        return SpanSet(tuple(_joined(sorted((*self._spans, *other._spans)))))  # linear: two sorted runs

    def __and__(self, other: SpanSet) -> SpanSet:
        return SpanSet(tuple(_shared(self._spans, other._spans)))

    def __sub__(self, other: SpanSet) -> SpanSet:
        if not self._spans or not other._spans:
            return self
        # Only the spans between the other's ends can change: a page cut out of a long list of holes is a splice.
        first = bisect_right(self._spans, other._spans[0][0], key=_end)
        last = bisect_left(self._spans, other._spans[-1][1], key=_start)
        middle = _without(self._spans[first:last], other._spans)
        return SpanSet((*self._spans[:first], *middle, *self._spans[last:]))

    def __bool__(self) -> bool:
        return bool(self._spans)

    def __len__(self) -> int:
        return len(self._spans)

    def __iter__(self) -> Iterator[Span]:
        return iter(self._spans)

    def __reversed__(self) -> Iterator[Span]:
        return reversed(self._spans)

    def __contains__(self, moment: object) -> bool:
        return isinstance(moment, int) and self.at(moment) is not None

    def __repr__(self) -> str:
        return f"SpanSet.of({', '.join(map(str, self._spans))})"

    @property
    def length(self) -> int:
        """How many integers it has: the milliseconds covered."""
        return sum(end - start for start, end in self._spans)

    def at(self, moment: int) -> Span | None:
        """The span that holds ``moment``, or None if there is none."""
        index = bisect_right(self._spans, moment, key=_start) - 1
        if index < 0 or self._spans[index][1] <= moment:
            return None
        return self._spans[index]

    def covers(self, start: int, end: int) -> bool:
        """Whether everything in ``[start, end)`` is in the set, as it always is if there is nothing in it.

        A reversed span is a ``ValueError``.
        """
        _refuse_reversed(start, end)
        span = self.at(start)
        return start == end or (span is not None and end <= span[1])

    def clip(self, start: int, end: int) -> SpanSet:
        """What of it lies in ``[start, end)``. A reversed span is a ``ValueError``."""
        _refuse_reversed(start, end)
        first = bisect_right(self._spans, start, key=_end)
        last = bisect_left(self._spans, end, key=_start)
        return SpanSet(tuple(_shared(self._spans[first:last], ((start, end),))))


def _refuse_reversed(start: int, end: int) -> None:
    if start > end:
        raise ValueError(f"a span must not end before it starts, was [{start}, {end})")


def _joined(spans: Iterable[Span]) -> Iterator[Span]:
    # `spans` sorted, none empty; those that touch or overlap become one.
    left = right = None
    for start, end in spans:
        if left is None or right is None:
            left, right = start, end
        elif start <= right:
            right = max(right, end)
        else:
            yield left, right
            left, right = start, end
    if left is not None and right is not None:
        yield left, right


def _shared(ours: tuple[Span, ...], theirs: tuple[Span, ...]) -> Iterator[Span]:
    i = j = 0
    while i < len(ours) and j < len(theirs):
        start, end = max(ours[i][0], theirs[j][0]), min(ours[i][1], theirs[j][1])
        if start < end:
            yield start, end
        # The one that ends first can meet nothing more.
        if ours[i][1] <= theirs[j][1]:
            i += 1
        else:
            j += 1


def _without(ours: tuple[Span, ...], theirs: tuple[Span, ...]) -> Iterator[Span]:
    j = 0
    for begin, end in ours:
        start = begin
        while j < len(theirs) and theirs[j][1] <= start:
            j += 1
        k = j
        while k < len(theirs) and theirs[k][0] < end:
            if start < theirs[k][0]:
                yield start, theirs[k][0]
            start = theirs[k][1]
            k += 1
        j = max(j, k - 1)  # the last one may reach into our next
        if start < end:
            yield start, end
