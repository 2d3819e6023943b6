"""What a look through the whole database found: how much is there, what is missing in between, what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import attrs

from marketpipe.core import timeframes
from marketpipe.core.history import first_slot
from marketpipe.core.planning import slots_in
from marketpipe.core.spans import Span, SpanSet
from marketpipe.core.timeframes import Timeframe

__all__ = ["Flawed", "SeriesCheck", "StoreCheck", "checked", "holes_in", "to_ask_for"]

Series = tuple[str, Timeframe]

# Flaws of rows, as `marketpipe.store.values.Flaw` calls them: these a page of the exchange can put right.
_OF_ROWS = ("UNREADABLE", "MISALIGNED", "UNCOVERED", "IMPOSSIBLE")


class Flawed(Protocol):
    """One thing that is wrong, in ``words``; and the series and span it is in, where it is in one (epoch ms).

    ``kind`` is one of the words of `marketpipe.store.values.Flaw`; ``timeframe`` is as it stands in the database.
    """

    @property
    def kind(self) -> str: ...
    @property
    def words(self) -> str: ...
    @property
    def market(self) -> str | None: ...
    @property
    def timeframe(self) -> str | None: ...
    @property
    def start_ms(self) -> int | None: ...
    @property
    def end_ms(self) -> int | None: ...


class _Counted(Protocol):
    @property
    def market(self) -> str: ...
    @property
    def timeframe(self) -> Timeframe: ...
    @property
    def bars(self) -> int: ...
    @property
    def amended(self) -> int: ...
    @property
    def first_ms(self) -> int | None: ...
    @property
    def last_ms(self) -> int | None: ...


@attrs.frozen
class SeriesCheck:
    """What is stored of one market and timeframe.

    ``first_ms``, ``last_ms``: the open times of the oldest and the newest bar, None if there is none. ``amended``:
    slots that had been stored otherwise. ``holes``: spans between the first and the last proven slot of which nothing
    is known (half-open, epoch ms), together ``slots_missing`` slots.
    """

    market: str
    timeframe: Timeframe
    bars: int
    amended: int
    first_ms: int | None
    last_ms: int | None
    holes: tuple[Span, ...]
    slots_missing: int


@attrs.frozen
class StoreCheck:
    """The database at ``path``: every series of it, and everything in it that is wrong."""

    path: str
    series: tuple[SeriesCheck, ...]
    findings: tuple[Flawed, ...]

    @property
    def bars(self) -> int:
        """How many bars are stored."""
        return sum(each.bars for each in self.series)

    @property
    def slots_missing(self) -> int:
        """Of how many slots between the first and the last proven one of their series nothing is known."""
        return sum(each.slots_missing for each in self.series)

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong. What was never fetched is no wrong: see `is_whole`."""
        return not self.findings

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing between the first and the last slot of any series."""
        return not any(each.holes for each in self.series)


def checked(counted: _Counted, proven: SpanSet) -> SeriesCheck:
    """The check of one series, of which all that is ``proven`` is known."""
    holes = holes_in(counted.timeframe, proven)
    return SeriesCheck(
        market=counted.market,
        timeframe=counted.timeframe,
        bars=counted.bars,
        amended=counted.amended,
        first_ms=counted.first_ms,
        last_ms=counted.last_ms,
        holes=tuple(holes),
        slots_missing=slots_in(counted.timeframe, holes),
    )


def holes_in(timeframe: Timeframe, proven: SpanSet) -> SpanSet:
    """What is not proven between the first and the last proven slot, in whole slots."""
    whole = SpanSet.of(*_outwards(timeframe, proven))
    if not whole:
        return whole
    (start_ms, _), (_, end_ms) = next(iter(whole)), next(reversed(whole))
    return SpanSet.of(*_outwards(timeframe, SpanSet.of((start_ms, end_ms)) - proven))


def to_ask_for(check: StoreCheck, before_ms: int) -> dict[Series, SpanSet]:
    """What the exchange has to tell, so that all is well and whole: holes, and slots of rows that are wrong, by series.

    Only what opens before ``before_ms``. What is wrong with the file itself or with the ledger is left out, and so is
    what belongs to no timeframe there is.
    """
    wanted = _of_wrong_rows(check.findings, before_ms)
    for each in check.series:
        if each.holes:
            series = each.market, each.timeframe
            wanted[series] = wanted.get(series, SpanSet()) | SpanSet.of(*each.holes)
    return wanted


def _of_wrong_rows(findings: Iterable[Flawed], before_ms: int) -> dict[Series, SpanSet]:
    spans: dict[Series, list[Span]] = {}
    for finding in findings:
        if finding.kind not in _OF_ROWS or finding.timeframe is None or finding.timeframe not in [*Timeframe]:
            continue
        assert finding.market is not None
        assert finding.start_ms is not None
        assert finding.end_ms is not None
        start_ms, end_ms = max(0, finding.start_ms), min(before_ms, finding.end_ms)
        if start_ms < end_ms:
            spans.setdefault((finding.market, Timeframe(finding.timeframe)), []).append((start_ms, end_ms))
    return {
        (market, timeframe): SpanSet.of(*_outwards(timeframe, SpanSet.of(*each)))
        for (market, timeframe), each in spans.items()
    }


def _outwards(timeframe: Timeframe, spans: SpanSet) -> list[Span]:
    # Before the first slot there is nothing that could be asked for: weeks, months and years do not begin at 0.
    first_ms = first_slot(timeframe)
    widened = (
        (max(first_ms, timeframes.floor(timeframe, start)), timeframes.ceil(timeframe, end)) for start, end in spans
    )
    return [span for span in widened if span[0] < span[1]]
