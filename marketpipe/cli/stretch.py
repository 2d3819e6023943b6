"""The options that say which stretch of history is meant: which bars, from when, until when."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any

import attrs
import click

from marketpipe.cli import checks
from marketpipe.cli.complaints import say
from marketpipe.cli.moments import WRITTEN
from marketpipe.clock import SystemClock
from marketpipe.core import timeframes
from marketpipe.core.ranges import epoch_ms
from marketpipe.core.timeframes import Timeframe

__all__ = ["TIMEFRAMES", "Stretch", "refuse_what_is_to_come", "stretching"]

TIMEFRAMES = "1s 1m 3m 5m 10m 15m 30m 1h 4h 1d 1w 1M 1y"
# So long after its end a bar may still change at the exchange, which is why nothing younger is ever stored.
GRACE_MS = 2_000


@attrs.frozen
class Stretch:
    """Bars of ``timeframes`` that open in ``[start_ms, end_ms)``; without an end, up to now."""

    timeframes: tuple[Timeframe, ...]
    start_ms: int
    end_ms: int | None

    def settled(self, timeframe: Timeframe, now_ms: int) -> tuple[int, int]:
        """The slots of it that have settled by now: from the first, to the end of the last; they may be none."""
        start_ms = timeframes.ceil(timeframe, self.start_ms)
        top_ms = timeframes.floor(timeframe, now_ms - GRACE_MS)
        if self.end_ms is not None:
            top_ms = min(top_ms, timeframes.ceil(timeframe, self.end_ms))
        return start_ms, max(start_ms, top_ms)

    def unsettled(self, now_ms: int) -> tuple[Timeframe, ...]:
        """Those of its timeframes of which no slot has settled by now."""
        return tuple(each for each in self.timeframes if len(set(self.settled(each, now_ms))) == 1)


def refuse_what_is_to_come(stretch: Stretch) -> None:
    """A stretch without a settled slot is a ``ValueError``; where only some timeframes have none, a line says which.

    For commands about history: there, nothing found would look as if all were found.
    """
    unsettled = stretch.unsettled(SystemClock().now_ms())
    if not unsettled:
        return
    words = f"no {' or '.join(unsettled)} bar has opened and ended in that time yet"
    if len(unsettled) == len(stretch.timeframes):
        raise ValueError(words)
    say(words)


def stretching(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` --timeframe, --start and --end, handed over as ``stretch``."""

    @click.option("--timeframe", "several", metavar="TIMEFRAME", multiple=True, default=("1m",),
                  callback=checks.some_timeframes, help=f"Any number of {TIMEFRAMES}  [default: 1m]")  # fmt: skip
    @click.option("--start", metavar="TIME", required=True, callback=checks.a_moment,
                  help=f"The first bar opens here: {WRITTEN}.")  # fmt: skip
    @click.option("--end", metavar="TIME", callback=checks.a_moment,
                  help="The last bar opens before this.  [default: now]")  # fmt: skip
    @wraps(command)
    def with_stretch(
        *args: Any, several: tuple[Timeframe, ...], start: datetime | int, end: datetime | int | None, **others: Any
    ) -> None:
        checks.a_range(None, start, end)
        until_ms = None if end is None else epoch_ms("--end", end)
        command(*args, stretch=Stretch(several, epoch_ms("--start", start), until_ms), **others)

    return with_stretch
