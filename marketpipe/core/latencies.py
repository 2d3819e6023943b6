"""How long something took, lately: percentiles of the last one to two minutes, however much there was to measure.

Times are counted in bins that are 2 % wide (ddsketch), so that what is read is within 1 % of a time that was measured,
and a million of them take as much room as a thousand. There are two sets of bins: one is filled for a minute, and kept
for another while the next is filled.

``now_s`` is a monotonic clock's reading in seconds and must not go backwards between calls.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from operator import add

import attrs
from ddsketch.mapping import LogarithmicMapping
from ddsketch.store import DenseStore

__all__ = ["ACCURACY", "SHORTEST_S", "TURN_S", "Latencies"]

# How far off a percentile may be, of itself.
ACCURACY = 0.01
# How long one set of bins is filled.
TURN_S = 60.0
# What took less is counted as nothing: bins are as many as the shortest time and the longest are apart, some 1,400 for
# a microsecond and a week.
SHORTEST_S = 1e-6

_MAPPING = LogarithmicMapping(ACCURACY)
_key_of = _MAPPING.key
_value_of = _MAPPING.value


@attrs.define(eq=False)
class _Minute:
    """The times of one minute. ``instant``: how many were shorter than can be told from nothing."""

    bins: DenseStore = attrs.field(factory=DenseStore)
    instant: int = 0

    @property
    def count(self) -> float:
        return self.instant + self.bins.count


@attrs.define(eq=False)
class Latencies:
    """Times of one kind. `record` costs about a microsecond, a look as many as there are bins between the extremes."""

    _now: _Minute = attrs.field(factory=_Minute, init=False)
    _before: _Minute = attrs.field(factory=_Minute, init=False)
    _until_s: float = attrs.field(default=-math.inf, init=False)  # when the minute is over
    _looked: tuple[tuple[float, float], Sequence[float], tuple[float, ...]] | None = attrs.field(
        default=None, init=False
    )

    def record(self, took_s: float, now_s: float, count: int = 1) -> None:
        """``count`` times (above 0) something took ``took_s``, and was over at ``now_s``."""
        if now_s >= self._until_s:
            self._turn(now_s)
        if took_s < SHORTEST_S:
            self._now.instant += count
        else:
            self._now.bins.add(_key_of(took_s), count)

    def percentiles(self, now_s: float, shares: Sequence[float]) -> tuple[float, ...]:
        """The times (seconds) that shares of what was measured lately did not exceed; 0.0 where nothing was.

        Each share is above 0 and at most 1.
        """
        if now_s >= self._until_s:
            self._turn(now_s)
        counts = self._before.count, self._now.count
        if self._looked is None or self._looked[0] != counts or self._looked[1] != shares:
            self._looked = counts, shares, self._read(shares)
        return self._looked[2]

    def _turn(self, now_s: float) -> None:
        if now_s < self._until_s + TURN_S:
            self._before, self._until_s = self._now, self._until_s + TURN_S
        else:  # both minutes are over
            self._before, self._until_s = _Minute(), now_s + TURN_S
        self._now = _Minute()
        self._looked = None

    def _read(self, shares: Sequence[float]) -> tuple[float, ...]:
        total = self._before.count + self._now.count
        if not total:
            return (0.0,) * len(shares)
        first, sums = _summed(self._before.bins, self._now.bins)
        instant = self._before.instant + self._now.instant
        # The rank of a share is that of the first time that so many do not exceed.
        return tuple(_at(math.ceil(share * total) - 1 - instant, first, sums) for share in shares)


def _at(rank: float, first: int, sums: Sequence[float]) -> float:
    return 0.0 if rank < 0 else float(_value_of(first + bisect_right(sums, rank)))


def _summed(one: DenseStore, other: DenseStore) -> tuple[int, Sequence[float]]:
    """The key of the first bin, and how many times lie in each bin and those before it."""
    filled = [bins for bins in (one, other) if bins.count]
    if not filled:
        return 0, ()
    first = min(bins.min_key for bins in filled)
    last = max(bins.max_key for bins in filled)
    rows = [_padded(bins, first, last) for bins in filled]
    return first, list(accumulate(rows[0] if len(rows) == 1 else map(add, *rows)))


def _padded(bins: DenseStore, first: int, last: int) -> list[float]:
    counts = bins.bins[bins.min_key - bins.offset : bins.max_key - bins.offset + 1]
    return [0.0] * (bins.min_key - first) + counts + [0.0] * (last - bins.max_key)
