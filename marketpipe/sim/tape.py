"""Tapes: one day of trades without a market, from which the days of all markets are made.

A tape is a loop. Its price path ends where it began, so it can be started at any minute; it is stored twice over, so
that any rotation is a slice. Prices are offsets in grid steps and volumes are counts of size units: every hour of a
market's day is an affine image of an hour of a tape, and its turnover needs only two sums,

    sum(price * volume) = step * lot * (level * sum(size) + sum(offset * size)).

There are a few tapes per `Activity`, made when first asked for and shared by every world of the same seed.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from operator import mul

import attrs

from marketpipe.sim.draw import words

__all__ = [
    "BUSY",
    "DAY_MS",
    "DEEP",
    "DUST",
    "HOURS",
    "HOUR_MS",
    "MEAN_SIZE",
    "MID",
    "MINUTE_MS",
    "THIN",
    "Activity",
    "Rotation",
    "Tape",
    "drawn_tape",
]

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
MINUTES = 1_440
HOURS = 24
# Above any real offset: what an empty minute or day has for its low, and, negated, for its high.
NOWHERE = 1 << 40
PATH_BITS = 20
# Trades come in all sizes: mostly small, a few very large.
SIZE_FACTORS = (1, 1, 1, 2, 5, 10, 30, 100)
MEAN_SIZE = 136 * sum(SIZE_FACTORS) // len(SIZE_FACTORS)


@attrs.frozen
class Activity:
    """How much a market trades: one tape for each entry of ``trades``, which is its number of trades a day."""

    name: str
    trades: tuple[int, ...]


DEEP = Activity("deep", (61_000, 54_000, 67_000))
BUSY = Activity("busy", (8_300, 7_100, 9_400))
MID = Activity("mid", (1_050, 820, 1_400))
THIN = Activity("thin", (44, 31, 62, 38))
DUST = Activity("dust", (3, 0, 6, 1))


@attrs.frozen
class Rotation:
    """A tape begun at some minute, by the hour: hour ``k`` has the trades from ``starts[k]`` up to ``starts[k + 1]``.

    ``origin`` is the offset that the path has where it begins, and therefore where it ends.
    """

    starts: list[int]
    highs: list[int]
    lows: list[int]
    origin: int


@attrs.frozen(eq=False)
class Tape:
    """A loop of trades, twice over: trade ``i + count`` is trade ``i`` a day later.

    ``starts[m]`` is the first trade at or after minute ``m``; ``size_sums[i]``, ``bought_sums[i]`` and
    ``value_sums[i]`` add up the trades before ``i`` (sizes, sizes of those whose taker bought, and offset times size).
    """

    count: int
    times: array[int]
    offsets: array[int]
    sizes: array[int]
    buys: bytes
    starts: list[int]
    highs: list[int]
    lows: list[int]
    size_sums: array[int]
    bought_sums: array[int]
    value_sums: array[int]
    high: int
    low: int
    _rotations: dict[int, Rotation] = attrs.field(factory=dict, init=False, repr=False)

    def rotation(self, minute: int) -> Rotation:
        """The hours of this tape begun at ``minute`` of the day."""
        rotation = self._rotations.get(minute)
        if rotation is None:
            rotation = self._rotations[minute] = self._rotated(minute)
        return rotation

    def _rotated(self, minute: int) -> Rotation:
        starts = self.starts[minute : minute + MINUTES + 1 : 60]
        reaches = [self.extremes(first, end) if first < end else (-NOWHERE, NOWHERE) for first, end in pairwise(starts)]
        return Rotation(
            starts,
            [high for high, _ in reaches],
            [low for _, low in reaches],
            self.offsets[starts[0]] - self.buys[starts[0]] if self.count else 0,
        )

    def extremes(self, first: int, end: int) -> tuple[int, int]:
        """Highest and lowest offset of the trades ``[first, end)``, of which there must be one."""
        if end - first == self.count:
            return self.high, self.low
        inner, outer = self.times[first] // MINUTE_MS, self.times[end - 1] // MINUTE_MS + 1
        if self.starts[inner] == first and self.starts[outer] == end:
            if outer - inner == 1:
                return self.highs[inner], self.lows[inner]
            return max(self.highs[inner:outer]), min(self.lows[inner:outer])
        if outer - inner <= 2:
            part = self.offsets[first:end]
            return max(part), min(part)
        return self._pieces(first, end, inner + 1, outer - 1)

    def _pieces(self, first: int, end: int, inner: int, outer: int) -> tuple[int, int]:
        # Whole minutes [inner, outer) between two that are begun.
        head, tail = self.offsets[first : self.starts[inner]], self.offsets[self.starts[outer] : end]
        high = max(chain(self.highs[inner:outer], head, tail))
        return high, min(chain(self.lows[inner:outer], head, tail))


@attrs.frozen(eq=False)
class _Motion:
    """What tapes have in common however far their prices reach: `Tape` says what it is; ``path`` is one day long."""

    times: array[int]
    sizes: array[int]
    buys: bytes
    starts: list[int]
    size_sums: array[int]
    bought_sums: array[int]
    path: Sequence[int] = ()


def make_tape(times: Sequence[int], offsets: Sequence[int], sizes: Sequence[int], buys: Sequence[int]) -> Tape:
    """The tape of these trades; ``times`` are milliseconds of the day, ascending."""
    return _tape(_motion(times, sizes, buys), offsets)


@lru_cache(maxsize=256)
def drawn_tape(seed: int, activity: Activity, index: int, amplitude: int) -> Tape:
    """Tape ``index`` of an activity, its prices within ``amplitude`` steps of the level (one more for buyers)."""
    motion = _drawn_motion(seed, activity, index)
    # A taker who buys pays the ask, a step above what a seller gets.
    buys = motion.buys[: len(motion.path)]
    return _tape(motion, [(point * amplitude >> PATH_BITS) + buy for point, buy in zip(motion.path, buys, strict=True)])


def _motion(times: Sequence[int], sizes: Sequence[int], buys: Sequence[int], path: Sequence[int] = ()) -> _Motion:
    count = len(times)
    starts = [bisect_left(times, minute_ms) for minute_ms in range(0, DAY_MS, MINUTE_MS)] if count else [0] * MINUTES
    bought = list(map(mul, buys, sizes))
    return _Motion(
        times=array("i", [*times, *[at + DAY_MS for at in times]]),
        sizes=array("i", sizes) * 2,
        buys=bytes(buys) * 2,
        starts=[*starts, *(start + count for start in starts), 2 * count],
        size_sums=_twice_summed(sizes),
        bought_sums=_twice_summed(bought),
        path=path,
    )


def _tape(motion: _Motion, offsets: Sequence[int]) -> Tape:
    highs, lows = [-NOWHERE] * MINUTES, [NOWHERE] * MINUTES
    for minute, (first, end) in enumerate(pairwise(motion.starts[: MINUTES + 1])):
        if first < end:
            span = offsets[first:end]
            highs[minute], lows[minute] = max(span), min(span)
    return Tape(
        count=len(offsets),
        times=motion.times,
        offsets=array("i", offsets) * 2,
        sizes=motion.sizes,
        buys=motion.buys,
        starts=motion.starts,
        highs=highs * 2,
        lows=lows * 2,
        size_sums=motion.size_sums,
        bought_sums=motion.bought_sums,
        value_sums=_twice_summed(list(map(mul, offsets, motion.sizes))),
        high=max(highs),
        low=min(lows),
    )


def _twice_summed(values: Sequence[int]) -> array[int]:
    once = list(accumulate(values, initial=0))
    total = once[-1]
    return array("q", once + [total + part for part in once[1:]])


@lru_cache(maxsize=32)
def _drawn_motion(seed: int, activity: Activity, index: int) -> _Motion:
    count = activity.trades[index]
    key = (seed, activity.name, index)
    moves = words(count, *key, "moves")
    shapes = words(count, *key, "shapes")
    sizes = [(16 + shape % 241) * SIZE_FACTORS[shape >> 29] for shape in shapes]
    buys = [move >> 7 & 1 for move in moves]
    return _motion(_moments(count, shapes, key), sizes, buys, _bridge(moves))


def _moments(count: int, shapes: Sequence[int], key: tuple[object, ...]) -> list[int]:
    # Every minute has one of 4096 tickets for sure and the rest are drawn: bursts, but no dead minute on a deep tape.
    tickets = [*range(MINUTES), *[ticket % MINUTES for ticket in words(4_096 - MINUTES, *key, "bursts")]]
    times = [tickets[at & 4_095] * MINUTE_MS + (at >> 12) % MINUTE_MS for at in words(count, *key, "times")]
    times.sort()
    for i, shape in enumerate(shapes):
        # One order that fills several others trades several times in one millisecond.
        if not shape & 0xF00 and i:
            times[i] = times[i - 1]
    return times


def _bridge(moves: Sequence[int]) -> list[int]:
    walk = list(accumulate([2 * (move & 0xFF) - 255 for move in moves]))
    if not walk:
        return []
    drift, count = walk[-1], len(walk)
    loop = [point - drift * i // count for i, point in enumerate(walk, 1)]
    peak = max(1, max(loop), -min(loop))
    return [(point << PATH_BITS) // peak for point in loop]
