"""All days of one market, computed when asked for and in any order.

The level of the market moves from day to day on a random bridge between anchors that lie 128 days apart; a block of
days is drawn at once. A day goes from its level to the next day's. Listing days and days with a maintenance hole have a
tape of their own; all others share one.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain

import attrs
from cachetools import LRUCache

from marketpipe.core.timeframes import Timeframe, floor, next_open
from marketpipe.sim.day import Bar, Day, Deal, Span, fold
from marketpipe.sim.draw import draw, octets
from marketpipe.sim.tape import DAY_MS, MINUTE_MS, NOWHERE, Rotation, Tape, drawn_tape
from marketpipe.sim.universe import SimMarket

__all__ = ["Extremes", "History"]

BLOCK = 128
# What a day's volume is multiplied by, give or take a half; their mean is universe.MEAN_FACTOR.
FACTORS = (3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 10, 11, 6, 13)
FACTOR_PARTS = 64
_FACTOR_OF_BYTE = bytes(FACTORS[byte % len(FACTORS)] for byte in range(256))
_REMAINDERS = {divisor: bytes(byte % divisor for byte in range(256)) for divisor in range(1, 9)}
# A day's level differs from the day before by about 1.2 % of the base (a byte's deviation is 74).
JUMP = 6_167
# Days from which an absence is cut out each have a tape of their own, some 100 kB: kept are those of about a week.
CUT_DAYS = 8
LONGEST_BAR_MS = 366 * DAY_MS
INTRADAY_MS = {
    Timeframe.S1: 1_000,
    Timeframe.M1: 60_000,
    Timeframe.M3: 180_000,
    Timeframe.M5: 300_000,
    Timeframe.M10: 600_000,
    Timeframe.M15: 900_000,
    Timeframe.M30: 1_800_000,
    Timeframe.H1: 3_600_000,
    Timeframe.H4: 14_400_000,
}


@attrs.frozen
class Extremes:
    """The highest and lowest price of some days, and the (first) day of each as a number since 1970."""

    high: int
    high_day: int
    low: int
    low_day: int


@attrs.frozen
class _Block:
    """``levels`` has one more: that of the day after the block."""

    levels: array[int]
    tapes: bytes
    factors: bytes
    factor_parts: bytes


class History:
    """What has happened in one market since its listing. ``end_ms`` is always the first millisecond not to be seen."""

    def __init__(self, seed: int, market: SimMarket, holes: Sequence[Span] = ()) -> None:
        self.market = market
        self._seed = seed
        self._holes = holes
        self.opening_ms = _after(holes, market.listing_ms)
        self.first_day = self.opening_ms // DAY_MS
        self._special = {self.first_day, *(day for span in holes for day in _days(span))}
        self._scripted: dict[int, Day] = {}
        self._cut: LRUCache[int, Day] = LRUCache(CUT_DAYS)
        self._blocks: dict[int, _Block] = {}
        self._closed: dict[tuple[Timeframe, int, int], Bar | None] = {}

    def day(self, number: int) -> Day:
        """Day ``number`` since 1970; not before the listing."""
        day = self._scripted.get(number)
        if day is None and number in self._special:
            day = self._cut.get(number)
            if day is None:
                day = self._cut[number] = self._special_day(number)
        return day or self._plain_day(number)

    def script(self, days: Mapping[int, Day]) -> None:
        """Let these days be as they are given. Those before the listing's, and the listing's own, cannot be."""
        if min(days) <= self.first_day:
            raise ValueError(f"{self.market.code}: a script must begin after the day of the listing, {self.first_day}")
        self._scripted.update(days)
        self._special.update(days)
        self._closed.clear()

    def bars(self, timeframe: Timeframe, before_ms: int, end_ms: int) -> Iterator[Bar]:
        """The bars that open before ``before_ms``, newest first, made of the trades before ``end_ms``."""
        if before_ms <= self.opening_ms - LONGEST_BAR_MS:
            return iter(())
        end_ms = min(end_ms, next_open(timeframe, floor(timeframe, before_ms - 1)))
        size_ms = INTRADAY_MS.get(timeframe)
        if size_ms is not None:
            return self._intraday(size_ms, end_ms)
        if timeframe is Timeframe.D1:
            return self._daily(self.first_day, end_ms)
        return self._periods(timeframe, end_ms)

    def deals(self, start_ms: int, end_ms: int) -> Iterator[Deal]:
        """The trades in ``[start_ms, end_ms)``, newest first."""
        start_ms = max(start_ms, self.opening_ms)
        for number in range((end_ms - 1) // DAY_MS, start_ms // DAY_MS - 1, -1):
            day = self.day(number)
            for index in range(day.index(end_ms) - 1, day.index(start_ms) - 1, -1):
                yield day.deal(index)

    def last(self, end_ms: int) -> Deal | None:
        """The newest trade before ``end_ms``; None before the first."""
        return next(self.deals(self.opening_ms, end_ms), None)

    def bought(self, end_ms: int) -> int:
        """What takers bought on the day of the millisecond before ``end_ms``, until then."""
        day = self.day((end_ms - 1) // DAY_MS)
        return day.bought(day.first, day.index(end_ms))

    def next_ms(self, after_ms: int, midnight_ms: int) -> int:
        """When the first trade after ``after_ms`` happens, ``midnight_ms`` if there is none before."""
        day = self.day(after_ms // DAY_MS)
        index = day.index(after_ms + 1)
        return day.at_ms(index) if index < day.first + day.tape.count else midnight_ms

    def totals(self, start_ms: int, end_ms: int) -> tuple[int, int]:
        """Volume and turnover of ``[start_ms, end_ms)``."""
        volume = turnover = 0
        for number in range(max(start_ms // DAY_MS, self.first_day), (end_ms - 1) // DAY_MS + 1):
            day = self.day(number)
            first, end = day.index(start_ms), day.index(end_ms)
            volume += day.volume(first, end)
            turnover += day.turnover(first, end)
        return volume, turnover

    def extremes(self, first_day: int, end_day: int) -> Extremes | None:
        """The extremes of the whole days ``[first_day, end_day)``; None if there was no trade."""
        first_day = max(first_day, self.first_day)
        if first_day >= end_day:
            return None
        levels, tapes = self._slice(first_day, end_day)
        hours = self._rotations
        up = [tape.high - rotation.origin for tape, rotation in zip(self.tapes, hours, strict=True)]
        down = [rotation.origin - tape.low for tape, rotation in zip(self.tapes, hours, strict=True)]
        special = [number - first_day for number in self._special.intersection(range(first_day, end_day))]
        high, high_day = _greatest(levels, tapes, up, special, lambda place: self.day(first_day + place).extremes()[0])
        depth, low_day = _greatest(
            [-level for level in levels], tapes, down, special, lambda place: -self.day(first_day + place).extremes()[1]
        )
        if high < -depth:
            return None
        step = self.market.step
        return Extremes(high * step, first_day + high_day, -depth * step, first_day + low_day)

    def _intraday(self, size_ms: int, end_ms: int) -> Iterator[Bar]:
        for number in range((end_ms - 1) // DAY_MS, self.first_day - 1, -1):
            yield from self.day(number).bars(size_ms, end_ms)

    def _daily(self, first_day: int, end_ms: int) -> Iterator[Bar]:
        for number in range((end_ms - 1) // DAY_MS, max(first_day, self.first_day) - 1, -1):
            day = self.day(number)
            first, end = day.first, day.index(end_ms)
            if end > first:
                yield day.bar(day.start_ms, first, end)

    def _periods(self, timeframe: Timeframe, end_ms: int) -> Iterator[Bar]:
        while end_ms > self.opening_ms:
            open_ms = floor(timeframe, end_ms - 1)
            bar = self._period(timeframe, open_ms, end_ms)
            if bar is not None:
                yield bar
            end_ms = open_ms

    def _period(self, timeframe: Timeframe, open_ms: int, end_ms: int) -> Bar | None:
        # A closed period is a sum over up to 366 days that cannot change any more: worth keeping.
        key = (timeframe, open_ms, end_ms)
        if key not in self._closed:
            newest_first = list(self._daily(open_ms // DAY_MS, end_ms))
            bar = fold(open_ms, newest_first[::-1]) if newest_first else None
            if end_ms != next_open(timeframe, open_ms):
                return bar
            self._closed[key] = bar
        return self._closed[key]

    def _plain_day(self, number: int) -> Day:
        market, place = self.market, number % BLOCK
        block = self._block(number // BLOCK)
        tape, level = block.tapes[place], block.levels[place]
        hours = self._rotations[tape]
        factor = block.factors[place] * FACTOR_PARTS + block.factor_parts[place] % FACTOR_PARTS - FACTOR_PARTS // 2
        return Day(
            number * DAY_MS,
            self.tapes[tape],
            hours,
            market.rotation_ms,
            level - hours.origin,
            block.levels[place + 1] - level,
            market.step,
            market.lot * factor // FACTOR_PARTS,
            market.phase_ms,
        )

    def _special_day(self, number: int) -> Day:
        closed = [span for span in self._holes if number in _days(span)]
        if number != self.first_day:
            return self._plain_day(number).without(closed)
        before_opening = (number * DAY_MS, self.opening_ms)
        return self._plain_day(number).without([*closed, before_opening], self.opening_ms)

    @cached_property
    def tapes(self) -> tuple[Tape, ...]:
        """The tapes this market's days are made of."""
        market = self.market
        count = len(market.activity.trades)
        return tuple(drawn_tape(self._seed, market.activity, index, market.amplitude) for index in range(count))

    @cached_property
    def _rotations(self) -> tuple[Rotation, ...]:
        # Less its origin every tape begins and ends at 0, and any tape can follow any other without a jump.
        return tuple(tape.rotation(self.market.rotation_ms // MINUTE_MS) for tape in self.tapes)

    def _slice(self, first_day: int, end_day: int) -> tuple[list[int], bytes]:
        # The level at the begin of each day and at the end of the last, and each day's tape.
        levels: list[int] = []
        tapes = b""
        for number in range(first_day // BLOCK, (end_day - 1) // BLOCK + 1):
            block = self._block(number)
            first, end = max(first_day - number * BLOCK, 0), min(end_day - number * BLOCK, BLOCK)
            levels[-1:] = block.levels[first : end + 1]
            tapes += block.tapes[first:end]
        return levels, tapes

    def _block(self, number: int) -> _Block:
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = self._draw_block(number)
        return block

    def _draw_block(self, number: int) -> _Block:
        draws = octets(4 * BLOCK, self._seed, self.market.code, "days", number)
        return _Block(
            self._levels(number, draws[:BLOCK]),
            draws[BLOCK : 2 * BLOCK].translate(_REMAINDERS[len(self.tapes)]),
            draws[2 * BLOCK : 3 * BLOCK].translate(_FACTOR_OF_BYTE),
            draws[3 * BLOCK :],
        )

    def _levels(self, number: int, jumps: bytes) -> array[int]:
        base = self.market.base
        walk = list(accumulate(jumps))
        first_jump_after = octets(1, self._seed, self.market.code, "days", number + 1)[0]
        anchor, end = self._anchor(number), self._anchor(number + 1)
        # From anchor to anchor in a straight line, plus the walk less its own drift.
        slope, scale, parts = (end - anchor) * JUMP - walk[-1] * base, BLOCK * base, BLOCK * JUMP
        levels = [anchor + (point * scale + i * slope) // parts for i, point in enumerate(walk)]
        levels.append(end + first_jump_after * base // JUMP)
        least, most = max(base * 2 // 5, 1), base * 2
        if min(levels) < least or max(levels) > most:
            levels = [min(max(level, least), most) for level in levels]
        return array("i", levels)

    def _anchor(self, number: int) -> int:
        return self.market.base * (75 + draw(60, self._seed, self.market.code, "anchor", number)) // 100


def _greatest(
    levels: Sequence[int], tapes: bytes, reaches: Sequence[int], special: Sequence[int], exact: Callable[[int], int]
) -> tuple[int, int]:
    """The greatest ``exact(place)`` of any day, and its first place.

    A day keeps between its two levels, and within ``reaches`` of its tape above them, unless it is ``special``: only
    the few that can exceed what a good one has are looked at.
    """
    count, top = len(tapes), levels.index(max(levels))
    around = chain(range(top, count), range(min(top, count) - 1, -1, -1))
    place = next((place for place in around if reaches[tapes[place]] > -NOWHERE // 2), 0)
    best = exact(place)
    least = best - max(reaches)
    near = {place for at, level in enumerate(levels) if level >= least for place in (at - 1, at) if 0 <= place < count}
    bounds = [(max(levels[place], levels[place + 1]) + reaches[tapes[place]], place) for place in near]
    bounds += [(NOWHERE, place) for place in special]
    for bound, other in sorted(bounds, reverse=True):
        if bound < best:
            break
        best, place = max((best, place), (exact(other), other), key=lambda found: (found[0], -found[1]))
    return best, place


def _after(holes: Sequence[Span], at_ms: int) -> int:
    return next((end_ms for start_ms, end_ms in holes if start_ms <= at_ms < end_ms), at_ms)


def _days(span: Span) -> range:
    return range(span[0] // DAY_MS, (span[1] - 1) // DAY_MS + 1)
