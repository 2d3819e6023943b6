"""Counting what the verbs do: how many calls, how many symbols, how long, and how often later than promised."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import attrs

from marketpipe.models import Priority

__all__ = ["Meter", "VerbStatistics"]

# Latencies kept per verb: enough for a steady 95th percentile, small enough to sort at every look.
KEPT = 1000


@attrs.frozen
class VerbStatistics:
    """One verb since the start: calls, distinct symbols answered and failed, latency percentiles of the last calls."""

    calls: int
    symbols: int
    failed: int
    p50_s: float
    p95_s: float


@attrs.define(eq=False)
class _Verb:
    calls: int = 0
    symbols: int = 0
    failed: int = 0
    latencies_s: deque[float] = attrs.field(factory=lambda: deque(maxlen=KEPT))


@attrs.define(eq=False)
class Meter:
    """Counters of every verb. Recording costs well under a microsecond; `statistics` does the arithmetic."""

    _verbs: dict[str, _Verb] = attrs.field(factory=dict, init=False)
    _late: dict[Priority, int] = attrs.field(factory=lambda: dict.fromkeys(Priority, 0), init=False)
    _given_up: dict[Priority, int] = attrs.field(factory=lambda: dict.fromkeys(Priority, 0), init=False)

    def record(self, verb: str, elapsed_s: float, priority: Priority, *, symbols: int = 1, failed: int = 0) -> None:
        """One call has ended; it is late if it took longer than its priority's budget."""
        counts = self._verbs.get(verb)
        if counts is None:
            counts = self._verbs[verb] = _Verb()
        counts.calls += 1
        counts.symbols += symbols
        counts.failed += failed
        counts.latencies_s.append(elapsed_s)
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

    def statistics(self) -> Mapping[str, VerbStatistics]:
        """What each verb has done."""
        return {verb: _summary(counts) for verb, counts in self._verbs.items()}

    @property
    def symbols(self) -> int:
        """Distinct symbols answered by all verbs together, call by call."""
        return sum(counts.symbols for counts in self._verbs.values())


def _summary(counts: _Verb) -> VerbStatistics:
    ordered = sorted(counts.latencies_s)
    return VerbStatistics(
        calls=counts.calls,
        symbols=counts.symbols,
        failed=counts.failed,
        p50_s=_percentile(ordered, 0.50),
        p95_s=_percentile(ordered, 0.95),
    )


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
