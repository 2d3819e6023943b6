"""The pulse: how late the event loop runs what is due, measured by a task that sleeps, and looks when it wakes.

Whoever computes for long without letting others run delays every task there is; so does a machine that is busy
otherwise. Both show here, and nowhere else that clearly.
"""

from __future__ import annotations

import attrs
import trio

from marketpipe.core.latencies import Latencies
from marketpipe.status import LagStatus

__all__ = ["EVERY_S", "Pulse"]

# Often enough for a 99th percentile over a minute, and too rare to cost anything.
EVERY_S = 0.5
SHARES = (0.50, 0.99)


@attrs.define(eq=False)
class Pulse:
    """State of the actor; `run` is the actor. It wakes for ever: under a mock clock that jumps, it holds time up."""

    _lags: Latencies = attrs.field(factory=Latencies, init=False)
    _longest_s: float = attrs.field(default=0.0, init=False)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sleep, and see how much later than asked it is."""
        task_status.started()
        while True:
            due_s = trio.current_time() + EVERY_S
            await trio.sleep_until(due_s)
            now_s = trio.current_time()
            self._lags.record(now_s - due_s, now_s)
            self._longest_s = max(self._longest_s, now_s - due_s)

    def status(self, now_s: float) -> LagStatus:
        """What it has found."""
        p50_s, p99_s = self._lags.percentiles(now_s, SHARES)
        # A percentile is as exact as its bins, and may come out above the longest.
        return LagStatus(min(p50_s, self._longest_s), min(p99_s, self._longest_s), self._longest_s)
