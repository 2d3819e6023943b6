"""What a chart shows, before anybody draws it: candles at their place in time, the time nobody asked about, the words.

Where there are more slots than a picture has room for, bars are merged into coarser ones, as the exchange itself would
have made them: the first open, the highest high, the lowest low, the last close, the sum of the volumes. The title says
so.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, auto
from operator import attrgetter

import attrs

from marketpipe.core import timeframes
from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle, CandleSeries, CandleState

__all__ = ["Drawing", "Kind", "Mark", "Span", "local"]

Span = tuple[int, int]

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
# What bars may be merged into. There are more sizes than the exchange has: 1m is too coarse for 1,000 bars of 1s.
_SIZES_MS = {
    **{f"{n}s": n * SECOND_MS for n in (2, 5, 10, 15, 30)},
    **{f"{n}m": n * MINUTE_MS for n in (1, 2, 3, 5, 10, 15, 30)},
    **{f"{n}h": n * HOUR_MS for n in (1, 2, 4, 6, 12)},
}
_CALENDAR = (Timeframe.D1, Timeframe.W1, Timeframe.MONTH, Timeframe.Y1)
_UNITS = ((DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "min"), (SECOND_MS, "s"))


class Kind(Enum):
    """TRADED is what a chart is made of; RUNNING may still change; FILLED was made up where nobody traded."""

    TRADED = auto()
    RUNNING = auto()
    FILLED = auto()


@attrs.frozen
class Mark:
    """One candle of the picture: ``bars`` bars that lie in ``[start_ms, end_ms)``."""

    start_ms: int
    end_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    kind: Kind
    bars: int

    @property
    def change(self) -> Decimal:
        """Close minus open: its sign is the colour."""
        return self.close - self.open

    @property
    def wicks(self) -> tuple[tuple[Decimal, Decimal], tuple[Decimal, Decimal]]:
        """From the low to the body, and from the high to the body."""
        return (self.low, min(self.open, self.close)), (self.high, max(self.open, self.close))


@attrs.frozen(kw_only=True)
class Drawing:
    """A whole chart: its marks, oldest first, over the time ``[start_ms, end_ms)``, and what is written on it.

    ``unknown``: what was not fetched, in order, apart from each other, and within that time.
    """

    title: str
    subtitle: str
    quote: str
    base: str
    zone: tzinfo
    start_ms: int
    end_ms: int
    marks: tuple[Mark, ...]
    unknown: tuple[Span, ...]

    @property
    def unknown_name(self) -> str:
        """What the legend calls the unknown time: ``not fetched: 2 spans, 3 h 20 min``."""
        spans = f"{len(self.unknown)} spans, " if len(self.unknown) > 1 else ""
        return f"not fetched: {spans}{_duration(sum(end_ms - start_ms for start_ms, end_ms in self.unknown))}"

    @property
    def time_name(self) -> str:
        """What the axis calls the time: ``time (Asia/Seoul, UTC+09:00)``."""
        return f"time ({_zone_name(self.zone, self.start_ms, self.end_ms)})"

    @property
    def prices(self) -> tuple[float, float]:
        """From where to where the axis of prices goes."""
        low, high = float(min(mark.low for mark in self.marks)), float(max(mark.high for mark in self.marks))
        margin = (high - low) * 0.05 or abs(high) * 0.001 or 1.0
        return low - margin, high + margin

    @property
    def volumes(self) -> tuple[float, float]:
        """From where to where the axis of volumes goes."""
        return 0.0, float(max(mark.volume for mark in self.marks)) * 1.08 or 1.0

    @classmethod
    def of(
        cls,
        series: CandleSeries,
        *,
        room: int,
        zone: tzinfo,
        unknown: Iterable[Span] = (),
        span: Span | None = None,
        title: str | None = None,
    ) -> Drawing:
        """``series`` in at most ``room`` slots, as far as its bars can be merged.

        ``span`` is the time to show, otherwise all that bars and ``unknown`` take. ``ValueError`` if no bar opens in
        it, or if a span ends before it starts.
        """
        for start_ms, end_ms in (*(unknown := tuple(unknown)), *([span] if span else [])):
            if start_ms >= end_ms:
                raise ValueError(f"a span must end after it starts, was {start_ms} to {end_ms}")
        timeframe = series.timeframe
        bars = [bar for bar in series if span is None or span[0] <= bar.open_ms < span[1]]
        if not bars:
            raise ValueError(f"there is no {timeframe} bar of {series.market} to draw")
        start_ms, end_ms = span or _extent(bars, unknown)
        spans = tuple(_joined(unknown, start_ms, end_ms))
        grain = _grain(timeframe, start_ms, end_ms, room)
        marks = tuple(_mark(grain, opens_ms, group) for opens_ms, group in itertools.groupby(bars, grain.floor_of))
        title = title or f"{series.market} {timeframe}"
        quote, _, base = series.market.partition("-")
        return cls(
            title=title if grain.size == timeframe else f"{title}, drawn as {grain.name} bars",
            subtitle=_subtitle(timeframe, bars, spans, start_ms, end_ms, zone),
            quote=quote,
            base=base,
            zone=zone,
            start_ms=min(start_ms, marks[0].start_ms),
            end_ms=max(end_ms, marks[-1].end_ms),
            marks=marks,
            unknown=spans,
        )


def local(at_ms: int, zone: tzinfo) -> datetime:
    """The moment as the clocks of ``zone`` show it."""
    return datetime.fromtimestamp(at_ms / 1000, zone)


# -- time ---------------------------------------------------------------------------------------------------------


def _extent(bars: Sequence[Candle], unknown: Sequence[Span]) -> Span:
    starts, ends = zip((bars[0].open_ms, bars[-1].close_ms), *unknown, strict=True)
    return min(starts), max(ends)


def _joined(spans: Iterable[Span], start_ms: int, end_ms: int) -> Iterator[Span]:
    """``spans`` as far as they lie in the time shown, in order, those that touch as one."""
    held: Span | None = None
    for a_ms, b_ms in sorted((max(a, start_ms), min(b, end_ms)) for a, b in spans if a < end_ms and b > start_ms):
        if held is not None and a_ms > held[1]:
            yield held
            held = None
        held = (a_ms, b_ms) if held is None else (held[0], max(held[1], b_ms))
    if held is not None:
        yield held


def _zone_name(zone: tzinfo, start_ms: int, end_ms: int) -> str:
    offsets = dict.fromkeys(
        str(timezone(local(at_ms, zone).utcoffset() or timedelta(0))) for at_ms in (start_ms, end_ms)
    )
    name = getattr(zone, "key", None) or local(start_ms, zone).tzname() or ""
    return name if name in offsets else f"{name}, {' to '.join(offsets)}"


# -- merging ------------------------------------------------------------------------------------------------------


@attrs.frozen
class _Grain:
    """A size of candles: milliseconds, or what only the calendar knows."""

    name: str
    size: int | Timeframe

    def floor_of(self, bar: Candle) -> int:
        return self.floor(bar.open_ms)

    def floor(self, at_ms: int) -> int:
        return timeframes.floor(self.size, at_ms) if isinstance(self.size, Timeframe) else at_ms - at_ms % self.size

    def end(self, start_ms: int) -> int:
        return timeframes.next_open(self.size, start_ms) if isinstance(self.size, Timeframe) else start_ms + self.size

    def slots(self, start_ms: int, end_ms: int) -> int:
        first_ms = self.floor(start_ms)
        if isinstance(self.size, Timeframe):
            return timeframes.bars_between(self.size, first_ms, end_ms)
        return -((first_ms - end_ms) // self.size)


def _grain(timeframe: Timeframe, start_ms: int, end_ms: int, room: int) -> _Grain:
    grains = [_Grain(timeframe, timeframe), *_coarser(timeframe)]
    return next((grain for grain in grains if grain.slots(start_ms, end_ms) <= room), grains[-1])


def _coarser(timeframe: Timeframe) -> Iterator[_Grain]:
    """The grains that bars of ``timeframe`` fit into whole, the finest first."""
    size_ms = timeframes.next_open(timeframe, 0)
    if size_ms <= DAY_MS:
        yield from (_Grain(name, ms) for name, ms in _SIZES_MS.items() if ms > size_ms and ms % size_ms == 0)
    for calendar in _CALENDAR:
        # A week may begin in one month and end in the next; days and months fit into all that is longer.
        if timeframe is not Timeframe.W1 and timeframes.next_open(calendar, 0) > size_ms:
            yield _Grain(calendar, calendar)


def _mark(grain: _Grain, start_ms: int, group: Iterable[Candle]) -> Mark:
    every = tuple(group)
    # A made-up bar repeats the close before it: beside real ones it has nothing to say.
    bars = tuple(bar for bar in every if not bar.filled)
    if not bars:
        kind = Kind.FILLED
    elif bars[-1].state is CandleState.RUNNING:
        kind = Kind.RUNNING
    else:
        kind = Kind.TRADED
    bars = bars or every
    return Mark(
        start_ms,
        grain.end(start_ms),
        bars[0].open,
        max(map(attrgetter("high"), bars)),
        min(map(attrgetter("low"), bars)),
        bars[-1].close,
        sum(map(attrgetter("volume"), bars), Decimal(0)),
        kind,
        len(bars),
    )


# -- words --------------------------------------------------------------------------------------------------------


def _subtitle(
    timeframe: Timeframe, bars: Sequence[Candle], unknown: Sequence[Span], start_ms: int, end_ms: int, zone: tzinfo
) -> str:
    first, last = (local(at_ms, zone) for at_ms in (start_ms, end_ms))
    traded = [bar.open_ms for bar in bars if not bar.filled]
    words = [f"{len(traded):,} bar{'s' * (len(traded) != 1)} of {timeframe}"]
    if empty := _empty(timeframe, traded, unknown, start_ms, end_ms):
        words.append(f"{empty:,} slot{'s' * (empty != 1)} without a trade")
    if first.time() == last.time() == time():
        return f"{', '.join(words)}   {first.date()} to {last.date()}"
    digits = "seconds" if timeframe is Timeframe.S1 else "minutes"
    first_text, last_text = (at.replace(tzinfo=None).isoformat(" ", timespec=digits) for at in (first, last))
    return f"{', '.join(words)}   {first_text} to {last_text}"


def _empty(timeframe: Timeframe, traded: Sequence[int], unknown: Sequence[Span], start_ms: int, end_ms: int) -> int:
    """How many slots are known to have no bar."""
    starts = [span[0] for span in unknown]
    ends = [0, *(span[1] for span in unknown)]
    known = sum(at_ms >= ends[bisect_right(starts, at_ms)] for at_ms in traded)
    slots = timeframes.bars_between(timeframe, start_ms, end_ms)
    return slots - known - sum(timeframes.bars_between(timeframe, a_ms, b_ms) for a_ms, b_ms in unknown)


def _duration(ms: int) -> str:
    """In its two greatest units: ``3 h 20 min``."""
    words: list[str] = []
    for size_ms, unit in _UNITS:
        if ms >= size_ms and len(words) < 2:
            words.append(f"{ms // size_ms:,} {unit}")
            ms %= size_ms
    return " ".join(words) or f"{ms} ms"
