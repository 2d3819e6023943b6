"""What the store says of itself: what a write did, what was replaced, what failed, what is stored, what is wrong."""

from __future__ import annotations

from enum import StrEnum

import attrs

from marketpipe.core.timeframes import Timeframe
from marketpipe.models import Candle

__all__ = ["Amendment", "Failure", "Finding", "Flaw", "StoredSeries", "Written"]


@attrs.frozen
class Amendment:
    """A slot that is not any more as it was stored, and how it was: ``was`` is the bar.

    ``was`` is None if the slot was proven empty, or if its row was damaged so that nothing could be read from it.

    ``revision`` is that of the replaced state; what stands there now has the next one. ``replaced_ms`` is when it was
    replaced, by our own clock.
    """

    market: str
    timeframe: Timeframe
    open_ms: int
    revision: int
    replaced_ms: int
    was: Candle | None


@attrs.frozen
class Written:
    """What one write did. ``rows`` bars are stored now that were not stored so before, ``unchanged`` were.

    ``amended``: one for each slot in which a piece contradicted what was stored, in the order of the pieces.
    """

    rows: int = 0
    unchanged: int = 0
    amended: tuple[Amendment, ...] = ()


@attrs.frozen
class Failure:
    """A span that could not be fetched: how often it was tried, when first and last, and why not the last time.

    What of it has been proven since, by pieces that did not cover it whole, is still in it: coverage has the last word.
    """

    market: str
    timeframe: Timeframe
    start_ms: int
    end_ms: int
    attempts: int
    code: str
    message: str
    first_ms: int
    last_ms: int


@attrs.frozen
class StoredSeries:
    """How much is stored of one market and timeframe.

    ``first_ms`` and ``last_ms`` are the open times of the oldest and the newest bar, None if there is none. What is
    proven are ``spans`` stretches of together ``proven_ms`` milliseconds. ``amended`` counts slots, each time anew.
    """

    market: str
    timeframe: Timeframe
    bars: int
    amended: int
    first_ms: int | None
    last_ms: int | None
    spans: int
    proven_ms: int


class Flaw(StrEnum):
    """The kinds of things that can be wrong with a database.

    DAMAGED: SQLite itself finds the file broken. UNREADABLE: a row says what nothing can mean, such as a price that is
    no number. MISALIGNED: a bar or a proven span begins where no slot does. UNCOVERED: bars in a span that is not
    proven. IMPOSSIBLE: a bar whose low is not its lowest, or a number below 0. COVERAGE: proven spans that touch or
    overlap. MISCOUNTED: a series has more or fewer bars than were counted when they were written.
    """

    DAMAGED = "DAMAGED"
    UNREADABLE = "UNREADABLE"
    MISALIGNED = "MISALIGNED"
    UNCOVERED = "UNCOVERED"
    IMPOSSIBLE = "IMPOSSIBLE"
    COVERAGE = "COVERAGE"
    MISCOUNTED = "MISCOUNTED"


@attrs.frozen
class Finding:
    """One thing that is wrong, in ``words``; the span it is in, where it is in one (half-open, epoch ms UTC).

    ``timeframe`` is as it stands in the database: text, since what stands there may be no timeframe at all.
    """

    kind: Flaw
    words: str
    market: str | None = None
    timeframe: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None
