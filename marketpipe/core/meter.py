"""Counting what the verbs do: how many calls, how many symbols, how long, and how often later than promised."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate

import attrs

from marketpipe.core.latencies import Latencies
from marketpipe.models import Priority

__all__ = ["BOUNDS_S", "Meter", "VerbStatistics"]

# Upper bounds (inclusive) of the latencies that are counted together; every priority's budget is one of them.
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SHARES = (0.50, 0.95, 0.99)


@attrs.frozen
class VerbStatistics:
    """One verb since the start: calls, distinct symbols answered and failed, and how long the calls took.

    ``p50_s``, ``p95_s``, ``p99_s``: latencies that so many percent of the calls of the last one to two minutes did not
    exceed, to 1 %; 0.0 if there was none. ``total_s``: what all calls since the start took together. ``buckets``: pairs
    of a bound in seconds and how many calls took no longer, bounds ascending; there are ``calls`` without a bound.
    """

    calls: int
    symbols: int
    failed: int
    p50_s: float
    p95_s: float
    p99_s: float
    total_s: float
    buckets: tuple[tuple[float, int], ...]


@attrs.define(eq=False)
class _Verb:
    calls: int = 0
    symbols: int = 0
    failed: int = 0
    total_s: float = 0.0
    counts: list[int] = attrs.field(factory=lambda: [0] * (len(BOUNDS_S) + 1))  # by the first bound not exceeded
    latencies: Latencies = attrs.field(factory=Latencies)


@attrs.define(eq=False)
class Meter:
    """Counters of every verb. Recording costs about a microsecond; `statistics` does the arithmetic.

    ``now_s`` is a monotonic clock's reading in seconds and must not go backwards between calls.
    """

    _verbs: dict[str, _Verb] = attrs.field(factory=dict, init=False)
    _late: dict[Priority, int] = attrs.field(factory=lambda: dict.fromkeys(Priority, 0), init=False)
    _given_up: dict[Priority, int] = attrs.field(factory=lambda: dict.fromkeys(Priority, 0), init=False)

    def record(
        self, verb: str, elapsed_s: float, priority: Priority, *, now_s: float, symbols: int = 1, failed: int = 0
    ) -> None:
        """One call has ended at ``now_s``; it is late if it took longer than its priority's budget."""
        counts = self._verbs.get(verb)
        if counts is None:
            counts = self._verbs[verb] = _Verb()
        counts.calls += 1
        counts.symbols += symbols
        counts.failed += failed
        counts.total_s += elapsed_s
        counts.counts[bisect_left(BOUNDS_S, elapsed_s)] += 1
        counts.latencies.record(elapsed_s, now_s)
        if elapsed_s > priority.budget_s:
            self._late[priority] += 1

    def give_up(self, waited_s: float, priority: Priority) -> None:
        """A caller stopped waiting for the exchange; late all the same, if it had waited longer than its budget."""
        self._given_up[priority] += 1
        if waited_s > priority.budget_s:
            self._late[priority] += 1

    def given_up(self) -> Mapping[Priority, int]:
        """Callers who stopped waiting, by priority."""
        return dict(self._given_up)

    def late(self) -> Mapping[Priority, int]:
        """Answers later than their budget, by priority."""
        return dict(self._late)

    def statistics(self, now_s: float) -> Mapping[str, VerbStatistics]:
        """What each verb has done."""
        return {verb: _summary(counts, now_s) for verb, counts in self._verbs.items()}

    @property
    def symbols(self) -> int:
        """Distinct symbols answered by all verbs together, call by call."""
        return sum(counts.symbols for counts in self._verbs.values())


def _summary(counts: _Verb, now_s: float) -> VerbStatistics:
    p50_s, p95_s, p99_s = counts.latencies.percentiles(now_s, SHARES)
    return VerbStatistics(
        calls=counts.calls,
        symbols=counts.symbols,
        failed=counts.failed,
        p50_s=p50_s,
        p95_s=p95_s,
        p99_s=p99_s,
        total_s=counts.total_s,
        buckets=tuple(zip(BOUNDS_S, accumulate(counts.counts), strict=False)),
    )
