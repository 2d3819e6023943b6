"""One day of one market: a tape seen through the market's levels, grid and sizes.

Prices and volumes are integers of 1e-8, turnover is an integer of 1e-16: every sum is exact.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from operator import add, mul, sub

import attrs

from marketpipe.sim.tape import DAY_MS, HOUR_MS, HOURS, Rotation, Tape, make_tape

__all__ = ["Bar", "Day", "Deal", "Span", "fold", "seen_ms", "stored_ms"]

# Half-open, in epoch milliseconds.
Span = tuple[int, int]
STORE_GRID_MS = 25
STORE_LAG_MS = 30


def stored_ms(at_ms: int, phase_ms: int) -> int:
    """When the exchange stored what happened at ``at_ms``: 30 to 54 ms later, and never before an earlier event.

    It is what a ticker or a candle carries as ``timestamp``: 30 to 40 ms behind the trade in fresh samples, up to 54 ms
    past the end of a bar (seen 2026-09-13).
    """
    return at_ms - (at_ms + phase_ms) % STORE_GRID_MS + STORE_GRID_MS - 1 + STORE_LAG_MS


def seen_ms(now_ms: int, phase_ms: int) -> int:
    """The last moment of which everything was stored by ``now_ms``: the inverse of `stored_ms`."""
    stored = now_ms - STORE_GRID_MS + 1 - STORE_LAG_MS
    return stored - (stored + phase_ms) % STORE_GRID_MS + STORE_GRID_MS - 1


@attrs.frozen
class Deal:
    """One trade. ``buy``: the taker bought."""

    at_ms: int
    price: int
    volume: int
    buy: bool
    sequential_id: int


@attrs.frozen
class Bar:
    """What one bar adds up to; it exists only if there was a trade in it."""

    open_ms: int
    opening: int
    high: int
    low: int
    close: int
    turnover: int
    volume: int
    stored_ms: int


def fold(open_ms: int, parts: Sequence[Bar]) -> Bar:
    """The bar that ``parts`` (oldest first, at least one) add up to."""
    return Bar(
        open_ms,
        parts[0].opening,
        max(bar.high for bar in parts),
        min(bar.low for bar in parts),
        parts[-1].close,
        sum(bar.turnover for bar in parts),
        sum(bar.volume for bar in parts),
        parts[-1].stored_ms,
    )


@attrs.frozen(eq=False)
class Day:
    """A market's trades from ``start_ms`` on for 24 hours. Trades are named by their index in the tape.

    The price of a trade is ``step * (level + offset)`` and its volume ``lot * size``; the day begins ``shift_ms`` into
    the tape, which are its ``hours``. The level moves by ``drift`` in the course of the day, every hour by a 24th of it
    (rounded down), so that the day ends about where the next one begins.
    """

    start_ms: int
    tape: Tape
    hours: Rotation
    shift_ms: int
    level: int
    drift: int
    step: int
    lot: int
    phase_ms: int

    @property
    def first(self) -> int:
        """The index of the first trade, if there is one."""
        return self.hours.starts[0]

    def index(self, at_ms: int) -> int:
        """The index of the first trade at or after ``at_ms``, which may lie outside the day."""
        of_day_ms = min(max(at_ms - self.start_ms, 0), DAY_MS)
        if of_day_ms == DAY_MS:
            return self.first + self.tape.count
        first = self.first
        return bisect_left(self.tape.times, of_day_ms + self.shift_ms, first, first + self.tape.count)

    def at_ms(self, index: int) -> int:
        """When trade ``index`` happened."""
        return self.tape.times[index] - self.shift_ms + self.start_ms

    def price(self, index: int) -> int:
        """The price of trade ``index``."""
        return (self.level + self.drift * self._hour(index) // HOURS + self.tape.offsets[index]) * self.step

    def volume(self, first: int, end: int) -> int:
        """The volume of the trades ``[first, end)``."""
        sums = self.tape.size_sums
        return (sums[end] - sums[first]) * self.lot

    def bought(self, first: int, end: int) -> int:
        """The volume of those of the trades ``[first, end)`` whose taker bought."""
        sums = self.tape.bought_sums
        return (sums[end] - sums[first]) * self.lot

    def turnover(self, first: int, end: int) -> int:
        """Price times volume, summed over the trades ``[first, end)``."""
        if first == end:
            return 0
        begin = self._hour(first)
        return self._turnover(first, end, begin, self._levels(begin, self._hour(end - 1)))

    def extremes(self) -> tuple[int, int]:
        """The highest and lowest price of the day in steps; without a trade, a highest far below the lowest."""
        levels = self._levels(0, HOURS - 1)
        return max(map(add, levels, self.hours.highs)), min(map(add, levels, self.hours.lows))

    def deal(self, index: int) -> Deal:
        """Trade ``index``. Its id is its millisecond and its place within it."""
        tape, place = self.tape, 0
        while place < index and tape.times[index - place - 1] == tape.times[index]:
            place += 1
        at_ms = self.at_ms(index)
        volume = tape.sizes[index] * self.lot
        return Deal(at_ms, self.price(index), volume, bool(tape.buys[index]), at_ms * 10_000 + place)

    def bar(self, open_ms: int, first: int, end: int) -> Bar:
        """The bar made of the trades ``[first, end)``, of which there must be one.

        If they are of more than one hour, they must begin with the first trade of an hour.
        """
        tape, step = self.tape, self.step
        begin = self._hour(first)
        levels = self._levels(begin, self._hour(end - 1))
        high, low = self._extremes(first, end, begin, levels)
        return Bar(
            open_ms,
            (levels[0] + tape.offsets[first]) * step,
            high * step,
            low * step,
            (levels[-1] + tape.offsets[end - 1]) * step,
            self._turnover(first, end, begin, levels),
            (tape.size_sums[end] - tape.size_sums[first]) * self.lot,
            stored_ms(tape.times[end - 1] - self.shift_ms + self.start_ms, self.phase_ms),
        )

    def bars(self, size_ms: int, end_ms: int) -> Iterator[Bar]:
        """The bars of ``size_ms`` made of the trades before ``end_ms``, newest first."""
        times, shift_ms, first = self.tape.times, self.shift_ms, self.first
        end = self.index(end_ms)
        while end > first:
            of_day_ms = times[end - 1] - shift_ms
            of_day_ms -= of_day_ms % size_ms
            begin = bisect_left(times, of_day_ms + shift_ms, first, end)
            yield self.bar(self.start_ms + of_day_ms, begin, end)
            end = begin

    def _hour(self, index: int) -> int:
        return (self.tape.times[index] - self.shift_ms) // HOUR_MS

    def _levels(self, begin: int, last: int) -> list[int]:
        level, drift = self.level, self.drift
        return [level + drift * hour // HOURS for hour in range(begin, last + 1)]

    # In these two there are trades in the first and in the last of the hours from ``begin`` on that have ``levels``.
    def _turnover(self, first: int, end: int, begin: int, levels: list[int]) -> int:
        sizes, values = self.tape.size_sums, self.tape.value_sums
        if len(levels) == 1:
            moved = levels[0] * (sizes[end] - sizes[first])
        else:
            sums = [sizes[cut] for cut in (first, *self.hours.starts[begin + 1 : begin + len(levels)], end)]
            moved = sum(map(mul, levels, map(sub, sums[1:], sums)))
        return (moved + values[end] - values[first]) * self.step * self.lot

    def _extremes(self, first: int, end: int, begin: int, levels: list[int]) -> tuple[int, int]:
        if len(levels) == 1:
            high, low = self.tape.extremes(first, end)
            return levels[0] + high, levels[0] + low
        hours, after = self.hours, begin + len(levels)
        highs, lows = hours.highs[begin:after], hours.lows[begin:after]
        if end < hours.starts[after]:
            highs[-1], lows[-1] = self.tape.extremes(hours.starts[after - 1], end)
        return max(map(add, levels, highs)), min(map(add, levels, lows))

    def without(self, spans: Iterable[Span], opening_ms: int | None = None) -> Day:
        """This day without the trades inside ``spans``; with an opening trade at ``opening_ms``, if that is given."""
        kept = [
            index
            for index in range(self.first, self.first + self.tape.count)
            if not any(start_ms <= self.at_ms(index) < end_ms for start_ms, end_ms in spans)
        ]
        tape = self.tape
        trades = [
            (tape.times[index] - self.shift_ms, tape.offsets[index], tape.sizes[index], tape.buys[index])
            for index in kept
        ]
        if opening_ms is not None:
            trades.insert(0, (opening_ms - self.start_ms, self.hours.origin, 100, 1))
        columns = zip(*trades, strict=True) if trades else ((), (), (), ())
        tape = make_tape(*columns)
        return attrs.evolve(self, tape=tape, hours=tape.rotation(0), shift_ms=0)
