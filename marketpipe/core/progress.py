"""How far a job is, how fast it goes, and when it will be done: figures that settle rather than jump."""

from __future__ import annotations

import math
from enum import StrEnum

import attrs

from marketpipe.core.timeframes import Timeframe
from marketpipe.errors import MarketPipeError

__all__ = ["JobState", "Outcome", "Pace", "Progress", "Report"]

# A change of pace is half believed after so long.
HALF_S = 10.0


class JobState(StrEnum):
    """PLANNING: what is stored is being looked at. DONE: nothing is missing. FAILED: of some, something still is."""

    PLANNING = "planning"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@attrs.frozen
class Outcome:
    """One market and timeframe of a job.

    ``slots``: how many were to be proven; ``done``: how many of them are; ``gone``: how many the exchange does not keep
    any more. ``bars``: rows received for it, ``pages``: in how many pages. ``error``: why it ended early, or what keeps
    it waiting at the moment.
    """

    market: str
    timeframe: Timeframe
    slots: int
    done: int
    gone: int
    bars: int
    pages: int
    error: MarketPipeError | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing that the exchange has."""
        return self.done + self.gone >= self.slots


@attrs.frozen
class Progress:
    """How far a job is.

    ``total`` and ``done`` count slots, traded or not. ``bars``: rows received, ``pages``: requests answered.
    ``bars_per_s``, ``requests_per_s``: of late. ``eta_s``: seconds until it is done, None while that cannot be said.
    ``current``: the market that was last heard of. ``parts``: the same for each market and timeframe. ``trouble``: what
    keeps it waiting, "" if nothing does.
    """

    state: JobState
    total: int
    done: int
    bars: int
    pages: int
    bars_per_s: float
    requests_per_s: float
    eta_s: float | None
    elapsed_s: float
    current: str
    parts: tuple[Outcome, ...]
    trouble: str = ""

    @property
    def share(self) -> float:
        """From 0.0 to 1.0."""
        return self.done / self.total if self.total else 1.0


@attrs.frozen
class Report:
    """What became of a job. ``parts``: one for each market and timeframe, in the order asked."""

    state: JobState
    bars: int
    pages: int
    elapsed_s: float
    parts: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Those of which something is still missing."""
        return tuple(part for part in self.parts if not part.is_whole)


@attrs.define(eq=False)
class Pace:
    """A rate per second, of late: each second counts half as much as one `HALF_S` after it."""

    _amount: float = attrs.field(default=0.0, init=False)
    _weight_s: float = attrs.field(default=0.0, init=False)
    _last_s: float | None = attrs.field(default=None, init=False)

    def begin(self, now_s: float) -> None:
        """From now on time counts; it does not while nothing is done on purpose."""
        self._last_s = now_s

    def add(self, amount: float, now_s: float) -> None:
        """So much was done."""
        self._settle(now_s)
        self._amount += amount

    def per_s(self, now_s: float) -> float:
        """The rate."""
        self._settle(now_s)
        return self._amount / self._weight_s if self._weight_s > 0 else 0.0

    def _settle(self, now_s: float) -> None:
        if self._last_s is None:
            self._last_s = now_s
        passed_s = now_s - self._last_s
        if passed_s > 0:
            left = math.exp2(-passed_s / HALF_S)
            self._amount *= left
            # The integral of the weights over all the time so far.
            self._weight_s = self._weight_s * left + (1 - left) * HALF_S / math.log(2)
            self._last_s = now_s
