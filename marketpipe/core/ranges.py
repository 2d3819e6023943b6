"""Which bars a caller means by ``count``, ``start`` and ``end``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs

__all__ = ["BarRange", "bar_range", "epoch_ms", "positive_count"]

DEFAULT_COUNT = 200
# An integer below this is a number of seconds: as milliseconds it would lie before March 1973.
SECONDS_BELOW = 100_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_MS = (datetime(9999, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)

Moment = datetime | int


@attrs.frozen
class BarRange:
    """At most two of the three are set, as with pandas.date_range; with ``start_ms`` alone, all bars until now.

    ``count`` with ``start_ms`` means the first bars from there on, otherwise the newest before ``end_ms``.
    """

    count: int | None
    start_ms: int | None
    end_ms: int | None


def bar_range(count: int | None, start: Moment | None, end: Moment | None) -> BarRange:
    """The range meant; `DEFAULT_COUNT` bars if nothing bounds it. Misuse is a ``ValueError`` or ``TypeError``."""
    if count is not None and start is not None and end is not None:
        raise ValueError("give at most two of count, start and end")
    if count is not None:
        count = positive_count(count)
    elif start is None:
        count = DEFAULT_COUNT
    start_ms = None if start is None else epoch_ms("start", start)
    end_ms = None if end is None else epoch_ms("end", end)
    if start_ms is not None and end_ms is not None and start_ms >= end_ms:
        raise ValueError(f"start must be before end, was start={start}, end={end}")
    return BarRange(count, start_ms, end_ms)


def positive_count(count: int) -> int:
    """``count`` if it is a whole number of at least 1; otherwise ``TypeError`` or ``ValueError`` naming it."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"count must be a whole number of at least 1, was {count!r}")
    if count < 1:
        raise ValueError(f"count must be a whole number of at least 1, was {count}")
    return count


def epoch_ms(name: str, moment: Moment) -> int:
    """``moment`` in epoch milliseconds. A naive datetime is refused: nobody could say which zone it means."""
    if isinstance(moment, datetime):
        if moment.utcoffset() is None:
            raise ValueError(
                f"{name} must be an aware datetime, was {moment}: give it a timezone, "
                f"such as {name}=datetime(..., tzinfo=timezone.utc)"
            )
        at_ms = (moment - EPOCH) // timedelta(milliseconds=1)
    elif isinstance(moment, bool) or not isinstance(moment, int):
        raise TypeError(f"{name} must be an aware datetime or epoch milliseconds, was {moment!r}")
    elif 0 < moment < SECONDS_BELOW:
        raise ValueError(f"{name} must be epoch milliseconds, was {moment}: that looks like seconds")
    else:
        at_ms = moment
    if not 0 <= at_ms < MAX_MS:
        raise ValueError(f"{name} must lie between 1970 and 9999, was {moment}")
    return at_ms
