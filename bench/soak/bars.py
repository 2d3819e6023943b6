"""Conservation of bars: each once as FINAL, amended only with the next revision, and in the end as the market had it.

A bar that was told while the stream was in trouble may be wrong, if it is amended; so a wrong or missing one is only
held against the pipe when it has stayed so for long. Numbers are those of the simulated market (1e-8 of a unit,
turnover 1e-16), times are epoch milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

import attrs

from marketpipe.core.timeframes import Timeframe, floor, next_open
from marketpipe.sim.day import Bar

__all__ = ["BarBook", "Shown"]

# A check looks at bars that ended so long ago.
SETTLED_MS = 20_000
LOST_MS = 420_000
# For so long it is remembered which revision was told: longer than anything is repaired.
KEPT_MS = 1_800_000
# The market's turnover is exact; what is told of it is rounded to this.
UNIT = 100_000_000

# The bars of a market that open in [start_ms, end_ms), as they are once all trades before end_ms are known.
Truth = Callable[[str, Timeframe, int, int], Sequence[Bar]]


@attrs.frozen
class Shown:
    """One bar as it was told: what `core.models.Candle` has, in the market's units."""

    open_ms: int
    prices: tuple[int, int, int, int]
    volume: int
    turnover: Decimal
    is_final: bool
    revision: int

    def flaw(self, bar: Bar) -> str:
        """How it differs from ``bar``; "" if it does not."""
        true = (bar.opening, bar.high, bar.low, bar.close)
        if (self.prices, self.volume) != (true, bar.volume):
            return f"was {true}, {bar.volume}; told was {self.prices}, {self.volume}"
        if abs(self.turnover * UNIT - bar.turnover) > UNIT / 2:
            return f"turned over {bar.turnover}; told was {self.turnover}"
        return ""


@attrs.define
class BarBook:
    """What one consumer was told of the bars of one market. Every method returns a line for each broken promise."""

    market: str
    timeframe: Timeframe
    truth: Truth
    since_ms: int
    checked: int = 0
    amended: int = 0
    _revisions: dict[int, int] = attrs.field(factory=dict, init=False)
    _unproven: dict[int, Shown] = attrs.field(factory=dict, init=False)
    _missing: set[int] = attrs.field(factory=set, init=False)
    _frontier_ms: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # The one that runs when we begin may have begun before us.
        self._frontier_ms = next_open(self.timeframe, self.since_ms)

    def bar(self, shown: Shown) -> Iterator[str]:
        """A bar came; running ones are only of interest after their end was told."""
        before = self._revisions.get(shown.open_ms)
        if not shown.is_final:
            if before is not None:
                yield f"{self._name(shown.open_ms)} runs again after it was final"
            return
        if before is not None and shown.revision != before + 1:
            yield f"{self._name(shown.open_ms)} was final with revision {before}, and again with {shown.revision}"
        self.amended += before is not None
        self._revisions[shown.open_ms] = shown.revision
        self._unproven[shown.open_ms] = shown
        self._missing.discard(shown.open_ms)

    def check(self, now_ms: int) -> Iterator[str]:
        """Hold what came against the market, up to some seconds ago."""
        self._account(now_ms - SETTLED_MS)
        yield from self._broken(now_ms - LOST_MS)
        for open_ms in list(self._revisions):
            if next_open(self.timeframe, open_ms) < now_ms - KEPT_MS:
                del self._revisions[open_ms]

    def close(self, end_ms: int) -> Iterator[str]:
        """Nothing more comes, and every bar that ended before ``end_ms`` must be as it was."""
        self._account(end_ms)
        yield from self._broken(end_ms)

    @property
    def behind(self) -> int:
        """How many bars are missing or wrong at the moment."""
        return len(self._missing) + sum(open_ms < self._frontier_ms for open_ms in self._unproven)

    def _account(self, until_ms: int) -> None:
        """Look at every bar that ended by ``until_ms``."""
        for open_ms, shown in list(self._unproven.items()):
            if next_open(self.timeframe, open_ms) <= until_ms:
                true = self._true(open_ms)
                if true is not None and not shown.flaw(true):
                    del self._unproven[open_ms]
                    self.checked += 1
        # All that open before it are over.
        over_ms = floor(self.timeframe, until_ms)
        if over_ms > self._frontier_ms:
            for bar in self.truth(self.market, self.timeframe, self._frontier_ms, over_ms):
                if bar.open_ms not in self._revisions:
                    self._missing.add(bar.open_ms)
            self._frontier_ms = over_ms

    def _broken(self, before_ms: int) -> Iterator[str]:
        """What ended by ``before_ms`` and is still not as it was."""
        for open_ms in sorted(self._missing):
            if next_open(self.timeframe, open_ms) <= before_ms:
                self._missing.discard(open_ms)
                yield f"{self._name(open_ms)} was never final"
        for open_ms, shown in list(self._unproven.items()):
            if next_open(self.timeframe, open_ms) <= before_ms:
                del self._unproven[open_ms]
                true = self._true(open_ms)
                yield f"{self._name(open_ms)} {f'never was: {shown}' if true is None else shown.flaw(true)}"

    def _true(self, open_ms: int) -> Bar | None:
        found = self.truth(self.market, self.timeframe, open_ms, next_open(self.timeframe, open_ms))
        return found[0] if found and found[0].open_ms == open_ms else None

    def _name(self, open_ms: int) -> str:
        return f"{self.market} {self.timeframe} at {open_ms}"
